"""A process that is asked about files which may crash it, as videos may crash FFmpeg: one that does, hangs or asks for
too much memory must not end the process that scans, and is told by its name.

It is started for the first question, asked about one file after the other, and ends by itself when it was not asked for
a while, or when the one that asks is gone.
"""

import atexit
import contextlib
import importlib
import os
import pickle
import select
import signal
import subprocess
import sys
import threading
from typing import Any, NoReturn

from depthsieve.core.errors import ImageRejected
from depthsieve.core.lifelines import how_it_died, python_calling
from depthsieve.sources.containers.protocol import NoImages

LONGEST_S = 600
"""Seconds that one file may take."""

IDLE_S = 60.0

DEATHS = 2
"""As the second time shows that it is the file."""


class Helper:
    """Asks a process of its own what ``function``, named with its module, returns for a path and one more argument.
    Threads may use it at once; they take turns."""

    def __init__(self, function: str) -> None:
        self._function = function
        self._lock = threading.Lock()
        self._process = os.getpid()
        self._child: subprocess.Popen[bytes] | None = None
        atexit.register(self.close)

    def ask(self, path: bytes, whole: bool) -> Any:
        """What the function returns. Raises what it raises, and :class:`ImageRejected` for a file that ends
        the process or takes more than :data:`LONGEST_S` seconds."""
        if self._process != os.getpid():  # a fork: the child is the parent's
            self.__init__(self._function)  # type: ignore[misc]
        with self._lock:
            died = 0
            while True:
                answer = self._exchange((path, whole))
                if answer is not None:
                    break
                assert self._child is not None
                code = self._child.wait()
                self._drop()
                died += code != 0  # 0 where it had nothing to do
                if code == -signal.SIGALRM:
                    raise ImageRejected(f"takes more than {LONGEST_S} s to read")
                if died == DEATHS:
                    raise ImageRejected(f"ends the process that reads it ({how_it_died(code)})")
        if isinstance(answer, Exception):
            raise answer
        return answer

    def _exchange(self, request: tuple[bytes, bool]) -> Any:
        """The answer; None where the process died."""
        if self._child is None:
            pipe, command = subprocess.PIPE, python_calling("depthsieve.sources.containers.apart.serve", self._function)
            self._child = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=subprocess.DEVNULL)
        assert self._child.stdin and self._child.stdout
        with contextlib.suppress(BrokenPipeError, EOFError, pickle.UnpicklingError):
            pickle.dump(request, self._child.stdin)
            self._child.stdin.flush()
            return pickle.load(self._child.stdout)
        return None

    def close(self) -> None:
        """End the process."""
        if self._child is not None and self._process == os.getpid():
            self._child.kill()
            self._child.wait()
            self._drop()

    def _drop(self) -> None:
        assert self._child is not None and self._child.stdin and self._child.stdout
        with contextlib.suppress(BrokenPipeError):
            self._child.stdin.close()
        self._child.stdout.close()
        self._child = None


def serve(function: str) -> NoReturn:
    """The process: it answers pickled requests from its standard input."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)  # a terminal signals all: the one that asks decides
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # nothing else may write there
    module, _, name = function.rpartition(".")
    asked = getattr(importlib.import_module(module), name)

    while select.select([0], [], [], IDLE_S)[0]:
        try:
            path, whole = pickle.load(sys.stdin.buffer)
        except EOFError:
            break
        signal.alarm(LONGEST_S)
        answer: Any
        try:
            answer = asked(path, whole)
        except (ImageRejected, NoImages, OSError) as error:
            answer = error
        except MemoryError:
            answer = ImageRejected("asks for more memory than there is")
        except Exception as error:
            words = (str(error).strip().splitlines() or [""])[0][:200]
            answer = ImageRejected(f"its container is damaged: {words or type(error).__name__}")
        signal.alarm(0)
        pickle.dump(answer, answers)
        answers.flush()
    os._exit(0)
