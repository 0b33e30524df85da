"""Does an error network that was trained on several teachers hold for one that it has never seen?

    python benchmarks/study_teachers.py --scenes runs/scenes --out runs/study/teachers
    cd runs/study/teachers
    python .../study_networks.py --work .. --teachers tiny tiny-v1,da-4 dpt untrained glpn --pairs ../../../rgbd

For each teacher: labels of scenes with their true errors, as `depthsieve calibrate` makes them, other scenes for every
teacher. A network is trained on each teacher's own ("own"), and one on those of all others of its quantity that are no
relatives of it, so many steps each ("others"); teachers joined by a comma are relatives. For a teacher of another
quantity than all others that is their network as it is. Each is judged, with the network that comes with the package,
the flip and the label's level, on scenes of the family `foreign` and on photos with measured depth: AUSE of both
errors, and the mean expected over the mean true error. What is there is not made again.

Array legend: H, W pixels; 3 red, green, blue.
"""

from __future__ import annotations

import argparse
import copy
import dataclasses
import itertools
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from error_network import FEWEST, pairs_in
from numpy.typing import NDArray
from tqdm import tqdm

from depthsieve.core.progress import progress_bar
from depthsieve.core.records import Shape
from depthsieve.jobs.calibrate.examples import ASPECTS, Example, example, scene_example, scene_photo
from depthsieve.jobs.calibrate.judging import FLIP, LEVEL, MethodScore, score
from depthsieve.jobs.calibrate.run import HELD_BACK
from depthsieve.jobs.calibrate.settings import FIRST_SEED, JUDGED, LEARNT
from depthsieve.jobs.calibrate.training import fit_blend, stored, train
from depthsieve.labelling.batch import LabelWork, predict_labels
from depthsieve.reliability.fusion import calibration_for, fuse, near_level
from depthsieve.reliability.network import ErrorNetwork, shipped_network
from depthsieve.teachers import Batch, Prediction, Teacher, load_teacher

OWN, OTHERS, SHIPPED, RAW = "own", "others", "shipped", "flip, raw"
METHODS = (OWN, OTHERS, SHIPPED, FLIP, RAW, LEVEL)
SHORT_SIDE = {"glpn": 128}
"""Of photos for teachers whose processors leave the size as it is, and that have learnt at this one."""

SEEDS_APART = 1 << 16
SEED = 7
Methods = Mapping[str, ErrorNetwork]


class Shrunk(Teacher):
    """A teacher that sees photos at a short side that it has learnt at."""

    def __init__(self, inner: Teacher, short_side: int) -> None:
        self.inner, self.short_side = inner, short_side

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)

    def label_shape(self, height: int, width: int) -> Shape:
        factor = self.short_side / min(height, width)
        return self.inner.label_shape(round(height * factor), round(width * factor))

    def prepare(self, rgb_HW3: NDArray[np.uint8], shape: Shape) -> NDArray[np.float32]:
        return self.inner.prepare(cv2.resize(rgb_HW3, shape[::-1], interpolation=cv2.INTER_AREA), shape)

    def half_shape(self, shape: Shape) -> Shape | None:
        return self.inner.half_shape(shape)

    def predict(self, batch: Batch) -> Prediction:
        return self.inner.predict(batch)


def teacher_of(name: str) -> Teacher:
    """On the CPU."""
    teacher = load_teacher(name, device="cpu")
    side = SHORT_SIDE.get(Path(name).name)
    teacher = teacher if side is None else Shrunk(teacher, side)
    teacher.name = Path(name).name
    return teacher


class Kept:
    """Examples of several teachers by their numbers, and one training, as `depthsieve.jobs.calibrate` keeps them."""

    def __init__(self, files: Sequence[Path], state: Path) -> None:
        self.files, self.state = files, state

    def example(self, number: int) -> NDArray[np.void]:
        record_HW: NDArray[np.void] = np.load(self.files[number], mmap_mode="r", allow_pickle=False)
        return record_HW

    def training(self) -> Mapping[str, Any] | None:
        return torch.load(self.state, weights_only=True) if self.state.exists() else None

    def keep_training(self, state: Mapping[str, Any]) -> None:
        torch.save(state, self.state.with_suffix(".part"))
        self.state.with_suffix(".part").replace(self.state)


