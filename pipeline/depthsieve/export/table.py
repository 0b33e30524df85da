"""Which targets there are, and the options that each adds. Nothing heavy is imported here: the help is made of it."""

import difflib
import importlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from depthsieve.core.errors import UsageError

if TYPE_CHECKING:
    from depthsieve.export.protocol import Target

GENERAL, VIDEO, TRAINING, RECONSTRUCTION = "Files", "Video", "Training", "Reconstruction"
"""Groups of targets, as the help lists them."""


@dataclass(frozen=True, slots=True)
class TargetOption:
    """An option of one target, or of several that declare it alike: ``--colmap DIR`` of ``name`` "colmap".

    ``kind`` is str, int, float or bool; with ``choices`` it is str. ``unset`` is what holds where a default of None
    stays.
    """

    name: str
    kind: type[Any]
    default: Any
    help: str
    metavar: str | None = None
    choices: tuple[str, ...] = ()
    unset: str = ""

    def checked(self, value: Any) -> Any:
        """``value`` in the option's own type. Raises :class:`UsageError` for one that it does not take."""
        if value is None and self.default is None:
            return None
        fits = isinstance(value, bool) if self.kind is bool else not isinstance(value, bool)
        if self.choices and value not in self.choices:
            raise UsageError(f"{self.name} must be one of {', '.join(self.choices)}, not {value!r}")
        try:
            made = self.kind(value)
        except (TypeError, ValueError):
            fits = False
        if not fits or (self.kind is int and made != value):
            raise UsageError(f"{self.name} must be a {self.kind.__name__}, not {value!r}")
        return made


@dataclass(frozen=True, slots=True)
class TargetRow:
    """A target: its ``name``, the ``group`` that the help lists it in, a ``summary`` of one line, the class that is it
    ("module:Class" within this package; where an option decides it, that with its value as a field), and its
    options."""

    name: str
    group: str
    summary: str
    home: str
    options: tuple[TargetOption, ...] = field(default=())

    def load(self, options: Mapping[str, Any]) -> "type[Target]":
        """The class of the target, with these options."""
        module, _, name = self.home.format(**options).partition(":")
        found: type[Target] = getattr(importlib.import_module(f"depthsieve.export.{module}"), name)
        return found

    def settled(self, given: Mapping[str, Any]) -> dict[str, Any]:
        """All options of the target, those not ``given`` at their default.

        Raises :class:`UsageError` for an option that it does not have, or a value that it does not take.
        """
        known = {option.name: option for option in self.options}
        for name in given:
            if name not in known:
                whose = ", ".join(row.name for row in TARGETS.values() if name in {one.name for one in row.options})
                hint = f"it belongs to {whose}" if whose else f"it has {', '.join(known) or 'none'}"
                raise UsageError(f"target {self.name} has no option {name!r}; {hint}")
        return {name: option.checked(given.get(name, option.default)) for name, option in known.items()}


IMAGES_PER_FILE = TargetOption("images_per_file", int, 1000, "Images of a file; 0 puts all into one.", "N")
WITHOUT_PHOTOS = TargetOption("without_photos", bool, False, "Leave the photos out.")
FPS = TargetOption(
    "fps",
    float,
    None,
    "Frames a second of clips whose times are not known: folders of frames, and videos that are gone.",
    unset="25 in mp4; elsewhere their times stay unknown",
)
_VAL = TargetOption("val", float, 0.1, "Share of images for validation, chosen by their ids.", "SHARE")

