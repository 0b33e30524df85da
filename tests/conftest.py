"""For every test: no model hub, a new home folder, and one thread.

So none waits for a network or reads a user's files, and tests that run side by side do not fight for the cores.
"""

import os
import shutil
import tempfile

import pytest

HOME = pytest.StashKey[str]()


def pytest_configure(config: pytest.Config) -> None:
    """Set the environment before any test module imports a library that reads it once; xdist's workers inherit it."""
    if hasattr(config, "workerinput"):
        return
    config.stash[HOME] = tempfile.mkdtemp(prefix="depthsieve-home-")
    os.environ |= {"HOME": config.stash[HOME], "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    for name in ("HF_HOME", "HF_HUB_CACHE", "XDG_CACHE_HOME"):
        os.environ.pop(name, None)


def pytest_unconfigure(config: pytest.Config) -> None:
    """Leave nothing behind."""
    if HOME in config.stash:
        shutil.rmtree(config.stash[HOME], ignore_errors=True)
