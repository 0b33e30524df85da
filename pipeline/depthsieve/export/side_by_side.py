"""Pictures of a frame side by side, over a line that says which frame it is and what its colours mean.

Axes: H row, W column, 3 red, green, blue (uint8).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from depthsieve.images.colours import Rgb

GAP, LINE = 4, 28
"""Pixels between pictures, and of the line below them."""

LEAST_WIDTH = 180
"""Narrower pictures have no line: it would not fit."""

INK, PAPER = (232, 234, 237), (24, 26, 29)
_SIZE = 14


@dataclass(frozen=True, eq=False)
class Panel:
    """A picture [H,W,3], and what is said of it: ``text``, or with a ``table`` [256,3] of colours what its ``first``
    and its ``last`` stand for."""

    rgb_HW3: Rgb
    text: str = ""
    table: Rgb | None = None
    first: str = ""
    last: str = ""


def side_by_side(panels: Sequence[Panel]) -> Rgb:
    """Pictures of one shape beside each other. Both sides of the whole are even, as videos have to be."""
    height, width = panels[0].rgb_HW3.shape[:2]
    has_line = width >= LEAST_WIDTH
    whole = (len(panels) * (width + GAP) - GAP, height + LINE * has_line)
    sheet = Image.new("RGB", (whole[0] + whole[0] % 2, whole[1] + whole[1] % 2), PAPER)
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(_SIZE)
    for number, panel in enumerate(panels):
        left = number * (width + GAP)
        sheet.paste(Image.fromarray(panel.rgb_HW3), (left, 0))
        if not has_line:
            continue
        top, at = height + 5, left + 8
        if panel.table is None:
            draw.text((at, top), panel.text, INK, font)
            continue
        draw.text((at, top), panel.first, INK, font)
        at += int(font.getlength(panel.first)) + 6
        end = left + width - 8 - int(font.getlength(panel.last)) - 6
        if end - at >= 8:
            sheet.paste(Image.fromarray(panel.table[None]).resize((min(end - at, 96), 12)), (at, top + 4))
            end = min(end, at + 96)
        draw.text((end + 6, top), panel.last, INK, font)
    return np.asarray(sheet)
