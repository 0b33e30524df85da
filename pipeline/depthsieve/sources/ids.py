"""Image ids: how a file's name becomes text that prints on one line, sorts, and goes back to the same bytes.

``%``, control and bidirectional-override characters, bytes that are no UTF-8, and colons that could be taken for the
``::`` between a container and its member (two in a row, or one at either end) are percent-encoded, byte by byte.
Everything else stays as it is; Unicode is not normalised, so names that only look alike stay apart.
"""

import re
from urllib.parse import unquote_to_bytes

from depthsieve.core.errors import SourceError, UsageError

_ENCODED = re.compile(r"[%\x00-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]|^:|:\Z|:(?=:)|(?<=:):")


def encode_path(path: bytes | str) -> str:
    """A relative path (``/``-separated; text as ``os.fsdecode`` gives it, or bytes) as it stands in an image id."""
    text = path if isinstance(path, str) else path.decode("utf-8", "surrogateescape")
    return _ENCODED.sub(_percent, text)


def decode_path(encoded: str) -> bytes:
    """The bytes that :func:`encode_path` encoded. Raises :class:`SourceError` for text it never gives."""
    try:
        path = unquote_to_bytes(encoded)
    except UnicodeEncodeError as error:
        raise SourceError(f"{encoded!r} is no image id: it holds a lone surrogate") from error
    if encode_path(path) != encoded:
        raise SourceError(f"{encoded!r} is no image id: {encode_path(path)!r} is how its path is written")
    return path


def check_name(name: str) -> None:
    """Raises :class:`UsageError` unless ``name`` can stand before ``/`` in an id."""
    if not name or "/" in name or encode_path(name) != name:
        raise UsageError(
            f"{name!r} cannot name a source: at least one character, and no '/', '::', '%' or control ones"
        )


def split_id(image_id: str, name: str) -> str:
    """The encoded path in an id of the source ``name``. Raises :class:`SourceError` for another source's id."""
    source, slash, path = image_id.partition("/")
    if source != name or not slash or not path:
        raise SourceError(f"{image_id!r} is not an image of the source {name!r}")
    return path


def _percent(match: re.Match[str]) -> str:
    return "".join(f"%{byte:02X}" for byte in match[0].encode("utf-8", "surrogateescape"))
