"""Where images come from. :func:`open_source` for a user's path, :func:`reopen_source` for what a store recorded."""

import glob
import os
from pathlib import Path

from depthsieve.core.errors import SourceError, UsageError
from depthsieve.sources.bucket import BucketSource, open_bucket
from depthsieve.sources.file_list import LIST_SUFFIXES, STDIN, open_files, open_list
from depthsieve.sources.folder import FolderSource, open_folder
from depthsieve.sources.ids import decode_path, encode_path
from depthsieve.sources.protocol import UNKNOWN_SIZE, Listed, Passed, Source
from depthsieve.storage import expand, is_url

__all__ = [
    "UNKNOWN_SIZE",
    "Listed",
    "Passed",
    "Source",
    "decode_path",
    "encode_path",
    "is_remote",
    "open_source",
    "reopen_source",
    "root_of",
]


def open_source(path: str | Path, name: str = "default", root: str | None = None) -> Source:
    """The source at a user's ``path``: a folder and all folders in it, a single image file or container (its root is
    its folder), or a list of files: a text file that ends in .txt, .lst or .list, "-" for standard input, or a pattern
    such as ``photos/*.jpg``. A URL such as ``s3://bucket/prefix`` is the objects below it, or the single object.
    ``root`` is what the ids of a list are relative to.

    Raises :class:`SourceError` in one line if there is nothing, nothing readable, or neither folder nor file;
    :class:`UsageError` for a ``name`` that cannot be part of an image id, an invalid URL, or a ``root`` without a list.
    """
    path, root = expand(path), None if root is None else expand(root)
    if not is_url(path) and glob.has_magic(path) and not os.path.lexists(path):
        found = sorted(glob.glob(path, recursive=True))  # noqa: PTH207 (as a shell does it)
        if not found:
            raise SourceError(f"source {path!r}: nothing fits this pattern")
        return open_files(found, name, root)
    if path == STDIN or (not is_url(path) and path.lower().endswith(LIST_SUFFIXES)):
        return open_list(path, name, root)
    if root is not None:
        raise UsageError(f"a root is for lists of files, and {path} is none: a list ends in .txt, or is - for stdin")
    return open_bucket(path, name) if is_url(path) else open_folder(path, name)


def reopen_source(name: str, root: str) -> Source:
    """The source that a store recorded, to read images from: a worker needs no scan, so nothing is looked at yet."""
    return BucketSource(name, root) if is_url(root) else FolderSource(name, root)


def root_of(location: str | Path) -> str:
    """A location as a source's root has it: absolute and resolved, or a URL as it stands."""
    return str(location) if is_url(location) else os.path.realpath(expand(location))


def is_remote(root: str) -> bool:
    """Whether a root, of a source or of a store, lies in an object store."""
    return is_url(root)
