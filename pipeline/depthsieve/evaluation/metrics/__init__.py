"""Accuracy of labels against ground truth, and how well the reliability map finds their errors.

Pure functions of numpy arrays; whatever computes is float64. Ground truth is depth in metres, 0, NaN or infinity where
there is none.
"""

from depthsieve.evaluation.metrics.accuracy import (
    Align,
    Bools,
    CurveMetric,
    DepthRange,
    ErrorMetric,
    Floats,
    aligned_depth,
    chosen_alignment,
    degenerate,
    depth_metrics,
    fitted_alignment,
    metrics_of,
    pixel_errors,
    predicted_depth,
    truth_mask,
)
from depthsieve.evaluation.metrics.boundary import boundary_f1, has_boundaries
from depthsieve.evaluation.metrics.calibration import (
    Calibration,
    CalibrationBin,
    CodeErrors,
    actual_code_errors,
    code_denominator,
)
from depthsieve.evaluation.metrics.comparison import (
    CURVES,
    METRICS,
    Comparison,
    at_shape,
    codes_at_shape,
    compare,
    compared_mask,
    label_at_shape,
    nearest_at_shape,
)
from depthsieve.evaluation.metrics.correlation import average_ranks, spearman
from depthsieve.evaluation.metrics.knee import Knee, find_knee
from depthsieve.evaluation.metrics.sparsification import (
    CurveMean,
    KeptError,
    Sparsification,
    ause_aurg,
    beats_chance,
    kept_errors,
    sparsification,
)

__all__ = [
    "CURVES",
    "METRICS",
    "Align",
    "Bools",
    "Calibration",
    "CalibrationBin",
    "CodeErrors",
    "Comparison",
    "CurveMean",
    "CurveMetric",
    "DepthRange",
    "ErrorMetric",
    "Floats",
    "KeptError",
    "Knee",
    "Sparsification",
    "actual_code_errors",
    "aligned_depth",
    "at_shape",
    "ause_aurg",
    "average_ranks",
    "beats_chance",
    "boundary_f1",
    "chosen_alignment",
    "code_denominator",
    "codes_at_shape",
    "compare",
    "compared_mask",
    "degenerate",
    "depth_metrics",
    "find_knee",
    "fitted_alignment",
    "has_boundaries",
    "kept_errors",
    "label_at_shape",
    "metrics_of",
    "nearest_at_shape",
    "pixel_errors",
    "predicted_depth",
    "sparsification",
    "spearman",
    "truth_mask",
]
