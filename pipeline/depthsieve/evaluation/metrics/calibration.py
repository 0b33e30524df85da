"""Do reliability codes say the error they stand for? Axes: H row, W column, K the 256 codes."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from depthsieve.core.records import Quantity
from depthsieve.evaluation.metrics.accuracy import Align, Bools, Floats, chosen_alignment, fit
from depthsieve.reliability.code import decode_error
from depthsieve.reliability.fusion import error_denominator

CODES = 256
BINS = 16


def code_denominator(depth_HW: NDArray[np.float32]) -> NDArray[np.float32]:
    """What the expected error of a label, as its codes have it, is relative to; float32 [H,W] at label shape.

    See :func:`depthsieve.reliability.fusion.error_denominator`. NaN where the label is not finite.
    """
    return np.asarray(error_denominator(torch.from_numpy(np.ascontiguousarray(depth_HW))).numpy(), dtype=np.float32)


def actual_code_errors(
    prediction_HW: NDArray[Any],
    truth_HW: NDArray[Any],
    mask_HW: Bools,
    denominator_HW: NDArray[Any],
    quantity: Quantity,
    align: Align = "auto",
) -> Floats:
    """The error that the codes of a label speak of, as it really is: ``|truth - label| / (d + median(d))``.

    Codes are made by aligning another map to the label and comparing them in the label's own units, so the truth is
    treated like that map: for disparity ``1 / truth`` is aligned to the label by scale and shift over ``mask_HW``, for
    metres nothing is aligned (another ``align`` fits what it says).

    Returns:
        float64 [H,W]; NaN outside of ``mask_HW`` and where the label is not finite; infinite or NaN for a label that is
        0 everywhere.
    """
    how = chosen_alignment(quantity, align)
    label = np.asarray(prediction_HW, dtype=np.float64)
    truth = np.where(mask_HW, np.asarray(truth_HW, dtype=np.float64), np.nan)
    other = 1.0 / truth if quantity == "disparity" else truth
    used = mask_HW & np.isfinite(label)
    scale, shift = fit(other[used], label[used], how)
    with np.errstate(divide="ignore", invalid="ignore"):  # a label that is 0 everywhere: nothing is relative to it
        error = np.abs(scale * other + shift - label) / np.asarray(denominator_HW, dtype=np.float64)
    return np.where(used, error, np.nan)


@dataclass(frozen=True)
class CalibrationBin:
    """Pixels of the codes ``first_code`` to ``last_code``: their mean error as expected, and as it was."""

    first_code: int
    last_code: int
    pixels: int
    expected: float
    actual: float


@dataclass(frozen=True)
class Calibration:
    """Expected against actual error, over all pixels of all images.

    ``spread``: the mean over pixels of ``|log10(actual / expected)|`` of their bin; 0 is perfect, 0.3 is off by a
    factor of 2. ``bias``: the same with its sign; above 0, labels err more than their codes say. Bins without any error
    are left out of both; NaN where none has any.
    """

    bins: tuple[CalibrationBin, ...]
    spread: float
    bias: float


class CodeErrors:
    """Pixels and their actual errors by code, gathered image by image in constant memory; codes of that ``version`` of
    the label spec."""

    def __init__(self, version: int) -> None:
        self._version = version
        self.pixels_K = np.zeros(CODES, dtype=np.int64)
        self.error_K = np.zeros(CODES)

    def add(self, codes: NDArray[np.uint8], errors: Floats) -> None:
        """Pixels of one image, any one shape. Those of code 0, and of an error that is not finite, do not count."""
        counted = np.isfinite(errors) & (codes > 0)
        self.pixels_K += np.bincount(codes[counted], minlength=CODES)
        self.error_K += np.bincount(codes[counted], weights=errors[counted], minlength=CODES)

    def calibration(self, bins: int = BINS) -> Calibration:
        """Neighbouring codes put together to at most ``bins`` bins of about equally many pixels."""
        expected_K = decode_error(torch.arange(CODES, dtype=torch.uint8), version=self._version).double().numpy()
        total = int(self.pixels_K.sum())
        middle_K = np.cumsum(self.pixels_K) - self.pixels_K / 2
        bin_K = np.minimum(middle_K * bins / max(total, 1), bins - 1).astype(int)
        made = []
        for number in range(bins):
            codes = np.flatnonzero((bin_K == number) & (self.pixels_K > 0))
            if codes.size:
                pixels = int(self.pixels_K[codes].sum())
                expected = float(expected_K[codes] @ self.pixels_K[codes]) / pixels
                actual = float(self.error_K[codes].sum()) / pixels
                made.append(CalibrationBin(int(codes[0]), int(codes[-1]), pixels, expected, actual))
        rated = [each for each in made if each.actual > 0]
        if not rated:
            return Calibration(tuple(made), float("nan"), float("nan"))
        ratios = np.log10([each.actual / each.expected for each in rated])
        weights = [each.pixels for each in rated]
        spread = float(np.average(np.abs(ratios), weights=weights))
        return Calibration(tuple(made), spread, float(np.average(ratios, weights=weights)))
