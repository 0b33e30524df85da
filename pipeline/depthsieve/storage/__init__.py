"""Where the files of a store are: in a folder or an object store. Keys are ``/``-separated, below the root."""

from depthsieve.storage.opening import expand, is_url, open_objects, open_root
from depthsieve.storage.protocol import Entry, Root

__all__ = ["Entry", "Root", "expand", "is_url", "open_objects", "open_root"]
