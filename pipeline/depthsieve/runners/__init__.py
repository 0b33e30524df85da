"""Runners: ways to have shards labelled. A runner takes a job and tasks, and yields a result for each."""

from collections.abc import Callable, Generator, Iterator

from depthsieve.core.records import LabelJob, ShardResult, ShardTask
from depthsieve.core.stopping import Stop

Runner = Callable[[LabelJob, Iterator[ShardTask], Stop], Generator[ShardResult, None, None]]
"""Takes tasks from the iterator as it has room for them, and yields a :class:`ShardResult` for each, in any order.

Once the stop is requested it takes no more, yields the results of what ends within the grace period, and abandons the
rest without a result; it abandons all when the generator is closed. Trying a shard again that came back with an error
is the caller's business.
"""

OnImages = Callable[[str, int], None]
"""Told, from any thread, how many images of a shard are done so far: after each batch, or now and then."""
