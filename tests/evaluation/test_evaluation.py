"""A store's labels against ground truth in files: the numbers, and the effect of each setting."""

import inspect
import math
from itertools import pairwise
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from PIL import Image
from storemaker import Picture, made_label, make_store
from truths import COUNT, LABEL, METRIC, SOURCE, evaluated, truth_of

from depthsieve.core.errors import UsageError
from depthsieve.evaluation.comparing import evaluate_labels
from depthsieve.evaluation.result import MEASURED
from depthsieve.evaluation.settings import EvaluateSettings
from depthsieve.store import Store

# The numbers, by another formulation


def doubled(rows: np.ndarray) -> np.ndarray:
    """Twice as many rows: each new one lies a quarter of an old one's height from the middle of the nearest."""
    padded = np.pad(rows, ((1, 1), (0, 0)), mode="edge")
    halves = (0.25 * padded[:-2] + 0.75 * rows, 0.75 * rows + 0.25 * padded[2:])
    return np.stack(halves, axis=1).reshape(-1, rows.shape[1])


def independent_pixels(number: int, quantity: str) -> tuple[np.ndarray, np.ndarray, np.ndarray, tuple[float, float]]:
    """Predicted metres, true metres and codes of the pixels that count, scale and shift: own interpolation, numpy's
    lstsq."""
    depth_HW, codes_HW = made_label(number, LABEL)
    grown = doubled(doubled(np.where(codes_HW > 0, depth_HW, np.nan).astype(np.float64)).T).T
    codes = np.kron(codes_HW, np.ones((2, 2), np.uint8))
    true = truth_of(number).astype(np.float64)
    used = (true > 0) & np.isfinite(grown) & (codes > 0)
    grown, true, codes = grown[used], true[used], codes[used]
    if quantity == "depth":
        return np.clip(grown, 0.001, 80), true, codes, (1.0, 0.0)
    columns = np.stack([grown, np.ones(grown.size)], axis=1)
    scale, shift = np.linalg.lstsq(columns, 1 / true, rcond=None)[0]
    return 1 / np.maximum(scale * grown + shift, 1 / 80), true, codes, (scale, shift)


