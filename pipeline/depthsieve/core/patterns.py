"""Patterns of paths: what a recipe counts, and what a user leaves out of a source.

``*``, ``?``, ``[0-9]`` and ``[!0-9]`` stay within a name; ``**`` is any number of folders, or none. ``::`` between a
container and its member counts as a slash, so that a pattern fits whether an archive was unpacked or not.
"""

import functools
import re
from collections.abc import Iterable

from depthsieve.core.errors import UsageError

NONE = "none"
"""Among a user's patterns: forget those before."""


def fits(path: str, patterns: tuple[str, ...]) -> bool:
    """Whether any of the patterns matches all of a path."""
    return _compiled(patterns).fullmatch(path.replace("::", "/")) is not None


def fits_below(path: str, patterns: tuple[str, ...]) -> bool:
    """Whether any of a user's patterns matches a path, below a root.

    A pattern without a slash (but at its end) fits a file or folder of that name anywhere, another one a path from the
    root on; a folder stands for all that is in it.
    """
    return fits(path.rstrip("/"), _spread(patterns))


def is_excluded(path: str, patterns: tuple[str, ...]) -> bool:
    """Whether a user's patterns leave out a path, below the root of its source; they match as :func:`fits_below`."""
    return fits_below(path, patterns)


def checked_patterns(patterns: Iterable[str]) -> tuple[str, ...]:
    """A user's patterns of what to leave out. Raises :class:`UsageError` that names one that cannot be used."""
    if isinstance(patterns, str):
        raise UsageError(f"exclude is a list of patterns, such as ['depth/'], not {patterns!r}")
    checked = tuple(patterns)
    for pattern in checked:
        if not isinstance(pattern, str) or not pattern.strip("/*"):
            raise UsageError(f"exclude: {pattern!r} leaves out nothing or all; use a pattern such as depth/")
        try:
            check_pattern(pattern)
        except ValueError as error:
            raise UsageError(f"exclude: {error}") from error
    return checked


def add_patterns(remembered: tuple[str, ...], said: tuple[str, ...]) -> tuple[str, ...]:
    """What a user's patterns leave out besides what is remembered; "none" forgets what stands before it."""
    patterns = (*remembered, *said)
    while NONE in patterns:
        patterns = patterns[patterns.index(NONE) + 1 :]
    return tuple(dict.fromkeys(patterns))


@functools.lru_cache
def _spread(patterns: tuple[str, ...]) -> tuple[str, ...]:
    spread: list[str] = []
    for pattern in patterns:
        inside = pattern.replace("::", "/").rstrip("/")
        place = inside.removeprefix("/") if "/" in inside else f"**/{inside}"
        spread += [place, f"{place}/**"]
    return tuple(spread)


def check_pattern(pattern: str) -> None:
    """Raises :class:`ValueError` that says why ``pattern`` is invalid."""
    try:
        _compiled((pattern,))
    except re.error as error:
        raise ValueError(f"{pattern!r} is not a pattern: {error}") from error


@functools.lru_cache
def _compiled(patterns: tuple[str, ...]) -> re.Pattern[str]:
    return re.compile("|".join(map(_expression, patterns)) or r"(?!)", re.DOTALL)


def _expression(glob: str) -> str:
    """A pattern as a regular expression."""
    folders = "(?:[^/]+/)*"
    *parts, last = [folders if part == "**" else _name(part) for part in glob.split("/")]
    ahead = "".join(part if part == folders else f"{part}/" for part in parts)
    return ahead + (f"{folders}[^/]+" if last == folders else last)


def _name(part: str) -> str:
    text = ""
    for token in re.findall(r"\[!?[^\]]+\]|.", part, re.DOTALL):
        if token.startswith("[") and token.endswith("]"):
            inside = token[1:-1].replace("\\", "\\\\").replace("[", "\\[")
            text += f"[^/{inside[1:]}]" if inside.startswith("!") else f"[{inside}]"
        else:
            text += {"*": "[^/]*", "?": "[^/]"}.get(token, re.escape(token))
    return text
