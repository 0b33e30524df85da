"""Where images come from. :func:`open_source` for a user's path, :func:`reopen_source` for what a store recorded."""

import os
from pathlib import Path

from depthsieve.sources.bucket import BucketSource, open_bucket
from depthsieve.sources.folder import FolderSource, open_folder
from depthsieve.sources.ids import decode_path, encode_path
from depthsieve.sources.protocol import UNKNOWN_SIZE, Listed, Passed, Source
from depthsieve.storage import is_url

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


def open_source(path: str | Path, name: str = "default") -> Source:
    """The folder at ``path`` with all folders in it, or the single image file there (its root is its folder). A URL
    such as ``s3://bucket/prefix`` is the objects below it, or the single object.

    Raises :class:`SourceError` in one line if there is nothing, nothing readable, or neither folder nor file;
    :class:`UsageError` if ``name`` cannot stand in an image id, or a URL cannot be meant.
    """
    return open_bucket(str(path), name) if is_url(path) else open_folder(path, name)


def reopen_source(name: str, root: str) -> Source:
    """The source that a store recorded, to read images from: a worker needs no scan, so nothing is looked at yet."""
    return BucketSource(name, root) if is_url(root) else FolderSource(name, root)


def root_of(location: str | Path) -> str:
    """A location as a source's root has it: absolute and resolved, or a URL as it stands."""
    return str(location) if is_url(location) else os.path.realpath(location)


def is_remote(root: str) -> bool:
    """Whether a root, of a source or of a store, lies in an object store."""
    return is_url(root)
