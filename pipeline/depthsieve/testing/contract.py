"""The rules that a teacher must keep, each tried on pictures, and what to do where one is broken.

Axes: B images of a batch, H and W the shape of a picture or of the teacher's input; 3 colours.
"""

import json
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray

from depthsieve.core.errors import DepthsieveError, ImageRejected, UsageError, one_line
from depthsieve.core.records import Dtype, Shape, TeacherRequest, canonical_json
from depthsieve.labelling.predicting import check_prediction, check_prepared, check_shape
from depthsieve.reliability.alignment import align_robust, apply_scale_shift
from depthsieve.reliability.fusion import relative_error
from depthsieve.scenes import render_scene
from depthsieve.teachers import (
    Batch,
    Prediction,
    Teacher,
    centred_intrinsics,
    check_contract,
    load_made,
    load_requested,
)

Picture = NDArray[np.uint8]

TOLERANCE = 1e-3
"""How far a result may move where nothing of the image has changed, as a share of the map's range."""

PICTURES = (("home", 1, (120, 160)), ("home", 2, (160, 120)), ("foreign", 3, (120, 160)))
"""Family, seed and shape of the scenes that a teacher is tried on: two of one shape, and one portrait."""

ODD_SIZES = ((1, 1), (4, 40), (40, 4), (9, 7))
"""Height and width of pictures that a teacher must either label or refuse in words."""

AGAINST = -0.3
"""Confidence that orders pixels by their true error with a rank correlation below this has its direction reversed. A
network with random weights is far from it."""


@dataclass(frozen=True, slots=True)
class BrokenRule:
    """A rule that a teacher breaks: its name (one of :data:`RULES`), what was found, and what to do."""

    rule: str
    found: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.rule}: {self.found}; {self.remedy}"

    __repr__ = __str__


@dataclass(frozen=True)
class _Trial:
    """A loaded teacher, the pictures, and what it makes of them: their inputs by label shape."""

    teacher: Teacher
    pictures: Sequence[Picture]
    tolerance: float
    again: Callable[[], Teacher] | None

    def batch(self, pictures: Sequence[Picture], shape: Shape) -> Batch:
        """Pictures of one label shape, seen by a camera of 60 degrees or so."""
        image = torch.from_numpy(np.stack([self.teacher.prepare(picture.copy(), shape) for picture in pictures]))
        cameras = [_camera(picture, shape) for picture in pictures]
        device = self.teacher.device
        return Batch(image.to(device), torch.from_numpy(np.stack(cameras)).to(device))

    def groups(self) -> Iterator[tuple[Shape, list[Picture]]]:
        """The pictures by their label shape, in their order."""
        found: dict[Shape, list[Picture]] = {}
        for picture in self.pictures:
            found.setdefault(self.teacher.label_shape(*picture.shape[:2]), []).append(picture)
        yield from found.items()

    def batches(self) -> Iterator[Batch]:
        """A batch of each label shape."""
        for shape, pictures in self.groups():
            yield self.batch(pictures, shape)

    def predict(self, batch: Batch) -> Prediction:
        """What the teacher says of a batch."""
        return self.teacher.predict(batch)


def _camera(picture: Picture, shape: Shape) -> NDArray[np.float32]:
    height, width = picture.shape[:2]
    return centred_intrinsics(0.9 * max(height, width), (height, width), shape)


Found = Iterator[tuple[str, str]]
"""What a rule finds wrong, and what to do about it."""


def _digest(trial: _Trial) -> Found:
    if trial.again is None:
        return
    other = trial.again()
    for name in ("weights_digest", "preprocessing", "quantity", "unit", "dtype"):
        ours, theirs = (canonical_json(getattr(one, name)) for one in (trial.teacher, other))
        if ours != theirs:
            yield (
                f"{name} is {theirs[:80]} when it is loaded again, and was {ours[:80]}",
                ("make it of the weights' and the code's content alone: depthsieve.teachers.digest_of_files"),
            )
    text = canonical_json(trial.teacher.preprocessing)
    if canonical_json(json.loads(text)) != text:
        yield "preprocessing changes when it is read back from JSON", "use lists, strings, numbers and booleans only"


def _label_shape(trial: _Trial) -> Found:
    for picture in trial.pictures:
        height, width = picture.shape[:2]
        shape = check_shape("label_shape", trial.teacher.label_shape(height, width))
        if shape != trial.teacher.label_shape(height, width):
            yield "it changes when it is asked for again", "let it depend on height and width alone"
        if (height > width and shape[0] < shape[1]) or (height < width and shape[0] > shape[1]):
            what = f"a picture of {height}x{width} (height x width) has the label shape {shape[0]}x{shape[1]}"
            yield what, "it takes and returns height first"


