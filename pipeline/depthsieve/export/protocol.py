"""What a target is given, and what it returns: the seam between the frame (:mod:`~depthsieve.export.run`) and targets.

Axes: H row, W column, 3 red, green, blue; at label shape, or at that of the upright source.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from depthsieve.core.cameras import Camera
from depthsieve.core.errors import UsageError
from depthsieve.core.records import ImageFailure, Quantity, Shape
from depthsieve.export.clips import Clip
from depthsieve.export.names import Places, safe_path
from depthsieve.export.photos import Photo, PhotoFile
from depthsieve.export.settings import Resolution
from depthsieve.store import Store

Wants = Literal["stored", "metres"]


@dataclass(frozen=True)
class Ask:
    """What a user asks of a ``target``: labels of ``store``, of the images ``ids`` (sorted), with its own ``options``.

    ``out`` is the folder to be written, absolute. ``quantity`` and ``unit`` are those of the depth that the target is
    given, after a conversion to metres. ``chosen``: a subset or a condition chose the images. ``depth_of`` reads an
    image's depth, as its item has it, at label resolution.
    """

    target: str
    store: Store
    ids: Sequence[str]
    out: Path
    quantity: Quantity
    unit: str
    resolution: Resolution
    mask: float | None
    options: Mapping[str, Any]
    chosen: bool
    depth_of: Callable[[str], NDArray[np.float32]]

    @property
    def images(self) -> int:
        """How many images that is."""
        return len(self.ids)


@dataclass(frozen=True, eq=False)
class Item:
    """One label, as a target gets it.

    Attributes:
        id: the image's id in the store.
        path: where it goes, relative, ``/``-separated, safe on every file system and no other image's: what
            :meth:`Target.place` asked for, or that with a suffix ``~xxxxxxxx`` in its last part.
        depth_HW: float32, in the target's quantity; NaN where it is invalid or masked.
        reliability_HW: uint8; 0 where ``depth_HW`` is NaN.
        label_shape: (height, width) of the label as it is stored.
        source_shape: (height, width) of the upright source image.
        orientation: the EXIF orientation of the source file, 1..8; depth is upright all the same.
        camera: the image's, at source resolution; None = unknown.
        content_sha256: of the source file.
        photo: the source image.
    """

    id: str
    path: str
    depth_HW: NDArray[np.float32]
    reliability_HW: NDArray[np.uint8]
    label_shape: Shape
    source_shape: Shape
    orientation: int
    camera: Camera | None
    content_sha256: str
    photo: Photo

    @property
    def valid(self) -> NDArray[np.bool_]:
        """Bool [H,W], False where depth is invalid or masked."""
        return ~np.isnan(self.depth_HW)

    @property
    def focal_px(self) -> float:
        """Horizontal focal length at source resolution; 0 = unknown."""
        return 0.0 if self.camera is None else round(self.camera.fx, 3)

    @property
    def focal_from(self) -> str:
        """How the camera is known (:data:`~depthsieve.core.cameras.Origin`); empty where it is not."""
        return "" if self.camera is None else self.camera.origin

    def facts(self) -> dict[str, Any]:
        """What any target's metadata has of it, as plain JSON values: the id first, which its path may differ from."""
        height, width = self.depth_HW.shape
        return {
            "id": self.id,
            "height": height,
            "width": width,
            "source_height": self.source_shape[0],
            "source_width": self.source_shape[1],
            "orientation": self.orientation,
            "focal_px": self.focal_px,
            "focal_from": self.focal_from,
            "content_sha256": self.content_sha256,
        }


@dataclass(frozen=True)
class Encoded:
    """One label as a target writes it: ``files`` by their path in the output folder (in a :class:`VolumeTarget`, by the
    name of the field); ``entry`` is what :meth:`Target.finish` gets of it, plain JSON values."""

    files: Mapping[str, bytes | PhotoFile]
    entry: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Entry:
    """One image that was exported: its id, its :attr:`Item.path`, and what its :class:`Encoded` said."""

    id: str
    path: str
    data: Mapping[str, Any]


Entries = Callable[[], Iterator[Entry]]
"""Called, the entries of all images that were exported, in the target's order; as often as one likes."""


@dataclass(frozen=True)
class About:
    """What the README of an output folder says of its target, in Markdown, each a sentence or two.

    ``layout``: which files there are. ``depth``: quantity, unit, scale, what is near. ``invalid``: what an invalid or
    masked pixel holds, in depth and in reliability. ``precision``: how far values may be from the store's. ``photos``:
    whether they are there, and how they lie under the depth. ``code``: Python that reads one label, run in the folder.
    """

    layout: str
    depth: str
    invalid: str
    precision: str
    photos: str
    code: str


