"""The kinds of layers a store may have: their arrays, and what a layer of each kind says of itself.

``signals`` holds the raw signals that reliability was made of. ``reliability`` holds the reliability that another
calibration makes of them. ``features`` holds a few numbers about each image, which ``curate`` chooses by. ``images``
holds the images themselves, at label shape. ``metric`` holds the scale and shift that make metres of relative labels.
``cameras`` holds the intrinsics of each image's camera, and how they are known. ``clips`` holds the scale and
shift that bring the frames of a clip together.
A new kind is an entry in :data:`KINDS`, and a line in
docs/store_format.md.

Axes: N images of a shard, H and W the label shape, K the 256 reliability codes.
"""

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from depthsieve.core.cameras import ORIGINS
from depthsieve.core.clips import CLIP_COLUMNS
from depthsieve.core.errors import StoreDamaged, StoreMismatch, UsageError
from depthsieve.core.records import MEND, LabelSpec, canonical_json, digest_of, seal, unseal
from depthsieve.features.columns import COLUMNS
from depthsieve.store import schema

FORMAT = "depthsieve-layer"
SIGNALS = "signals"
"""The kind of the layer of kept signals, and its name."""

IMAGES = "images"
"""The kind of the layer of stored images, and its name."""

RELIABILITY = (
    next(spec for spec in schema.MAPS if spec.name == "reliability"),
    next(spec for spec in schema.ROWS if spec.name == "histogram"),
)
"""The arrays of a layer of reliability: those of the labels that it stands for."""

FEATURES = "features"
"""The kind of the layer of what images and labels say of themselves in a few numbers, and its name."""

FEATURE_ARRAYS = (
    schema.ArraySpec("values", "float32", ("image", "feature")),
    schema.ArraySpec("phash", "uint64", ("image",)),
    schema.ArraySpec("embedding", "float16", ("image", "number")),
)
_FEATURES = {
    "values": "the features that the layer's attribute features.columns names, in that order; NaN = not known",
    "phash": "perceptual hash of the image: alike where few of 64 bits differ",
    "embedding": "what the teacher's backbone makes of the image, of norm 1; all 0 = not known",
}

METRIC = "metric"
"""The kind of the layer of scales and shifts to metres, and its name."""

METRIC_COLUMNS = ("scale", "shift", "residual", "inliers", "pixels")
"""The numbers of a fit: see :class:`depthsieve.reliability.metric.MetricFit`."""

CAMERAS = "cameras"
"""The kind of the layer of cameras, and its name."""

CLIPS = "clips"
"""The kind of the layer of scales and shifts within clips, and its name."""

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]{0,99}")


@dataclass(frozen=True)
class LayerSpec:
    """What a layer holds, and the label spec that it belongs to, by its ``fingerprint``.

    ``signals`` are those it is made of or holds. ``detail`` is what its kind has to say besides, None where that is
    nothing; of reliability it is the calibration: its whole content, as in its file, and besides its ``name``, its
    ``digest``, and whether it is ``transferred`` to a teacher that it was not fitted on.
    """

    name: str
    kind: str
    fingerprint: str
    signals: tuple[str, ...] = ()
    detail: Mapping[str, Any] | None = None

    @property
    def arrays(self) -> tuple[schema.ArraySpec, ...]:
        """The arrays of each of its groups."""
        return KINDS[self.kind].arrays(self)

    @property
    def code_version(self) -> int:
        """What the codes of a layer of reliability stand for: a version of the label spec, 1 where it says nothing."""
        return int((self.detail or {}).get("code_version", 1))

    @property
    def digest(self) -> str:
        """Of all that it says."""
        return digest_of(self.to_json())

    def to_json(self) -> dict[str, Any]:
        """All of it as plain JSON values."""
        body: dict[str, Any] = {
            "format": FORMAT,
            "format_version": schema.FORMAT_VERSION,
            "name": self.name,
            "kind": self.kind,
            "fingerprint": self.fingerprint,
            "signals": list(self.signals),
        }
        field = KINDS[self.kind].detail
        return body | ({field: dict(self.detail or {})} if field else {})

    def document(self) -> bytes:
        """The ``zarr.json`` of the layer, with the sealed spec as its attributes."""
        return schema.group_document(json.loads(seal(self.to_json())))


