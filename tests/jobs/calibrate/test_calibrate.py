"""Calibrating: what is learnt, what comes out, resuming, pairs, mistakes."""

import dataclasses
import math
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from numpy.typing import NDArray

import depthsieve
from depthsieve.core.errors import GroundTruthError, UsageError
from depthsieve.core.progress import progress_bar
from depthsieve.evaluation.ground_truth.settings import TruthSettings
from depthsieve.jobs.calibrate import run, training
from depthsieve.jobs.calibrate.examples import (
    Example,
    both_errors,
    example,
    family_of,
    scene_example,
    scene_photo,
    wear,
    with_sky,
)
from depthsieve.jobs.calibrate.judging import score
from depthsieve.jobs.calibrate.pairs import find_pairs
from depthsieve.jobs.calibrate.progress import Unfinished
from depthsieve.jobs.calibrate.settings import FIRST_SEED
from depthsieve.reliability.fusion import near_level
from depthsieve.reliability.network import ErrorNetwork
from depthsieve.teachers import Teacher, load_teacher

SMALL = {"scenes": 20, "judged": 2, "steps": 3, "progress": False}


@pytest.fixture(scope="module")
def teacher() -> Teacher:
    return load_teacher("tiny-v1", size=56, device="cpu")


def red_is_wrong(seed: int) -> Example:
    """A label that is wrong where the photo is red, on the left or on the right, whatever its level."""
    dice = np.random.default_rng(seed)
    photo_HW3 = dice.integers(0, 120, (32, 32, 3), dtype=np.uint8)
    depth_HW = (1 + np.linspace(0, 1, 32)[:, None] + 0.01 * dice.random((32, 32))).astype(np.float32)
    left, error_HW = 16 * int(dice.integers(2)), np.full((32, 32), 0.02, np.float32)
    photo_HW3[:, left : left + 16, 0] += 130
    error_HW[:, left : left + 16] = 0.3
    return Example(photo_HW3, depth_HW, np.stack((error_HW, 2 * error_HW)))


def under_a_sky(seed: int) -> Example:
    """A sky that is labelled as it should be, over ground that is wrong far away: there the label is 0 as well."""
    dice = np.random.default_rng(seed)
    photo_HW3 = dice.integers(60, 120, (32, 32, 3), dtype=np.uint8)
    horizon = int(dice.integers(10, 20))
    photo_HW3[:horizon, :, 2] = 230
    depth_HW = np.zeros((32, 32), np.float32)
    depth_HW[horizon + 4 :] = np.linspace(0.5, 2, 28 - horizon, dtype=np.float32)[:, None]
    error_HW = np.full((32, 32), 0.05, np.float32)
    error_HW[horizon : horizon + 4] = 0.4
    second_HW = 3 * error_HW
    second_HW[:horizon] = np.nan
    return Example(photo_HW3, depth_HW, np.stack((error_HW, second_HW)))


def trained(folder: Path, seen: list[Example]) -> ErrorNetwork:
    """A network that was trained on examples for 40 steps; its scale is fitted to the last four."""
    unfinished = Unfinished(folder, {})
    for number, one in enumerate(seen):
        unfinished.keep(number, training.stored(one, "disparity", number))
    network, learnt = ErrorNetwork.random(0), len(seen) - 4
    with torch.random.fork_rng(devices=[]), progress_bar("", shown=False) as bar:
        training.train(network, unfinished, [list(range(learnt))], 40, 0, bar)
    training.fit_blend(network, [unfinished.example(number) for number in range(learnt, len(seen))])
    return network


def expected_of(network: ErrorNetwork, seen: list[Example]) -> list[NDArray[np.float32]]:
    """The error that is expected at each pixel of labels."""
    maps = [[torch.from_numpy(one)[None] for one in (label.photo_HW3, label.depth_HW)] for label in seen]
    return [network.expected_error(*each)[0].numpy() for each in maps]


# Learning


def test_the_network_learns_where_labels_are_wrong(tmp_path: Path) -> None:
    network = trained(tmp_path / "made", [red_is_wrong(seed) for seed in range(24)])
    judged = []
    for seed in range(100, 106):
        seen = red_is_wrong(seed)
        photo_1HW3, depth_1HW = torch.from_numpy(seen.photo_HW3)[None], torch.from_numpy(seen.depth_HW)[None]
        doubt_HW = network.expected_error(photo_1HW3, depth_1HW)[0].numpy()
        judged.append((seen, {"network": doubt_HW, "level": 1 - near_level(depth_1HW, "disparity")[0].numpy()}))
    by_network, by_level = score("scenes", judged, {"network": 0.2})
    assert by_network.images == 6 and by_network.extra_time == 0.2 and by_level.extra_time is None
    assert by_network.ause < 0.2 * by_level.ause and by_network.abs_rel_ause < 0.2 * by_level.abs_rel_ause
    assert by_network.kept < 0.95 * by_level.kept
    assert by_network.expected == pytest.approx(1, abs=0.3)


