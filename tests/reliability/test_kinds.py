"""The table of signals: what derives from its rows, and what is refused by name."""

import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner

from depthsieve.core.errors import UsageError
from depthsieve.labelling.batch import LabelWork, predict_labels, reliability_codes
from depthsieve.planning.options import LabelOptions
from depthsieve.reliability import kinds
from depthsieve.reliability.fusion import calibration_for, fuse, shipped_calibration
from depthsieve.reliability.kinds import SIGNALS, Seen, Signal, full_views, parse_signals, signals_that
from depthsieve.teachers import Batch, Prediction, Teacher, load_teacher
from depthsieve_cli.main import cli


def test_a_list_of_signals_is_sorted_and_none_is_no_signal() -> None:
    assert parse_signals("lowres, flip,flip") == ("flip", "lowres")
    assert parse_signals("none") == ()
    assert LabelOptions(signals="none", second_teacher="tiny").signal_names == ("teachers",)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("flip,none", "'none' stands alone, and cannot be combined with flip; leave one of them out"),
        ("flop", "unknown signal 'flop'; did you mean 'flip'?"),
        ("nativ", "unknown signal 'nativ'; did you mean 'native'?"),
        ("xyz", "unknown signal 'xyz'; there are: flip, lowres, photometric, teachers, edges, none"),
        ("", "unknown signal ''; there are: flip, "),
        (7, "signals is a comma-separated list, such as 'flip', not 7"),
    ],
)
def test_what_is_no_list_of_signals_is_refused_by_name(text: str, words: str) -> None:
    with pytest.raises(UsageError, match=re.escape(words)):
        LabelOptions(signals=text)


def test_help_lists_every_signal_that_any_teacher_can_give_with_its_cost() -> None:
    text = " ".join(CliRunner().invoke(cli, ["label", "--help"]).output.split())
    for name in ("flip", "lowres", "photometric", "teachers", "edges"):
        assert f"{name}: {SIGNALS[name].help} (" in text
    assert "native" not in text
    assert "flip: the mirrored image (1 extra pass)" in text and "edges: the label's own depth edges (no extra" in text


def test_the_table_is_read_without_torch() -> None:
    code = "import sys, depthsieve.reliability.kinds as k; k.signals_help(); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_views_are_those_that_go_through_the_teacher_at_the_images_own_shape() -> None:
    counted = [full_views(names) for names in ((), ("edges", "lowres", "teachers"), ("flip",), tuple(SIGNALS))]
    assert counted == [1, 1, 2, 3]


def test_a_teacher_without_what_a_signal_needs_is_refused_with_what_it_lacks() -> None:
    work = LabelWork(load_teacher("tiny-v1", device="cpu"), ("flip", "native"))
    with pytest.raises(UsageError, match="'tiny-v1' gives no confidence of its own, which signal 'native' is made of"):
        work.check()
    with pytest.raises(UsageError, match="'tiny-v1' has no second teacher, and signal 'teachers' compares two"):
        replace(work, signals=("teachers",)).check()
    assert signals_that(work.needs_met) == ("edges", "flip", "lowres", "photometric")
    two = replace(work, second=work.teacher)
    assert signals_that(two.needs_met) == tuple(sorted({*SIGNALS} - {"native", "network"}))


def test_a_new_row_is_all_that_a_new_signal_takes(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is offered, predicted in its view, and fused as uncalibrated, with nothing else told of it."""

    def dim(seen: Seen) -> torch.Tensor:
        assert seen.other_Bhw is not None
        return (seen.other_Bhw - seen.depth_BHW).abs()

    row = Signal("dim", "view", 1, "a darker image", dim, lambda image_BCHW, shape: image_BCHW - 0.5)
    monkeypatch.setitem(kinds.SIGNALS, "dim", row)
    options = LabelOptions(signals="dim,edges")
    assert options.signal_names == ("dim", "edges") and full_views(options.signal_names) == 2
    work = LabelWork(load_teacher("tiny-v1", device="cpu", size=98), options.signal_names)
    work.check()
    images = Batch.of(torch.randn(1, 3, 98, 98, generator=torch.Generator().manual_seed(0)))
    prediction, relative = predict_labels(images, work)
    assert list(relative) == ["dim", "edges"]
    darker = work.teacher.predict(Batch.of(images.image - 0.5)).depth
    off_BHW = (darker - prediction.depth).abs()
    where = off_BHW > off_BHW.median()
    assert relative["dim"][where].mean() > relative["dim"][~where].mean() > 0
    codes = reliability_codes(prediction.depth, relative, torch.ones_like(off_BHW, dtype=torch.bool), "disparity")
    assert len(codes.unique()) > 4 and (codes > 0).all()


def test_signals_that_nobody_fitted_are_fused_by_their_geometric_mean_and_named_so() -> None:
    assert calibration_for("disparity", ("flip", "lowres")) is shipped_calibration()
    assert calibration_for("depth", ()) is shipped_calibration()
    calibration = calibration_for("depth", ("native", "flip"))
    assert calibration.name(("native", "flip"), "any teacher's") == "flip+native-uncalibrated"
    depth = torch.full((1, 40, 40), 2.0)
    relative = {"flip": torch.full_like(depth, 0.4), "native": torch.full_like(depth, 0.1)}
    e = fuse(depth, relative, "depth", calibration)
    torch.testing.assert_close(e, torch.full_like(e, ((0.4 + 1e-3) * (0.1 + 1e-3)) ** 0.5))


def test_the_documented_table_has_every_row() -> None:
    text = (Path(__file__).parents[2] / "docs" / "reliability.md").read_text()
    for name in SIGNALS:
        assert re.search(rf"^\| `{name}`", text, re.MULTILINE), name


class Together:
    """The real teacher, as if on a GPU, where views of the images at their own shape go through it in one batch."""

    def __init__(self, inner: Teacher) -> None:
        self.inner, self.device = inner, torch.device("cuda")
        self.sizes: list[int] = []

    def __getattr__(self, name: str) -> object:
        return getattr(self.inner, name)

    def predict(self, batch: Batch) -> Prediction:
        assert len(batch.image) == len(batch.focal_px)
        self.sizes.append(len(batch.image))
        return self.inner.predict(batch)


def test_views_that_go_through_in_one_batch_are_told_apart_again() -> None:
    inner = load_teacher("tiny-v1", device="cpu", size=98)
    together = Together(inner)
    images = Batch.of(torch.randn(2, 3, 98, 98, generator=torch.Generator().manual_seed(0)))
    names = ("flip", "lowres", "photometric")
    found, relative = predict_labels(images, LabelWork(together, names))  # type: ignore[arg-type]
    expected, alone = predict_labels(images, LabelWork(inner, names))
    assert together.sizes == [6, 2]
    torch.testing.assert_close(found.depth, expected.depth, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(found.embedding, expected.embedding, rtol=1e-4, atol=1e-4)
    for name in names:
        torch.testing.assert_close(relative[name].mean(), alone[name].mean(), rtol=1e-3, atol=1e-5)
