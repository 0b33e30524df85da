"""Export the labels of a store: what is there, what is left to do, and doing it so that a kill costs little."""

import heapq
import os
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from depthsieve.core.errors import RunError, UsageError
from depthsieve.core.processes import cores
from depthsieve.core.progress import progress_bar, say
from depthsieve.core.records import ImageFailure
from depthsieve.export.estimate import estimate_bytes, size_words
from depthsieve.export.items import ItemReader
from depthsieve.export.ledger import Ledger, Part, all_ids, free_bytes, parts_of, without_replaced
from depthsieve.export.masked import Masked, masked_of
from depthsieve.export.pairs import counted
from depthsieve.export.protocol import Ask, Entry, VolumeTarget
from depthsieve.export.readme import write_readme
from depthsieve.export.selecting import LeftOut, fitting, selected
from depthsieve.export.settings import ExportSettings, ExportSummary, Link, Resolution
from depthsieve.export.table import find_target
from depthsieve.export.writing import Writer
from depthsieve.reliability.masking import drop_fraction
from depthsieve.storage import expand, is_url
from depthsieve.store import Store, open_store

PER_PART = 64
"""Images of a part of files: as many are written again at most after a kill."""


def export_labels(
    store: str | Path,
    out: str | Path,
    *,
    target: str,
    subset: Collection[str] | str | Path | None = None,
    where: str | None = None,
    reliability: str | None = None,
    mask: float | None = None,
    resolution: Resolution | None = None,
    link: Link = "copy",
    threads: int | None = None,
    options: Mapping[str, Any] | None = None,
    dry_run: bool = False,
    progress: bool = True,
) -> ExportSummary:
    """Write the labels of a store as files that another tool reads.

    The folder gets a README that says what was written and how to read it. Killed anywhere, the same call resumes, to
    the same bytes; where all is there it does nothing; where the store has grown it adds what is new.

    Args:
        store: a label store: a folder, or the URL of one in an object store.
        out: the folder to write; new, empty, or of an earlier call with the same options.
        target: what the files are for: "png", ...; docs/exporting.md has them all.
        subset: ids, or a subset file of ``depthsieve curate``: only these images.
        where: an SQL expression over the columns that ``depthsieve view`` and ``curate`` have: only images that it is
            true of. ``unreliable`` goes by ``mask``, or 0.1 without one.
        reliability: the name of a layer that ``depthsieve recalibrate`` made.
        mask: the fraction (0 <= mask < 1) of each image's valid pixels, the least reliable, that become invalid; None
            for none. Pixels of reliability 0 are always invalid.
        resolution: "label", or "source" for that of the upright source image; None: the target's own.
        link: photos that need no change are copied, or linked to: "copy", "symlink" or "hard".
        threads: how many images are encoded side by side; None: as many as there are cores.
        options: the target's own options, by name.
        dry_run: write nothing; tell what it would take.
        progress: show a bar.

    Raises:
        UsageError: an invalid option; a target that cannot hold what the store has, with the reason; a folder that
            holds something else.
        LoaderError: no image is left to export, or the subset does not fit the store.
        StoreError: the store cannot be read.
        RunError: the files do not fit on the disk, or cannot be written.
    """
    settings = ExportSettings(
        target=target,
        where=where,
        reliability=reliability,
        mask=mask,
        resolution=resolution,
        link=link,
        threads=threads,
        options=options or {},
    )
    started = time.monotonic()
    job = _prepare(open_store(expand(store), reliability), out, settings, subset)
    return job.dry_run(started) if dry_run else job.run(started, progress)


