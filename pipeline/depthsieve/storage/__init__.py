"""Where a store's files lie: a folder, or a prefix of an object store. Keys are ``/``-separated, below the root."""

from depthsieve.storage.opening import expand, is_url, open_objects, open_root
from depthsieve.storage.protocol import Entry, Root

__all__ = ["Entry", "Root", "expand", "is_url", "open_objects", "open_root"]
