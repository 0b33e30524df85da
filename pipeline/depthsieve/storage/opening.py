"""From what a user names to a root."""

import re
from pathlib import Path

from depthsieve.storage.local import LocalRoot
from depthsieve.storage.protocol import Root

_URL = re.compile(r"[a-z][a-z0-9+.-]+://", re.IGNORECASE)


def is_url(location: str | Path) -> bool:
    """Whether a location names an object store and not a path: ``s3://bucket/prefix``."""
    return isinstance(location, str) and _URL.match(location) is not None


def open_root(location: str | Path) -> Root:
    """The root at a path or URL; nothing is looked at or made yet."""
    return LocalRoot(Path(location).absolute())
