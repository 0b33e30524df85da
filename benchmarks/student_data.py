"""Scenes, labels and exact depth for `student.py`. Array legend: N images; H, W pixels; 3 colour channels."""

import functools
import io
import json
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from tqdm import tqdm

import depthsieve
from depthsieve.core.errors import RunError, UsageError
from depthsieve.demo.student import normalised
from depthsieve.evaluation.metrics import depth_metrics, pixel_errors, predicted_depth, truth_mask
from depthsieve.planning.options import DEFAULT_SIGNALS
from depthsieve.scenes import Scene, render_scene

HEIGHT, WIDTH = 126, 168
"""Of scenes: also the label shape of `tiny-v1`, so that labels and exact depth meet pixel by pixel."""

FIRST_SEEDS = {"train": 10_000_000, "held-out": 20_000_000}
TRIES = 16
LEAST_SHARE = 0.1
"""Scenes that show less than this share of pixels within the depth range (that is, nearly nothing but sky) are passed
over."""


@dataclass(frozen=True)
class Setup:
    """What decides scenes and labels. ``signals`` as in :func:`depthsieve.label`, where "" is its default: an error
    network where one ships for the teacher. ``shape`` is that of scenes, and must be that of the teacher's labels."""

    scenes: int
    held_out: int
    signals: str
    teacher: str = "tiny-v1"
    family: str = "foreign"
    farthest_m: float = 80.0
    shape: tuple[int, int] = (HEIGHT, WIDTH)

    @classmethod
    def make(cls, scenes: int, held_out: int, signals: str | None) -> "Setup":
        return cls(scenes, held_out, signals or DEFAULT_SIGNALS)

    @property
    def depth_range(self) -> tuple[float, float]:
        return 0.0, self.farthest_m

    def count(self, part: str) -> int:
        return self.scenes if part == "train" else self.held_out


def prepare(work: Path, setup: Setup) -> None:
    """Render and label what is not there yet. Raises UsageError for a folder that holds other scenes or labels."""
    marker, body = work / "setup.json", json.dumps(asdict(setup))
    work.mkdir(parents=True, exist_ok=True)
    if marker.exists():
        if marker.read_text() != body:
            raise UsageError(
                f"{work} holds another experiment than {body} (see {marker.name}); name a new folder with --work"
            )
    elif any(work.iterdir()):
        raise UsageError(f"{work} holds files of something else; name a new folder with --work")
    marker.write_text(body)
    for part in FIRST_SEEDS:
        _render(work, setup, part)
    summary = depthsieve.label(
        work / "images",
        work / "labels",
        teacher=setup.teacher,
        signals=setup.signals or None,
        name="scenes",
        runner="local",
        threads=1,
        batch_size=4,
        moved=True,  # the scenes are this folder's own, wherever it now lies
    )
    problems = [*summary.errors, *(f"{failure.id}: {failure.reason}" for failure in summary.failed)]
    if problems:
        raise RunError(f"{len(problems)} problems while labelling the scenes; the first: {problems[0]}")


def _render(work: Path, setup: Setup, part: str) -> None:
    for folder in ("images", "exact"):
        (work / folder / part).mkdir(parents=True, exist_ok=True)
    for number in tqdm(range(setup.count(part)), desc=f"render {part}", unit=" scenes"):
        image, exact = work / "images" / part / f"{number:05}.png", work / "exact" / part / f"{number:05}.npy"
        if image.exists() and exact.exists():
            continue
        scene = _scene(setup, FIRST_SEEDS[part] + number * TRIES)
        shown, held = io.BytesIO(), io.BytesIO()
        Image.fromarray(scene.rgb_HW3).save(shown, "PNG")
        np.save(held, scene.disparity_HW)
        for path, data in ((exact, held), (image, shown)):
            scratch = path.with_name(f".{path.name}")
            scratch.write_bytes(data.getvalue())
            scratch.replace(path)


