"""The local runner: shards one after another in this process. A laptop pays for nothing else."""

from collections.abc import Callable, Iterator, Sequence

from depthsieve.labelling import ShardLabeller
from depthsieve.records import LabelJob, ShardResult
from depthsieve.runners import Runner
from depthsieve.teachers import Teacher


def local_runner(teacher: Teacher, on_images: Callable[[int], None]) -> Runner:
    """A runner that uses a teacher that is loaded already. ``on_images`` hears of every batch."""

    def run(job: LabelJob, shard_ids: Sequence[str]) -> Iterator[ShardResult]:
        yield from map(ShardLabeller(job, teacher, on_images), shard_ids)

    return run