@dataclass(frozen=True)
class LayerKind:
    """What all layers of one kind have in common.

    ``arrays`` are those of each group, ``attributes`` those of one array, by its name. Of a kind that is ``single`` a
    store has at most one layer, which is called as the kind is. ``detail`` names the field of the layer's document that
    holds :attr:`LayerSpec.detail`, and ``needed`` are the fields that must be in there. ``of_labels`` gives the whole
    spec where the label spec alone decides it. A repair takes a shard whose files are damaged out of the layer:
    ``add_again`` is the command, with ``{store}`` and ``{layer}`` in it, that computes it again; None where that needs
    new labels.
    """

    arrays: Callable[[LayerSpec], tuple[schema.ArraySpec, ...]]
    attributes: Callable[[str, LayerSpec], dict[str, Any]]
    add_again: str | None
    single: bool = True
    detail: str | None = None
    needed: tuple[str, ...] = ()
    of_labels: Callable[[LabelSpec], LayerSpec] | None = None


def _feature_arrays(spec: LayerSpec) -> tuple[schema.ArraySpec, ...]:
    embedded = (spec.detail or {}).get("embedding")
    return FEATURE_ARRAYS if embedded else FEATURE_ARRAYS[:2]


def _feature_attributes(name: str, spec: LayerSpec) -> dict[str, Any]:
    return {"meaning": _FEATURES[name]}


def _signal_attributes(name: str, spec: LayerSpec) -> dict[str, Any]:
    meaning = f"disagreement of the label by the signal {name}, relative to the label: |difference| / (label + median)"
    return {"meaning": meaning, "unit": "1"}


_IMAGES = (
    schema.ArraySpec("data", "uint8", ("byte",), bare=True),
    schema.ArraySpec("offset", "uint64", ("boundary",)),
    schema.ArraySpec("crc32c", "uint32", ("image",)),
)


def _images_attributes(name: str, spec: LayerSpec) -> dict[str, Any]:
    meanings = {
        "data": "the JPEGs of all rows, end to end",
        "offset": "row i is data[offset[i]:offset[i + 1]]: a JPEG, RGB, upright, at label shape; empty: none was kept",
        "crc32c": "CRC-32C (Castagnoli) of each row's JPEG",
    }
    return {"meaning": meanings[name]}


def _metric_attributes(name: str, spec: LayerSpec) -> dict[str, Any]:
    meaning = "1 / (scale * label + shift) is depth in metres; NaN: no scale fits this image, or nobody tried"
    return {"meaning": meaning, "columns": list(METRIC_COLUMNS)}


def _camera_attributes(name: str, spec: LayerSpec) -> dict[str, Any]:
    meanings = {
        "intrinsics": "fx, fy, cx, cy of a pinhole camera, in pixels of the upright source image from its corner (so "
        "that half the width is the middle); NaN: not known",
        "origin": "how they are known: the place in the list origins; 0 = they are not",
    }
    return {"meaning": meanings[name]} | ({"origins": list(ORIGINS)} if name == "origin" else {"unit": "pixel"})


def _clip_attributes(name: str, spec: LayerSpec) -> dict[str, Any]:
    if name == "clip":
        return {"meaning": "the state of the clip that was aligned: 0 = in none, or to be aligned again"}
    meaning = "scale * label + shift compares within a segment of a clip; NaN: in no clip"
    return {"meaning": meaning, "columns": list(CLIP_COLUMNS)}