def independent_label_errors(number: int, quantity: str) -> np.ndarray:
    """The error that reliability predicts, of the same pixels: the truth brought to the label, over d + median(d)."""
    depth_HW, codes_HW = made_label(number, LABEL)
    label_HW = depth_HW.astype(np.float64)
    middle = np.sort(label_HW, axis=None)[(label_HW.size - 1) // 2]
    denominator_HW = np.maximum(label_HW + middle, 0.1 * np.abs(label_HW).mean())
    grown = doubled(doubled(np.where(codes_HW > 0, label_HW, np.nan)).T).T
    true = truth_of(number).astype(np.float64)
    used = (true > 0) & np.isfinite(grown) & (np.kron(codes_HW, np.ones((2, 2), np.uint8)) > 0)
    label, other = grown[used], true[used]
    if quantity == "disparity":
        columns = np.stack([1 / other, np.ones(other.size)], axis=1)
        other = columns @ np.linalg.lstsq(columns, label, rcond=None)[0]
    return np.abs(other - label) / doubled(doubled(denominator_HW).T).T[used]


def independent_curve(errors: np.ndarray, score: np.ndarray, steps: int = 50) -> list[float]:
    """Expected mean error of what is kept, pixel by pixel: of those that tie at the threshold each is as likely."""
    groups = [errors[score == value] for value in sorted(set(score.tolist()), reverse=True)]
    means = [value for group in groups for value in [group.mean()] * group.size]  # in the order in which they are kept
    values = []
    for step in range(steps):
        kept = errors.size * (1 - step / steps)
        whole = int(kept)
        part = (kept - whole) * means[whole] if whole < len(means) else 0.0
        values.append((sum(means[:whole]) + part) / kept)
    return [*values, 0.0]


def area(values: list[float]) -> float:
    return sum((a + b) / 2 / (len(values) - 1) for a, b in pairwise(values))


@pytest.mark.parametrize("quantity", ["disparity", "depth"])
def test_all_numbers_are_those_of_another_formulation(
    quantity: str, store: Store, metric_store: Store, truth: Path
) -> None:
    result = evaluated(store if quantity == "disparity" else metric_store, truth)
    assert result.align == ("scale-shift" if quantity == "disparity" else "none")
    assert [score.id for score in result.images] == sorted(f"default/{n}.png" for n in range(COUNT))
    sums, better = [], []
    for score in result.images:
        predicted, true, codes, fitted = independent_pixels(int(score.id[8:-4]), quantity)
        assert (score.scale, score.shift) == pytest.approx(fitted, rel=1e-4)
        relative, square = np.abs(predicted / true - 1), np.square(predicted - true)
        ratio = np.exp(np.abs(np.log(predicted) - np.log(true)))
        assert score.pixels == true.size
        assert score.abs_rel == pytest.approx(relative.mean(), rel=1e-5)
        assert score.rmse == pytest.approx(math.sqrt(square.mean()), rel=1e-5)
        assert score.log10 == pytest.approx(np.log10(ratio).mean(), rel=1e-5)
        for power in (1, 2, 3):
            within = np.mean(ratio < 1.25**power)
            assert getattr(score, f"delta{power}") == pytest.approx(within, abs=2 / true.size)
        wrong, label_error = (ratio >= 1.25).astype(float), independent_label_errors(int(score.id[8:-4]), quantity)
        assert score.label_error == pytest.approx(label_error.mean(), rel=1e-4)
        for metric, errors in (
            ("abs_rel", relative),
            ("label_error", label_error),
            ("rmse", square),
            ("delta1", wrong),
        ):
            root = math.sqrt if metric == "rmse" else float
            method = area([root(value) for value in independent_curve(errors, codes)])
            oracle = area([root(value) for value in independent_curve(errors, -errors)])
            assert getattr(score, f"ause_{metric}") == pytest.approx(method - oracle, rel=1e-3, abs=2e-4)
            assert getattr(score, f"aurg_{metric}") == pytest.approx(root(errors.mean()) - method, rel=1e-3, abs=2e-4)
        sums.append(relative.mean())
        kept = [(a + b) / 2 for a, b in pairwise(independent_curve(relative, codes)[:-1])]
        better.append(np.mean(kept) < relative.mean())
    assert result.mean["abs_rel"] == pytest.approx(np.mean(sums), rel=1e-5)
    assert result.median["abs_rel"] == pytest.approx(np.median(sums), rel=1e-5)
    assert result.pixels == sum(score.pixels for score in result.images)
    assert 0 < result.better_than_chance == np.mean(better) < 1
    assert list(result.curves) == list(result.kept) == ["abs_rel", "label_error", "rmse", "delta1"]
    for metric in ("abs_rel", "label_error"):
        rows = result.kept[metric]
        assert [rows[0].method, rows[0].random, rows[4].random] == pytest.approx([result.mean[metric]] * 3)
        assert [row.dropped for row in rows] == [0.0, 0.05, 0.1, 0.2, 0.3]
        assert rows[2].method == pytest.approx(result.curves[metric].method_S[5])
        assert rows[2].oracle == pytest.approx(result.curves[metric].oracle_S[5])
    assert result.mean["ause_abs_rel"] == pytest.approx(np.mean([score.ause_abs_rel for score in result.images]))
    assert sum(each.pixels for each in result.calibration.bins) == result.pixels
    assert result.not_compared == result.without_truth == result.without_image == ()
    (note,) = result.notes  # labels of noise
    assert note.kind == "against-truth"
    if quantity == "disparity":
        assert note.images == tuple(score.id for score in result.images if score.scale <= 0)


def test_truth_that_is_the_label_has_no_error(metric_store: Store, tmp_path: Path) -> None:
    for number in range(3):
        np.save(tmp_path / f"{number}.npy", made_label(number, LABEL)[0])
    result = evaluated(metric_store, tmp_path, min_depth=0.01)
    assert result.mean["abs_rel"] == result.mean["rmse"] == 0.0
    assert result.mean["delta1"] == 1.0
    assert math.isnan(result.mean["spearman"])
    assert math.isnan(result.calibration.bias)
    assert result.knee.drop is None
    assert result.as_json()["mean"]["spearman"] is None
    assert result.pixels == sum(int((made_label(n, LABEL)[1] > 0).sum()) for n in range(3))


def test_a_label_of_zeros_has_no_error_relative_to_itself(tmp_path: Path) -> None:
    store = make_store(tmp_path, [Picture("0.png", SOURCE, LABEL, depth_HW=np.zeros(LABEL, np.float32))], spec=METRIC)
    np.save(tmp_path / "0.npy", truth_of(0))
    result = evaluated(store, tmp_path, out=tmp_path / "out")
    assert math.isnan(result.mean["ause_label_error"]) and math.isnan(result.images[0].label_error)
    assert list(result.curves) == ["abs_rel", "rmse", "delta1"]
    assert result.mean["abs_rel"] == pytest.approx(1.0, abs=1e-2)


def test_edges_are_judged_on_the_coarser_grid(tmp_path: Path) -> None:
    """Enlarged, a label's edges are smeared: the truth is brought to its pixels instead."""
    near_HW = np.full(LABEL, 4.0, np.float32)
    near_HW[4:10, 9:20] = 2.0
    codes_HW = np.full(LABEL, 100, np.uint8)
    codes_HW[:3] = 0
    picture = Picture("0.png", SOURCE, LABEL, depth_HW=near_HW, reliability_HW=codes_HW)
    store = make_store(tmp_path, [picture], spec=METRIC)
    for name, factor in (("same", 1), ("finer", 2), ("finest", 6)):
        (tmp_path / name).mkdir()
        np.save(tmp_path / name / "0.npy", np.kron(near_HW, np.ones((factor, factor), np.float32)))
        assert evaluated(store, tmp_path / name).images[0].boundary_f1 == pytest.approx(1.0)
    (tmp_path / "coarser").mkdir()
    np.save(tmp_path / "coarser" / "0.npy", near_HW[::2, ::2])
    assert 0 < evaluated(store, tmp_path / "coarser", min_pixels=20).images[0].boundary_f1 <= 1
    (tmp_path / "flat").mkdir()
    np.save(tmp_path / "flat" / "0.npy", np.linspace(1, 1.5, 392).reshape(LABEL))
    assert math.isnan(evaluated(store, tmp_path / "flat").images[0].boundary_f1)


def test_sparse_truth_counts_where_it_is(store: Store, tmp_path: Path) -> None:
    sparse = np.zeros(SOURCE, np.float32)
    sparse[::5, ::7] = truth_of(0)[::5, ::7]
    np.save(tmp_path / "0.npy", sparse)
    (score,) = evaluated(store, tmp_path, min_pixels=20).images
    true = independent_pixels(0, "disparity")[1]
    assert 20 < score.pixels <= (sparse > 0).sum() < true.size / 10
    assert 0 < score.abs_rel < 1


def test_all_formats_give_the_same_numbers(store: Store, truth: Path, tmp_path: Path) -> None:
    want = evaluated(store, truth)
    for name in ("png", "pfm", "h5"):
        (tmp_path / name).mkdir()
    maps = [truth_of(number) for number in range(COUNT)]
    for number, truth_HW in enumerate(maps):
        height, width = truth_HW.shape
        Image.fromarray(np.round(truth_HW * 5000).astype(np.uint16)).save(tmp_path / "png" / f"{number}.png")
        body = truth_HW[::-1].astype(">f4").tobytes()
        (tmp_path / "pfm" / f"{number}.pfm").write_bytes(f"Pf\n{width} {height}\n1.0\n".encode() + body)
        with h5py.File(tmp_path / "h5" / f"{number}.h5", "w") as file:
            file["dataset"] = truth_HW
    with h5py.File(tmp_path / "all.mat", "w") as file:
        file["depths"] = np.stack([truth_HW.T for truth_HW in maps])
    for name, options in (("pfm", {}), ("h5", {}), ("all.mat", {"count_from": 0})):
        assert evaluated(store, tmp_path / name, **options).images == want.images
    rounded = evaluated(store, tmp_path / "png", scale=5000)
    for name in MEASURED:
        assert rounded.mean[name] == pytest.approx(want.mean[name], rel=1e-3, abs=1e-4, nan_ok=True)


# Settings: each has an effect


def test_the_range_of_depth_that_counts(store: Store, truth: Path) -> None:
    result = evaluated(store, truth, min_depth=2.0, max_depth=5.0)
    true = truth_of(0)
    assert result.images[0].pixels < ((true >= 2) & (true <= 5)).sum() < evaluated(store, truth).images[0].pixels
    assert result.images[0].pixels > 0.75 * ((true >= 2) & (true <= 5)).sum()
    assert result.settings.depth_range == (2.0, 5.0)


def test_alignment(metric_store: Store, store: Store, truth: Path) -> None:
    errors = [evaluated(metric_store, truth, align=how).mean["rmse"] for how in ("none", "scale", "scale-shift")]
    assert errors[0] > errors[1] > errors[2]
    assert evaluated(metric_store, truth).mean["rmse"] == errors[0]
    free = evaluated(store, truth, align="none")
    assert free.align == "none"
    assert free.mean["abs_rel"] != evaluated(store, truth).mean["abs_rel"]
    # What is expected is measured in the label's own units, and aligned likewise.
    assert free.calibration.bias > evaluated(store, truth).calibration.bias


def test_scale_and_distance(store: Store, truth: Path, tmp_path: Path) -> None:
    np.save(tmp_path / "0.npy", truth_of(0) * 1000)
    one = evaluated(store, tmp_path, scale=1000).images[0]
    assert one.abs_rel == pytest.approx(evaluated(store, truth).images[0].abs_rel, rel=1e-5)
    bent = evaluated(store, truth, distance_to_depth=20.0).images[0]
    assert bent.rmse != pytest.approx(one.rmse, rel=1e-2)


def test_pattern_replace_and_dataset(store: Store, truth: Path, tmp_path: Path) -> None:
    want = evaluated(store, truth).images[0]
    np.save(tmp_path / "0_depth.npy", truth_of(0))
    assert evaluated(store, tmp_path, pattern="{stem}_depth.npy").images == (want,)
    assert evaluated(store, tmp_path, replace=((".png", "_depth.png"),)).images == (want,)
    with h5py.File(tmp_path / "0.h5", "w") as file:
        file["far"], file["near"] = truth_of(0) * 2, truth_of(0)
    assert evaluated(store, tmp_path, dataset="near").images == (want,)


def test_the_result_says_what_it_is(metric_store: Store, truth: Path, tmp_path: Path) -> None:
    result = evaluated(metric_store, truth)
    names = ("abs_rel", "rmse", "delta1", "ause_abs_rel")
    mean = ", ".join(f"{name} {result.mean[name]:.4f}" for name in names)
    assert repr(result) == f"<Evaluation of 10 images: {mean}, no knee, 1 note>"
    np.save(tmp_path / "0.npy", np.where(truth_of(0) > 0, truth_of(0), 50))
    (tmp_path / "1.npy").write_bytes(b"")
    again = repr(evaluated(metric_store, tmp_path, max_depth=60))
    assert again.startswith("<Evaluation of 1 image: ")
    assert again.endswith(", no knee, 1 not compared, 1 note>")


def test_a_png_needs_a_scale_before_anything_is_read(store: Store, tmp_path: Path) -> None:
    (tmp_path / "0.png").write_bytes(b"")
    with pytest.raises(UsageError, match=r"needs --scale.*1000 for millimetres"):
        evaluated(store, tmp_path)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"min_depth": 0.0}, "0 < min_depth < max_depth, not 0.0 and 80.0"),
        ({"max_depth": math.inf}, "not 0.001 and inf"),
        ({"align": "median"}, "align must be one of auto, none, scale, scale-shift, not 'median'"),
        ({"scale": -1}, "scale must be"),
        ({"min_pixels": 0}, "min_pixels must be 1 or more, not 0"),
    ],
)
def test_invalid_options(store: Store, truth: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        evaluated(store, truth, **options)


def test_options_are_those_of_the_settings_with_the_same_defaults() -> None:
    """The command line is held to the settings, too (test_cli_help.py)."""
    options = inspect.signature(evaluate_labels).parameters
    own = {"store", "ground_truth", "out", "reliability", "progress"}
    defaults = vars(EvaluateSettings())
    assert {name: option.default for name, option in options.items() if name not in own} == defaults
    assert all(option.kind is option.KEYWORD_ONLY for option in list(options.values())[2:])
    documented = inspect.getdoc(evaluate_labels) or ""
    assert all(f"\n    {name}: " in documented for name in options)
    with pytest.raises(TypeError, match="unexpected keyword argument 'depth'"):
        evaluate_labels("labels", "depth", depth=3)  # type: ignore[call-arg]