class Target(ABC):
    """What turns labels into files. Made for what is asked (:meth:`check`), before anything is written.

    ``encode`` is a pure function of the item, called by several threads at once; the same item gives the same bytes.
    """

    wants: ClassVar[Wants] = "stored"
    """Depth as the store has it, or in metres (then refused where the store has none)."""
    aligns: ClassVar[bool] = False
    """Whether stored depth is taken as ``align-clips`` brought it to one scale a clip, where it did."""
    metric_option: ClassVar[str] = ""
    """The option, if any, that makes it want metres."""
    holds_invalid: ClassVar[bool] = True
    """Whether a pixel may be invalid. Where not, ``--mask`` is refused, unless :meth:`check` is overridden."""
    resolutions: ClassVar[tuple[Resolution, ...]] = ("label", "source")
    """Which it can be written at; the first is the default."""
    links: ClassVar[bool] = False
    """Whether it writes photos as files of their own, which ``--link`` may link."""
    writes_reliability: ClassVar[bool] = True
    """Whether reliability codes are in its files, beside depth."""
    upright: ClassVar[bool] = True
    """Whether it writes maps upright. Where not, they have the order of pixels that the file has: for readers that do
    not look at EXIF."""
    renames: ClassVar[bool] = True
    """Whether an image may get another path than it asked for. Where not, two that ask for the same are refused."""

    def __init__(self, ask: Ask) -> None:
        self.ask = ask
        self.check()

    def check(self) -> None:
        """Raise :class:`UsageError`, with the reason, where what is asked cannot be held."""
        if self.ask.mask is not None and not self.holds_invalid:
            raise UsageError(f"target {self.ask.target} cannot hold invalid pixels, so it takes no --mask")

    def notes(self) -> Iterable[str]:
        """What a user should know before it is written, a line each."""
        return ()

    def inputs(self) -> Mapping[str, str]:
        """Digests of files that it reads beside the store, by name: a folder is resumed with the same ones only."""
        return {}

    def leave_out(self, image_id: str) -> str:
        """Why an image is not for this target, and is left out; "" where it is. A pure function of the id."""
        return ""

    def place(self, image_id: str) -> str:
        """Where an image would best go: see :attr:`Item.path`. A pure function of the id."""
        return safe_path(image_id)

    def state(self, image_id: str) -> str:
        """What else of the store than its label decides how an image is written; changed, it is written again."""
        return ""

    def order(self, image_id: str) -> tuple[str, ...]:
        """The key that sorts images as they are written, and as entries come. A pure function of the id."""
        return (image_id,)

    def clip(self, image_id: str) -> Clip | None:
        """The clip whose other frames decide too how this one is written; None where an image stands alone."""
        return None

    def laid_out(
        self, new: Sequence[str], known: Mapping[str, str], per_part: int
    ) -> tuple[list[tuple[str, str]], list[int]]:
        """Where the ``new`` images go: ids and paths, and the number of the part that each is written with. ``known``
        are the paths of images that are there, by id; they stay."""
        places = Places(known.values())
        laid = [(image_id, places.give(image_id, self.place(image_id), self.renames)) for image_id in new]
        return laid, [at // per_part for at in range(len(laid))]

    def weigh(self, item: Item, encoded: Encoded) -> int:
        """About how many bytes an image will take, photos that are copied aside."""
        return sum(len(one) for one in encoded.files.values() if isinstance(one, bytes))

    @abstractmethod
    def encode(self, item: Item) -> Encoded:
        """The files of one label. Raises :class:`ImageRejected` or :class:`SourceError` for this image alone."""

    def finish(self, entries: Entries) -> Iterator[tuple[str, bytes | Iterable[bytes]]]:
        """Files that are written once all labels are there: indices, lists. Path, and bytes or parts of them."""
        return iter(())

    def front_matter(self) -> str:
        """What stands before the README's text, between lines of dashes; nothing for most."""
        return ""

    def after(self, entries: Entries) -> Iterable[str]:
        """What a user should know once all labels are there, a line each."""
        return ()

    def remedy(self, failed: Sequence[ImageFailure]) -> str:
        """What to do about images that failed, as the end of a sentence."""
        return "the same command tries them again"

    @abstractmethod
    def about(self) -> About:
        """What the README says."""


class VolumeTarget(Target):
    """A target that puts many labels into one file, a volume: a tar, a table."""

    @property
    def per_volume(self) -> int:
        """Images of a volume, at most: the option ``images_per_file``, where 0 is all that one run adds."""
        return int(self.ask.options["images_per_file"]) or max(self.ask.images, 1)

    @abstractmethod
    def volume_name(self, number: int, first: str) -> str:
        """The path of a volume: of the ``number``-th, whose first image has the path ``first``."""

    @abstractmethod
    def write_volume(self, path: Path, samples: Iterator[tuple[Item, Encoded]]) -> None:
        """Write a volume to ``path``, from samples in the target's order, taking one at a time. The same samples give
        the same bytes."""
