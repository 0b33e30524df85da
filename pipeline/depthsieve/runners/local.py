"""The local runner: shards one after another in this process. A laptop pays for nothing else."""

from collections.abc import Callable, Iterator

from depthsieve.isolation import label_isolated
from depthsieve.labelling import ShardLabeller, Watch
from depthsieve.records import LabelJob, ShardResult, ShardTask
from depthsieve.runners import Runner
from depthsieve.stopping import Abandoned, Stop
from depthsieve.teachers import Teacher


def local_runner(teacher: Teacher, on_images: Callable[[int], None]) -> Runner:
    """A runner that uses a teacher that is loaded already. ``on_images`` hears of every batch."""

    def run(job: LabelJob, tasks: Iterator[ShardTask], stop: Stop) -> Iterator[ShardResult]:
        labeller = ShardLabeller(job, teacher, Watch(on_images, stop))
        while not stop.requested and (task := next(tasks, None)) is not None:
            try:
                result = label_isolated(job, task.shard_id, stop) if task.isolate else labeller(task.shard_id)
            except Abandoned:
                continue
            except RuntimeError as error:  # torch's, such as a device that is lost: no other worker can try here
                reason = (str(error).splitlines() or [type(error).__name__])[0]
                result = ShardResult(task.shard_id, error=f"the teacher failed: {reason}", fatal=True)
            yield result

    return run
