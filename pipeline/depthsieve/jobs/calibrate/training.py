"""How the error network is trained. Axes: B images of a batch, C channels, H row, W column; 2 both errors, 3 those and
the sky."""

import math
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn.functional import binary_cross_entropy_with_logits

from depthsieve.core.progress import Bar
from depthsieve.core.records import Quantity
from depthsieve.jobs.calibrate.examples import Example
from depthsieve.jobs.calibrate.progress import Unfinished
from depthsieve.reliability.network import SKY, ErrorNetwork, network_inputs

BATCH = 16
RATE = 4e-3
WARM = 0.15
"""The share of the steps in which the learning rate rises."""

MOST_ERROR = (1.0, 3.0)
"""Larger errors, of the two kinds, count as these."""

CROP = (144, 192)
"""The largest part of a label that is trained on."""

BETAS, DECAY, MOST_GRADIENT = (0.9, 0.99), 0.01, 1.0
KEPT_EVERY = 20
"""Steps after which the state is kept."""

SHARE, LEVEL = 0.75, 1.2
"""Of the second error in the order of pixels, and of the label's level: errors grow faster towards the horizon on what
the network has not seen than on what it was trained on. Chosen on scenes and photos that no network was trained on."""

ROUNDS = 30

RECORD = np.dtype([("photo", np.uint8, 3), ("maps", np.float16, 4), ("errors", np.float16, 2)])
"""A pixel of a stored example: colours, the other inputs of the network, and both errors (NaN where unknown; the second
alone in the sky)."""

WITH_CONFIDENCE = np.dtype([*RECORD.descr, ("confidence", np.float32)])
"""The same, with what the teacher says of its error."""


def stored(seen: Example, quantity: Quantity, seed: int) -> NDArray[np.void]:
    """What is kept of an example to train on, records [H,W]: all of it, or a part that the seed draws."""
    inputs_CHW = network_inputs(torch.from_numpy(seen.photo_HW3), torch.from_numpy(seen.depth_HW), quantity).numpy()
    record_HW = np.empty(seen.depth_HW.shape, RECORD if seen.confidence_HW is None else WITH_CONFIDENCE)
    if seen.confidence_HW is not None:
        record_HW["confidence"] = seen.confidence_HW
    record_HW["photo"] = seen.photo_HW3
    record_HW["maps"] = inputs_CHW[3:].transpose(1, 2, 0)
    record_HW["errors"] = np.minimum(seen.errors_2HW, np.array(MOST_ERROR, np.float32)[:, None, None]).transpose(
        1, 2, 0
    )
    dice = np.random.default_rng(seed)
    most = CROP if seen.depth_HW.shape[1] >= seen.depth_HW.shape[0] else CROP[::-1]
    sides = [min(side, limit) for side, limit in zip(seen.depth_HW.shape, most, strict=True)]
    top, left = (int(dice.integers(side - size + 1)) for side, size in zip(seen.depth_HW.shape, sides, strict=True))
    return record_HW[top : top + sides[0], left : left + sides[1]]


