"""The contract suite that others run on their teachers: a good one passes, and each rule, broken, is one line."""

from collections.abc import Callable
from typing import Any

import numpy as np
import plug_in
import pytest
import torch
from numpy.typing import NDArray

from depthsieve.core.errors import UsageError
from depthsieve.core.records import TeacherRequest
from depthsieve.scenes import render_scene
from depthsieve.teachers import load_teacher
from depthsieve.testing import RULES, BrokenRule, check_teacher, contract

PICTURES = [render_scene(seed, *shape).rgb_HW3 for seed, shape in ((1, (24, 32)), (2, (32, 24)))]
RETURN = "return Prediction(1 + batch.image.mean(1) * scale, confidence=1 + batch.image[:, 2] * scale)"
SCALE = "scale = torch.nan_to_num(batch.focal_px, nan=1.0)[:, None, None]"
DEVICE = "self.device = torch.device(request.device)"
BETTER = 'confidence_better = "higher"'


def factory(*changes: tuple[str, str]) -> Callable[[Any], Any]:
    """The function of the small package that makes its teacher, with changes of its source."""
    source = "import threading, time\n" + plug_in.MODULE
    for before, after in changes:
        assert before in source
        source = source.replace(before, after)
    space: dict[str, Any] = {"__name__": "tried"}
    exec(source, space)
    return space["load"]  # type: ignore[no-any-return]


def broken(*changes: tuple[str, str]) -> list[BrokenRule]:
    return check_teacher(factory(*changes), pictures=PICTURES)


def test_a_teacher_that_keeps_the_rules_passes() -> None:
    assert check_teacher(factory()) == []
    assert check_teacher(factory()(load_request()), pictures=PICTURES) == []
    assert check_teacher("tiny", pictures=PICTURES[:1], size=64) == []


def load_request() -> Any:
    return TeacherRequest("any", device="cpu", dtype="float32", max_tokens=100, oversize="reject")


@pytest.mark.parametrize(
    ("rule", "change", "words"),
    [
        ("loading", ('unit = ""', 'unit = "m"'), "its unit is 'm', not ''"),
        ("loading", ("return Brightness(request)", "return 7"), "no teacher: it has no 'name'"),
        ("digest", (DEVICE, DEVICE + "; self.weights_digest = f'{time.time_ns():064x}'"), "content alone"),
        ("label shape", ("max(1, height // 2), max(1, width // 2)", "width // 2, height // 2"), "height first"),
        ("label shape", ("max(1, height // 2)", "time.time_ns() % 9 + 8"), "let it depend on height and width alone"),
        ("label shape", ("max(1, height // 2)", "height / 2"), "its label_shape is (12.0, 16), not (height, width)"),
        ("input", ("height, width = shape\n", "height, width = shape; rgb_HW3[0] = 0\n"), "changes the picture"),
        ("input", ("dtype=np.float32)", "dtype=np.float32) + np.float32(time.time_ns() % 99)"), "at random"),
        ("input", ("dtype=np.float32)", "dtype=np.float16)"), "not ndarray of float32 [3, 12, 16]"),
        ("prediction", ("1 + batch.image.mean(1)", "batch.image"), "its depth is torch.float32 [1, 3,"),
        ("prediction", (RETURN, "batch.image.add_(1); " + RETURN), "predict changes its input"),
        ("prediction", (SCALE, SCALE + ".requires_grad_()"), "torch.inference_mode()"),
        ("depth", ("1 + batch.image.mean(1)", "torch.nan + batch.image[:, 1]"), "valid=torch.isfinite(depth)"),
        ("depth", ("1 + batch.image.mean(1)", "-batch.image[:, 1]"), "return 0 or more"),
        ("depth", ("1 + batch.image.mean(1)", "1e9 + batch.image[:, 1]"), "float16 holds 65504"),
        ("depth", ("1 + batch.image.mean(1) * scale", "torch.ones_like(batch.image[:, 0])"), "1 at every pixel"),
        ("depth", ("* scale)\n", "* scale, valid=batch.image[:, 0] < 0)\n"), "it labels no pixel"),
        ("confidence", ("confidence=1 +", "confidence=-1 -"), "return 0 or more"),
        ("confidence", ('"how blue it is"', '""'), "say in words what the confidence is"),
        ("determinism", ("1 + batch.image.mean(1)", "torch.rand(1) + batch.image.mean(1)"), "draw nothing"),
        ("batch", ("1 + batch.image.mean(1)", "1 + batch.image.mean(1) / batch.image.mean()"), "normalise each image"),
        (
            "threads",
            ("* scale, c", "* scale + self.kept.mean(), c"),
            "keep nothing of a batch in the teacher",
        ),
        (
            "half size",
            ("    def prepare", "    def half_shape(self, shape): return shape\n\n    def prepare"),
            "or None",
        ),
        ("odd sizes", ("max(1, height // 2)", "1 // (height > 20) * (height // 2)"), "ZeroDivisionError"),
        ("odd sizes", ("max(1, height // 2), max(1, width // 2)", "height // 2, width // 2"), "not (height, width)"),
        ("cameras", ('intrinsics_in = "used"', ""), "say intrinsics_in = 'used', or 'needed'"),
        ("cameras", (SCALE, "scale = 1"), "say intrinsics_in = 'ignored'"),
        ("cameras", ("nan=1.0", "nan=torch.nan"), "say intrinsics_in = 'needed'"),
        ("embedding", (BETTER, f'{BETTER}; embedding_size = 3; embedding_method = "colours"'), "embedding is NoneType"),
        ("embedding", (BETTER, f"{BETTER}; embedding_size = 3"), "say in words how embeddings are made"),
        ("embedding", (BETTER, f'{BETTER}; embedding_size = 3; embedding_method = "colours"'), "do not have norm 1"),
    ],
)
def test_a_broken_rule_is_one_line_that_says_what_to_do(rule: str, change: tuple[str, str], words: str) -> None:
    changes = [change]
    if rule == "threads":
        changes.append((SCALE, SCALE + "; self.kept = batch.image; time.sleep(0.01)"))
    if rule == "embedding" and "NoneType" not in words:
        changes.append(("* scale)\n", "* scale, embedding=batch.image.mean((2, 3)))\n"))
    found = broken(*changes)
    where = "prediction" if "NoneType" in words else rule
    (line,) = [str(one) for one in found if one.rule == where and words in str(one)]
    assert "\n" not in line and line.startswith(f"{where}: ")
    if rule not in ("depth", "threads", "determinism"):
        assert {one.rule for one in found} <= {where, "odd sizes"}


