"""The reliability code: expected error of a pixel as one byte.

Which error a code stands for is in :mod:`depthsieve.reliability.scale`, by the ``version`` of the label spec: 1 is the
largest error or more, 255 the least or less. 0 means that the pixel is never trained on.

Axes: B image of a batch, H row, W column.
"""

import functools

import numpy as np
import torch

from depthsieve.reliability.scale import SCALES

_STEPS = 254


def encode_error(e_BHW: torch.Tensor, valid_BHW: torch.Tensor | None = None, *, version: int) -> torch.Tensor:
    """The uint8 code of each expected error, on the device of ``e_BHW``.

    The error is rounded to float32 and compared with fixed float32 thresholds; no logarithm is taken, so that every
    device gives the same bytes.

    Args:
        e_BHW: expected errors, 0 or more, any shape. 0 gives 255, 1 and more (infinity too) gives 1.
        valid_BHW: bool, False where the code should be 0 (default: nowhere). NaN and negative errors always give 0, a
            valid pixel never does.
        version: of the label spec, which says what codes stand for.
    """
    bucket_code, bucket_threshold, _ = _tables(version)
    e_BHW = e_BHW.float()
    keep_BHW = e_BHW >= 0  # False for NaN
    if valid_BHW is not None:
        keep_BHW = keep_BHW & valid_BHW.bool()
    e_BHW = torch.where(keep_BHW, e_BHW, 0.0).abs()  # abs: -0.0 has the sign bit set
    bucket = (e_BHW.view(torch.int32) >> 16).flatten()
    code = bucket_code.to(e_BHW.device).index_select(0, bucket)
    threshold = bucket_threshold.to(e_BHW.device).index_select(0, bucket)
    code_BHW = (code - (e_BHW.flatten() > threshold).to(torch.uint8)).view(e_BHW.shape)
    return torch.where(keep_BHW, code_BHW, 0)


def decode_error(codes: torch.Tensor, *, version: int) -> torch.Tensor:
    """The expected error in the middle of each code's bin by the label spec's ``version``, float32; NaN for code 0. Any
    shape of uint8."""
    return _tables(version)[2].to(codes.device)[codes.long()]


def histogram(codes_BHW: torch.Tensor) -> torch.Tensor:
    """How many pixels of each image carry each code: int64 [B,256], bin 0 the invalid ones."""
    counts = [torch.bincount(codes.flatten(), minlength=256) for codes in codes_BHW]
    return torch.stack(counts) if counts else torch.zeros((0, 256), dtype=torch.int64, device=codes_BHW.device)


def _thresholds(version: int) -> np.ndarray[tuple[int], np.dtype[np.float32]]:
    """The largest error that still gets code 255, 254, ... 2: where the code steps."""
    scale = SCALES[version]
    return np.array([scale.error(code - 0.5) for code in range(1 + _STEPS, 1, -1)]).astype(np.float32)


@functools.cache
def _tables(version: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Code and next threshold for each upper half of a float32's bits, and the error of each code.

    Non-negative floats order like their bits, and floats of one upper half lie within a factor of 1.008 while
    thresholds are at least 1.010 apart: so an upper half holds at most one threshold. Two small look-ups a pixel are 20
    times as fast as a binary search among the thresholds.
    """
    thresholds, scale = _thresholds(version), SCALES[version]
    starts = (np.arange(2**15, dtype=np.int32) << 16).view(np.float32)
    passed = np.searchsorted(thresholds, starts)  # how many thresholds lie below the start
    code = (1 + _STEPS - passed).astype(np.uint8)
    threshold = np.append(thresholds, np.float32(np.inf))[passed]
    error = np.array([np.nan, *(scale.error(code) for code in range(1, 2 + _STEPS))]).astype(np.float32)
    return torch.from_numpy(code), torch.from_numpy(threshold), torch.from_numpy(error)