def test_the_scale_is_that_of_other_scenes_and_the_order_stays(tmp_path: Path) -> None:
    network = trained(tmp_path / "made", [red_is_wrong(seed) for seed in range(24)])
    seen = [red_is_wrong(seed) for seed in range(100, 106)]
    before = expected_of(network, seen)
    worse = [dataclasses.replace(one, errors_2HW=2.5 * one.errors_2HW) for one in seen]
    training.fit_scale(network, [training.stored(one, "disparity", 0) for one in worse])
    after = expected_of(network, seen)
    found = np.mean([one.errors_2HW[0] for one in worse])
    assert np.mean(after) == pytest.approx(found, rel=0.01) and np.mean(before) < 0.6 * found
    ratio = np.array(after) / np.array(before)
    assert ratio == pytest.approx(float(network.scale) * np.ones_like(ratio))


def test_a_sky_is_not_taken_for_wrong(tmp_path: Path) -> None:
    network = trained(tmp_path / "made", [under_a_sky(seed) for seed in range(24)])
    for seed in range(100, 104):
        seen = under_a_sky(seed)
        maps = torch.from_numpy(seen.photo_HW3)[None], torch.from_numpy(seen.depth_HW)[None]
        doubt_HW = network.expected_error(*maps)[0].numpy()
        sky_HW, far_HW = np.isnan(seen.errors_2HW[1]), seen.errors_2HW[0] > 0.1
        assert doubt_HW[sky_HW].mean() < 0.7 * doubt_HW[far_HW].mean()


def test_the_loss_is_least_where_the_mean_error_is_expected() -> None:
    error_B2HW = torch.tensor([[[[0.1, 0.3, 0.9]], [[0.2, 0.6, math.nan]]]])  # the last pixel is sky
    out_B3HW = torch.zeros(1, 3, 1, 3, requires_grad=True)
    training.network_loss(out_B3HW, error_B2HW).backward()
    assert out_B3HW.grad is not None and (out_B3HW.grad[0, :2, 0, :2] > 0).all()
    assert (out_B3HW.grad[0, :2, 0, 2] == 0).all() and out_B3HW.grad[0, 2, 0].sign().tolist() == [1, 1, -1]
    right_B2HW = torch.tensor([[[[0.2, 0.2, 9.0]], [[0.4, 0.4, 9.0]]]]).log().requires_grad_()
    training.network_loss(torch.cat((right_B2HW, torch.zeros(1, 1, 1, 3)), 1), error_B2HW).backward()
    assert right_B2HW.grad is not None
    assert right_B2HW.grad.sum((2, 3)).abs().max() < 1e-6  # the means of 0.1 and 0.3, and of 0.2 and 0.6
    assert float(training.network_loss(out_B3HW.detach(), torch.full((1, 2, 1, 3), math.nan))) == 0


def test_the_rate_rises_and_falls_to_nothing() -> None:
    rates = [training.rate_at(step, 100) for step in range(100)]
    top = int(np.argmax(rates))
    assert rates[top] == pytest.approx(training.RATE, rel=0.01) and top == 15
    assert rates[0] < 0.05 * training.RATE and rates[-1] < 1e-3 * training.RATE


def test_large_labels_are_trained_on_in_parts_with_the_level_of_the_whole() -> None:
    depth_HW = np.linspace(1, 3, 400, dtype=np.float32)[:, None].repeat(300, 1)
    seen = Example(np.zeros((400, 300, 3), np.uint8), depth_HW, np.full((2, 400, 300), 9.0, np.float32))
    parts = [training.stored(seen, "disparity", seed) for seed in range(6)]
    assert {part.shape for part in parts} == {training.CROP[::-1]}
    assert len({float(part["maps"][0, 0, 0]) for part in parts}) > 3
    assert parts[0]["errors"][0, 0].tolist() == list(training.MOST_ERROR)


# Examples


