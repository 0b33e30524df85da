"""A store's labels against ground truth in files: numbers, what each setting does, what is named, what is written."""

import csv
import dataclasses
import json
import math
from itertools import pairwise
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from PIL import Image
from storemaker import SPEC, Picture, made_label, make_store
from truths import LABEL, SOURCE, truth_of

import depthsieve
from depthsieve.core.errors import GroundTruthError, RunError, StoreNotFound, UsageError
from depthsieve.evaluation.comparing import HYPERSIM_NOTE, check_aspect, evaluate_labels
from depthsieve.evaluation.result import MEASURED, Evaluation
from depthsieve.evaluation.writing import FILES
from depthsieve.store import Store

COUNT = 10
METRIC = dataclasses.replace(SPEC, quantity="depth", unit="m")


def write_truth(folder: Path, numbers: Any = range(COUNT)) -> Path:
    folder.mkdir(exist_ok=True)
    for number in numbers:
        np.save(folder / f"{number}.npy", truth_of(number))
    return folder


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return make_store(tmp_path_factory.mktemp("made"), [Picture(f"{n}.png", SOURCE, LABEL) for n in range(COUNT)])


@pytest.fixture(scope="module")
def metric_store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    images = [Picture(f"{n}.png", SOURCE, LABEL) for n in range(COUNT)]
    return make_store(tmp_path_factory.mktemp("metric"), images, spec=METRIC)


