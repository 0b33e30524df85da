"""The demo in miniature: from scenes to the page, again, elsewhere, and where it must not run."""

import base64
import dataclasses
import io
import json
import re
import shutil
import tomllib
from html import unescape
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result
from PIL import Image
from ran_demo import SEED, Ran

from depthsieve.core.errors import RunError, UsageError
from depthsieve.demo import run as demo
from depthsieve.demo.page import DemoResult, label_rows, number, percent, student_rows
from depthsieve.demo.settings import FIRST_SEED, HEIGHT, HELD_OUT_PART, TRAINING_SEEDS, WIDTH, DemoSettings
from depthsieve.images import colours
from depthsieve.scenes import render_scene
from depthsieve.store import open_store
from depthsieve.training import PseudoLabelDataset
from depthsieve_cli.main import cli

PROJECT = Path(__file__).parents[2]


def state(folder: Path) -> dict[str, tuple[int, bytes]]:
    """Time of change and content of every file."""
    files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    return {str(path.relative_to(folder)): (path.stat().st_mtime_ns, path.read_bytes()) for path in files}


def without_time(result: DemoResult) -> DemoResult:
    return dataclasses.replace(result, seconds=0.0)


def test_scenes_and_exact_depth_are_those_of_the_seeds(ran: Ran) -> None:
    names = ["train/7", "train/8", "train/9", "train/10", "train/11", "train/12", "held-out/13"]
    assert ran.settings.names == names
    for seed, name in enumerate(names, start=SEED):
        scene = render_scene(seed, HEIGHT, WIDTH)
        with Image.open(ran.out / "scenes" / f"{name}.png") as image:
            np.testing.assert_array_equal(np.asarray(image), scene.rgb_HW3)
        np.testing.assert_array_equal(np.load(ran.out / "depth" / f"{name}.npy"), scene.depth_HW)
    assert len(list((ran.out / "scenes").rglob("*"))) == 7 + 2
    assert open_store(ran.out / "labels").images == sorted(f"scenes/{name}.png" for name in names)


def test_student_learns_from_the_training_scenes_alone_on_one_thread(ran: Ran, monkeypatch: pytest.MonkeyPatch) -> None:
    store = open_store(ran.out / "labels")
    seen: list[object] = []

    def record(dataset: PseudoLabelDataset, steps: int, drop: float, advance: object) -> None:
        seen.extend([dataset.ids, dataset.drop, dataset.flip, steps, drop, torch.get_num_threads()])
        raise RunError("enough")

    monkeypatch.setattr(demo, "train_student", record)
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        with pytest.raises(RunError, match="enough"):
            demo._train(store, ran.out, ran.settings, [], progress=False)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
    learnt = sorted(f"scenes/train/{seed}.png" for seed in range(SEED, SEED + 6))
    assert seen == [learnt, 0.10, True, 3, 0.10, 1]


def test_labels_do_not_depend_on_the_cores(ran: Ran) -> None:
    (generation,) = open_store(ran.out / "labels").generations()
    assert (generation.profile.threads, generation.profile.batch_size) == (1, 4)


def independent_errors(depth_HW: np.ndarray, truth_HW: np.ndarray) -> np.ndarray:
    """|z' - z| / z of the pixels up to 80 m, by torch's interpolation and lstsq instead of ours."""
    size = truth_HW.shape
    maps = torch.from_numpy(depth_HW)[None, None]
    grown = torch.nn.functional.interpolate(maps, size, mode="bilinear", align_corners=False)[0, 0].double().numpy()
    near = truth_HW <= 80
    target = 1 / truth_HW[near].astype(np.float64)
    columns = np.stack([grown[near], np.ones(int(near.sum()))], axis=1)
    fitted = columns @ np.linalg.lstsq(columns, target, rcond=None)[0]
    errors: np.ndarray = np.abs(1 / np.maximum(fitted, 1 / 80) * target - 1)
    return errors