def test_both_errors_are_those_of_evaluate() -> None:
    """A label that is right but for one pixel; the truth runs over 1 to 4 m, and 0 is unknown."""
    truth_HW = np.array([[1.0, 2.0, 4.0, 0.0], [1.0, 2.0, 4.0, 100.0]], np.float32)
    depth_HW = np.array([[1.0, 0.5, 0.25, 9.0], [1.0, 0.5, 0.25, 9.0]], np.float32)
    errors_2HW = both_errors(depth_HW, truth_HW, "disparity")
    assert np.isnan(errors_2HW[:, :, 3]).all()
    assert errors_2HW[:, :, :3] == pytest.approx(np.zeros((2, 2, 3)), abs=1e-6)
    metres_HW = np.array([[1.1, 2.0, 4.0, 9.0], [1.0, 2.0, 4.0, 9.0]], np.float32)
    errors_2HW = both_errors(metres_HW, truth_HW, "depth")  # the median is 2
    assert errors_2HW[:, 0, 0] == pytest.approx([0.1 / 3.1, 0.1])


def test_a_sky_has_the_first_error_and_not_the_second(teacher: Teacher) -> None:
    truth_HW = np.array([[math.inf, math.inf, 2.0, 4.0], [1.0, 2.0, 4.0, math.nan]], np.float32)
    depth_HW = np.array([[0.0, 0.3, 0.5, 0.25], [1.0, 0.5, 0.25, 9.0]], np.float32)
    before = Example(np.zeros((2, 4, 3), np.uint8), depth_HW, both_errors(depth_HW, truth_HW, "disparity"))
    after = with_sky(before, truth_HW)
    rest_HW = ~np.isposinf(truth_HW)
    assert np.array_equal(after.errors_2HW[:, rest_HW], before.errors_2HW[:, rest_HW], equal_nan=True)
    assert np.isnan(before.errors_2HW[:, ~rest_HW]).all() and np.isnan(after.errors_2HW[1, ~rest_HW]).all()
    assert after.errors_2HW[0, 0, :2] == pytest.approx([0, 0.3 / (0.3 + 0.3)])  # the label's median is 0.3
    parks = [scene_example(teacher, seed, "home", 0) for seed in range(6)]
    assert any((np.isfinite(one.errors_2HW[0]) & np.isnan(one.errors_2HW[1])).mean() > 0.1 for one in parks)


def test_scenes_are_photos_of_several_shapes_and_some_are_worn(teacher: Teacher) -> None:
    assert [family_of(number) for number in range(12)] == 4 * ["home"] + 4 * ["wild"] + 4 * ["home"]
    scenes = [scene_photo(teacher, 5, "home", number) for number in range(4)]
    assert [scene.rgb_HW3.shape[:2] for scene in scenes] == [(56, 70), (56, 70), (70, 56), (56, 98)]
    rgb_HW3 = scenes[0].rgb_HW3
    worn = [np.array_equal(wear(rgb_HW3, np.random.default_rng(seed)), rgb_HW3) for seed in range(30)]
    assert 4 <= sum(worn) <= 16
    seen = example(teacher, rgb_HW3, scenes[0].depth_HW)
    assert np.array_equal(seen.depth_HW, seen.depth_HW.astype(np.float16).astype(np.float32))
    assert 0 < seen.pixels <= 56 * 70


# The whole way


@pytest.fixture(scope="module")
def calibrated(teacher: Teacher, tmp_path_factory: pytest.TempPathFactory) -> depthsieve.CalibrateSummary:
    return depthsieve.calibrate(teacher, tmp_path_factory.mktemp("made") / "tiny.safetensors", **SMALL)


def test_it_writes_one_network_for_its_teacher(calibrated: depthsieve.CalibrateSummary, teacher: Teacher) -> None:
    file = Path(calibrated.file)
    network = ErrorNetwork.load(file)
    assert [entry.name for entry in file.parent.iterdir()] == [file.name]
    assert network.digest == calibrated.digest and network.name(teacher.weights_digest) == calibrated.calibration
    assert network.fitted_on == (teacher.weights_digest,) and network.quantity == "disparity"
    assert network.meta["scenes"] == 20 and network.meta["teacher"] == "tiny-v1"
    assert network.digest != ErrorNetwork.random(0).digest and float(network.blend[2]) == training.SHARE
    assert [(one.data, one.method, one.images) for one in calibrated.scores] == [
        ("scenes", "network", 2),
        ("scenes", "flip, fused", 2),
        ("scenes", "level of the label", 2),
    ]
    assert all(one.extra_time is not None and one.ause > 0 for one in calibrated.scores)
    assert (calibrated.pairs, calibrated.pairs_judged, calibrated.failed) == (0, 0, ())


