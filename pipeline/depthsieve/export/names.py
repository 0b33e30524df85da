"""Where an image of a store goes in an output folder: a path that every file system takes, and that no other image has.

The id itself is always in the target's metadata; a path need not lead back to it.
"""

import hashlib
import re
import unicodedata
from collections.abc import Iterable

from depthsieve.core.errors import UsageError

MAX_PART_BYTES = 180
"""The longest name of a file or folder, before a target adds its suffixes: file systems take 255 bytes."""

_RESERVED = re.compile(r'[<>:"|?*\\\x00-\x1f\x7f]')
_EDGES = re.compile(r"^[. -]|[. ]\Z")
_DEVICES = re.compile(r"(con|prn|aux|nul|com[0-9]|lpt[0-9])(\.|\Z)", re.IGNORECASE)


def safe_path(image_id: str) -> str:
    """An id as a relative path: ``/``-separated, with the source's name first and the file's own suffix last.

    A container becomes a folder (``default/a.tar::b.jpg`` lies in ``default/a.tar/``). What some file system refuses
    or hides is percent-encoded: ``<>:"|?*\\``, control characters, a leading dot, dash or space, a trailing dot or
    space, names of Windows devices. Too long a name is cut, and a digest of the whole put behind it. Letters keep their
    case and Unicode form, so two ids may give one path, or paths that some systems take for one: :class:`Places`.
    """
    parts = [part for part in image_id.replace("::", "/").split("/") if part]
    return "/".join(map(_safe_part, parts))


def _safe_part(part: str) -> str:
    part = _RESERVED.sub(_percent, part)
    part = _EDGES.sub(_percent, part)
    if _DEVICES.match(part):
        part = f"%{ord(part[0]):02X}{part[1:]}"
    data = part.encode()
    if len(data) > MAX_PART_BYTES:
        stem, dot, suffix = part.rpartition(".")
        suffix = f".{suffix}" if dot and len(suffix.encode()) <= 8 else ""
        stem = stem if suffix else part
        room = MAX_PART_BYTES - len(suffix.encode()) - 9
        part = f"{stem.encode()[:room].decode(errors='ignore')}~{digest(part)}{suffix}"
    return part


def _percent(match: re.Match[str]) -> str:
    return "".join(f"%{byte:02X}" for byte in match[0].encode())


def digest(text: str) -> str:
    """Eight hex digits that tell texts apart."""
    return hashlib.sha256(text.encode()).hexdigest()[:8]


def same_file(path: str) -> str:
    """Equal for paths that some file system takes for one: by letter case, or by Unicode form."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", path).casefold())


class Places:
    """Gives out paths, none of them twice, nor one that is a folder of another.

    What is ``taken`` stays: images that come later never move those that are there. Paths that ``are_folders`` may lie
    in one another.
    """

    def __init__(self, taken: Iterable[str] = (), are_folders: bool = False) -> None:
        self._are_folders = are_folders
        self._files: dict[str, str] = {}
        self._folders: set[str] = set()
        self._stems: set[str] = set()
        for path in taken:
            self._take(path, path)

    def _take(self, path: str, image_id: str) -> None:
        key = same_file(path)
        self._files[key] = image_id
        while "/" in key:
            key = key.rpartition("/")[0]
            if key in self._folders:
                break
            self._folders.add(key)
            self._stems.add(key.rpartition(".")[0])

    def _rival(self, path: str) -> tuple[str, int] | None:
        """Whom a path belongs to already, "" where it is a folder; and how many of its parts are at fault."""
        key = same_file(path)
        if key in self._files:
            return self._files[key], key.count("/") + 1
        if self._are_folders:
            return None
        if key in self._folders or key in self._stems:
            return "", key.count("/") + 1
        while "/" in key:
            key = key.rpartition("/")[0]
            for file in (key, key.rpartition(".")[0]):  # a target's files have a suffix more
                if file in self._files:
                    return self._files[file], key.count("/") + 1
        return None

    def give(self, image_id: str, wanted: str, renames: bool = True) -> str:
        """The path ``wanted``, or if another has it, that with a digest of the id behind its stem.

        Raises :class:`UsageError` that names both, unless it ``renames``.
        """
        path, turn = wanted, 0
        while (found := self._rival(path)) is not None:
            rival, count = found
            if not renames:
                other = f"the same as {rival}" if rival else "a folder of other images"
                raise UsageError(
                    f"{image_id} would be written as {wanted}, {other}: on some file systems, or in this target, their "
                    "names are one; rename one of them, or leave one out with --subset or --where"
                )
            parts = path.split("/")
            whose = image_id if count == len(parts) else "/".join(parts[:count])
            parts[count - 1] = _with_digest(parts[count - 1], whose + "\n" * turn)
            path, turn = "/".join(parts), turn + 1
        self._take(path, image_id)
        return path


def _with_digest(name: str, whose: str) -> str:
    stem, dot, suffix = name.rpartition(".")
    return f"{stem}~{digest(whose)}.{suffix}" if dot else f"{name}~{digest(whose)}"
