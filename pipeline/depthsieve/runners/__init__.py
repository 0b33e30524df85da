"""Runners: ways to have shards labelled. A runner takes a job and shard ids, and yields a result for each."""

from collections.abc import Callable, Iterator, Sequence

from depthsieve.records import LabelJob, ShardResult

Runner = Callable[[LabelJob, Sequence[str]], Iterator[ShardResult]]
"""Yields a :class:`ShardResult` for every shard id given, in any order. Trying again is the caller's business."""
