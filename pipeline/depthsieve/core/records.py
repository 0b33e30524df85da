"""The immutable records that travel between modules, and the fingerprints made of them."""

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal, get_args

from depthsieve.core.cameras import Camera
from depthsieve.core.errors import StoreDamaged, UsageError
from depthsieve.core.settings import About, check_counts

Quantity = Literal["disparity", "depth"]
Dtype = Literal["auto", "float32", "bfloat16", "float16"]
Oversize = Literal["reject", "shrink"]
Alpha = Literal["respect", "ignore"]
"""What to do with transparency: respect it, or take the colours as they are."""
Shape = tuple[int, int]
"""(height, width) in pixels."""


@dataclass(frozen=True, slots=True)
class ImageRecord:
    """One image of a source, as the header scan saw it.

    ``id`` is ``source/path`` (percent-encoded, see :mod:`depthsieve.sources.ids`); ``width`` and ``height`` are those
    of the upright image in pixels; ``orientation`` is the EXIF value 1..8 that was undone; ``size`` is in bytes.
    """

    id: str
    size: int
    mtime_ns: int
    width: int
    height: int
    orientation: int = 1


@dataclass(frozen=True, slots=True)
class RejectedImage:
    """A file that the header scan refused, with the reason a person reads."""

    id: str
    size: int
    mtime_ns: int
    reason: str


@dataclass(frozen=True, slots=True)
class Shard:
    """Images of one label shape in their planned row order: the unit of work, of commit and of storage.

    ``cameras`` are those that a user gave, None for an image without; empty where none is given."""

    id: str
    shape: Shape
    images: tuple[ImageRecord, ...]
    cameras: "tuple[Camera | None, ...]" = ()


@dataclass(frozen=True, slots=True)
class ImageFailure:
    """An image that failed in a committed shard, or was refused by the scan."""

    id: str
    reason: str


@dataclass(frozen=True, slots=True)
class ShardTask:
    """One shard to be labelled. ``isolate``: it has killed those who tried, so it is labelled in processes of its own
    that may die, until the image that does it is found."""

    shard_id: str
    isolate: bool = False


@dataclass(frozen=True, slots=True)
class ShardResult:
    """What became of one shard. ``error`` is set when nothing was committed; ``fatal``: trying again cannot help.

    ``notes`` are lines that a person should see, such as a batch that was split for want of memory; ``remarks`` are
    what is counted over a run, see :mod:`depthsieve.labelling.remarks`.
    """

    shard_id: str
    labelled: int = 0
    error: str | None = None
    fatal: bool = False
    notes: tuple[str, ...] = ()
    remarks: tuple[tuple[str, int, str], ...] = ()


@dataclass(frozen=True)
class DatasetNote:
    """What travels with labels of a dataset's images: where they come from and under which terms.

    ``commercial_use``, ``share_labels`` (whether labels may be passed on) and ``attribution`` (whether it is asked for)
    are "yes", "no" or "not confirmed"; ``consequences`` are the terms in plain words, ``citation`` is BibTeX or plain.
    """

    name: str
    title: str
    home: str
    licence: str
    licence_url: str
    commercial_use: str
    share_labels: str
    attribution: str
    consequences: str
    citation: str

    @classmethod
    def from_json(cls, body: Mapping[str, Any]) -> "DatasetNote":
        """The note whose fields ``body`` holds; what is not there is empty, and what nobody knows is passed over."""
        return cls(**{known.name: str(body.get(known.name, "")) for known in dataclasses.fields(cls)})


MAX_TOKENS = 16384
"""The most patches of an image where nobody says; about 1,790 x 1,790 pixels for a patch of 14."""

OVERSIZE: Oversize = "reject"


