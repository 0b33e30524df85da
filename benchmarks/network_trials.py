"""What would make the error network of `tiny` better: what the teacher's decoder knows, width, more scenes, several?

    python benchmarks/network_trials.py --work runs/trials --pairs ../rgbd --pairs ../rgbd/more

Each trial is trained as `depthsieve calibrate` trains, on the same scenes, and is judged on scenes of the family
`foreign` and on photos with measured depth, in the two halves of `error_network.py`: AUSE of the first error and of
AbsRel, next to the fused flip. "features": maps of the teacher's decoder at 1/4, 1/8 and 1/16 of the label are added
to the network's own at those levels. "wide": twice the channels. "longer": twice the scenes and steps. "together": the
mean logarithm of those that differ by their seed, which is as good as a network distilled from them could get.
What is there in the work folder is not made again.

Array legend: B images; C channels; H, W pixels; 2 both errors, 3 those and the sky, or red, green, blue.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
from error_network import FEWEST, pairs_in
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.functional import interpolate
from tqdm import tqdm

from depthsieve.jobs.calibrate import training
from depthsieve.jobs.calibrate.examples import ASPECTS, Example, batch_of_one, example, family_of, scene_example
from depthsieve.jobs.calibrate.judging import score
from depthsieve.jobs.calibrate.run import HELD_BACK
from depthsieve.jobs.calibrate.settings import FIRST_SEED
from depthsieve.labelling.batch import LabelWork, predict_labels
from depthsieve.reliability import network as networks
from depthsieve.reliability.fusion import calibration_for, fuse
from depthsieve.scenes import render_scene
from depthsieve.teachers import Teacher, load_teacher

TAPS = {1: 32, 2: 48, 3: 64}
"""Channels of the decoder's maps, by the network's level: 1 is at 1/4 of the label's sides."""

UNIT = 16
"""Parts of labels begin at multiples of this, so that all maps fit."""

CHANNELS = networks.CHANNELS
Maps = dict[int, Tensor]


@dataclass(frozen=True)
class Trial:
    """One way to make a network."""

    name: str
    seed: int = 0
    channels: tuple[int, ...] = CHANNELS
    features: bool = False
    more: int = 1


TRIALS = (
    Trial("as it ships, seed 0"),
    Trial("features", features=True),
    Trial("as it ships, seed 1", seed=1),
    Trial("longer", more=2),
    Trial("wide", channels=tuple(2 * size for size in CHANNELS)),
    Trial("as it ships, seed 2", seed=2),
)


class Watched:
    """The teacher, and what its decoder made of the last photo."""

    def __init__(self) -> None:
        self.teacher: Teacher = load_teacher("tiny", device="cpu")
        self.maps: Maps = {}
        decoder = self.teacher._model.decoder  # type: ignore[attr-defined]
        for level in TAPS:
            decoder.refine[level].register_forward_hook(
                lambda _module, _seen, made_BChw, level=level: self.maps.__setitem__(level, made_BChw.detach())
            )


class TrialNetwork(networks.ErrorNetwork):
    """The error network, of any width, that may see the decoder's maps."""

    def __init__(self, trial: Trial) -> None:
        with mock.patch.object(networks, "CHANNELS", trial.channels):
            super().__init__("disparity")
        self.from_teacher = nn.ModuleDict()
        for level, channels in TAPS.items() if trial.features else ():
            self.from_teacher[str(level)] = nn.Conv2d(channels, trial.channels[level], 1)
        self.seen: Maps = {}

    def forward(self, inputs_BCHW: Tensor) -> Tensor:
        at_BChw, kept = inputs_BCHW.contiguous(memory_format=torch.channels_last), []
        for level, block in enumerate(self.down):
            at_BChw = block(at_BChw)
            if str(level) in self.from_teacher:
                at_BChw = at_BChw + self.from_teacher[str(level)](self.seen[level])
            kept.append(at_BChw)
        kept.pop()
        for block in self.up:
            larger_BChw = interpolate(at_BChw, scale_factor=2, mode="bilinear", align_corners=False)
            at_BChw = block(torch.cat((larger_BChw, kept.pop()), 1))
        out_B3HW = self.head(at_BChw)
        log_B2HW = out_B3HW[:, : networks.SKY].clamp(networks.LEAST_LOG, networks.MOST_LOG)
        return torch.cat((log_B2HW, out_B3HW[:, networks.SKY :]), 1)


