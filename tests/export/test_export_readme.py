"""What the README says of reliability, masks and sizes is so for the store that was exported."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from exported import export, small_store
from mapmaker import imported, write_maps
from metric_scenes import metric_store
from storemaker import SPEC, Picture, make_store

from depthsieve.reliability.scale import CODE_VERSION, SCALES

FORMULA = "10000 ** (-(code - 1) / 254)"


def line_of(out: Path, name: str) -> str:
    """What the README says under a name."""
    return next(line for line in (out / "README.md").read_text().splitlines() if line.startswith(f"- **{name}**"))


def test_a_mask_that_ties_masks_nothing_and_says_so(tmp_path: Path) -> None:
    flat = np.full((14, 14), 255, np.uint8)
    halves = np.repeat(np.array([[10], [200]], np.uint8), 7, 0).repeat(14, 1)
    same = [Picture(f"{number}.png", (28, 28), (14, 14), reliability_HW=flat) for number in range(3)]
    store = make_store(tmp_path, [*same, Picture("x.png", (28, 28), (14, 14), reliability_HW=halves)])
    told = "--mask 0.6 masks 12.50% of the valid pixels of all images. Of 4 images, 3 have nothing masked, since their "
    for dry_run in (True, False):
        assert any(told in note for note in export(store, tmp_path / "out", "npy", mask=0.6, dry_run=dry_run).notes)
    mask = line_of(tmp_path / "out", "Mask")
    assert "12.50% of the valid pixels of all images. Of 4 images, 3 have nothing masked" in mask


def test_a_mask_that_masks_is_told_in_the_readme_only(tmp_path: Path) -> None:
    store = small_store(tmp_path)
    assert export(store, tmp_path / "out", "npy", mask=0.2).notes == ()
    codes = [store[image_id] for image_id in store]
    valid = sum(int((label.reliability > 0).sum()) for label in codes)
    masked = valid - sum(int(label.mask(0.2).sum()) for label in codes)
    mask = line_of(tmp_path / "out", "Mask")
    assert mask.endswith(f"are invalid too: {masked / valid:.2%} of the valid pixels of all images.")


@pytest.mark.parametrize(
    ("calibration", "signals", "told"),
    [
        ("flip-2", ("flip",), FORMULA),
        ("flip-uncalibrated", ("flip",), "made from signals that are not calibrated, and are no expected errors"),
        ("none", (), "all valid pixels have one code, as no signals were computed"),
    ],
)
def test_codes_are_called_errors_where_they_are(
    calibration: str, signals: tuple[str, ...], told: str, tmp_path: Path
) -> None:
    spec = dataclasses.replace(SPEC, calibration=calibration, signals=signals)
    export(make_store(tmp_path, [Picture("a.png", (28, 28), (14, 14))], spec=spec), tmp_path / "out", "npy")
    line = line_of(tmp_path / "out", "Reliability")
    assert told in line
    assert (FORMULA in line) == (told == FORMULA)
    assert "as large as the teacher worked" in line_of(tmp_path / "out", "Geometry")


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({}, "all valid pixels have one code, as the maps were imported without confidence"),
        ({"confidence_means": "higher-is-better"}, "made from imported confidence, and are no expected errors"),
        ({"confidence_means": "error"}, f"`{SCALES[CODE_VERSION].formula}`, as the imported maps say"),
    ],
)
def test_the_codes_of_imported_maps(options: dict[str, str], told: str, tmp_path: Path) -> None:
    made = write_maps(tmp_path / "made", range(2))
    confidence = {"confidence": "sure/{dir}/{stem}.npy"} if options else {}
    imported(made, tmp_path / "labels", ".", pattern="m/{dir}/{stem}.npy", **confidence, **options)
    export(tmp_path / "labels", tmp_path / "out", "npy")
    assert told in line_of(tmp_path / "out", "Reliability")
    assert "as large as the maps that were imported" in line_of(tmp_path / "out", "Geometry")


@pytest.mark.parametrize("target", ["kitti", "ultralytics", "depth-anything-v2", "moge"])
def test_a_target_without_reliability_says_no_formula(target: str, tmp_path: Path) -> None:
    export(metric_store(tmp_path, names={"a.jpg": 1}), tmp_path / "out", target)
    assert line_of(tmp_path / "out", "Reliability") == "- **Reliability**: not written."
    assert FORMULA not in (tmp_path / "out" / "README.md").read_text()
