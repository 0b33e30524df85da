"""Runners: ways to have shards labelled. A runner takes a job and tasks, and yields a result for each."""

from collections.abc import Callable, Generator, Iterator

from depthsieve.core.records import LabelJob, ShardResult, ShardTask
from depthsieve.core.stopping import Stop

Runner = Callable[[LabelJob, Iterator[ShardTask], Stop], Generator[ShardResult, None, None]]
"""Takes tasks from the iterator as it has room for them, and yields a :class:`ShardResult` for each, in any order.

Once the stop is requested it takes no more, yields the results of what finishes within the grace period, and abandons
the rest without a result; it abandons everything when the generator is closed. Retrying a shard that came back with an
error is up to the caller.
"""

OnImages = Callable[[str, int], None]
"""Told, from any thread, how many images of a shard are done so far: after each batch, or now and then."""
