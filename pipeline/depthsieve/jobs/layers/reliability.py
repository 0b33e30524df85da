"""Recompute reliability with another calibration, into a layer of the store: from kept signals, or by an error network
from the photos.

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
from depthsieve.core.records import ImageFailure, LabelSpec
from depthsieve.jobs.layers.backfill import Backfill, CommittedShard, Computed, Filled, lacking_shards
from depthsieve.jobs.layers.network import NetworkReliability
from depthsieve.reliability.code import encode_error, histogram
from depthsieve.reliability.fusion import Calibration, fuse, shipped_calibration
from depthsieve.reliability.kinds import NETWORK
from depthsieve.reliability.network import CONFIDENCE_LEFT_OUT, ErrorNetwork, is_network_file, shipped_network
from depthsieve.reliability.scale import CODE_VERSION
from depthsieve.runners.dispatch import disk_errors_named
from depthsieve.storage import expand, open_root
from depthsieve.store import Store, open_store, schema
from depthsieve.store.arrays import ShardReader
from depthsieve.store.layer_kinds import SIGNALS, LayerSpec, check_name
from depthsieve.store.layers import Layer, document_key, find_layer
from depthsieve.store.networks import keep_network, kept_network


@dataclass(frozen=True)
class RecalibrateSummary:
    """What :func:`recalibrate` did, and the state of the layer after it.

    ``layer`` is None where there was nothing to do, since the labels themselves were made with this ``calibration``.
    ``transferred``: it was not fitted on the store's teacher. ``images_now`` and ``shards_now`` were added by this call
    in ``seconds``; the layer has ``shards`` in all. ``without_signals`` are committed shards that have no signals, with
    ``images_without_signals`` in them; ``without_photo`` are the images of a layer by an error network whose photo is
    gone or has changed, each with the reason: their reliability is 0 there. ``confidence_left_out``: the network was
    calibrated with its teacher's own confidence, which no store has, and photo and label alone are looked at.
    ``errors`` say which shards could not be read, and why.
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
    without_photo: tuple[ImageFailure, ...] = ()
    confidence_left_out: bool = False
    errors: tuple[str, ...] = ()


def recalibrate(
    store: str | Path,
    *,
    calibration: str | Path | None = None,
    name: str | None = None,
    device: str = "auto",
    progress: bool = True,
) -> RecalibrateSummary:
    """Recompute the reliability of a store's labels with another calibration, as a layer.

    With weights of signals it needs the kept signals, and neither the teacher nor the images. With an error network it
    needs the photos, which it reads again, and no signals; the store keeps a copy of the network. Pixels whose stored
    code is 0, and failed images, stay 0. Shards that the layer has are skipped: the same call resumes after a crash,
    adds what was labelled since, and tries the photos again that were not there. Labels do not change; read the layer
    with ``open_store(store, reliability=name)`` or ``PseudoLabelDataset(store, reliability=name)``.

    Args:
        store: path or URL of a store; for weights of signals one that was labelled with ``keep_signals``.
        calibration: a file that ``depthsieve calibrate`` (a network) or ``tools/calibration.py`` (weights) made, or
            "network": the network that comes with this release. None: that of the layer called ``name``, if there is
            one, else the weights that come with this release where signals are kept, else its network.
        name: of the layer. None: the calibration's own, such as "flip-2" or "network-1", which ends in "-transferred"
            for a teacher that it was not fitted on.
        device: where the network computes: "auto", "cpu", "cuda", "cuda:1".
        progress: show a bar on stderr, or in the notebook.

    Raises:
        UsageError: a file that is no calibration, has no weights for these signals or is for another quantity, or an
            invalid name.
        StoreError: no store there, one that kept no signals, or a layer of that name by another calibration.
        StoreBusy: another process is writing this layer.
        RunError: the store cannot be written, or a source is not there; what is committed is kept.
    """
    opened = open_store(open_root(store))
    spec = opened.spec
    chosen = _choose(opened, calibration, name)
    if isinstance(chosen, ErrorNetwork):
        return _by_network(opened, chosen, name, device, progress)
    kept = _kept_signals(opened)
    called = chosen.name(spec.signals, spec.weights_digest)
    transferred = spec.weights_digest not in chosen.fitted_on
    chosen.weights_of(spec.quantity, spec.signals)  # raises where it was not fitted for them
    name = check_name(called if name is None else name)
    if name == spec.calibration:
        if _made_the_labels(chosen, spec):
            return RecalibrateSummary(opened.location, None, called, transferred)
        raise _is_the_labels_own(name)
    body = json.loads(json.dumps(dataclasses.asdict(chosen)))
    body |= {"name": called, "digest": chosen.digest, "transferred": transferred}
    if spec.spec_version > 1:
        body["code_version"] = spec.spec_version
    layer_spec = LayerSpec(name, "reliability", spec.fingerprint, kept.spec.signals, body)
    backfill = _Reliability(opened, layer_spec, kept, chosen)
    summary = _summary(opened, layer_spec, backfill.run(progress=progress))
    return dataclasses.replace(
        summary,
        without_signals=tuple(sorted(backfill.without)),
        images_without_signals=sum(backfill.without.values()),
    )


