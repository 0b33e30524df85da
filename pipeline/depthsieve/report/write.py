"""Write the report of a store: figures of all of it, and a gallery of its labels. Axes: N images, H row, W column."""

import json
import shutil
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from depthsieve.core.errors import DepthsieveError, UsageError, one_line
from depthsieve.core.processes import cores
from depthsieve.core.progress import with_progress
from depthsieve.core.records import ImageFailure, Shape
from depthsieve.core.settings import whole_number
from depthsieve.curation.table import image_table
from depthsieve.images import colours
from depthsieve.reliability.masking import drop_count
from depthsieve.report import figures, folder, overview
from depthsieve.report.choice import choose
from depthsieve.report.maps import Maps, image_script, thumbnail
from depthsieve.report.page import WEB
from depthsieve.storage import expand, is_url
from depthsieve.store import Store, open_store
from depthsieve.store.index import settled_index
from depthsieve.training.selection import select
from depthsieve.training.thresholds import Thresholds

FAILED_SHOWN = 500
"""How many images without a label the gallery lists; the figures count all."""


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


@dataclass(frozen=True)
class _Written:
    """One image of the gallery: the shape of its thumbnail's pictures, or what went wrong."""

    shape: Shape | None
    no_photo: str | None = None
    no_label: str | None = None


