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
from depthsieve.storage import is_url

IN_HAND = 2
"""Shards in flight: one with the teacher, and one being committed."""

IN_HAND_FAR = 6
"""The same for a store in a bucket: one with the teacher, one being packed, and four being uploaded from this machine's
disk, so that the teacher waits for a bucket only where that takes four times as long as the teacher."""


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

        in_hand = IN_HAND_FAR if is_url(job.store) else IN_HAND
        with ThreadPoolExecutor(in_hand, "shard") as pool:
            threads = [pool.submit(take) for _ in range(in_hand)]
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
