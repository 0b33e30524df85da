"""What models that weigh depth bins say of their own error: how widely the weights spread.

Axes: B images of a batch, K bins, H and W pixels of the model's output.
"""

import threading
from typing import Any

import torch
from torch.nn.functional import interpolate

MEANING = "standard deviation of the depth bins' weights over their mean"

SMALLEST = 1e-6
"""A mean of this many metres or less says nothing."""


class BinSpread:
    """The spread of the bins of each pass, taken by hooks: of ZoeDepth, and of DPT on TIPSv2. Safe for many threads.

    ``known`` is False for a model without such bins.
    """

    def __init__(self, model: Any) -> None:
        self._seen = threading.local()
        kind = model.config.model_type
        self.known = kind in ("zoedepth", "tipsv2_dpt")
        if kind == "zoedepth":
            head = model.metric_head
            several = isinstance(head.attractors, torch.nn.ModuleDict)
            for attractors in head.attractors.values() if several else (head.attractors,):
                attractors[-1].register_forward_hook(self._remember_centres)
            for weights in head.conditional_log_binomial.values() if several else (head.conditional_log_binomial,):
                weights.register_forward_hook(self._remember_weights)
        elif kind == "tipsv2_dpt":
            model.bin_regressor.register_forward_hook(self._remember_logits)

    def _remember_centres(self, module: Any, inputs: Any, output: Any) -> None:
        self._seen.centres = output[1]

    def _remember_weights(self, module: Any, inputs: Any, output: Any) -> None:
        centres_BKHW = interpolate(self._seen.centres, output.shape[-2:], mode="bilinear", align_corners=True)
        self._seen.spread = spread(output, centres_BKHW)

    def _remember_logits(self, module: Any, inputs: Any, output: Any) -> None:
        weights_BKHW = module.activation(inputs[0]) + module.min_depth
        self._seen.spread = spread(weights_BKHW / weights_BKHW.sum(1, keepdim=True), module.bin_centers[:, None, None])

    def take(self) -> torch.Tensor | None:
        """Float32 [B,H,W] of this thread's last pass, at the model's own size; it can be taken once."""
        found: torch.Tensor | None = self._seen.__dict__.pop("spread", None)
        return found


def spread(weights_BKHW: torch.Tensor, centres_BKHW: torch.Tensor) -> torch.Tensor:
    """Standard deviation over mean of the bins' centres by their weights, float32 [B,H,W]."""
    weights_BKHW, centres_BKHW = weights_BKHW.float(), centres_BKHW.float()
    mean_B1HW = (weights_BKHW * centres_BKHW).sum(1, keepdim=True)
    variance_BHW = (weights_BKHW * (centres_BKHW - mean_B1HW).square()).sum(1)
    return variance_BHW.clamp(min=0).sqrt() / mean_B1HW[:, 0].clamp(min=SMALLEST)