def test_its_scale_is_that_of_scenes_of_the_family_that_is_not_learnt_from(
    calibrated: depthsieve.CalibrateSummary, teacher: Teacher
) -> None:
    scenes = [scene_photo(teacher, FIRST_SEED + number, "foreign", number) for number in range(20, 25)]
    seen = [example(teacher, scene.rgb_HW3, scene.depth_HW) for scene in scenes]
    known = [np.isfinite(one.errors_2HW[1]) for one in seen]
    expected = expected_of(ErrorNetwork.load(calibrated.file), seen)
    means = [
        [float(map_HW[known_HW].mean()) for map_HW, known_HW in zip(maps, known, strict=True)]
        for maps in (expected, [one.errors_2HW[0] for one in seen])
    ]
    assert sum(means[0]) == pytest.approx(sum(means[1]), rel=0.02)


def test_what_was_stopped_resumes_and_comes_out_the_same(
    calibrated: depthsieve.CalibrateSummary, teacher: Teacher, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, kept = tmp_path / "tiny.safetensors", Unfinished.keep
    monkeypatch.setattr(training, "KEPT_EVERY", 1)

    def stop(what: str, when: int) -> None:
        """Die when ``what`` is kept for the ``when``-th time."""
        whole, count = getattr(Unfinished, what), iter(range(1, 1000))

        def dies(self: Unfinished, *values: object) -> None:
            whole(self, *values)
            if next(count) == when:
                raise KeyboardInterrupt

        with monkeypatch.context() as patch:
            patch.setattr(Unfinished, what, dies)
            with pytest.raises(KeyboardInterrupt):
                depthsieve.calibrate(teacher, file, **SMALL)

    stop("keep", 7)
    folder = tmp_path / "tiny.safetensors.unfinished"
    assert len(list((folder / "examples").iterdir())) == 7
    first = (folder / "examples" / "000000.npy").stat().st_mtime_ns
    with pytest.raises(UsageError, match=r"unfinished calibration of other settings \(they differ in steps\)"):
        depthsieve.calibrate(teacher, file, **{**SMALL, "steps": 4})
    stop("keep_training", 2)
    assert not file.exists() and Unfinished.keep is kept
    again = depthsieve.calibrate(teacher, file, **SMALL)
    assert again.digest == calibrated.digest
    assert first and not folder.exists()
    with pytest.raises(UsageError, match="is there already; name another file, or delete it"):
        depthsieve.calibrate(teacher, file, **SMALL)


def test_it_can_go_on_from_another_network(teacher: Teacher, tmp_path: Path) -> None:
    settings = {**SMALL, "judged": 1, "steps": 1}
    ErrorNetwork("depth").save(tmp_path / "metres")
    with pytest.raises(UsageError, match=r"metres tells errors of depth, and teacher 'tiny.*' predicts disparity"):
        depthsieve.calibrate(teacher, tmp_path / "made", start=tmp_path / "metres", **settings)
    before = ErrorNetwork.random(5)
    before.head.bias.copy_(torch.tensor([1.5, -6.0, -2.0]))
    before.save(tmp_path / "before")
    made = depthsieve.calibrate(teacher, tmp_path / "made", start=tmp_path / "before", **settings)
    after = ErrorNetwork.load(made.file)
    assert after.head.bias.tolist() == pytest.approx([1.5, -6.0, -2.0], abs=0.1) and after.digest != before.digest
    assert after.meta["start"] == before.version


def write_pairs(folder: Path, count: int) -> None:
    """Rendered scenes as photos, with depth in millimetres beside them."""
    folder.mkdir()
    for seed in range(count):
        scene = depthsieve.scenes.render_scene(seed, 60, 80)
        photo_HW3 = cv2.cvtColor(scene.rgb_HW3, cv2.COLOR_RGB2BGR)
        cv2.imwrite(str(folder / f"{seed}.jpg"), photo_HW3)
        cv2.imwrite(str(folder / f"{seed}_depth.png"), millimetres(scene.depth_HW))


def millimetres(depth_HW: NDArray[np.float32]) -> NDArray[np.uint16]:
    return np.where(depth_HW < 60, depth_HW * 1000, 0).astype(np.uint16)


def test_pairs_are_learnt_from_and_one_in_three_is_judged(teacher: Teacher, tmp_path: Path) -> None:
    write_pairs(tmp_path / "pairs", 4)
    (tmp_path / "pairs" / "2.jpg").write_bytes(b"\xff\xd8 no photo")
    options = {"pairs": [tmp_path / "pairs"], "pattern": "{dir}/{stem}_depth.png", "scale": 1000.0}
    made = depthsieve.calibrate(teacher, tmp_path / "with", **options, **SMALL)
    assert (made.pairs, made.pairs_judged, made.pairs_scaled) == (1, 2, 0)  # one of two to learn from is broken
    assert made.without_depth == 4  # the depth maps
    assert [failure.id for failure in made.failed] == ["default/2.jpg"]
    on_pairs = [one for one in made.scores if one.data == "pairs"]
    assert [one.method for one in on_pairs] == ["network", "flip, fused", "level of the label"]
    assert {one.images for one in on_pairs} <= {1, 2}
    assert ErrorNetwork.load(tmp_path / "with").meta["pairs"] == 1


def test_enough_pairs_give_the_scale_and_are_not_learnt_from(
    teacher: Teacher, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_pairs(tmp_path / "pairs", 24)
    learnt: set[int] = set()

    def train(network: ErrorNetwork, kept: Unfinished, groups: list[list[int]], *rest: Any) -> None:
        learnt.update(*groups)
        training.train(network, kept, groups, *rest)

    monkeypatch.setattr(run, "train", train)
    options = {"pattern": "{dir}/{stem}_depth.png", "scale": 1000.0}
    made = depthsieve.calibrate(teacher, tmp_path / "with", pairs=[tmp_path / "pairs"], **options, **SMALL)
    assert (made.pairs, made.pairs_judged, made.pairs_scaled) == (11, 8, 5)
    scaling = find_pairs([tmp_path / "pairs"], None, TruthSettings(**options)).learnt[2::3]
    seen = [example(teacher, *pair.read()) for pair in scaling]
    known = [np.isfinite(one.errors_2HW[1]) for one in seen]
    network = ErrorNetwork.load(made.file)
    means = [
        [float(map_HW[known_HW].mean()) for map_HW, known_HW in zip(maps, known, strict=True)]
        for maps in (expected_of(network, seen), [one.errors_2HW[0] for one in seen])
    ]
    assert sum(means[0]) == pytest.approx(sum(means[1]), rel=0.02)
    assert (network.meta["pairs"], network.meta["pairs_scaled"]) == (11, 5)
    assert learnt & {20 + place for place in range(16)} == {20 + place for place in range(16) if place % 3 != 2} - {
        35
    }  # held back


def test_which_pairs_are_judged_hangs_on_their_names_alone(tmp_path: Path) -> None:
    write_pairs(tmp_path / "pairs", 7)
    settings = TruthSettings(pattern="{dir}/{stem}_depth.png", scale=1000)
    with pytest.raises(UsageError, match="scale"):
        find_pairs([tmp_path / "pairs"], None, TruthSettings(pattern=settings.pattern))
    found = find_pairs([tmp_path / "pairs"], None, settings)
    assert (len(found.learnt), len(found.judged)) == (4, 3)
    rgb_HW3, depth_HW = found.judged[0].read()
    assert rgb_HW3.shape == (60, 80, 3) and 0.3 < np.nanmedian(depth_HW) < 60
    (tmp_path / "pairs").rename(tmp_path / "moved")
    again = find_pairs([tmp_path / "moved"], None, settings)
    assert [pair.id for pair in again.judged] == [pair.id for pair in found.judged]
    photo = tmp_path / "moved" / "photo.png"
    cv2.imwrite(str(photo), cv2.imread(str(tmp_path / "moved" / "0.jpg")))
    alone = TruthSettings(scale=1000)  # by which every PNG would be its own depth
    with pytest.raises(GroundTruthError, match="no photo of"):
        find_pairs([tmp_path / "moved"], None, alone)
    with pytest.raises(GroundTruthError, match=r"no photo of .*moved has depth in .*; for default/0.jpg looked for"):
        find_pairs([tmp_path / "moved"], None, TruthSettings(pattern="{dir}/{stem}_truth.npy"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"scenes": 19}, "scenes must be 20 or more, not 19"),
        ({"steps": 0}, "steps must be 1 or more, not 100 and 0"),
        ({"judged": 0}, "judged and steps must be 1 or more, not 0"),
        ({"seed": -1}, "seed must lie in 0"),
        ({"scale": 1000.0}, "are for pairs; name folders"),
    ],
)
def test_mistakes_are_usage_errors_before_any_work(
    teacher: Teacher, tmp_path: Path, options: dict[str, float], message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        depthsieve.calibrate(teacher, tmp_path / "made", **options)
    with pytest.raises(UsageError, match="is no folder; make it"):
        depthsieve.calibrate(teacher, tmp_path / "none" / "made")
    assert not list(tmp_path.iterdir())
