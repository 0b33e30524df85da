"""The pictures of an evaluation, as the bytes of PNG files. The only module that imports matplotlib."""

import io

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from depthsieve.evaluation.metrics import CurveMetric, Sparsification
from depthsieve.evaluation.result import Evaluation

TITLES: dict[CurveMetric, str] = {
    "abs_rel": "AbsRel",
    "label_error": "label error",
    "rmse": "RMSE (m)",
    "delta1": "1 - delta1",
}
LINES = (
    ("random_S", "any pixels", "#8a8a8a", "--"),
    ("method_S", "least reliable first", "#1f5fbf", "-"),
    ("oracle_S", "largest error first", "#2a8a4a", ":"),
)
_KNEE = "#c04040"
_DPI = 120


def sparsification_figure(result: Evaluation) -> bytes:
    """Error of what is kept against what was dropped, mean over images; a panel for each metric."""
    figure = Figure(figsize=(15, 4.2), layout="constrained")
    panels = figure.subplots(1, len(result.curves))
    for axes, (metric, curve) in zip(panels, result.curves.items(), strict=True):
        title = TITLES[metric]
        _curves(axes, curve)
        ause, aurg = result.mean[f"ause_{metric}"], result.mean[f"aurg_{metric}"]
        axes.set_title(f"{title}: AUSE {ause:.4f}, AURG {aurg:.4f}", fontsize=10)
        axes.set_ylabel(f"{title} of the pixels that are kept")
    drop = result.knee.drop
    if drop is not None:
        panels[0].axvline(100 * drop, color=_KNEE, linewidth=1)
        panels[0].annotate(
            f"knee: {drop:.0%}", (100 * drop, 0.03), (4, 0), ("data", "axes fraction"), "offset points", color=_KNEE
        )
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=len(LINES), frameon=False)
    number = len(result.images)
    figure.suptitle(f"Sparsification, mean over {number:,} image{'s' * (number != 1)}", fontsize=11)
    return _png(figure)


def _curves(axes: Axes, curve: Sparsification) -> None:
    # The last step, at which nothing is kept, is 0 by convention and says nothing.
    for name, label, colour, style in LINES:
        values_S = getattr(curve, name)
        axes.plot(100 * curve.dropped_S[:-1], values_S[:-1], label=label, color=colour, linestyle=style)
    axes.set_xlabel("pixels dropped (%)")
    axes.set_xlim(0, 100)
    axes.set_ylim(bottom=0)
    axes.grid(alpha=0.25)


def calibration_figure(result: Evaluation) -> bytes:
    """Actual against expected error by reliability code, both on logarithmic axes, with the diagonal of codes that say
    the error; the area of a point is its share of the pixels."""
    figure = Figure(figsize=(5.6, 5.2), layout="constrained")
    axes = figure.subplots()
    rated = [each for each in result.calibration.bins if each.actual > 0]
    values = [1e-4, 1.0, *(each.actual for each in rated)]
    ends = (min(values) / 1.5, max(values) * 1.5)
    axes.plot(ends, ends, color="#8a8a8a", linestyle="--", linewidth=1, label="error as the codes say")
    if rated:
        expected, actual = [each.expected for each in rated], [each.actual for each in rated]
        share = np.array([each.pixels for each in rated]) / sum(each.pixels for each in rated)
        axes.plot(expected, actual, color="#1f5fbf", linewidth=1)
        axes.scatter(expected, actual, s=20 + 600 * share, color="#1f5fbf", alpha=0.7, label="labels, by code")
    axes.set(xscale="log", yscale="log", xlim=ends, ylim=ends, aspect="equal")
    axes.set_xlabel("expected error (from the reliability code)")
    axes.set_ylabel("actual error, defined likewise")
    axes.grid(alpha=0.25)
    axes.legend(fontsize=8, loc="upper left", frameon=False)
    factor = 10**result.calibration.bias
    said = "no error to compare" if np.isnan(factor) else f"labels err {factor:.2g} times as much as their codes say"
    axes.set_title(said, fontsize=10)
    return _png(figure)


def _png(figure: Figure) -> bytes:
    held = io.BytesIO()
    figure.savefig(held, format="png", dpi=_DPI)
    return held.getvalue()
