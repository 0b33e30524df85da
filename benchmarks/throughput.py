"""How busy labelling keeps the teacher: end to end against its parts alone, and against what one would use instead.

    python benchmarks/throughput.py                                  # 64 rendered scenes, the embedded teacher
    python benchmarks/throughput.py PHOTOS --teacher vit-s           # also vit-b, vit-l (random weights), or a folder

Each side is a process of its own, and sides take turns, several rounds. All have the same photos, weights and working
size; ratios are those of one round, their median and range are printed, and a JSON file and a chart are written.

- **parts**: decoding, resizing, the bare forward passes (plain, flipped, at half the size), alignment with codes and
  histograms, encoding with writing. Each part goes through all photos alone, on all cores. The forward passes have the
  batch size that labelling finds by itself; of one lane with all threads and of lanes with one the faster counts.
- **label**: `depthsieve.label` with each choice of signals, from the loaded teacher to the last commit; the scan, the
  plan and the trial of batch sizes come before the clock starts.
- **pipeline**: transformers' depth pipeline at its best batch size (photos of one size share a batch), maps as .npy.
- **loop**: one photo at a time in the manner of Depth Anything's own `run.py`: read, predict, enlarge to the photo's
  size, write a PNG.

On CUDA the forward pass is also compared with the device's own speed: FLOPs a second over those of a matrix product.

    python benchmarks/throughput.py PHOTOS --grid                    # what a device gives: a table

takes ViT-S, -B and -L at 518 (random weights) in float16 and bfloat16, on a CPU ViT-S in float32, and prints for each
the images a second from file to commit without a signal, its share of the bare forward passes' rate, and the forward
passes' share of the rate of a matrix product.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
from photos import find_teacher, gather

LABEL = ("none", "flip", "lowres")


# The sides, each in its own process


def time_label(
    photos: Path, teacher: str, signals: str, scratch: Path, options: argparse.Namespace
) -> dict[str, float]:
    """Seconds of labelling what is planned; the plan is written before."""
    import depthsieve

    shared = {"teacher": teacher, "signals": signals, "progress": False, "threads": options.threads}
    shared |= {"batch_size": options.batch_size, "device": options.device, "dtype": options.dtype, "runner": "local"}
    store = scratch / "store"
    depthsieve.plan(photos, store, write=True, trial=False, **shared)
    summary = depthsieve.label(photos, store, part="1/1", **shared)
    assert not summary.failed and not summary.pending, summary
    return {"seconds": summary.seconds}


def time_pipeline(photos: Path, teacher: str, scratch: Path, options: argparse.Namespace) -> dict[str, float]:
    """Seconds of transformers' pipeline, at the best of four batch sizes."""
    from PIL import Image
    from transformers import pipeline

    torch.set_num_threads(options.threads)
    dtype = getattr(torch, options.dtype)
    estimate = pipeline("depth-estimation", model=teacher, device=options.device, dtype=dtype)
    groups: dict[tuple[int, int], list[str]] = {}
    for path in sorted(photos.iterdir()):
        with Image.open(path) as image:
            groups.setdefault(image.size, []).append(str(path))

    def go(batch_size: int, most: int) -> float:
        start, done = time.perf_counter(), 0
        for paths in groups.values():
            chosen = paths[: max(0, most - done)]
            for number, answer in enumerate(estimate(chosen, batch_size=batch_size) if chosen else ()):
                np.save(scratch / f"{done + number}.npy", answer["predicted_depth"].float().numpy())
            done += len(chosen)
        return time.perf_counter() - start

    few = 4 if options.slow else 16
    go(1, 2)
    best = min((1, 2, 4) if options.device == "cpu" else (1, 4, 16), key=lambda size: go(size, few))
    return {"seconds": go(best, sum(map(len, groups.values()))), "batch_size": best}


def time_loop(photos: Path, teacher: str, scratch: Path, options: argparse.Namespace) -> dict[str, float]:
    """Seconds of one photo at a time, each step after the other."""
    import cv2
    from torch.nn.functional import interpolate

    model = load(teacher, options)
    torch.set_num_threads(options.threads)
    start = time.perf_counter()
    for path in sorted(photos.iterdir()):
        rgb_HW3 = cv2.cvtColor(cv2.imread(str(path)), cv2.COLOR_BGR2RGB)
        shape = model.label_shape(*rgb_HW3.shape[:2])
        depth_1HW = predict_depth(model, torch.from_numpy(model.prepare(rgb_HW3, shape))[None])
        depth_HW = interpolate(depth_1HW[:, None], rgb_HW3.shape[:2], mode="bilinear", align_corners=True)[0, 0]
        depth_HW = (depth_HW - depth_HW.min()) / (depth_HW.max() - depth_HW.min()) * 255
        cv2.imwrite(str(scratch / f"{path.stem}.png"), depth_HW.cpu().numpy().astype(np.uint8))
    return {"seconds": time.perf_counter() - start}


