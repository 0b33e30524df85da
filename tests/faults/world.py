"""What a fault is done to: photos, a small real teacher, runs in processes of their own, and an undisturbed store.

Runs are forked from a process that has imported everything and computed nothing: a run takes a second instead of five.
"""

import contextlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from labelled import DECIDED as DECIDED
from labelled import decided_bytes, write_photos
from patience import PATIENCE_S

SUPPORT = Path(__file__).parents[1] / "support"
IMAGES = 18
SETTINGS: dict[str, Any] = {"batch_size": 2, "threads": 1, "shard_size": 3}
MAKE_TEACHER = (
    "import sys; from pathlib import Path; from labelled import small_teacher; small_teacher(Path(sys.argv[1]))"
)


class NotSurvived(AssertionError):
    """What the product promised and did not keep."""


@dataclass
class Tally:
    """What became of one fault. ``lost``: images that were committed and are not, or changed, or are neither labelled
    nor named. ``again``: images that were committed before the fault and had to be labelled again."""

    tries: int = 0
    lost: int = 0
    again: int = 0
    said: list[str] = field(default_factory=list)
    """How disturbed runs ended, for who wants to read it."""


@dataclass
class World:
    """Photos, teacher and the undisturbed store, in a folder of the campaign's own."""

    folder: Path
    photos: Path = field(init=False)
    teacher: Path = field(init=False)
    reference: Path = field(init=False)
    expected: dict[str, str] = field(init=False)
    seconds: float = field(init=False)

    def __post_init__(self) -> None:
        import depthsieve.jobs.label
        import depthsieve.runners.local
        import depthsieve.teachers.loading  # noqa: F401

        self.photos = write_photos(self.folder / "photos", IMAGES)
        self.teacher, self.reference = self.folder / "teacher", self.folder / "undisturbed"
        environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(SUPPORT), *sys.path])}
        command = [sys.executable, "-c", MAKE_TEACHER, str(self.teacher)]
        subprocess.run(command, check=True, env=environment, stderr=subprocess.DEVNULL)
        start = time.monotonic()
        assert self.label(self.reference).labelled == IMAGES
        self.seconds = time.monotonic() - start
        self.expected = decided_bytes(self.reference)

    def label(self, store: Path | str, **options: Any) -> "Ended":
        """A run from its beginning to its end."""
        return self.start(store, **options).wait()

    def start(self, store: Path | str, **options: Any) -> "Running":
        """A run under way. ``options`` are those of ``depthsieve.label``."""
        return fork(lambda: self.work(store, **options))

    def work(self, store: Path | str, **options: Any) -> dict[str, Any]:
        """What such a run does, in this process."""
        import depthsieve
        from depthsieve.core.errors import DepthsieveError

        try:
            summary = depthsieve.label(self.photos, store, **self.settings | options)
        except DepthsieveError as error:
            return {"code": 1, "error": str(error)}
        code = 1 if summary.errors else 3 if summary.failed else 0
        return {"code": code, "labelled": summary.labelled_now, "error": "; ".join(summary.errors)}

    @property
    def settings(self) -> dict[str, Any]:
        """The options that all runs share."""
        return SETTINGS | {"teacher": str(self.teacher), "progress": False}

    def plan(self, store: Path) -> None:
        """Write the plan of a store."""

        def write() -> dict[str, Any]:
            import depthsieve

            depthsieve.plan(self.photos, store, write=True, **self.settings)
            return {}

        assert fork(write).wait().done

    def command(self, store: Path | str, *options: str) -> list[str]:
        """The same run as a command line."""
        numbers = [f"--{name.replace('_', '-')}={value}" for name, value in SETTINGS.items()]
        start = [sys.executable, "-m", "depthsieve", "label", str(self.photos), str(store)]
        return [*start, "--teacher", str(self.teacher), *numbers, *options]

    def resume(self, store: Path, tally: Tally, **options: Any) -> None:
        """Go on until nothing is left, as a person would: the same command again."""
        for _ in range(5):
            tally.tries += 1
            if (ended := self.label(store, **options)).done:
                return
        raise NotSurvived(f"not done after {tally.tries} tries: {ended.error}")

    def add_features(self, store: Path) -> None:
        """Add the features that a store lacks."""

        def add() -> dict[str, Any]:
            import depthsieve

            return {"error": "; ".join(depthsieve.add_features(store, progress=False).errors)}

        ended = fork(add).wait()
        if not ended.done or ended.error:
            raise NotSurvived(f"features could not be added: {ended.error}")

    def compare(self, store: Path, features_too: bool = True) -> None:
        """Raise unless every byte that is decided is that of the undisturbed store.

        Without ``features_too`` each shard must have features, and they may differ: added later, the embedding comes of
        another batch.
        """
        found, expected = decided_bytes(store), self.expected
        if not features_too:
            found, expected = _but_features(found), _but_features(expected)
        wrong = sorted(key for key in {*found, *expected} if found.get(key) != expected.get(key))
        if wrong:
            raise NotSurvived(f"{len(wrong)} files differ from the undisturbed store: {', '.join(wrong[:3])}")
        left = [path.name for folder in ("tmp", "leases") for path in (store / folder).glob("*")]
        if left:
            raise NotSurvived(f"left behind: {', '.join(left[:3])}")


