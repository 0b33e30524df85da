"""Checks of arguments: whole numbers and flags."""

import operator
from typing import Any

import numpy as np

from depthsieve.core.errors import UsageError


def whole_number(value: Any) -> int | None:
    """``value`` as an int where it is a whole number of any type, numpy's too; None for anything else, also True."""
    if isinstance(value, bool):
        return None
    try:
        return operator.index(value)
    except TypeError:
        return None


def check_flag(name: str, value: Any) -> bool:
    """``value`` as a bool. Raises :class:`UsageError` for what is not True or False: "no" would count as yes."""
    if not isinstance(value, bool | np.bool_):
        raise UsageError(f"{name} must be True or False, not {value!r}")
    return bool(value)
