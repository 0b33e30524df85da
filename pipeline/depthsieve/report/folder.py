"""The folder of a report: one page, and beside it a folder of what the page needs, which a new report replaces whole.

The page is written last and names its folder: whoever is killed, or opens the page meanwhile, has the old report whole
or the new one. What else is in the folder stays as it is.
"""

import contextlib
import os
import re
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path

from depthsieve.core.errors import RunError, UsageError

PAGE = "index.html"
MADE_BY = '<meta name="generator" content="depthsieve report">'
"""What a page has by which it is known as ours."""

_FILES = re.compile(r"files-[0-9a-f]{12}(\.part)?")


def prepare(out: Path) -> None:
    """Make the folder if it is not there. Raises :class:`UsageError` where it has other files and no report of ours,
    or cannot be written to."""
    try:
        out.mkdir(parents=True, exist_ok=True)
        names = {path.name for path in out.iterdir()}
    except FileExistsError as error:
        raise UsageError(f"{out} is a file; name a folder") from error
    except OSError as error:
        raise UsageError(f"{out} cannot be made ({error.strerror}); name another folder") from error
    if not os.access(out, os.W_OK | os.X_OK):
        raise UsageError(f"{out} cannot be written to; name another folder")
    if not _is_ours(out / PAGE) and any(not _FILES.fullmatch(name) for name in names):
        raise UsageError(f"{out} has other files and no report of ours; name a new folder, or that of a report")


@contextlib.contextmanager
def new_files(out: Path) -> Iterator[Path]:
    """A new folder of files within ``out``. It has its name, without ``.part``, once the page is written by
    :func:`finish`; else it goes again. Raises :class:`RunError` where the disk does not take it."""
    part = out / f"files-{secrets.token_hex(6)}.part"
    try:
        part.mkdir()
        yield part
    except OSError as error:
        raise RunError(f"{out} cannot be written to ({error.strerror or error}); name another folder") from error
    finally:
        if part.exists():
            shutil.rmtree(part, ignore_errors=True)


def finish(out: Path, part: Path, page: str) -> None:
    """Bring in the new files, then their page, and take away those of earlier reports."""
    part.rename(part.with_suffix(""))
    attempt = out / f".{PAGE}.{os.getpid()}"
    try:
        attempt.write_text(page, encoding="utf-8")
        attempt.replace(out / PAGE)
    except OSError:
        attempt.unlink(missing_ok=True)
        shutil.rmtree(part.with_suffix(""), ignore_errors=True)
        raise
    for path in out.iterdir():
        if _FILES.fullmatch(path.name) and path.name != part.stem and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)


def _is_ours(page: Path) -> bool:
    try:
        with page.open(encoding="utf-8", errors="replace") as file:
            return MADE_BY in file.read(4096)
    except OSError:
        return False
