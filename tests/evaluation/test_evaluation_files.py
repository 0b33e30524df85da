"""What an evaluation writes and shows."""

import csv
import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from storemaker import Picture, made_label, make_store
from truths import COUNT, LABEL, SOURCE, evaluated, write_truth

import depthsieve
from depthsieve.core.errors import RunError, UsageError
from depthsieve.evaluation.writing import FILES
from depthsieve.store import Store


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
        assert image.size == (1800, 504)
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
