"""How fast samples come: the loader against what one would build instead, with the same labels and images.

    pip install webdataset litdata
    python benchmarks/loader.py                              # 128 rendered scenes of 2 megapixels
    python benchmarks/loader.py PHOTOS --images 256 --rounds 5 --cold --json loader.json

Photos (repeated under other names) are labelled by the embedded teacher at 518, with their images stored. Every way to
keep them is written once from that store, with the same labels and the same JPEG bytes. Then each delivers epochs of
windows of 518 x 518 in batches: float32 depth and the mask of 10%, and with images float32 RGB too. Each side is a
process of its own; sides take turns, several rounds; ratios are those of one round, and their median and range are
printed. Rivals may use worker processes or none: the faster counts. With ``--cold`` the files are put out of the page
cache before each pass (``posix_fadvise``).

- **labels only**: this loader; zarr-python, an image at a time from the same store; 16-bit PNG with 8-bit PNG; h5py
  with gzip; WebDataset and LitData with raw arrays.
- **whole samples**: this loader with stored images, and with the original photos; WebDataset, LitData and h5py with
  the same JPEG bytes.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from loader_rivals import WRITERS, Reading, Stored, read_rival
from photos import gather

LABELS_ONLY = ("depthsieve", "zarr", "png", "h5py", "webdataset", "litdata")
WHOLE = ("depthsieve", "originals", "h5py", "webdataset", "litdata")
AIMS = {
    # at least so many times as fast
    "labels only": {"zarr": 5.0, "png": 8.0, "h5py": 1.5, "webdataset": 1.0, "litdata": 1.0},
    "whole samples": {"originals": 3.0, "h5py": 1.2, "webdataset": 1.2, "litdata": 1.2},
}


# The data


def prepare(folder: Path, arguments: argparse.Namespace) -> None:
    """Label photos into ``folder / "labels"``, and write what the rivals read."""
    import depthsieve
    from depthsieve.store.stored_images import StoredImages

    photos = gather(arguments.photos, folder / "photos", arguments.images)
    options = {"teacher": "tiny-v1", "size": arguments.size, "store_images": True, "encoding": arguments.encoding}
    depthsieve.label(photos, folder / "labels", **options)
    store = depthsieve.open_store(folder / "labels")
    thresholds = [int(np.searchsorted(below(codes), below(codes)[-1] // 10, side="right")) for codes in codes_of(store)]
    (folder / "thresholds.json").write_text(json.dumps(thresholds))
    index = store.index()
    places = list(zip(index["shard"].to_pylist(), index["row"].to_pylist(), strict=True))

    def stored() -> Iterator[Stored]:
        images = StoredImages(store)
        for number, (image_id, place) in enumerate(zip(store.images, places, strict=True)):
            label = store.label(image_id)
            depth_HW = label.depth.astype(np.float16)
            yield Stored(number, depth_HW, label.reliability, thresholds[number], images.jpeg(*place))

    for name, write in WRITERS.items():
        write(folder / name, stored())
    groups = {record["shard"]: record["group"] for record in store.commit_records({shard for shard, _ in places})}
    found = [(str(folder / "labels/labels.zarr/shards" / groups[shard]), row) for shard, row in places]
    (folder / "zarr").mkdir()
    np.save(folder / "zarr/places.npy", np.array(found, [("group", "U512"), ("row", "i4")]))


def codes_of(store: Any) -> Iterator[np.ndarray]:
    """The reliability of each image, by id."""
    return (store.label(image_id).reliability for image_id in store.images)


def below(codes_HW: np.ndarray) -> np.ndarray:
    """[256] how many valid pixels have a code of at most each."""
    counts_K = np.bincount(codes_HW.ravel(), minlength=256)
    counts_K[0] = 0
    return np.cumsum(counts_K)


def evict(folder: Path) -> None:
    """Put the files of a folder out of the page cache."""
    os.sync()
    for path in folder.rglob("*"):
        if path.is_file():
            descriptor = os.open(path, os.O_RDONLY)
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
            os.close(descriptor)


# One side, in a process of its own


def epochs_of(side: str, folder: Path, reading: Reading, workers: int) -> Iterator[dict[str, Any]]:
    """The batches of one epoch."""
    import depthsieve

    if side in ("depthsieve", "originals"):
        images: Any = False if not reading.images else "stored" if side == "depthsieve" else "source"
        dataset = depthsieve.PseudoLabelDataset(folder / "labels", images=images, crop=reading.crop, drop=0.10)
        return iter(dataset.loader(global_batch=reading.batch, num_workers=workers))
    return read_rival(side, folder / side, json.loads((folder / "thresholds.json").read_text()), reading, workers)


def files_of(side: str, folder: Path) -> list[Path]:
    """What a side reads."""
    where = {"depthsieve": ["labels"], "zarr": ["labels"], "originals": ["labels", "photos"]}
    return [folder / name for name in where.get(side, [side])]


def run_side(arguments: argparse.Namespace) -> None:
    """Print samples a second, of the best number of worker processes, and the mean of all that came, to be compared."""
    folder, side = arguments.folder, arguments.side
    reading = Reading(arguments.size, arguments.batch, arguments.what == "whole samples")
    best: dict[str, float] = {"rate": 0.0}
    for workers in (0,) if side in ("depthsieve", "originals") else (0, 2):
        rates, means, counts = [], [], []
        for number in range(arguments.passes + (not arguments.cold)):
            if arguments.cold:
                for path in files_of(side, folder):
                    evict(path)
            start, done, total = 0.0, 0, 0.0
            first = 0
            for batch in epochs_of(side, folder, reading, workers):
                done += len(batch["depth"])
                if not start:
                    start, first = time.perf_counter(), done
                if number == 0:
                    mask = batch["mask"]
                    total += float(mask.float().mean()) * len(mask)
            counts.append(done)
            if number == 0:
                means.append(total / done)
            if number or arguments.cold:
                rates.append((done - first) / (time.perf_counter() - start))
        if statistics.median(rates) > best["rate"]:
            best = {"rate": statistics.median(rates), "workers": workers, "trained": means[0], "samples": counts[0]}
    print(json.dumps(best))


# The whole


def measure(side: str, what: str, folder: Path, arguments: argparse.Namespace) -> dict[str, float]:
    """One side in a fresh process."""
    command = [sys.executable, __file__, "--side", side, "--what", what, "--folder", str(folder)]
    for option in ("size", "batch", "passes"):
        command += [f"--{option}", str(getattr(arguments, option))]
    done = subprocess.run(command + ["--cold"] * arguments.cold, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{side} failed:\n{done.stderr}")
    figures: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return figures


def size_of(folder: Path) -> int:
    """Bytes of all files in a folder."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def main() -> None:
    """Prepare, take turns, print ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photos", nargs="?", type=Path)
    parser.add_argument("--images", type=int, default=128)
    parser.add_argument("--size", type=int, default=518)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--passes", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--encoding", default="fast")
    parser.add_argument("--cold", action="store_true")
    parser.add_argument("--json", type=Path)
    for hidden in ("--side", "--what"):
        parser.add_argument(hidden, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help="where data lie that an earlier run has kept, or are to be kept")
    arguments = parser.parse_args()
    if arguments.side:
        run_side(arguments)
        return
    with tempfile.TemporaryDirectory() as scratch:
        folder = arguments.folder or Path(scratch)
        if not (folder / "thresholds.json").exists():
            folder.mkdir(exist_ok=True)
            prepare(folder, arguments)
        found: dict[str, Any] = {"cold": arguments.cold, "images": arguments.images}
        for what, sides in (("labels only", LABELS_ONLY), ("whole samples", WHOLE)):
            rounds = [{side: measure(side, what, folder, arguments) for side in sides} for _ in range(arguments.rounds)]
            found[what] = rounds
            print(f"\n{what}, {'cold' if arguments.cold else 'warm'}: samples a second, and times as fast")
            for side in sides:
                rates = [one[side]["rate"] for one in rounds]
                ratios = sorted(one["depthsieve"]["rate"] / one[side]["rate"] for one in rounds)
                workers = sorted({int(one[side]["workers"]) for one in rounds})
                print(
                    f"{side:12} {statistics.median(rates):8.0f} /s   {statistics.median(ratios):6.2f} times "
                    f"({ratios[0]:.2f} to {ratios[-1]:.2f}; aim {AIMS[what].get(side, 1.0):g})   workers {workers}, "
                    f"{rounds[0][side]['samples']} samples, {rounds[0][side]['trained']:.3f} of their pixels trained on"
                )
        found["bytes"] = {name: size_of(folder / name) for name in ("labels", *WRITERS)}
        for name, size in found["bytes"].items():
            print(f"{name:12} {size / arguments.images / 1000:8.0f} kB an image on disk, labels and images")
        if arguments.json:
            arguments.json.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
