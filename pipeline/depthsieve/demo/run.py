"""The demo: rendered scenes with exact depth, labels, their evaluation, a student, and a page that shows all of it.

Everything it makes is in one folder: ``scenes/`` and ``depth/`` (PNG, and metres as .npy), the store ``labels/``,
``index.html`` and ``contact-sheet.png``. Axes: H row, W column, S step of a sparsification curve.
"""

import dataclasses
import io
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from depthsieve.core.errors import RunError, UsageError
from depthsieve.core.progress import progress_bar, say, with_progress
from depthsieve.core.threads import torch_threads
from depthsieve.demo.page import Accuracy, DemoResult, SceneMaps, StudentScore, write_page
from depthsieve.demo.settings import HEIGHT, WIDTH, DemoSettings
from depthsieve.demo.student import Student, train_student
from depthsieve.evaluation.metrics import (
    Comparison,
    CurveMean,
    Sparsification,
    at_shape,
    ause_aurg,
    beats_chance,
    compare,
    depth_metrics,
    kept_errors,
    label_at_shape,
    pixel_errors,
)
from depthsieve.jobs.label import label
from depthsieve.report.sheet import contact_sheet, label_panels
from depthsieve.scenes import render_scene
from depthsieve.store import Store, open_store
from depthsieve.training import PseudoLabelDataset

DEPTH_RANGE = (0.0, 80.0)
"""Metres that are evaluated: neither sky nor what is farther away."""

DROP = 0.10
DROPS = (0.0, 0.05, 0.10, 0.20, 0.30, 0.40, 0.50)
CROP = 0.75
"""The share of a label's sides that the student sees at a time: a step takes half the time of one on whole images."""

SAMPLES = 6
THREADS, BATCH = 1, 4
"""Fixed, so that the numbers are the same on any number of cores. Models this small gain little from more threads, and
on a busy machine they lose much: each operation then waits for its slowest thread."""

MARKER = "demo.json"


@dataclass(frozen=True)
class _Score:
    """One scene's label against its exact depth."""

    id: str
    abs_rel: float
    delta1: float
    curve: Sparsification


def run_demo(out: Path, *, progress: bool = True, settings: DemoSettings | None = None) -> DemoResult:
    """Run the demo in the folder ``out``, or run it there again: existing scenes and labels are kept.

    ``progress`` reports on stderr. Raises :class:`UsageError` where ``out`` holds something else, or a demo of other
    scenes; nothing in it is ever deleted.
    """
    settings = settings or DemoSettings()
    start = time.perf_counter()
    _prepare(out, settings)
    say(f"1/5  Rendering {settings.scenes} scenes, whose exact depth is known", shown=progress)
    _render(out, settings, progress)
    say(f"2/5  Labelling them with the teacher {settings.teacher!r}", shown=progress)
    store = _label(out, settings, progress)
    say("3/5  Comparing the labels with the exact depth", shown=progress)
    scores = _evaluate(store, out, progress)
    say(
        f"4/5  Training a student on the labels, the least reliable {DROP:.0%} of their pixels left out", shown=progress
    )
    masked, student = _train(store, out, settings, scores, progress)
    say("5/5  Drawing", shown=progress)
    curve = _mean_curve(scores)
    ause, aurg = ause_aurg(curve)
    samples = _samples(scores)
    result = DemoResult(
        page=out / "index.html",
        sheet=out / "contact-sheet.png",
        store=out / "labels",
        reliability=store.reliability_from,
        settings=settings,
        drop=DROP,
        masked=masked,
        labels=_accuracy(scores),
        kept=kept_errors(curve, DROPS),
        ause=ause,
        aurg=aurg,
        better_than_chance=float(np.mean([beats_chance(score.curve) for score in scores])),
        student=student,
        samples=tuple(score.id for score in samples),
        seconds=time.perf_counter() - start,
    )
    contact_sheet(store, result.samples, result.sheet, DROP)
    panels = label_panels(store, result.samples, DROP)
    shown = [_maps(store, out, score) for score in samples]
    result = dataclasses.replace(result, seconds=time.perf_counter() - start)
    write_page(result, curve, list(zip(panels, shown, strict=True)))
    return result