def _prepare(store: Store, out: str | Path, settings: ExportSettings, subset: Any) -> "_Export":
    """Everything that is checked before anything is written."""
    row = find_target(settings.target)
    options = row.settled(settings.options)
    kind = row.load(options)
    if settings.mask is not None:
        drop_fraction(settings.mask, "mask (--mask)")
    resolution = settings.resolution or kind.resolutions[0]
    if resolution not in kind.resolutions:
        raise UsageError(f"target {row.name} is written at {kind.resolutions[0]} resolution only")
    if settings.link != "copy" and not kind.links:
        raise UsageError(f"target {row.name} writes no photos as files of their own, so there is nothing to link")
    if is_url(str(out)):
        raise UsageError(f"{out}: exports are written to a folder of this machine; copy it to a bucket afterwards")
    folder = Path(os.path.abspath(expand(out)))  # noqa: PTH100 (resolve would follow links)
    _check_apart(folder, store)
    selection, left_out = selected(store, subset, settings.where, settings.mask)
    wants = "metres" if options.get(kind.metric_option) else kind.wants
    reader = ItemReader(store, wants, resolution, settings.mask, kind.aligns and wants == "stored")
    ask = Ask(
        target=row.name,
        store=store,
        ids=selection.ids,
        out=folder,
        quantity=reader.quantity,
        unit=reader.unit,
        resolution=resolution,
        mask=settings.mask,
        options=options,
        chosen=subset is not None or settings.where is not None,
        depth_of=lambda image_id: reader.depth(store.label(image_id)),
    )
    made = kind(ask)
    asked = {
        "target": row.name,
        "store": store.fingerprint,
        "reliability": settings.reliability,
        "mask": settings.mask,
        "resolution": resolution,
        "link": settings.link,
        **({"metres_from": reader.metres_from} if reader.metres_from else {}),
        **options,
        **made.inputs(),
    }
    ledger = Ledger(folder)
    ledger.check(asked)
    selection, left_out = fitting(made, reader, selection, left_out)
    writer = Writer(store, selection, made, reader, ledger, settings.link, settings.threads or cores())
    return _Export(writer, left_out, asked, settings)


def _check_apart(out: Path, store: Store) -> None:
    """Raise unless ``out`` lies apart from the store and the images. No store lies in a folder of images, so where one
    does, a single file of that folder was labelled."""
    places = {store.location: "the store", **{root: f"source {name!r}" for name, root in store.sources().items()}}
    here, at = Path(os.path.realpath(out)), Path(os.path.realpath(store.location))
    for place, what in places.items():
        folder = os.path.realpath(place)
        holds_store = at.is_relative_to(folder) and what != "the store"
        if not is_url(place) and here.is_relative_to(folder) and not holds_store:
            raise UsageError(f"{out} lies in {what} ({place}); name a folder outside")


