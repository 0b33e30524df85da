"""Draw one label for a notebook: photo, depth and reliability side by side. Axes: H row, W column, 3 RGB."""

import io
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from depthsieve.core.records import Quantity
from depthsieve.images.colours import Rgb, depth_colours, reliability_colours, span_of, with_checks

BOX = (400, 300)
"""Width and height that each panel gets at most, in pixels."""
GAP, HEADING = 8, 22
PAPER, INK = "white", "#1c2024"


def draw_label(
    photo_HW3: Rgb | None, depth_HW: NDArray[Any], reliability_HW: NDArray[np.uint8], quantity: Quantity
) -> bytes:
    """A PNG of the three panels under a line each that says what the colours mean.

    Depth is red where it is near and blue where it is far, whatever its ``quantity``; reliability is light where the
    label is reliable, stretched over the codes that are there. Pixels without a label, and a ``photo_HW3`` that is
    None, are chequered.
    """
    valid_HW = reliability_HW > 0
    if photo_HW3 is None:
        nothing_HW = np.zeros(depth_HW.shape, np.bool_)
        photo_HW3 = with_checks(np.zeros((*depth_HW.shape, 3), np.uint8), nothing_HW)
        photo = "photo (cannot be read)"
    else:
        photo = "photo"
    low, high = span_of(reliability_HW)
    panels = [
        (photo, photo_HW3),
        (f"{quantity}: red near, blue far", depth_colours(depth_HW, quantity, valid_HW)),
        (f"reliability: {low:.0f} dark to {high:.0f} light", reliability_colours(reliability_HW, (low, high))),
    ]
    height, width = depth_HW.shape
    scale = min(BOX[0] / width, BOX[1] / height)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    step = max(size[0], 200) + GAP  # wide enough for the headings of a narrow panel
    canvas = Image.new("RGB", (len(panels) * step - GAP, HEADING + size[1]), PAPER)
    draw = ImageDraw.Draw(canvas)
    for number, (heading, rgb_HW3) in enumerate(panels):
        draw.text((number * step, 3), heading, INK, ImageFont.load_default(13))
        how = Image.Resampling.NEAREST if scale >= 1 else Image.Resampling.BOX
        canvas.paste(Image.fromarray(rgb_HW3).resize(size, how), (number * step, HEADING))
    buffer = io.BytesIO()
    canvas.save(buffer, "PNG")
    return buffer.getvalue()
