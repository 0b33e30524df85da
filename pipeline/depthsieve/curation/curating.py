"""Curate a store: run the funnel, write the subset file, explain single images. Axes: N images."""

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from depthsieve.core.clips import HOW_TO_HAVE_CLIPS, Clips
from depthsieve.core.errors import StoreError, UsageError
from depthsieve.core.processes import cores
from depthsieve.curation.funnel import LABELLED, Funnel, NoneLeft, Step, unlabelled
from depthsieve.curation.pixels import Pixels
from depthsieve.curation.settings import KEEP, CurateSettings
from depthsieve.curation.subset import check_target, subset_table, write_subset
from depthsieve.curation.table import empty_table, image_table
from depthsieve.curation.vectors import Vectors
from depthsieve.curation.where import where as select
from depthsieve.store import Store, open_store
from depthsieve.store.features import FeatureReader
from depthsieve.store.index import settled_index


@dataclass(frozen=True)
class Explanation:
    """Why one image is in or out. ``checks`` has, for each cut that is made, its name, the image's value (None: not
    known) and whether it passes; ``values`` all numbers that are known of it; ``instead_of`` the near-duplicates that
    went for it."""

    id: str
    keep: bool
    step: str
    reason: str
    checks: tuple[tuple[str, float | None, bool], ...]
    values: dict[str, Any]
    instead_of: tuple[str, ...] = ()


@dataclass(frozen=True)
class CurateSummary:
    """What :func:`curate` chose.

    ``images`` are all that the store knows, ``kept`` those that stay, ``steps`` the funnel between them; ``subset`` is
    the file that was written, None for a dry run; ``notes`` are lines that a person should see.
    """

    store: str
    subset: str | None
    images: int
    kept: int
    steps: tuple[Step, ...]
    seconds: float
    notes: tuple[str, ...] = ()
    explained: Explanation | None = None


