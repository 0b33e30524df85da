"""What labels weigh in each encoding and how fast they are packed and unpacked, on the teacher's own output.

    python benchmarks/encoding.py PHOTOS              # the embedded teacher, at its own size and at 518

Maps of depth and reliability are what `label` would store, with the signal flip. A teacher with random weights would
not do: its maps are nearly constant. Every codec goes through all maps, one after the other on one core, several
rounds in turn, and the best round of each counts; speeds are printed as ratios to 16-bit PNG of the same run, so that a
slow machine does not matter. Decoding is into a buffer that is there. Prints rows of the tables in docs/encoding.md.

- **16-bit PNG** is each map scaled to 0..65535 of its own range, by OpenCV at its default level, as one would write it.
- **worst error** is relative, over pixels of at least 2^-14 (about 6e-5), against the teacher's float32.
- **codes** of fewer bits round the reliability code down to multiples of 2, 4 or 8 codes. `drop` is 10%; masked is the
  share that the threshold really masks, which ties make smaller: over images, over batches of 8, over the data set, and
  in random crops of three quarters of the short side under the image's threshold.
- **images** are the photos at label shape for 518, as `--store-images` would keep them; **the original** is decoded and
  resized as labelling does it.
"""

import argparse
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from numcodecs import Blosc, GZip, Zstd
from numpy.typing import NDArray

from depthsieve.core.encodings import EARLIER_ENCODINGS, ENCODINGS
from depthsieve.images.decode import decode
from depthsieve.labelling.batch import LabelWork, predict_labels, reliability_codes
from depthsieve.reliability.masking import threshold_code
from depthsieve.store.stored_images import to_label_shape
from depthsieve.teachers import Batch, load_teacher

Array = NDArray[Any]
DROP = 0.10
IMAGES = 62_000_000
SLOW_S = 2.0
_JPEG, _CHROMA, _WEBP = cv2.IMWRITE_JPEG_QUALITY, cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_WEBP_QUALITY
IMAGE_FORMATS = (
    ("**JPEG 90, 4:2:0**", ".jpg", (_JPEG, 90, _CHROMA, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_420)),
    ("JPEG 80, 4:2:0", ".jpg", (_JPEG, 80, _CHROMA, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_420)),
    ("JPEG 85, 4:2:0", ".jpg", (_JPEG, 85, _CHROMA, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_420)),
    ("JPEG 95, 4:2:0", ".jpg", (_JPEG, 95, _CHROMA, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_420)),
    ("JPEG 90, 4:4:4", ".jpg", (_JPEG, 90, _CHROMA, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444)),
    ("WebP 80", ".webp", (_WEBP, 80)),
    ("WebP 90", ".webp", (_WEBP, 90)),
)
"""What takes longer to pack all maps is packed only once."""


@dataclass(frozen=True)
class Codec:
    """``pack`` a map into bytes, ``unpack`` them into a buffer."""

    pack: Callable[[Array], Any]
    unpack: Callable[[Any, Array], object]


def plain(codec: Any) -> Codec:
    """One of Zarr's codecs."""
    return Codec(codec.encode, codec.decode)


def png() -> Codec:
    return Codec(lambda map_: cv2.imencode(".png", map_)[1], lambda data, out: cv2.imdecode(data, cv2.IMREAD_UNCHANGED))


def codecs() -> dict[str, Codec]:
    """All that are compared, the encodings of ours first."""
    named = {f"**{name}**: {one.codec} {one.level}": one for name, one in ENCODINGS.items()}
    named |= {f"earlier: {one.codec} {one.level}": one for one in EARLIER_ENCODINGS}
    found = {name: plain(Blosc(one.codec, one.level, Blosc.SHUFFLE)) for name, one in named.items()}
    for codec, level, shuffle in (
        ("zstd", 1, "shuffle"),
        ("zstd", 5, "shuffle"),
        ("zstd", 3, "bitshuffle"),
        ("zstd", 9, "bitshuffle"),
        ("lz4", 5, "shuffle"),
        ("lz4hc", 9, "shuffle"),
    ):
        found[f"{codec} {level} {shuffle}"] = plain(Blosc(codec, level, getattr(Blosc, shuffle.upper())))
    return found | {"zstd 3 without blosc": plain(Zstd(3)), "gzip 5": plain(GZip(5)), "PNG": png()}


@dataclass
class Cost:
    """Of one codec over all maps."""

    bytes: int
    pack_s: float
    unpack_s: float


