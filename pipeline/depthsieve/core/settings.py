"""How an option is declared: once, as a field of a dataclass, with its type, its default and what the help says of it:
``size: Annotated[int | None, About("Short side.", "Teacher", "PIXELS", unset="the teacher's own")] = None``.
"""

import operator
from collections.abc import Iterator
from dataclasses import dataclass, fields
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from depthsieve.core.errors import UsageError


@dataclass(frozen=True, slots=True)
class About:
    """What a user reads about an option: a sentence, the ``group`` it stands in, the ``metavar`` of its value, and what
    holds where it is ``unset`` (for a default of None)."""

    help: str
    group: str
    metavar: str | None = None
    unset: str = ""


@dataclass(frozen=True, slots=True)
class Declared:
    """An option as a dataclass declares it: ``kind`` is its type without None, ``choices`` are the values of a
    Literal, in order; none where any value of the kind will do."""

    name: str
    kind: Any
    choices: tuple[str, ...]
    default: Any
    about: About


def whole_number(value: Any) -> int | None:
    """``value`` as an int where it is a whole number of any type, numpy's too; None for anything else, also True."""
    if isinstance(value, bool):
        return None
    try:
        return operator.index(value)
    except TypeError:
        return None


def check_counts(settings: Any, *names: str) -> None:
    """Make fields of a frozen dataclass plain ints: whole numbers of any type, at least 1, or None.

    Raises :class:`UsageError` for anything else.
    """
    for name in names:
        value = getattr(settings, name)
        if value is not None:
            number = whole_number(value)
            if number is None or number < 1:
                raise UsageError(f"{name} must be a whole number of at least 1, not {value!r}")
            object.__setattr__(settings, name, number)


def declared(settings: type[Any]) -> Iterator[Declared]:
    """The options that a dataclass declares, its own before those that it inherits."""
    hints = get_type_hints(settings, include_extras=True)
    inherited = {name for base in settings.__mro__[1:] for name in getattr(base, "__annotations__", {})}
    for field in sorted(fields(settings), key=lambda one: one.name in inherited):
        hint = hints[field.name]
        (kind,) = {*(get_args(hint.__origin__) if _is_union(hint.__origin__) else [hint.__origin__])} - {NoneType}
        choices = get_args(kind) if get_origin(kind) is Literal else ()
        yield Declared(field.name, str if choices else kind, choices, field.default, hint.__metadata__[0])


def _is_union(hint: Any) -> bool:
    return get_origin(hint) in (Union, UnionType)