@dataclass(frozen=True, kw_only=True)
class TeacherSettings:
    """How a teacher works. Every setting and its default is declared here; options and requests inherit them.

    None, and a ``dtype`` or ``device`` "auto", leave a setting open: as a store has it that was labelled with the
    teacher, else the default that its help names. Raises :class:`UsageError` for a value that is invalid.
    """

    revision: Annotated[
        str | None, About("Commit, tag or branch of a hub checkpoint.", "Teacher", "REV", unset="the store's")
    ] = None
    size: Annotated[
        int | None,
        About("Short side the teacher works at.", "Teacher", "PIXELS", unset="the store's, else the teacher's own"),
    ] = None
    device: Annotated[str, About("Where the teacher works: auto, cpu, cuda, cuda:1, mps.", "Where it runs", "NAME")] = (
        "auto"
    )
    dtype: Annotated[
        Dtype,
        About(
            "What the teacher computes in; decides the labels. auto: the store's, else float16 on CUDA, or float32.",
            "Teacher",
        ),
    ] = "auto"
    max_tokens: Annotated[
        int | None, About("Most patches an image may take.", "Teacher", "N", unset=f"the store's, else {MAX_TOKENS}")
    ] = None
    oversize: Annotated[
        Oversize | None,
        About("What to do with images above --max-tokens.", "Teacher", unset=f"the store's, else {OVERSIZE}"),
    ] = None
    quantity: Annotated[
        Quantity | None,
        About(
            "What the teacher predicts, for a checkpoint that does not say so itself; depth is in metres.",
            "Teacher",
            unset="the store's, else the checkpoint's",
        ),
    ] = None

    def __post_init__(self) -> None:
        check_counts(self, "size", "max_tokens")
        choices: dict[str, tuple[str | None, ...]] = {"dtype": get_args(Dtype)}
        choices |= {"oversize": (None, *get_args(Oversize)), "quantity": (None, *get_args(Quantity))}
        for option, known in choices.items():
            if getattr(self, option) not in known:
                listed = ", ".join(one for one in known if one)
                raise UsageError(f"{option} must be one of {listed}, not {getattr(self, option)!r}")

    def settings(self) -> dict[str, Any]:
        """The settings by name, as keywords for another class that has them."""
        return {one.name: getattr(self, one.name) for one in dataclasses.fields(TeacherSettings)}


def default_dtype(device_kind: str) -> Dtype:
    """What a teacher computes in on "cuda", "cpu" or "mps" where the setting is "auto".

    float16 moves a trained teacher's labels by 0.01% of their range on real photos, bfloat16 by 0.2%
    (``benchmarks/label_differences.py``); CPUs are made for float32.
    """
    return "float16" if device_kind == "cuda" else "float32"


