"""Folders for temporary files on this machine, which do not outlive a process that was killed by more than a run."""

import contextlib
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from depthsieve.core.processes import Process, is_alive

_PREFIX = "depthsieve-"


@contextlib.contextmanager
def temporary_folder(stem: str = "") -> Iterator[Path]:
    """A new folder where the system keeps temporary files (``TMPDIR``), removed at the end. Those of processes of this
    machine that have died are removed first."""
    clear_temporary()
    folder = Path(tempfile.mkdtemp(f".{Process.current().token}", f"{_PREFIX}{stem}"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def clear_temporary() -> None:
    """Remove the folders of processes that have died."""
    for path in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*.*"):
        if is_alive(path.suffix[1:]) is False:
            shutil.rmtree(path, ignore_errors=True)