def _scene(setup: Setup, first_seed: int) -> Scene:
    for seed in range(first_seed, first_seed + TRIES):
        scene = render_scene(seed, *setup.shape, family=setup.family)
        if truth_mask(scene.depth_HW, None, setup.depth_range).mean() >= LEAST_SHARE:
            return scene
    raise RunError(f"the scenes of seeds {first_seed} to {seed} show nothing but sky")


@dataclass(frozen=True, eq=False)
class Scenes:
    """Part of the experiment, in memory: images, labels (disparity) and exact disparity, in the order of ids."""

    setup: Setup
    store: Path
    ids: tuple[str, ...]
    image_N3HW: torch.Tensor
    label_NHW: torch.Tensor
    exact_NHW: torch.Tensor

    @property
    def depth_NHW(self) -> NDArray[np.float32]:  # noqa: N802 - axis suffix
        """Exact z-depth in metres, infinite for sky."""
        with np.errstate(divide="ignore"):
            depth_NHW: NDArray[np.float32] = np.float32(1) / self.exact_NHW.numpy()
        return depth_NHW

    @functools.cache  # noqa: B019 - a process holds two of these to its end
    def mask(self, drop: float) -> torch.Tensor:
        """[N,H,W] bool: where the loader would train, with that share of each image's pixels dropped."""
        dataset = depthsieve.PseudoLabelDataset(self.store, images=False, subset=self.ids, drop=drop, scope="image")
        assert dataset.ids == list(self.ids)
        return torch.stack([sample["mask"] for sample in dataset])

    def label_error(self, image: int) -> NDArray[np.float64]:
        """[H,W] AbsRel of a label, aligned to the exact disparity within the depth range; sky counts as its end."""
        depth_HW = self.depth_NHW[image]
        counted_HW = truth_mask(depth_HW, None, self.setup.depth_range)
        label_HW = self.label_NHW[image].numpy()
        predicted_HW = predicted_depth(label_HW, depth_HW, counted_HW, "disparity", self.setup.depth_range)
        return pixel_errors(predicted_HW, np.minimum(depth_HW, self.setup.farthest_m), "abs_rel")

    def loss_error(self, image: int) -> NDArray[np.float64]:
        """[H,W] how far a label is from the exact disparity as the student's L1 loss has it, both normalised."""
        everywhere_1HW = torch.ones_like(self.label_NHW[image, None], dtype=torch.bool)
        label_1HW, exact_1HW = (
            normalised(maps_NHW[image, None], everywhere_1HW) for maps_NHW in (self.label_NHW, self.exact_NHW)
        )
        return (label_1HW - exact_1HW).abs()[0].double().numpy()

    def measured(self, maps_NHW: NDArray[np.float32]) -> tuple[float, float]:
        """AbsRel and delta1 of disparity maps against exact depth, means over images."""
        pairs = zip(maps_NHW, self.depth_NHW, strict=True)
        found = [depth_metrics(m, d, None, "disparity", self.setup.depth_range) for m, d in pairs]
        return float(np.mean([f["abs_rel"] for f in found])), float(np.mean([f["delta1"] for f in found]))


def load_scenes(work: Path, setup: Setup, part: str) -> Scenes:
    """Images and labels through the product's own loader, which decodes each image once."""
    ids = tuple(f"scenes/{part}/{number:05}.png" for number in range(setup.count(part)))
    store = work / "labels"
    dataset = depthsieve.PseudoLabelDataset(store, images=work / "images", subset=ids, drop=0.0)
    assert dataset.ids == list(ids)
    samples = list(dataset)
    exact_N = [np.load(work / "exact" / part / f"{number:05}.npy", allow_pickle=False) for number in range(len(ids))]
    return Scenes(
        setup,
        store,
        ids,
        torch.stack([(sample["image"] * 255).round().to(torch.uint8) for sample in samples]),
        torch.stack([sample["depth"] for sample in samples]),
        torch.from_numpy(np.stack(exact_N)),
    )
