"""Whether the compressed data of a JPEG are whole.

Where they end early or are overwritten, libjpeg makes up the rest of the picture and warns; Pillow swallows the
warnings. simplejpeg raises them, so the data are unpacked once more with it, at an eighth of the size.
"""

import re

import simplejpeg

MOST_PADDING = 8
"""Zeros that may stand behind the last pixel: some cameras pad the data to whole words."""

_DAMAGE = re.compile(r"[Pp]remature end of [\w ]+|bad (?:Huffman|arithmetic) code|found marker .* instead of RST")
_TOO_MUCH = re.compile(r"(\d+) extraneous bytes before marker")


def find_damage(data: bytes, is_cmyk: bool) -> str | None:
    """What is wrong with the compressed data of a JPEG that can be decoded; None if nothing is.

    Only warnings that mean lost pixels count. Arithmetic coding, which hardly anybody uses, has no way to tell.
    """
    try:
        simplejpeg.decode_jpeg(data, "CMYK" if is_cmyk else "GRAY", min_height=1, min_width=1, strict=True)
    except ValueError as error:
        words = str(error)
        if found := _TOO_MUCH.search(words):
            count = int(found[1])
            if count > MOST_PADDING or bytes(count) + b"\xff\xd9" not in data:
                return f"its pixel data do not fit its size, {count:,} bytes are left over"
        elif found := _DAMAGE.search(words):
            return f"its pixel data are cut short or overwritten ({found[0]})"
    return None
