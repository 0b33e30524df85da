"""Faults on the Ray runner: the driver, a worker, a whole node."""

import contextlib
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from patience import PATIENCE_S, wait_for

from faults.local import descendants, wait_for_commits, wait_until_nobody_works
from faults.world import SUPPORT, NotSurvived, Tally, World, fresh, nothing_lost

ON_RAY = ("--runner", "ray", "--workers", "2")
CLUSTER = """
import sys
from ray.cluster_utils import Cluster
nodes = Cluster(initialize_head=True, head_node_args={"num_cpus": 0, "include_dashboard": False})
workers = [nodes.add_node(num_cpus=1) for _ in range(2)]
print(nodes.address, flush=True)
sys.stdin.readline()
nodes.remove_node(workers[0], allow_graceful=False)
print("killed", flush=True)
sys.stdin.readline()
nodes.shutdown()
"""


def driver_killed(world: World, chance: random.Random, tally: Tally) -> None:
    """The command is killed with -9: Ray and its workers must end, too."""
    store = fresh(world, "ray driver")
    process = _start(world, store, *ON_RAY)
    wait_for_commits(store, chance.randrange(1, 5), process)
    below = descendants(process.pid)
    process.kill()
    process.wait()
    tally.tries += 1
    _wait_until_gone(below)
    wait_until_nobody_works(store)
    with nothing_lost(store, tally):
        _finish(world, store, tally, *ON_RAY)
    world.compare(store)


def worker_killed(world: World, chance: random.Random, tally: Tally) -> None:
    """A worker is killed with -9 in the middle: the run itself goes on and ends well."""
    store = fresh(world, "ray worker")
    process = _start(world, store, *ON_RAY)
    wait_for_commits(store, chance.randrange(0, 4), process)
    wait_for(lambda: _workers(process.pid) or process.poll() is not None, "a worker")
    if workers := _workers(process.pid):
        with contextlib.suppress(ProcessLookupError):
            os.kill(chance.choice(workers), signal.SIGKILL)
    tally.tries += 1
    _ended_well(process)
    world.compare(store)


def interrupted(world: World, chance: random.Random, tally: Tally) -> None:
    """SIGTERM in the middle, with some grace; then the same command on the local runner."""
    store = fresh(world, "ray interrupted")
    process = _start(world, store, *ON_RAY, "--grace", chance.choice(["0", "20"]))
    wait_for_commits(store, chance.randrange(1, 5), process)
    process.send_signal(signal.SIGTERM)
    _, shown = process.communicate(timeout=PATIENCE_S)
    tally.tries += 1
    if process.returncode not in (0, 4) or "Traceback" in shown:
        raise NotSurvived(f"exit code {process.returncode}: {shown[-300:]}")
    with nothing_lost(store, tally):
        world.resume(store, tally)
    world.compare(store)


def node_killed(world: World, chance: random.Random, tally: Tally) -> None:
    """Of a head and two nodes one is killed and not replaced: the run goes on with what is left and ends well."""
    store = fresh(world, "ray node")
    with _cluster() as (address, kill_node):
        process = _start(world, store, "--address", address, "--workers", "2")
        wait_for_commits(store, chance.randrange(1, 4), process)
        kill_node()
        tally.tries += 1
        _ended_well(process)
    world.compare(store)


@contextlib.contextmanager
def _cluster() -> Iterator[tuple[str, "object"]]:
    sessions = tempfile.mkdtemp(prefix="r-", dir="/tmp")  # of its own; its path must be short
    nodes = subprocess.Popen(
        [sys.executable, "-c", CLUSTER],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env=os.environ | {"RAY_USAGE_STATS_ENABLED": "0", "RAY_TMPDIR": sessions},
    )
    assert nodes.stdin and nodes.stdout
    stdin, stdout = nodes.stdin, nodes.stdout

    def kill_node() -> None:
        stdin.write("\n")
        stdin.flush()
        if stdout.readline().strip() != "killed":
            raise RuntimeError("the cluster did not kill its node")

    try:
        address = stdout.readline().strip()
        if not address:
            raise RuntimeError("no Ray cluster could be started")
        yield address, kill_node
    finally:
        below = descendants(nodes.pid)
        with contextlib.suppress(BrokenPipeError):
            stdin.write("\n\n")
            stdin.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            nodes.wait(30)
        for pid in (nodes.pid, *below):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        nodes.wait()
        stdout.close()
        shutil.rmtree(sessions, ignore_errors=True)


def _start(world: World, store: Path, *options: str) -> "subprocess.Popen[str]":
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(SUPPORT), os.environ.get("PYTHONPATH", "")])}
    command = world.command(store, *options)
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, env=environment)


def _ended_well(process: "subprocess.Popen[str]") -> None:
    try:
        _, shown = process.communicate(timeout=PATIENCE_S)
    except subprocess.TimeoutExpired:
        process.kill()
        raise NotSurvived("the run hung") from None
    if process.returncode != 0:
        raise NotSurvived(f"the run ended with {process.returncode}: {shown[-400:]}")


def _finish(world: World, store: Path, tally: Tally, *options: str) -> None:
    tally.tries += 1
    _ended_well(_start(world, store, *options))


def _workers(pid: int) -> list[int]:
    found = []
    for below in descendants(pid):
        with contextlib.suppress(OSError):
            if Path(f"/proc/{below}/cmdline").read_bytes().startswith(b"ray::RayWorker"):
                found.append(below)
    return found


def _wait_until_gone(pids: list[int]) -> None:
    try:
        wait_for(lambda: not any(map(_lives, pids)))
    except AssertionError:
        raise NotSurvived(f"{sum(map(_lives, pids))} processes were left behind") from None


def _lives(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False
