"""What there is to label, less what the store knows: a scan of the sources, compared with it. Nothing is written."""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from depthsieve.core.errors import ImageRejected, SourceError, UsageError
from depthsieve.core.patterns import is_excluded
from depthsieve.core.progress import logger, say
from depthsieve.labelling.predicting import label_shape
from depthsieve.planning.cameras import again, planned_cameras
from depthsieve.planning.changes import compare_contents
from depthsieve.planning.checks import check_gone, what_it_is
from depthsieve.planning.request import LabelRequest
from depthsieve.sources.manifest import scan_of_manifest
from depthsieve.sources.scan import Scan, scan_to
from depthsieve.store.standing import known_files, standing


def take_inventory(request: LabelRequest, folder: Path, progress: bool) -> Scan:
    """Scan the sources of a request: images that are new or have changed, and files that cannot be labelled.

    ``folder`` holds what was found, and is the caller's to remove. Raises :class:`SourceError` where there are no
    images, or so many are gone that it looks like a disk that is not there.
    """
    options, known = request.options, _known(request)
    say(f"Scanning {request.manifest.path if request.manifest else request.sources[0].shown}.", shown=progress)
    if request.manifest is not None:
        if options.prunes:
            raise UsageError("a manifest does not say what is gone; prune with the source itself")
        scan = scan_of_manifest(folder / "scan", request.manifest, known)
    else:
        patterns = request.excluded[request.options.name]
        find_gone = request.existing is not None
        frames = request.frames[request.options.name]
        scan = scan_to(
            folder / "scan", request.sources, known, progress, find_gone=find_gone, exclude=patterns, frames=frames
        )
    found = scan.tally
    if not (found.images or found.rejected or found.known):
        place = request.manifest.path if request.manifest else request.sources[0].shown
        raise SourceError(f"no images in {place} ({found.passed})")
    if _is_new(request) and not found.known and not _has_an_image(request, scan):
        raise SourceError(f"{_why_nothing(request, scan)}; nothing was written")
    if options.prunes:
        check_gone(request.sources[0], scan, options)
    if request.existing is not None:
        compare_contents(scan, request.existing, request.sources, options.check_content, progress)
    logger.info("scanned: %d images new or changed, %d known, %d rejected", found.images, found.known, found.rejected)
    return scan


@dataclass(frozen=True)
class Gone:
    """How many images are no longer in the source and stay in the store, and what a person should know of it."""

    images: int = 0
    notes: tuple[str, ...] = ()


def gone_from(request: LabelRequest, scan: Scan) -> Gone:
    """What is gone from the source of a request and stays, which is nothing where it is pruned."""
    count = scan.tally.gone
    if request.existing is None or request.options.prunes or not count:
        return Gone()
    place, stands = request.sources[0].shown, standing(request.existing)
    without = pa.array([*stands.failed, *stands.rejected], pa.string())
    failed = sum(int(pc.sum(pc.is_in(table["id"], value_set=without)).as_py() or 0) for table in scan.gone())
    notes = []
    patterns = () if request.manifest is not None else request.excluded[request.options.name]
    ids = (image for table in scan.gone() for image in table["id"].to_pylist()) if patterns else ()
    left_out = sum(is_excluded(image.partition("/")[2], patterns) for image in ids)
    if left_out:
        notes.append(f"{_images(left_out)} left out by --exclude now; their labels stay (--prune removes them)")
        count, failed = count - left_out, min(failed, count - left_out)
    if count > failed:
        notes.append(f"{_images(count - failed)} no longer in {place}; their labels stay (--prune removes them)")
    if failed:
        notes.append(f"{_images(failed, 'failed ')} no longer in {place} (--prune or --retry-failed removes them)")
    return Gone(count, tuple(notes))


def scan_notes(request: LabelRequest, scan: Scan) -> tuple[str, ...]:
    """What a person should know of what the scan found and left out."""
    notes = scan.tally.notes()
    for name, patterns in request.excluded.items():
        if patterns and request.manifest is None:
            left_out, shown = scan.tally.passed.excluded, " ".join(patterns)
            files = "1 file" if left_out == 1 else f"{left_out:,} files"
            notes = (f"{files} of source {name!r} left out by --exclude {shown}", *notes)
    return notes


def _images(count: int, which: str = "") -> str:
    return f"1 {which}image is" if count == 1 else f"{count:,} {which}images are"


def _is_new(request: LabelRequest) -> bool:
    """Whether the store knows none of the sources."""
    known = request.existing.sources() if request.existing is not None else {}
    return not any(source.name in known for source in request.sources)


def _has_an_image(request: LabelRequest, scan: Scan) -> bool:
    """Whether the teacher can label any of the images of a scan."""
    for table in scan.images():
        for height, width in zip(table["height"].to_pylist(), table["width"].to_pylist(), strict=True):
            with contextlib.suppress(ImageRejected):
                label_shape(request.teacher, height, width)
                return True
    return False


def _why_nothing(request: LabelRequest, scan: Scan) -> str:
    """What a source is that has not a single image, and what to do."""
    source = request.sources[0]
    if request.manifest is None and source.is_one_file and (words := what_it_is(source.shown)):
        return f"{source.shown} {words}"
    place = request.manifest.path if request.manifest else source.shown
    refused = next((table.slice(0, 1).to_pylist()[0] for table in scan.rejected() if len(table)), None)
    if refused is None:
        return f"none of the {scan.tally.images:,} images in {place} has a size that the teacher can label"
    if scan.tally.rejected == 1 and not scan.tally.images:
        return f"no image in {place}: {refused['reason']}"
    files = scan.tally.rejected + scan.tally.images
    return f"none of {files:,} files in {place} can be labelled; the first is {refused['id']}: {refused['reason']}"


def _known(request: LabelRequest) -> Iterator[Any]:
    if request.existing is None:
        return iter(())
    cameras = planned_cameras(request, request.existing)
    return known_files(request.existing, again(request, request.existing, cameras))
