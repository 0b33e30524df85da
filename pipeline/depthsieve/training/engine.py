"""Work done ahead of its use by threads of this process, with results in order."""

import os
import sys
from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Generic, TypeVar

from depthsieve.core.errors import LoaderError

Result = TypeVar("Result")


class Job(Generic[Result]):
    """``count`` pieces of work that several threads share, and their common result.

    Of pieces that fail, the first one's error is raised. Pieces behind one that failed may be skipped.
    """

    def __init__(self, count: int, piece: Callable[[int], None], result: Result) -> None:
        self.count = count
        self._left = deque(range(count))
        self._piece = piece
        self._result = result
        self._failed: dict[int, Exception] = {}

    def help(self) -> None:
        """Do pieces until none is left."""
        while True:
            try:
                number = self._left.popleft()
            except IndexError:
                return
            try:
                self._piece(number)
            except Exception as error:
                self._failed[number] = error
                self._left.clear()

    @classmethod
    def failed(cls, error: Exception) -> "Job[Result]":
        """A job that failed before it began."""
        job: Job[Result] = cls(0, _nothing, None)  # type: ignore[arg-type]  # its result is never taken
        job._failed[0] = error
        return job

    def result(self) -> Result:
        """The result. Raises the error of the first piece that failed."""
        if self._failed:
            raise self._failed[min(self._failed)]  # those before it were all begun before, and are done
        return self._result


def _nothing(number: int) -> None:
    return None


def ahead(jobs: Iterable[Job[Result]], threads: int, count: int) -> Generator[Result, None, None]:
    """Results of ``jobs``, in order, made by ``threads`` threads; at most ``count`` jobs are in flight, or done and not
    yet taken. An error is raised in the place of its job, and ends the iteration.

    The threads belong to this iterator: however it ends (the last result, an error, an interrupt, ``close``, the end of
    the program), they end with it. Raises :class:`LoaderError` in a process that was forked meanwhile, where the
    threads do not run.
    """
    process = os.getpid()
    coming, pool = iter(jobs), ThreadPoolExecutor(threads, "depthsieve-loader")
    begun: deque[tuple[Job[Result], list[Future[None]]]] = deque()

    def begin() -> None:
        while len(begun) < count:
            try:
                job = next(coming, None)
            except Exception as error:  # this job's, and no earlier one's
                job = Job.failed(error)
            if job is None:
                return
            begun.append((job, [pool.submit(job.help) for _ in range(min(threads, job.count))]))

    def take() -> Result:
        job, helpers = begun[0]
        for helper in helpers:
            helper.result()
        begun.popleft()
        begin()
        return job.result()

    try:
        begin()
        while begun:
            if os.getpid() != process:
                raise LoaderError("this pass began in another process, and its threads are there; begin a new one")
            yield take()  # and no name of ours holds on to it
    finally:
        if os.getpid() == process and not sys.is_finalizing():  # by then all threads have ended
            pool.shutdown(cancel_futures=True)
