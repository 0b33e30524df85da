"""How far a label can be trusted: disagreement signals, and the uint8 code of expected error made of them."""

from depthsieve.reliability.code import calibration_of, decode_error, encode_error, expected_error, histogram
from depthsieve.reliability.signals import flip_disagreement, lowres_disagreement, lowres_view, mean_disagreement

__all__ = [
    "calibration_of",
    "decode_error",
    "encode_error",
    "expected_error",
    "flip_disagreement",
    "histogram",
    "lowres_disagreement",
    "lowres_view",
    "mean_disagreement",
]