@dataclass(frozen=True)
class TeacherRequest(TeacherSettings):
    """Which teacher, with which settings. ``second`` is the teacher to compare its predictions with, if any."""

    name: str
    second: "TeacherRequest | None" = None

    def on(self, device: str) -> "TeacherRequest":
        """The same on another device, the second teacher too."""
        return dataclasses.replace(self, device=device, second=self.second.on(device) if self.second else None)

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values. Settings that the first release did not have are left out at their default."""
        body = dataclasses.asdict(self) | {"second": self.second.to_json() if self.second else None}
        body |= {"max_tokens": self.max_tokens or MAX_TOKENS, "oversize": self.oversize or OVERSIZE}
        if self.quantity is None:
            del body["quantity"]
        return body

    @classmethod
    def from_json(cls, body: Mapping[str, Any]) -> "TeacherRequest":
        """The request that :meth:`to_json` wrote."""
        second = body.get("second")
        return cls(**{**body, "second": cls.from_json(second) if second else None})


@dataclass(frozen=True, slots=True)
class LabelJob:
    """All that a worker needs to label shards of the store at a path or URL; it is small and can be pickled.

    On the ``last_attempt`` of a run a file that cannot be read is its image's own failure, not the shard's. ``cores``
    is how many of them one worker may use (None: all that its process may). With ``keep_signals`` the signals are kept
    beside the labels, with an ``image_quality`` the images, as JPEG of that quality, and with a ``metric`` teacher the
    scale and shift that bring each label to its metres.
    """

    store: str
    teacher: TeacherRequest
    fingerprint: str
    signals: tuple[str, ...]
    sources: tuple[tuple[str, str], ...]
    last_attempt: bool = False
    cores: int | None = None
    keep_signals: bool = False
    image_quality: int | None = None
    metric: TeacherRequest | None = None


@dataclass(frozen=True)
class LabelSpec:
    """What decides a label. Names and paths are not in it; two stores of equal fingerprint hold the same labels.

    ``second`` says of the second teacher, if there is one, what the first fields say of the teacher.
    ``calibration_digest`` is that of the error network where reliability comes from one, else empty.
    """

    weights_digest: str
    quantity: Quantity
    unit: str
    dtype: str
    preprocessing: Mapping[str, Any]
    signals: tuple[str, ...]
    calibration: str
    encoding: str
    kind: str = "teacher"
    parents: tuple[str, ...] = ()
    spec_version: int = 1
    second: Mapping[str, Any] | None = None
    calibration_digest: str = ""

    @property
    def alpha(self) -> Alpha:
        """What was done with transparency."""
        return "ignore" if self.preprocessing.get("alpha") == "ignore" else "respect"

    def to_json(self) -> dict[str, Any]:
        """All fields, defaults too, as plain JSON values; but none that the first release did not have."""
        body: dict[str, Any] = json.loads(canonical_json(dataclasses.asdict(self)))
        if not self.calibration_digest:
            del body["calibration_digest"]
        return body

    @property
    def fingerprint(self) -> str:
        """sha256 of the canonical JSON, fields at their default left out so that new fields keep old fingerprints."""
        body = self.to_json()
        for spec_field in dataclasses.fields(self):
            name, default = spec_field.name, spec_field.default
            if default is not dataclasses.MISSING and body.get(name) == json.loads(canonical_json(default)):
                body.pop(name, None)
        return digest_of(body)


@dataclass(frozen=True)
class NumericsProfile:
    """What moves the last bit of a label. Chosen once a generation, then used by every worker of it."""

    batch_size: int
    threads: int
    device_kind: str
    device_model: str
    attention: str
    versions: Mapping[str, str] = field(default_factory=dict)
    compiled: bool = False

    def to_json(self) -> dict[str, Any]:
        """All fields as plain JSON values."""
        return json.loads(canonical_json(dataclasses.asdict(self)))  # type: ignore[no-any-return]

    @classmethod
    def from_json(cls, body: Mapping[str, Any]) -> "NumericsProfile":
        """The profile that :meth:`to_json` wrote."""
        return cls(**{known.name: body[known.name] for known in dataclasses.fields(cls)})


MEND = "`depthsieve verify --repair` mends it"
"""What to do about a damaged file of a store."""

RESUME = "what is committed is kept; run the same command again to resume"
"""What to do after a run had to stop."""


def canonical_json(value: Any) -> str:
    """JSON with sorted keys and no spaces: equal values give equal text. Rejects NaN and infinities."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)


def digest_of(value: Any) -> str:
    """Lower-case hex sha256 of the canonical JSON of ``value``."""
    return hashlib.sha256(canonical_json(value).encode()).hexdigest()


def seal(body: Mapping[str, Any]) -> bytes:
    """The bytes of a JSON record that carries the digest of its other fields under ``digest``."""
    sealed = dict(body) | {"digest": digest_of({key: value for key, value in body.items() if key != "digest"})}
    return (json.dumps(sealed, indent=1, sort_keys=True, ensure_ascii=True, allow_nan=False) + "\n").encode()


def unseal(data: bytes, name: str) -> dict[str, Any]:
    """The record in ``data`` after its own digest was checked; ``name`` is for the message.

    Raises :class:`StoreDamaged` when it is no JSON object or the digest does not fit.
    """
    try:
        body = json.loads(data)
        intact = body["digest"] == digest_of({key: value for key, value in body.items() if key != "digest"})
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise StoreDamaged(f"{name}: not a readable record ({type(error).__name__}); {MEND}") from error
    if not intact:
        raise StoreDamaged(f"{name}: its content does not fit its own digest; {MEND}")
    return body  # type: ignore[no-any-return]
