"""One label as pictures: photo, depth, reliability and mask. Axes: H row, W column, 3 red, green, blue (uint8)."""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from depthsieve.core.records import Quantity
from depthsieve.images import colours
from depthsieve.images.colours import Bools, Rgb


@dataclass(frozen=True, eq=False)
class Panels:
    """One label as pictures, upright, all at label shape.

    ``image_HW3`` is the photo; where that cannot be read, ``no_photo`` says why and checks stand for it. Depth is red
    where it is near and blue where it is far, whatever the ``quantity``. Reliability is dark where the label is
    doubtful, stretched from the first to the last of ``codes``. Checks stand where there is no label. ``depth_span``
    are the 2nd and the 98th percentile of what is valid, ``masked`` is the share of the valid pixels that the mask
    drops, 0..1, ``unlabelled`` the share of the pixels that have no label.
    """

    id: str
    image_HW3: Rgb
    depth_HW3: Rgb
    reliability_HW3: Rgb
    mask_HW3: Rgb
    reliability_HW: NDArray[np.uint8]
    quantity: Quantity
    codes: tuple[float, float]
    depth_span: tuple[float, float]
    masked: float
    unlabelled: float
    no_photo: str = ""


def panels_of(
    image_id: str,
    photo_HW3: Rgb | None,
    depth_HW: NDArray[Any],
    reliability_HW: NDArray[np.uint8],
    mask_HW: Bools,
    quantity: Quantity,
    no_photo: str = "",
) -> Panels:
    """The pictures of a label. ``photo_HW3`` is None where it cannot be read; ``mask_HW`` is True = train."""
    valid_HW = np.asarray(reliability_HW > 0)
    codes = colours.span_of_codes([reliability_HW])
    no_photo_HW3 = np.full((*depth_HW.shape, 3), 128, np.uint8)
    return Panels(
        image_id,
        colours.with_checks(no_photo_HW3, np.zeros_like(valid_HW)) if photo_HW3 is None else photo_HW3,
        colours.depth_colours(depth_HW, quantity, valid_HW),
        colours.reliability_colours(reliability_HW, codes),
        colours.mask_colours(no_photo_HW3 if photo_HW3 is None else photo_HW3, reliability_HW, mask_HW),
        reliability_HW,
        quantity,
        codes,
        colours.span_of(depth_HW[valid_HW]),
        int((valid_HW & ~mask_HW).sum()) / max(int(valid_HW.sum()), 1),
        1 - float(valid_HW.mean()),
        no_photo,
    )


def with_common_codes(labels: Sequence[Panels]) -> list[Panels]:
    """The same labels with one scale of reliability for all of them, so that their pictures compare."""
    codes = colours.span_of_codes(label.reliability_HW for label in labels)
    return [
        dataclasses.replace(
            label, codes=codes, reliability_HW3=colours.reliability_colours(label.reliability_HW, codes)
        )
        for label in labels
    ]
