"""`depthsieve evaluate` as a user meets it."""

import inspect
import json
import re
import shlex
import shutil
from pathlib import Path

import numpy as np
import pytest
from commandline import command
from PIL import Image
from storemaker import Picture, learn, make_store
from truths import LABEL, SOURCE, truth_of

from depthsieve.evaluation import comparing, notes
from depthsieve.evaluation.writing import FILES
from depthsieve.sources.recipes import load_recipe
from depthsieve.store import open_store
from depthsieve_cli.evaluate import _factor, _knee, _number
from depthsieve_cli.main import cli

COUNT = 9
PAGE = (Path(__file__).parents[2] / "docs" / "evaluation.md").read_text()


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``labels`` of nine images, one of which failed, and ``depth`` for all of them but the last."""
    folder = tmp_path_factory.mktemp("it's made")
    make_store(folder, [Picture(f"{n}.png", SOURCE, LABEL, failed=n == 2) for n in range(COUNT)])
    (folder / "depth").mkdir()
    for number in range(COUNT - 1):
        np.save(folder / "depth" / f"{number}.npy", truth_of(number))
    np.save(folder / "depth" / "other.npy", truth_of(0))
    (folder / "pictures").mkdir()
    Image.fromarray(np.zeros((*SOURCE, 3), np.uint8)).save(folder / "pictures" / "0.png")
    return folder


def evaluate(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    return command(monkeypatch, "evaluate", *arguments)


def test_the_report_says_all_that_was_measured(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert evaluate(monkeypatch, made / "labels", "--ground-truth", made / "depth", "--out", out) == 3
    told = capsys.readouterr()
    body = json.loads((out / "evaluation.json").read_bytes())
    mean, lines = body["mean"], told.out.splitlines()
    assert lines[0] == f"{made / 'labels'} against {made / 'depth'}:"
    assert lines[1] == (
        f"7 images, {body['pixels']:,} pixels from 0.001 to 80 m; labels are disparity, aligned by scale and shift, "
        "image by image."
    )
    rows = {line.split("  ")[0]: line.split() for line in lines}
    start = next(number for number, line in enumerate(lines) if line.startswith("over images"))
    for name, key in (
        ("AbsRel", "abs_rel"),
        ("RMSE", "rmse"),
        ("log10", "log10"),
        ("delta3", "delta3"),
        ("boundary F1", "boundary_f1"),
    ):
        (row,) = (line.removeprefix(name).split() for line in lines[start : start + 9] if line.startswith(f"{name} "))
        assert row == ["-" if each is None else f"{each:.4f}" for each in (mean[key], body["median"][key])]
    assert rows["1 - delta1"][3:5] == [f"{mean['ause_delta1']:.4f}", f"{mean['aurg_delta1']:.4f}"]
    assert rows["label error"][2:4] == [f"{mean['ause_label_error']:.4f}", f"{mean['aurg_label_error']:.4f}"]
    for name, key in (("AbsRel ", "abs_rel"), ("label error ", "label_error"), ("1 - delta1 ", "delta1")):
        left = next(row for row in body["kept"][key] if row["dropped"] == 0.1)
        line = [line for line in lines if line.startswith(name)][1 if key != "delta1" else 0]
        assert line.split()[-2:] == [f"{left[one] / left['random']:.1%}" for one in ("method", "oracle")]
    kept = {row["dropped"]: row for row in body["kept"]["abs_rel"]}
    assert rows["10%"] == ["10%", *(f"{kept[0.1][name]:.4f}" for name in ("method", "random", "oracle"))]
    text = told.out
    assert f"Spearman correlation of reliability and error: {mean['spearman']:.4f} (-1 is best)." in text
    assert f"better than chance on {body['better_than_chance']:.0%} of the images." in text
    assert f"labels err {10 ** body['calibration']['bias']:.2g} times as much as their reliability codes say" in text
    assert f"No drop stands out: {body['knee']['reason']}." in text
    assert "  not compared: default/2.png: no label: made up" in lines
    assert "1 label without ground truth: default/8.png." in lines
    assert "1 ground truth without an image: other.npy." in lines
    assert lines[-1] == f"Written to {out}: {', '.join(FILES)}."
    assert told.err == ""  # no bar where stderr is not a terminal


def test_the_terms_of_a_dataset_stand_in_the_report(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    copy = tmp_path / "labels"
    shutil.copytree(made / "labels", copy)
    learn(open_store(copy), {"default": load_recipe("vkitti2").note})
    assert evaluate(monkeypatch, copy, "--ground-truth", made / "depth", "--out", tmp_path / "out") == 3
    line = "Dataset vkitti2 (source default): CC BY-NC-SA 3.0 (commercial use: no; labels may be passed on: yes"
    assert line in capsys.readouterr().out
    note = json.loads((tmp_path / "out" / "evaluation.json").read_bytes())["datasets"]["default"]
    assert note["licence_url"] == "https://creativecommons.org/licenses/by-nc-sa/3.0/"


def test_json_is_the_whole_result_and_quiet(
    made: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert evaluate(monkeypatch, made / "labels", "--ground-truth", made / "depth", "--json") == 3
    told = capsys.readouterr()
    assert told.err == ""
    body = json.loads(told.out)
    assert [image["id"] for image in body["images"]] == [f"default/{n}.png" for n in (0, 1, 3, 4, 5, 6, 7)]
    assert body["not_compared"] == [{"id": "default/2.png", "reason": "no label: made up"}]
    assert body["without_truth"] == ["default/8.png"]
    assert body["without_image"] == ["other.npy"]
    assert len(body["curves"]["abs_rel"]["oracle_S"]) == 51


def test_a_part_of_the_images_is_enough(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "a").mkdir()
    np.save(tmp_path / "a" / "0.depth_meters.npy", truth_of(0))
    arguments = ["--ground-truth", tmp_path, "--replace", ".png", ".depth_meters.npy", "--pattern", "a/{name}"]
    assert evaluate(monkeypatch, made / "labels", *arguments) == 0
    text = capsys.readouterr().out
    assert "1 image, " in text
    assert "Note: files called depth_meters are Hypersim's" in text
    assert (
        "7 labels without ground truth: default/1.png, default/3.png, ... (5 more; --json names all of them)." in text
    )


def test_options_reach_the_evaluation(
    made: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--scale", 2, "--min-depth", 0.5, "--max-depth", 3, "--align", "scale", "--count-from", 0]
    options += ["--dataset", "d", "--distance-to-depth", 60, "--replace", "a", "b", "--replace", "b", "a", "--json"]
    options += ["--strip", 1, "--min-pixels", 50, "--missing", 7, "--missing", 0.5, "--scale-by", "a=b/=3"]
    options += ["--pattern", "{name}.npy", "--pattern", "{stem}.npy"]
    evaluate(monkeypatch, made / "labels", "--ground-truth", made / "depth", *options)
    body = json.loads(capsys.readouterr().out)
    assert body["settings"] == {
        "min_depth": 0.5,
        "max_depth": 3.0,
        "align": "scale",
        "min_pixels": 50,
        "pattern": ["{name}.npy", "{stem}.npy"],
        "replace": [["a", "b"], ["b", "a"]],
        "strip": 1,
        "associate": None,
        "mask_pattern": None,
        "scale": 2.0,
        "scale_by": [["a=b/", 3.0]],
        "ground_truth_quantity": "depth",
        "baseline_focal": None,
        "calib_pattern": None,
        "missing": [7.0, 0.5],
        "dataset": "d",
        "count_from": 0,
        "distance_to_depth": 60.0,
    }
    assert body["align"] == "scale"


def test_notes_stand_in_the_report_and_in_json_and_change_no_exit_code(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "depth").mkdir()
    for number in (0, 1, 3):
        values = np.round(truth_of(number) * 1000).astype(np.uint16)
        values[values == 0] = 65535
        Image.fromarray(values).save(tmp_path / "depth" / f"{number}.png")
    arguments = [made / "labels", "--ground-truth", tmp_path / "depth", "--scale", 1000]
    assert evaluate(monkeypatch, *arguments) == 0
    lines = capsys.readouterr().out.splitlines()
    place = next(number for number, line in enumerate(lines) if line.startswith("Note: "))
    assert lines[place].endswith(
        "pixels with the largest value of their file's type (65,535 in 16 bits) were taken for missing ground truth, "
        "in 3 images."
    )
    assert lines[place + 1] == "  default/0.png, default/1.png, ... (1 more; --json names all of them)"
    assert evaluate(monkeypatch, *arguments, "--json") == 0
    note = json.loads(capsys.readouterr().out)["notes"][0]
    assert note["kind"] == "largest-value"
    assert note["images"] == ["default/0.png", "default/1.png", "default/3.png"]
    assert f"Note: {note['text']}." == lines[place]


def test_the_report_says_how_ground_truth_was_read(
    made: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--ground-truth-quantity", "disparity", "--baseline-focal", 12]
    assert evaluate(monkeypatch, made / "labels", "--ground-truth", made / "depth", *options) == 3
    assert "Ground truth is read as disparity in pixels." in capsys.readouterr().out.splitlines()


def rows_of_the_page(head: str) -> set[str]:
    """What stands as code in the first column of the table of the page that begins so."""
    table = PAGE.partition(f"| {head} |")[2].partition("\n\n")[0]
    return set(re.findall(r"`([^`]+)`", " ".join(line.split("|")[1] for line in table.splitlines()[2:])))


def test_the_page_documents_every_field_of_the_json_and_every_note(
    made: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    evaluate(monkeypatch, made / "labels", "--ground-truth", made / "depth", "--json")
    body = json.loads(capsys.readouterr().out)
    assert rows_of_the_page("field") == set(body)
    assert rows_of_the_page("field of an image") == set(body["images"][0])
    source = "".join(inspect.getsource(module) for module in (comparing, notes))
    assert rows_of_the_page("note") == set(re.findall(r'Note\(\s*"([a-z-]+)"', source))


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["{made}/labels", "--ground-truth", "{made}/nowhere"], 1, "nowhere: no such folder or file of ground truth"),
        (["{made}/nowhere", "--ground-truth", "{made}/depth"], 1, "nowhere is not a label store"),
        (["{made}/labels", "--ground-truth", "{made}/labels/plan"], 1, "holds no ground truth"),
        (["{made}/labels", "--ground-truth", "{made}/pictures"], 2, "PNG needs --scale"),
        (
            ["{made}/labels", "--ground-truth", "{made}/pictures", "--scale", "1"],
            1,
            "default/0.png: 0.png: a PNG in colour",
        ),
        (
            ["{made}/labels", "--ground-truth", "{made}/images", "--scale", "1"],
            1,
            "9 of them have themselves as ground truth, the first default/0.png",
        ),
        (
            ["{made}/labels", "--ground-truth", "{made}/depth", "--ground-truth-quantity", "disparity"],
            2,
            "needs either baseline_focal, the baseline in metres times the focal length in pixels, or calib_pattern",
        ),
        (["{made}/labels", "--ground-truth", "{made}/depth", "--scale", "0"], 2, "scale must be a number above 0"),
        (["{made}/labels", "--ground-truth", "{made}/depth", "--max-depth", "0"], 2, "0 < min_depth < max_depth"),
        (["{made}/labels", "--ground-truth", "{made}/depth", "--out", "{made}/images/0.png"], 2, "is a file"),
        (["{made}/labels", "--ground-truth", "{made}/depth", "--scale-by", "*.npy"], 2, "'*.npy' is not FILES=UNITS"),
        (["{made}/labels", "--ground-truth", "{made}/depth", "--scale-by", "0.npy=1"], 2, "1.npy (and 5 more) fits no"),
        (["{made}/labels"], 2, "Missing option '--ground-truth'"),
    ],
)
def test_bad_input_is_one_line_and_the_right_exit_code(
    made: Path,
    arguments: list[str],
    code: int,
    message: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert evaluate(monkeypatch, *[argument.format(made=made) for argument in arguments]) == code
    told = capsys.readouterr()
    assert told.out == ""
    (line,) = [line for line in re.split(r"[\r\n]", told.err) if "Error" in line]
    assert line.startswith("Error: ")
    assert message in line
    assert "Traceback" not in told.err


@pytest.mark.parametrize("line", re.findall(r"^\$ depthsieve evaluate (.*)$", PAGE, re.MULTILINE))
def test_commands_of_the_page_parse(line: str) -> None:
    cli.commands["evaluate"].make_context("evaluate", shlex.split(line))


def test_the_page_names_every_option() -> None:
    options = {option.opts[0] for option in cli.commands["evaluate"].params if option.opts[0].startswith("--")}
    assert options <= set(re.findall(r"--[a-z-]+", PAGE))


def test_a_drop_that_stands_out_is_named(made: Path) -> None:
    import dataclasses

    from depthsieve.evaluation.comparing import evaluate_labels
    from depthsieve.evaluation.metrics import Knee

    result = evaluate_labels(made / "labels", made / "depth", progress=False)
    result = dataclasses.replace(result, knee=Knee(0.12, 0.2, 0.15, "", 0.1, 0.16))
    told = "drop 0.12 would keep 88% of the pixels and lower AbsRel from 0.2000 to 0.1500."
    other = "For other images like these it lies between 0.10 and"
    assert _knee(result) == f"{told}\n{other} 0.16 (90% interval)."
    result = dataclasses.replace(result, knee=Knee(0.12, 0.2, 0.15, "", 0.1, 0.3))
    assert _knee(result) == f"{told}\n{other} 0.30 (90% interval): 7 images are too few to tell it more closely."
    assert _number(float("nan")) == "-"
    assert [_factor(value) for value in (-1.0, 0.0, 0.8, 1.9, 2.95)] == ["0.1", "1", "6.3", "79", "891"]


def test_labels_without_confidence_are_not_said_to_find_errors(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    store = tmp_path / "imported"
    shutil.copytree(made / "depth", tmp_path / "maps")
    (tmp_path / "maps" / "other.npy").unlink()
    (tmp_path / "photos").mkdir()
    for number in range(COUNT - 1):
        Image.fromarray(np.zeros((*SOURCE, 3), np.uint8)).save(tmp_path / "photos" / f"{number}.png")
    wanted = ("import", tmp_path / "maps", store, "--images", tmp_path / "photos", "--quantity", "depth")
    assert command(monkeypatch, *wanted) == 0
    assert evaluate(monkeypatch, store, "--ground-truth", made / "depth") == 0
    told = capsys.readouterr().out
    assert "Reliability is the same all over each image, so it finds no errors" in told
    assert "better than chance" not in told
