"""Export the labels of a store: what is there, what is left to do, and doing it so that a kill costs little."""

import contextlib
import heapq
import os
import time
from collections import Counter, deque
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any, TypeVar

import pyarrow as pa
import pyarrow.compute as pc

from depthsieve.core.errors import (
    ROOM,
    ImageRejected,
    LoaderError,
    RunError,
    SourceError,
    StoreDamaged,
    UsageError,
    one_line,
)
from depthsieve.core.processes import cores
from depthsieve.core.progress import progress_bar, say
from depthsieve.core.records import ImageFailure
from depthsieve.curation.table import empty_table, image_table
from depthsieve.curation.where import where as rows_where
from depthsieve.export.items import ItemReader
from depthsieve.export.ledger import Ledger, Part, all_ids, free_bytes
from depthsieve.export.masked import Masked, masked_of
from depthsieve.export.names import Places
from depthsieve.export.pairs import counted
from depthsieve.export.photos import PhotoFile
from depthsieve.export.protocol import Ask, Encoded, Entry, Item, Target, VolumeTarget
from depthsieve.export.readme import write_readme
from depthsieve.export.settings import ExportSettings, ExportSummary, Link, Resolution
from depthsieve.export.table import find_target
from depthsieve.reliability.masking import drop_fraction
from depthsieve.storage import expand, is_url
from depthsieve.store import Label, Store, open_store
from depthsieve.store.index import settled_index
from depthsieve.training.selection import Entry as Place
from depthsieve.training.selection import Selection, select

PER_PART = 64
"""Images of a part of files: as many are written again at most after a kill."""

DROP = 0.10
"""Which share of all pixels ``unreliable`` counts in ``where``, without a mask."""

NAMED = 3
"""Images of a reason that are named."""

TRIED = 6
"""Images that are encoded to tell what all will take."""

_Result = TypeVar("_Result")


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
    kind = row.load()
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
    selection, left_out = _selected(store, subset, settings.where, settings.mask)
    reader = ItemReader(store, kind.wants, resolution, settings.mask)
    ask = Ask(row.name, store, selection.ids, folder, reader.quantity, reader.unit, resolution, settings.mask, options)
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
    return _Export(store, *_fitting(made, reader, selection, left_out), made, reader, ledger, asked, settings)


def _check_apart(out: Path, store: Store) -> None:
    """Raise unless ``out`` lies apart from the store and the images."""
    places = {store.location: "the store", **{root: f"source {name!r}" for name, root in store.sources().items()}}
    here = Path(os.path.realpath(out))
    for place, what in places.items():
        if not is_url(place) and here.is_relative_to(os.path.realpath(place)):
            raise UsageError(f"{out} lies in {what} ({place}); name a folder outside")


def _selected(store: Store, subset: Any, where: str | None, mask: float | None) -> "tuple[Selection, list[_LeftOut]]":
    """The images to export, and how many of the store's are left out, by reason."""
    selection = select(store, subset)
    if where is not None:
        index, _ = settled_index(store)
        rows_where(empty_table(index), where)  # what is wrong with it is told before anything takes long
        rows = image_table(store, index, DROP if mask is None else mask)
        rows = rows.filter(pc.is_in(rows["id"], value_set=pa.array(selection.ids, pa.string())))
        kept = rows["id"].filter(pa.array(rows_where(rows, where))).to_pylist()
        if not kept:
            raise LoaderError(f"--where {where!r} keeps none of {len(selection):,} images")
        selection = select(store, kept)
    status, _ = settled_index(store, ("id", "status"))
    counts = Counter(status["status"].to_pylist())
    left_out = [_LeftOut("not selected", counts.pop("labelled", 0) - len(selection), ())]
    for reason, number in sorted(counts.items()):
        ids = status["id"].filter(pc.equal(status["status"], reason))
        left_out.append(_LeftOut(reason, number, tuple(ids[:NAMED].to_pylist())))
    return selection, [one for one in left_out if one.images]


def _fitting(
    target: Target, reader: ItemReader, selection: Selection, left_out: "list[_LeftOut]"
) -> "tuple[Selection, list[_LeftOut]]":
    """The images that are for the target, and all that are not, by reason."""
    kept: list[str] = []
    ids_of: dict[str, list[str]] = {}
    for image_id in selection.ids:
        reason = target.leave_out(image_id) or reader.leave_out(image_id)
        (ids_of.setdefault(reason, []) if reason else kept).append(image_id)
    if not ids_of:
        return selection, left_out
    if not kept:
        raise LoaderError(f"none of {len(selection):,} images is exported: {next(iter(ids_of))}")
    more = [_LeftOut(reason, len(ids), tuple(ids[:NAMED])) for reason, ids in sorted(ids_of.items())]
    return select(target.ask.store, kept), [*left_out, *more]


