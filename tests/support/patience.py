"""Waiting in tests: for what is to happen, not for a time. No test may depend on how fast the machine is."""

import time
from collections.abc import Callable

PATIENCE_S = 600.0
"""Only what hangs waits for so long: many times what anything takes on a machine that others use too."""


def wait_for(reached: Callable[[], object], what: str = "what the test waits for", pause_s: float = 0.02) -> None:
    """Return as soon as ``reached`` says so."""
    deadline = time.monotonic() + PATIENCE_S
    while not reached():
        assert time.monotonic() < deadline, f"{what}: waited for {PATIENCE_S:g} s in vain"
        time.sleep(pause_s)
