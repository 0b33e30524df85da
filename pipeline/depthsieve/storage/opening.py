"""From what a user names to a root."""

import re
from pathlib import Path
from typing import TYPE_CHECKING

from depthsieve.storage.local import LocalRoot
from depthsieve.storage.protocol import Root

if TYPE_CHECKING:
    from depthsieve.storage.objects import Objects

_URL = re.compile(r"[a-z][a-z0-9+.-]+://", re.IGNORECASE)


def is_url(location: str | Path) -> bool:
    """Whether a location names an object store and not a path: ``s3://bucket/prefix``."""
    return isinstance(location, str) and _URL.match(location) is not None


def open_root(location: str | Path) -> Root:
    """The root at a path or URL; nothing is looked at or made yet.

    Raises :class:`UsageError` for a URL that cannot be meant.
    """
    if is_url(location):
        from depthsieve.storage.bucket import BucketRoot  # a library that a folder needs not

        return BucketRoot(str(location))
    return LocalRoot(Path(location).absolute())


def open_objects(url: str) -> "Objects":
    """The objects below a URL; nothing is looked at yet. Raises :class:`UsageError` for one that cannot be meant."""
    from depthsieve.storage.objects import Objects, parse_url

    return Objects(parse_url(url))
