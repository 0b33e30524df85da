"""Losses for training a student on pseudo-labels: the trim, and the two losses that Depth Anything trains with.

Needs torch alone. The trim takes any task's per-pixel loss; the other two take predictions and labels as disparity
(inverse depth up to scale and shift), [B,H,W].
"""

from depthsieve.training.losses.affine import SPREAD_FLOOR, GradientMatchingLoss, ScaleShiftInvariantLoss
from depthsieve.training.losses.trim import TrimmedLoss

__all__ = ["SPREAD_FLOOR", "GradientMatchingLoss", "ScaleShiftInvariantLoss", "TrimmedLoss"]
