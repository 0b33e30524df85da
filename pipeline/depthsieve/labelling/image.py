"""From an image's file to the teacher's input, or to the reason why there is none."""

import hashlib
from collections.abc import Mapping
from typing import Protocol

import cv2
import numpy as np

from depthsieve.core.cameras import Camera, is_apart
from depthsieve.core.errors import IMAGE_FAULTS, ImageRejected, SourceError, TeacherError
from depthsieve.core.records import Alpha, ImageRecord, Shape
from depthsieve.features import image_signals
from depthsieve.images.decode import decode
from depthsieve.labelling.batch import PreparedImage
from depthsieve.labelling.metric import prepare_metric, prepare_other, seen_intrinsics
from depthsieve.labelling.predicting import prepare
from depthsieve.store.cameras import camera_in_labels
from depthsieve.store.stored_images import encode_image, to_label_shape
from depthsieve.teachers import Teacher

Prepared = PreparedImage | ImageRejected


class Readable(Protocol):
    """What images are read from: a source, or what fetches a source's images ahead."""

    def read(self, image_id: str) -> bytes:
        """See :class:`~depthsieve.sources.protocol.Source`."""

    def is_there(self) -> bool:
        """See :class:`~depthsieve.sources.protocol.Source`."""


class Unreadable(ImageRejected):
    """A file that could not be read; where that is true of a whole shard, it is the disk and not the images."""


def prepare_image(
    image: ImageRecord,
    shape: Shape,
    sources: Mapping[str, Readable],
    teacher: Teacher,
    last_attempt: bool,
    image_quality: int | None = None,
    second: Teacher | None = None,
    alpha: Alpha = "respect",
    metric: Teacher | None = None,
    with_photo: bool = False,
    given: Camera | None = None,
) -> Prepared:
    """Read, decode and resize one image; what is wrong with the image itself comes back as a value.

    With an ``image_quality`` it is also made a JPEG of that, to be stored; with a ``second`` or a
    ``metric`` teacher, their inputs too, and ``with_photo`` the image at label shape. ``given`` is the camera that a
    user gave it, which goes before EXIF.
    ``alpha``: see :func:`~depthsieve.images.decode.decode`. A file that cannot be read raises :class:`OSError`, unless
    that is its own fault, or this is the ``last_attempt``.
    """
    source = sources[image.id.partition("/")[0]]
    try:
        data = source.read(image.id)
        decoded = decode(data, alpha)
        height, width = decoded.rgb_HW3.shape[:2]
        if (height, width) != (image.height, image.width):
            return ImageRejected(f"changed since the scan: {image.width}x{image.height} then, {width}x{height} now")
        prepared_CHW = prepare(teacher, decoded.rgb_HW3, shape)
        second_Chw = prepare_other(decoded.rgb_HW3, shape, second) if second else None
        exif = decoded.header.camera
        camera = given or exif
        metric_input = prepare_metric(decoded.rgb_HW3, shape, metric, camera) if metric else None
        jpeg = b"" if image_quality is None else encode_image(decoded.rgb_HW3, shape, image_quality)
        photo_HW3 = to_label_shape(decoded.rgb_HW3, shape) if with_photo else None
    except ImageRejected as error:
        return error
    except (SourceError, TeacherError) as error:  # a file that became a link outward, a shape the processor refuses
        return ImageRejected(str(error))
    except OSError as error:
        reason = f"cannot be read any more: {(error.strerror or str(error)).lower()}"
        if error.errno in IMAGE_FAULTS and source.is_there():
            return ImageRejected(reason)
        if last_attempt:
            return Unreadable(reason)
        raise OSError(error.errno, f"{image.id} {reason}") from error
    hole_HW = None
    if decoded.hole_HW is not None:
        covered = cv2.resize(decoded.hole_HW.astype(np.float32), shape[::-1], interpolation=cv2.INTER_AREA)
        hole_HW = np.asarray(covered > 0)
    # A teacher that says it takes no camera sees the one that all labels have, whatever another one is given.
    takes_camera = any(one is not None and one.intrinsics_in != "ignored" for one in (teacher, second))
    in_labels = camera_in_labels(decoded.header.focal_px, (height, width))
    digest, signals = hashlib.sha256(data).hexdigest(), image_signals(decoded.rgb_HW3)
    return PreparedImage(
        prepared_CHW,
        second_Chw,
        hole_HW,
        decoded.header.focal_px,
        seen_intrinsics(camera if takes_camera else in_labels, (height, width), shape),
        digest,
        signals,
        jpeg,
        decoded.is_dim,
        metric_input,
        photo_HW3,
        camera,
        given is not None and is_apart(given, exif),
    )


def black_image(shape: Shape, teacher: Teacher, second: Teacher | None = None) -> PreparedImage:
    """A black picture of label shape, as :func:`prepare_image` would prepare it: what a teacher that works can see."""
    black_HW3 = np.zeros((*shape, 3), np.uint8)
    second_Chw = prepare_other(black_HW3, shape, second) if second else None
    nowhere = seen_intrinsics(None, shape, shape)
    signals = image_signals(black_HW3)
    return PreparedImage(
        prepare(teacher, black_HW3, shape), second_Chw, None, 0.0, nowhere, "", signals, photo_HW3=black_HW3
    )
