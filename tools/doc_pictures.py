"""Renders the photos of the documentation's examples, and the pictures on its pages: `python tools/doc_pictures.py`."""

import tempfile
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

import depthsieve
from depthsieve.scenes import render_scene

PICTURES = Path(__file__).parents[1] / "docs" / "pictures"
KINDS = ("street", "room", "park", "table")
HEIGHT, WIDTH = 240, 320
FIRST_SEED = 5_000_000


def render_photos(photos: Path, depth: Path, count: int = 12) -> None:
    """``count`` photos, ``street-1.png`` and so on, and the exact depth of each in metres as ``.npy``, NaN at the sky;
    and two photos that a training set should not have: ``street-1-small.jpg``, a copy, and ``room-1-shaken.png``."""
    photos.mkdir(parents=True, exist_ok=True)
    depth.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        kind = KINDS[number % len(KINDS)]
        scene = render_scene(FIRST_SEED + number, HEIGHT, WIDTH, kind)
        name = f"{kind}-{number // len(KINDS) + 1}"
        Image.fromarray(scene.rgb_HW3).save(photos / f"{name}.png")
        with np.errstate(divide="ignore"):
            depth_HW = 1 / scene.disparity_HW
        np.save(depth / f"{name}.npy", np.where(np.isfinite(depth_HW), depth_HW, np.nan).astype(np.float32))
    first = Image.open(photos / "street-1.png")
    first.resize((WIDTH * 4 // 5, HEIGHT * 4 // 5), Image.Resampling.LANCZOS).save(photos / "street-1-small.jpg")
    Image.open(photos / "room-1.png").filter(ImageFilter.GaussianBlur(5)).save(photos / "room-1-shaken.png")


def reliability_picture(labels: Path, truth: Path, name: str, path: Path) -> None:
    """A photo, its label, its reliability with what codes stand for, and the label's true error."""
    import matplotlib

    matplotlib.use("Agg")
    import torch
    from matplotlib import pyplot

    from depthsieve.reliability.code import decode_error

    store = depthsieve.open_store(labels)
    label = store[f"{name}.png"]
    depth_HW, code_HW = label.depth.astype(np.float32), label.reliability
    error_HW = true_error(depth_HW, np.load(truth / f"{name}.npy"))
    errors = decode_error(torch.arange(256, dtype=torch.uint8), version=2).numpy()
    figure, axes = pyplot.subplots(1, 4, figsize=(13, 3.1), layout="constrained", dpi=80)
    axes[0].imshow(label.image())
    axes[0].set_title("photo")
    axes[1].imshow(depth_HW, cmap="turbo")
    axes[1].set_title("label: disparity, red is near")
    low, high = np.percentile(code_HW, (1, 99))
    shown = axes[2].imshow(code_HW, cmap="viridis", vmin=low, vmax=high)
    axes[2].set_title("reliability: the code of each pixel")
    bar = figure.colorbar(shown, ax=axes[2])
    ticks = np.linspace(low, high, 5).round().astype(int)
    bar.set_ticks(ticks, labels=[f"{tick} ({errors[tick]:.0%} off)" for tick in ticks])
    shown = axes[3].imshow(error_HW, cmap="magma", vmin=0, vmax=errors[int(low)])
    axes[3].set_title("how far off it really is")
    figure.colorbar(shown, ax=axes[3], format=lambda value, _: f"{value:.0%}")
    for axis in axes:
        axis.set_axis_off()
    figure.savefig(path)


def true_error(depth_HW: NDArray[np.float32], metres_HW: NDArray[np.float32]) -> NDArray[np.float32]:
    """The error that reliability predicts, ``|truth - label| / (label + median)``, the truth fitted to the label."""
    y, x = depth_HW.shape
    rows, columns = (np.arange(y) + 0.5) * metres_HW.shape[0] / y, (np.arange(x) + 0.5) * metres_HW.shape[1] / x
    truth_HW = 1 / metres_HW[rows.astype(int)[:, None], columns.astype(int)]
    seen_HW = np.isfinite(truth_HW)
    scale, shift = np.polyfit(truth_HW[seen_HW], depth_HW[seen_HW], 1)
    error_HW = np.abs(scale * truth_HW + shift - depth_HW) / (depth_HW + np.median(depth_HW))
    return np.where(seen_HW, error_HW, np.nan).astype(np.float32)


def drop_picture(labels: Path, name: str, path: Path, drops: tuple[float, ...] = (0.05, 0.10, 0.30)) -> None:
    """What masks of some shares leave out of one image."""
    label = depthsieve.open_store(labels)[f"{name}.png"]
    panels = [label.image()]
    for drop in drops:
        left_out = label.image().copy()
        left_out[~label.mask(drop=drop)] = (255, 0, 255)
        panels.append(left_out)
    gap = np.full((panels[0].shape[0], 6, 3), 255, np.uint8)
    joined = [part for panel in panels for part in (panel, gap)][:-1]
    Image.fromarray(np.concatenate(joined, axis=1)).save(path)


def main() -> None:
    PICTURES.mkdir(exist_ok=True)
    for old in PICTURES.glob("*.png"):
        old.unlink()
    with tempfile.TemporaryDirectory() as folder:
        photos, depth, labels = (Path(folder) / name for name in ("photos", "depth", "labels"))
        render_photos(photos, depth)
        depthsieve.label(photos, labels, teacher="tiny", runner="local", threads=1, batch_size=4, progress=False)
        sheet = depthsieve.view(labels, ["street-1.png", "room-2.png", "park-3.png"], drop=0.10, progress=False)
        sheet.save(PICTURES / "labels.png")
        reliability_picture(labels, depth, "park-2", PICTURES / "reliability.png")
        drop_picture(labels, "street-1", PICTURES / "drop.png")
    for path in sorted(PICTURES.glob("*.png")):
        picture = Image.open(path).convert("RGB").quantize(256, method=Image.Quantize.MEDIANCUT)
        picture.save(path, optimize=True)
        print(f"{path.name}: {path.stat().st_size / 1000:.0f} kB, {picture.width}x{picture.height}")


if __name__ == "__main__":
    main()
