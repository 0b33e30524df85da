"""Time `depthsieve label` against a loop over transformers' depth pipeline that saves `predicted_depth` as .npy.

    python benchmarks/label_speed.py                               # 16 rendered scenes as JPEG, the embedded teacher
    python benchmarks/label_speed.py PHOTOS --teacher vit-s        # Depth Anything V2 Small's shape, random weights

Both sides get the same photos, weights, number of threads and working size, and run in turn in processes of their own,
several rounds; flip is off, since the pipeline has no reliability. Time counts from the loaded model to the last file
written; for depthsieve that includes the scan and the plan. The pipeline takes one photo at a time: photos of different
shapes do not fit into one of its batches. Ratios are those of the same round; their median and range are printed.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch


def make_vit_s(folder: Path) -> None:
    """Depth Anything V2 Small's architecture with random weights: speed does not depend on their values."""
    from transformers import DepthAnythingConfig, DepthAnythingForDepthEstimation, Dinov2Config, DPTImageProcessorPil

    torch.manual_seed(0)
    backbone = Dinov2Config(
        hidden_size=384,
        num_hidden_layers=12,
        num_attention_heads=6,
        image_size=518,
        patch_size=14,
        out_features=["stage3", "stage6", "stage9", "stage12"],
        reshape_hidden_states=False,
        apply_layernorm=True,
    )
    config = DepthAnythingConfig(
        backbone_config=backbone,
        patch_size=14,
        reassemble_hidden_size=384,
        neck_hidden_sizes=[48, 96, 192, 384],
        fusion_hidden_size=64,
        head_hidden_size=32,
    )
    model = DepthAnythingForDepthEstimation(config)
    torch.nn.init.constant_(model.head.conv3.bias, 1.0)
    model.save_pretrained(folder)
    size = {"height": 518, "width": 518}
    DPTImageProcessorPil(size=size, keep_aspect_ratio=True, ensure_multiple_of=14).save_pretrained(folder)


def render_photos(folder: Path, count: int = 16) -> Path:
    """Scenes of 2 megapixels as JPEG, for a machine without photos at hand."""
    from PIL import Image

    from depthsieve.scenes import render_scene

    folder.mkdir()
    for seed in range(count):
        rgb_HW3 = render_scene(seed, 600, 850).rgb_HW3
        image = Image.fromarray(rgb_HW3).resize((1700, 1200), Image.Resampling.BICUBIC)
        image.save(folder / f"scene {seed:02d}.jpg", quality=92)
    return folder


def time_depthsieve(photos: Path, teacher: str, threads: int, out: Path) -> float:
    """Seconds for labelling, from the loaded teacher to the committed store; batch size as found by itself."""
    import depthsieve
    from depthsieve import run
    from depthsieve.records import TeacherRequest

    loaded: list[float] = []
    genuine = run.load_requested

    def load(request: TeacherRequest) -> object:
        teacher = genuine(request)
        loaded.append(time.perf_counter())
        return teacher

    run.load_requested = load  # type: ignore[assignment]
    summary = depthsieve.label(photos, out, teacher=teacher, threads=threads, signals="none", progress=False)
    assert not summary.failed and not summary.pending
    return time.perf_counter() - loaded[0]


def time_pipeline(photos: Path, teacher: str, threads: int, out: Path) -> float:
    """Seconds for the pipeline, from the loaded model to the last .npy written."""
    import numpy as np
    from transformers import pipeline

    torch.set_num_threads(threads)
    estimate = pipeline("depth-estimation", model=teacher, device="cpu")
    out.mkdir()
    start = time.perf_counter()
    for path in sorted(photos.iterdir()):
        np.save(out / f"{path.stem}.npy", estimate(str(path))["predicted_depth"].numpy())
    return time.perf_counter() - start


def measure(side: str, photos: Path, teacher: str, threads: int) -> float:
    """One side in a fresh process."""
    with tempfile.TemporaryDirectory() as scratch:
        command = [sys.executable, __file__, str(photos), "--teacher", teacher, "--threads", str(threads)]
        command += ["--side", side, "--out", str(Path(scratch) / "out")]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{side} failed:\n{done.stderr}")
    return float(done.stdout.splitlines()[-1])


def main() -> None:
    """Rounds of both sides in turn."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("photos", type=Path, nargs="?", help="a folder of images; without it, scenes are rendered")
    parser.add_argument("--teacher", default="tiny", help="tiny, vit-s (random weights), or a local folder")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    parser.add_argument("--side", choices=["depthsieve", "pipeline"], help=argparse.SUPPRESS)
    parser.add_argument("--out", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.side:
        side = time_depthsieve if arguments.side == "depthsieve" else time_pipeline
        print(side(arguments.photos, arguments.teacher, arguments.threads, arguments.out))
        return
    with tempfile.TemporaryDirectory() as folder:
        photos = arguments.photos or render_photos(Path(folder) / "photos")
        teacher = arguments.teacher
        if teacher == "tiny":
            import depthsieve.teachers

            teacher = str(Path(depthsieve.teachers.__file__).parent / "tiny")
        elif teacher == "vit-s":
            teacher = str(Path(folder) / "vit-s")
            make_vit_s(Path(teacher))
        pairs = []
        for _ in range(arguments.rounds):
            ours = measure("depthsieve", photos, teacher, arguments.threads)
            theirs = measure("pipeline", photos, teacher, arguments.threads)
            pairs.append((ours, theirs))
            print(f"  depthsieve {ours:.2f} s, pipeline {theirs:.2f} s", file=sys.stderr)
    ratios = sorted(theirs / ours for ours, theirs in pairs)
    print(
        f"{arguments.teacher}, {arguments.threads} threads: depthsieve is {statistics.median(ratios):.2f} times as "
        f"fast as the pipeline ({ratios[0]:.2f} to {ratios[-1]:.2f} in {len(ratios)} rounds)"
    )
    if arguments.json:
        figures = {"teacher": arguments.teacher, "threads": arguments.threads, "pairs_s": pairs, "ratios": ratios}
        arguments.json.write_text(json.dumps(figures, indent=2) + "\n")


if __name__ == "__main__":
    main()
