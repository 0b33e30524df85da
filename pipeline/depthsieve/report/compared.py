"""Another store beside the first: what is known of both, on the images that both have. Axes: N images of both."""

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import PurePath

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray
from PIL import Image

from depthsieve.core.errors import UsageError
from depthsieve.reliability.masking import masked_share, threshold_code
from depthsieve.report.figures import expected_error, floats
from depthsieve.report.maps import Maps
from depthsieve.report.page import shown, table
from depthsieve.store import Store

SHOWN = ("reliability", "valid", "depth_range", "flatness", "sky", "edges")
"""The numbers of labels whose means stand side by side."""


@dataclass(frozen=True)
class Compared:
    """The other store. ``row_N`` are the rows of the first store's table whose images both have, ``table`` the other's
    rows of the same images, in the same order; ``histogram_K`` is that of the other's dataset."""

    store: Store
    row_N: NDArray[np.int64]
    table: pa.Table
    labelled: int
    histogram_K: NDArray[np.int64]


def matched(first: pa.Table, other: pa.Table, stores: tuple[Store, Store], histogram_K: NDArray[np.int64]) -> Compared:
    """The images that two tables both have, by id. Raises :class:`UsageError` where there is none."""
    place_N = pc.index_in(first["id"], value_set=other["id"]).combine_chunks()
    row_N = np.flatnonzero(place_N.is_valid().to_numpy(zero_copy_only=False))
    if not len(row_N):
        raise UsageError(
            f"{stores[0].location} and {stores[1].location} have no image in common: one has "
            f"{first['id'][0].as_py()!r}, the other {other['id'][0].as_py()!r}; ids must be equal"
        )
    return Compared(stores[1], row_N, other.take(place_N.drop_null()), len(other), histogram_K)


def short_names(locations: Sequence[str]) -> list[str]:
    """What to call stores: the ends of their paths, as long as they need to be to differ."""
    parts = [PurePath(location).parts or (location,) for location in locations]
    length = next((n for n in range(1, 50) if len({part[-n:] for part in parts}) == len(parts)), 1)
    names = ["/".join(part[-length:]) for part in parts]
    return names if len(set(names)) == len(names) else [f"{name} ({n})" for n, name in enumerate(names, 1)]


def difference(one: Maps, other: Maps) -> float:
    """How far two labels' depth is apart: the mean difference of their pictures, 0..1, each over its own range, where
    both are valid; NaN where that is nowhere."""
    height, width = one.shape
    maps = [
        np.asarray(Image.fromarray(map_HW).resize((width, height), Image.Resampling.NEAREST), np.int16)
        for map_HW in (other.level_HW, other.reliability_HW)
    ]
    both_HW = (one.reliability_HW > 0) & (maps[1] > 0)
    if not both_HW.any():
        return float("nan")
    return float(np.abs(one.level_HW.astype(np.int16) - maps[0])[both_HW].mean() / 255)


def section(first: Store, table_N: pa.Table, histogram_K: NDArray[np.int64], other: Compared, drop: float) -> str:
    """The section of a page about both stores."""
    names = [shown(name) for name in short_names([first.location, other.store.location])]
    both = (table_N.take(pa.array(other.row_N)), other.table)
    codes = [threshold_code(one_K, drop) for one_K in (histogram_K, other.histogram_K)]
    shares = [masked_share(one_K, code) for one_K, code in zip((histogram_K, other.histogram_K), codes, strict=True)]
    rows = [
        ["labelled images", f"{len(table_N):,}", f"{other.labelled:,}"],
        ["label spec", first.fingerprint[:12], other.store.fingerprint[:12]],
        [f"threshold code at drop {drop:g}, dataset", *(f"{code}" for code in codes)],
        ["expected error there", expected_error(first, codes[0]), expected_error(other.store, codes[1])],
        ["masked", *(f"{share:.1%}" for share in shares)],
    ]
    for name in SHOWN:
        means = [np.nanmean(value_N) if np.isfinite(value_N := floats(one, name)).any() else None for one in both]
        if None not in means:
            rows.append([f"{name}, mean of images in both", *(f"{mean:.4g}" for mean in means)])
    return f"""<section aria-labelledby="compared-title">
<h2 id="compared-title">Two stores</h2>
<p class="soft">{len(other.row_N):,} images are in both, and the gallery is chosen from them. {escape(names[1])} is
<code>{escape(shown(other.store.location))}</code>.</p>
{table(["labels", *names], rows)}
</section>"""
