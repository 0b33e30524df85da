"""Ray workers that meet a fate at certain shards; else they label like any other. For tests of the driver alone."""

import os
import signal
import threading
import time
from pathlib import Path

from patience import wait_for

from depthsieve.core.records import ShardResult
from depthsieve.runners.ray_worker import RayWorker, Readiness, Report

ORDERS = "DEPTHSIEVE_TEST_ORDERS"
"""The variable with the folder of orders: a file named by a shard holds what befalls the worker that gets it."""

CREEPS = 5


def order(folder: Path, shard_id: str, fate: str) -> None:
    """``fate`` befalls workers at the shard; with " once" at its end, the first of them only."""
    (folder / shard_id).write_text(fate)


def questions(folder: Path) -> int:
    """How often workers were asked how many images are done while they crept or hung."""
    return (folder / "asked").stat().st_size if (folder / "asked").exists() else 0


def counts(folder: Path) -> list[str]:
    """What workers noted of images done, in order: "shard:images"."""
    return (folder / "counts").read_text().split() if (folder / "counts").exists() else []


def answered(folder: Path) -> set[str]:
    """The shards whose results the test has, as :func:`note_answer` was told."""
    return set((folder / "answered").read_text().split()) if (folder / "answered").exists() else set()


def note_answer(folder: Path, shard_id: str) -> None:
    """The test has the result of a shard."""
    with (folder / "answered").open("a") as file:
        file.write(f"{shard_id}\n")


def begun(folder: Path) -> list[tuple[str, int]]:
    """(shard, process) of all that was begun, in order."""
    lines = (folder / "log").read_text().split() if (folder / "log").exists() else []
    return [(shard_id, int(pid)) for shard_id, pid in (line.split(":") for line in lines)]


class _Noted(dict[str, int]):
    """Counts of images, each of which is noted in a file."""

    def __setitem__(self, shard_id: str, images: int) -> None:
        with (Path(os.environ[ORDERS]) / "counts").open("a") as file:
            file.write(f"{shard_id}:{images}\n")
        super().__setitem__(shard_id, images)


class OrderedWorker(RayWorker):
    """Follows the orders, except that an isolating one labels in peace unless it is told "even isolated".

    It is at one shard at a time, so that what befalls it is about that one. A shard at which it is to creep has one
    more image done at each question, and ends after :data:`CREEPS` of them.
    """

    def __init__(self) -> None:
        super().__init__()
        self._one_at_a_time = threading.Lock()
        self._images = _Noted()
        self._creeping = ""
        self._waiting = False

    def report(self) -> Report:
        if self._creeping:
            self._images[self._creeping] = self._images.get(self._creeping, 0) + 1
        done = super().report()
        if self._waiting:
            with (Path(os.environ[ORDERS]) / "asked").open("a") as file:
                file.write("x")
        return done

    def prepare(self, version: str, pickled_job: bytes, roots: tuple[str, ...], isolates: bool) -> Readiness:
        self._isolates = isolates
        return super().prepare(version, pickled_job, roots, isolates)

    def label(self, shard_id: str) -> ShardResult | None:
        with self._one_at_a_time:
            return self._label(shard_id)

    def _label(self, shard_id: str) -> ShardResult | None:
        if self._stop.requested:
            return super().label(shard_id)
        folder = Path(os.environ[ORDERS])
        with (folder / "log").open("a") as log:
            log.write(f"{shard_id}:{os.getpid()}\n")
        file = folder / shard_id
        fate = file.read_text() if file.exists() else (folder / "all").read_text()
        if self._isolates and "even isolated" not in fate:
            fate = ""
        if fate.endswith(" once"):
            file.unlink()
        if fate.startswith("hang"):
            self._waiting = True
            time.sleep(3600)
        if fate.startswith("creep"):
            self._creeping = shard_id
            self._waiting = True
            wait_for(lambda: questions(folder) >= CREEPS)
            self._waiting = False
            self._creeping = ""
        if fate.startswith("raise"):
            raise ArithmeticError("a bug\nof two lines")
        result = None if fate.startswith("killed") else super().label(shard_id)
        if fate.startswith("slow"):
            time.sleep(1.0)
        if fate.startswith("until stopped"):
            wait_for(lambda: self._stop.requested)
        if fate.startswith(("killed", "commits, then killed")):
            before = {one for one, pid in begun(folder)[:-1] if pid == os.getpid()} - {shard_id}
            wait_for(lambda: before <= answered(folder))  # an answer that is lost with it would be a wrong suspect
            os.kill(os.getpid(), signal.SIGKILL)
            time.sleep(60)
        return result
