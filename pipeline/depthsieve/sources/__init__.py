"""Where images come from. :func:`open_source` for a user's path, :func:`reopen_source` for what a store recorded."""

from pathlib import Path

from depthsieve.sources.folder import FolderSource, open_folder
from depthsieve.sources.ids import decode_path, encode_path
from depthsieve.sources.protocol import Scan, Source

__all__ = ["Scan", "Source", "decode_path", "encode_path", "open_source", "reopen_source"]


def open_source(path: str | Path, name: str = "default") -> Source:
    """The folder at ``path`` with all folders in it, or the single image file there (its root is its folder).

    Raises :class:`SourceError` in one line if there is nothing, nothing readable, or neither folder nor file;
    :class:`UsageError` if ``name`` cannot stand in an image id.
    """
    return open_folder(path, name)


def reopen_source(name: str, root: str) -> Source:
    """The source that a store recorded, to read images from: a worker needs no scan, so nothing is looked at yet."""
    return FolderSource(name, root)
