"""What a teacher's own confidence is worth: a table from it to the errors that were found where it was said.

Confidence is a number of the teacher's own making; only true errors say which error to expect at each. The table is
monotone, in whichever direction the errors have.

Axes: B images of a batch, H row, W column; K knots, P pixels; 2 both errors of the error network, 3 a knot's confidence
and the logarithms of both.
"""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

Floats = NDArray[np.float64]

BINS = 128
"""The most knots: confidence is cut into so many parts with an equal number of pixels."""

LEAST_ERROR = 1e-4
"""A mean error is taken for this much at least, so that it has a logarithm."""


class NativeConfidence(nn.Module):
    """Expected errors by a teacher's confidence, and how they count beside those of an error network.

    ``meaning`` is the teacher's ``confidence_meaning``: for no other confidence does it hold. ``knots`` are float32
    [3,K], confidence ascending. ``blend`` is ``(constant, network, table)``: where there is no sky, the logarithm of
    the expected error is ``constant + network * N + table * T`` of what the network says and what the table does, both
    with the network's share of the second error.
    """

    knots: torch.Tensor
    blend: torch.Tensor

    def __init__(self, meaning: str, knots_3K: torch.Tensor) -> None:
        super().__init__()
        self.meaning = meaning
        self.register_buffer("knots", knots_3K.float().clone(memory_format=torch.contiguous_format))
        self.register_buffer("blend", torch.tensor([0.0, 1.0, 0.0]))

    @property
    def lower_is_better(self) -> bool:
        """Whether errors rise with the confidence, as it was found."""
        return bool(self.knots[1:, -1].sum() > self.knots[1:, 0].sum())

    def logs(self, confidence_BHW: torch.Tensor) -> torch.Tensor:
        """The logarithms of both errors to expect, float32 [B,2,H,W]: between knots on a line, beyond them as at the
        last one; NaN where the confidence is."""
        at_K, logs_2K = self.knots[0], self.knots[1:]
        seen_BHW = confidence_BHW.float().clamp(at_K[0], at_K[-1])
        if len(at_K) == 1:
            return torch.stack([logs_2K[one, 0] + 0 * seen_BHW for one in (0, 1)], 1)
        upper_BHW = torch.bucketize(seen_BHW.contiguous(), at_K).clamp(1, len(at_K) - 1)
        low_BHW, high_BHW = at_K[upper_BHW - 1], at_K[upper_BHW]
        part_BHW = (seen_BHW - low_BHW) / (high_BHW - low_BHW)
        return torch.stack(
            [log_K[upper_BHW - 1] + part_BHW * (log_K[upper_BHW] - log_K[upper_BHW - 1]) for log_K in logs_2K], 1
        )

    def mixed(self, confidence_BHW: torch.Tensor, share: torch.Tensor) -> torch.Tensor:
        """One logarithm of both errors, [B,H,W]: ``share`` is that of the second."""
        first_BHW, second_BHW = self.logs(confidence_BHW).unbind(1)
        return (1 - share) * first_BHW + share * second_BHW

    def blended(self, network_BHW: torch.Tensor, confidence_BHW: torch.Tensor, share: torch.Tensor) -> torch.Tensor:
        """The logarithm of the error to expect, of what the network says and of the confidence, [B,H,W]."""
        constant, network, table = self.blend.unbind()
        return constant + network * network_BHW + table * self.mixed(confidence_BHW, share)


def checked_knots(knots_3K: torch.Tensor) -> torch.Tensor:
    """The knots. Raises :class:`ValueError` for what is no table of ascending confidence."""
    if knots_3K.ndim != 2 or len(knots_3K) != 3 or not 1 <= knots_3K.shape[1] <= BINS:
        raise ValueError(f"a table of confidence of shape {list(knots_3K.shape)}")
    if not bool((knots_3K[0, 1:] > knots_3K[0, :-1]).all()):
        raise ValueError("a table of confidence that does not ascend")
    return knots_3K


def fit_knots(confidence_P: Floats, errors_2P: Floats) -> Floats:
    """The table of pixels with known errors: float64 [3,K], monotone in the direction of their rank correlation.

    Pixels are pooled into parts of about equal numbers by their confidence, and neighbouring parts that are out of
    order are pooled in turn (isotonic regression by pool adjacent violators). Equal confidence stays together.
    """
    order_P = np.argsort(confidence_P, kind="stable")
    confidence_P, errors_2P = confidence_P[order_P], errors_2P[:, order_P]
    wanted_K = np.linspace(0, len(confidence_P), BINS + 1).astype(int)[:-1]
    starts_K = np.unique(np.searchsorted(confidence_P, confidence_P[np.unique(wanted_K)], side="left"))
    count_K = np.diff(np.append(starts_K, len(confidence_P))).astype(np.float64)
    at_K = np.add.reduceat(confidence_P, starts_K) / count_K
    means_2K = np.add.reduceat(errors_2P, starts_K, axis=1) / count_K
    down = rank_correlation(confidence_P, errors_2P.sum(0)) < 0
    sign = -1.0 if down else 1.0
    fitted_2K = np.stack([sign * pooled(sign * mean_K, count_K) for mean_K in means_2K])
    distinct_K = np.append(True, np.diff(at_K.astype(np.float32)) > 0)
    return np.concatenate((at_K[None], np.log(np.maximum(fitted_2K, LEAST_ERROR))))[:, distinct_K]


def pooled(values_K: Floats, weights_K: Floats) -> Floats:
    """The closest values that never fall, by weighted squares: isotonic regression."""
    blocks: list[list[float]] = []  # mean, weight, length
    for value, weight in zip(values_K.tolist(), weights_K.tolist(), strict=True):
        blocks.append([value, weight, 1])
        while len(blocks) > 1 and blocks[-2][0] > blocks[-1][0]:
            mean, weight_2, length = blocks.pop()
            before = blocks[-1]
            whole = before[1] + weight_2
            before[:] = [(before[0] * before[1] + mean * weight_2) / whole, whole, before[2] + length]
    return np.repeat([mean for mean, _, _ in blocks], [int(length) for _, _, length in blocks])


def rank_correlation(one_P: Floats, other_P: Floats) -> float:
    """Spearman's, from -1 to 1, equal values sharing their rank; 0 where one of them is the same everywhere."""
    one_P, other_P = (rank_P - rank_P.mean() for rank_P in (_ranks(one_P), _ranks(other_P)))
    norm = float(np.linalg.norm(one_P) * np.linalg.norm(other_P))
    return float(one_P @ other_P) / norm if norm else 0.0


def _ranks(values_P: Floats) -> Floats:
    _, place_P, count_U = np.unique(values_P, return_inverse=True, return_counts=True)
    mean_U = np.cumsum(count_U) - (count_U - 1) / 2
    return np.asarray(mean_U[place_P], np.float64)