def measure(maps: Sequence[Array], sides: Mapping[str, Codec], rounds: int) -> dict[str, Cost]:
    """The best round of each; the sides take turns."""
    found: dict[str, Cost] = {}
    packed: dict[tuple[str, int], Any] = {}
    for round_ in range(rounds):
        for name, codec in sides.items():
            cost = Cost(0, 0.0, 0.0)
            once = round_ > 0 and found[name].pack_s > SLOW_S
            for number, map_ in enumerate(maps):
                if not once:
                    start = time.perf_counter()
                    packed[name, number] = codec.pack(map_)
                    cost.pack_s += time.perf_counter() - start
                data, out = packed[name, number], np.empty_like(map_)
                cost.bytes += len(data)
                start = time.perf_counter()
                codec.unpack(data, out)
                cost.unpack_s += time.perf_counter() - start
            if round_:
                cost.pack_s = found[name].pack_s if once else min(cost.pack_s, found[name].pack_s)
                cost.unpack_s = min(cost.unpack_s, found[name].unpack_s)
            found[name] = cost
    return found


def label(photos: Path, size: int | None) -> tuple[list[Array], list[Array]]:
    """Depth float32 and reliability uint8 of each photo, [H,W]."""
    teacher = load_teacher("tiny-v1", size=size, device="cpu", dtype="float32")
    depths, codes = [], []
    for path in sorted(photos.iterdir()):
        rgb_HW3 = decode(path.read_bytes()).rgb_HW3
        image_1CHW = torch.from_numpy(teacher.prepare(rgb_HW3, teacher.label_shape(*rgb_HW3.shape[:2])))[None]
        with torch.inference_mode():
            prediction, relative = predict_labels(Batch.of(image_1CHW), LabelWork(teacher, ("flip",)))
            depth_1HW = prediction.depth
            valid_1HW = torch.ones_like(depth_1HW, dtype=torch.bool)
            codes.append(reliability_codes(depth_1HW, relative, valid_1HW, teacher.quantity)[0].numpy())
        depths.append(depth_1HW[0].numpy())
    return depths, codes


def print_costs(what: str, costs: Mapping[str, Cost], pixels: int) -> None:
    """A table of codecs, relative to PNG."""
    png_cost = costs["PNG"]
    print(f"\n| {what} | bytes a pixel | of PNG's | packs, times PNG | unpacks, times PNG |\n" + "| --- " * 5 + "|")
    for name, cost in costs.items():
        pack, unpack = png_cost.pack_s / cost.pack_s, png_cost.unpack_s / cost.unpack_s
        print(f"| {name} | {cost.bytes / pixels:.3f} | {cost.bytes / png_cost.bytes:.2f} | {pack:.2g} | {unpack:.2g} |")


def rounded(depth_HW: Array, bits: int) -> Array:
    """float16 with so many bits fewer of its mantissa, rounded to nearest."""
    whole_HW = depth_HW.astype(np.float16).view(np.uint16).astype(np.uint32)
    half = (1 << bits) >> 1
    return (((whole_HW + half) >> bits) << bits).astype(np.uint16).view(np.float16)


def scaled(depth_HW: Array) -> Array:
    """uint16 over the map's own range."""
    low, high = depth_HW.min(), depth_HW.max()
    return np.round((depth_HW - low) / (high - low) * 65535).astype(np.uint16)


def unscaled(steps_HW: Array, depth_HW: Array) -> Array:
    low, high = np.float64(depth_HW.min()), np.float64(depth_HW.max())
    return np.asarray(steps_HW / 65535 * (high - low) + low)


def worst(depth_HW: Array, stored_HW: Array) -> float:
    """The worst relative error where there is any depth to speak of."""
    told = depth_HW >= 2**-14
    return float((np.abs(stored_HW.astype(np.float64) - depth_HW)[told] / depth_HW[told]).max())


def print_precisions(depths: Sequence[Array], pixels: int) -> None:
    """A table of number types, all packed by one codec."""
    blosc = Blosc("zstd", 5, Blosc.SHUFFLE)
    print("\n| depth as | bytes a pixel (zstd 5) | worst error |\n| --- | --- | --- |")
    kinds: dict[str, Callable[[Array], Array]] = {"**float16**": lambda map_: map_.astype(np.float16)}
    for bits in (1, 2, 3):
        kinds[f"float16 without its last {bits} bits"] = partial(rounded, bits=bits)
    kinds |= {"uint16 of its range": scaled, "float32": lambda map_: map_}
    for name, made in kinds.items():
        stored = [np.ascontiguousarray(made(map_)) for map_ in depths]
        size = sum(len(blosc.encode(map_)) for map_ in stored)
        pairs = list(zip(depths, stored, strict=True))
        error = max(worst(map_, unscaled(one, map_) if one.dtype == np.uint16 else one) for map_, one in pairs)
        print(f"| {name} | {size / pixels:.3f} | {error:.1e} |")


