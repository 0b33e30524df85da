"""Reading the maps and the image of one sample into arrays. Axes: H row, W column, C or 3 channel."""

import os
import threading
from collections.abc import Mapping
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from depthsieve.core.errors import DepthsieveError, ImageRejected, LoaderError, SourceError, StoreDamaged, UsageError
from depthsieve.core.records import MEND, Shape
from depthsieve.images.decode import decode
from depthsieve.reliability.masking import train_mask
from depthsieve.sources import Source, reopen_source
from depthsieve.store import Store
from depthsieve.store.stored_images import StoredImages, to_label_shape
from depthsieve.training.augment import Augment
from depthsieve.training.crops import Window, choose_window
from depthsieve.training.images import ImagePlaces
from depthsieve.training.samples import Pixels
from depthsieve.training.selection import Entry

_UNREADABLE = "restore it, pass images=... if the images moved, or leave it out with subset=..."
_CHANGED = (
    "restore it, label the new one (`depthsieve label SOURCE STORE` notices that it changed), or leave it out with "
    "subset=..."
)
_GONE = (
    "restore it, pass images=... if the images moved, remove it from the store (`depthsieve label SOURCE STORE "
    "--prune`), or leave it out with subset=...; a store made with `label --store-images` needs no photos"
)

_STORED: dict[str, np.dtype[Any]] = {"depth": np.dtype(np.float16), "reliability": np.dtype(np.uint8)}


class Reader:
    """Reads samples, with files that are open in one process only; several threads may use it."""

    def __init__(self, store: Store, images: ImagePlaces, augment: Augment) -> None:
        self.process = os.getpid()
        self._store = store
        self._stored = StoredImages(store) if images.stored else None
        self._sources: dict[str, Source] = {name: reopen_source(name, root) for name, root in images.roots.items()}
        self._augment = augment
        self._scratch = threading.local()

    def fill(self, entry: Entry, threshold: int, out: Mapping[str, NDArray[Any]], *random: int | str) -> Pixels:
        """Read one sample into ``out``, whose arrays say what is wanted, and as what.

        ``depth`` [H,W] as float32 or as float16, which is what is stored; ``reliability`` uint8 [H,W]; ``mask`` bool
        [H,W] (or none); ``image`` [3,H,W] (or none), as float32 0..1 or as uint8. ``random`` is what randomness depends
        on: seed, epoch and image id.
        """
        window = choose_window(entry.label_shape, self._augment, *random)
        self._label(entry, window, out)
        if "image" in out:
            part_HW3 = self._augment.colours(window.cut_image(self._image(entry)), *random)
            self._to_planes(part_HW3, out["image"])
        codes_HW = out["reliability"]
        kept_HW = train_mask(codes_HW, threshold)
        if "mask" in out:
            np.copyto(out["mask"], kept_HW)
        return Pixels(int(np.count_nonzero(codes_HW)), int(np.count_nonzero(kept_HW)))

    def _label(self, entry: Entry, window: Window, out: Mapping[str, NDArray[Any]]) -> None:
        """Depth and reliability of a window."""
        label = f"{entry.id}: its label (shard {entry.shard}, row {entry.row} of {self._store.location})"
        try:
            reader = self._store.reader(entry.shard)
            for name, stored in _STORED.items():
                if window.is_all_of(entry.label_shape) and out[name].dtype == stored:
                    reader.read_into(name, entry.row, out[name])
                    continue
                whole_HW = self._scratch_of(name, entry.label_shape, stored)
                reader.read_into(name, entry.row, whole_HW)
                convert(window.cut(whole_HW), out[name])
        except (StoreDamaged, UsageError) as error:  # UsageError: an array is not of the shape that the plan has
            raise StoreDamaged(f"{label}: {error}") from error
        except DepthsieveError:
            raise
        except (OSError, ValueError, RuntimeError, LookupError) as error:
            raise StoreDamaged(f"{label} cannot be read ({error}); {MEND}") from error

    def _scratch_of(self, name: str, shape: Shape, dtype: np.dtype[Any]) -> NDArray[Any]:
        """An array of this thread for a moment: a new one each time would have its memory mapped again."""
        count = int(np.prod(shape))
        held = getattr(self._scratch, name, None)
        if held is None or held.size < count:
            held = np.empty(count, dtype)
            setattr(self._scratch, name, held)
        return np.asarray(held[:count].reshape(shape))

    def _to_planes(self, rgb_HW3: NDArray[np.uint8], out_3HW: NDArray[Any]) -> None:
        if out_3HW.dtype == np.uint8:
            cv2.split(rgb_HW3, list(out_3HW))
            return
        planes_3HW = self._scratch_of("planes", out_3HW.shape, np.dtype(np.uint8))
        cv2.split(rgb_HW3, list(planes_3HW))
        np.divide(planes_3HW, np.float32(255), out=out_3HW)

    def _image(self, entry: Entry) -> NDArray[np.uint8]:
        """The image at label shape, upright, uint8 [H,W,3] RGB."""
        if self._stored is not None:
            return _stored_image(self._stored, entry)
        source = self._sources[entry.id.partition("/")[0]]
        try:
            data = source.read(entry.id)
            if len(data) != entry.source_size:
                raise LoaderError(
                    f"{entry.id}: the source image has {len(data)} bytes and had {entry.source_size} when it was "
                    f"labelled, so the label may be another image's; {_CHANGED}"
                )
            rgb_HW3 = decode(data, self._store.spec.alpha).rgb_HW3
        except (FileNotFoundError, NotADirectoryError, SourceError) as error:  # SourceError: no such member of a file
            raise LoaderError(f"{entry.id}: its photo is gone ({_reason(error, source)}); {_GONE}") from error
        except (OSError, ImageRejected) as error:
            raise LoaderError(
                f"{entry.id}: the source image cannot be read ({_reason(error, source)}); {_UNREADABLE}"
            ) from error
        if rgb_HW3.shape[:2] != entry.source_shape:
            raise LoaderError(
                f"{entry.id}: the source image is {rgb_HW3.shape[0]}x{rgb_HW3.shape[1]} (height x width) and was "
                f"{entry.source_shape[0]}x{entry.source_shape[1]} when it was labelled; {_CHANGED}"
            )
        return to_label_shape(rgb_HW3, entry.label_shape)