@dataclass(frozen=True)
class _LeftOut:
    """How many images of a store are not exported for one reason, and the first of them."""

    reason: str
    images: int
    first: tuple[str, ...]


@dataclass
class _Export:
    """One export of the images of ``selection``; ``asked`` is what a folder is held to."""

    store: Store
    selection: Selection
    left_out: Sequence[_LeftOut]
    target: Target
    reader: ItemReader
    ledger: Ledger
    asked: Mapping[str, Any]
    settings: ExportSettings
    linked: int = 0
    _versions: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._number = {image_id: number for number, image_id in enumerate(self.selection.ids)}
        self.rounds = [] if self.ledger.check(self.asked) else self.ledger.rounds()
        known = dict(all_ids(self.rounds))
        gone = [image_id for image_id in known if image_id not in self._number]
        if gone:
            raise UsageError(
                f"{self.ledger.out} has {len(gone)} images that are not exported now (the first is {gone[0]}): they "
                "left the store, or --subset or --where chooses others; export into another folder, or remove it"
            )
        places = Places(known.values())
        self.new = [
            (image_id, places.give(image_id, self.target.place(image_id), self.target.renames))
            for image_id in self.selection.ids
            if image_id not in known
        ]
        self._known = len(known)

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
                if image["version"] == self._version(image["id"]) and self.ledger.has(image["files"])
            }
            left = [image for image in part.images if image[0] not in has]
            if isinstance(self.target, VolumeTarget) and (left or not self.ledger.has(record["volume"])):
                yield part, part.images  # a volume is written whole
            elif left:
                yield part, left

    def _entry(self, image_id: str) -> Place:
        return self.selection[self._number[image_id]]

    def _version(self, image_id: str) -> str:
        """Which label of an image this is: another one after it was labelled again."""
        entry = self._entry(image_id)
        if entry.shard not in self._versions:
            self._versions[entry.shard] = str(self.store.commit_record(entry.shard)["content_sha256"])[:16]
        return f"{self._versions[entry.shard]}/{entry.row}"

    def dry_run(self, started: float) -> ExportSummary:
        images = [*(image for _, left in self._todo() for image in left), *self.new]
        return self._summary(started, True, len(images), self._estimate(images), (), free_bytes(self.ledger.out))

    def _estimate(self, images: Sequence[tuple[str, str]]) -> int:
        """About what these images will take: the bytes a pixel of some of them, and photos as they are."""
        written = pixels = 0
        for at in range(min(TRIED, len(images))):
            image_id, path = images[at * len(images) // min(TRIED, len(images))]
            made = self._encoded(image_id, path)
            if isinstance(made, tuple):
                item, encoded = made
                pixels += item.depth_HW.size
                written += sum(len(one) for one in encoded.files.values() if isinstance(one, bytes))
        entries = [self._entry(image_id) for image_id, _ in images]
        shapes = [one.source_shape if self.reader.resolution == "source" else one.label_shape for one in entries]
        photos = sum(one.source_size for one in entries) if self.target.links and self.settings.link == "copy" else 0
        return round(written / max(pixels, 1) * sum(height * width for height, width in shapes)) + photos

    def run(self, started: float, progress: bool) -> ExportSummary:
        free = free_bytes(self.ledger.out)
        todo = [*self._todo()]
        images = [*(image for _, left in todo for image in left), *self.new]
        if images:
            needed = self._estimate(images)
            if needed > free:
                raise RunError(
                    f"{self.ledger.out}: {len(images):,} images take about {_size(needed)} and {_size(free)} are free; "
                    "make room or name a folder on another disk"
                )
            say(f"{len(images):,} images take about {_size(needed)}; {_size(free)} are free.", shown=progress)
        self.ledger.open(self.asked)
        try:
            if images:
                self.ledger.undo()
            if self.new:
                parts = self.ledger.add_round(len(self.rounds), self.new, self.per_part)
                self.rounds.append(parts)
                todo += [(part, part.images) for part in parts]
            with (
                ThreadPoolExecutor(self.settings.threads or cores()) as pool,
                progress_bar("export", total=len(images), shown=progress) as bar,
            ):
                for part, left in todo:
                    if isinstance(self.target, VolumeTarget):
                        self._write_volume(self.target, part, pool, bar)
                    else:
                        self._write_files(part, left, pool, bar)
            count, size, failed = self._totals()
            if self.ledger.done() is None:
                self._finish(count, failed)
        finally:
            self.ledger.close()
        return self._summary(started, False, len(images) - len(failed), size, failed, free)

    def _write_files(self, part: Part, images: Sequence[tuple[str, str]], pool: ThreadPoolExecutor, bar: Any) -> None:
        """Write the files of some images of a part, and record it."""
        written = {row["id"]: row for row in self.ledger.record(part)["images"]}
        failed: dict[str, str] = {}
        try:
            for result in self._ahead(pool, self._written, images):
                bar.update()
                if isinstance(result, ImageFailure):
                    failed[result.id] = result.reason
                    written.pop(result.id, None)
                else:
                    written[result["id"]] = result
        except BaseException:  # interrupted, or no space is left
            with contextlib.suppress(RunError):
                self._record(part, written, failed, {})
            raise
        self._record(part, written, failed, {})

    def _write_volume(self, target: VolumeTarget, part: Part, pool: ThreadPoolExecutor, bar: Any) -> None:
        """Write the volume that a part is, and record it. Where all its images fail there is none."""
        written: dict[str, dict[str, Any]] = {}
        failed: dict[str, str] = {}

        def samples() -> Iterator[tuple[Item, Encoded]]:
            for made in self._ahead(pool, self._encoded, part.images):
                bar.update()
                if isinstance(made, ImageFailure):
                    failed[made.id] = made.reason
                else:
                    item, encoded = made
                    written[item.id] = self._row(item, encoded, {})
                    yield made

        name = target.volume_name(self._volume_number(part))
        made = samples()
        first = next(made, None)
        if first is None:
            (self.ledger.out / name).unlink(missing_ok=True)
        else:
            with self.ledger.volume(name) as temporary:
                target.write_volume(temporary, chain([first], made))
        size = {} if first is None else {name: (self.ledger.out / name).stat().st_size}
        self._record(part, written, failed, size)

    def _record(
        self,
        part: Part,
        written: Mapping[str, Mapping[str, Any]],
        failed: Mapping[str, str],
        volume: Mapping[str, int],
    ) -> None:
        in_order = [written[image_id] for image_id, _ in part.images if image_id in written]
        failures = [{"id": image_id, "reason": reason} for image_id, reason in failed.items()]
        self.ledger.write_json(f"{part.name}.json", {"images": in_order, "failed": failures, "volume": volume})

    def _volume_number(self, part: Part) -> int:
        """Volumes are counted through the rounds."""
        return sum(len(parts) for parts in self.rounds[: part.round]) + part.number

    def _ahead(
        self,
        pool: ThreadPoolExecutor,
        work: Callable[[str, str], _Result],
        images: Iterable[tuple[str, str]],
    ) -> Iterator[_Result]:
        """The results of ``work`` on images, in order; a few more than there are threads are taken ahead."""
        waiting: deque[Future[_Result]] = deque()
        try:
            for image in images:
                waiting.append(pool.submit(work, *image))
                if len(waiting) > 2 * (self.settings.threads or cores()):
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for one in waiting:
                one.cancel()

    def _encoded(self, image_id: str, path: str) -> tuple[Item, Encoded] | ImageFailure:
        try:
            place = self._entry(image_id)
            label = Label(image_id, self.store, place.shard, place.row, place.source_shape)
            item = self.reader.read(label, path)
            return item, self.target.encode(item)
        except (ImageRejected, SourceError, StoreDamaged) as error:
            return ImageFailure(image_id, one_line(error, ROOM).removeprefix(f"{image_id}: "))

    def _written(self, image_id: str, path: str) -> dict[str, Any] | ImageFailure:
        """Encode an image and write its files; its row of the record."""
        made = self._encoded(image_id, path)
        if isinstance(made, ImageFailure):
            return made
        item, encoded = made
        sizes = {name: self.ledger.write(name, one, self.settings.link) for name, one in encoded.files.items()}
        return self._row(item, encoded, sizes)

    def _row(self, item: Item, encoded: Encoded, sizes: Mapping[str, int]) -> dict[str, Any]:
        originals = {
            name for name, one in encoded.files.items() if isinstance(one, PhotoFile) and one.original is not None
        }
        return {
            "id": item.id,
            "path": item.path,
            "version": self._version(item.id),
            "files": dict(sizes),
            "linked": sorted(originals) if self.settings.link != "copy" else [],
            "entry": dict(encoded.entry),
        }

    def _rows(self) -> Iterator[dict[str, Any]]:
        """What is recorded of all images, in the order of ids."""

        def of_round(parts: Sequence[Part]) -> Iterator[dict[str, Any]]:
            for part in parts:
                yield from self.ledger.record(part)["images"]

        return heapq.merge(*(of_round(parts) for parts in self.rounds), key=lambda row: row["id"])

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
        entries = (self._entry(image_id) for image_id in self.selection.ids if image_id not in without)
        return masked_of(self.store, entries, self.settings.mask)

    def _notes(self, dry_run: bool, failed: Sequence[ImageFailure]) -> Iterator[str]:
        yield from self.target.notes()
        if self._known and self.new:
            yield (
                f"{counted(len(self.new), 'image')} added to the {self._known:,} that {self.ledger.out} was made for: "
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
            images=len(self.selection) - len(failed),
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


def _size(count: float) -> str:
    return f"{count / 1e9:.3g} GB" if count >= 1e9 else f"{count / 1e6:.3g} MB"