def _input(trial: _Trial) -> Found:
    for picture in trial.pictures:
        shape = trial.teacher.label_shape(*picture.shape[:2])
        given = picture.copy()
        prepared = trial.teacher.prepare(given, shape)
        check_prepared(prepared, shape)
        if not np.isfinite(prepared).all():
            yield "prepare returns numbers that are not finite", "return finite ones"
        if not np.array_equal(given, picture):
            yield "prepare changes the picture that it is given", "work on a copy"
        if not np.array_equal(prepared, trial.teacher.prepare(picture.copy(), shape)):
            yield "prepare returns something else for the same picture", "draw nothing at random"


def _prediction(trial: _Trial) -> Found:
    for batch in trial.batches():
        before = batch.image.clone()
        found = trial.predict(batch)
        check_prediction(trial.teacher, batch, found)
        if not torch.equal(before, batch.image):
            yield "predict changes its input", "work on a copy"
        if found.depth.requires_grad:
            yield "its depth carries a graph of gradients", "decorate predict with @torch.inference_mode()"


def _depth(trial: _Trial) -> Found:
    for batch in trial.batches():
        found = trial.predict(batch)
        for place, depth_HW in enumerate(found.depth):
            known = depth_HW[_labelled(found, place)]
            if not len(known):
                yield "it labels no pixel of an ordinary picture", "valid is True where there is a label"
            elif not torch.isfinite(known).all():
                yield "depth is not finite where valid does not say so", "return valid=torch.isfinite(depth)"
            elif known.min() < 0:
                yield (
                    f"depth goes down to {float(known.min()):g}",
                    ("return 0 or more, and the inverse of depth as disparity"),
                )
            elif known.max() > MOST:
                yield f"depth goes up to {float(known.max()):g}", f"float16 holds {MOST:g}: scale it, or mask it"
            elif known.min() == known.max():
                yield f"depth is {float(known.min()):g} at every pixel", "return what the model predicts"


MOST = float(torch.finfo(torch.float16).max)


def _labelled(found: Prediction, place: int) -> torch.Tensor:
    mask_HW = torch.ones_like(found.depth[place], dtype=torch.bool)
    for mask_BHW, wanted in ((found.valid, True), (found.sky, False)):
        if mask_BHW is not None:
            mask_HW &= mask_BHW[place] == wanted
    return mask_HW


def _confidence(trial: _Trial) -> Found:
    if trial.teacher.confidence_better is None:
        return
    if not trial.teacher.confidence_meaning:
        yield "confidence_meaning is empty", "say in words what the confidence is, and what it was trained for"
    for batch in trial.batches():
        found = trial.predict(batch)
        assert found.confidence is not None  # the rule before says so
        for place, confidence_HW in enumerate(found.confidence):
            if not (confidence_HW[_labelled(found, place)] >= 0).all():
                yield (
                    "confidence is negative or NaN where there is a label",
                    "return 0 or more, such as its exponential",
                )


def _direction(trial: _Trial) -> Found:
    teacher = trial.teacher
    if teacher.confidence_better is None:
        return
    ranks = []
    for family, seed, size in PICTURES:
        scene = render_scene(seed, *size, family=family)
        shape = teacher.label_shape(*size)
        found = trial.predict(trial.batch([scene.rgb_HW3], shape))
        assert found.confidence is not None
        truth_1HW = torch.from_numpy(scene.disparity_HW)[None, None]
        truth_1HW = torch.nn.functional.interpolate(truth_1HW, size=shape, mode="bilinear")[0]
        mask_1HW = _labelled(found, 0)[None].cpu() & (truth_1HW > 0)
        depth_1HW = found.depth.cpu()
        disparity_1HW = depth_1HW if teacher.quantity == "disparity" else 1 / depth_1HW.clamp(min=1e-3)
        disparity_1HW = torch.where(mask_1HW, disparity_1HW, torch.nan)
        fitted_1HW = apply_scale_shift(disparity_1HW, *align_robust(disparity_1HW, truth_1HW))
        error_P = relative_error(truth_1HW, fitted_1HW - truth_1HW)[mask_1HW]
        sure_P = found.confidence.cpu()[mask_1HW] * (1 if teacher.confidence_better == "higher" else -1)
        known_P = torch.isfinite(error_P) & torch.isfinite(sure_P)
        if int(known_P.sum()) > 100 and sure_P[known_P].min() < sure_P[known_P].max():
            ranks.append(_rank_correlation(-sure_P[known_P], error_P[known_P]))
    if ranks and max(ranks) < AGAINST:
        other = "lower" if teacher.confidence_better == "higher" else "higher"
        yield (
            f"on rendered scenes the confident pixels are the wrong ones (rank correlation {max(ranks):.2f})",
            (f"is confidence_better {other!r}?"),
        )