def print_bits(codes: Sequence[Array], pixels: int) -> None:
    """A table of bits of code: what they weigh and what they mask."""
    blosc = {name: Blosc(one.codec, one.level, Blosc.SHUFFLE) for name, one in ENCODINGS.items()}
    titles = " | ".join(f"{name}, bytes a pixel" for name in blosc)
    print(f"\n| code | {titles} | image: mean (least) | batch | data set | crops: mean (spread) |")
    print("| --- " * (5 + len(blosc)) + "|")
    for bits in (8, 6, 5):
        step = 1 << (8 - bits)
        coarse = [np.where(map_ == 0, 0, (map_ - 1) // step * step + 1).astype(np.uint8) for map_ in codes]
        weights = " | ".join(f"{sum(len(one.encode(map_)) for map_ in coarse) / pixels:.3f}" for one in blosc.values())
        print(f"| {bits} bits | {weights} | {masked(coarse)} |")


def masked(codes: Sequence[Array]) -> str:
    """The shares really masked, for a drop of 10%."""
    random = np.random.default_rng(0)
    count_NK = np.stack([np.bincount(map_.ravel(), minlength=256) for map_ in codes])
    thresholds = [threshold_code(count_K, DROP) for count_K in count_NK]
    images = [float((map_ < t).mean()) for map_, t in zip(codes, thresholds, strict=True)]
    batches = []
    for _ in range(500):
        rows = random.choice(len(codes), min(8, len(codes)), replace=False)
        batches.append(share(count_NK[rows].sum(axis=0)))
    crops = []
    for map_, t in zip(codes, thresholds, strict=True):
        side = min(map_.shape) * 3 // 4
        for _ in range(20):
            y, x = (int(random.integers(whole - side + 1)) for whole in map_.shape)
            crops.append(float((map_[y : y + side, x : x + side] < t).mean()))
    whole = share(count_NK.sum(axis=0))
    spread = f"{np.mean(crops):.1%} ({np.std(crops):.1%})"
    return f"{np.mean(images):.1%} ({min(images):.1%}) | {np.mean(batches):.1%} | {whole:.1%} | {spread}"


def print_images(photos: Path, size: int) -> None:
    """What an image at label shape weighs and loses, and how fast it is decoded, by format and quality."""
    teacher = load_teacher("tiny-v1", size=size, device="cpu", dtype="float32")
    paths = sorted(photos.iterdir())
    originals = [path.read_bytes() for path in paths]
    images, start = [], time.perf_counter()
    for data in originals:
        rgb_HW3 = decode(data).rgb_HW3
        images.append(to_label_shape(rgb_HW3, teacher.label_shape(*rgb_HW3.shape[:2])))
    original_s = time.perf_counter() - start
    print("\n| | KB an image | PSNR: mean (least) | packs in, of JPEG 90's | decodes in, of the original |")
    print("| --- " * 5 + "|")
    first_s = 0.0
    for name, suffix, how in IMAGE_FORMATS:
        start = time.perf_counter()
        packed = [cv2.imencode(suffix, rgb_HW3[:, :, ::-1], how)[1] for rgb_HW3 in images]
        pack_s = time.perf_counter() - start
        first_s = first_s or pack_s
        start = time.perf_counter()
        unpacked = [cv2.imdecode(data, cv2.IMREAD_COLOR_RGB) for data in packed]
        seconds = time.perf_counter() - start
        psnr = [cv2.PSNR(one, other) for one, other in zip(images, unpacked, strict=True)]
        kilobytes = np.mean([len(data) for data in packed]) / 1e3
        print(
            f"| {name} | {kilobytes:.0f} | {np.mean(psnr):.1f} dB ({min(psnr):.1f}) | {pack_s / first_s:.1f} | "
            f"{seconds / original_s:.3f} |"
        )


def share(count_K: Array) -> float:
    """The share of the pixels in a histogram that its own threshold masks."""
    return float(count_K[: threshold_code(count_K, DROP)].sum() / count_K.sum())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photos", type=Path)
    parser.add_argument("--rounds", type=int, default=3)
    chosen = parser.parse_args()
    cv2.setNumThreads(1)
    for size in (None, 518):
        depths, codes = label(chosen.photos, size)
        pixels = sum(map_.size for map_ in depths)
        low = sum(int((map_ < 2**-14).sum()) for map_ in depths) / pixels
        print(
            f"\n## tiny-v1 at {size or 'its own size'}: {len(depths)} photos, {pixels / len(depths):,.0f} pixels each"
        )
        print(f"\n{low:.2%} of the pixels are below 2^-14.")
        half = [map_.astype(np.float16) for map_ in depths]
        depth_costs = measure(half, {name: one for name, one in codecs().items() if name != "PNG"}, chosen.rounds)
        depth_costs |= measure([scaled(map_) for map_ in depths], {"PNG": png()}, chosen.rounds)
        code_costs = measure(codes, codecs(), chosen.rounds)
        print_costs("depth, float16", depth_costs, pixels)
        print_costs("reliability, uint8", code_costs, pixels)
        print("\n| a label | bytes | 62 million |\n| --- | --- | --- |")
        for name, cost in depth_costs.items():
            whole = (cost.bytes + code_costs[name].bytes) / len(depths)
            print(f"| {name} | {whole / 1e3:,.0f} KB | {whole * IMAGES / 1e12:.1f} TB |")
        print_precisions(depths, pixels)
        print_bits(codes, pixels)
    print_images(chosen.photos, 518)


if __name__ == "__main__":
    main()
