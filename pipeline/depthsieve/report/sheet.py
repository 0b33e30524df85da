"""The contact sheet: image, depth, reliability and mask of some labels, side by side on one PNG.

Axes: H row, W column, 3 red, green, blue (uint8).
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from depthsieve.core.records import Quantity
from depthsieve.images import colours
from depthsieve.images.colours import Rgb
from depthsieve.store import Store
from depthsieve.training import PseudoLabelDataset

BOX = (336, 252)
"""Width and height that a picture gets at most; a row is as high as its pictures."""

MARGIN = 16
CAPTION = 26
FOOT = 44
PAPER, INK, SOFT = "white", "#1c2024", "#5b6470"


@dataclass(frozen=True)
class Panels:
    """One label as pictures, upright, all at label shape. ``masked`` is the share of its valid pixels that the mask
    drops, 0..1; ``unlabelled`` the share of its pixels that have no label."""

    id: str
    image_HW3: Rgb
    depth_HW3: Rgb
    reliability_HW3: Rgb
    mask_HW3: Rgb
    masked: float
    unlabelled: float


def label_panels(store: Store | str | Path, image_ids: Sequence[str], drop: float = 0.10) -> Iterator[Panels]:
    """The labels of ``image_ids`` as pictures, in that order, each with its mask at ``drop``.

    Raises :class:`LoaderError` for an id without a label, or an image that cannot be read or has changed.
    """
    dataset = PseudoLabelDataset(store, subset=image_ids, drop=drop)
    places = {image_id: place for place, image_id in enumerate(dataset.ids)}
    for image_id in image_ids:
        sample = dataset[places[image_id]]
        rgb_HW3 = (sample["image"].permute(1, 2, 0) * 255).round().byte().numpy()
        reliability_HW, mask_HW = sample["reliability"].numpy(), sample["mask"].numpy()
        valid_HW = reliability_HW > 0
        yield Panels(
            sample["id"],
            rgb_HW3,
            colours.depth_colours(sample["depth"].numpy(), cast(Quantity, dataset.quantity), valid_HW),
            colours.reliability_colours(reliability_HW),
            colours.mask_colours(rgb_HW3, reliability_HW, mask_HW),
            1 - float(mask_HW.sum()) / max(int(valid_HW.sum()), 1),
            1 - float(valid_HW.mean()),
        )


def contact_sheet(store: Store | str | Path, image_ids: Sequence[str], path: str | Path, drop: float = 0.10) -> Path:
    """Write a PNG with a row for each of ``image_ids``: image, depth, reliability, and what ``drop`` masks.

    Small labels are enlarged with sharp pixels, large ones made smaller by averaging. ``path`` is
    overwritten. Raises as :func:`label_panels`.
    """
    rows = [_row(panels) for panels in label_panels(store, image_ids, drop)]
    columns = ("image", "depth", "reliability", f"mask at {100 * drop:g}%")
    width = MARGIN + len(columns) * (BOX[0] + MARGIN)
    heights = [CAPTION + max(picture.height for picture in pictures) + MARGIN for _, pictures in rows]
    height = MARGIN + CAPTION + sum(heights) + FOOT
    sheet = Image.new("RGB", (width, height), PAPER)
    draw = ImageDraw.Draw(sheet)
    for column, name in enumerate(columns):
        draw.text((_left(column), MARGIN), name, INK, _font(17))
    top = MARGIN + CAPTION
    for row_height, (title, pictures) in zip(heights, rows, strict=True):
        draw.text((MARGIN, top + 4), _shortened(title, width - 2 * MARGIN), SOFT, _font(14))
        for column, picture in enumerate(pictures):
            sheet.paste(picture, (_left(column), top + CAPTION))
        top += row_height
    _draw_keys(sheet, height - FOOT)
    path = Path(path)
    sheet.save(path, "PNG")
    return path


def _row(panels: Panels) -> tuple[str, list[Image.Image]]:
    title = f"{panels.id}   {panels.masked:.1%} masked"
    if panels.unlabelled:
        title += f", {panels.unlabelled:.1%} without a label"
    shown = (panels.image_HW3, panels.depth_HW3, panels.reliability_HW3, panels.mask_HW3)
    return title, [_fitted(rgb_HW3) for rgb_HW3 in shown]


def _fitted(rgb_HW3: Rgb) -> Image.Image:
    """The picture as large as the box allows."""
    picture = Image.fromarray(rgb_HW3)
    scale = min(BOX[0] / picture.width, BOX[1] / picture.height)
    size = (max(1, round(picture.width * scale)), max(1, round(picture.height * scale)))
    return picture.resize(size, Image.Resampling.NEAREST if scale >= 1 else Image.Resampling.BOX)


def _draw_keys(sheet: Image.Image, top: int) -> None:
    """What the colours mean, each under its column."""
    draw = ImageDraw.Draw(sheet)
    scales = {1: (colours.SPECTRAL_256, "far", "near"), 2: (colours.VIRIDIS_256, "doubtful", "reliable")}
    for column, (table, low, high) in scales.items():
        left = _left(column)
        draw.text((left, top), low, SOFT, _font(14))
        left += int(_font(14).getlength(low)) + 8
        sheet.paste(Image.fromarray(table[None]).resize((160, 14)), (left, top + 3))
        draw.text((left + 168, top), high, SOFT, _font(14))
    left = _left(3)
    checks = colours.with_checks(np.zeros((14, 20, 3), np.uint8), np.zeros((14, 20), np.bool_))
    for swatch, text in ((np.full((14, 20, 3), colours.TINT, np.uint8), "masked"), (checks, "no label")):
        sheet.paste(Image.fromarray(swatch), (left, top + 3))
        draw.text((left + 28, top), text, SOFT, _font(14))
        left += 120


def _left(column: int) -> int:
    return MARGIN + column * (BOX[0] + MARGIN)


def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)


def _shortened(text: str, width: int) -> str:
    """``text`` without its middle where it is too wide: the ends of a path tell most."""
    font, shown, kept = _font(14), text, len(text)
    while font.getlength(shown) > width:
        kept -= 2
        shown = text[: kept // 2] + "…" + text[-(kept // 2) :]
    return shown