def _prepare(out: Path, settings: DemoSettings) -> None:
    """Make sure that ``out`` is new, empty, or a demo of these scenes."""
    marker = out / MARKER
    body = {"made_by": "depthsieve demo", "scenes": settings.scenes, "seed": settings.seed}
    try:
        out.mkdir(parents=True, exist_ok=True)
        if marker.exists():
            found = _json(marker.read_bytes())
        elif any(out.iterdir()):
            raise UsageError(f"{out} holds files that are not a demo's; name an empty or a new folder")
        else:
            _write(marker, json.dumps(body).encode() + b"\n")
            found = body
    except FileExistsError as error:
        raise UsageError(f"{out} is a file; name a folder") from error
    except OSError as error:
        raise UsageError(f"{out} cannot be used ({error.strerror}); name another folder") from error
    if found != body:
        raise UsageError(f"{out} holds something else than a demo of these scenes (see {MARKER}); name a new folder")


def _json(data: bytes) -> Any:
    """What ``data`` says, or None if it is no JSON."""
    try:
        return json.loads(data)
    except ValueError:
        return None


def _render(out: Path, settings: DemoSettings, progress: bool) -> None:
    names = settings.names
    for number in with_progress(range(len(names)), "render", unit="scenes", shown=progress):
        image, depth = out / "scenes" / f"{names[number]}.png", out / "depth" / f"{names[number]}.npy"
        if image.exists() and depth.exists():
            continue
        for path in (image, depth):
            path.parent.mkdir(parents=True, exist_ok=True)
        scene = render_scene(settings.seed + number, HEIGHT, WIDTH)
        held, shown = io.BytesIO(), io.BytesIO()
        np.save(held, scene.depth_HW)
        Image.fromarray(scene.rgb_HW3).save(shown, "PNG")
        _write(depth, held.getvalue())
        _write(image, shown.getvalue())


def _write(path: Path, data: bytes) -> None:
    """Whole or not at all, so that a demo that was stopped can be resumed."""
    part = path.with_name(f".{path.name}.part")
    part.write_bytes(data)
    part.replace(path)


def _label(out: Path, settings: DemoSettings, progress: bool) -> Store:
    summary = label(
        out / "scenes",
        out / "labels",
        teacher=settings.teacher,
        name="scenes",
        runner="local",
        threads=THREADS,
        batch_size=BATCH,
        moved=True,  # the scenes are this folder's own, wherever it is now
        progress=progress,
    )
    problems = [*summary.errors, *(f"{failure.id}: {failure.reason}" for failure in summary.failed)]
    if problems:
        raise RunError(f"{len(problems)} problems while labelling the scenes; the first: {problems[0]}")
    return open_store(out / "labels")


def _evaluate(store: Store, out: Path, progress: bool) -> list[_Score]:
    """Every label that has exact depth to compare with, in the order of ids."""
    scores = []
    for image_id in with_progress(store.images, "evaluate", unit="labels", shown=progress):
        _, found = _compared(store, out, image_id)
        if found is not None:  # else there is nothing but sky
            metrics = found.metrics
            scores.append(_Score(image_id, metrics["abs_rel"], metrics["delta1"], found.curves["abs_rel"]))
    if not scores:
        raise RunError("no scene shows anything nearer than the sky; use another seed")
    return scores


def _compared(store: Store, out: Path, image_id: str) -> tuple[NDArray[np.float32], Comparison | None]:
    """The exact depth of a scene, and its label compared with it."""
    depth_HW, reliability_HW, truth_HW = _against_truth(store, out, image_id)
    quantity = store.spec.quantity
    return truth_HW, compare(depth_HW, reliability_HW, truth_HW, quantity, DEPTH_RANGE, metrics=("abs_rel",))


def _against_truth(
    store: Store, out: Path, image_id: str
) -> tuple[NDArray[np.float32], NDArray[np.uint8], NDArray[np.float32]]:
    """Depth and reliability of a label at the resolution of the exact depth, and that."""
    held, truth_HW = store.label(image_id), _truth(out, image_id)
    height, width = truth_HW.shape
    return *label_at_shape(held.depth, held.reliability, (height, width)), truth_HW


