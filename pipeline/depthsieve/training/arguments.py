"""Checks of arguments: whole numbers and flags."""

from typing import Any

import numpy as np

from depthsieve.core.errors import UsageError


def check_flag(name: str, value: Any) -> bool:
    """``value`` as a bool. Raises :class:`UsageError` for what is not True or False: "no" would count as yes."""
    if not isinstance(value, bool | np.bool_):
        raise UsageError(f"{name} must be True or False, not {value!r}")
    return bool(value)
