"""Faults on the local runner: kills, interrupts, two at once, parts, a full disk, late duplicates."""

import contextlib
import os
import random
import resource
import shutil
import signal
import subprocess
import time
from pathlib import Path

from patience import PATIENCE_S, wait_for

from faults.world import Ended, NotSurvived, Tally, World, committed_images, fork, fresh, moment, nothing_lost


def driver_killed(world: World, chance: random.Random, tally: Tally) -> None:
    """SIGKILL at any moment, up to three times in a row."""
    store = fresh(world, "killed")
    for _ in range(chance.choice([1, 1, 2, 3])):
        running = world.start(store)
        time.sleep(moment(world, chance))
        running.kill()
        tally.tries += 1
    with nothing_lost(store, tally):
        world.resume(store, tally)
    world.compare(store)


def command_killed(world: World, chance: random.Random, tally: Tally) -> None:
    """The command's own process is killed with -9: whatever it had started must end, and the same command goes on."""
    store = fresh(world, "command killed")
    process = subprocess.Popen(world.command(store), stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    wait_for_commits(store, chance.randrange(3), process)
    process.kill()
    process.wait()
    tally.tries += 1
    wait_until_nobody_works(store)
    with nothing_lost(store, tally):
        world.resume(store, tally)
    world.compare(store)


def labelling_process_killed(world: World, chance: random.Random, tally: Tally) -> None:
    """The process that labels is killed with -9, as by the kernel for want of memory; the command goes on by itself."""
    store = fresh(world, "labeller killed")
    process = subprocess.Popen(world.command(store), stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    wait_for_commits(store, chance.randrange(3), process)
    for child in descendants(process.pid):
        with contextlib.suppress(ProcessLookupError):
            os.kill(child, signal.SIGKILL)
    tally.tries += 1
    if process.wait(PATIENCE_S) != 0:
        raise NotSurvived(f"the command ended with {process.returncode} when its labelling process was killed")
    world.compare(store)


def interrupted(world: World, chance: random.Random, tally: Tally) -> None:
    """SIGTERM or SIGINT with some grace: exit code 4, or 0 where all was done."""
    store = fresh(world, "interrupted")
    grace = chance.choice(["0", "0.3", "20"])
    process = subprocess.Popen(
        world.command(store, "--grace", grace), stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True
    )
    wait_for_commits(store, chance.randrange(4), process)
    process.send_signal(chance.choice([signal.SIGTERM, signal.SIGINT]))
    _, shown = process.communicate(timeout=PATIENCE_S)
    tally.tries += 1
    if process.returncode not in (0, 4) or "Traceback" in shown:
        raise NotSurvived(f"exit code {process.returncode}: {shown[-300:]}")
    if process.returncode == 4 and "again to resume" not in shown:
        raise NotSurvived(f"it does not say how to go on: {shown[-300:]}")
    with nothing_lost(store, tally):
        world.resume(store, tally)
    world.compare(store)


def two_at_once(world: World, chance: random.Random, tally: Tally) -> None:
    """Two runs on one store: one of them may be told to wait, none may do harm."""
    store = fresh(world, "two at once")
    first = world.start(store)
    time.sleep(chance.uniform(0.0, world.seconds))
    second = world.start(store)
    killed = chance.random() < 0.5
    if killed:
        time.sleep(chance.uniform(0.0, world.seconds / 2))
    ended = [first.kill() if killed else first.wait(), second.wait()]
    tally.tries += 2
    for one in ended:
        _must_be(one, {0, 1, -signal.SIGKILL}, "wait until it has ended" if one.code == 1 else "")
    with nothing_lost(store, tally):
        world.resume(store, tally)
    world.compare(store)


def parts_with_one_killed(world: World, chance: random.Random, tally: Tally) -> None:
    """A written plan that three processes share; one is killed and its part is taken again."""
    store = fresh(world, "parts")
    world.plan(store)
    parts = [world.start(store, part=f"{part}/3") for part in (1, 2, 3)]
    time.sleep(chance.uniform(0.0, world.seconds))
    victim = chance.randrange(3)
    for part, running in enumerate(parts):
        ended = running.kill() if part == victim else running.wait()
        _must_be(ended, {0, -signal.SIGKILL}, "")
        tally.tries += 1
    with nothing_lost(store, tally):
        world.resume(store, tally, part=f"{victim + 1}/3")
    if len(committed_images(store)) != len(committed_images(world.reference)):
        raise NotSurvived("parts are missing")
    world.resume(store, tally)
    world.compare(store)


def disk_full(world: World, chance: random.Random, tally: Tally) -> None:
    """Files may not grow beyond some size, as on a full disk: one line, and the same command goes on later."""
    store = fresh(world, "full")
    kilobytes = chance.randrange(1, 40)
    ended = _limited(world, store, kilobytes * 1024)
    tally.tries += 1
    _must_be(ended, {0, 1}, "again to resume" if ended.code == 1 else "")
    with nothing_lost(store, tally):
        world.resume(store, tally)
    world.compare(store)


def disk_really_full(world: World, chance: random.Random, tally: Tally) -> None:
    """A file system of its own that runs full, then grows; without the right to mount, files that may not grow."""
    store = fresh(world, "mounted")
    store.mkdir()
    size = chance.randrange(300, 700)
    if subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}k", "tmpfs", store], capture_output=True).returncode:
        store.rmdir()
        disk_full(world, chance, tally)
        return
    try:
        ended = world.label(store)
        tally.tries += 1
        if ended.code != 0 and not (
            ended.code == 1 and ("again to resume" in ended.error or "make room" in ended.error)
        ):
            raise NotSurvived(f"a run on a full disk ended with {ended.code}: {ended.error!r}")
        subprocess.run(["mount", "-o", "remount,size=64m", store], check=True)
        with nothing_lost(store, tally):
            world.resume(store, tally)
        world.compare(store)
    finally:
        subprocess.run(["umount", store], check=False)
        shutil.rmtree(store, ignore_errors=True)


def late_duplicate(world: World, chance: random.Random, tally: Tally) -> None:
    """A worker stops breathing, is taken for dead, is overtaken, and then wakes up and wants to commit."""
    store = fresh(world, "late")
    world.plan(store)
    sleeper = world.start(store, part="1/1")
    time.sleep(chance.uniform(0.0, world.seconds))
    os.kill(sleeper.pid, signal.SIGSTOP)
    shutil.rmtree(store / "leases", ignore_errors=True)  # what the others see once it counts as dead
    tally.tries += 1
    world.resume(store, tally, part="1/1")
    with nothing_lost(store, tally):
        os.kill(sleeper.pid, signal.SIGCONT)
        _must_be(sleeper.wait(), {0, 1}, "")
        tally.tries += 1
        world.resume(store, tally)
    world.compare(store)


def _limited(world: World, store: Path, size: int) -> Ended:
    def work() -> dict[str, object]:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))
        return world.work(store)

    return fork(work).wait()


def _must_be(ended: Ended, codes: set[int], words: str) -> None:
    if ended.code not in codes or words not in ended.error:
        raise NotSurvived(f"a run ended with {ended.code}: {ended.error!r}")


def wait_for_commits(store: Path, count: int, process: "subprocess.Popen[str] | subprocess.Popen[bytes]") -> None:
    wait_for(lambda: len(committed_images(store)) >= count or process.poll() is not None, "commits")
    if not count:
        time.sleep(1)


def descendants(pid: int) -> list[int]:
    """Descendants of a process."""
    parents = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            parents[int(path.parent.name)] = int(path.read_text().rpartition(")")[2].split()[1])
    found, waiting = [], [pid]
    while waiting:
        above = waiting.pop()
        below = [child for child, parent in parents.items() if parent == above]
        found += below
        waiting += below
    return found


def wait_until_nobody_works(store: Path) -> None:
    try:
        wait_for(lambda: not _working_on(store))
    except AssertionError:
        raise NotSurvived(f"processes were left behind: {_working_on(store)}") from None


def _working_on(store: Path) -> list[int]:
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            if os.fsencode(store) in path.read_bytes().split(b"\0"):
                found.append(int(path.parent.name))
    return found