KINDS: Mapping[str, LayerKind] = {
    SIGNALS: LayerKind(
        arrays=lambda spec: tuple(schema.ArraySpec(name, "float16", ("image", "y", "x")) for name in spec.signals),
        attributes=_signal_attributes,
        add_again=None,
        of_labels=lambda spec: signals_spec(spec),
    ),
    "reliability": LayerKind(
        arrays=lambda spec: RELIABILITY,
        attributes=lambda name, spec: schema.array_attributes(name, "", "", spec.code_version),
        add_again="depthsieve recalibrate {store} --name {layer}",
        single=False,
        detail="calibration",
        needed=("name", "digest", "transferred"),
    ),
    FEATURES: LayerKind(
        arrays=_feature_arrays,
        attributes=_feature_attributes,
        add_again="depthsieve features {store}",
        detail="features",
        needed=("columns", "embedding"),
    ),
    IMAGES: LayerKind(
        arrays=lambda spec: _IMAGES,
        attributes=_images_attributes,
        add_again="depthsieve label SOURCE {store} --store-images",
        detail="images",
        needed=("format", "quality", "subsampling"),
    ),
    METRIC: LayerKind(
        arrays=lambda spec: (schema.ArraySpec("fit", "float64", ("image", "number")),),
        attributes=_metric_attributes,
        add_again="depthsieve label SOURCE {store} --metric-from TEACHER",
        detail="metric",
        needed=("method", "teacher", "weights_digest"),
    ),
    CAMERAS: LayerKind(
        arrays=lambda spec: (
            schema.ArraySpec("intrinsics", "float64", ("image", "number")),
            schema.ArraySpec("origin", "uint8", ("image",)),
        ),
        attributes=_camera_attributes,
        add_again="depthsieve label SOURCE {store} --cameras FILE",
        of_labels=lambda spec: cameras_spec(spec),
    ),
    CLIPS: LayerKind(
        arrays=lambda spec: (
            schema.ArraySpec("fit", "float64", ("image", "number")),
            schema.ArraySpec("clip", "uint64", ("image",)),
        ),
        attributes=_clip_attributes,
        add_again="depthsieve align-clips {store}",
        detail="clips",
        needed=("method",),
    ),
}


def signals_spec(spec: LabelSpec) -> LayerSpec:
    """What the kept signals of a store are: nothing else than its label spec decides it."""
    return LayerSpec(SIGNALS, SIGNALS, spec.fingerprint, tuple(sorted(spec.signals)))


def features_spec(spec: LabelSpec, size: int | None, method: str) -> LayerSpec:
    """What the features of a store are: also so many numbers as an embedding, made by that method; None: no numbers."""
    detail = {"columns": list(COLUMNS), "embedding": {"size": size, "method": method} if size else None}
    return LayerSpec(FEATURES, FEATURES, spec.fingerprint, (), detail)


def cameras_spec(spec: LabelSpec) -> LayerSpec:
    """What the cameras of a store are."""
    return LayerSpec(CAMERAS, CAMERAS, spec.fingerprint)


def clips_spec(spec: LabelSpec, method: str) -> LayerSpec:
    """What the scales and shifts of a store's clips are, which were fitted by a ``method``."""
    return LayerSpec(CLIPS, CLIPS, spec.fingerprint, (), {"method": method})


def is_name(name: str) -> bool:
    """Whether a layer can be called that."""
    return isinstance(name, str) and _NAME.fullmatch(name) is not None


def is_single(name: str) -> bool:
    """Whether it is the name of the one layer of a kind."""
    return name in KINDS and KINDS[name].single


def check_name(name: str) -> str:
    """``name``, if a layer of reliability can be called that. Raises :class:`UsageError`."""
    if not is_name(name) or is_single(name):
        raise UsageError(
            f"a layer cannot be called {name!r}: use up to 100 letters, digits and . _ + -, a letter or digit first, "
            f"and not {', '.join(repr(kind) for kind in KINDS if is_single(kind))}; name it with --name"
        )
    return name


def spec_in(data: bytes, shown: str) -> LayerSpec:
    """The spec in a layer's document, which is called ``shown``. Raises :class:`StoreDamaged` for one that is not what
    was written, :class:`StoreMismatch` for one of a later release."""
    try:
        attributes = json.loads(data)["attributes"]
        body = unseal(canonical_json(attributes).encode(), shown)
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise StoreDamaged(f"{shown} is not a readable record of a layer; {MEND}") from error
    version = body.get("format_version")
    kind = KINDS.get(str(body.get("kind")))
    if body.get("format") != FORMAT or version != schema.FORMAT_VERSION or kind is None:
        raise StoreMismatch(f"{shown} is a layer that this depthsieve does not know; use the release that made it")
    try:
        name = str(body["name"])
        detail: Any = body[kind.detail] if kind.detail else None
        for field in kind.needed:
            detail[field]
        if (name if is_single(name) else "") != (body["kind"] if kind.single else ""):
            raise KeyError(name)
        return LayerSpec(name, body["kind"], str(body["fingerprint"]), tuple(map(str, body["signals"])), detail)
    except (KeyError, TypeError) as error:
        raise StoreDamaged(f"{shown} is not a readable record of a layer; {MEND}") from error
