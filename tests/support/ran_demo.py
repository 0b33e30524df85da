"""A demo that was run once, in miniature, for the tests of what it makes."""

import dataclasses
from pathlib import Path

from depthsieve.demo.page import DemoResult
from depthsieve.demo.settings import DemoSettings

SEED = 7


@dataclasses.dataclass(frozen=True)
class Ran:
    """A demo of seven scenes, and what it was run with."""

    out: Path
    settings: DemoSettings
    result: DemoResult