@dataclass(frozen=True)
class Ended:
    """A run that has ended: its exit code as the command line would give it, or minus the signal that killed it."""

    code: int
    labelled: int = 0
    error: str = ""

    @property
    def done(self) -> bool:
        return self.code == 0


@dataclass(frozen=True)
class Running:
    """A run in a process of its own."""

    pid: int
    result: int

    def wait(self) -> Ended:
        deadline = time.monotonic() + PATIENCE_S
        while True:
            done, status = os.waitpid(self.pid, os.WNOHANG)
            if done:
                break
            if time.monotonic() > deadline:
                os.kill(self.pid, signal.SIGKILL)
                os.waitpid(self.pid, 0)
                raise NotSurvived(f"a run hung for {PATIENCE_S:.0f} s")
            time.sleep(0.005)
        with os.fdopen(self.result, "rb") as file:
            text = file.read()
        if os.WIFSIGNALED(status):
            return Ended(-os.WTERMSIG(status))
        return Ended(os.WEXITSTATUS(status), **json.loads(text or b"{}"))

    def kill(self, number: int = signal.SIGKILL) -> Ended:
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, number)
        return self.wait()


def fork(work: Callable[[], dict[str, Any]]) -> Running:
    """Have ``work`` done in a forked process; what it returns reaches :meth:`Running.wait`."""
    reading, writing = os.pipe()
    sys.stdout.flush()
    sys.stderr.flush()
    pid = os.fork()
    if pid:
        os.close(writing)
        return Running(pid, reading)
    code = 70
    try:
        os.close(reading)
        result = work()
        code = result.pop("code", 0)
        os.write(writing, json.dumps(result).encode())
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(code)


def _but_features(files: dict[str, str]) -> dict[str, str]:
    """The files of a store; of its layer of features only which shards it has."""
    layer = "layers/features/"
    others = {key: digest for key, digest in files.items() if not key.startswith(layer)}
    return others | {key: "" for key in files if key.startswith(f"{layer}commits/")}


def committed_images(store: Path) -> dict[str, tuple[int, bytes]]:
    """Each committed shard: its images, and the bytes of its record."""
    found = {}
    for path in store.glob("commits/[0-9]*.json"):
        data = path.read_bytes()
        with contextlib.suppress(ValueError, KeyError):
            found[path.stem] = (json.loads(data)["images"], data)
    return found


@contextlib.contextmanager
def nothing_lost(store: Path, tally: Tally) -> Iterator[None]:
    """What is committed at the beginning is there, unchanged and not written again, at the end."""
    before = committed_images(store)
    times = {shard: (store / "commits" / f"{shard}.json").stat().st_mtime_ns for shard in before}
    yield
    after = committed_images(store)
    tally.lost += sum(images for shard, (images, data) in before.items() if after.get(shard, (0, b""))[1] != data)
    same = (shard for shard in before if shard in after)
    tally.again += sum(
        before[shard][0] for shard in same if (store / "commits" / f"{shard}.json").stat().st_mtime_ns != times[shard]
    )


def fresh(world: World, name: str) -> Path:
    """A folder for a store that is not there yet."""
    store = world.folder / "stores" / name
    shutil.rmtree(store, ignore_errors=True)
    store.parent.mkdir(exist_ok=True)
    return store


def moment(world: World, chance: random.Random) -> float:
    """Seconds into a run: anywhere from its first to a little past its last."""
    return chance.uniform(0.0, world.seconds * 1.1)
