"""What can be set about a labelling run. An option is declared once: here, or in :class:`TeacherSettings`."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Annotated, Any, get_args

from depthsieve.core.cameras import check_angle
from depthsieve.core.encodings import ENCODINGS, EncodingName
from depthsieve.core.errors import UsageError
from depthsieve.core.frames import FrameChoice
from depthsieve.core.patterns import checked_patterns
from depthsieve.core.records import Alpha, TeacherSettings
from depthsieve.core.settings import About, check_counts
from depthsieve.reliability.kinds import NETWORK, parse_signals, signals_help

DEFAULT_TEACHER, DEFAULT_SIGNALS = "depth-anything-v2-small", "flip"
"""The signals are those of a teacher without an error network; see :mod:`depthsieve.planning.calibrated`."""

GROUPS = TEACHER, LABELS, IMAGES, PLACE = "Teacher", "Labels", "What is labelled", "Where it runs"
"""Groups of the help, in their order there."""


@dataclass(frozen=True)
class LabelOptions(TeacherSettings):
    """The options of :func:`depthsieve.label` and of `depthsieve label`, which have the same names and defaults.

    What is None and decides labels is as the store has it, see :func:`depthsieve.planning.request.recall`. Raises
    :class:`UsageError` for a value that is invalid.
    """

    teacher: Annotated[
        str | None,
        About(
            "Preset (see `depthsieve teachers`), hub id, local folder, or package.module:factory.",
            TEACHER,
            "NAME",
            unset=f"the store's, else {DEFAULT_TEACHER}",
        ),
    ] = None
    second_teacher: Annotated[
        str | None,
        About(
            "Another teacher to compare labels with; adds teachers to --signals.",
            TEACHER,
            "NAME",
            unset="the store's, if it has one",
        ),
    ] = None
    metric_from: Annotated[
        str | None,
        About(
            "A teacher that predicts metres, to give relative labels a scale and shift to metres, also those that "
            "are there already; none stops that.",
            TEACHER,
            "NAME",
            unset="the store's, if it has one, for what is labelled now",
        ),
    ] = None
    signals: Annotated[
        str | None,
        About(
            f"What labels are compared with, to tell how reliable they are. {signals_help()}.",
            LABELS,
            "LIST",
            unset=f"the store's, else {NETWORK} for disparity, {DEFAULT_SIGNALS} for metres",
        ),
    ] = None
    calibration: Annotated[
        str | None,
        About(
            "An error network that `depthsieve calibrate` trained for the teacher: reliability comes from it, by photo "
            "and label, with no extra pass.",
            LABELS,
            "FILE",
            unset="the store's, else the one that ships with the teacher, if there is one",
        ),
    ] = None
    keep_signals: Annotated[
        bool | None,
        About(
            "Keep the signals beside the labels, for `depthsieve recalibrate`.",
            LABELS,
            unset="as the store does; a new one does not",
        ),
    ] = None
    encoding: Annotated[
        EncodingName | None,
        About(
            "How labels are packed. small: a fifth fewer bytes, far longer to write, longer to read.",
            LABELS,
            unset="the store's, else fast",
        ),
    ] = None
    alpha: Annotated[
        Alpha | None,
        About(
            "Transparency. respect: what is hidden has reliability 0. ignore: take the colours as they are.",
            LABELS,
            unset="the store's, else respect",
        ),
    ] = None
    cameras: Annotated[
        str | None,
        About(
            "Cameras of the images: a CSV file (image,fx[,fy,cx,cy,width,height]) or a COLMAP model, which "
            "go before EXIF, also for what is labelled already; none goes back to EXIF.",
            LABELS,
            "FILE",
            unset="what the store knows, else EXIF",
        ),
    ] = None
    focal_length: Annotated[
        float | None,
        About("Focal length of all images that --cameras does not name, in pixels of each.", LABELS, "PIXELS"),
    ] = None
    fov: Annotated[
        float | None,
        About("Instead of --focal-length: their angle of view along the longer side.", LABELS, "DEGREES"),
    ] = None
    store_images: Annotated[
        bool | None,
        About(
            "Keep the images beside the labels, at their shape, as JPEG, which training reads far faster. Adds "
            "those of what is labelled already.",
            LABELS,
            unset="as the store does, for what is labelled now; a new one does not",
        ),
    ] = None
    image_quality: Annotated[
        int | None, About("JPEG quality of those images, 1 to 100.", LABELS, "N", unset="the store's, else 90")
    ] = None
    name: Annotated[str, About("Name of this source within the store.", IMAGES, "NAME")] = "default"
    root: Annotated[
        str | None, About("What ids are relative to where SOURCE is a list.", IMAGES, "DIR", unset="the list's folder")
    ] = None
    exclude: Annotated[
        tuple[str, ...],
        About(
            "Leave out files that fit, such as depth/ or '*_mask.png' (repeatable; remembered; none forgets).",
            IMAGES,
            "PATTERN",
        ),
    ] = ()
    every: Annotated[
        int | None,
        About(
            "Of videos, take every N-th frame (remembered).",
            IMAGES,
            "N",
            unset="as the store does; a new one takes all",
        ),
    ] = None
    fps: Annotated[
        float | None,
        About(
            "Of videos, take this many frames a second (remembered).",
            IMAGES,
            "RATE",
            unset="as the store does; a new one takes all",
        ),
    ] = None
    sequence: Annotated[
        bool | None,
        About(
            "Files of one folder are the frames of a clip (remembered).",
            IMAGES,
            unset="as the store does; a new one does not",
        ),
    ] = None
    moved: Annotated[bool, About("The images of this source have moved to SOURCE.", IMAGES)] = False
    retry_failed: Annotated[bool, About("Try failed images again.", IMAGES)] = False
    prune: Annotated[bool, About("Remove images from the store that are no longer in SOURCE.", IMAGES)] = False
    prune_most: Annotated[
        bool, About("Like --prune, even if that removes more than half of the store's images.", IMAGES)
    ] = False
    check_content: Annotated[
        bool,
        About(
            "Read every labelled image to see whether it has changed, not only those with another size or time.", IMAGES
        ),
    ] = False
    batch_size: Annotated[int | None, About("Images per forward pass.", PLACE, "N", unset="found by a short trial")] = (
        None
    )
    threads: Annotated[
        int | None, About("Threads of one worker.", PLACE, "N", unset="all cores, shared by workers")
    ] = None
    shard_size: Annotated[
        int | None,
        About(
            "Most images in a shard, for images added now.",
            PLACE,
            "N",
            unset="256, or fewer where a trial finds that those take longer than a minute",
        ),
    ] = None
    runner: Annotated[str, About("auto: local for one worker without --address, else ray.", PLACE)] = "auto"
    workers: Annotated[
        int | None, About("Worker processes.", PLACE, "N", unset="one per GPU; on a cluster, as many as fit")
    ] = None
    address: Annotated[
        str | None, About("A running Ray cluster.", PLACE, "ADDR", unset="a private one on this machine")
    ] = None
    wait_workers: Annotated[
        float, About("How long a run on a cluster lasts while it has no worker, or no node for one.", PLACE, "SECONDS")
    ] = 600.0
    part: Annotated[
        str | None,
        About(
            "Take the I-th of N parts of a plan that `depthsieve plan --write` wrote.",
            PLACE,
            "I/N",
        ),
    ] = None

    @classmethod
    def among(cls, values: Mapping[str, Any]) -> "LabelOptions":
        """The options among some values by name."""
        return cls(**{one.name: values[one.name] for one in fields(cls) if one.name in values})

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "exclude", checked_patterns(self.exclude))
        if self.alpha not in (None, *get_args(Alpha)):
            raise UsageError(f"alpha must be one of {', '.join(get_args(Alpha))}, not {self.alpha!r}")
        _ = self.signal_names  # raises for those that do not exist
        check_angle(self.focal_length, self.fov)
        check_counts(self, "batch_size", "threads", "workers", "shard_size", "image_quality")
        if self.encoding not in (None, *ENCODINGS):
            raise UsageError(f"encoding must be one of {', '.join(ENCODINGS)}, not {self.encoding!r}")
        if not 0 <= self.wait_workers < math.inf:
            raise UsageError(f"wait_workers must be a number of seconds of at least 0, not {self.wait_workers!r}")
        if self.image_quality is not None and self.store_images is False:
            raise UsageError("image_quality is that of stored images; say store_images (--store-images) with it")
        quality = self.image_quality
        if quality is not None and quality > 100:
            raise UsageError(f"image_quality must be a whole number of 1 to 100, not {quality!r}")
        if self.part is not None and self.share is None:
            raise UsageError(f"part must be I/N, the I-th of N parts counted from 1, such as '2/8', not {self.part!r}")
        _ = self.frames  # raises for those that are invalid
        growth = ("exclude", "every", "fps", "retry_failed", "moved", "prune", "prune_most", "check_content")
        planned = (*growth, "cameras", "focal_length", "fov")
        said = [one for one in planned if getattr(self, one)] + ["sequence"] * (self.sequence is not None)
        if self.part is not None and said:
            raise UsageError(f"a part adds nothing to the plan: say {said[0]} to plan() or label() without part")
        if self.signals is not None and self.keep_signals and not self.signal_names:
            raise UsageError("there are no signals to keep with --signals none")
        if NETWORK in self.signal_names and self.second_teacher is not None:
            raise UsageError("--second-teacher and --signals network do not go together: leave one of them out")
        others = "--second-teacher" if self.second_teacher is not None else f"--signals {self.signals}"
        if self.calibration is not None and others not in ("--signals None", f"--signals {NETWORK}"):
            raise UsageError(
                f"{others} and --calibration do not go together: an error network needs no signals; leave one out"
            )

    @property
    def says_cameras(self) -> bool:
        """Whether anything is said of cameras."""
        return any(said is not None for said in (self.cameras, self.focal_length, self.fov))

    @property
    def frames(self) -> FrameChoice | None:
        """Which frames of videos are taken; None where nobody says."""
        return FrameChoice.of(self.every, self.fps)

    @property
    def prunes(self) -> bool:
        """Whether images leave the store that are no longer in the source."""
        return self.prune or self.prune_most

    @property
    def share(self) -> tuple[int, int] | None:
        """``part`` as numbers (i, n) with 1 <= i <= n; None without one, or where it is none."""
        first, slash, count = (self.part or "").partition("/")
        if not (slash and first.isdecimal() and count.isdecimal() and 1 <= int(first) <= int(count)):
            return None
        return int(first), int(count)

    @property
    def signal_names(self) -> tuple[str, ...]:
        """The chosen signals, sorted, without "none"."""
        second = {"teachers"} if self.second_teacher is not None else set()
        return tuple(sorted({*parse_signals(DEFAULT_SIGNALS if self.signals is None else self.signals), *second}))
