"""A list that comes through a pipe, kept: a labelling process that is restarted reads it again."""

import os
import shutil
import sys
import tempfile


def keep_stdin(source: str) -> None:
    """Where ``source`` is "-" and standard input cannot be read twice, put a file with all of it in its place."""
    if source != "-" or sys.stdin is None or sys.stdin.buffer.seekable():
        return
    with tempfile.TemporaryFile() as kept:
        shutil.copyfileobj(sys.stdin.buffer, kept)
        kept.flush()
        os.dup2(kept.fileno(), sys.stdin.fileno())
