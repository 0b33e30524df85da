"""Calibrate: scenes and photos with depth, a teacher's labels of them, a network that tells their errors."""

import dataclasses
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from depthsieve.cameras.given import given_cameras
from depthsieve.core.errors import GroundTruthError, ImageRejected, RunError, SourceError, UsageError, one_line
from depthsieve.core.progress import progress_bar, say, with_progress
from depthsieve.core.records import ImageFailure, Quantity
from depthsieve.evaluation.ground_truth.settings import TruthSettings
from depthsieve.jobs.calibrate.cameras import scene_camera, with_cameras
from depthsieve.jobs.calibrate.confidence import ConfidenceSummary, fit_confidence
from depthsieve.jobs.calibrate.examples import Example, example, family_of, scene_example, scene_photo
from depthsieve.jobs.calibrate.judging import TIMED, Floats, MethodScore, costs, doubts, extra_times, score
from depthsieve.jobs.calibrate.pairs import Pair, Pairs, find_pairs
from depthsieve.jobs.calibrate.progress import Unfinished
from depthsieve.jobs.calibrate.settings import FIRST_SEED, JUDGED, LEARNT, CalibrateSettings
from depthsieve.jobs.calibrate.training import fit_blend, fit_scale, stored, train
from depthsieve.labelling.metric import lacks_camera
from depthsieve.reliability.native import NativeConfidence
from depthsieve.reliability.network import ErrorNetwork
from depthsieve.storage import expand
from depthsieve.teachers import Teacher, load_teacher

HELD_BACK = 20
"""One example in so many is not trained on: the scale of expected errors is fitted to it."""

MOST_REPEATS = 20
PAIRS_TO_SCENES = 0.5
"""Pairs are seen more often than scenes, at most so many times, until there are this many of them to each scene."""

SCALED_PAIRS, FEWEST_SCALED = 3, 5
"""One pair in so many of those to learn from gives the scale instead of being learnt from, if these are enough."""

JUDGED_SEED = 0


@dataclass(frozen=True)
class CalibrateSummary:
    """What :func:`calibrate` made. ``calibration`` is what label specs call it, with the ``digest`` of what decides its
    errors. ``scores`` are the methods on scenes and on pairs that it was not trained on. ``pairs`` were learnt from and
    ``pairs_judged`` left out, ``pairs_scaled`` gave the scale of expected errors (0: rendered scenes gave it);
    ``without_depth`` counts images without any; ``failed`` are pairs that could not be read, with their reasons.
    ``confidence`` is what was found of the teacher's own confidence, None for a teacher without. ``notes`` are lines
    that a person should see."""

    file: str
    calibration: str
    digest: str
    teacher: str
    quantity: Quantity
    scenes: int
    steps: int
    pairs: int
    pairs_judged: int
    pairs_scaled: int
    without_depth: int
    seconds: float
    scores: tuple[MethodScore, ...]
    failed: tuple[ImageFailure, ...] = ()
    confidence: ConfidenceSummary | None = None
    notes: tuple[str, ...] = ()


