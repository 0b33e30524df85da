"""Write the report of a store: figures of all of it, and a gallery of its labels. Axes: N images of the store."""

import json
import shutil
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from depthsieve.core.errors import LoaderError, UsageError
from depthsieve.core.records import ImageFailure
from depthsieve.core.settings import whole_number
from depthsieve.curation.subset import Dropped, read_dropped
from depthsieve.curation.table import image_table
from depthsieve.reliability.masking import drop_count
from depthsieve.report import compared, figures, folder, funnel, judged, overview
from depthsieve.report.choice import choose
from depthsieve.report.compared import Compared
from depthsieve.report.gallery import gallery, write_images
from depthsieve.report.judged import Judged, read_judged
from depthsieve.report.page import WEB
from depthsieve.storage import expand, is_url
from depthsieve.store import Store, open_store
from depthsieve.store.index import settled_index
from depthsieve.training.selection import select
from depthsieve.training.thresholds import Thresholds

Numbers = dict[str, tuple[str, NDArray[np.float64]]]
"""By name what a number means, and float64 [N], NaN where it is not known."""


@dataclass(frozen=True)
class ReportSummary:
    """What :func:`report_labels` wrote.

    ``page`` is the file to open, ``images`` counts those with a label in the ``store`` and ``shown`` those of them in
    the gallery. ``failed`` counts images without a label because they failed. ``without_photo`` are shown images whose
    photo could not be read, ``unreadable`` those whose label could not, each with the reason. ``notes`` are lines that
    a person should see.
    """

    page: str
    store: str
    images: int
    shown: int
    failed: int
    bytes: int
    seconds: float
    without_photo: tuple[ImageFailure, ...] = ()
    unreadable: tuple[ImageFailure, ...] = ()
    notes: tuple[str, ...] = ()


def report_labels(
    store: str | Path | Store,
    out: str | Path,
    *,
    images: int = 300,
    drop: float = 0.10,
    reliability: str | None = None,
    subset: str | Path | None = None,
    evaluation: str | Path | None = None,
    compare: str | Path | Store | None = None,
    compare_evaluation: str | Path | None = None,
    progress: bool = True,
) -> ReportSummary:
    """Write a page that shows a store's labels, to open from disk: it needs no server and no network.

    The page has figures of the whole store and a gallery of some of its images, each with photo, depth, reliability,
    and the mask that a loader would train with, under a slider for ``drop``.

    Args:
        store: path or URL of a store, or an open one.
        out: folder of the page, ``index.html``. An earlier report there is replaced; a folder with other files is
            refused.
        images: how many images the gallery has. Of a larger store those at both ends of every number that the gallery
            sorts by, some that each step of a ``subset`` dropped, and others at random. Each takes about as much room
            as its photo at label shape, twice.
        drop: where the slider stands at first, and what the figures mask: a share of the valid pixels, in [0, 1).
        reliability: the name of a layer that :func:`depthsieve.recalibrate` made, to show instead of the labels' own.
        subset: a file that :func:`depthsieve.curate` wrote: the page shows its funnel, what was dropped and why; masks
            at the scope of the dataset are those of the images that it keeps.
        evaluation: a result of :func:`depthsieve.evaluate_labels`, the folder that it wrote, or ``evaluation.json``:
            the page shows accuracy and sparsification curves, and sorts by the error of images.
        compare: another store, which is shown beside the first. The gallery is then chosen from the images that both
            have, by equal ids.
        compare_evaluation: the ``evaluation`` of that store; needs both.
        progress: show a bar on stderr, or in the notebook.

    Raises:
        UsageError: an invalid option, stores without an image in common, an evaluation of other images, or an ``out``
            that has other files or cannot be written to.
        StoreError: no store, or one that cannot be read, or without that layer.
        LoaderError: a store without a labelled image, or a subset that does not fit the store.
        RunError: the disk does not take the page.
    """
    start = time.perf_counter()
    drop_count(drop, 0)  # raises where drop is out of range
    count = whole_number(images)
    if count is None or count < 1:
        raise UsageError(f"images must be a whole number of at least 1, not {images!r}")
    if is_url(out):
        raise UsageError(f"a report is written to a folder of this machine, not to {out}; copy it from there")
    if compare_evaluation is not None and (compare is None or evaluation is None):
        raise UsageError("compare_evaluation needs compare and evaluation: it is shown beside that")
    opened = store if isinstance(store, Store) else open_store(store)
    opened = opened if reliability is None else opened.with_layer(reliability)
    found = [read_judged(place) for place in (evaluation, compare_evaluation) if place is not None]

    index, _ = settled_index(opened)
    states = Counter(index["status"].to_pylist())
    table = image_table(opened, index, drop, progress)
    _check_labelled(table, opened, states)
    histogram_K = _histogram(opened, subset)
    dropped = None if subset is None else read_dropped(Path(expand(subset)))
    other = None if compare is None else _compared(opened, table, compare, drop, progress)
    notes = [_check_judged(one, table, opened) for one in found[:1]]
    numbers = figures.numbers_of(table) | _scores(table, found) | _of_other(len(table), other)
    pool = np.arange(len(table)) if other is None else other.row_N
    rows = pool[choose([value_N[pool] for _, value_N in numbers.values()], _groups(table, pool, dropped), count)]
    names = compared.short_names([opened.location, *([] if other is None else [other.store.location])])

    target = Path(expand(out))
    folder.prepare(target)
    facts = overview.Facts(
        store=opened,
        states=states,
        labelled=len(table),
        chosen_from=len(pool),
        shown=len(rows),
        drop=drop,
        histogram_K=histogram_K,
        failures=figures.failures(index),
        spreads=tuple(
            one for name, (about, value_N) in numbers.items() if (one := figures.spread(name, about, value_N))
        ),
        speed=figures.images_per_second(opened),
        sections=(
            *([judged.section(list(zip(names, found, strict=False)), drop)] if found else []),
            *([] if other is None else [compared.section(opened, table, histogram_K, other, drop)]),
            *([] if dropped is None else [funnel.section(dropped, str(subset))]),
        ),
    )
    shown = [(names[0], opened, histogram_K)]
    if other is not None:
        shown.append((names[1], other.store, other.histogram_K))
    failed = index.filter(pc.is_in(index["status"], value_set=pa.array(["failed", "rejected"])))
    with folder.new_files(target) as part:
        _write_assets(part)
        ids = table["id"].take(pa.array(rows)).to_pylist()
        written = list(write_images([one for _, one, _ in shown], ids, part, progress))
        of_shown = {name: (about, value_N[rows]) for name, (about, value_N) in numbers.items()}
        body = gallery(written, failed, of_shown, shown, dropped, len(pool), drop)
        (part / "gallery.js").write_text(f"depthsieve.start({json.dumps(body, allow_nan=False)});\n", "utf-8")
        size = sum(path.stat().st_size for path in part.rglob("*") if path.is_file())
        folder.finish(target, part, overview.page_of(facts, part.stem))
    return ReportSummary(
        page=str(target / folder.PAGE),
        store=opened.location,
        images=len(table),
        shown=len(rows),
        failed=facts.failed,
        bytes=size,
        seconds=time.perf_counter() - start,
        without_photo=tuple(ImageFailure(one.id, one.no_photo) for one in written if one.no_photo),
        unreadable=tuple(ImageFailure(one.id, one.no_label) for one in written if one.no_label),
        notes=tuple(note for note in notes if note),
    )


