"""Ground truth associated by the timestamps in names."""

import random
from pathlib import Path
from typing import Any

import pytest
from truths import hdf5, opened

from depthsieve.core.errors import GroundTruthError, UsageError
from depthsieve.evaluation.ground_truth.opening import open_ground_truth
from depthsieve.evaluation.ground_truth.settings import TruthSettings
from depthsieve.evaluation.ground_truth.times import associate, timestamp


@pytest.mark.parametrize(
    ("stem", "before", "nanoseconds"),
    [
        ("1305031102.175304", "", 1305031102_175304000),
        ("1305031102", "", 1305031102_000000000),
        ("1403636579763555584", "", 1403636579_763555584),
        ("1403636579763", "", 1403636579_763000000),
        ("15569195938415230", "", 1556919593_841523000),
        ("1305031102175.25", "", 1305031102_175250000),
        ("frame-12.5", "frame-", 12_500000000),
        ("rgb_1305031102.1", "rgb_", 1305031102_100000000),
        ("0", "", 0),
        ("7.0000000019", "", 7_000000001),
    ],
)
def test_times_in_names(stem: str, before: str, nanoseconds: int) -> None:
    assert timestamp(stem) == (before, nanoseconds)


@pytest.mark.parametrize("stem", ["", "a", "1305031102.", "12_rgb", "20121214T142255.8_rgb"])
def test_names_without_a_time(stem: str) -> None:
    assert timestamp(stem) is None


def test_the_closest_pair_comes_first_and_nothing_is_used_twice() -> None:
    """As TUM's associate.py: "b" takes 10, so that "a" has the next one, and "c", within the tolerance of 10, none."""
    there = {"g": [(10, "x"), (19, "y"), (100, "z")], "h": [(10, "other")]}
    wanted = [("a", 13, "g"), ("b", 11, "g"), ("c", 5, "g"), ("d", 94, "g"), ("e", 107, "g")]
    assert associate(wanted, there, 6) == {"b": ("x", 1), "a": ("y", 6), "d": ("z", 6)}
    assert associate([("e", 106, "g"), ("e", 10, "h")], there, 6) == {"e": ("other", 0)}
    assert associate([("f", 10, "nowhere")], there, 6) == {}


def test_association_is_that_of_all_pairs() -> None:
    numbers = random.Random(0)
    there = sorted((numbers.randrange(1000), f"t{n}") for n in range(60))
    wanted = [(f"i{n}", numbers.randrange(1000), "g") for n in range(60)]
    pairs = sorted(
        (abs(at - time), name, file) for name, time, _ in wanted for at, file in there if abs(at - time) <= 9
    )
    expected: dict[str, tuple[str, int]] = {}
    for apart, name, file in pairs:
        if name not in expected and file not in {taken for taken, _ in expected.values()}:
            expected[name] = (file, apart)
    assert 20 < len(expected) < 60
    assert associate(wanted, {"g": there}, 9) == expected


@pytest.mark.parametrize(
    ("image", "file", "settings"),
    [
        ("rgb/1305031102.175304.png", "depth/1305031102.160407.png", {"replace": (("rgb/", "depth/"),)}),
        ("1305031102.175304.png", "1305031102.160407.PNG", {}),
        ("a/1305031102.175304.jpg", "a/1305031102.19_depth.png", {"pattern": "{dir}/{stem}_depth.png"}),
        ("rgb_1305031102.175.jpg", "d_1305031102.174.npy", {"replace": (("rgb_", "d_"),)}),
        ("mu\u0308/1403636579763555584.png", "m\u00fc/1403636579763555000.png", {}),
        ("cam/1305031102.17.png", "1305031102175.npy", {"strip": 1}),
    ],
)
def test_files_are_found_by_time(tmp_path: Path, image: str, file: str, settings: dict[str, Any]) -> None:
    files = [file, "1305031102.1753.txt", "other/1305031102.175304.png", "1305031999.175304.png", "a/x_depth.png"]
    truth = opened(tmp_path, dict.fromkeys(files, b""), associate=0.02, **settings)
    chosen = truth.nearest([f"default/{image}", "default/rgb/none.png", "default/1305031777.png"])
    assert {name: place for name, (place, _) in chosen.items()} == {f"default/{image}": file}


def test_the_tolerance_is_in_seconds_and_includes_its_end(tmp_path: Path) -> None:
    files = dict.fromkeys(["1.00.npy", "2.00.npy"], b"")
    for tolerance, expected in ((0.0149, {}), (0.015, {"default/1.015.png": ("1.00.npy", 0.015)})):
        assert opened(tmp_path, files, associate=tolerance).nearest(["default/1.015.png"]) == expected


def test_two_files_of_one_time_are_an_error_that_names_both(tmp_path: Path) -> None:
    truth = opened(tmp_path, dict.fromkeys(["1.00.npy", "1.00.png", "2.00.png"], b""), associate=0.1)
    assert truth.nearest(["default/2.01.jpg"]) == {"default/2.01.jpg": ("2.00.png", 0.01)}
    with pytest.raises(GroundTruthError, match=r"^default/1.01.jpg has two .*, 1.00.npy and 1.00.png; say which with"):
        truth.nearest(["default/1.01.jpg"])
    truth = open_ground_truth(tmp_path, TruthSettings(associate=0.1, pattern="{dir}/{stem}.png"))
    assert truth.nearest(["default/1.01.jpg"]) == {"default/1.01.jpg": ("1.00.png", 0.01)}


def test_one_file_with_all_maps_has_no_times_or_names(tmp_path: Path) -> None:
    import numpy as np

    (tmp_path / "all.h5").write_bytes(hdf5(d=np.ones((2, 3, 4))))
    for settings in (
        {"associate": 0.1},
        {"pattern": "{stem}.npy"},
        {"replace": (("a", "b"),)},
        {"strip": 1},
        {"mask_pattern": "{stem}.npy"},
    ):
        (name,) = settings
        with pytest.raises(UsageError, match=f"^{name} is for a folder of ground truth, and .*all.h5 is one file"):
            open_ground_truth(tmp_path / "all.h5", TruthSettings(**settings))
