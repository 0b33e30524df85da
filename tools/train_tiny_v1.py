"""Trains `tiny-v1`, the first embedded teacher, on rendered scenes, from scratch, on a CPU or a GPU.

    python tools/train_tiny_v1.py --minutes 100 --out runs/tiny --processes 2  # the same again resumes
    python benchmarks/evaluate_tiny.py runs/tiny/model                           # AbsRel, delta1, AURG; two baselines

Needs torch, transformers, numpy and this package. Every image is rendered fresh: step s of a run sees the seeds
FIRST_SEED + s * batch and on, which no held-out scene shares. The learning rate follows the time spent in training (or
the steps, with --steps) and not the clock on the wall, so that a stop changes neither its shape nor its end.

Array legend: B batch; C channels; H, W pixels.
"""

from __future__ import annotations

import argparse
import copy
import math
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.utils.data import DataLoader, IterableDataset
from transformers import DepthAnythingConfig, DepthAnythingForDepthEstimation, Dinov2Config

from depthsieve.scenes import render_scenes

FIRST_SEED = 1 << 32
MEAN_C, STD_C = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
PATCH = 14
MAX_DEPTH = 80.0  # metres; farther counts only in the plain loss
SHORT_SIDE = 126
LAYERS = "backbone.encoder.layer."
# Sizes in patches, as often as they come. The first share of the training runs at the small ones: many cheap steps.
SMALL = ((7, 9), (7, 9), (7, 10), (9, 7), (7, 7))
LARGE = ((9, 12), (9, 12), (9, 12), (9, 13), (12, 9), (9, 9), (9, 16), (10, 13))


def build_model(layers: int = 6) -> nn.Module:
    """A Depth Anything of 3.5 million parameters, for training: its last ReLU is put back by `save`. Fewer than six
    ``layers`` (four at least) make a smaller one."""
    backbone = Dinov2Config(
        hidden_size=192,
        num_hidden_layers=layers,
        num_attention_heads=3,
        mlp_ratio=4,
        patch_size=PATCH,
        image_size=SHORT_SIDE,
        out_indices=[round(layers * sixths / 6) for sixths in (2, 3, 5, 6)],
        reshape_hidden_states=False,
        apply_layernorm=True,
        layerscale_value=1.0,
    )
    config = DepthAnythingConfig(
        backbone_config=backbone,
        patch_size=PATCH,
        reassemble_hidden_size=192,
        reassemble_factors=[4, 2, 1, 0.5],
        neck_hidden_sizes=[32, 48, 96, 128],
        fusion_hidden_size=48,
        head_hidden_size=24,
    )
    model = DepthAnythingForDepthEstimation(config)
    # A last ReLU that starts below zero never learns: start above it, and train without it.
    nn.init.constant_(model.head.conv3.bias, 0.4)
    model.head.activation2 = nn.Identity()
    # For a hundred tokens, plain matrix products are quicker than the fused attention (a tenth of the step on a CPU).
    model.backbone.set_attn_implementation("eager")
    return model


def start_from(model: nn.Module, folder: Path) -> None:
    """Loads a trained model's weights; of its layers as many as ``model`` has, at even distances."""
    trained = DepthAnythingForDepthEstimation.from_pretrained(folder, dtype=torch.float32).state_dict()
    before = 1 + max(int(name.split(".")[3]) for name in trained if name.startswith(LAYERS))
    count = len(model.backbone.encoder.layer)
    chosen = {round(layer * (before - 1) / (count - 1)): layer for layer in range(count)}
    held = {}
    for name, value in trained.items():
        if name.startswith(LAYERS):
            number, rest = name.removeprefix(LAYERS).split(".", 1)
            if int(number) in chosen:
                held[f"{LAYERS}{chosen[int(number)]}.{rest}"] = value
        else:
            held[name] = value
    model.load_state_dict(held)


