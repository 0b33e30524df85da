"""Label one shard: decode -> teacher -> reliability -> encode -> write. Knows neither Ray nor the whole run.

Axes: N images of a shard, B images of a batch, C channels, H and W the label shape, K the 256 reliability codes.
"""

import errno
import hashlib
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import torch

from depthsieve.errors import DepthsieveError, ImageRejected, SourceError, StoreError, TeacherError
from depthsieve.images import decode
from depthsieve.numerics import make_profile, torch_threads
from depthsieve.records import (
    ImageRecord,
    LabelJob,
    LabelSpec,
    NumericsProfile,
    Shape,
    Shard,
    ShardResult,
    TeacherRequest,
    digest_of,
)
from depthsieve.reliability import CALIBRATION, encode_error, expected_error, flip_disagreement, histogram
from depthsieve.sources import Source, reopen_source
from depthsieve.store import open_store, schema
from depthsieve.store.writer import CommitContext, ShardArrays, commit_shard
from depthsieve.teachers import Teacher, load_teacher

IMAGE_FAULTS = (errno.ENOENT, errno.EACCES, errno.EPERM, errno.EISDIR, errno.ENOTDIR, errno.ELOOP, errno.ENXIO)
"""File errors that are the image's own: trying again at once cannot help. All others are transient at first."""

DECODED_PIXELS = 100_000_000
"""Pixels that may be decoded and resized at a time, at about 20 bytes each; one larger image goes alone."""


@dataclass(frozen=True)
class PreparedImage:
    """An image ready for the teacher. ``hole_HW`` is True where the source is transparent."""

    image_CHW: np.ndarray[Any, np.dtype[np.float32]]
    hole_HW: np.ndarray[Any, np.dtype[np.bool_]] | None
    focal_px: float
    content_sha256: str


class Unreadable(ImageRejected):
    """A file that could not be read; where that is true of a whole shard, it is the disk and not the images."""


def load_requested(request: TeacherRequest) -> Teacher:
    """The teacher that is asked for."""
    return load_teacher(
        request.name,
        revision=request.revision,
        size=request.size,
        device=request.device,
        dtype=request.dtype,
        max_tokens=request.max_tokens,
        oversize=request.oversize,
    )


def label_spec(teacher: Teacher, signals: tuple[str, ...]) -> LabelSpec:
    """What decides the labels of a teacher with these signals."""
    return LabelSpec(
        weights_digest=teacher.weights_digest,
        quantity=teacher.quantity,
        unit=teacher.unit,
        dtype=teacher.dtype,
        preprocessing=teacher.preprocessing,
        signals=signals,
        calibration=CALIBRATION if signals else "none",
        encoding=schema.ENCODING,
    )


class ShardLabeller:
    """Labels and commits the shards of a job, one call a shard, in this process.

    ``on_images`` is told how many images were done after each batch. ``teacher`` may be one that is loaded already.
    """

    def __init__(
        self, job: LabelJob, teacher: Teacher | None = None, on_images: Callable[[int], None] | None = None
    ) -> None:
        self._job = job
        self._teacher = teacher or load_requested(job.teacher)
        found = label_spec(self._teacher, job.signals).fingerprint
        if found != job.fingerprint:
            raise TeacherError(
                f"a worker found other weights or settings for teacher {job.teacher.name!r} than the run was planned "
                "with; give every worker the same checkpoint"
            )
        self._on_images = on_images or (lambda count: None)
        self._store = open_store(job.store)
        if self._store.fingerprint != job.fingerprint:
            raise StoreError(f"{job.store} is another store than when the run began; run the same command again")
        self._sources = {name: reopen_source(name, root) for name, root in job.sources}
        self._profiles = {generation.number: generation.profile for generation in self._store.generations()}

    def __call__(self, shard_id: str) -> ShardResult:
        """Label one shard. A transient fault comes back as ``error``; the caller may try again."""
        try:
            shard = self._store.planned_shard(shard_id)
            planned = self._profiles[schema.shard_number(shard_id)[0]]
            with torch_threads(planned.threads):
                content = label_shard(shard, self._teacher, self._sources, self._job, planned, self._on_images)
            self._commit(shard, content, planned)
        except DepthsieveError as error:
            return ShardResult(shard_id, error=str(error), fatal=True)
        except OSError as error:
            return ShardResult(shard_id, error=f"{type(error).__name__}: {error}")
        except (MemoryError, RuntimeError) as error:
            if not _is_out_of_memory(error):
                raise
            hint = f"out of memory at batch size {planned.batch_size}; use a smaller --batch-size in a new store"
            return ShardResult(shard_id, error=hint, fatal=True)
        return ShardResult(shard_id, len(shard.images) - len(content.failures))

    def _commit(self, shard: Shard, content: ShardArrays, planned: NumericsProfile) -> None:
        actual = make_profile(self._teacher, planned.batch_size, planned.threads)
        context = CommitContext(
            self._store.fingerprint, self._teacher.quantity, self._teacher.unit, digest_of(actual.to_json())
        )
        try:
            commit_shard(self._store.root, shard, content, context)
        except OSError as error:
            raise StoreError(f"cannot write to {self._store.location}: {error.strerror or error}") from error