def calibrate(
    teacher: str | Teacher,
    out: str | Path,
    *,
    pairs: Sequence[str | Path] = (),
    ground_truth: str | Path | None = None,
    scale: float | None = None,
    scale_by: Mapping[str, float] | Sequence[tuple[str, float]] = (),
    pattern: str | Sequence[str] = (),
    replace: Sequence[tuple[str, str]] = (),
    cameras: str | Path | None = None,
    focal_length: float | None = None,
    fov: float | None = None,
    start: str | Path | None = None,
    scenes: int = 800,
    judged: int = 100,
    steps: int = 800,
    seed: int = 0,
    device: str = "auto",
    size: int | None = None,
    revision: str | None = None,
    quantity: Quantity | None = None,
    progress: bool = True,
) -> CalibrateSummary:
    """Train a network that tells the errors of a teacher's labels, from the photo and the label alone.

    Scenes are rendered and labelled by the teacher, and the network learns where those labels are wrong; so it does
    from photos with measured depth. Of a teacher that says how sure it is, the errors to expect at each confidence are
    learnt too, and count beside the network where that helps on labels held back. It is then judged on scenes of
    another family and on pairs that it was not trained on. The same call resumes what was stopped or killed; what is
    done so far is kept in ``OUT.unfinished`` until the end. With the same settings, threads and machine it makes the
    same bytes.

    Args:
        teacher: a name as for :func:`depthsieve.load_teacher`, or a loaded teacher (then ``device``, ``size``,
            ``revision`` and ``quantity`` are its own).
        out: the file to write, a safetensors file that ``label`` and ``recalibrate`` take. It must not exist.
        pairs: folders of photos with depth to learn from as well. One in three is left out and judged on; one in three
            of the others gives the scale of expected errors if those are five or more; otherwise scenes give it.
        ground_truth: where the depth of those photos is, a folder or file as for :func:`depthsieve.evaluate_labels`.
            None: each in the photo's own folder.
        scale: how many units of the depth files are a metre; None: values are metres.
        scale_by: for files in different units, as for :func:`depthsieve.evaluate_labels`.
        pattern: where a photo's depth is, such as ``{dir}/{stem}_depth.png``; one or several.
        replace: pairs of texts to replace in a photo's path to find its depth.
        cameras: of the photos of pairs, for a teacher that takes cameras: a CSV file or a COLMAP model, as for
            :func:`depthsieve.label`; they go before EXIF. Rendered scenes have cameras of their own.
        focal_length: of all photos that ``cameras`` does not name, in pixels of each.
        fov: instead, their angle of view along the longer side, in degrees.
        start: a calibration to go on from, of any teacher of the same quantity: fewer scenes and steps will do.
        scenes: how many scenes to learn from, 20 or more.
        judged: how many scenes to judge on.
        steps: of training, each on 16 labels.
        seed: of scenes and training, 0 to 1048575.
        device: where teacher and network run: ``cpu``, ``cuda``, ``cuda:N``, ``mps``, or ``auto``.
        size: the short side of Depth Anything models, in pixels.
        revision: of a teacher of the hub.
        quantity: ``disparity`` or ``depth``, for checkpoints that do not say what they predict.
        progress: show bars on stderr, or in the notebook.

    Raises:
        UsageError: an invalid option, a file that is there already, or unfinished work of other settings.
        GroundTruthError: a folder of pairs in which no photo has depth.
        SourceError: a folder of pairs that is missing or empty, or a file of cameras that will not do.
        TeacherError: as :func:`depthsieve.load_teacher`.
        RunError: the file or what is done so far cannot be written, or no label of a scene can be compared with it.
    """
    began = time.monotonic()
    settings = CalibrateSettings(scenes, judged, steps, seed)
    truth = TruthSettings(
        pattern=pattern if isinstance(pattern, str) else tuple(pattern),
        replace=tuple(replace),
        scale=scale,
        scale_by=tuple(scale_by.items() if isinstance(scale_by, Mapping) else scale_by),
    )
    file = Path(expand(out)).absolute()
    _check_file(file)
    given = given_cameras(None if cameras == "none" else cameras, focal_length, fov)
    if not pairs and (ground_truth is not None or truth != TruthSettings() or given):
        raise UsageError(
            "ground_truth, scale, scale_by, pattern, replace, cameras, focal_length and fov are for pairs; name "
            "folders of photos with pairs"
        )
    found = find_pairs(pairs, ground_truth, truth) if pairs else Pairs()
    before = None if start is None else ErrorNetwork.load(expand(start))
    if isinstance(teacher, str):
        teacher = load_teacher(teacher, device=device, size=size, revision=revision, quantity=quantity)
    if before is not None and before.quantity != teacher.quantity:
        raise UsageError(
            f"{start} tells errors of {before.quantity}, and teacher {teacher.name!r} predicts {teacher.quantity}"
        )
    found, notes = with_cameras(found, teacher, given)
    for line in notes:
        say(f"Note: {line}.", shown=progress)
    work = _Work(teacher, settings, found, before, _unfinished(file, teacher, settings, found, before), progress)
    network = work.network()
    scores = work.judge(network)
    untimed = [dataclasses.replace(one, extra_time=None) for one in scores]  # the same bytes each time
    network.meta |= {"scores": [dataclasses.asdict(one) for one in untimed]}
    try:
        network.cpu().save(file)
    except OSError as error:
        raise UsageError(f"{file} cannot be written: {error.strerror or error}") from error
    work.unfinished.remove()
    return CalibrateSummary(
        str(file),
        network.version,
        network.digest,
        teacher.name,
        teacher.quantity,
        settings.scenes,
        settings.steps,
        work.learnt_pairs,
        work.judged_pairs,
        len(work.scaling),
        found.without_depth,
        time.monotonic() - began,
        scores,
        tuple(work.failed),
        work.confidence,
        notes,
    )