class RenderedBatches(IterableDataset[tuple[Tensor, Tensor]]):
    """Endless fresh batches: uint8 RGB [B,H,W,3] and float32 disparity [B,H,W].

    Scenes are a function of step and rank, sizes also of how far the training is.
    """

    def __init__(self, first_step: int, batch: int, small_share: float, rank: int, ranks: int) -> None:
        self.first_step, self.batch, self.small_share = first_step, batch, small_share
        self.rank, self.ranks = rank, ranks
        self.share = torch.zeros(1).share_memory_()  # how far the training is, seen by rendering processes too

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        info = torch.utils.data.get_worker_info()
        worker, workers = (info.id, info.num_workers) if info else (0, 1)
        step = self.first_step + worker
        while True:
            height, width = size_of_step(step, small=float(self.share) < self.small_share)
            first = FIRST_SEED + step * self.batch + self.rank
            seeds = range(first, FIRST_SEED + (step + 1) * self.batch, self.ranks)
            rgb_BHW3, disparity_BHW = render_scenes(seeds, height, width)
            yield torch.from_numpy(rgb_BHW3), torch.from_numpy(disparity_BHW)
            step += workers


def size_of_step(step: int, small: bool) -> tuple[int, int]:
    sizes = SMALL if small else LARGE
    rows, columns = sizes[int(np.random.default_rng(step).integers(len(sizes)))]
    return rows * PATCH, columns * PATCH


def augment(image_BCHW: Tensor, generator: torch.Generator) -> Tensor:
    """Colour changes that depth does not follow: gain a channel, saturation, gamma, brightness; values 0..1."""
    count = len(image_BCHW)

    def draw(low: float, high: float, channels: int = 1) -> Tensor:
        return (low + (high - low) * torch.rand(count, channels, 1, 1, generator=generator)).to(image_BCHW.device)

    grey_B1HW = image_BCHW.mean(1, keepdim=True)
    image_BCHW = grey_B1HW + (image_BCHW - grey_B1HW) * draw(0.0, 1.6)
    image_BCHW = (image_BCHW * draw(0.85, 1.15, 3)).clamp(1e-3, 1) ** draw(0.65, 1.5)
    middle_B111 = image_BCHW.mean((1, 2, 3), keepdim=True)
    return (middle_B111 + (image_BCHW - middle_B111) * draw(0.7, 1.5) + draw(-0.1, 0.1)).clamp(0, 1)


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


class Muon:
    """Momentum with orthogonalised steps (K. Jordan, 2024), for the matrices of the encoder layers.

    Update RMS 0.2 * rate, as AdamW's (Liu et al., 2025). Matrices of one shape are worked on at once, and the processes
    share them out, each orthogonalising its own.
    """

    def __init__(self, model: nn.Module, rank: int, ranks: int, momentum: float = 0.95, decay: float = 0.03) -> None:
        layers = model.backbone.encoder.layer
        matrices = [p for p in layers.parameters() if p.ndim == 2]
        shapes = sorted({tuple(sorted(p.shape)) for p in matrices})
        self.groups = [[p for p in matrices if tuple(sorted(p.shape)) == shape] for shape in shapes]
        self.held = [torch.zeros(len(g), *s, device=g[0].device) for g, s in zip(self.groups, shapes, strict=True)]
        self.rank, self.ranks, self.momentum, self.decay = rank, ranks, momentum, decay

    @torch.no_grad()
    def step(self, rate: float) -> None:
        for group, held in zip(self.groups, self.held, strict=True):
            wide = [p.shape[0] <= p.shape[1] for p in group]
            slope = torch.stack([p.grad if w else p.grad.T for p, w in zip(group, wide, strict=True)])
            held.lerp_(slope, 1 - self.momentum)
            own = slice(self.rank, None, self.ranks)
            update = torch.zeros_like(held)
            update[own] = orthogonalised(torch.lerp(slope[own], held[own], self.momentum))
            if self.ranks > 1:
                dist.all_reduce(update)
            size = 0.2 * rate * math.sqrt(held.shape[2])
            for parameter, change, w in zip(group, update, wide, strict=True):
                parameter.mul_(1 - rate * self.decay).sub_(change if w else change.T, alpha=size)