def keep(watched: Watched, number: int, path: Path) -> None:
    """Label a scene, and write a part of it, with the decoder's maps of that part."""
    seen = scene_example(watched.teacher, FIRST_SEED + number, family_of(number), number)
    sides, dice = seen.depth_HW.shape, np.random.default_rng(number)
    limits = training.CROP if sides[1] >= sides[0] else training.CROP[::-1]
    size = [min(side, limit) for side, limit in zip(sides, limits, strict=True)]
    start = [UNIT * int(dice.integers((side - part) // UNIT + 1)) for side, part in zip(sides, size, strict=True)]
    with mock.patch.object(training, "CROP", (1 << 20, 1 << 20)):  # whole, for it is cut here
        record_HW = training.stored(seen, "disparity", number)
    arrays: dict[str, Any] = {"record": cut(record_HW, start, size, 1)}
    for level, made_1Chw in watched.maps.items():
        made_hwC = made_1Chw[0].permute(1, 2, 0).half().numpy()
        arrays[f"maps{level}"] = cut(made_hwC, start, size, 2 ** (level + 1))
    scratch = path.with_name(".part.npz")
    np.savez(scratch, **arrays)
    scratch.replace(path)


def cut(map_HW: NDArray[Any], start: Sequence[int], size: Sequence[int], by: int) -> NDArray[Any]:
    """A part of a map whose sides are so many times smaller than the label's."""
    rows, columns = (slice(first // by, (first + side) // by) for first, side in zip(start, size, strict=True))
    return map_HW[rows, columns]


def read(folder: Path, number: int, mirrored: bool = False) -> tuple[NDArray[np.void], dict[int, NDArray[np.float32]]]:
    with np.load(folder / f"{number:05}.npz") as file:
        arrays = {name: file[name][:, ::-1] if mirrored else file[name] for name in file.files}
    maps = {level: arrays[f"maps{level}"].astype(np.float32).transpose(2, 0, 1) for level in TAPS}
    return arrays["record"], maps


def train(trial: Trial, folder: Path, sizes: Mapping[int, float], scenes: int, steps: int) -> TrialNetwork:
    """A network that was trained on labels in ``folder``; one in `HELD_BACK` gives its blend."""
    torch.manual_seed(trial.seed)
    network = TrialNetwork(trial)
    numbers = range(scenes * trial.more)
    held_back = numbers[HELD_BACK // 2 :: HELD_BACK]
    learnt = [number for number in numbers if number not in held_back]
    upright = [number for number in learnt if ASPECTS[number % len(ASPECTS)][0] > ASPECTS[number % len(ASPECTS)][1]]
    groups = (upright, sorted({*learnt} - {*upright}))
    network.train().requires_grad_(True)
    optimizer = torch.optim.AdamW(
        network.parameters(), lr=training.RATE, betas=training.BETAS, weight_decay=training.DECAY
    )
    count = steps * trial.more
    for step in tqdm(range(count), desc=trial.name, unit=" steps"):
        for settings in optimizer.param_groups:
            settings["lr"] = training.rate_at(step, count)
        dice = np.random.default_rng((trial.seed, step))
        group = groups[int(dice.choice(2, p=np.array([len(one) for one in groups]) / len(learnt)))]
        drawn = [read(folder, group[place], dice.random() < 0.5) for place in dice.integers(len(group), size=16)]
        inputs_BCHW, error_B2HW = training.batch_of([record for record, _ in drawn], None)
        change_colours(inputs_BCHW, dice)
        network.seen = {
            level: torch.from_numpy(np.stack([maps[level] for _, maps in drawn])) / sizes[level] for level in TAPS
        }
        optimizer.zero_grad(set_to_none=True)
        training.network_loss(network(inputs_BCHW), error_B2HW).backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(network.parameters(), training.MOST_GRADIENT)
        optimizer.step()
    network.eval().requires_grad_(False)
    network.blend.copy_(torch.tensor([0.0, 1.0, training.SHARE, training.LEVEL]))
    fit_blend(network, folder, held_back, sizes)
    return network


def change_colours(inputs_BCHW: Tensor, dice: np.random.Generator) -> None:
    """As :func:`depthsieve.jobs.calibrate.training.batch_of` does, which would mirror too."""
    for colours_3HW in inputs_BCHW[:, :3].numpy():
        colours_3HW *= (dice.uniform(0.8, 1.25) * dice.uniform(0.95, 1.05, (3, 1, 1))).astype(np.float32)
        colours_3HW += np.float32(dice.uniform(-0.3, 0.3))
        colours_3HW += dice.standard_normal(colours_3HW.shape, np.float32) * np.float32(dice.uniform(0, 0.1))


@torch.inference_mode()
def fit_blend(network: TrialNetwork, folder: Path, numbers: Sequence[int], sizes: Mapping[int, float]) -> None:
    said, found = [], []
    for number in numbers:
        record_HW, maps = read(folder, number)
        inputs_1CHW, error_12HW = training.batch_of([record_HW], None)
        network.seen = {level: torch.from_numpy(maps[level])[None] / sizes[level] for level in TAPS}
        known_HW = torch.isfinite(error_12HW[0, 1])
        said.append(network.blended(network(inputs_1CHW), inputs_1CHW)[0][known_HW].double().numpy())
        found.append(error_12HW[0, 0][known_HW].double().numpy())
    scale = training.power_law(np.concatenate(said), np.concatenate(found))
    if scale is not None:
        network.blend[:2] = torch.from_numpy(scale).float()


@dataclass(frozen=True)
class Judged:
    """A label to judge on: what the network sees of it, and what the fused flip says."""

    seen: Example
    inputs_1CHW: Tensor
    maps: Maps
    flip_HW: NDArray[np.float32]


@torch.inference_mode()
def judged(watched: Watched, rgb_HW3: NDArray[np.uint8], truth_HW: NDArray[np.float32]) -> Judged:
    teacher = watched.teacher
    seen = example(teacher, rgb_HW3, truth_HW)
    maps = dict(watched.maps)
    photo_HW3, depth_HW = torch.from_numpy(seen.photo_HW3), torch.from_numpy(seen.depth_HW)
    inputs_1CHW = networks.network_inputs(photo_HW3, depth_HW, "disparity")[None]
    batch = batch_of_one(teacher, rgb_HW3, (depth_HW.shape[0], depth_HW.shape[1]), None)
    label, relative = predict_labels(batch, LabelWork(teacher, ("flip",)))
    flip_1HW = fuse(label.depth, relative, "disparity", calibration_for("disparity", ("flip",)))
    return Judged(seen, inputs_1CHW, maps, flip_1HW[0].numpy())


@torch.inference_mode()
def errors_of(group: Sequence[TrialNetwork], one: Judged, sizes: Mapping[int, float]) -> NDArray[np.float32]:
    """The mean logarithm of what several networks expect, as an error [H,W]."""
    logs = []
    for network in group:
        network.seen = {level: maps / sizes[level] for level, maps in one.maps.items()}
        logs.append(network.mean_error(network(one.inputs_1CHW), one.inputs_1CHW)[0].log())
    error_HW: NDArray[np.float32] = torch.stack(logs).mean(0).exp().numpy()
    return error_HW


def main() -> None:
    parser = argparse.ArgumentParser(description="Try what might make the error network better.")
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--pairs", type=Path, action="append", default=[])
    parser.add_argument("--scenes", type=int, default=1200)
    parser.add_argument("--steps", type=int, default=1200)
    parser.add_argument("--judged", type=int, default=60)
    options = parser.parse_args()
    torch.set_num_threads(1)
    watched, folder = Watched(), options.work / "labels"
    folder.mkdir(parents=True, exist_ok=True)
    for number in tqdm(range(options.scenes * max(trial.more for trial in TRIALS)), desc="label", unit=" scenes"):
        path = folder / f"{number:05}.npz"
        if not path.exists():
            keep(watched, number, path)
    first = [read(folder, number)[1] for number in range(40)]
    sizes = {level: float(np.mean([np.abs(maps[level]).mean() for maps in first])) for level in TAPS}
    sets: dict[str, list[Judged]] = {"scenes": []}
    for seed in tqdm(range(options.judged), desc="judge", unit=" scenes"):
        scene = render_scene(seed, *watched.teacher.label_shape(126, 168), family="foreign")
        sets["scenes"].append(judged(watched, scene.rgb_HW3, scene.depth_HW))
    for half, title in enumerate(("photos, first half", "photos, second half")):
        pairs = (pair for place in options.pairs for pair in pairs_in(place, half))
        found = [judged(watched, rgb_HW3, metres_HW) for _, rgb_HW3, metres_HW in pairs]
        sets[title] = [one for one in found if one.seen.pixels >= FEWEST]
    made: dict[str, list[TrialNetwork]] = {}
    for trial in TRIALS:
        file, network = options.work / f"{trial.name}.pt", TrialNetwork(trial)
        if file.exists():
            network.load_state_dict(torch.load(file, weights_only=True))
            network.eval().requires_grad_(False)
        else:
            network = train(trial, folder, sizes, options.scenes, options.steps)
            torch.save(network.state_dict(), file)
        made[trial.name] = [network]
    made["together"] = [made[trial.name][0] for trial in TRIALS if trial.name.startswith("as it ships")]
    for title, labels in sets.items():
        said = [
            (one.seen, {name: errors_of(group, one, sizes) for name, group in made.items()} | {"flip": one.flip_HW})
            for one in labels
        ]
        for row in score(title, said, {}):
            print(json.dumps({"data": title, "trial": row.method, "ause": row.ause, "abs_rel_ause": row.abs_rel_ause}))


if __name__ == "__main__":
    main()