def _reason(error: Exception, source: Source) -> str:
    reason = getattr(error, "strerror", None)
    return f"{reason}, below {source.root}" if reason else str(error)


def _stored_image(stored: StoredImages, entry: Entry) -> NDArray[np.uint8]:
    try:
        rgb_HW3 = stored.image(entry.shard, entry.row, entry.label_shape)
    except StoreDamaged as error:
        raise StoreDamaged(f"{entry.id}: {error}") from error
    if rgb_HW3 is None:
        raise LoaderError(
            f"{entry.id}: the store does not have its image; `depthsieve label --store-images --retry-failed` tries to "
            "store it, or train with images='source' or without it"
        )
    return rgb_HW3


def convert(values: NDArray[Any], out: NDArray[Any]) -> None:
    """Copy ``values`` into ``out``, exactly. Half to single precision takes an eighth of numpy's time: where all are
    finite and at least 0, which the depth of a store is, their bits shifted to the place of a float32's are the values
    over 2**112, subnormal ones too.
    """
    if values.dtype != np.float16 or out.dtype != np.float32:
        np.copyto(out, values)
        return
    bits = out.view(np.uint32)
    np.copyto(bits, values.view(np.uint16))
    if bits.size and bits.max() >= 0x7C00:  # a sign, an infinity or no number
        np.copyto(out, values)
        return
    np.left_shift(bits, np.uint32(13), out=bits)
    np.multiply(out, np.float32(2.0**112), out=out)