def orthogonalised(matrix_NRC: Tensor) -> Tensor:
    """Newton-Schulz: each wide matrix [R,C] with its singular values brought near 1."""
    x = (matrix_NRC / (matrix_NRC.norm(dim=(1, 2), keepdim=True) + 1e-7)).bfloat16()
    for _ in range(4):
        square = torch.bmm(x, x.mT)
        x = torch.baddbmm(x, torch.baddbmm(square, square, square, beta=-4.775, alpha=2.0315), x, beta=3.4445)
    return x.float()


def train(rank: int, options: argparse.Namespace) -> None:
    """One process of the training. Several on a CPU, of one thread each, beat one of several threads: they meet once a
    step instead of in every operation, which matters when the machine is shared."""
    if options.processes > 1:
        torch.set_num_threads(1)
        meeting = f"file://{(options.out / 'meeting').resolve()}"
        dist.init_process_group("gloo", init_method=meeting, rank=rank, world_size=options.processes)
    torch.manual_seed(0)
    device = torch.device(options.device)
    model = build_model(options.layers)
    if options.start:
        start_from(model, options.start)
    model = model.to(device=device, memory_format=torch.channels_last)
    average = copy.deepcopy(model).eval().requires_grad_(False)
    muon = Muon(model, rank, options.processes)
    orthogonal = {id(p) for group in muon.groups for p in group}
    decayed = [p for p in model.parameters() if p.ndim >= 2 and id(p) not in orthogonal]
    others = [p for p in model.parameters() if p.ndim < 2]
    groups = [{"params": decayed, "weight_decay": 0.03}, {"params": others, "weight_decay": 0.0}]
    optimizer = torch.optim.AdamW(groups, betas=(0.9, 0.98), fused=True)
    step, spent = restore(options.out / "checkpoint.pt", model, average, optimizer, muon, device)
    generator = torch.Generator()
    mean, std = (torch.tensor(v, device=device).view(1, 3, 1, 1) for v in (MEAN_C, STD_C))
    batches = RenderedBatches(step, options.batch, options.small_share, rank, options.processes)
    ahead = 4 if options.workers else None
    saved = clock = time.monotonic()
    smooth = np.zeros(3)
    for rgb_BHW3, disparity_BHW in DataLoader(
        batches, batch_size=None, num_workers=options.workers, prefetch_factor=ahead
    ):
        spent = agreed(spent, options)
        share = step / options.steps if options.steps else spent / (60 * options.minutes)
        if share >= 1:
            break
        batches.share.fill_(share)
        rate = options.rate * min(1.0, (step + 1) / 300) * max(0.004, 0.5 * (1 + math.cos(math.pi * share)))
        for group in optimizer.param_groups:
            group["lr"] = rate
        generator.manual_seed(step * options.processes + rank)
        image_BCHW = augment(rgb_BHW3.to(device).permute(0, 3, 1, 2).float() / 255, generator)
        image_BCHW = ((image_BCHW - mean) / std).to(memory_format=torch.channels_last)
        with torch.autocast(device.type, dtype=torch.bfloat16):
            prediction_BHW = model(pixel_values=image_BCHW).predicted_depth
        disparity_BHW, prediction_BHW = disparity_BHW.to(device), prediction_BHW.float()
        target_BHW = normalised(disparity_BHW)
        plain = training_loss(prediction_BHW, target_BHW)
        loss = plain + options.aligned * aligned_loss(prediction_BHW, target_BHW, disparity_BHW >= 1 / MAX_DEPTH)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        average_gradients(model, options)
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        muon.step(options.muon_rate / options.rate * rate)
        step += 1
        if step % 4 == 0:
            with torch.no_grad():
                torch._foreach_lerp_(list(average.parameters()), list(model.parameters()), max(0.004, 20 / (step + 20)))
        smooth = 0.99 * smooth + 0.01 * np.array((plain.item(), loss.item(), 1.0))
        now = time.monotonic()
        spent, clock = spent + now - clock, now
        if rank == 0 and step % 100 == 0:
            plain_mean, loss_mean = smooth[:2] / smooth[2]
            print(f"step {step} minutes {spent / 60:.1f} plain {plain_mean:.4f} loss {loss_mean:.4f}", flush=True)
        if rank == 0 and now - saved > 60 * options.save_every:
            save(options.out, model, average, optimizer, muon, step, spent)
            saved = time.monotonic()
    if rank == 0:
        save(options.out, model, average, optimizer, muon, step, spent)
    if options.processes > 1:
        dist.destroy_process_group()


