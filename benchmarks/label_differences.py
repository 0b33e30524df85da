"""What moves labels, and how far: the compute dtype, the numerics profile (batch size, threads), a cheaper decoding.

    python benchmarks/label_differences.py [PHOTOS] [--teacher tiny]

Each photo is labelled once with the reference (float32, one image a batch, one thread) and once with each change; the
differences are those of depth, as shares of the map's range, before it is rounded to float16. "beyond the tolerance"
counts pixels that differ by more than one float16 step and two millionths of the map's maximum: none may, between two
profiles of one label spec. Use a trained teacher: random weights give nearly flat maps.
"""

import argparse
import io
import statistics
import tempfile
from pathlib import Path

import numpy as np
import torch
from photos import find_teacher, gather
from PIL import Image, ImageOps

from depthsieve.teachers import Batch


def predict(teacher: object, inputs: list[np.ndarray], batch_size: int, threads: int) -> list[np.ndarray]:
    """A map for each photo. A batch is filled up with copies of it: neighbours do not count, the batch size does."""
    torch.set_num_threads(threads)
    maps = []
    for image_CHW in inputs:
        image_BCHW = torch.from_numpy(image_CHW)[None].repeat(batch_size, 1, 1, 1)
        maps.append(teacher.predict(Batch.of(image_BCHW)).depth[0].double().numpy())  # type: ignore[attr-defined]
    return maps


def differences(maps: list[np.ndarray], references: list[np.ndarray]) -> dict[str, float]:
    """Medians and extremes over photos."""
    mean, most, moved, beyond = [], [], [], 0
    for found_HW, reference_HW in zip(maps, references, strict=True):
        off_HW = np.abs(found_HW - reference_HW)
        span = reference_HW.max() - reference_HW.min()
        mean.append(float(off_HW.mean() / span))
        most.append(float(off_HW.max() / span))
        rounded, expected = found_HW.astype(np.float16), reference_HW.astype(np.float16)
        step_HW = np.spacing(np.maximum(np.abs(rounded), np.abs(expected))).astype(np.float64)
        stored_HW = np.abs(rounded.astype(np.float64) - expected)
        moved.append(float((stored_HW > 0).mean()))
        beyond += int((stored_HW > step_HW + 2e-6 * float(np.abs(reference_HW).max())).sum())
    return {
        "mean, median photo": statistics.median(mean),
        "mean, worst photo": max(mean),
        "largest, worst photo": max(most),
        "stored pixels that differ": statistics.median(moved),
        "beyond the tolerance": beyond,
    }


def half_decoded(data: bytes) -> np.ndarray:
    """A JPEG decoded at half its size, as libjpeg does it in a quarter of the time; other formats whole."""
    with Image.open(io.BytesIO(data)) as image:
        image.draft("RGB", (image.width // 2, image.height // 2))
        return np.asarray(ImageOps.exif_transpose(image).convert("RGB"))


def main() -> None:
    """The command line."""
    from depthsieve.images.decode import decode
    from depthsieve.teachers import load_teacher

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("photos", nargs="?", type=Path)
    parser.add_argument("--teacher", default="tiny")
    parser.add_argument("--images", type=int, default=16)
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        photos = gather(chosen.photos, Path(folder) / "photos", chosen.images)
        name = find_teacher(chosen.teacher, Path(folder))
        teachers = {
            dtype: load_teacher(name, device="cpu", dtype=dtype) for dtype in ("float32", "float16", "bfloat16")
        }
        plain = teachers["float32"]
        inputs, from_half = [], []
        for path in sorted(photos.iterdir()):
            data = path.read_bytes()
            rgb_HW3 = decode(data).rgb_HW3
            shape = plain.label_shape(*rgb_HW3.shape[:2])
            inputs.append(plain.prepare(rgb_HW3, shape))
            from_half.append(plain.prepare(half_decoded(data), shape))
    references = predict(plain, inputs, 1, 1)
    changes = {
        "float16": (teachers["float16"], inputs, 1, 1),
        "bfloat16": (teachers["bfloat16"], inputs, 1, 1),
        "batches of 2": (plain, inputs, 2, 1),
        "batches of 8": (plain, inputs, 8, 1),
        "2 threads": (plain, inputs, 1, 2),
        "decoded at half": (plain, from_half, 1, 1),
        "nothing": (plain, inputs, 1, 1),
    }
    for what, settings in changes.items():
        found = differences(predict(*settings), references)
        print(f"{what:>15}: " + ", ".join(f"{name} {value:.2g}" for name, value in found.items()), flush=True)


if __name__ == "__main__":
    main()
