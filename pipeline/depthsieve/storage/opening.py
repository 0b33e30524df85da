"""From what a user names to a root."""

import os
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


def expand(location: str | Path) -> str:
    """A user's path with ``~`` and ``~name`` as a shell has them, or a URL as it is: the one place where that is done.

    ``./~`` is a file of that name, as is ``~name`` where there is no such user.
    """
    return str(location) if is_url(location) else os.path.expanduser(location)  # noqa: PTH111 - pathlib takes ./~ for ~


def open_root(location: str | Path) -> Root:
    """The root at a path, which may begin with ``~``, or URL; nothing is looked at or made yet.

    Raises :class:`UsageError` for an invalid URL.
    """
    if is_url(location):
        from depthsieve.storage.bucket import BucketRoot  # a heavy library that a folder does not need

        return BucketRoot(str(location))
    return LocalRoot(Path(expand(location)).absolute())


def open_objects(url: str) -> "Objects":
    """The objects below a URL; nothing is looked at yet. Raises :class:`UsageError` for an invalid one."""
    from depthsieve.storage.objects import Objects, parse_url

    return Objects(parse_url(url))
