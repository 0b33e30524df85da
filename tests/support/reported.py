"""What the tests of reports share: names of images, and what a page and its script hold."""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
from browser import Page

from depthsieve.images import colours

HOSTILE = (
    "<img src=x onerror=alert(1)>.png",
    "</script><script>alert(2)</script>.png".replace("/", "∕"),
    "sub</a/script><svg onload=alert(3)>.png",
    "new\nline \u2028 \u202egnp.png",
    "\"quotes\" 'and' `ticks` ${alert(4)}.png",
    "__proto__.png",
)
PLAIN = ("plain/small.png", "plain/tall.png", "plain/wide.png")


def tinted(page: Page, canvas: str) -> np.ndarray:
    """Where a canvas of the page has the colour of what is masked: bool [H,W]."""
    height, width, rgba = page.pixels(canvas)
    return (np.frombuffer(rgba, np.uint8).reshape(height, width, 4)[..., :3] == colours.TINT).all(axis=-1)


def gallery(out: Path) -> dict[str, Any]:
    """What the page's script gets."""
    text = next(out.glob("files-*/gallery.js")).read_text()
    assert text.isascii(), "U+2028 ends a line of JavaScript"
    return json.loads(re.fullmatch(r"depthsieve\.start\((.*)\);\n", text, re.DOTALL)[1])  # type: ignore[index]
