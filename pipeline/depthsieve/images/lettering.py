"""Text on pictures, in any script.

Pillow's own font has English letters and little more. For other characters fontconfig's ``fc-match`` names a font of
the system, where both are there; else they are written as Python escapes them, such as ``\\u5199``.
"""

import functools
import subprocess
import unicodedata
from itertools import groupby
from pathlib import Path

from PIL import ImageDraw, ImageFont

Font = ImageFont.FreeTypeFont | ImageFont.ImageFont

_NO_CHARACTER = "\U0010ffff"

_WAIT_S = 20


class Lettering:
    """Draws text ``size`` pixels high in one line, each character in a font that has it."""

    def __init__(self, size: int) -> None:
        self._size = size
        self._fonts: list[Font] = [ImageFont.load_default(size)]

    def draw(self, draw: ImageDraw.ImageDraw, place: tuple[int, int], text: str, colour: str) -> None:
        """Write ``text``, which is :meth:`legible`, with its left upper corner at ``place``."""
        left, top = place
        base = top + _ascent(self._fonts[0])
        for font, run in self._runs(text):
            draw.text((left, base - _ascent(font)), run, colour, font)
            left += int(font.getlength(run))

    def length(self, text: str) -> float:
        """How wide ``text`` is, which is :meth:`legible`."""
        return sum(int(font.getlength(run)) for font, run in self._runs(text))

    def legible(self, text: str) -> str:
        """``text`` in one line: letters and their accents composed; control characters, bytes that are no text, and
        what no font has, as Python escapes them."""
        return "".join(
            one if one.isprintable() and self._font(one) is not None else one.encode("unicode_escape").decode()
            for one in unicodedata.normalize("NFC", text)
        )

    def shortened(self, text: str, width: int) -> str:
        """``text``, legible, without its middle where it is too wide: the ends of a path tell most."""
        text = shown = self.legible(text)
        kept = len(text)
        while self.length(shown) > width:
            kept -= 2
            shown = text[: kept // 2] + "…" + text[-(kept // 2) :]
        return shown

    def _runs(self, text: str) -> list[tuple[Font, str]]:
        """Pieces of ``text`` that have one font. Together they are drawn as their script wants it."""
        return [(font, "".join(run)) for font, run in groupby(text, lambda one: self._font(one) or self._fonts[0])]

    @functools.lru_cache(maxsize=4096)  # noqa: B019 (there are two of these, for good)
    def _font(self, character: str) -> Font | None:
        """A font that has a character."""
        for font in self._fonts:
            if _has(font, character):
                return font
        found = _system_font(character, self._size)
        if found is None or not _has(found, character):
            return None
        self._fonts.append(found)
        return found


@functools.lru_cache(maxsize=8)
def lettering(size: int) -> Lettering:
    """Text of this size."""
    return Lettering(size)


def _system_font(character: str, size: int) -> Font | None:
    """What fontconfig takes for the font that is best for a character, which it may not have."""
    call = ["fc-match", "--format", "%{file}", f":charset={ord(character):x}"]
    try:
        found = subprocess.run(call, capture_output=True, check=True, timeout=_WAIT_S, text=True).stdout
        return ImageFont.truetype(Path(found), size)
    except (OSError, ValueError, subprocess.SubprocessError):  # no fontconfig, or no font of this size
        return None


def _has(font: Font, character: str) -> bool:
    """Whether a font has a character: what it has not, it draws as it draws one that there cannot be."""
    if not isinstance(font, ImageFont.FreeTypeFont):
        return character.isascii()
    return character == " " or bytes(font.getmask(character)) != bytes(font.getmask(_NO_CHARACTER))


def _ascent(font: Font) -> int:
    return font.getmetrics()[0] if isinstance(font, ImageFont.FreeTypeFont) else 0
