"""Recompute reliability with another calibration, from stored labels and kept signals, into a layer of the store.

Axes: N images of a shard, H and W the label shape, K the 256 reliability codes.
"""

import dataclasses
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from depthsieve.core.errors import StoreError, UsageError
from depthsieve.core.records import LabelSpec
from depthsieve.jobs.layers.backfill import Backfill, CommittedShard, Computed, lacking_shards
from depthsieve.reliability.code import encode_error, histogram
from depthsieve.reliability.fusion import Calibration, fuse, shipped_calibration
from depthsieve.storage import expand, open_root
from depthsieve.store import Store, open_store, schema
from depthsieve.store.arrays import ShardReader
from depthsieve.store.layer_kinds import SIGNALS, LayerSpec, check_name
from depthsieve.store.layers import Layer, document_key, find_layer


@dataclass(frozen=True)
class RecalibrateSummary:
    """What :func:`recalibrate` did, and the state of the layer after it.

    ``layer`` is None where there was nothing to do, since the labels themselves were made with this ``calibration``.
    ``transferred``: it was not fitted on the store's teacher. ``images_now`` and ``shards_now`` were added by this call
    in ``seconds``; the layer has ``shards`` in all. ``without_signals`` are committed shards that have no signals, with
    ``images_without_signals`` in them. ``errors`` say which shards could not be read, and why.
    """

    store: str
    layer: str | None
    calibration: str
    transferred: bool
    images_now: int = 0
    shards_now: int = 0
    shards: int = 0
    seconds: float = 0.0
    without_signals: tuple[str, ...] = ()
    images_without_signals: int = 0
    errors: tuple[str, ...] = ()


def recalibrate(
    store: str | Path, *, calibration: str | Path | None = None, name: str | None = None, progress: bool = True
) -> RecalibrateSummary:
    """Recompute the reliability of a store's labels with another calibration, from their kept signals, as a layer.

    It needs neither the teacher nor the images. Pixels whose stored code is 0, and failed images, stay 0. Shards that
    the layer has are skipped: the same call resumes after a crash, and adds what was labelled since. Labels do not
    change; read the layer with ``open_store(store, reliability=name)`` or
    ``PseudoLabelDataset(store, reliability=name)``.

    Args:
        store: path or URL of a store that was labelled with ``keep_signals``.
        calibration: a file that ``tools/calibration.py`` made. None: that of the layer called ``name``, if there
            is one, else the one that comes with this release.
        name: of the layer. None: the calibration's own, such as "flip-2", which ends in "-transferred" for a teacher
            that it was not fitted on.
        progress: show a bar on stderr, or in the notebook.

    Raises:
        UsageError: a file that is no calibration or has no weights for these signals, or an invalid name.
        StoreError: no store there, one that kept no signals, or a layer of that name by another calibration.
        StoreBusy: another process is writing this layer.
        RunError: the store cannot be written; what is committed is kept.
    """
    opened = open_store(open_root(store))
    spec = opened.spec
    kept = _kept_signals(opened)
    chosen = _choose(opened, calibration, name)
    called = chosen.name(spec.signals, spec.weights_digest)
    transferred = spec.weights_digest not in chosen.fitted_on
    chosen.weights_of(spec.quantity, spec.signals)  # raises where it was not fitted for them
    name = check_name(called if name is None else name)
    if name == spec.calibration:
        if _made_the_labels(chosen, spec):
            return RecalibrateSummary(opened.location, None, called, transferred)
        raise UsageError(
            f"{name!r} is what the labels' own calibration is called, and this one has other weights; give the layer "
            "another name with --name"
        )
    body = json.loads(json.dumps(dataclasses.asdict(chosen)))
    body |= {"name": called, "digest": chosen.digest, "transferred": transferred}
    layer_spec = LayerSpec(name, "reliability", spec.fingerprint, kept.spec.signals, body)
    backfill = _Reliability(opened, layer_spec, kept, chosen)
    filled = backfill.run(progress=progress)
    return RecalibrateSummary(
        opened.location,
        name,
        called,
        transferred,
        images_now=filled.images,
        shards_now=filled.shards,
        shards=filled.shards_in_all,
        seconds=filled.seconds,
        without_signals=tuple(sorted(backfill.without)),
        images_without_signals=sum(backfill.without.values()),
        errors=filled.errors,
    )


