"""Patterns of paths: what a recipe counts, and what a user leaves out of a source.

``*``, ``?``, ``[0-9]`` and ``[!0-9]`` stay within a name; ``**`` is any number of folders, or none. ``::`` between a
container and its member counts as a slash, so that a pattern fits whether an archive was unpacked or not.
"""

import functools
import re


def fits(path: str, patterns: tuple[str, ...]) -> bool:
    """Whether any of the patterns matches all of a path."""
    return _compiled(patterns).fullmatch(path.replace("::", "/")) is not None


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
