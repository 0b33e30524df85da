"""Labels side by side on one picture: photo, depth, reliability and mask, with a key to their colours.

Axes: H row, W column, 3 red, green, blue (uint8).
"""

import io
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from PIL.PngImagePlugin import PngInfo

from depthsieve.images import colours
from depthsieve.images.colours import Rgb
from depthsieve.images.lettering import lettering
from depthsieve.images.panels import Panels, with_common_codes

BOX = (336, 252)
"""Width and height that a picture of a contact sheet gets at most; a row is as high as its pictures."""

LARGE_BOX = (720, 540)
"""The same where one label is shown alone, two pictures beside each other."""

LEAST_SIDE = 12
"""A picture is never thinner than this, so that one pixel high is still seen."""

LEAST_COLUMN = 268
"""Width of a column whose pictures are narrower: its key needs that."""

MARGIN = 16
CAPTION = 26
HEAD = 50
PAPER, INK, SOFT = "white", "#1c2024", "#5b6470"


def draw_sheet(labels: Sequence[Panels], drop: float, large: bool = False, title: str = "") -> Image.Image:
    """A row for each label, under a line that names it: photo, depth, reliability, and what ``drop`` masks.

    Small labels are enlarged with sharp pixels, large ones reduced by averaging. Depth is stretched over each map,
    reliability over all that is shown, so that rows compare. ``large`` shows each label as two rows of larger pictures.
    ``title`` stands above all.
    """
    box, columns = (LARGE_BOX, 2) if large else (BOX, 4)
    labels = with_common_codes(labels)
    rows = [[_fitted(rgb_HW3, box) for rgb_HW3 in _pictures(label)] for label in labels]
    column_width = max(LEAST_COLUMN, *(picture.width for row in rows for picture in row))
    width = MARGIN + columns * (column_width + MARGIN)
    steps = [HEAD * large + row[0].height + MARGIN for row in rows]
    height = MARGIN + CAPTION * bool(title) + HEAD * (not large) + sum(CAPTION + 4 // columns * step for step in steps)
    sheet = Image.new("RGB", (width, height), PAPER)
    lefts = [MARGIN + number * (column_width + MARGIN) for number in range(columns)]
    top = MARGIN
    if title:
        _draw_line(sheet, top, title, INK)
        top += CAPTION
    if not large:
        _draw_heads(sheet, [(left, top) for left in lefts], labels, drop)
        top += HEAD
    for label, row, step in zip(labels, rows, steps, strict=True):
        _draw_line(sheet, top + 4, _title(label), SOFT)
        top += CAPTION
        places = [(lefts[number % columns], top + number // columns * step) for number in range(4)]
        if large:
            _draw_heads(sheet, places, labels, drop)
        for picture, (left, above) in zip(row, places, strict=True):
            sheet.paste(picture, (left, above + HEAD * large))
        top += 4 // columns * step
    return sheet


def png(picture: Image.Image, **texts: str) -> bytes:
    """A picture as a PNG file with these text chunks."""
    chunks = PngInfo()
    for key, text in texts.items():
        chunks.add_itxt(key, text)
    buffer = io.BytesIO()
    picture.save(buffer, "PNG", pnginfo=chunks)
    return buffer.getvalue()


def _draw_line(sheet: Image.Image, top: int, text: str, colour: str) -> None:
    """A line across the sheet."""
    letters = lettering(14)
    letters.draw(ImageDraw.Draw(sheet), (MARGIN, top), letters.shortened(text, sheet.width - 2 * MARGIN), colour)


def _pictures(label: Panels) -> tuple[Rgb, ...]:
    return label.image_HW3, label.depth_HW3, label.reliability_HW3, label.mask_HW3


def _title(label: Panels) -> str:
    """A label's id, and what is known of it in numbers."""
    known = label.reliability_HW[label.reliability_HW > 0]
    height, width = label.reliability_HW.shape
    parts = [f"{width}x{height}"]
    if label.quantity == "depth" and known.size:
        parts.append("{:.3g} to {:.3g} m".format(*label.depth_span))
    if known.size:
        parts.append(f"mean reliability {known.mean():.1f}")
    parts.append(f"{label.masked:.1%} masked")
    if label.unlabelled:
        parts.append(f"{label.unlabelled:.1%} without a label")
    if label.no_photo:
        parts.append("photo cannot be read")
    return f"{label.id}   {', '.join(parts)}"


def _fitted(rgb_HW3: Rgb, box: tuple[int, int]) -> Image.Image:
    """The picture as large as the box allows."""
    picture = Image.fromarray(rgb_HW3)
    scale = min(box[0] / picture.width, box[1] / picture.height)
    size = (max(LEAST_SIDE, round(picture.width * scale)), max(LEAST_SIDE, round(picture.height * scale)))
    return picture.resize(size, Image.Resampling.NEAREST if scale >= 1 else Image.Resampling.BOX)


def _draw_heads(sheet: Image.Image, places: Sequence[tuple[int, int]], labels: Sequence[Panels], drop: float) -> None:
    """What each of the four pictures is and what its colours mean, at these (left, top)."""
    draw = ImageDraw.Draw(sheet)
    low, high = labels[0].codes
    unit = "metres" if labels[0].quantity == "depth" else "disparity"
    each = ", each over its own range" if len(labels) > 1 else ""
    reliability = "reliability code" if low < high else f"reliability code: {low:.0f} everywhere"
    names = ("photo", f"depth ({unit}{each})", reliability, f"mask at {100 * drop:g}%")
    for (left, top), name in zip(places, names, strict=True):
        draw.text((left, top), name, INK, ImageFont.load_default(15))
    scales = {
        1: (colours.SPECTRAL_256, "far", "near"),
        2: (colours.VIRIDIS_256, f"{low:.0f} doubtful", f"{high:.0f} reliable"),
    }
    for number, (table, first, last) in scales.items():
        if number == 2 and low == high:
            continue
        left, top = places[number][0], places[number][1] + 24
        draw.text((left, top), first, SOFT, ImageFont.load_default(14))
        left += int(ImageFont.load_default(14).getlength(first)) + 8
        sheet.paste(Image.fromarray(table[None]).resize((96, 14)), (left, top + 3))
        draw.text((left + 104, top), last, SOFT, ImageFont.load_default(14))
    left, top = places[3][0], places[3][1] + 24
    checks = colours.with_checks(np.zeros((14, 20, 3), np.uint8), np.zeros((14, 20), np.bool_))
    for swatch, text in ((np.full((14, 20, 3), colours.TINT, np.uint8), "masked"), (checks, "no label")):
        sheet.paste(Image.fromarray(swatch), (left, top + 3))
        draw.text((left + 28, top), text, SOFT, ImageFont.load_default(14))
        left += 110