def _kept_signals(store: Store) -> Layer:
    kept = find_layer(store.root, SIGNALS, store.fingerprint)
    if kept is None or not kept.shards():
        raise StoreError(
            f"{store.location} kept no signals, so its reliability cannot be recomputed; label into a new store with "
            "--keep-signals"
        )
    return kept


def _choose(store: Store, file: str | Path | None, name: str | None) -> Calibration:
    """The calibration in the file, else that of the layer of that name, else the one of this release."""
    if file is not None:
        try:
            body = json.loads(Path(expand(file)).read_bytes())
        except OSError as error:
            raise UsageError(f"calibration {file} cannot be read: {error.strerror or error}") from error
        except (ValueError, RecursionError) as error:
            raise UsageError(f"calibration {file} is not JSON; make one with tools/calibration.py") from error
        return Calibration.from_json(body, str(file))
    if name is not None:
        layer = find_layer(store.root, check_name(name), store.fingerprint)
        if layer is not None:
            return Calibration.from_json(layer.spec.detail, f"{store.location}/{document_key(name)}")
    return shipped_calibration()


def _made_the_labels(calibration: Calibration, spec: LabelSpec) -> bool:
    """Whether the labels were made with it. Their spec has its name alone; the release's own has weights to compare."""
    called, shipped = calibration.name(spec.signals, spec.weights_digest), shipped_calibration()
    if called != spec.calibration:
        return False
    return shipped.name(spec.signals, spec.weights_digest) != called or shipped.digest == calibration.digest


class _Reliability(Backfill):
    title = "recalibrate"

    def __init__(self, store: Store, spec: LayerSpec, kept: Layer, calibration: Calibration) -> None:
        super().__init__(store, spec)
        self._kept, self._calibration = kept, calibration
        without = lacking_shards(store, kept)
        self.without = {shard_id: without.images_of(shard_id) for shard_id in without}

    def todo(self, layer: Layer) -> Iterator[str]:
        """Those of the shards that have signals."""
        return (shard_id for shard_id in super().todo(layer) if shard_id not in self.without)

    def compute(self, layer: Layer, shard: CommittedShard) -> Computed:
        """Nothing where the signals are those of an attempt whose labels were not committed."""
        images = len(shard.shard.images)
        folder = self._kept.folder_of(shard.id, shard.digest)
        if folder is None:
            self.without[shard.id] = images
            return Computed(None, 0)
        signals = ShardReader(self.store.root, folder)
        return Computed(_reliability(shard.labels, signals, self.store.spec, self._calibration), images)


def _reliability(
    labels: ShardReader, signals: ShardReader, spec: LabelSpec, calibration: Calibration
) -> dict[str, np.ndarray[Any, Any]]:
    """``reliability`` uint8 [N,H,W] and ``histogram`` uint32 [N,K] of a shard, an image at a time."""
    status_N = labels.column("status")
    codes: list[torch.Tensor] = []
    for row in range(len(status_N)):
        code_1HW = torch.from_numpy(labels.reliability(row))[None]
        if status_N[row] == schema.STATUS_LABELLED:
            depth_1HW = torch.from_numpy(labels.depth(row))[None]
            relative = {name: torch.from_numpy(signals.signal(name, row))[None] for name in spec.signals}
            e_1HW = fuse(depth_1HW, relative, spec.quantity, calibration)
            code_1HW = encode_error(e_1HW, code_1HW > 0)
        codes.append(code_1HW)
    code_NHW = torch.cat(codes)
    return {"reliability": code_NHW.numpy(), "histogram": histogram(code_NHW).numpy().astype(np.uint32)}
