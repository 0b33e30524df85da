"""The local runner: shards in this process, each started when the last batches of the previous one are in flight."""

import contextlib
import queue
from collections.abc import Generator, Iterator
from concurrent.futures import ThreadPoolExecutor

from depthsieve.core.records import LabelJob, ShardResult, ShardTask
from depthsieve.core.stopping import Abandoned, Stop
from depthsieve.labelling.batch import LabelWork
from depthsieve.labelling.isolation import label_isolated
from depthsieve.labelling.shard import ShardLabeller, Watch
from depthsieve.runners import OnImages, Runner

IN_HAND = 2
"""Shards in flight: one with the teacher, and one being committed."""


def local_runner(work: LabelWork, on_images: OnImages) -> Runner:
    """A runner whose teachers are loaded already. Tasks are taken in threads of its own, one after another."""

    def run(job: LabelJob, tasks: Iterator[ShardTask], stop: Stop) -> Generator[ShardResult, None, None]:
        closed = Stop(grace_s=0, parent=stop)
        labeller = ShardLabeller(job, work, Watch(on_images, closed))
        results: queue.SimpleQueue[ShardResult | None] = queue.SimpleQueue()

        def take() -> None:
            try:
                while True:
                    with labeller.turn.taken():
                        task = None if closed.requested else next(tasks, None)
                        if task is None:
                            return
                        with contextlib.suppress(Abandoned):
                            results.put(_label(labeller, job, task, closed))
            finally:
                results.put(None)

        with ThreadPoolExecutor(IN_HAND, "shard") as pool:
            threads = [pool.submit(take) for _ in range(IN_HAND)]
            try:
                for _ in threads:
                    yield from iter(results.get, None)
                for thread in threads:
                    thread.result()  # raises what it has raised
            finally:
                closed.request()  # the caller wants no more: what is in flight is abandoned

    return run


def _label(labeller: ShardLabeller, job: LabelJob, task: ShardTask, stop: Stop) -> ShardResult:
    if task.isolate:
        return label_isolated(job, task.shard_id, stop)
    try:
        return labeller(task.shard_id)
    except RuntimeError as error:  # torch's, such as a device that is lost: no other worker can try here
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        return ShardResult(task.shard_id, error=f"the teacher failed: {reason}", fatal=True)