def _check_file(file: Path) -> None:
    if file.exists():
        raise UsageError(f"{file} is there already; name another file, or delete it")
    if not file.parent.is_dir():
        raise UsageError(f"{file.parent} is no folder; make it, or name another file")


def _unfinished(
    file: Path, teacher: Teacher, settings: CalibrateSettings, pairs: Pairs, before: ErrorNetwork | None
) -> Unfinished:
    return Unfinished(
        file,
        {
            "teacher": teacher.name,
            "weights": teacher.weights_digest,
            "dtype": teacher.dtype,
            "preprocessing": dict(teacher.preprocessing),
            "device": teacher.device.type,
            "threads": torch.get_num_threads(),
            "start": None if before is None else before.digest,
            **dataclasses.asdict(settings),
            "pairs": [pair.id for pair in (*pairs.learnt, *pairs.judged)],
            **({} if teacher.confidence_better is None else {"confidence": teacher.confidence_meaning}),
            **({} if teacher.intrinsics_in == "ignored" else {"cameras": _intrinsics(pairs)}),
        },
    )


def _intrinsics(pairs: Pairs) -> list[tuple[float, ...] | None]:
    return [pair.camera.intrinsics if pair.camera else None for pair in (*pairs.learnt, *pairs.judged)]


class _Work:
    """Makes what is not there yet, and goes on from what is."""

    def __init__(
        self,
        teacher: Teacher,
        settings: CalibrateSettings,
        pairs: Pairs,
        before: ErrorNetwork | None,
        unfinished: Unfinished,
        progress: bool,
    ) -> None:
        self.teacher, self.settings, self.pairs, self.before = teacher, settings, pairs, before
        self.unfinished, self.progress = unfinished, progress
        self.failed: list[ImageFailure] = []
        self.scaling: list[int] = []
        self.learnt_pairs = self.judged_pairs = 0
        self.native: NativeConfidence | None = None
        self.confidence: ConfidenceSummary | None = None

    def network(self) -> ErrorNetwork:
        """The trained network, on the teacher's device."""
        self._label("label", range(self._count))
        pairs = range(self.settings.scenes, self._count)[SCALED_PAIRS - 1 :: SCALED_PAIRS]
        found = list(filter(self.unfinished.has, pairs))
        self.scaling = found if len(found) >= FEWEST_SCALED else []
        scenes = range(self._count, self._count + (0 if self.scaling else self.settings.scaled))
        self._label("label for the scale", scenes)
        numbers = [number for number in filter(self.unfinished.has, range(self._count)) if number not in self.scaling]
        self.learnt_pairs = sum(number >= self.settings.scenes for number in numbers)
        if not any(np.isfinite(self.unfinished.example(number)["errors"]).any() for number in numbers):
            raise RunError(f"no label of teacher {self.teacher.name!r} could be compared with what it shows")
        held_back = numbers[HELD_BACK // 2 :: HELD_BACK] or numbers[:1]
        groups: dict[tuple[int, ...], list[int]] = {}
        for number in numbers:
            if number not in held_back:
                repeats = 1 if number < self.settings.scenes else self._repeats
                groups.setdefault(self.unfinished.example(number).shape, []).extend(repeats * [number])
        meta = {
            "teacher": self.teacher.name,
            "families": LEARNT,
            **dataclasses.asdict(self.settings),
            "pairs": self.learnt_pairs,
            **({"pairs_scaled": len(self.scaling)} if self.scaling else {}),
            "start": None if self.before is None else self.before.version,
        }
        network = ErrorNetwork.random(self.settings.seed, self.teacher.quantity)
        if self.before is not None:
            network.load_state_dict(self.before.without_confidence().state_dict())
        network.fitted_on, network.meta = (self.teacher.weights_digest,), meta
        network.to(self.teacher.device)
        with progress_bar("train", total=self.settings.steps, unit="steps", shown=self.progress) as bar:
            train(network, self.unfinished, list(groups.values()), self.settings.steps, self.settings.seed, bar)
        apart = [self.unfinished.example(number) for number in held_back]
        fit_blend(network, apart)
        if self.teacher.confidence_better is not None:
            learnt = (self.unfinished.example(number) for number in numbers if number not in held_back)
            network, self.native, self.confidence = fit_confidence(self.teacher, network, learnt, apart)
            network.meta |= {"confidence": dataclasses.asdict(self.confidence)}
        scaling = filter(self.unfinished.has, self.scaling or scenes)
        fit_scale(network, [self.unfinished.example(number) for number in scaling])
        return network

    def judge(self, network: ErrorNetwork) -> tuple[MethodScore, ...]:
        """Scores on scenes, then on pairs."""
        timed: list[dict[str, float]] = []

        def judged(seen: Example, rgb_HW3: NDArray[np.uint8]) -> tuple[Example, dict[str, Floats]]:
            if len(timed) <= TIMED:
                timed.append(costs(seen, self.teacher, network, rgb_HW3))
            return seen, doubts(seen, self.teacher, network, rgb_HW3, self.native)

        def scenes() -> Iterator[tuple[Example, dict[str, Floats]]]:
            for number in with_progress(range(self.settings.judged), "judge", unit="scenes", shown=self.progress):
                scene = scene_photo(self.teacher, JUDGED_SEED + number, JUDGED, number)
                seen = example(self.teacher, scene.rgb_HW3, scene.depth_HW, scene_camera(scene))
                yield judged(seen, scene.rgb_HW3)

        def photos() -> Iterator[tuple[Example, dict[str, Floats]]]:
            for pair in with_progress(self.pairs.judged, "judge", unit="pairs", shown=self.progress):
                read = self._read(pair)
                if read is not None:
                    self.judged_pairs += 1
                    yield judged(example(self.teacher, *read, pair.camera), read[0])

        on_scenes = list(scenes())
        paid = extra_times(timed[1:])  # the first is slow for reasons of its own
        return (*score("scenes", on_scenes, paid), *score("pairs", photos(), paid))

    @property
    def _count(self) -> int:
        return self.settings.scenes + len(self.pairs.learnt)

    @property
    def _repeats(self) -> int:
        return max(1, min(MOST_REPEATS, round(self.settings.scenes * PAIRS_TO_SCENES / max(1, self.learnt_pairs))))

    def _label(self, title: str, numbers: range) -> None:
        """Label those of some examples that are not kept yet."""
        first = FIRST_SEED + self.settings.seed * (1 << 24)
        with progress_bar(title, total=len(numbers), unit="images", shown=self.progress and bool(numbers)) as bar:
            for number in numbers:
                if not self.unfinished.has(number) and (seen := self._example(number, first)) is not None:
                    self.unfinished.keep(number, stored(seen, self.teacher.quantity, number))
                bar.update()

    def _example(self, number: int, first: int) -> Example | None:
        if number < self.settings.scenes:
            return scene_example(self.teacher, first + number, family_of(number), number)
        if number >= self._count:
            scene = scene_photo(self.teacher, first + number, JUDGED, number)
            return example(self.teacher, scene.rgb_HW3, scene.depth_HW, scene_camera(scene))
        pair = self.pairs.learnt[number - self.settings.scenes]
        read = self._read(pair)
        return None if read is None else example(self.teacher, *read, pair.camera)

    def _read(self, pair: Pair) -> tuple[NDArray[np.uint8], NDArray[np.float32]] | None:
        """A photo with its depth; what is wrong with it is recorded."""
        try:
            read = pair.read()
            if self.teacher.intrinsics_in == "needed" and pair.camera is None:
                raise ImageRejected(lacks_camera(self.teacher))
            return read
        except (ImageRejected, SourceError, GroundTruthError, OSError) as error:
            self.failed.append(ImageFailure(pair.id, f"{pair.place}: {one_line(error)}"))
            return None
