"""The embedded teachers, and published depth models by short name, with what people must know before they use them.

Hub ids, licences and file formats are those of the model cards on the Hugging Face hub, except where a note says
otherwise. ``Intel/dpt-hybrid-midas`` is missing on purpose: its main branch holds pickled weights only.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from depthsieve.core.records import LabelSpec, Quantity, TeacherRequest

APACHE = "Apache-2.0"
NON_COMMERCIAL = "CC-BY-NC-4.0"

COMMERCIAL_USE: Mapping[str, bool] = {APACHE: True, "MIT": True, NON_COMMERCIAL: False, "Apple-AMLR": False}
"""Whether a licence allows commercial use."""


@dataclass(frozen=True, slots=True)
class Preset:
    """One model with a name of its own.

    ``licence`` is that of the weights; ``parameters`` is about how many there are; ``unit`` is ``"m"`` for metric
    models and empty for disparity, which has none; ``note`` says what a user might trip over. A model in this package
    has no ``hub_id``. ``pickled`` is the file of a model whose authors publish no safetensors, ``needs`` the package
    that must be installed for it.
    """

    name: str
    hub_id: str
    licence: str
    quantity: Quantity
    unit: str
    parameters: str
    note: str = ""
    pickled: str = ""
    needs: str = ""

    @property
    def commercial_use(self) -> bool | None:
        """Whether the licence of the weights allows it; None where what is published does not settle that, as the note
        says."""
        return None if any(doubt in self.note for doubt in _DOUBTS) else COMMERCIAL_USE.get(self.licence)


def _relative(name: str, hub_id: str, licence: str, parameters: str, note: str = "") -> Preset:
    return Preset(name, hub_id, licence, "disparity", "", parameters, note)


def _metric(name: str, hub_id: str, licence: str, parameters: str, note: str = "") -> Preset:
    return Preset(name, hub_id, licence, "depth", "m", parameters, note)


def _unidepth(name: str, size: str, parameters: str) -> Preset:
    hub_id = f"lpiccinelli/unidepth-v2-{size}"
    return Preset(name, hub_id, NON_COMMERCIAL, "depth", "m", parameters, _UNIDEPTH, needs="unidepth")


_NC = "not for commercial use"
_INDOOR = "indoor scenes, up to 20 m"
_OUTDOOR = "streets, up to 80 m"
_STATED = "licence by the authors' word, none on the card (docs/teachers.md)"
_NC_PARENT = f"fine-tuned from CC-BY-NC-4.0 weights; {_STATED}"
_DISTILL = "the card of the original weights says Apache-2.0, other conversions say MIT: read the card"
_OWN_SIZE = "works at the image's own size, so that large photos need --oversize shrink"
_CONVERTED = "pickled on its main branch: --revision refs/pr/1 is the hub's conversion to safetensors"
_TIPS = "indoor scenes, up to 10 m; squares images to 448x448; needs torchvision and a recent transformers"
_TIPS_CARD = "licence as on the B/14 card: read the card"
_DOUBTS = (_STATED, _DISTILL, _TIPS_CARD)
_DA = "depth-anything/Depth-Anything-V2"
_CARD = "see the card"
_MOGE = "mask and focal length of its own; published as a pickle, to be converted once (docs/teachers.md); code is MIT"
_UNIDEPTH = (
    f"{_NC}, code and weights; confidence and focal length of its own; needs its authors' package unidepth "
    "(docs/teachers.md)"
)
_M3D = (
    "needs the focal length; confidence of its own; published as a pickle, to be converted once (docs/teachers.md); "
    "the weights' page names no licence, code is BSD-2-Clause, and the authors ask commercial users to write to them"
)
_DA3 = "depth-anything/DA3"
_DA3_ANY = "depth up to a factor, as its inverse; confidence and focal length of its own"
_DA3_NC = f"{_DA3_ANY}; {_NC}"


def _metric3d(size: str, vit: str, parameters: str) -> Preset:
    file = f"metric_depth_vit_{vit}_800k.pth"
    return Preset(f"metric3d-v2-{size}", "JUGGHM/Metric3D", "not stated", "depth", "m", parameters, _M3D, pickled=file)


EMBEDDED = _relative("tiny", "", APACHE, "3M", "in the package; for the demo, tests and trying things out")
"""The teacher that needs no download."""

EARLIER: Mapping[str, Preset] = {
    "f44097132bd6a7447ba64f77c3964e7917686c0a1228a7a032c09aaf5830c593": _relative(
        "tiny-v1", "", APACHE, "4M", "in the package; the first `tiny`, for stores that it labelled"
    ),
}
"""Embedded teachers that were called ``tiny`` before, by the digest of their weights, as label specs have it."""

FOLDERS = {"tiny": "tiny", "tiny-v1": "tiny-v1"}
"""Where the embedded teachers are, beside this file. This alone says what the name ``tiny`` leads to."""

PRESETS: tuple[Preset, ...] = (
    _relative("depth-anything-v2-small", f"{_DA}-Small-hf", APACHE, "25M"),
    _relative("depth-anything-v2-base", f"{_DA}-Base-hf", NON_COMMERCIAL, "97M", _NC),
    _relative("depth-anything-v2-large", f"{_DA}-Large-hf", NON_COMMERCIAL, "335M", _NC),
    _metric("depth-anything-v2-indoor-small", f"{_DA}-Metric-Indoor-Small-hf", APACHE, "25M", f"{_INDOOR}; {_STATED}"),
    _metric("depth-anything-v2-indoor-base", f"{_DA}-Metric-Indoor-Base-hf", APACHE, "97M", f"{_INDOOR}; {_NC_PARENT}"),
    _metric(
        "depth-anything-v2-indoor-large", f"{_DA}-Metric-Indoor-Large-hf", APACHE, "335M", f"{_INDOOR}; {_NC_PARENT}"
    ),
    _metric(
        "depth-anything-v2-outdoor-small", f"{_DA}-Metric-Outdoor-Small-hf", APACHE, "25M", f"{_OUTDOOR}; {_STATED}"
    ),
    _metric(
        "depth-anything-v2-outdoor-base", f"{_DA}-Metric-Outdoor-Base-hf", APACHE, "97M", f"{_OUTDOOR}; {_NC_PARENT}"
    ),
    _metric(
        "depth-anything-v2-outdoor-large", f"{_DA}-Metric-Outdoor-Large-hf", APACHE, "335M", f"{_OUTDOOR}; {_NC_PARENT}"
    ),
    _relative("depth-anything-3-small", f"{_DA3}-SMALL", APACHE, "34M", _DA3_ANY),
    _relative("depth-anything-3-base", f"{_DA3}-BASE", APACHE, "135M", _DA3_ANY),
    _relative("depth-anything-3-large", f"{_DA3}-LARGE-1.1", NON_COMMERCIAL, "411M", _DA3_NC),
    _relative("depth-anything-3-giant", f"{_DA3}-GIANT-1.1", NON_COMMERCIAL, "1320M", _DA3_NC),
    _relative(
        "depth-anything-3-mono-large", f"{_DA3}MONO-LARGE", APACHE, "334M", "depth up to a factor, as its inverse; sky"
    ),
    _metric(
        "depth-anything-3-metric-large",
        f"{_DA3}METRIC-LARGE",
        APACHE,
        "334M",
        "needs the focal length; sky has no label",
    ),
    Preset("moge-2-small", "Ruicheng/moge-2-vits-normal", _CARD, "depth", "m", "35M", _MOGE, pickled="model.pt"),
    Preset("moge-2-base", "Ruicheng/moge-2-vitb-normal", _CARD, "depth", "m", "104M", _MOGE, pickled="model.pt"),
    Preset("moge-2-large", "Ruicheng/moge-2-vitl-normal", _CARD, "depth", "m", "331M", _MOGE, pickled="model.pt"),
    _unidepth("unidepth-v2-small", "vits14", "34M"),
    _unidepth("unidepth-v2-base", "vitb14", "114M"),
    _unidepth("unidepth-v2-large", "vitl14", "354M"),
    _metric3d("small", "small", "37M"),
    _metric3d("large", "large", "412M"),
    _metric3d("giant", "giant2", "1378M"),
    _relative("depth-anything-v1-small", "LiheYoung/depth-anything-small-hf", APACHE, "25M"),
    _relative("depth-anything-v1-base", "LiheYoung/depth-anything-base-hf", APACHE, "97M"),
    _relative("depth-anything-v1-large", "LiheYoung/depth-anything-large-hf", APACHE, "335M"),
    _relative("distill-any-depth-small", "xingyang1/Distill-Any-Depth-Small-hf", "see the card", "25M", _DISTILL),
    _relative("distill-any-depth-large", "xingyang1/Distill-Any-Depth-Large-hf", "see the card", "335M", _DISTILL),
    _relative("dpt-large", "Intel/dpt-large", APACHE, "343M", "MiDaS 3.0; squares images to 384x384"),
    _relative("dpt-beit-large-512", "Intel/dpt-beit-large-512", "MIT", "345M", "MiDaS 3.1"),
    _relative("dpt-swinv2-tiny-256", "Intel/dpt-swinv2-tiny-256", "MIT", "41M", "MiDaS 3.1"),
    _metric("zoedepth", "Intel/zoedepth-nyu-kitti", "MIT", "346M", "indoor and street scenes"),
    _metric("glpn-nyu", "vinvino02/glpn-nyu", APACHE, "61M", f"indoor scenes, up to 10 m; {_OWN_SIZE}"),
    _metric("glpn-kitti", "vinvino02/glpn-kitti", APACHE, "61M", f"{_OUTDOOR}; {_OWN_SIZE}; {_CONVERTED}"),
    _metric("tipsv2-b14", "google/tipsv2-b14-dpt", APACHE, "110M", _TIPS),
    _metric("tipsv2-l14", "google/tipsv2-l14-dpt", APACHE, "330M", f"{_TIPS}; {_TIPS_CARD}"),
    _metric("tipsv2-so400m14", "google/tipsv2-so400m14-dpt", APACHE, "440M", f"{_TIPS}; {_TIPS_CARD}"),
    _metric("tipsv2-g14", "google/tipsv2-g14-dpt", APACHE, "1150M", f"{_TIPS}; {_TIPS_CARD}"),
    _metric("depth-pro", "apple/DepthPro-hf", "Apple-AMLR", "952M", "research use only; needs torchvision"),
)


IN_PACKAGE: tuple[Preset, ...] = (EMBEDDED, *EARLIER.values())


def find_preset(name: str) -> Preset | None:
    """The embedded or published model called ``name``, or None."""
    return next((preset for preset in (*IN_PACKAGE, *PRESETS) if preset.name == name), None)


def name_at(name: str, weights_digest: str) -> str:
    """What the teacher is called today that was called ``name`` when it labelled with such weights.

    Only ``tiny`` has ever meant other weights than today; every other name stays as it is.
    """
    earlier = EARLIER.get(weights_digest) if name == EMBEDDED.name else None
    return earlier.name if earlier is not None else name


def request_at(request: TeacherRequest, spec: LabelSpec) -> TeacherRequest:
    """The request by which labels of this spec were made, with the names that its teachers have today."""
    second = request.second
    if second is not None and spec.second is not None:
        second = replace(second, name=name_at(second.name, spec.second["weights_digest"]))
    return replace(request, name=name_at(request.name, spec.weights_digest), second=second)
