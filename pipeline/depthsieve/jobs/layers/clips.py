"""Align the frames of clips: a scale and a shift for each, as a layer, and how steady labels are in time.

A clip at a time, in the order of time, whatever shards its frames are in; its fits are written when the turn of each of
those shards comes. What a shard has of a clip is current while the clip has the same frames with the same labels.

Axes: N images of a shard, C the numbers of a fit.
"""

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from depthsieve.core.clips import CLIP_COLUMNS, HOW_TO_HAVE_CLIPS, ClipFit
from depthsieve.core.errors import SourceError, StoreDamaged, StoreError
from depthsieve.core.records import ImageFailure
from depthsieve.evaluation.stability import ClipStability, stability_of
from depthsieve.jobs.layers.backfill import Backfill, CommittedShard, Computed
from depthsieve.reliability.clips import METHOD, ClipFitter, frame_of
from depthsieve.runners.dispatch import disk_errors_named
from depthsieve.storage import open_root
from depthsieve.store import Store, open_store
from depthsieve.store.arrays import ShardReader
from depthsieve.store.create import write_index
from depthsieve.store.layer_kinds import clips_spec
from depthsieve.store.layers import Layer


@dataclass(frozen=True)
class AlignClipsSummary:
    """What :func:`align_clips` did. ``images_now`` frames were aligned in ``seconds``. ``clips`` are all that the layer
    has, by name; ``change`` and ``change_aligned`` the means over all of their frames, None where they are not known.
    ``without_photo`` are frames whose photo could not be read, with the reason: they are aligned without it, and their
    change is not known. ``errors`` say which shards could not be read, and why."""

    store: str
    images_now: int
    shards_now: int
    seconds: float
    clips: tuple[ClipStability, ...]
    change: float | None
    change_aligned: float | None
    without_photo: tuple[ImageFailure, ...] = ()
    errors: tuple[str, ...] = ()


def align_clips(store: str | Path, *, progress: bool = True) -> AlignClipsSummary:
    """Bring the labels of each clip to one scale and shift, as a layer of the store; labels stay as they are.

    Clips are videos and, in sources labelled with ``sequence``, folders. Labels are read from the store and photos from
    there or their source; no teacher is needed. Labels in metres keep their scale, and their steadiness is measured.
    The result is ``Label.aligned``, ``Label.clip`` and columns of the index; see docs/video.md for what the numbers
    mean. Clips that are done are skipped: the same call resumes after a crash, and after more labelling aligns what has
    changed. Clips with a frame whose photo could not be read are done again.

    Args:
        store: path or URL of the store.
        progress: show a bar on stderr, or in the notebook.

    Raises:
        StoreError: no store there, or one without clips.
        StoreBusy: another process is aligning clips.
        RunError: the store cannot be written; what is committed is kept.
    """
    opened = open_store(open_root(store))
    job = _Clips(opened)
    if not job.clips:
        raise StoreError(f"{opened.location} has no clips: {HOW_TO_HAVE_CLIPS}")
    filled = job.run(progress=progress)
    with disk_errors_named(opened.root):
        write_index(opened)  # which a run that was killed may have left out of date
    steady = stability_of(opened)
    return AlignClipsSummary(
        store=opened.location,
        images_now=filled.images,
        shards_now=filled.shards,
        seconds=filled.seconds,
        clips=steady.clips,
        change=steady.change,
        change_aligned=steady.change_aligned,
        without_photo=tuple(ImageFailure(image_id, why) for image_id, why in sorted(job.without_photo.items())),
        errors=filled.errors,
    )


class _Clips(Backfill):
    title = "clips"
    in_index = True

    def __init__(self, store: Store) -> None:
        super().__init__(store, clips_spec(store.spec, METHOD))
        self.clips = store.clips()
        self.without_photo: dict[str, str] = {}
        self._labels: dict[str, str] = {}
        self._states: dict[str, int] = {}
        self._fits: dict[str, Mapping[str, ClipFit] | str] = {}

    def todo(self, layer: Layer) -> Iterator[str]:
        """The shards with frames of clips that are not as the layer has them."""
        has = layer.shards()
        for shard_id in sorted(self.store.committed()):
            wanted_N = self._state_of_rows(shard_id)
            if shard_id not in has:
                if wanted_N.any():
                    yield shard_id
                continue
            try:
                folder = layer.folder_of(shard_id, self._labels_of(shard_id))
                reader = None if folder is None else ShardReader(self.store.root, folder)
                if reader is None or not np.array_equal(reader.column("clip"), wanted_N):
                    yield shard_id
            except StoreDamaged:
                yield shard_id  # it is written again

    def compute(self, layer: Layer, shard: CommittedShard) -> Computed:
        """The fits of a shard's frames, of all of their clips."""
        clip_N = self._state_of_rows(shard.id)
        fit_NC = np.full((len(clip_N), len(CLIP_COLUMNS)), np.nan)
        for row in np.flatnonzero(clip_N).tolist():
            image_id = shard.shard.images[row].id
            fits = self._fits_of(self.clips.of(image_id) or "")
            fit_NC[row] = fits[image_id]
            if image_id in self.without_photo:
                clip_N[row] = 0  # so that its clip is done again
        return Computed({"fit": fit_NC, "clip": clip_N}, int((~np.isnan(fit_NC[:, 0])).sum()))

    def _fits_of(self, clip: str) -> Mapping[str, ClipFit]:
        """The fits of all frames of a clip. Raises :class:`StoreDamaged` where a label cannot be read."""
        if clip not in self._fits:
            try:
                self._fits[clip] = self._fit(clip)
            except StoreDamaged as error:
                self._fits[clip] = str(error)
        found = self._fits[clip]
        if isinstance(found, str):
            raise StoreDamaged(found)
        return found

    def _fit(self, clip: str) -> Mapping[str, ClipFit]:
        fitter = ClipFitter(is_relative=self.store.spec.quantity == "disparity")
        for image_id in self.clips[clip]:
            label = self.store[image_id]
            try:
                photo_HW3 = label.image()
            except SourceError as error:
                photo_HW3, self.without_photo[image_id] = None, str(error)
            fitter.add(frame_of(label.depth, label.reliability, photo_HW3))
        return dict(zip(self.clips[clip], fitter.finish(), strict=True))

    def _state_of_rows(self, shard_id: str) -> NDArray[np.uint64]:
        """Of each row of a shard the state of its clip; 0 where it is in none, or its label is elsewhere now."""
        ids = self.store.planned_rows(shard_id)["id"].to_pylist()
        return np.array([self._state_at(shard_id, row, image_id) for row, image_id in enumerate(ids)], np.uint64)

    def _state_at(self, shard_id: str, row: int, image_id: str) -> int:
        clip = self.clips.of(image_id)
        if clip is None or self.store.place_of(image_id) != (shard_id, row):
            return 0
        if clip not in self._states:
            digest = hashlib.sha256()
            for one in self.clips[clip]:
                place = self.store.place_of(one)
                assert place is not None
                digest.update(f"{one}\0{place[1]}\0{self._labels_of(place[0])}\0".encode("utf-8", "surrogateescape"))
            self._states[clip] = int.from_bytes(digest.digest()[:8], "big") or 1
        return self._states[clip]

    def _labels_of(self, shard_id: str) -> str:
        """The digest of the content of a shard's labels."""
        if shard_id not in self._labels:
            self._labels[shard_id] = str(self.store.commit_record(shard_id)["content_sha256"])
        return self._labels[shard_id]