def _rank_correlation(one_P: torch.Tensor, other_P: torch.Tensor) -> float:
    ranks = torch.stack([each.argsort().argsort().double() for each in (one_P, other_P)])
    return float(torch.corrcoef(ranks)[0, 1])


def _deterministic(trial: _Trial) -> Found:
    for batch in trial.batches():
        first, second = trial.predict(batch), trial.predict(batch)
        if not _same(first, second, 0.0):
            yield "the same batch gives another result the second time", "put the model into eval(), draw nothing"


def _batch(trial: _Trial) -> Found:
    for shape, pictures in trial.groups():
        both = [pictures[0], 255 - pictures[0][::-1], *pictures[1:]]
        together = trial.predict(trial.batch(both, shape))
        for place, picture in enumerate(both):
            alone = trial.predict(trial.batch([picture], shape))
            if not _same(alone, _row(together, place), trial.tolerance):
                yield (
                    "an image's result depends on what else is in its batch",
                    ("normalise each image by itself, or predict one by one"),
                )
                return


def _threads(trial: _Trial) -> Found:
    batches = [trial.batch([picture], shape) for shape, pictures in trial.groups() for picture in pictures]
    alone = [trial.predict(batch) for batch in batches]
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(trial.predict, batches * 2))
    if not all(_same(one, other, trial.tolerance) for one, other in zip(alone * 2, found, strict=True)):
        yield "results change when several threads predict at once", "keep nothing of a batch in the teacher"


def _half(trial: _Trial) -> Found:
    for shape, pictures in trial.groups():
        half = trial.teacher.half_shape(shape)
        if half is None:
            return
        half = check_shape("half_shape", half)
        if not all(0.3 <= part / whole <= 0.8 for part, whole in zip(half, shape, strict=True)):
            yield f"half of {shape[0]}x{shape[1]} is {half[0]}x{half[1]}", "about half of both sides, or None"
        whole = trial.batch(pictures[:1], shape)
        small = whole.seen_as(torch.nn.functional.interpolate(whole.image, size=half, mode="bilinear"))
        check_prediction(trial.teacher, small, trial.predict(small))