def predict_depth(model: Any, image_BCHW: torch.Tensor) -> torch.Tensor:
    from depthsieve.teachers import Batch

    depth_BHW: torch.Tensor = model.predict(Batch.of(image_BCHW.to(model.device))).depth
    return depth_BHW


def load(teacher: str, options: argparse.Namespace) -> Any:
    """The teacher, loaded as labelling does."""
    from depthsieve.teachers import load_teacher

    return load_teacher(teacher, device=options.device, dtype=options.dtype)


def time_parts(photos: Path, teacher: str, scratch: Path, options: argparse.Namespace) -> dict[str, float]:
    """Seconds of each part alone, on all cores."""
    from depthsieve.images.decode import decode

    model = load(teacher, options)
    files = sorted(photos.iterdir())
    found: dict[str, float] = {}

    def prepare(rgb_HW3: np.ndarray) -> np.ndarray:
        prepared: np.ndarray = model.prepare(rgb_HW3, model.label_shape(*rgb_HW3.shape[:2]))
        return prepared

    with ThreadPoolExecutor(options.threads) as pool:
        found["decode"], found["resize"] = 0.0, 0.0
        inputs: list[np.ndarray] = []
        for start in range(0, len(files), 16):  # decoded photos of all would not fit into every memory
            seconds, decoded = timed(
                lambda at=start: list(pool.map(lambda path: decode(path.read_bytes()).rgb_HW3, files[at : at + 16]))
            )  # type: ignore[misc]
            found["decode"] += seconds
            seconds, ready = timed(lambda rgbs=decoded: list(pool.map(prepare, rgbs)))  # type: ignore[misc]
            found["resize"] += seconds
            inputs += ready
    batches = [torch.from_numpy(np.stack(group)) for group in in_batches(inputs, options.batch_size)]
    if options.side == "bare":
        lanes = 1 if model.device.type == "cuda" else options.threads
        found["forward"], _ = forward(model, batches, lambda image_BCHW: image_BCHW, options, lanes)
        return found | utilisation(model, batches, found["forward"])
    views: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
        "forward": lambda image_BCHW: image_BCHW,
        "flip": lambda image_BCHW: image_BCHW.flip(-1),
        "lowres": lambda image_BCHW: half(model, image_BCHW),
    }
    maps, lanes = {}, 1
    if model.device.type == "cpu" and options.threads > 1:
        found["forward, one lane"], _ = forward(model, batches, views["forward"], options, 1)
        found["forward, lanes"], _ = forward(model, batches, views["forward"], options, options.threads)
        lanes = options.threads if found["forward, lanes"] < found["forward, one lane"] else 1
    for name, view in views.items():
        found[name], maps[name] = forward(model, batches, view, options, lanes)
    found["align"], codes = align(model, maps, options)
    found["encode"] = encode(model, maps["forward"], codes, scratch, options)
    if model.device.type == "cuda":
        found |= utilisation(model, batches, found["forward"])
    return found


def timed(what: Callable[[], Any]) -> tuple[float, Any]:
    """Seconds, and what came of it."""
    start = time.perf_counter()
    result = what()
    return time.perf_counter() - start, result


def in_batches(inputs: Iterable[np.ndarray], size: int) -> Iterator[list[np.ndarray]]:
    """Those of one shape together, ``size`` at a time."""
    groups: dict[tuple[int, ...], list[np.ndarray]] = {}
    for one in inputs:
        groups.setdefault(one.shape, []).append(one)
    for group in groups.values():
        yield from (group[start : start + size] for start in range(0, len(group), size))


def half(model: Any, image_BCHW: torch.Tensor) -> torch.Tensor:
    """What the signal "lowres" looks at."""
    from depthsieve.reliability.signals import lowres_view

    return lowres_view(image_BCHW, model.half_shape(tuple(image_BCHW.shape[2:])))