def _by_network(
    store: Store, network: ErrorNetwork, name: str | None, device: str, progress: bool
) -> RecalibrateSummary:
    spec = store.spec
    if network.quantity != spec.quantity:
        raise UsageError(
            f"the calibration was trained on labels of {network.quantity}, and {store.location} holds {spec.quantity}"
        )
    if network.native is not None:
        if network.digest == spec.calibration_digest and name in (None, spec.calibration):
            return RecalibrateSummary(store.location, None, spec.calibration, False)
        network = network.without_confidence()  # a store has none
    called = network.name(spec.weights_digest)
    transferred = spec.weights_digest not in network.fitted_on
    name = check_name(called if name is None else name)
    if name == spec.calibration:
        if network.digest == spec.calibration_digest:
            return RecalibrateSummary(store.location, None, called, transferred)
        raise _is_the_labels_own(name)
    body = {"name": called, "digest": network.digest, "transferred": transferred, "version": network.version}
    body |= {"fitted_on": list(network.fitted_on), "code_version": CODE_VERSION}
    layer_spec = LayerSpec(name, "reliability", spec.fingerprint, (NETWORK,), body)
    backfill = NetworkReliability(store, layer_spec, network, device)
    with disk_errors_named(store.root):
        keep_network(store.root, network)
    summary = _summary(store, layer_spec, backfill.run(progress=progress))
    return dataclasses.replace(summary, confidence_left_out=bool(network.meta.get(CONFIDENCE_LEFT_OUT)))


def _summary(store: Store, layer: LayerSpec, filled: Filled) -> RecalibrateSummary:
    detail = layer.detail or {}
    return RecalibrateSummary(
        store.location,
        layer.name,
        detail["name"],
        detail["transferred"],
        images_now=filled.images,
        shards_now=filled.shards,
        shards=filled.shards_in_all,
        seconds=filled.seconds,
        without_photo=filled.refused,
        errors=filled.errors,
    )


def _is_the_labels_own(name: str) -> UsageError:
    return UsageError(
        f"{name!r} is what the labels' own calibration is called, and this one has other weights; give the layer "
        "another name with --name"
    )


def _kept_signals(store: Store) -> Layer:
    kept = find_layer(store.root, SIGNALS, store.fingerprint)
    if kept is None or not kept.shards():
        raise StoreError(
            f"{store.location} kept no signals, so weights of signals cannot be applied; label into a new store with "
            "--keep-signals, or name an error network of `depthsieve calibrate`: --calibration FILE"
        )
    return kept


def _choose(store: Store, file: str | Path | None, name: str | None) -> Calibration | ErrorNetwork:
    """The calibration in the file, else that of the layer of that name, else one of this release."""
    if file is not None and not (file == NETWORK and not Path(file).exists()):
        return _in_file(expand(file))
    layer = None if name is None else find_layer(store.root, check_name(name), store.fingerprint)
    if file is None and layer is not None:
        detail = layer.spec.detail or {}
        if NETWORK in layer.spec.signals:
            return kept_network(store.root, detail["digest"])
        return Calibration.from_json(detail, f"{store.location}/{document_key(layer.name)}")
    shipped = shipped_network()
    if file is not None and shipped is None:
        raise UsageError("no error network comes with this release; train one with `depthsieve calibrate`")
    signals = find_layer(store.root, SIGNALS, store.fingerprint)
    if shipped is not None and (file is not None or signals is None):
        return shipped
    return shipped_calibration()


def _in_file(file: str) -> Calibration | ErrorNetwork:
    if is_network_file(file):
        return ErrorNetwork.load(file)
    try:
        body = json.loads(Path(file).read_bytes())
    except OSError as error:
        raise UsageError(f"calibration {file} cannot be read: {error.strerror or error}") from error
    except (ValueError, RecursionError) as error:
        raise UsageError(
            f"calibration {file} is neither an error network of `depthsieve calibrate` nor JSON of tools/calibration.py"
        ) from error
    return Calibration.from_json(body, file)


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
            for map_1HW in relative.values():  # where the teacher had no label, which is stored as 0
                depth_1HW = torch.where(torch.isnan(map_1HW), torch.nan, depth_1HW)
            e_1HW = fuse(depth_1HW, relative, spec.quantity, calibration)
            code_1HW = encode_error(e_1HW, code_1HW > 0, version=spec.spec_version)
        codes.append(code_1HW)
    code_NHW = torch.cat(codes)
    return {"reliability": code_NHW.numpy(), "histogram": histogram(code_NHW).numpy().astype(np.uint32)}