def _truth(out: Path, image_id: str) -> NDArray[np.float32]:
    name = image_id.removeprefix("scenes/").removesuffix(".png")
    return np.asarray(np.load(out / "depth" / f"{name}.npy", allow_pickle=False), dtype=np.float32)


def _train(
    store: Store, out: Path, settings: DemoSettings, scores: Sequence[_Score], progress: bool
) -> tuple[float, StudentScore]:
    """Train on the training scenes, measure on the held-out ones; and the share of pixels that were masked."""
    learnt = [image_id for image_id in store.images if image_id.startswith("scenes/train/")]
    height, width = store[0].depth.shape
    crop = (int(height * CROP), int(width * CROP))
    dataset = PseudoLabelDataset(store, subset=learnt, drop=DROP, crop=crop, flip=True)
    with progress_bar("train", total=settings.steps, unit="steps", shown=progress, leave=True) as bar:

        def advance(loss: float) -> None:
            bar.update()
            bar.set_postfix(loss=f"{loss:.3f}", refresh=False)

        with torch_threads(THREADS):
            training = train_student(dataset, settings.steps, drop=DROP, advance=advance)
    held_out = [score for score in scores if score.id.startswith("scenes/held-out/")]
    if not held_out:
        raise RunError("no scene that was held out shows anything nearer than the sky; use another seed")
    few = min(10, settings.steps)
    score = StudentScore(
        loss_start=float(np.mean(training.losses[:few])),
        loss_end=float(np.mean(training.losses[-few:])),
        constant=_measured(lambda sample: np.ones((8, 8), np.float32), store, out, held_out),
        student=_measured(lambda sample: _predicted(training.student, sample), store, out, held_out),
        teacher=_accuracy(held_out),
    )
    return dataset.masked_share(), score


def _predicted(student: Student, image_CHW: torch.Tensor) -> NDArray[np.float32]:
    with torch.inference_mode():
        return np.asarray(student(image_CHW[None])[0].numpy(), dtype=np.float32)


def _measured(
    predict: Callable[[torch.Tensor], NDArray[np.float32]], store: Store, out: Path, held_out: Sequence[_Score]
) -> Accuracy:
    """What ``predict`` makes of the held-out images (disparity), against exact depth where the labels were compared."""
    rows = []
    for sample in PseudoLabelDataset(store, subset=[score.id for score in held_out], drop=0.0):
        _, reliability_HW, truth_HW = _against_truth(store, out, sample["id"])
        prediction_HW = at_shape(predict(sample["image"]), (truth_HW.shape[0], truth_HW.shape[1]))
        metrics = depth_metrics(prediction_HW, truth_HW, reliability_HW > 0, "disparity", DEPTH_RANGE)
        rows.append((metrics["abs_rel"], metrics["delta1"]))
    return _summary(rows)


def _accuracy(scores: Sequence[_Score]) -> Accuracy:
    return _summary([(score.abs_rel, score.delta1) for score in scores])


def _summary(rows: Sequence[tuple[float, float]]) -> Accuracy:
    abs_rel, delta1 = np.array(rows).T
    return Accuracy(len(rows), float(abs_rel.mean()), float(np.median(abs_rel)), float(delta1.mean()))


def _mean_curve(scores: Sequence[_Score]) -> Sparsification:
    curves = CurveMean()
    for score in scores:
        curves.add(score.curve)
    return curves.mean()


def _samples(scores: Sequence[_Score]) -> list[_Score]:
    """Scenes at even distances from the best label to the worst: no choosing of pretty ones."""
    ranked = sorted(scores, key=lambda score: (score.abs_rel, score.id))
    count = min(SAMPLES, len(ranked))
    return [ranked[int((place + 0.5) * len(ranked) / count)] for place in range(count)]


def _maps(store: Store, out: Path, score: _Score) -> SceneMaps:
    truth_HW, found = _compared(store, out, score.id)
    assert found is not None  # it has a score
    error_HW = np.where(found.mask_HW, pixel_errors(found.predicted_HW, truth_HW, "abs_rel"), np.nan)
    return SceneMaps(score.abs_rel, truth_HW, found.predicted_HW, error_HW)