TARGETS: Mapping[str, TargetRow] = {
    row.name: row
    for row in (
        TargetRow(
            "png",
            GENERAL,
            "16-bit depth and 8-bit reliability in the source's folders, scale and offset per image in one JSON",
            "to_png:PngTarget",
        ),
        TargetRow("npy", GENERAL, "float32 depth and uint8 reliability, a file each, NaN invalid", "to_npy:NpyTarget"),
        TargetRow("npz", GENERAL, "depth and reliability of an image in one compressed file", "to_npy:NpzTarget"),
        TargetRow(
            "hdf5",
            GENERAL,
            "depth and reliability in HDF5, chunked and compressed, facts as attributes",
            "to_hdf5:Hdf5Target",
            (IMAGES_PER_FILE,),
        ),
        TargetRow(
            "webdataset",
            TRAINING,
            "tar shards of photo, depth, reliability and JSON, for the library webdataset",
            "to_webdataset:WebDatasetTarget",
            (IMAGES_PER_FILE, WITHOUT_PHOTOS),
        ),
        TargetRow(
            "huggingface",
            TRAINING,
            "Parquet that datasets.load_dataset opens, with the columns image and depth_map",
            "to_huggingface:HuggingFaceTarget",
            (IMAGES_PER_FILE, WITHOUT_PHOTOS),
        ),
        TargetRow(
            "exr",
            GENERAL,
            "depth and reliability as channels of an OpenEXR image, float32",
            "to_exr:ExrTarget",
        ),
        TargetRow(
            "video-depth-anything",
            VIDEO,
            "the depths of each clip as Video Depth Anything writes them: STEM_depths.npz, or an EXR a frame",
            "to_video_{depths}:Depths",
            (
                TargetOption(
                    "depths",
                    str,
                    "npz",
                    "The depths of a clip as one array, or as an image a frame.",
                    choices=("npz", "exr"),
                ),
                TargetOption("metric", bool, False, "Depths in metres, of relative labels that have a scale too."),
                FPS,
            ),
        ),
        TargetRow(
            "frames",
            VIDEO,
            "a 16-bit PNG a frame, whose codes mean the same in all frames of a clip",
            "to_frames:FramesTarget",
            (FPS,),
        ),
        TargetRow(
            "mp4",
            VIDEO,
            "a video a clip to look at: photo and depth in colours side by side, over one range",
            "to_mp4:Mp4Target",
            (TargetOption("with_reliability", bool, False, "Show reliability beside depth."), FPS),
        ),
        TargetRow(
            "kitti",
            TRAINING,
            "16-bit PNG, metres times 256, 0 unknown, beside the photos",
            "to_kitti:KittiTarget",
        ),
        TargetRow(
            "ultralytics",
            TRAINING,
            "a dataset of YOLO depth: images/ and depth/ by split, 16-bit millimetres, dataset.yaml",
            "to_ultralytics:UltralyticsTarget",
            (
                _VAL,
                TargetOption("depth_scale", int, 1000, "Steps of 16-bit depth a metre; 256 holds 256 m.", "N"),
            ),
        ),
        TargetRow(
            "depth-anything-v2",
            TRAINING,
            "lists and files of Depth Anything V2's metric_depth training",
            "to_depth_anything:DepthAnythingTarget",
            (
                _VAL,
                TargetOption(
                    "style",
                    str,
                    "vkitti",
                    "Which of its readers it is for: 16-bit centimetres, or HDF5 distances.",
                    choices=("vkitti", "hypersim"),
                ),
            ),
        ),
        TargetRow(
            "moge",
            TRAINING,
            "a folder an image: image.jpg, 16-bit logarithmic depth.png, meta.json with intrinsics; .index.txt",
            "to_moge:MogeTarget",
            (
                TargetOption(
                    "fov",
                    float,
                    None,
                    "Angle of view along the longer side, of photos whose focal length is not known.",
                    "DEGREES",
                    unset="such photos fail",
                ),
            ),
        ),
        TargetRow(
            "3dgs",
            RECONSTRUCTION,
            "inverse depth for gaussian-splatting, with its scale fitted to a COLMAP model",
            "to_3dgs:GaussianSplattingTarget",
            (
                TargetOption(
                    "colmap",
                    str,
                    None,
                    "The COLMAP model of the photos, or the scene's folder.",
                    "DIR",
                    unset="no scale is fitted",
                ),
            ),
        ),
        TargetRow(
            "nerfstudio",
            RECONSTRUCTION,
            "transforms.json with millimetre depth for every frame, beside the photos",
            "to_nerfstudio:NerfstudioTarget",
            (
                TargetOption(
                    "transforms",
                    str,
                    None,
                    "transforms.json of the photos, or its folder.",
                    "FILE",
                    unset="none: it is needed",
                ),
                TargetOption(
                    "depth_format",
                    str,
                    "png",
                    "16-bit files, which hold 65.535 m, or float32 ones.",
                    choices=("png", "npy"),
                ),
            ),
        ),
    )
}


def find_target(name: str) -> TargetRow:
    """The row of a target. Raises :class:`UsageError` that lists them for an unknown one."""
    row = TARGETS.get(name)
    if row is None:
        near = difflib.get_close_matches(name, TARGETS, n=1)
        hint = f"did you mean {near[0]}? " if near else ""
        raise UsageError(f"there is no target {name!r}; {hint}targets are {', '.join(TARGETS)}")
    return row


def all_options() -> Iterator[tuple[TargetOption, tuple[str, ...]]]:
    """Each option of any target once, with the names of the targets that have it."""
    owners: dict[str, list[str]] = {}
    found: dict[str, TargetOption] = {}
    for row in TARGETS.values():
        for option in row.options:
            found.setdefault(option.name, option)
            owners.setdefault(option.name, []).append(row.name)
    for name, option in found.items():
        yield option, tuple(owners[name])