def forward(
    model: Any,
    batches: list[torch.Tensor],
    view: Callable[[torch.Tensor], torch.Tensor],
    options: argparse.Namespace,
    lanes: int,
) -> tuple[float, list[torch.Tensor]]:
    """Seconds of the forward passes alone: views are made and copied before, maps come back after."""
    images = [view(batch) for batch in batches]
    if model.device.type == "cuda":
        images = [image.to(model.device) for image in images]

    def predict(image_BCHW: torch.Tensor) -> torch.Tensor:
        torch.set_num_threads(options.threads // lanes)
        return predict_depth(model, image_BCHW)

    with ThreadPoolExecutor(lanes) as pool:
        list(pool.map(predict, images[:lanes]))
        wait_for(model)
        seconds, maps = timed(lambda: (list(pool.map(predict, images)), wait_for(model))[0])
    return seconds, [map_.cpu() for map_ in maps]


def wait_for(model: Any) -> None:
    """A GPU answers before it has done its work."""
    if model.device.type == "cuda":
        torch.cuda.synchronize()


def align(model: Any, maps: dict[str, list[torch.Tensor]], options: argparse.Namespace) -> tuple[float, Any]:
    """Seconds of the flip's disagreement, codes and histograms, on all cores."""
    from depthsieve.reliability.code import encode_error, histogram
    from depthsieve.reliability.fusion import fuse, relative_error, shipped_calibration
    from depthsieve.reliability.scale import CODE_VERSION
    from depthsieve.reliability.signals import flip_disagreement

    def code(pair: tuple[torch.Tensor, torch.Tensor]) -> Any:
        torch.set_num_threads(1)
        delta_BHW = flip_disagreement(*pair, model.quantity)
        code_BHW = encode_error(
            fuse(pair[0], {"flip": relative_error(pair[0], delta_BHW)}, model.quantity, shipped_calibration()),
            version=CODE_VERSION,
        )
        return code_BHW, histogram(code_BHW)

    with ThreadPoolExecutor(options.threads) as pool:
        return timed(lambda: list(pool.map(code, zip(maps["forward"], maps["flip"], strict=True))))


def encode(model: Any, maps: list[torch.Tensor], codes: Any, scratch: Path, options: argparse.Namespace) -> float:
    """Seconds of packing and writing shards, on all cores."""
    from depthsieve.core.records import ImageRecord, Shard
    from depthsieve.storage.local import LocalRoot
    from depthsieve.store import schema
    from depthsieve.store.writer import CommitContext, ShardArrays, publish_group

    by_shape: dict[tuple[int, ...], list[tuple[Any, Any, Any]]] = {}
    for depth_BHW, (code_BHW, count_BK) in zip(maps, codes, strict=True):
        rows = zip(depth_BHW.half().numpy(), code_BHW.numpy(), count_BK.numpy(), strict=True)
        by_shape.setdefault(tuple(depth_BHW.shape[1:]), []).extend(rows)
    shards = []
    for number, (shape, rows) in enumerate(by_shape.items()):
        depth, code, count = (np.stack(column) for column in zip(*rows, strict=True))
        images = tuple(ImageRecord(f"default/{number}-{row}", 1, 1, 1, 1) for row in range(len(rows)))
        arrays = {"depth": depth, "reliability": code, "histogram": count.astype(np.uint32)}
        for spec in schema.ROWS:
            if spec.name not in arrays:
                kind = object if spec.dtype == "str" else spec.dtype
                arrays[spec.name] = np.full(len(rows), "" if kind is object else 0, kind)
        arrays["id"] = np.array([image.id for image in images], object)
        shards.append((Shard(schema.shard_name(0, number), (shape[0], shape[1]), images), ShardArrays(arrays)))
    context = CommitContext("", model.quantity, model.unit, "")
    root = LocalRoot(scratch)
    with ThreadPoolExecutor(options.threads) as pool:
        seconds, _ = timed(lambda: list(pool.map(lambda one: publish_group(root, *one, context), shards)))
    return seconds


def utilisation(model: Any, batches: list[torch.Tensor], seconds: float) -> dict[str, float]:
    """FLOPs a second of the forward pass, and of a matrix product of the same type on this device."""
    from torch.utils.flop_counter import FlopCounterMode

    flops = 0
    for batch in batches:
        with FlopCounterMode(display=False) as counter:
            predict_depth(model, batch)
        flops += counter.get_total_flops()
    side, dtype = (8192 if model.device.type == "cuda" else 2048), getattr(torch, model.dtype)
    left, right = (torch.randn(side, side, device=model.device, dtype=dtype) for _ in range(2))
    left @ right
    wait_for(model)
    product, _ = timed(lambda: ([left @ right for _ in range(10)], wait_for(model)))
    return {"teraflops": flops / seconds / 1e12, "ceiling, teraflops": 10 * 2 * side**3 / product / 1e12}


# The whole


def measure(side: str, photos: Path, teacher: str, arguments: argparse.Namespace) -> dict[str, float]:
    """One side in a fresh process."""
    command = [sys.executable, __file__, str(photos), "--teacher", teacher, "--side", side]
    for option in ("threads", "batch_size", "device", "dtype"):
        command += [f"--{option.replace('_', '-')}", str(getattr(arguments, option))]
    done = subprocess.run(command + ["--slow"] * arguments.slow, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{side} failed:\n{done.stderr}")
    figures: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return figures


def run_side(arguments: argparse.Namespace) -> None:
    """The work of a process that :func:`measure` has started."""
    side, photos, teacher = arguments.side, arguments.photos, arguments.teacher
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        if side.startswith("label "):
            found = time_label(photos, teacher, side.removeprefix("label "), scratch, arguments)
        else:
            sides = {"parts": time_parts, "bare": time_parts, "pipeline": time_pipeline, "loop": time_loop}
            found = sides[side](photos, teacher, scratch, arguments)
    print(json.dumps(found))


def ratios_of(sides: dict[str, dict[str, float]]) -> dict[str, float]:
    """What the figures of one round come to."""
    parts, label = sides["parts"], {name: sides[f"label {name}"]["seconds"] for name in LABEL}
    rest = parts["decode"] + parts["resize"] + parts["encode"]
    found = {
        "label over the sum of its parts, no signal": label["none"] / (rest + parts["forward"]),
        "label over the sum of its parts, flip": label["flip"] / (rest + parts["forward"] + parts["flip"]),
        "bare forward rate reached, no signal": parts["forward"] / label["none"],
        "bare forward rate reached, flip": (parts["forward"] + parts["flip"]) / label["flip"],
        "times as fast as the pipeline, no signal": sides["pipeline"]["seconds"] / label["none"],
        "times as fast as the loop, no signal": sides["loop"]["seconds"] / label["none"],
        "flip costs, over the plain forward": (label["flip"] - label["none"]) / parts["forward"],
        "lowres costs, over the plain forward": (label["lowres"] - label["none"]) / parts["forward"],
    }
    if "teraflops" in parts:
        found["model FLOPs utilisation"] = parts["teraflops"] / parts["ceiling, teraflops"]
    return found


GRID = {
    "cuda": [(teacher, dtype) for teacher in ("vit-s", "vit-b", "vit-l") for dtype in ("float16", "bfloat16")],
    "cpu": [("vit-s", "float32")],
}


def run_grid(arguments: argparse.Namespace) -> None:
    """The table of :data:`GRID`, and all of its figures as JSON."""
    kind = torch.device(arguments.device).type
    where = torch.cuda.get_device_name() if kind == "cuda" else f"{arguments.threads} threads of a CPU"
    print(f"{arguments.images} photos, {where}, torch {torch.__version__}; medians of {arguments.rounds} rounds\n")
    print(
        "| teacher at 518 | batch | images a second, file to commit | of the bare forward rate | of a matrix product |"
    )
    print("| --- | --- | --- | --- | --- |", flush=True)
    figures = []
    for name, arguments.dtype in GRID[kind]:
        with tempfile.TemporaryDirectory() as folder:
            photos = gather(arguments.photos, Path(folder) / "photos", arguments.images)
            teacher = find_teacher(name, Path(folder))
            said = arguments.batch_size
            arguments.batch_size = said or found_batch_size(photos, teacher, arguments, Path(folder))
            rounds = [
                {side: measure(side, photos, teacher, arguments) for side in ("label none", "bare")}
                for _ in range(arguments.rounds)
            ]
        seconds = [one["label none"]["seconds"] for one in rounds]
        shares = [one["bare"]["forward"] / one["label none"]["seconds"] for one in rounds]
        ceiling = [one["bare"]["teraflops"] / one["bare"]["ceiling, teraflops"] for one in rounds]
        rate, share, used = arguments.images / statistics.median(seconds), *map(statistics.median, (shares, ceiling))
        print(
            f"| {name}, {arguments.dtype} | {arguments.batch_size} | {rate:.3g} | {share:.2f} | {used:.2f} |",
            flush=True,
        )
        figures.append(
            {"teacher": name, "dtype": arguments.dtype, "batch_size": arguments.batch_size, "rounds": rounds}
        )
        arguments.batch_size = said
    body = {"where": where, "torch": torch.__version__, "images": arguments.images, "grid": figures}
    arguments.out.with_suffix(".json").write_text(json.dumps(body, indent=2) + "\n")


def draw(rounds: list[dict[str, dict[str, float]]], images: int, title: str, path: Path) -> None:
    """A bar for each side, the parts stacked: milliseconds an image, medians."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    def median(side: str, name: str = "seconds") -> float:
        return statistics.median(sides[side][name] for sides in rounds) / images * 1000

    figure, axes = pyplot.subplots(figsize=(8, 3.6), layout="constrained")
    left = 0.0
    for name in ("decode", "resize", "forward", "encode", "flip", "align"):
        width = median("parts", name)
        axes.barh("parts, alone", width, left=left, label=name)
        left += width
    bars = {f"depthsieve, {name}": median(f"label {name}") for name in ("none", "lowres", "flip")}
    bars |= {"transformers' pipeline": median("pipeline"), "one at a time": median("loop")}
    for name, width in bars.items():
        axes.barh(name, width, color="0.45")
        axes.text(width, name, f" {width:.3g}", va="center")
    axes.invert_yaxis()
    axes.margins(x=0.12)
    axes.set_xlabel("milliseconds an image")
    axes.set_title(title)
    axes.legend(ncols=6, fontsize="small", loc="upper center", bbox_to_anchor=(0.4, -0.2))
    figure.savefig(path, dpi=120)


def main() -> None:
    """Rounds of all sides in turn."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("photos", type=Path, nargs="?", help="a folder of images; without it, scenes are rendered")
    parser.add_argument("--teacher", default="tiny", help="tiny, vit-s, vit-b, vit-l (random weights), or a folder")
    parser.add_argument("--images", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--batch-size", type=int, help="default: as labelling finds by itself")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--dtype", help="default: as labelling chooses for the device")
    parser.add_argument("--out", type=Path, default=Path("throughput"), help="write OUT.json and OUT.png")
    parser.add_argument("--slow", action="store_true", help="choose the pipeline's batch size by four photos, not 16")
    parser.add_argument("--grid", action="store_true", help="the table of teachers and number types, not the sides")
    parser.add_argument("--side", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.side:
        run_side(arguments)
        return
    if arguments.grid:
        run_grid(arguments)
        return
    from depthsieve.core.records import default_dtype

    arguments.dtype = arguments.dtype or default_dtype(torch.device(arguments.device).type)
    with tempfile.TemporaryDirectory() as folder:
        photos = gather(arguments.photos, Path(folder) / "photos", arguments.images)
        teacher = find_teacher(arguments.teacher, Path(folder))
        arguments.batch_size = arguments.batch_size or found_batch_size(photos, teacher, arguments, Path(folder))
        print(f"{arguments.images} photos, batches of {arguments.batch_size}, {arguments.threads} threads", flush=True)
        rounds = []
        for number in range(arguments.rounds):
            names = ["parts", "pipeline", "loop", *(f"label {name}" for name in LABEL)]
            order = names if number % 2 == 0 else names[::-1]
            rounds.append({side: measure(side, photos, teacher, arguments) for side in order})
            print(f"round {number + 1}: {json.dumps(rounds[-1])}", flush=True)
    ratios = [ratios_of(sides) for sides in rounds]
    for name in ratios[0]:
        values = sorted(found[name] for found in ratios)
        print(f"{name}: {statistics.median(values):.3f} ({values[0]:.3f} to {values[-1]:.3f})")
    settings = {
        name: getattr(arguments, name) for name in ("teacher", "images", "threads", "batch_size", "device", "dtype")
    }
    body = settings | {"torch": torch.__version__, "rounds": rounds, "ratios": ratios}
    arguments.out.with_suffix(".json").write_text(json.dumps(body, indent=2) + "\n")
    title = f"{arguments.teacher}, {arguments.device}, {arguments.dtype}, batches of {arguments.batch_size}"
    draw(rounds, arguments.images, title, arguments.out.with_suffix(".png"))


def found_batch_size(photos: Path, teacher: str, arguments: argparse.Namespace, folder: Path) -> int:
    """What labelling finds."""
    import depthsieve
    from depthsieve.store import open_store

    options = {name: getattr(arguments, name) for name in ("device", "dtype", "threads")}
    depthsieve.plan(photos, folder / "planned", write=True, trial=False, progress=False, teacher=teacher, **options)
    return open_store(folder / "planned").generations()[0].profile.batch_size


if __name__ == "__main__":
    main()