def _odd_sizes(trial: _Trial) -> Found:
    for height, width in ODD_SIZES:
        picture = np.full((height, width, 3), 90, np.uint8)
        picture[: height // 2 + 1, : width // 2 + 1] = 160
        try:
            shape = check_shape("label_shape", trial.teacher.label_shape(height, width))
            batch = trial.batch([picture], shape)
        except ImageRejected as error:
            if "\n" in str(error) or not str(error):
                yield f"a picture of {height}x{width} is refused without a line", "say in one line why"
            continue
        check_prediction(trial.teacher, batch, trial.predict(batch))


def _cameras(trial: _Trial) -> Found:
    use = trial.teacher.intrinsics_in
    for batch in trial.batches():
        unknown = Batch.of(batch.image)
        longer = replace(batch, intrinsics=batch.intrinsics * batch.intrinsics.new_tensor([2, 2, 1, 1]))
        known, far = trial.predict(batch), trial.predict(longer)
        if use == "ignored" and not _same(known, far, 0.0):
            yield "its result depends on the focal length", "say intrinsics_in = 'used', or 'needed'"
        if use != "ignored" and _same(known, far, 0.0):
            yield "its result is the same for twice the focal length", "say intrinsics_in = 'ignored'"
        if use != "needed" and not all(
            torch.isfinite(found.depth[0][_labelled(found, 0)]).all() for found in (trial.predict(unknown),)
        ):
            yield "depth is not finite without a focal length", "say intrinsics_in = 'needed'"
        seen = known.intrinsics
        if seen is not None and not (torch.isnan(seen).all(1) | (seen[:, :2] > 0).all(1)).all():
            yield "intrinsics it returns have no focal length over 0", "return fx, fy, cx, cy in pixels, or NaN"


def _embedding(trial: _Trial) -> Found:
    if trial.teacher.embedding_size is None:
        return
    if not trial.teacher.embedding_method:
        yield "embedding_method is empty", "say in words how embeddings are made: those of two methods do not compare"
    for batch in trial.batches():
        embedding_BD = trial.predict(batch).embedding
        assert embedding_BD is not None  # an earlier rule says so
        if not torch.allclose(embedding_BD.norm(dim=1), torch.ones_like(embedding_BD[:, 0]), atol=1e-2):
            yield "its embeddings do not have norm 1", "return torch.nn.functional.normalize(embedding)"


RULES: dict[str, Callable[[_Trial], Found]] = {
    "digest": _digest,
    "label shape": _label_shape,
    "input": _input,
    "prediction": _prediction,
    "depth": _depth,
    "confidence": _confidence,
    "direction": _direction,
    "determinism": _deterministic,
    "batch": _batch,
    "threads": _threads,
    "half size": _half,
    "odd sizes": _odd_sizes,
    "cameras": _cameras,
    "embedding": _embedding,
}
"""The rules by name, in the order in which they are tried."""

GROUND = ("label shape", "input", "prediction")
"""What all later rules stand on: where one of these is broken, they are not tried."""


def check_teacher(
    teacher: str | Teacher | Callable[[TeacherRequest], Teacher],
    *,
    pictures: Sequence[Picture] | None = None,
    device: str = "cpu",
    dtype: Dtype = "float32",
    size: int | None = None,
    tolerance: float = TOLERANCE,
) -> list[BrokenRule]:
    """The rules of the contract that a teacher breaks, in a line each; none where it keeps them.

    Args:
        teacher: a name as ``--teacher`` takes it, the function that makes the teacher, or a loaded one (which cannot
            be loaded again, so that nothing is said of its digest).
        pictures: what to try it on, uint8 [H,W,3] each. None: three rendered scenes, one of them portrait.
        device: where it works.
        dtype: what it computes in.
        size: the short side it works at, for teachers that have a choice.
        tolerance: how far a result may move with the batch or with threads, as a share of the map's range.

    Raises:
        UsageError: pictures that are none, or an invalid option.
    """
    if pictures is None:
        pictures = [render_scene(seed, *shape, family=family).rgb_HW3 for family, seed, shape in PICTURES]
    for picture in pictures:
        if not isinstance(picture, np.ndarray) or picture.dtype != np.uint8 or picture.shape[2:] != (3,):
            raise UsageError("pictures must be uint8 arrays [H,W,3]")
    if not len(pictures):
        raise UsageError("pictures must hold one at least")
    request = TeacherRequest(teacher if isinstance(teacher, str) else "teacher", size=size, device=device, dtype=dtype)

    def load() -> Teacher:
        if isinstance(teacher, str):
            return load_requested(request)
        return load_made(cast(Callable[[TeacherRequest], Teacher], teacher), request)

    loaded = not isinstance(teacher, str) and hasattr(teacher, "predict") and not isinstance(teacher, type)
    try:
        first = check_contract(teacher) if loaded else load()
    except DepthsieveError as error:
        return [BrokenRule("loading", one_line(error), "its factory takes a TeacherRequest and returns a Teacher")]
    trial = _Trial(first, pictures, tolerance, None if loaded else load)
    broken: list[BrokenRule] = []
    for name, rule in RULES.items():
        broken += _tried(name, rule, trial)
        if name in GROUND and any(one.rule == name for one in broken):
            break
    return broken


def _tried(name: str, rule: Callable[[_Trial], Found], trial: _Trial) -> list[BrokenRule]:
    """What one rule finds, a line for each thing to do; an error that nobody expects is a line too."""
    found: dict[str, str] = {}
    try:
        for what, remedy in rule(trial):
            found.setdefault(remedy, what)
    except TypeError as error:  # what the checks of labelling raise, and what types do
        found["see depthsieve.teachers.Teacher for what is wanted"] = one_line(error)
    except Exception as error:  # it is not our code, and can fail in any way
        found["it must not raise for a picture that can be labelled"] = f"{type(error).__name__}: {one_line(error)}"
    return [BrokenRule(name, what, remedy) for remedy, what in found.items()]


def _row(found: Prediction, place: int) -> Prediction:
    maps: dict[str, Any] = {name: getattr(found, name) for name in Prediction.__dataclass_fields__}
    return Prediction(**{name: map_[place : place + 1] for name, map_ in maps.items() if map_ is not None})


def _same(one: Prediction, other: Prediction, tolerance: float) -> bool:
    """Whether two predictions agree to a share of each map's range; masks at all but so many pixels."""
    for name in Prediction.__dataclass_fields__:
        ours, theirs = getattr(one, name), getattr(other, name)
        if (ours is None) != (theirs is None):
            return False
        if ours is None:
            continue
        if ours.dtype == torch.bool:
            if float((ours != theirs).float().mean()) > tolerance:
                return False
            continue
        known = torch.isfinite(ours) & torch.isfinite(theirs)
        if float((torch.isfinite(ours) != torch.isfinite(theirs)).float().mean()) > tolerance:
            return False
        if known.any():
            reach = float(ours[known].max() - ours[known].min()) or float(ours[known].abs().max())
            if float((ours[known] - theirs[known]).abs().max()) > tolerance * reach:
                return False
    return True
