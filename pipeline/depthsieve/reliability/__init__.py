"""How far a label can be trusted: disagreement signals, their fusion into an expected error, and its uint8 code."""

from depthsieve.reliability.code import decode_error, encode_error, histogram
from depthsieve.reliability.fusion import (
    Calibration,
    error_denominator,
    fuse,
    fusion_features,
    near_level,
    patch_mean,
    relative_error,
    shipped_calibration,
)
from depthsieve.reliability.merging import MERGE, OneLabel, check_quantities, merge_labels, on_grid
from depthsieve.reliability.signals import (
    edges_disagreement,
    flip_disagreement,
    lowres_disagreement,
    lowres_view,
    native_disagreement,
    photometric_disagreement,
    photometric_view,
    teachers_disagreement,
)

__all__ = [
    "MERGE",
    "Calibration",
    "OneLabel",
    "check_quantities",
    "decode_error",
    "edges_disagreement",
    "encode_error",
    "error_denominator",
    "flip_disagreement",
    "fuse",
    "fusion_features",
    "histogram",
    "lowres_disagreement",
    "lowres_view",
    "merge_labels",
    "native_disagreement",
    "near_level",
    "on_grid",
    "patch_mean",
    "photometric_disagreement",
    "photometric_view",
    "relative_error",
    "shipped_calibration",
    "teachers_disagreement",
]
