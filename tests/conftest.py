"""For every test: no model hub, a new home folder, and one thread.

So none waits for a network or reads a user's files, and tests that run side by side do not fight for the cores.
"""

import os
import shutil
import signal
import tempfile
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from s3server import S3Server

HOME = pytest.StashKey[str]()


def pytest_configure(config: pytest.Config) -> None:
    """Set the environment before any test module imports a library that reads it once; xdist's workers inherit it.

    Signals are heard again that a shell in the background or nohup have set to be ignored: what tests start would
    inherit that.
    """
    for number in (signal.SIGINT, signal.SIGHUP):
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, signal.default_int_handler if number is signal.SIGINT else signal.SIG_DFL)
    if hasattr(config, "workerinput"):
        return
    config.stash[HOME] = tempfile.mkdtemp(prefix="depthsieve-home-")
    os.environ |= {"HOME": config.stash[HOME], "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    for name in ("HF_HOME", "HF_HUB_CACHE", "XDG_CACHE_HOME"):
        os.environ.pop(name, None)


@pytest.fixture(autouse=True)
def ended_by_sigterm() -> Iterator[None]:
    """A test that runs the command in its own process leaves the command's handler of SIGTERM behind. A forked child
    would hear with it, and may miss the signal in the moment before it waits for a lock: then no pool ends."""
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGTERM, signal.SIG_DFL)


def pytest_unconfigure(config: pytest.Config) -> None:
    """Leave nothing behind."""
    if HOME in config.stash:
        shutil.rmtree(config.stash[HOME], ignore_errors=True)


@pytest.fixture(scope="module")
def light(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The name of a teacher that loads fast, here and in processes that a module's tests start: see ``light.py``."""
    from light import installed

    with installed(tmp_path_factory.mktemp("light") / "site") as name:
        yield name


@pytest.fixture(scope="session")
def s3_server() -> "Iterator[S3Server]":
    """One server for the session; it is up and fails nothing at the start of each test."""
    from s3server import S3Server

    server = S3Server()
    yield server
    server.stop()


@pytest.fixture
def s3(s3_server: "S3Server", monkeypatch: pytest.MonkeyPatch) -> "S3Server":
    """The server, with an environment that leads to it and holds no other credentials."""
    for name in list(os.environ):
        if name.startswith(("AWS_", "AZURE_", "GOOGLE_")):
            monkeypatch.delenv(name)
    for name, value in s3_server.environment().items():
        monkeypatch.setenv(name, value)
    s3_server.calls.clear()
    return s3_server