def test_label_numbers_are_right(ran: Ran) -> None:
    store = open_store(ran.out / "labels")
    errors = {
        image_id: independent_errors(
            store.label(image_id).depth, np.load(ran.out / f"{image_id.replace('scenes', 'depth', 1)[:-4]}.npy")
        )
        for image_id in store.images
    }
    means = [values.mean() for values in errors.values()]
    labels = ran.result.labels
    assert labels.scenes == 7
    assert labels.abs_rel == pytest.approx(np.mean(means), rel=1e-4)
    assert labels.abs_rel_median == pytest.approx(np.median(means), rel=1e-4)
    ratios = [np.mean((e < 0.25) | (e < 0.2)) for e in errors.values()]
    assert labels.delta1 == pytest.approx(np.mean(ratios), abs=0.05)  # |r - 1| < 0.25 is delta1 but for r < 1
    kept = {row.dropped: row for row in ran.result.kept}
    assert list(kept) == [0.0, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5]
    half = [np.sort(values)[: len(values) // 2].mean() for values in errors.values()]
    assert kept[0.5].oracle == pytest.approx(np.mean(half), rel=1e-2)
    for row in kept.values():
        assert row.random == pytest.approx(labels.abs_rel)
        assert row.oracle <= row.method * (1 + 1e-9) <= 2 * row.random  # or equal but for rounding
    assert [kept[0.0].method, kept[0.0].oracle] == pytest.approx([labels.abs_rel] * 2)
    held = ran.result.student.teacher
    assert (held.scenes, held.abs_rel) == (1, pytest.approx(errors["scenes/held-out/13.png"].mean(), rel=1e-4))


def test_student_is_measured_beside_a_constant(ran: Ran) -> None:
    truth_HW = np.load(ran.out / "depth" / "held-out" / "13.npy").astype(np.float64)
    near = truth_HW[truth_HW <= 80]
    constant = np.abs(1 / np.mean(1 / near) / near - 1).mean()
    score = ran.result.student
    assert score.constant.abs_rel == score.constant.abs_rel_median == pytest.approx(constant, rel=1e-6)
    assert score.student.abs_rel not in (score.constant.abs_rel, score.teacher.abs_rel)
    assert score.student.scenes == 1
    assert 0.05 < ran.result.masked <= 0.10


def test_reliability_comes_to_the_pixels_of_the_exact_depth_by_the_nearest(ran: Ran) -> None:
    store = open_store(ran.out / "labels")
    scores = demo._evaluate(store, ran.out, progress=False)
    assert [score.id for score in scores] == store.images
    depth_HW, reliability_HW, truth_HW = demo._against_truth(store, ran.out, store.images[0])
    assert depth_HW.shape == reliability_HW.shape == truth_HW.shape == (HEIGHT, WIDTH)
    rows, columns = (np.arange(side) for side in truth_HW.shape)
    small_HW = store.label(store.images[0]).reliability
    at = [
        ((place + 0.5) * small / large).astype(int)
        for place, small, large in zip((rows, columns), small_HW.shape, truth_HW.shape, strict=True)
    ]
    np.testing.assert_array_equal(reliability_HW, small_HW[np.ix_(*at)])


def test_page_shows_the_numbers_and_names_the_scenes(ran: Ran) -> None:
    text = unescape(ran.result.page.read_text(encoding="utf-8"))
    cells = [re.findall(r"<t[hd][^>]*>([^<]*)</t[hd]>", row) for row in re.findall(r"<tr>(.*?)</tr>", text)]
    assert cells == label_rows(ran.result) + student_rows(ran.result)
    assert cells[3] == ["10%", *(number(getattr(ran.result.kept[2], n)) for n in ("method", "random", "oracle"))]
    assert cells[-1][1:] == [number(ran.result.student.teacher.abs_rel)] * 2 + [
        percent(ran.result.student.teacher.delta1)
    ]
    large = re.findall(r"<b>([^<]*)</b>", text)
    assert large == [
        number(ran.result.labels.abs_rel),
        number(ran.result.kept[2].method),
        percent(ran.result.labels.delta1),
        percent(ran.result.better_than_chance),
    ]
    assert f"AUSE): {ran.result.ause:.4f}" in text
    assert f"AURG): {ran.result.aurg:.4f}" in text
    titles = re.findall(r"<h3>([^<]*): AbsRel ([\d.]+)</h3>", text)
    assert tuple(title for title, _ in titles) == ran.result.samples
    assert len(set(ran.result.samples)) == 6
    values = [float(value) for _, value in titles]
    assert values == sorted(values)
    assert text.count("<figure>") == 6 * 6
    assert "saw the labels of 6 scenes for\n3 steps" in text
    assert not re.search(r"https?:|<script|<link", text)
    assert f"Reliability comes from {open_store(ran.result.store).reliability_from}." in text


def test_exact_depth_and_error_panels_are_those_of_the_scene(ran: Ran) -> None:
    store = open_store(ran.out / "labels")
    score = next(s for s in demo._evaluate(store, ran.out, progress=False) if s.id == ran.result.samples[0])
    maps = demo._maps(store, ran.out, score)
    near = maps.truth_HW <= 80
    np.testing.assert_array_equal(np.isfinite(maps.error_HW), near)
    assert np.nanmean(maps.error_HW) == pytest.approx(score.abs_rel)
    np.testing.assert_allclose(np.abs(maps.predicted_HW / maps.truth_HW - 1)[near], maps.error_HW[near], atol=1e-6)
    shown = re.findall(r'<figure><img[^>]*base64,([^"]+)"', ran.result.page.read_text(encoding="utf-8"))
    pictures = [np.asarray(Image.open(io.BytesIO(base64.b64decode(data)))) for data in shown[:6]]
    np.testing.assert_array_equal(pictures[5], colours.error_colours(maps.error_HW))
    disparity_HW = 1 / maps.predicted_HW
    span = colours.span_of(disparity_HW)
    np.testing.assert_array_equal(pictures[2], colours.depth_colours(maps.truth_HW, "depth", span=span))


def test_contact_sheet_has_a_row_for_each_sample(ran: Ran) -> None:
    with Image.open(ran.result.sheet) as image:
        tint = (np.asarray(image) == (255, 0, 170)).all(axis=-1)
    bands = np.flatnonzero(np.diff(np.concatenate([[0], tint[:, image.width * 3 // 4 :].any(axis=1), [0]]).astype(int)))
    assert len(bands) // 2 >= 6
    assert not tint[:, : image.width // 2].any()


def test_a_second_run_keeps_scenes_and_labels_and_says_the_same(
    ran: Ran, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("depthsieve.core.progress._is_watched", lambda: True)  # steps are said on a terminal
    before = state(ran.out)
    again = demo.run_demo(ran.out, progress=True, settings=ran.settings)
    assert without_time(again) == without_time(ran.result)
    drawn = ("index.html", "contact-sheet.png", "labels/index.parquet", "labels/lock")
    kept = {name: held for name, held in state(ran.out).items() if name not in drawn}
    assert kept == {name: held for name, held in before.items() if name not in drawn}
    told = capsys.readouterr()
    assert told.out == ""
    for step in ("1/5  Rendering 7 scenes", "2/5", "3/5", "4/5", "5/5"):
        assert any(line.startswith(step) for line in told.err.splitlines())


def test_a_demo_goes_on_after_a_stop_and_after_a_move(ran: Ran, tmp_path: Path) -> None:
    out = tmp_path / "moved"
    shutil.copytree(ran.out, out)
    (out / "scenes" / "train" / "9.png").unlink()
    (out / "scenes" / "train" / ".9.png.part").write_bytes(b"half a pict")
    (out / "depth" / "held-out" / "13.npy").unlink()
    (out / "index.html").unlink()
    again = demo.run_demo(out, progress=False, settings=ran.settings)
    assert again.labels == ran.result.labels
    assert again.student == ran.result.student
    assert again.page == out / "index.html"
    assert again.page.exists()
    assert open_store(out / "labels").sources() == {"scenes": str(out / "scenes")}
    assert (out / "scenes" / "train" / "9.png").read_bytes() == (ran.out / "scenes" / "train" / "9.png").read_bytes()


def test_other_peoples_folders_are_refused_and_left_alone(ran: Ran, tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("ten years of work")
    with pytest.raises(UsageError, match="holds files that are not a demo's"):
        demo.run_demo(tmp_path, progress=False, settings=ran.settings)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]
    with pytest.raises(UsageError, match="is a file"):
        demo.run_demo(tmp_path / "thesis.txt", progress=False, settings=ran.settings)
    assert (tmp_path / "thesis.txt").read_text() == "ten years of work"


@pytest.mark.parametrize("change", [{"seed": 8}, {"scenes": 6}])
def test_a_demo_of_other_scenes_is_refused(ran: Ran, change: dict[str, int]) -> None:
    before = state(ran.out)
    with pytest.raises(UsageError, match="else than a demo of these scenes"):
        demo.run_demo(ran.out, progress=False, settings=dataclasses.replace(ran.settings, **change))
    assert state(ran.out) == before


@pytest.mark.parametrize("marker", ["{", '{"made_by": "somebody"}', "[]"])
def test_a_marker_that_no_demo_wrote_is_refused(ran: Ran, tmp_path: Path, marker: str) -> None:
    (tmp_path / "demo.json").write_text(marker)
    with pytest.raises(UsageError, match="else than a demo of these scenes"):
        demo.run_demo(tmp_path, progress=False, settings=ran.settings)
    assert [path.name for path in tmp_path.iterdir()] == ["demo.json"]


def test_a_scene_that_cannot_be_labelled_ends_the_demo_by_name(ran: Ran, tmp_path: Path) -> None:
    out = tmp_path / "out"
    demo._prepare(out, ran.settings)
    demo._render(out, ran.settings, progress=False)
    (out / "scenes" / "train" / "9.png").write_bytes(b"\x89PNG\r\n\x1a\n and no more")
    with pytest.raises(RunError, match=r"1 problem.*scenes/train/9\.png: "):
        demo.run_demo(out, progress=False, settings=ran.settings)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"scenes": 1}, "at least 2 scenes"),
        ({"steps": 0}, "at least 1 step"),
        ({"seed": -1}, "must lie in"),
        ({"seed": TRAINING_SEEDS - 1, "scenes": 2}, "trained on later ones"),
    ],
)
def test_settings_that_cannot_be_meant_are_refused(values: dict[str, int], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        DemoSettings(**values)


def test_scenes_of_the_demo_are_not_those_of_the_training() -> None:
    assert DemoSettings(seed=TRAINING_SEEDS - 2, scenes=2).names == ["train/4294967294", "held-out/4294967295"]
    assert TRAINING_SEEDS == 1 << 32
    for script, first in (("train_tiny_v1", 32), ("train_tiny", 34)):
        assert f"FIRST_SEED = 1 << {first}" in (PROJECT / "tools" / f"{script}.py").read_text()


def test_manifest_and_code_agree() -> None:
    manifest = tomllib.loads((PROJECT / "data_manifests" / "demo-scenes.toml").read_text())
    settings, images = DemoSettings(), manifest["images"]
    assert (images["count"], images["held_out"]) == (settings.scenes, settings.held_out)
    assert (images["first_seed"], images["training_seeds_from"]) == (settings.seed, TRAINING_SEEDS)
    assert (images["height"], images["width"]) == (HEIGHT, WIDTH)
    assert settings.seed == FIRST_SEED
    assert images["held_out"] * HELD_OUT_PART == images["count"]
    assert manifest["truth"]["farthest"] == demo.DEPTH_RANGE[1]
    expected = manifest["expected"]["first_scenes"]
    depths = [render_scene(FIRST_SEED + place, HEIGHT, WIDTH).depth_HW for place in range(expected["count"])]
    medians = [np.median(depth_HW[depth_HW <= demo.DEPTH_RANGE[1]]) for depth_HW in depths]
    assert expected["median_depth"] == pytest.approx(medians, abs=expected["tolerance"])
    assert {"name", "home", "licence", "made"} <= set(manifest)


def invoke(*arguments: str) -> Result:
    return CliRunner().invoke(cli, ["demo", *arguments], prog_name="depthsieve")


def test_command_prints_the_numbers_and_the_page(ran: Ran, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo, "run_demo", lambda out, progress, settings: ran.result)
    result = invoke("--steps", "3")
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    assert lines[-1] == f"Open {ran.out / 'index.html'}"
    assert f"Contact sheet: {ran.out / 'contact-sheet.png'}" in lines[-2]
    shown = [re.split(r"\s{2,}", line) for line in lines]
    for row in label_rows(ran.result) + student_rows(ran.result):
        assert row in shown
    student = ran.result.student
    assert f"The student: 3 steps, loss from {student.loss_start:.3f} to {student.loss_end:.3f}." in lines


def test_command_json_is_the_result_and_nothing_else(ran: Ran, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo, "run_demo", lambda out, progress, settings: ran.result)
    result = invoke("--json")
    assert result.exit_code == 0, result.output
    assert result.stderr == ""
    printed = json.loads(result.stdout)
    assert printed == json.loads(json.dumps(dataclasses.asdict(ran.result), default=str))
    assert printed["settings"]["seed"] == SEED


def test_command_passes_every_option_on(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    seen: list[tuple[Path, bool, DemoSettings]] = []

    def record(out: Path, *, progress: bool, settings: DemoSettings) -> None:
        seen.append((out, progress, settings))
        raise UsageError("enough")

    monkeypatch.setattr(demo, "run_demo", record)
    invoke()
    invoke("--out", "x", "--scenes", "9", "--seed", "3", "--steps", "2", "--teacher", "y", "--json")
    assert seen == [(Path("demo"), True, DemoSettings()), (Path("x"), False, DemoSettings(9, 3, 2, "y"))]
