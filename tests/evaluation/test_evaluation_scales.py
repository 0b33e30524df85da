"""Ground truth in different units, in one evaluation: which scale each map is read with."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from truths import DEPTH_HW, evaluated, npy, opened, png, truth_of

from depthsieve.core.errors import UsageError
from depthsieve.evaluation.ground_truth.scales import scales_of
from depthsieve.evaluation.ground_truth.settings import TruthSettings
from depthsieve.store import Store

NAMES: list[tuple[str, float]] = [("0_mm", 1000), ("1_mm", 1000), ("2_div256", 256), ("3_div256", 256)]
PATTERNS = ("{stem}_mm.png", "{stem}_div256.png", "{stem}_m.npy")


@pytest.fixture(scope="module")
def mixed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """PNG in two units and one map in metres."""
    folder = tmp_path_factory.mktemp("mixed")
    for number, (name, scale) in enumerate(NAMES):
        (folder / f"{name}.png").write_bytes(png(np.round(truth_of(number) * scale).astype(np.uint16)))
    np.save(folder / "4_m.npy", truth_of(4))
    return folder


def test_one_run_has_the_numbers_of_a_run_for_each_unit(store: Store, mixed: Path) -> None:
    scales = {"*_mm.png": 1000, "*_div256.png": 256, "*.npy": 1}
    both = evaluated(store, mixed, pattern=PATTERNS, scale_by=scales)
    alone = [
        evaluated(store, mixed, pattern="{stem}_mm.png", scale=1000),
        evaluated(store, mixed, pattern="{stem}_div256.png", scale=256),
        evaluated(store, mixed, pattern="{stem}_m.npy"),
    ]
    assert both.images == tuple(score for each in alone for score in each.images)
    assert [score.id for score in both.images] == [f"default/{number}.png" for number in range(5)]
    (note,) = [note for note in both.notes if note.kind == "scale-by"]
    assert note.text == (
        "how many units are a metre: 1000 for 2 maps (*_mm.png), 256 for 2 maps (*_div256.png), 1 for 1 map (*.npy)"
    )
    assert both.settings.scale_by == (("*_mm.png", 1000), ("*_div256.png", 256), ("*.npy", 1))


def test_scale_is_for_the_files_that_fit_no_pattern(store: Store, mixed: Path) -> None:
    given = evaluated(store, mixed, pattern=PATTERNS[:2], scale_by={"*_mm.png": 1000, "*.pgm": 5}, scale=256)
    want = evaluated(store, mixed, pattern=PATTERNS[:2], scale_by={"*_mm.png": 1000, "*_div256.png": 256})
    assert given.images == want.images
    text = next(note.text for note in given.notes if note.kind == "scale-by")
    assert text.endswith("1000 for 2 maps (*_mm.png), 5 for 0 maps (*.pgm), 256 for the other 2 (--scale)")


@pytest.mark.parametrize(
    ("scale_by", "message"),
    [
        ({"*_mm.png": 1000}, "2_div256.png (and 2 more) fits no pattern of --scale-by; add one"),
        ({"*_mm.png": 1000, "*.png": 256, "*.npy": 1}, "0_mm.png (and 1 more) fits two patterns of --scale-by, "),
        ((("*.png", 1000), ("*.png", 256), ("*.npy", 1)), "fits two patterns of --scale-by, '*.png' and '*.png'"),
        ({"*.png": 0}, "scale_by: '*.png' needs a number above 0, not 0"),
        ({"*.png": "256"}, "scale_by: '*.png' needs a number above 0, not '256'"),
        ({"/": 1}, "scale_by: '/' is no pattern of files"),
        ({"[b-a].png": 1}, "scale_by: '[b-a].png' is not a pattern: "),
        ((3,), "scale_by takes pairs of a pattern and how many units are a metre, not 3"),
    ],
)
def test_a_map_must_fit_one_pattern_and_it_is_said_before_a_map_is_read(
    store: Store, mixed: Path, scale_by: Any, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("depthsieve.evaluation.comparing.compare", None)
    with pytest.raises(UsageError, match=re.escape(message)):
        evaluated(store, mixed, pattern=PATTERNS, scale_by=scale_by)


@pytest.mark.parametrize(
    ("pattern", "scale"),
    [("*_mm.png", 1000), ("a/", 256), ("a/*/*.png", 5), ("**/c_?m.png", 7), ("A/", 1), ("b/", 2), ("c*", 3)],
)
def test_patterns_are_of_names_in_any_folder_or_of_paths(pattern: str, scale: float) -> None:
    fits = {"*_mm.png", "a/", "a/*/*.png", "**/c_?m.png", "b/", "c*"}
    found = scales_of(TruthSettings(scale_by=((pattern, scale),)), "a/b/c_mm.png")
    assert bool(found) == (pattern in fits)


def test_letters_may_be_composed_or_not(tmp_path: Path) -> None:
    truth = opened(tmp_path, {"e\u0301/a.npy": npy(DEPTH_HW)}, scale_by=(("\u00e9/", 2.0),))
    (place,) = truth.places()
    np.testing.assert_array_equal(truth.read(place, "default/a.png").metres_HW[0, :2], DEPTH_HW[0, :2] / 2)


def test_of_several_patterns_each_is_looked_for(store: Store, mixed: Path) -> None:
    """And what is looked for is said where nothing is found."""
    truth = opened(mixed, {}, pattern=PATTERNS)
    looked: Callable[[str], str] = truth.looked_for
    assert [truth.place(f"default/{number}.png") for number in (0, 2, 4, 5)] == [
        "0_mm.png",
        "2_div256.png",
        "4_m.npy",
        None,
    ]
    assert "x_mm.png" in looked("default/x.png")