def curate(
    store: str | Path | Store,
    subset: str | Path | None = None,
    *,
    where: str | None = None,
    faulty: bool = False,
    min_size: float | None = None,
    max_dark: float | None = None,
    max_bright: float | None = None,
    min_detail: float | None = None,
    min_sharpness: float | None = None,
    max_text: float | None = None,
    min_colourfulness: float | None = None,
    min_depth_range: float | None = None,
    max_flatness: float | None = None,
    max_sky: float | None = None,
    min_reliability: float | None = None,
    max_unreliable: float | None = None,
    near_frames: float | None = None,
    near_duplicates: float | None = None,
    keep: str = ",".join(KEEP),
    crops: bool = True,
    balance: str | None = None,
    cap: int | None = None,
    max_images: int | None = None,
    drop: float = 0.10,
    reliability: str | None = None,
    explain: str | None = None,
    progress: bool = True,
) -> CurateSummary:
    """Choose the images of a store that are worth training on; every other one gets the reason why it is left out.

    Steps come in a fixed order: images without a label; ``where``; cuts; ``near_frames``; near-duplicates;
    ``balance``; ``max_images``. The same store and options give the same file to the byte.

    Args:
        store: path or URL of a store, or an open one.
        subset: the Parquet file to write: ``id``, ``keep``, ``step`` and ``reason`` of every image, for
            ``PseudoLabelDataset(store, subset=...)``. One that is there is replaced, if it is a subset file. None
            writes nothing.
        where: one SQL expression over the columns of the index, true for images that stay.
        faulty: drop images that are dark, bright, blurred, without detail, or pages of text; sets the cuts that
            docs/curation.md lists, where they are not set themselves.
        min_size: least pixels of the shorter side.
        max_dark: most of the pixels that may be nearly black, 0..1.
        max_bright: most of the pixels that may be blown out, 0..1.
        min_detail: least local contrast, of 255 levels.
        min_sharpness: least sharpness, 0..1.
        max_text: largest ratio of finest detail to coarser detail; pages of text are high.
        min_colourfulness: least colourfulness; 0 is grey, 45 quite colourful.
        min_depth_range: least depth range of the label, 0..1.
        max_flatness: largest flatness of the label, 0..1; 1 is one plane.
        max_sky: most of the label that may be sky, or as far, 0..1.
        min_reliability: least mean reliability code, 1..255.
        max_unreliable: most of the pixels that may be under the dataset's threshold for ``drop``, 0..1.
        near_frames: cosine similarity, over 0 and up to 1, from which a frame is dropped as a near-duplicate of the
            last one kept of its clip, in the order of time (see :mod:`depthsieve.core.clips`); frames of different
            clips are not compared. None: all stay.
        near_duplicates: cosine similarity, over 0 and up to 1, from which images are near-duplicates, of which the
            best stays. None: all stay.
        keep: what decides which near-duplicate stays, in this order: some of
            :data:`depthsieve.curation.settings.KEEP`, separated by commas.
        crops: find near-duplicates too that show a part of one another, by their pixels; images that are somewhat alike
            are read again.
        balance: ``"sources"``, or a number of clusters of like images; of each at most ``cap`` stay.
        cap: for ``balance``.
        max_images: keep this many images, the most diverse ones.
        drop: share of the pixels that training will mask over the dataset, for ``max_unreliable``.
        reliability: the name of a layer that :func:`depthsieve.recalibrate` made, whose reliability counts.
        explain: the id of an image; the summary then says why it is in or out, also where no image is left.
        progress: bars on stderr while it takes long.

    Raises:
        UsageError: an invalid option, or a file that is no subset file.
        StoreError: no store, no labels, no image left, no clips for ``near_frames``, or columns that an option needs
            are not known.
    """
    start = time.perf_counter()
    settings = CurateSettings(
        where=where,
        faulty=faulty,
        min_size=min_size,
        max_dark=max_dark,
        max_bright=max_bright,
        min_detail=min_detail,
        min_sharpness=min_sharpness,
        max_text=max_text,
        min_colourfulness=min_colourfulness,
        min_depth_range=min_depth_range,
        max_flatness=max_flatness,
        max_sky=max_sky,
        min_reliability=min_reliability,
        max_unreliable=max_unreliable,
        near_frames=near_frames,
        near_duplicates=near_duplicates,
        keep=keep,
        crops=crops,
        balance=balance,
        cap=cap,
        max_images=max_images,
        drop=drop,
    )
    if subset is not None:
        check_target(Path(subset))
    opened = store if isinstance(store, Store) else open_store(store, reliability)
    index, snapshot = settled_index(opened)
    if explain is not None and explain not in index["id"].to_pylist():
        raise UsageError(f"{opened.location} knows no image {explain!r}; ids look like {_example(index)}")
    if where is not None:
        select(empty_table(index), where)  # what is wrong with it is told before anything takes long
    sequences = opened.sequences()
    if near_frames is not None and not Clips(index["id"].to_pylist(), sequences):
        raise StoreError(
            f"{opened.location} has no clips, which near_frames (--near-frames) goes by: {HOW_TO_HAVE_CLIPS}"
        )
    table = image_table(opened, index, settings.drop, progress)
    if not len(table):
        raise StoreError(f"{opened.location} has no labelled image; label into it first")
    without, states = unlabelled(index)
    pixels = Pixels(opened, table["id"].to_pylist(), cores(), progress)
    funnel = Funnel(
        table, settings, _Vectors(opened, table, progress).of, pixels, cores(), _remedy(opened), sequences, progress
    )
    funnel.steps.append(Step(LABELLED, len(index), len(without)))
    try:
        funnel.run()
    except NoneLeft:
        if explain is None or subset is not None:
            raise
    if subset is not None:
        carried = {"fingerprint": opened.fingerprint, "snapshot": snapshot}
        write_subset(Path(subset), subset_table(funnel, without, states, carried | {"settings": settings.to_json()}))
    return CurateSummary(
        store=opened.location,
        subset=None if subset is None else str(subset),
        images=len(index),
        kept=int((funnel.step_N == "").sum()),
        steps=tuple(funnel.steps),
        seconds=time.perf_counter() - start,
        notes=_notes(opened, table),
        explained=None if explain is None else _explain(explain, funnel, without, states),
    )