LOAD = "def load(request):\n    return Brightness(request)"

KNOWS = """
class Knows(Brightness):
    confidence_better = "BETTER"
    def label_shape(self, height, width):
        return height, width

    def prepare(self, rgb_HW3, shape):
        return np.ascontiguousarray(rgb_HW3.transpose(2, 0, 1), dtype=np.float32)

    def predict(self, batch):
        disparity = torch.stack([truths[float(one.double().sum())] for one in batch.image])
        wrong = torch.linspace(0, 1, batch.image.shape[3]).expand_as(disparity)
        noise = 2 * torch.rand(disparity.shape, generator=torch.Generator().manual_seed(0)) - 1
        return Prediction(disparity * (1 + wrong * noise), confidence=SURE)
"""


@pytest.mark.parametrize(("sure", "better"), [("1 + wrong", "higher"), ("1 - wrong", "lower"), ("1 - wrong", "higher")])
def test_a_reversed_confidence_is_told_by_scenes_of_known_depth(sure: str, better: str) -> None:
    """A teacher that sees disparity as it is, worse to the right."""
    scenes = [render_scene(seed, *shape, family=family) for family, seed, shape in contract.PICTURES]
    truths = {float(one.rgb_HW3.astype(float).sum()): torch.from_numpy(one.disparity_HW) for one in scenes}
    knows = KNOWS.replace("SURE", sure).replace("BETTER", better)
    made = factory((LOAD, f"{knows}\n\n{LOAD.replace('Brightness', 'Knows')}"))
    made.__globals__["truths"] = truths
    trial = contract._Trial(made(load_request()), [], 0, None)
    found = [remedy for _, remedy in contract._direction(trial)]
    other = {"higher": "lower", "lower": "higher"}[better]
    assert found == ([f"is confidence_better {other!r}?"] if (sure, better) != ("1 - wrong", "higher") else [])


def test_every_rule_has_a_test_that_breaks_it() -> None:
    (mark,) = [
        mark
        for mark in test_a_broken_rule_is_one_line_that_says_what_to_do.pytestmark  # type: ignore[attr-defined]
        if mark.name == "parametrize"
    ]
    assert {case[0] for case in mark.args[1]} | {"direction"} == {*RULES, "loading"}


def test_pictures_must_be_pictures() -> None:
    grey: NDArray[np.uint8] = np.zeros((20, 30), np.uint8)
    for pictures in ([grey], []):
        with pytest.raises(UsageError, match="pictures must"):
            check_teacher(load_teacher("tiny", size=64), pictures=pictures)