def label_shard(
    shard: Shard,
    teacher: Teacher,
    sources: dict[str, Source],
    job: LabelJob,
    profile: NumericsProfile,
    on_images: Callable[[int], None],
) -> ShardArrays:
    """The arrays of a shard. A failed image keeps its row and its place in the batch, all zero.

    Batches are rows [kB, (k+1)B) of the plan, so that no label depends on what failed or came before. Raises
    :class:`OSError` for a transient fault of the file system.
    """
    arrays = _empty_arrays(shard)
    size = profile.batch_size
    spans = [range(start, min(start + size, len(shard.images))) for start in range(0, len(shard.images), size)]
    largest = max(image.width * image.height for image in shard.images)
    unreadable: list[Unreadable] = []
    with ThreadPoolExecutor(max_workers=max(1, min(profile.threads, DECODED_PIXELS // largest))) as decoders:

        def submit(span: range) -> list[Any]:
            return [
                decoders.submit(_prepare, shard.images[row], shard.shape, teacher, sources, job.last_attempt)
                for row in span
            ]

        for span, waiting in _decoded_in_time(spans, submit, teacher.device.type == "cpu", profile.threads):
            prepared = [future.result() for future in waiting]
            unreadable += [image for image in prepared if isinstance(image, Unreadable)]
            _label_batch(arrays, span, prepared, teacher, job.signals)
            on_images(len(span))
    if len(unreadable) == len(shard.images):
        raise OSError(errno.EIO, f"none of {len(unreadable)} images can be read; is the disk there? {unreadable[0]}")
    return ShardArrays(arrays)


def _decoded_in_time(
    spans: list[range], submit: Callable[[range], list[Any]], on_cpu: bool, threads: int
) -> Iterator[tuple[range, list[Any]]]:
    """Each batch with its images under way: one batch ahead of a GPU.

    On a CPU enough of them to keep all threads decoding are decoded first, and then none while the teacher works: its
    threads wait for each other, so that one that shares its core with a decoder slows them all.
    """
    step = max(1, threads // len(spans[0])) if on_cpu else 1
    groups = [spans[start : start + step] for start in range(0, len(spans), step)]
    ahead = [submit(span) for span in groups[0]]
    for number, group in enumerate(groups):
        under_way = ahead
        following = groups[number + 1] if number + 1 < len(groups) else []
        if on_cpu:
            wait([future for waiting in under_way for future in waiting])
            yield from zip(group, under_way, strict=True)
            ahead = [submit(span) for span in following]
        else:
            ahead = [submit(span) for span in following]
            yield from zip(group, under_way, strict=True)


def _holds_something(root: str) -> bool:
    """False where a disk that is not mounted leaves no folder, or an empty one."""
    try:
        with os.scandir(root) as entries:
            return any(True for _ in entries)
    except OSError:
        return False


def _is_out_of_memory(error: Exception) -> bool:
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or "DefaultCPUAllocator" in str(error)


def _empty_arrays(shard: Shard) -> dict[str, np.ndarray[Any, Any]]:
    count = len(shard.images)
    sizes = {"image": count, "y": shard.shape[0], "x": shard.shape[1], "code": 256}
    arrays: dict[str, np.ndarray[Any, Any]] = {}
    for spec in (*schema.MAPS, *schema.ROWS):
        shape = tuple(sizes[axis] for axis in spec.dims)
        arrays[spec.name] = np.full(shape, "", object) if spec.dtype == "str" else np.zeros(shape, spec.dtype)
    for row, image in enumerate(shard.images):
        arrays["id"][row] = image.id
        arrays["source_height"][row] = image.height
        arrays["source_width"][row] = image.width
        arrays["orientation"][row] = image.orientation
    return arrays


def _prepare(
    image: ImageRecord, shape: Shape, teacher: Teacher, sources: dict[str, Source], last_attempt: bool
) -> PreparedImage | ImageRejected:
    """Read, decode and resize one image; what is wrong with the image itself comes back as a value."""
    source = sources[image.id.partition("/")[0]]
    try:
        data = source.read(image.id)
        decoded = decode(data)
        height, width = decoded.rgb_HW3.shape[:2]
        if (height, width) != (image.height, image.width):
            return ImageRejected(f"changed since the scan: {image.width}x{image.height} then, {width}x{height} now")
        prepared_CHW = teacher.prepare(decoded.rgb_HW3, shape)
    except ImageRejected as error:
        return error
    except (SourceError, TeacherError) as error:  # a file that became a link outward, a shape the processor refuses
        return ImageRejected(str(error))
    except OSError as error:
        reason = f"cannot be read any more: {(error.strerror or str(error)).lower()}"
        if error.errno in IMAGE_FAULTS and _holds_something(source.root):
            return ImageRejected(reason)
        if last_attempt:
            return Unreadable(reason)
        raise OSError(error.errno, f"{image.id} {reason}") from error
    hole_HW = None
    if decoded.hole_HW is not None:
        covered = cv2.resize(decoded.hole_HW.astype(np.float32), shape[::-1], interpolation=cv2.INTER_AREA)
        hole_HW = np.asarray(covered > 0)
    return PreparedImage(prepared_CHW, hole_HW, decoded.header.focal_px, hashlib.sha256(data).hexdigest())


def _label_batch(
    arrays: dict[str, np.ndarray[Any, Any]],
    span: range,
    prepared: list[PreparedImage | ImageRejected],
    teacher: Teacher,
    signals: tuple[str, ...],
) -> None:
    shape = arrays["depth"].shape[1:]
    image_BCHW = np.zeros((len(span), 3, *shape), np.float32)
    valid_BHW = np.ones((len(span), *shape), np.bool_)
    for place, image in enumerate(prepared):
        if isinstance(image, PreparedImage):
            image_BCHW[place] = image.image_CHW
            if image.hole_HW is not None:
                valid_BHW[place] = ~image.hole_HW
    depth_BHW, code_BHW = predict_labels(
        torch.from_numpy(image_BCHW).to(teacher.device),
        torch.from_numpy(valid_BHW).to(teacher.device),
        teacher,
        signals,
    )
    count_BK = histogram(code_BHW).cpu().numpy()
    code_BHW, depth_BHW = code_BHW.cpu(), depth_BHW.cpu()
    for place, (row, image) in enumerate(zip(span, prepared, strict=True)):
        fault = image if isinstance(image, ImageRejected) else _fault_of(depth_BHW[place])
        if fault is not None:
            arrays["status"][row] = schema.STATUS_FAILED
            arrays["reason"][row] = str(fault)
            arrays["histogram"][row, 0] = depth_BHW[place].numel()
            continue
        assert isinstance(image, PreparedImage)
        arrays["depth"][row] = depth_BHW[place].half().numpy()
        arrays["reliability"][row] = code_BHW[place].numpy()
        arrays["histogram"][row] = count_BK[place]
        arrays["focal_px"][row] = image.focal_px
        arrays["content_sha256"][row] = image.content_sha256


def predict_labels(
    image_BCHW: torch.Tensor, valid_BHW: torch.Tensor, teacher: Teacher, signals: tuple[str, ...]
) -> tuple[torch.Tensor, torch.Tensor]:
    """Depth (float32 [B,H,W]) and reliability codes (uint8 [B,H,W]; 0 where not ``valid_BHW``).

    Without a signal nothing is known of the error, and every valid pixel gets 255.
    """
    depth_BHW = _predict(teacher, image_BCHW)
    valid_BHW = valid_BHW.to(depth_BHW.device)
    if "flip" not in signals:
        return depth_BHW, valid_BHW.to(torch.uint8) * 255
    flipped_BHW = _predict(teacher, image_BCHW.flip(-1))
    delta_BHW = flip_disagreement(depth_BHW, flipped_BHW, teacher.quantity)
    return depth_BHW, encode_error(expected_error(depth_BHW, delta_BHW), valid_BHW)


def _predict(teacher: Teacher, image_BCHW: torch.Tensor) -> torch.Tensor:
    depth_BHW = teacher.predict(image_BCHW)
    return depth_BHW.cpu() if depth_BHW.device.type == "mps" else depth_BHW  # MPS has no float64, which alignment needs


def _fault_of(depth_HW: torch.Tensor) -> ImageRejected | None:
    """Why a prediction is no label, if it is none."""
    wild = int((~torch.isfinite(depth_HW)).sum())
    if wild:
        return ImageRejected(f"the teacher's output is not finite at {wild} of {depth_HW.numel()} pixels")
    low, high = float(depth_HW.min()), float(depth_HW.abs().max())
    if low == float(depth_HW.max()):
        return ImageRejected(f"the teacher's output is {low:g} at every pixel")
    if high > schema.MAX_DEPTH:
        return ImageRejected(f"the teacher's output reaches {high:g}, more than float16 holds ({schema.MAX_DEPTH:g})")
    return None