class _Vectors:
    """The vectors of a table's images, read when they are first needed."""

    def __init__(self, store: Store, table: pa.Table, progress: bool) -> None:
        self._store, self._table, self._progress = store, table, progress
        self._read: tuple[NDArray[np.float16] | None, str] | None = None

    def of(self, rows: NDArray[np.int64], common: NDArray[np.int64] | None = None) -> tuple[Vectors, str]:
        """The vectors of some rows, and what they are. What the rows ``common`` have in common is taken off; None: what
        all of ``rows`` have. Raises :class:`StoreError` where an image has none."""
        if self._read is None:
            self._read = self._embeddings()
        embedding_ND, kind = self._read
        if embedding_ND is not None:
            if common is None:
                return Vectors.of(embedding_ND[rows]), kind
            return Vectors(embedding_ND[rows], Vectors.of(embedding_ND[common]).centre_D), kind
        phash = self._table["phash"].combine_chunks().take(pa.array(rows))
        if phash.null_count:
            raise StoreError(
                f"{phash.null_count} of {len(rows)} images have no perceptual hash, which near-duplicates, balance and "
                f"max go by; {_remedy(self._store)}"
            )
        return Vectors.of_hashes(phash.to_numpy()), kind

    def _embeddings(self) -> tuple[NDArray[np.float16] | None, str]:
        features = FeatureReader(self._store)
        if features.embedding_size is None:
            return None, "perceptual hash (no embeddings are kept)"
        shard_N, row_N = (self._table[name].combine_chunks() for name in ("shard", "row"))
        embedding_ND = features.embeddings(shard_N, row_N, self._progress)
        lacking = int((~embedding_ND.any(axis=1)).sum())
        if lacking:
            return None, f"perceptual hash ({lacking} images have no embedding)"
        return embedding_ND, "the teacher's backbone"


def _notes(store: Store, table: pa.Table) -> tuple[str, ...]:
    lacking = table["sharpness"].null_count
    if not lacking:
        return ()
    return (f"{lacking} of {len(table)} labelled images have no image signals; {_remedy(store)}",)


def _remedy(store: Store) -> str:
    """What to do where features lack."""
    if store.spec.kind == "fused":
        parents = store.generations()[-1].parents
        return f"fused stores keep none: curate one of the stores that it was fused of ({' or '.join(parents)})"
    return f"`depthsieve features {store.location}` adds the features that lack"


def _explain(image_id: str, funnel: Funnel, without: pa.Table, states: list[str]) -> Explanation:
    ids = funnel.table["id"].to_pylist()
    if image_id not in ids:
        reason = states[without["id"].to_pylist().index(image_id)]
        return Explanation(image_id, False, LABELLED, reason, (), {})
    row = ids.index(image_id)
    values = funnel.table.slice(row, 1).to_pylist()[0]
    checks = []
    for cut, limit in funnel.settings.cuts:
        value = values[cut.column]
        passes = value is not None and not (value < limit if cut.least else value > limit)
        checks.append((f"{cut.option.replace('_', '-')} {limit:g}", value, passes))
    instead_of = tuple(ids[one] for one, (stays, _, _) in funnel.duplicate_of.items() if stays == row)
    step, reason = str(funnel.step_N[row]), str(funnel.reason_N[row])
    return Explanation(image_id, step == "", step, reason, tuple(checks), values, instead_of)


def _example(index: pa.Table) -> str:
    return repr(index["id"][0].as_py()) if len(index) else "source/path"