def agreed(spent: float, options: argparse.Namespace) -> float:
    """The first process's time: all must follow one learning rate and stop at one step."""
    if options.processes == 1:
        return spent
    held = torch.tensor([spent], dtype=torch.float64)
    dist.broadcast(held, src=0)
    return float(held)


def average_gradients(model: nn.Module, options: argparse.Namespace) -> None:
    if options.processes == 1:
        return
    gradients = [p.grad for p in model.parameters() if p.grad is not None]
    flat = torch.cat([g.flatten() for g in gradients])
    dist.all_reduce(flat)
    flat /= options.processes
    for gradient, part in zip(gradients, flat.split([g.numel() for g in gradients]), strict=True):
        gradient.copy_(part.view(gradient.shape))


def restore(
    checkpoint: Path,
    model: nn.Module,
    average: nn.Module,
    optimizer: torch.optim.Optimizer,
    muon: Muon,
    device: torch.device,
) -> tuple[int, float]:
    """Loads the checkpoint if there is one; the step to go on with and the seconds spent so far."""
    if not checkpoint.exists():
        return 0, 0.0
    held = torch.load(checkpoint, map_location=device, weights_only=True)
    model.load_state_dict(held["model"])
    average.load_state_dict(held["average"])
    optimizer.load_state_dict(held["optimizer"])
    for own, kept in zip(muon.held, held["muon"], strict=True):
        own.copy_(kept)
    print(f"resuming at step {held['step']}, {held['spent'] / 60:.1f} minutes in", flush=True)
    return int(held["step"]), float(held["spent"])


def save(
    out: Path,
    model: nn.Module,
    average: nn.Module,
    optimizer: torch.optim.Optimizer,
    muon: Muon,
    step: int,
    spent: float,
) -> None:
    """The checkpoint to go on from, replaced whole; and the averaged weights as a model folder in float16."""
    held = {
        "model": model.state_dict(),
        "average": average.state_dict(),
        "optimizer": optimizer.state_dict(),
        "muon": muon.held,
        "step": step,
        "spent": spent,
    }
    torch.save(held, out / "checkpoint.tmp")
    (out / "checkpoint.tmp").replace(out / "checkpoint.pt")
    half = copy.deepcopy(average).half()
    half.head.activation2 = nn.ReLU()
    half.save_pretrained(out / "model")


def main() -> None:
    parser = argparse.ArgumentParser(description="Train the embedded teacher on rendered scenes.")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--layers", type=int, default=6, choices=(4, 5, 6), help="fewer make a smaller, second teacher")
    parser.add_argument("--start", type=Path, metavar="FOLDER", help="begin from these weights, not at random")
    parser.add_argument("--minutes", type=float, default=100.0, help="training time, summed over restarts")
    parser.add_argument("--steps", type=int, default=0, help="train so many steps instead of --minutes")
    parser.add_argument("--batch", type=int, default=8, help="images a step, over all processes")
    parser.add_argument("--rate", type=float, default=1e-3, help="peak learning rate")
    parser.add_argument("--aligned", type=float, default=2.0, help="weight of the loss after scale and shift")
    parser.add_argument("--muon-rate", type=float, default=3e-3, help="peak learning rate of the encoder's matrices")
    parser.add_argument("--small-share", type=float, default=0.7, help="first share of the training, at small sizes")
    parser.add_argument("--processes", type=int, default=1, help="data-parallel processes of one thread each (CPU)")
    parser.add_argument("--workers", type=int, default=0, help="rendering processes each; 0 renders in line")
    parser.add_argument("--save-every", type=float, default=3.0, help="minutes between checkpoints")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    if options.processes == 1:
        train(0, options)
        return
    (options.out / "meeting").unlink(missing_ok=True)
    torch.multiprocessing.spawn(train, (options,), nprocs=options.processes)


if __name__ == "__main__":
    main()