def batch_of(
    records: Sequence[NDArray[np.void]], dice: np.random.Generator | None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Inputs [B,C,H,W] and errors [B,2,H,W] of stored examples of one shape. With ``dice`` mirrored by chance, and the
    photo with other colours and noise than the teacher saw: what the network takes from it should not hang on those.
    """
    inputs, errors = [], []
    for record_HW in records:
        colours_HW3 = (record_HW["photo"].astype(np.float32) / 255 - 0.5) * 3
        if dice is not None:
            colours_HW3 *= (dice.uniform(0.8, 1.25) * dice.uniform(0.95, 1.05, 3)).astype(np.float32)
            colours_HW3 += np.float32(dice.uniform(-0.3, 0.3))
            colours_HW3 += dice.standard_normal(colours_HW3.shape, np.float32) * np.float32(dice.uniform(0, 0.1))
        whole_HWC = np.concatenate((colours_HW3, record_HW["maps"].astype(np.float32)), axis=2)
        error_HW2 = record_HW["errors"].astype(np.float32)
        if dice is not None and dice.random() < 0.5:
            whole_HWC, error_HW2 = whole_HWC[:, ::-1], error_HW2[:, ::-1]
        inputs.append(np.ascontiguousarray(whole_HWC.transpose(2, 0, 1)))
        errors.append(np.ascontiguousarray(error_HW2.transpose(2, 0, 1)))
    return torch.from_numpy(np.stack(inputs)), torch.from_numpy(np.stack(errors))


def network_loss(out_B3HW: torch.Tensor, error_B2HW: torch.Tensor) -> torch.Tensor:
    """The quasi-Poisson loss ``exp(p) - y p`` of both errors: its least is where ``exp(p)`` is the mean error, and to
    order pixels by their mean error is what makes AUSE small. Every image weighs as much as another, whatever its
    errors are: AUSE is a mean over images. Skies do not count in it; to it comes the cross entropy of what is sky."""
    log_B2HW, (known_BHW, ground_BHW) = out_B3HW[:, :SKY], torch.isfinite(error_B2HW).unbind(1)
    known_B2HW, sky_BHW = ground_BHW[:, None].expand_as(log_B2HW), (~ground_BHW).float()
    surprise_BHW = binary_cross_entropy_with_logits(out_B3HW[:, SKY], sky_BHW, reduction="none")
    surprise = (surprise_BHW * known_BHW).sum() / known_BHW.sum().clamp(min=1)
    error_B2HW = torch.where(known_B2HW, error_B2HW, 0.0)
    count_B2 = known_B2HW.sum((2, 3)).clamp(min=1)
    mean_B2 = (error_B2HW.sum((2, 3)) / count_B2).clamp(min=0.01)
    each_B2HW = torch.where(known_B2HW, log_B2HW.exp() - error_B2HW * log_B2HW, 0.0)
    return (each_B2HW.sum((2, 3)) / count_B2 / mean_B2).mean() + surprise


def rate_at(step: int, steps: int, most: float = RATE) -> float:
    """One cycle: up by a cosine, and down by one to nothing."""
    warm = max(1.0, WARM * steps)
    if step < warm:
        return most * (0.04 + 0.96 * 0.5 * (1 - math.cos(math.pi * step / warm)))
    return most * 0.5 * (1 + math.cos(math.pi * (step - warm) / max(1.0, steps - warm)))


def train(
    network: ErrorNetwork, unfinished: Unfinished, groups: Sequence[Sequence[int]], steps: int, seed: int, bar: Bar
) -> None:
    """Train on kept examples, by their numbers, those of one shape together. Resumes at the last kept step; what a step
    does hangs on its number and the seed alone."""
    device = network.blend.device
    network.train().requires_grad_(True)
    optimizer = torch.optim.AdamW(network.parameters(), lr=RATE, betas=BETAS, weight_decay=DECAY)
    first = 0
    if (kept := unfinished.training()) is not None:
        network.load_state_dict(kept["network"])
        optimizer.load_state_dict(kept["optimizer"])
        first = int(kept["step"])
    bar.update(first)
    counts = [len(group) for group in groups]
    for step in range(first, steps):
        for settings in optimizer.param_groups:
            settings["lr"] = rate_at(step, steps)
        dice = np.random.default_rng((seed, step))
        shape = int(dice.choice(len(counts), p=np.array(counts) / sum(counts)))
        places = dice.integers(counts[shape], size=BATCH)
        inputs_BCHW, error_B2HW = batch_of([unfinished.example(groups[shape][place]) for place in places], dice)
        loss = network_loss(network(inputs_BCHW.to(device)), error_B2HW.to(device))
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(network.parameters(), MOST_GRADIENT)
        optimizer.step()
        if (step + 1) % KEPT_EVERY == 0:
            state = {"network": network.state_dict(), "optimizer": optimizer.state_dict(), "step": step + 1}
            unfinished.keep_training(state)
        bar.update()
    network.eval().requires_grad_(False)


@torch.inference_mode()
def fit_blend(network: ErrorNetwork, examples: Sequence[NDArray[np.void]]) -> None:
    """Bring the blend of both predicted errors to the scale of the first, on examples that were not trained on: a power
    law of it, by quasi-Poisson regression, so that the mean of what is expected is the mean of what is found."""
    network.blend.copy_(torch.tensor([0.0, 1.0, SHARE, LEVEL]))
    said, found = [], []
    for record_HW in examples:
        inputs_1CHW, error_12HW = batch_of([record_HW], None)
        inputs_1CHW = inputs_1CHW.to(network.blend.device)
        log_HW = network.blended(network(inputs_1CHW), inputs_1CHW)[0].cpu()
        known_HW = torch.isfinite(error_12HW[0, 1])  # not in the sky
        said.append(log_HW[known_HW].double().numpy())
        found.append(error_12HW[0, 0][known_HW].double().numpy())
    scale = power_law(np.concatenate(said), np.concatenate(found))
    if scale is not None:
        network.blend[:2] = torch.from_numpy(scale).float()


@torch.inference_mode()
def fit_scale(network: ErrorNetwork, examples: Sequence[NDArray[np.void]]) -> None:
    """Bring expected errors to the scale of those of ``examples``: the means over images of both become alike. The
    order of pixels stays."""
    said, found = [], []
    for record_HW in examples:
        inputs_1CHW, error_12HW = batch_of([record_HW], None)
        inputs_1CHW, confidence_1HW = inputs_1CHW.to(network.blend.device), None
        if network.native is not None:
            confidence_1HW = torch.from_numpy(record_HW["confidence"][None].copy()).to(network.blend.device)
        e_HW = network.mean_error(network(inputs_1CHW), inputs_1CHW, confidence_1HW)[0].cpu()
        known_HW = torch.isfinite(error_12HW[0, 1])  # not in the sky
        if known_HW.any():
            said.append(e_HW[known_HW].double().mean().item())
            found.append(error_12HW[0, 0][known_HW].double().mean().item())
    if sum(found) > 0:
        network.scale.mul_(sum(found) / sum(said))


def power_law(log_P: NDArray[np.float64], error_P: NDArray[np.float64]) -> NDArray[np.float64] | None:
    """Constant and slope, for which ``exp(constant + slope * log)`` of pixels is the mean of their errors, by
    quasi-Poisson regression; None where these have no such scale."""
    if not len(log_P) or error_P.mean() == 0 or np.ptp(log_P) < 1e-6:
        return None
    terms_P2 = np.stack((np.ones_like(log_P), log_P), 1)
    weights = np.array([np.log(error_P.mean() / np.exp(log_P).mean()), 1.0])
    for _ in range(ROUNDS):
        expected_P = np.exp(np.clip(terms_P2 @ weights, -20, 5))
        wanted_P = terms_P2 @ weights + (error_P - expected_P) / expected_P
        weighted_P2 = terms_P2 * expected_P[:, None]
        weights = np.linalg.solve(weighted_P2.T @ terms_P2, weighted_P2.T @ wanted_P)
    return weights if np.isfinite(weights).all() and weights[1] > 0 else None
