"""Write the images of an export, a part at a time: a file or more an image, or one volume of many."""

import contextlib
import hashlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import chain
from typing import Any, TypeVar

from depthsieve.core.errors import ROOM, ImageRejected, RunError, SourceError, StoreDamaged, one_line
from depthsieve.core.records import ImageFailure
from depthsieve.export.items import ItemReader
from depthsieve.export.ledger import Ledger, Part
from depthsieve.export.photos import PhotoFile
from depthsieve.export.protocol import Encoded, Item, Target, VolumeTarget
from depthsieve.export.settings import Link
from depthsieve.store import Label, Store
from depthsieve.training.selection import Entry as Place
from depthsieve.training.selection import Selection

_Result = TypeVar("_Result")


@dataclass
class Writer:
    """Encodes images of ``selection`` for a ``target``, so many ``threads`` at once, and writes and records them."""

    store: Store
    selection: Selection
    target: Target
    reader: ItemReader
    ledger: Ledger
    link: Link
    threads: int
    _versions: dict[str, str] = field(default_factory=dict)
    _clips: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._number = {image_id: number for number, image_id in enumerate(self.selection.ids)}

    def __contains__(self, image_id: str) -> bool:
        """Whether an image is exported."""
        return image_id in self._number

    def entry(self, image_id: str) -> Place:
        """Where the label of an image is."""
        return self.selection[self._number[image_id]]

    def version(self, image_id: str) -> str:
        """Which label of an image this is: another one after it was labelled again, or another frame of a clip whose
        frames decide together how each is written."""
        clip = self.target.clip(image_id)
        if clip is None:
            return self._version(image_id)
        if clip.id not in self._clips:
            labels = [self._version(one) if one in self else "" for one in clip.ids]
            self._clips[clip.id] = hashlib.sha256(
                "\n".join([*clip.ids, *labels, *map(str, clip.numbers)]).encode()
            ).hexdigest()[:16]
        return f"{self._version(image_id)}/{self._clips[clip.id]}"

    def _version(self, image_id: str) -> str:
        entry = self.entry(image_id)
        if entry.shard not in self._versions:
            self._versions[entry.shard] = str(self.store.commit_record(entry.shard)["content_sha256"])[:16]
        return f"{self._versions[entry.shard]}/{entry.row}{self.target.state(image_id)}"

    def encoded(self, image_id: str, path: str) -> tuple[Item, Encoded] | ImageFailure:
        """The files of an image, with nothing written."""
        try:
            place = self.entry(image_id)
            label = Label(image_id, self.store, place.shard, place.row, place.source_shape)
            item = self.reader.read(label, path)
            return item, self.target.encode(item)
        except (ImageRejected, SourceError, StoreDamaged) as error:
            return ImageFailure(image_id, one_line(error, ROOM).removeprefix(f"{image_id}: "))

    def write(self, part: Part, images: Sequence[tuple[str, str]], volume: int, on_image: Callable[[], object]) -> None:
        """Write a part, or of a part of files only ``images``, and record it; ``volume`` is the number of its volume.

        ``on_image`` is called after each image. Files are recorded however it ends, a volume once it is whole.
        """
        with ThreadPoolExecutor(self.threads, "export") as pool:
            if isinstance(self.target, VolumeTarget):
                name = self.target.volume_name(volume, part.images[0][1])
                self._write_volume(name, self.target, part, pool, on_image)
            else:
                self._write_files(part, images, pool, on_image)

    def _write_files(
        self, part: Part, images: Sequence[tuple[str, str]], pool: ThreadPoolExecutor, on_image: Callable[[], object]
    ) -> None:
        """Write the files of some images of a part, and record it."""
        written = {row["id"]: row for row in self.ledger.record(part)["images"]}
        failed: dict[str, str] = {}
        try:
            for result in self._ahead(pool, self._written, images):
                on_image()
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

    def _write_volume(
        self, name: str, target: VolumeTarget, part: Part, pool: ThreadPoolExecutor, on_image: Callable[[], object]
    ) -> None:
        """Write the volume that a part is, and record it. Where all its images fail there is none."""
        written: dict[str, dict[str, Any]] = {}
        failed: dict[str, str] = {}

        def samples() -> Iterator[tuple[Item, Encoded]]:
            for made in self._ahead(pool, self.encoded, part.images):
                on_image()
                if isinstance(made, ImageFailure):
                    failed[made.id] = made.reason
                else:
                    item, encoded = made
                    written[item.id] = self._row(item, encoded, {})
                    yield made

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
                if len(waiting) > 2 * self.threads:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for one in waiting:
                one.cancel()

    def _written(self, image_id: str, path: str) -> dict[str, Any] | ImageFailure:
        """Encode an image and write its files; its row of the record."""
        made = self.encoded(image_id, path)
        if isinstance(made, ImageFailure):
            return made
        item, encoded = made
        sizes = {name: self.ledger.write(name, one, self.link) for name, one in encoded.files.items()}
        return self._row(item, encoded, sizes)

    def _row(self, item: Item, encoded: Encoded, sizes: Mapping[str, int]) -> dict[str, Any]:
        originals = {
            name for name, one in encoded.files.items() if isinstance(one, PhotoFile) and one.original is not None
        }
        return {
            "id": item.id,
            "path": item.path,
            "version": self.version(item.id),
            "files": dict(sizes),
            "linked": sorted(originals) if self.link != "copy" else [],
            "entry": dict(encoded.entry),
        }
