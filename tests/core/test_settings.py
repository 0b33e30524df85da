"""Counts in settings: whole numbers of any type become plain ints, anything else is refused by name."""

import json

import numpy as np
import pytest

from depthsieve.core.errors import UsageError
from depthsieve.planning.options import LabelOptions


def test_numbers_of_numpy_are_numbers() -> None:
    options = LabelOptions(threads=np.int64(2), size=np.uint8(28), image_quality=np.int32(80))  # type: ignore[arg-type]
    assert json.dumps([options.threads, options.size, options.image_quality]) == "[2, 28, 80]"


@pytest.mark.parametrize("value", [0, -1, 1.0, "2", True, np.float32(2)])
def test_what_is_no_count_is_refused(value: object) -> None:
    for name in ("threads", "size"):
        with pytest.raises(UsageError, match=f"^{name} must be a whole number of at least 1, not "):
            LabelOptions(**{name: value})  # type: ignore[arg-type]