def report_labels(
    store: str | Path | Store,
    out: str | Path,
    *,
    images: int = 300,
    drop: float = 0.10,
    reliability: str | None = None,
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
            sorts by, and others at random. Each takes about as much room as its photo at label shape, twice.
        drop: where the slider stands at first, and what the figures mask: a share of the valid pixels, in [0, 1).
        reliability: the name of a layer that :func:`depthsieve.recalibrate` made, to show instead of the labels' own.
        progress: show a bar on stderr, or in the notebook.

    Raises:
        UsageError: an invalid option, or an ``out`` that has other files or cannot be written to.
        StoreError: no store, or one that cannot be read, or without that layer.
        LoaderError: a store without a labelled image.
        RunError: the disk does not take the page.
    """
    start = time.perf_counter()
    drop_count(drop, 0)  # raises where drop is out of range
    count = whole_number(images)
    if count is None or count < 1:
        raise UsageError(f"images must be a whole number of at least 1, not {images!r}")
    if is_url(out):
        raise UsageError(f"a report is written to a folder of this machine, not to {out}; copy it from there")
    opened = store if isinstance(store, Store) else open_store(store)
    opened = opened if reliability is None else opened.with_layer(reliability)
    target = Path(expand(out))
    index, _ = settled_index(opened)
    states = Counter(index["status"].to_pylist())
    table = image_table(opened, index, drop, progress)
    figures.check_labelled(table, opened, [f"{many} {state}" for state, many in sorted(states.items())])
    folder.prepare(target)
    numbers = figures.numbers_of(table)
    rows = choose([value_N for _, value_N in numbers.values()], [], count)
    chosen = table.take(pa.array(rows))
    facts = overview.Facts(
        store=opened,
        states=states,
        labelled=len(table),
        shown=len(rows),
        drop=drop,
        histogram_K=Thresholds(opened, select(opened, None), drop, "image").histogram(),
        failures=figures.failures(index),
        spreads=tuple(
            found for name, (about, value_N) in numbers.items() if (found := figures.spread(name, about, value_N))
        ),
        speed=figures.images_per_second(opened),
    )
    with folder.new_files(target) as part:
        _write_assets(part)
        written = list(_write_images(opened, chosen["id"].to_pylist(), part, progress))
        gallery = _gallery(
            facts, index, chosen, {name: value_N[rows] for name, (_, value_N) in numbers.items()}, written
        )
        (part / "gallery.js").write_text(f"depthsieve.start({json.dumps(gallery, allow_nan=False)});\n", "utf-8")
        size = sum(path.stat().st_size for path in part.rglob("*") if path.is_file())
        folder.finish(target, part, overview.page_of(facts, part.stem))
    ids = chosen["id"].to_pylist()
    without_photo = tuple(
        ImageFailure(image_id, one.no_photo) for image_id, one in zip(ids, written, strict=True) if one.no_photo
    )
    unreadable = tuple(
        ImageFailure(image_id, one.no_label) for image_id, one in zip(ids, written, strict=True) if one.no_label
    )
    return ReportSummary(
        page=str(target / folder.PAGE),
        store=opened.location,
        images=len(table),
        shown=len(rows),
        failed=states["failed"] + states["rejected"],
        bytes=size,
        seconds=time.perf_counter() - start,
        without_photo=without_photo,
        unreadable=unreadable,
    )


def _write_assets(part: Path) -> None:
    """The style, which is that of all pages and what a report adds, and the script."""
    style = "".join((WEB / name).read_text("utf-8") for name in ("page.css", "report.css"))
    (part / "report.css").write_text(style, "utf-8")
    shutil.copyfile(WEB / "report.js", part / "report.js")


def _write_images(store: Store, ids: Sequence[str], part: Path, progress: bool) -> Iterator[_Written]:
    """Write script and thumbnail of each image, by its number in ``ids``."""
    (part / "images").mkdir()

    def write(number: int) -> _Written:
        label = store.label(ids[number])
        try:
            maps = Maps.of(label.depth, label.reliability, label.quantity)
        except DepthsieveError as error:
            return _Written(None, no_label=one_line(error))
        try:
            photo_HW3, problem = label.image(), None
        except DepthsieveError as error:
            photo_HW3, problem = None, one_line(error)
        (part / "images" / f"{number}.js").write_bytes(image_script(number, photo_HW3, [maps]))
        data, shape = thumbnail(photo_HW3, maps)
        (part / "images" / f"{number}.jpg").write_bytes(data)
        return _Written(shape, no_photo=problem)

    with ThreadPoolExecutor(cores()) as pool:
        yield from with_progress(pool.map(write, range(len(ids))), "report", total=len(ids), shown=progress)


def _gallery(
    facts: overview.Facts,
    index: pa.Table,
    chosen: pa.Table,
    numbers: dict[str, NDArray[np.float64]],
    written: Sequence[_Written],
) -> dict[str, Any]:
    """What the page's script gets: a row for each image that is shown, by columns, failed ones last."""
    failed = index.filter(pc.is_in(index["status"], value_set=pa.array(["failed", "rejected"])))[:FAILED_SHOWN]
    ids = [*chosen["id"].to_pylist(), *failed["id"].to_pylist()]
    rest = len(failed)
    return {
        "shown": len(chosen),
        "images": facts.labelled,
        "failed": facts.failed,
        "ids": ids,
        "states": [*("labelled" if one.shape else "unreadable" for one in written), *failed["status"].to_pylist()],
        "reasons": [*(one.no_label or one.no_photo for one in written), *failed["reason"].to_pylist()],
        "sizes": [*((one.shape or (0, 0))[::-1] for one in written), *[(0, 0)] * rest],
        "numbers": {
            name: [*(None if np.isnan(value) else float(f"{value:.5g}") for value in value_N.tolist()), *[None] * rest]
            for name, value_N in numbers.items()
            if np.isfinite(value_N).any()
        },
        "about": {name: spread.about for spread in facts.spreads for name in [spread.name]},
        "stores": [{"name": Path(facts.store.location).name, "histogram": facts.histogram_K.tolist()}],
        "quantity": facts.store.spec.quantity,
        "drop": facts.drop,
        "errors": figures.CODE_ERRORS,
        "colours": {
            "depth": colours.SPECTRAL_256.tolist(),
            "reliability": colours.VIRIDIS_256.tolist(),
            "masked": colours.TINT,
            "checks": colours.CHECKS,
        },
    }