@dataclass
class _Export:
    """One export of the images of a ``writer``; ``asked`` is what a folder is held to."""

    writer: Writer
    left_out: Sequence[LeftOut]
    asked: Mapping[str, Any]
    settings: ExportSettings
    linked: int = 0

    def __post_init__(self) -> None:
        self.target, self.ledger, self.ids = self.writer.target, self.writer.ledger, self.writer.selection.ids
        self.rounds = [] if self.ledger.check(self.asked) else self.ledger.rounds()
        known = dict(all_ids(self.rounds))
        gone = [image_id for image_id in known if image_id not in self.writer]
        if gone:
            raise UsageError(
                f"{self.ledger.out} has {len(gone)} images that are not exported now (the first is {gone[0]}): they "
                "left the store, or --subset or --where chooses others; export into another folder, or remove it"
            )
        new = [image_id for image_id in self.ids if image_id not in known]
        self._known, self._added = len(known), len(new)
        self.new, self._parts = self.target.laid_out(new, known, self.per_part)
        self.rounds = without_replaced([*self.rounds, parts_of(len(self.rounds), self.new, self._parts)])[:-1]

    @property
    def per_part(self) -> int:
        return self.target.per_volume if isinstance(self.target, VolumeTarget) else PER_PART

    def _todo(self) -> Iterator[tuple[Part, Sequence[tuple[str, str]]]]:
        """Parts of earlier rounds that are not complete, and the images of them that are to be written."""
        for part in (part for parts in self.rounds for part in parts):
            record = self.ledger.record(part)
            has = {
                image["id"]
                for image in record["images"]
                if image["version"] == self.writer.version(image["id"]) and self.ledger.has(image["files"])
            }
            left = [image for image in part.images if image[0] not in has]
            if isinstance(self.target, VolumeTarget) and (left or not self.ledger.has(record["volume"])):
                yield part, part.images  # a volume is written whole
            elif left:
                yield part, left

    def _volume_number(self, part: Part) -> int:
        """Volumes are counted through the rounds."""
        return sum(len(parts) for parts in self.rounds[: part.round]) + part.number

    def dry_run(self, started: float) -> ExportSummary:
        images = [*(image for _, left in self._todo() for image in left), *self.new]
        size = estimate_bytes(self.writer, images)
        return self._summary(started, True, len(images), size, (), free_bytes(self.ledger.out))

    def run(self, started: float, progress: bool) -> ExportSummary:
        free = free_bytes(self.ledger.out)
        todo = [*self._todo()]
        images = [*(image for _, left in todo for image in left), *self.new]
        if images:
            needed = estimate_bytes(self.writer, images)
            takes = f"{len(images):,} images take about {size_words(needed)}"
            if needed > free:
                raise RunError(
                    f"{self.ledger.out}: {takes} and {size_words(free)} are free; make room or name a folder on "
                    "another disk"
                )
            say(f"{takes}; {size_words(free)} are free.", shown=progress)
        self.ledger.open(self.asked)
        try:
            if images:
                self.ledger.undo()
            if self.new:
                parts = self.ledger.add_round(len(self.rounds), self.new, self._parts)
                self.rounds.append(parts)
                todo += [(part, part.images) for part in parts]
            with progress_bar("export", total=len(images), shown=progress) as bar:
                for part, left in todo:
                    self.writer.write(part, left, self._volume_number(part), bar.update)
            count, size, failed = self._totals()
            if self.ledger.done() is None:
                self._finish(count, failed)
        finally:
            self.ledger.close()
        return self._summary(started, False, len(images) - len(failed), size, failed, free)

    def _rows(self) -> Iterator[dict[str, Any]]:
        """What is recorded of all images, in the target's order."""

        def of_round(parts: Sequence[Part]) -> Iterator[dict[str, Any]]:
            for part in parts:
                yield from self.ledger.record(part)["images"]

        return heapq.merge(*(of_round(parts) for parts in self.rounds), key=lambda row: self.target.order(row["id"]))

    def _entries(self) -> Iterator[Entry]:
        return (Entry(row["id"], row["path"], row["entry"]) for row in self._rows())

    def _totals(self) -> tuple[int, int, tuple[ImageFailure, ...]]:
        """Images, bytes and failures that are recorded."""
        count = size = 0
        failed: list[ImageFailure] = []
        for part in (part for parts in self.rounds for part in parts):
            record = self.ledger.record(part)
            count += len(record["images"])
            size += sum(record["volume"].values())
            for row in record["images"]:
                size += sum(number for name, number in row["files"].items() if name not in row["linked"])
                self.linked += len(row["linked"])
            failed += [ImageFailure(one["id"], one["reason"]) for one in record["failed"]]
        return count, size, tuple(sorted(failed, key=lambda one: one.id))

    def _finish(self, count: int, failed: Sequence[ImageFailure]) -> None:
        files = {}
        for path, data in self.target.finish(self._entries):
            with self.ledger.volume(path) as temporary, temporary.open("wb") as file:
                file.writelines([data] if isinstance(data, bytes) else data)
            files[path] = (self.ledger.out / path).stat().st_size
        readme = write_readme(self.target, self.asked, count, self._counts(), failed, self._masked(failed))
        files["README.md"] = self.ledger.write("README.md", readme.encode())
        self.ledger.write_json("done.json", {"images": count, "files": files})

    def _counts(self) -> dict[str, int]:
        """Images that are left out, by reason."""
        return {one.reason: one.images for one in self.left_out}

    def _masked(self, failed: Sequence[ImageFailure]) -> Masked | None:
        """What the mask that was asked for masks of the images that are exported; None without one."""
        if self.settings.mask is None:
            return None
        without = {one.id for one in failed}
        entries = (self.writer.entry(image_id) for image_id in self.ids if image_id not in without)
        return masked_of(self.writer.store, entries, self.settings.mask)

    def _notes(self, dry_run: bool, failed: Sequence[ImageFailure]) -> Iterator[str]:
        yield from self.target.notes()
        if self._known and self.new:
            yield (
                f"{counted(self._added, 'image')} added to the {self._known:,} that {self.ledger.out} was made for: "
                "labelled since, or chosen now by --subset or --where"
            )
        masked = self._masked(failed)
        if masked is not None and masked.tied:
            share = f"{masked.share:.2%} of the valid pixels of all images"
            yield f"--mask {self.settings.mask:g} masks {share}. {masked.ties}"
        if not dry_run:
            yield from self.target.after(self._entries)

    def _summary(
        self, started: float, dry_run: bool, now: int, size: int, failed: tuple[ImageFailure, ...], free: int
    ) -> ExportSummary:
        return ExportSummary(
            out=str(self.ledger.out),
            target=self.settings.target,
            dry_run=dry_run,
            images=len(self.ids) - len(failed),
            images_now=now,
            left_out=self._counts(),
            first_left_out={one.reason: one.first for one in self.left_out if one.first},
            failed=failed,
            remedy=self.target.remedy(failed) if failed else "",
            bytes=size,
            free_bytes=free,
            photos_linked=self.linked,
            notes=tuple(self._notes(dry_run, failed)),
            seconds=time.monotonic() - started,
        )
