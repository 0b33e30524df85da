"""What reliability by an error network costs beside that by the flip, and how well its codes serve a mask.

    python benchmarks/network_reliability.py PHOTOS [--teacher vit-s] [--size 518] [--calibration FILE]

Labels the photos into new stores by the network, by the flip, and without reliability, in turn, on one core, and prints
the seconds of each and their ratio to the flip's: the best round counts. Without ``--calibration`` the network is one
with random weights, which costs the same. With one, and a teacher that is trained, it also prints, for both versions of
codes: how many codes occur in an image, and by how much a mask falls short of 10, 20 and 30% of an image's pixels since
codes tie, mean over images (most).
"""

import argparse
import shutil
import tempfile
from pathlib import Path

import numpy as np
import torch
from photos import find_teacher, gather

import depthsieve
from depthsieve.reliability.code import decode_error, encode_error
from depthsieve.reliability.masking import masked_share, threshold_code
from depthsieve.reliability.network import ErrorNetwork
from depthsieve.reliability.scale import CODE_VERSION, SCALES
from depthsieve.teachers import load_teacher

DROPS = (0.1, 0.2, 0.3)


def cost(photos: Path, teacher: str, chosen: argparse.Namespace, calibration: Path, folder: Path) -> None:
    """Print what each way of labelling takes."""
    ways = {"network": {"calibration": str(calibration)}, "flip": {"signals": "flip"}, "none": {"signals": "none"}}
    best = dict.fromkeys(ways, float("inf"))
    for number in range(chosen.rounds):
        for name, options in ways.items():
            store = folder / f"{name}-{number}"
            settings = {"size": chosen.size, "batch_size": 1, "threads": 1, "runner": "local", "progress": False}
            done = depthsieve.label(photos, store, teacher=teacher, device="cpu", **settings | options)
            best[name] = min(best[name], done.seconds / done.labelled)
            shutil.rmtree(store)
    for name, seconds in best.items():
        print(f"| {name} | {seconds:.2f} s an image | {seconds / best['flip']:.2f} of flip |")


def codes(photos: Path, teacher: str, chosen: argparse.Namespace, calibration: Path | None, folder: Path) -> None:
    """Print how the codes of each version tie, from errors as the finest version has them."""
    how = {"signals": "flip"} if calibration is None else {"calibration": str(calibration)}
    depthsieve.label(photos, folder / "store", teacher=teacher, size=chosen.size, progress=False, **how)
    store, network = depthsieve.open_store(folder / "store"), calibration and ErrorNetwork.load(calibration)
    for version in SCALES:
        used, short = [], []
        for image in store:
            label = store[image]
            e_HW = decode_error(torch.from_numpy(label.reliability), version=CODE_VERSION)
            if network:
                photo_1HW3 = torch.from_numpy(label.image())[None]
                e_HW = network.expected_error(photo_1HW3, torch.from_numpy(label.depth)[None], label.quantity)[0]
            count_K = np.bincount(encode_error(e_HW, version=version).numpy().ravel(), minlength=256)
            used.append(np.count_nonzero(count_K[1:]))
            short.append([drop - masked_share(count_K, threshold_code(count_K, drop)) for drop in DROPS])
        told = " | ".join(
            f"{mean:.2%} ({most:.2%})" for mean, most in zip(np.mean(short, 0), np.max(short, 0), strict=True)
        )
        print(f"| version {version} | {np.mean(used):.0f} | {told} |")


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("photos", type=Path)
    parser.add_argument("--teacher", default="vit-s", help="tiny, vit-s, vit-b, vit-l (random weights), or a folder")
    parser.add_argument("--size", type=int)
    parser.add_argument("--count", type=int, default=4, help="photos to time")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--calibration", type=Path)
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        teacher = find_teacher(chosen.teacher, folder)
        calibration = chosen.calibration
        if calibration is None:
            calibration = folder / "random.safetensors"
            ErrorNetwork.random(quantity=load_teacher(teacher, device="cpu").quantity).save(calibration)
        cost(gather(chosen.photos, folder / "photos", chosen.count), teacher, chosen, calibration, folder)
        if chosen.teacher not in ("vit-s", "vit-b", "vit-l"):
            codes(chosen.photos, teacher, chosen, chosen.calibration, folder)


if __name__ == "__main__":
    main()
