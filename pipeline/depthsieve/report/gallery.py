"""The images of a report: for each its thumbnail and its maps, and the rows that the page's script sorts and filters.

Axes: N images of the gallery.
"""

from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from depthsieve.core.errors import ROOM, DepthsieveError, one_line
from depthsieve.core.processes import cores
from depthsieve.core.progress import with_progress
from depthsieve.curation.subset import Dropped
from depthsieve.images import colours
from depthsieve.report.compared import difference
from depthsieve.report.figures import code_errors, is_calibrated
from depthsieve.report.maps import Maps, image_script, thumbnail
from depthsieve.store import Store

FAILED_SHOWN = 500
"""How many images without a label the gallery lists; the figures count all."""

DIFFERENCE = "mean difference of the two stores' depth pictures, 0..1"


@dataclass(frozen=True)
class Written:
    """One image of the gallery: width, height and stride of its thumbnail's pictures, or why it has none; why it has no
    photo; and how far the depth of a second store is from the first's (NaN: not known)."""

    id: str
    size: tuple[int, int, int] | None
    no_label: str | None = None
    no_photo: str | None = None
    difference: float = float("nan")


def write_images(stores: Sequence[Store], ids: Sequence[str], part: Path, progress: bool) -> Iterator[Written]:
    """Write ``images/N.js`` and ``images/N.jpg`` of each image, by its number in ``ids``, with the labels of all
    ``stores``. One label that cannot be read costs no other."""
    (part / "images").mkdir()

    def write(number: int) -> Written:
        image_id = ids[number]
        try:
            maps = [_maps(store, image_id) for store in stores]
        except DepthsieveError as error:
            return Written(image_id, None, no_label=one_line(error, ROOM))
        try:
            photo_HW3, problem = stores[0].label(image_id).image(), None
        except DepthsieveError as error:
            photo_HW3, problem = None, one_line(error, ROOM)
        (part / "images" / f"{number}.js").write_bytes(image_script(number, photo_HW3, maps))
        strip = thumbnail(photo_HW3, maps[0])
        (part / "images" / f"{number}.jpg").write_bytes(strip.jpeg)
        apart = difference(maps[0], maps[1]) if len(maps) > 1 else float("nan")
        return Written(image_id, (strip.width, strip.height, strip.stride), no_photo=problem, difference=apart)

    with ThreadPoolExecutor(cores()) as pool:
        yield from with_progress(pool.map(write, range(len(ids))), "report", total=len(ids), shown=progress)


def _maps(store: Store, image_id: str) -> Maps:
    label = store.label(image_id)
    return Maps.of(label.depth, label.reliability, label.quantity)


def gallery(
    written: Sequence[Written],
    failed: pa.Table,
    numbers: Mapping[str, tuple[str, NDArray[np.float64]]],
    stores: Sequence[tuple[str, Store, NDArray[np.int64]]],
    dropped: Dropped | None,
    images: int,
    drop: float,
) -> dict[str, Any]:
    """What the page's script gets: by columns a row for each image that is shown, then those of the ``failed``.

    ``numbers`` has of each number what it means, and its values [N]; ``stores`` the name and the dataset's histogram of
    each. ``images`` counts those that the gallery was chosen from.
    """
    failed, rest = failed[:FAILED_SHOWN], min(len(failed), FAILED_SHOWN)
    ids = [*(one.id for one in written), *failed["id"].to_pylist()]
    if len(stores) > 1:
        numbers = {**numbers, "depth_difference": (DIFFERENCE, np.array([one.difference for one in written]))}
    known = {name: one for name, one in numbers.items() if np.isfinite(one[1]).any()}
    body = {
        "shown": len(written),
        "images": images,
        "ids": ids,
        "states": [*("labelled" if one.size else "unreadable" for one in written), *failed["status"].to_pylist()],
        "reasons": [*(one.no_label or one.no_photo for one in written), *failed["reason"].to_pylist()],
        "sizes": [*(one.size for one in written), *[None] * rest],
        "numbers": {name: [*map(_plain, value_N.tolist()), *[None] * rest] for name, (_, value_N) in known.items()},
        "about": {name: about for name, (about, _) in known.items()},
        "stores": [
            {
                "name": name,
                "quantity": store.spec.quantity,
                "calibrated": is_calibrated(store),
                "errors": code_errors(store),
                "histogram": histogram_K.tolist(),
            }
            for name, store, histogram_K in stores
        ],
        "drop": drop,
        "colours": {
            "depth": colours.SPECTRAL_256.tolist(),
            "reliability": colours.VIRIDIS_256.tolist(),
            "masked": colours.TINT,
            "checks": colours.CHECKS,
        },
    }
    if dropped is not None:
        body["stepNames"] = [step.name for step in dropped.steps()]
        body["steps"] = [dropped.step.get(one, "") for one in ids]
        body["whyDropped"] = [dropped.reason.get(one) for one in ids]
    return body


def _plain(value: float) -> float | None:
    return float(f"{value:.5g}") if np.isfinite(value) else None