def _check_labelled(table: pa.Table, store: Store, states: Counter[str]) -> None:
    if not len(table):
        listed = ", ".join(f"{many} {state}" for state, many in sorted(states.items())) or "it is empty"
        raise LoaderError(f"{store.location} has no labelled image ({listed}); label images first: `depthsieve label`")


def _histogram(store: Store, subset: str | Path | None) -> NDArray[np.int64]:
    """The reliability codes of a dataset of the store, as its thresholds are taken from."""
    return Thresholds(store, select(store, subset), 0.0, "image").histogram()


def _compared(first: Store, table: pa.Table, compare: str | Path | Store, drop: float, progress: bool) -> Compared:
    other = compare if isinstance(compare, Store) else open_store(compare)
    index, _ = settled_index(other)
    rows = image_table(other, index, drop, progress)
    _check_labelled(rows, other, Counter(index["status"].to_pylist()))
    return compared.matched(table, rows, (first, other), _histogram(other, None))


def _check_judged(one: Judged, table: pa.Table, store: Store) -> str | None:
    """Raise :class:`UsageError` for an evaluation of other images; a note where it has some of them."""
    known = len(set(one.scores) & set(table["id"].to_pylist()))
    if not known:
        raise UsageError(f"the evaluation has no image of {store.location}; evaluate that store: `depthsieve evaluate`")
    lacking = len(one.scores) - known
    return f"{lacking:,} images of the evaluation are not in {store.location}" if lacking else None


def _scores(table: pa.Table, found: Sequence[Judged]) -> Numbers:
    """What evaluations say of single images."""
    ids, numbers = table["id"].to_pylist(), {}
    for prefix, one in zip(("", "other_"), found, strict=False):
        for name, about in judged.SCORES.items():
            values = [one.scores[image_id][name] if image_id in one.scores else np.nan for image_id in ids]
            numbers[f"{prefix}{name}"] = (about, np.array(values, np.float64))
    return numbers


def _of_other(count: int, other: Compared | None) -> Numbers:
    """What the gallery sorts by of a second store: the reliability of its labels."""
    if other is None:
        return {}
    value_N = np.full(count, np.nan)
    value_N[other.row_N] = figures.floats(other.table, "reliability")
    return {"other_reliability": ("mean reliability code of the valid pixels in the other store", value_N)}


def _groups(table: pa.Table, pool: NDArray[np.int64], dropped: Dropped | None) -> list[NDArray[np.int64]]:
    """For each step of a subset, the places in ``pool`` of the images that it dropped."""
    if dropped is None:
        return []
    step_N = np.array([dropped.step.get(one, "") for one in table["id"].take(pa.array(pool)).to_pylist()], object)
    return [np.flatnonzero(step_N == step.name) for step in dropped.steps()]


def _write_assets(part: Path) -> None:
    """The style, which is that of all pages and what a report adds, and the script."""
    style = "".join((WEB / name).read_text("utf-8") for name in ("page.css", "report.css"))
    (part / "report.css").write_text(style, "utf-8")
    shutil.copyfile(WEB / "report.js", part / "report.js")