def label_scenes(teacher: Teacher, place: int, folder: Path, count: int) -> list[Path]:
    """A file for each scene that can be compared; ``place`` says which scenes are this teacher's."""
    folder.mkdir(parents=True, exist_ok=True)
    for number in tqdm(range(count), desc=f"label for {teacher.name}", unit=" scenes"):
        path = folder / f"{number:05}.npy"
        if not path.exists():
            seed = FIRST_SEED + (1 << 40) + place * SEEDS_APART + number
            seen = scene_example(teacher, seed, LEARNT[number // len(ASPECTS) % len(LEARNT)], number)
            scratch = folder / ".part.npy"
            np.save(scratch, stored(seen, teacher.quantity, number))
            scratch.replace(path)
    return [folder / f"{number:05}.npy" for number in range(count)]


def network_of(files: Sequence[Path], quantity: Any, steps: int, path: Path) -> ErrorNetwork:
    """Trained on these examples, of which one in `HELD_BACK` sets the scale; read where it is there already."""
    if path.exists():
        return ErrorNetwork.load(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    held_back = files[HELD_BACK // 2 :: HELD_BACK] or files[:1]
    kept = Kept(files, path.with_suffix(".pt"))
    groups: dict[tuple[int, ...], list[int]] = {}
    for number, file in enumerate(files):
        if file not in held_back:
            groups.setdefault(kept.example(number).shape, []).append(number)
    network = ErrorNetwork.random(SEED, quantity)
    with progress_bar(f"train {path.stem}", total=steps, unit="steps", shown=True) as bar:
        train(network, kept, list(groups.values()), steps, SEED, bar)  # type: ignore[arg-type]
    fit_blend(network, [np.load(file) for file in held_back])
    network.save(path)
    kept.state.unlink(missing_ok=True)
    return network


@torch.inference_mode()
def doubts(
    seen: Example, teacher: Teacher, rgb_HW3: NDArray[np.uint8], networks: Methods
) -> dict[str, NDArray[np.float32]]:
    """What each of `METHODS` that there is says of a label, [H,W]: the more, the less reliable."""
    shape = (seen.depth_HW.shape[0], seen.depth_HW.shape[1])
    batch = Batch.of(torch.from_numpy(teacher.prepare(rgb_HW3, shape))[None])
    label, relative = predict_labels(batch, LabelWork(teacher, ("flip",)))
    photo_1HW3, depth_1HW = torch.from_numpy(seen.photo_HW3)[None], torch.from_numpy(seen.depth_HW)[None]
    said = {name: network.expected_error(photo_1HW3, depth_1HW, teacher.quantity) for name, network in networks.items()}
    said[FLIP] = fuse(label.depth, relative, teacher.quantity, calibration_for(teacher.quantity, ("flip",)))
    said[RAW] = relative["flip"]
    said[LEVEL] = 1 - near_level(depth_1HW, teacher.quantity)
    return {name: each_1HW[0].numpy() for name, each_1HW in said.items()}


def photos_of(folders: Sequence[Path], scenes: int, teacher: Teacher) -> dict[str, Callable[[], Iterator[Any]]]:
    """For each kind of data, photos [H,W,3] with their depth in metres [H,W]."""

    def rendered() -> Iterator[Any]:
        for number in tqdm(range(scenes), desc=f"judge {teacher.name}", unit=" scenes"):
            scene = scene_photo(teacher, number, JUDGED, number)
            yield scene.rgb_HW3, scene.depth_HW, 1

    def measured() -> Iterator[Any]:
        for folder in folders:
            for _, rgb_HW3, metres_HW in pairs_in(folder, None):
                yield rgb_HW3, metres_HW, FEWEST

    return {"scenes": rendered, "pairs": measured}


def judge(name: str, networks: Methods, folders: Sequence[Path], scenes: int) -> list[MethodScore]:
    """Every method for one teacher, on scenes and on pairs."""
    teacher, rows = teacher_of(name), []
    networks = {each: quantity_as(network, teacher) for each, network in networks.items()}
    for data, photos in photos_of(folders, scenes, teacher).items():
        judged = []
        for rgb_HW3, metres_HW, least in photos():
            seen = example(teacher, rgb_HW3, metres_HW)
            if seen.pixels >= least:
                judged.append((seen, doubts(seen, teacher, rgb_HW3, networks)))
        rows += score(data, judged, {})
    return rows


def quantity_as(network: ErrorNetwork, teacher: Teacher) -> ErrorNetwork:
    """A network for labels of a teacher; for another quantity than its own it is taken as it is."""
    network = copy.deepcopy(network)
    network.quantity = teacher.quantity
    return network


def show(found: Mapping[str, Sequence[MethodScore]]) -> None:
    """Markdown tables for each kind of data, and on how many teachers each network is better than the fused flip."""
    for data in ("scenes", "pairs"):
        rows = {teacher: {row.method: row for row in all_ if row.data == data} for teacher, all_ in found.items()}
        _table(f"{data}: AUSE of the first error / of AbsRel", rows, lambda r: f"{r.ause:.4f} / {r.abs_rel_ause:.4f}")
        for network, (title, of) in itertools.product((OTHERS, SHIPPED), ERRORS.items()):
            both = [each for each in rows.values() if network in each and FLIP in each]
            wins = sum(of(each[network]) < of(each[FLIP]) for each in both)
            print(f"{network}, {title}: better than the fused flip on {wins} of {len(both)} teachers")
        _table(f"{data}: expected / true error", rows, lambda r: "" if r.expected is None else f"{r.expected:.2f}")


ERRORS: Mapping[str, Callable[[MethodScore], float]] = {
    "the first error": lambda row: row.ause,
    "AbsRel": lambda row: row.abs_rel_ause,
}


def _table(title: str, rows: Mapping[str, Mapping[str, MethodScore]], cell: Callable[[MethodScore], str]) -> None:
    print(f"\n{title}\n\n| teacher | {' | '.join(METHODS)} |\n|{' --- |' * (1 + len(METHODS))}")
    for teacher, by_method in rows.items():
        cells = [cell(by_method[method]) if method in by_method else "" for method in METHODS]
        print(f"| {teacher} | {' | '.join(cells)} |")
    print()


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--work", type=Path, required=True, help="labels, networks and scores go here")
    parser.add_argument("--teachers", nargs="+", required=True, help="names or folders; relatives joined by a comma")
    parser.add_argument(
        "--pairs", type=Path, action="append", default=[], help="photos with depth: see error_network.py"
    )
    parser.add_argument("--scenes", type=int, default=240, help="of each teacher, to learn from")
    parser.add_argument("--steps", type=int, default=300, help="of each training, of 16 labels")
    parser.add_argument("--judged", type=int, default=60, help="scenes to judge on")
    parser.add_argument("--own", nargs="*", help="only these teachers get a network of their own; default: all")
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    families = [group.split(",") for group in chosen.teachers]
    if len(families) < 2:
        parser.error("it takes two teachers that are no relatives: a network of the one is applied to the other")
    files, quantity = {}, {}
    for place, name in enumerate(name for family in families for name in family):
        teacher = teacher_of(name)
        quantity[name] = teacher.quantity
        files[name] = label_scenes(teacher, place, chosen.work / "examples" / teacher.name, chosen.scenes)
    found = {}
    for family in families:
        for name in family:
            short = Path(name).name
            scores = chosen.work / "scores" / f"{short}.json"
            if not scores.exists():
                strangers = [each for each in files if each not in family]
                alike = [each for each in strangers if quantity[each] == quantity[name]] or strangers
                learnt = [file for each in alike for file in files[each]]
                path = chosen.work / "networks" / f"without-{Path(family[0]).name}.safetensors"
                networks = {OTHERS: network_of(learnt, quantity[alike[0]], chosen.steps, path)}
                if chosen.own is None or short in chosen.own:
                    path = chosen.work / "networks" / f"own-{short}.safetensors"
                    networks[OWN] = network_of(files[name], quantity[name], chosen.steps, path)
                if (shipped := shipped_network()) is not None:
                    networks[SHIPPED] = shipped
                scores.parent.mkdir(parents=True, exist_ok=True)
                rows = [dataclasses.asdict(row) for row in judge(name, networks, chosen.pairs, chosen.judged)]
                scores.write_text(json.dumps(rows, indent=1) + "\n")
            found[short] = [MethodScore(**row) for row in json.loads(scores.read_text())]
    show(found)


if __name__ == "__main__":
    main()
