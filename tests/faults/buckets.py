"""Faults of an object store: calls that fail, a server that dies and comes back, a run that is killed meanwhile."""

import hashlib
import os
import random
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager

from patience import PATIENCE_S, wait_for
from s3server import SECRET, S3Server, some_calls

from faults.world import DECIDED, NotSurvived, Tally, World


def calls_fail(world: World, chance: random.Random, tally: Tally) -> None:
    """5% of all calls fail: refused, cut off before the server did them, or after."""
    with _bucket() as (server, store):
        with server.failing(some_calls(0.05, chance.randrange(2**32))):
            _finish(world, store, tally)
        _compare(world, store)


def server_dies_once(world: World, chance: random.Random, tally: Tally) -> None:
    """The server is gone for some seconds in the middle of a run."""
    with _bucket() as (server, store):
        process = _start(world, store)
        _wait_for_commits(server, chance.randrange(4), process)
        server.stop()
        time.sleep(chance.uniform(1.0, 8.0))
        server.start()
        tally.tries += 1
        _ended(process, {0})
        _compare(world, store)


def run_killed(world: World, chance: random.Random, tally: Tally) -> None:
    """SIGKILL in the middle, while calls fail; then the same command."""
    with _bucket() as (server, store), server.failing(some_calls(0.02, chance.randrange(2**32))):
        process = _start(world, store)
        _wait_for_commits(server, chance.randrange(5), process)
        process.kill()
        process.communicate()
        tally.tries += 1
        time.sleep(1)  # its labelling process ends with it
        _finish(world, store, tally)
        _compare(world, store)


@contextmanager
def _bucket() -> Iterator[tuple[S3Server, str]]:
    """A server with an empty bucket, and an environment that leads there."""
    server = S3Server()
    before = dict(os.environ)
    os.environ.update(server.environment())
    try:
        yield server, f"s3://{server.new_bucket()}/labels"
    finally:
        server.stop()
        for name in server.environment():
            os.environ.pop(name, None)
        os.environ.update(before)


def _start(world: World, store: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(world.command(store), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)


def _ended(process: "subprocess.Popen[str]", codes: set[int]) -> None:
    try:
        _, shown = process.communicate(timeout=PATIENCE_S)
    except subprocess.TimeoutExpired:
        process.kill()
        raise NotSurvived("the run hung") from None
    if process.returncode not in codes or SECRET in shown or "Traceback" in shown:
        raise NotSurvived(f"exit code {process.returncode}: {shown[-400:]}")


def _finish(world: World, store: str, tally: Tally) -> None:
    tally.tries += 1
    _ended(_start(world, store), {0})


def _compare(world: World, store: str) -> None:
    from depthsieve.storage import open_root

    root = open_root(store)
    keys = [entry.key for part in DECIDED for entry in root.entries(part)]
    found = {key: hashlib.sha256(root.read(key)).hexdigest() for key in keys}
    wrong = sorted(key for key in {*found, *world.expected} if found.get(key) != world.expected.get(key))
    if wrong:
        raise NotSurvived(f"{len(wrong)} objects differ from the undisturbed store: {', '.join(wrong[:3])}")
    if left := [*root.names("tmp"), *root.names("leases")]:
        raise NotSurvived(f"left behind: {', '.join(left[:3])}")


def _wait_for_commits(server: S3Server, count: int, process: "subprocess.Popen[str]") -> None:
    def reached() -> bool:
        done = [path for method, path in server.calls if method == "PUT" and "/commits/0" in path]
        return len(done) >= count or process.poll() is not None

    wait_for(reached, "commits")