@pytest.fixture(scope="module")
def truth(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_truth(tmp_path_factory.mktemp("truth") / "depth")


def evaluated(store: Store, truth: Path, **options: Any) -> Evaluation:
    return evaluate_labels(store, truth, progress=False, **options)


# The numbers, by another formulation


def doubled(rows: np.ndarray) -> np.ndarray:
    """Twice as many rows: each new one lies a quarter of an old one's height from the middle of the nearest."""
    padded = np.pad(rows, ((1, 1), (0, 0)), mode="edge")
    halves = (0.25 * padded[:-2] + 0.75 * rows, 0.75 * rows + 0.25 * padded[2:])
    return np.stack(halves, axis=1).reshape(-1, rows.shape[1])


def independent_pixels(number: int, quantity: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Predicted metres, true metres and codes of the pixels that count: own interpolation, numpy's lstsq."""
    depth_HW, codes_HW = made_label(number, LABEL)
    grown = doubled(doubled(np.where(codes_HW > 0, depth_HW, np.nan).astype(np.float64)).T).T
    codes = np.kron(codes_HW, np.ones((2, 2), np.uint8))
    true = truth_of(number).astype(np.float64)
    used = (true > 0) & np.isfinite(grown) & (codes > 0)
    grown, true, codes = grown[used], true[used], codes[used]
    if quantity == "depth":
        return np.clip(grown, 0.001, 80), true, codes
    columns = np.stack([grown, np.ones(grown.size)], axis=1)
    fitted = columns @ np.linalg.lstsq(columns, 1 / true, rcond=None)[0]
    return 1 / np.maximum(fitted, 1 / 80), true, codes


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
        predicted, true, codes = independent_pixels(int(score.id[8:-4]), quantity)
        relative, square = np.abs(predicted / true - 1), np.square(predicted - true)
        ratio = np.exp(np.abs(np.log(predicted) - np.log(true)))
        assert score.pixels == true.size
        assert score.abs_rel == pytest.approx(relative.mean(), rel=1e-5)
        assert score.rmse == pytest.approx(math.sqrt(square.mean()), rel=1e-5)
        assert score.log10 == pytest.approx(np.log10(ratio).mean(), rel=1e-5)
        for power in (1, 2, 3):
            within = np.mean(ratio < 1.25**power)
            assert getattr(score, f"delta{power}") == pytest.approx(within, abs=2 / true.size)
        for metric, errors in (("abs_rel", relative), ("rmse", square), ("delta1", (ratio >= 1.25).astype(float))):
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
    assert [result.kept[0].method, result.kept[0].random] == pytest.approx([result.mean["abs_rel"]] * 2)
    assert [row.dropped for row in result.kept] == [0.0, 0.05, 0.1, 0.2, 0.3]
    assert result.mean["ause_abs_rel"] == pytest.approx(np.mean([score.ause_abs_rel for score in result.images]))
    assert sum(each.pixels for each in result.calibration.bins) == result.pixels
    assert result.not_compared == result.without_truth == result.without_image == result.notes == ()


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
        assert rounded.mean[name] == pytest.approx(want.mean[name], rel=1e-3, abs=1e-4)


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
        ({"depth": 3}, r"evaluate_labels\(\) got an unexpected keyword argument 'depth'"),
    ],
)
def test_options_that_cannot_be_meant(store: Store, truth: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        evaluated(store, truth, **options)


# What does not match is named


def test_what_does_not_match_is_named(tmp_path: Path) -> None:
    images = [Picture(f"it's {n}/a.png", SOURCE, LABEL, failed=n == 2, pending=n == 9) for n in range(10)]
    images[9] = Picture("late.png", SOURCE, LABEL, pending=True)
    store = make_store(tmp_path, images, rejected=["broken.jpg", "other.jpg"])
    truth = tmp_path / "truth"
    for name in ["it's 0/a", "it's 1/a", "it's 2/a", "it's 3/a", "it's 4/a", "it's 5/a", "late", "broken", "new\nline"]:
        (truth / name).parent.mkdir(parents=True, exist_ok=True)
        np.save(truth / f"{name}.npy", truth_of(0))
    np.save(truth / "it's 3" / "a.npy", truth_of(0).T)
    np.save(truth / "it's 4" / "a.npy", np.zeros(SOURCE, np.float32))
    np.save(truth / "it's 5" / "a.npy", truth_of(0) * 1000)
    known = truth_of(0)[truth_of(0) > 0] * 1000
    span = f"it goes from {known.min():.3g} to {known.max():.3g} m"
    result = evaluated(store, truth)
    assert [score.id for score in result.images] == ["default/it's 0/a.png", "default/it's 1/a.png"]
    assert [(failure.id, failure.reason) for failure in result.not_compared] == [
        ("default/broken.jpg", "no label: made up"),
        ("default/it's 2/a.png", "no label: made up"),
        (
            "default/it's 3/a.png",
            "it's 3/a.npy: it is 28x56, and the upright image 56x28: of another image, or rotated?",
        ),
        (
            "default/it's 4/a.png",
            "it's 4/a.npy: no pixel has ground truth from 0.001 to 80 m and a label (it is empty)",
        ),
        ("default/it's 5/a.png", f"it's 5/a.npy: no pixel has ground truth from 0.001 to 80 m and a label ({span})"),
        ("default/late.png", "no label: not labelled yet"),
    ]
    assert result.without_truth == ("default/it's 6/a.png", "default/it's 7/a.png", "default/it's 8/a.png")
    assert result.without_image == ("new%0Aline.npy",)


def test_sparse_truth_counts_where_it_is(store: Store, tmp_path: Path) -> None:
    sparse = np.zeros(SOURCE, np.float32)
    sparse[::5, ::7] = truth_of(0)[::5, ::7]
    np.save(tmp_path / "0.npy", sparse)
    (score,) = evaluated(store, tmp_path).images
    _, true, _ = independent_pixels(0, "disparity")
    assert 20 < score.pixels <= (sparse > 0).sum() < true.size / 10
    assert 0 < score.abs_rel < 1


def test_nothing_in_common_says_what_was_looked_for(store: Store, tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", truth_of(0))
    with pytest.raises(
        GroundTruthError, match=r"for default/0.png looked for 0.npy\|.png\|.*begins with x.npy.*--replace"
    ):
        evaluated(store, tmp_path)


def test_nothing_comparable_gives_the_first_reason(store: Store, tmp_path: Path) -> None:
    (tmp_path / "0.npy").write_bytes(b"no array")
    with pytest.raises(
        GroundTruthError, match=r"none of the 1 .* first: default/0.png: 0.npy: it is no whole .npy file$"
    ):
        evaluated(store, tmp_path)


def test_truth_of_unlabelled_images_alone_is_said(tmp_path: Path) -> None:
    store = make_store(tmp_path, [Picture("0.png", SOURCE, LABEL, failed=True)])
    with pytest.raises(GroundTruthError, match=r"no image of .* that has ground truth in .* is labelled"):
        evaluated(store, write_truth(tmp_path / "truth"))


def test_two_images_with_one_truth_are_refused_and_can_be_told_apart(tmp_path: Path) -> None:
    store = make_store(tmp_path, [Picture("a.png", SOURCE, LABEL), Picture("a.bmp", SOURCE, LABEL)])
    truth = tmp_path / "truth"
    truth.mkdir()
    for name in ("a.npy", "a.png.npy", "a.bmp.npy"):
        np.save(truth / name, truth_of(0))
    with pytest.raises(
        GroundTruthError, match=r"^default/a.bmp and default/a.png have the same .*, a.npy; .*--pattern"
    ):
        evaluated(store, truth)
    assert len(evaluated(store, truth, pattern="{name}.npy").images) == 2


@pytest.mark.parametrize("shape", [(28, 56), (280, 560), (7, 14), (29, 56), (27, 56)])
def test_shapes_of_the_same_picture_pass(shape: tuple[int, int]) -> None:
    check_aspect(SOURCE, shape)


@pytest.mark.parametrize("shape", [(56, 28), (28, 50), (31, 56), (1, 100)])
def test_shapes_of_another_picture_do_not(shape: tuple[int, int]) -> None:
    with pytest.raises(GroundTruthError, match=f"it is {shape[1]}x{shape[0]}, and the upright image 56x28"):
        check_aspect(SOURCE, shape)


def test_a_store_that_is_not_there(tmp_path: Path, truth: Path) -> None:
    with pytest.raises(StoreNotFound):
        evaluate_labels(tmp_path / "nothing", truth)


def test_hypersims_distances_are_noticed(store: Store, tmp_path: Path) -> None:
    np.save(tmp_path / "0.depth_meters.npy", truth_of(0))
    options: dict[str, Any] = {"pattern": "{stem}.depth_meters.npy"}
    assert evaluated(store, tmp_path, **options).notes == (HYPERSIM_NOTE,)
    assert evaluated(store, tmp_path, **options, distance_to_depth=50.0).notes == ()


# What is written


def table(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_files_hold_the_result(store: Store, truth: Path, tmp_path: Path) -> None:
    out = tmp_path / "a new" / "folder"
    result = depthsieve.evaluate_labels(store.path, truth, out=out, progress=False)
    assert sorted(path.name for path in out.iterdir()) == sorted(FILES)
    body = json.loads((out / "evaluation.json").read_bytes())
    assert body == json.loads(json.dumps(result.as_json()))
    assert body["pixels"] == result.pixels
    assert len(body["curves"]["rmse"]["method_S"]) == 51
    assert body["settings"]["max_depth"] == 80.0
    assert body["images"][3]["abs_rel"] == result.images[3].abs_rel
    rows = table(out / "images.csv")
    assert [row["id"] for row in rows] == [score.id for score in result.images]
    assert list(rows[0]) == [field.name for field in dataclasses.fields(result.images[0])]
    assert [float(row["spearman"]) for row in rows] == [score.spearman for score in result.images]
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    depthsieve.evaluate_labels(store, truth, out=out, progress=False)
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before


def test_undefined_numbers_are_empty_in_the_table(metric_store: Store, tmp_path: Path) -> None:
    np.save(tmp_path / "0.npy", made_label(0, LABEL)[0])
    evaluated(metric_store, tmp_path, out=tmp_path / "out")
    (row,) = table(tmp_path / "out" / "images.csv")
    assert row["spearman"] == ""
    assert row["abs_rel"] == "0.0"


def colour_columns(path: Path, colour: tuple[int, int, int]) -> list[int]:
    """Columns of a picture in which at least 40 pixels have about this colour."""
    with Image.open(path) as image:
        pixels = np.asarray(image.convert("RGB")).astype(int)
    return np.flatnonzero((np.abs(pixels - colour).max(axis=2) < 40).sum(axis=0) >= 40).tolist()


def test_pictures_show_the_curves_and_the_knee(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from depthsieve.evaluation import figures

    store = make_store(tmp_path, [Picture(f"{n}.png", SOURCE, LABEL) for n in range(COUNT)])
    result = evaluated(store, write_truth(tmp_path / "truth"))
    places = []
    for drop in (None, 0.1, 0.3):
        knee = dataclasses.replace(result.knee, drop=drop)
        path = tmp_path / f"{drop}.png"
        path.write_bytes(figures.sparsification_figure(dataclasses.replace(result, knee=knee)))
        red = colour_columns(path, (0xC0, 0x40, 0x40))
        assert bool(red) == (drop is not None)
        places += red[:1]
    with Image.open(path) as image:
        assert image.size == (1440, 504)
    assert 50 < places[1] - places[0] < 100  # a fifth of a panel's width to the right
    calm = dataclasses.replace(result.calibration, bins=(), bias=float("nan"))
    for calibration in (result.calibration, calm):
        drawn = figures.calibration_figure(dataclasses.replace(result, calibration=calibration))
        assert drawn.startswith(b"\x89PNG")
        (tmp_path / "c.png").write_bytes(drawn)
        with Image.open(tmp_path / "c.png") as image:
            blue = (np.abs(np.asarray(image.convert("RGB")).astype(int) - (0x4C, 0x7F, 0xCC)).max(axis=2) < 40).sum()
        assert (blue > 1000) == (calibration is result.calibration)


def test_files_are_whole_or_not_there(
    store: Store, truth: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A disk that is full when the second file is written leaves the old ones and no half."""
    (tmp_path / "images.csv").write_text("old")
    write = Path.write_bytes

    def full(path: Path, data: bytes) -> int:
        if "csv" in path.name:
            write(path, data[:10])
            raise OSError(28, "No space left on device")
        return write(path, data)

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(RunError, match=r"cannot be written to \(No space left on device\); name another folder"):
        evaluated(store, truth, out=tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["images.csv"]
    assert (tmp_path / "images.csv").read_text() == "old"


@pytest.mark.parametrize("what", ["file", "below a file"])
def test_a_folder_that_cannot_be_made_is_said_before_anything_is_compared(
    store: Store, truth: Path, tmp_path: Path, what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setattr("depthsieve.evaluation.comparing.compare", None)
    with pytest.raises(UsageError, match="name a"):
        evaluated(store, truth, out=tmp_path / "file" if what == "file" else tmp_path / "file" / "x")
