"""Checks that cost nothing, made before a run starts."""

from pathlib import Path

from depthsieve.core.errors import UsageError
from depthsieve.planning.options import LabelOptions
from depthsieve.sources.manifest import Manifest, is_manifest, open_manifest


def find_manifest(path: str | Path, options: LabelOptions) -> Manifest | None:
    """The manifest that a user names as a source; None for another source.

    Raises :class:`UsageError` for options that a manifest settles itself.
    """
    if not is_manifest(path):
        return None
    if options.name != LabelOptions.name or options.root is not None:
        raise UsageError(f"{path} is a manifest, and says itself what its sources are called and where they are")
    return open_manifest(path)
