"""What there is to label, less what the store knows: a scan of the sources, compared with it. Nothing is written."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from depthsieve.core.errors import SourceError, UsageError
from depthsieve.planning.changes import compare_contents
from depthsieve.planning.checks import check_gone
from depthsieve.planning.request import LabelRequest
from depthsieve.sources.manifest import scan_of_manifest
from depthsieve.sources.scan import Scan, scan_to
from depthsieve.store.standing import Again, known_files


def take_inventory(request: LabelRequest, folder: Path, progress: bool) -> Scan:
    """Scan the sources of a request: images that are new or have changed, and files that cannot be labelled.

    ``folder`` holds what was found, and is the caller's to remove. Raises :class:`SourceError` where there are no
    images, or so many are gone that it looks like a disk that is not there.
    """
    options, known = request.options, _known(request)
    prune = options.prune or options.prune_most
    if request.manifest is not None:
        if prune:
            raise UsageError("a manifest does not say what is gone; prune with the source itself")
        scan = scan_of_manifest(folder / "scan", request.manifest, known)
    else:
        scan = scan_to(folder / "scan", request.sources, known, progress, prune)
    found = scan.tally
    if not (found.images or found.rejected or found.known):
        passed = f"{found.passed.other} other and {found.passed.hidden} hidden files"
        place = request.manifest.path if request.manifest else request.sources[0].shown
        raise SourceError(f"no images in {place} ({passed})")
    check_gone(request.sources[0], scan, options)
    if request.existing is not None:
        compare_contents(scan, request.existing, request.sources, options.check_content, progress)
    return scan


def _known(request: LabelRequest) -> Iterator[Any]:
    if request.existing is None:
        return iter(())
    return known_files(request.existing, Again.of(request.existing, request.options.retry_failed))
