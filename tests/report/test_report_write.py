"""What a report writes: which images, which figures, and how its folder comes to be."""

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from commandline import command
from labelled import label, small_teacher, write_photos
from reported import gallery
from storemaker import Picture, learn, make_store

import depthsieve
from depthsieve.core.errors import LoaderError, RunError, UsageError
from depthsieve.core.records import DatasetNote
from depthsieve.features import COLUMNS
from depthsieve.report import figures
from depthsieve.report.choice import choose
from depthsieve.report.maps import Maps
from depthsieve.report.write import report_labels
from depthsieve.store import Store, open_store


def test_a_small_store_is_shown_whole() -> None:
    assert choose([np.zeros(5)], [], 5).tolist() == [0, 1, 2, 3, 4]


def test_a_large_store_shows_both_ends_of_every_number_and_others_at_random() -> None:
    random = np.random.default_rng(0)
    values = [random.permutation(100_000).astype(float) for _ in range(3)]
    values[1][values[1] < 50_000] = np.nan
    group = np.array([31, 41, 59])
    rows = choose(values, [group], 140)
    assert len(set(rows.tolist())) == len(rows) == 140
    for value_N in values:
        order = np.argsort(value_N)[: int(np.isfinite(value_N).sum())]
        assert {*order[:10], *order[-10:]} <= set(rows.tolist())
    assert set(group) <= set(rows.tolist())
    rest = np.setdiff1d(rows, np.concatenate([np.r_[np.argsort(v)[:13], np.argsort(v)[-13:]] for v in values]))
    assert len(rest) >= 60
    assert 30_000 < rest.mean() < 70_000
    assert choose(values, [group], 140).tolist() == rows.tolist()


def test_reasons_that_differ_in_numbers_are_one() -> None:
    ids = [f"default/{n}.png" for n in range(5)]
    reasons = ["it is 3x4 pixels", "it is 12x4 pixels", "default/2.png cannot be decoded", None, None]
    states = ["rejected", "rejected", "failed", "labelled", "pending"]
    index = pa.table({"id": ids, "status": states, "reason": pa.array(reasons, pa.string())})
    found = figures.failures(index)
    assert [(one.status, one.reason, one.images, one.example) for one in found] == [
        ("rejected", "it is 3x4 pixels", 2, "default/0.png"),
        ("failed", "… cannot be decoded", 1, "default/2.png"),
    ]


def test_a_spread_counts_every_image_that_has_the_number() -> None:
    value_N = np.concatenate([np.arange(1000.0), [np.nan, 1e9]])
    found = figures.spread("detail", "text", value_N)
    assert found is not None
    assert sum(found.counts) == found.known == 1001
    assert found.low == pytest.approx(5.0)
    assert found.median == 500
    assert found.high == pytest.approx(995.0)
    assert figures.spread("detail", "text", np.array([np.nan])) is None


@pytest.fixture(scope="module")
def labelled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five photos labelled by a small teacher, with the signals of images."""
    place = tmp_path_factory.mktemp("labelled")
    label(write_photos(place / "photos"), place / "labels", str(small_teacher(place / "teacher")))
    return place / "labels"


def test_the_gallery_has_the_numbers_of_the_index(labelled: Path, tmp_path: Path) -> None:
    report_labels(labelled, tmp_path / "out", progress=False)
    rows, index = gallery(tmp_path / "out"), open_store(labelled).index().to_pylist()
    assert rows["ids"] == [row["id"] for row in index]
    for name in COLUMNS:
        assert rows["numbers"][name] == pytest.approx([row[name] for row in index], rel=1e-4), name
    assert rows["numbers"]["short_side"] == [90] * 5
    text = (tmp_path / "out" / "index.html").read_text()
    for name in COLUMNS:
        assert f"<b>{name}</b>" in text


def test_figures_of_the_page_are_those_of_the_store(made: Store, page: Path) -> None:
    text = page.read_text()
    assert "<b>9</b>images with a label" in text
    assert "<b>2</b>failed; their reasons are below" in text
    assert (
        "<td>made up</td><td>rejected</td><td>1</td><td><code>default/&lt;b&gt;refused&lt;/b&gt;.png</code></td>"
        in text
    )
    histogram = np.array(gallery(page.parent)["stores"][0]["histogram"])
    counted = sum(np.bincount(made.label(one).reliability.ravel(), minlength=256) for one in made)
    assert histogram[1:].tolist() == counted[1:].tolist()


def test_licences_are_told(tmp_path: Path) -> None:
    from depthsieve.core.records import TeacherRequest

    assert "CC-BY-NC-4.0 (not for commercial use)" in figures.licence(TeacherRequest("depth-anything-v2-large"))
    assert figures.licence(TeacherRequest("tiny")).startswith("Apache-2.0")
    assert "read the model's card" in figures.licence(TeacherRequest("someone/model"))


def test_a_report_is_replaced_and_what_else_is_there_stays(made: Store, tmp_path: Path) -> None:
    out = tmp_path / "a page"
    report_labels(made, out, images=3, progress=False)
    (out / "notes.txt").write_text("mine")
    before = {path.name for path in out.iterdir()}
    report_labels(made, out, images=4, drop=0.2, progress=False)
    after = {path.name for path in out.iterdir()}
    assert len(after) == 3 and {"index.html", "notes.txt"} <= after and before & after == {"index.html", "notes.txt"}
    assert gallery(out)["shown"] == 4
    assert next(out.glob("files-*")).name in (out / "index.html").read_text()


def test_a_folder_with_other_files_is_refused(made: Store, tmp_path: Path) -> None:
    (tmp_path / "index.html").write_text("<p>somebody's page</p>")
    with pytest.raises(UsageError, match="has other files and no report of ours"):
        report_labels(made, tmp_path, progress=False)
    assert [path.name for path in tmp_path.iterdir()] == ["index.html"]
    with pytest.raises(UsageError, match="is a file"):
        report_labels(made, tmp_path / "index.html", progress=False)
    with pytest.raises(UsageError, match="folder of this machine"):
        report_labels(made, "s3://bucket/report", progress=False)


def test_one_that_was_killed_leaves_the_old_page_whole(
    made: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    report_labels(made, out, progress=False)
    kept = {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(shutil, "copyfile", full)
        with pytest.raises(RunError, match="No space left"):
            report_labels(made, out, progress=False)
    assert {path: path.read_bytes() for path in out.rglob("*") if path.is_file()} == kept
    (out / "files-0123456789ab.part" / "images").mkdir(parents=True)  # as a process that was killed leaves it
    report_labels(made, out, progress=False)
    assert len(list(out.iterdir())) == 2


def test_the_first_report_can_be_written_again_after_a_kill(made: Store, tmp_path: Path) -> None:
    (tmp_path / "out" / "files-0123456789ab.part").mkdir(parents=True)
    report_labels(made, tmp_path / "out", progress=False)
    assert sorted(path.name[:5] for path in (tmp_path / "out").iterdir()) == ["files", "index"]


def test_photos_that_are_gone_and_labels_that_are_damaged_are_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    store = make_store(tmp_path, [Picture(f"{n}.png", (56, 84), (28, 42)) for n in range(4)], shard_size=1)
    (tmp_path / "images" / "1.png").unlink()
    group = store.commit_record(store.label("default/2.png").shard)["group"]
    chunk = tmp_path / "labels" / "labels.zarr" / "shards" / group / "depth" / "c" / "0" / "0" / "0"
    chunk.write_bytes(bytes(chunk.stat().st_size))
    assert command(monkeypatch, "report", tmp_path / "labels", "-o", tmp_path / "out") == 3
    told = capsys.readouterr().out
    assert "1 photo cannot be read; the first: default/1.png" in told
    assert "(`depthsieve label --store-images` keeps a copy beside each label).\n" in told
    assert "failed: default/2.png: " in told
    rows = gallery(tmp_path / "out")
    assert rows["states"] == ["labelled", "labelled", "unreadable", "labelled"]
    assert "default/1.png" in rows["reasons"][1]
    assert command(monkeypatch, "report", tmp_path / "labels", "-o", tmp_path / "out", "--json") == 3
    summary = json.loads(capsys.readouterr().out)
    assert [one["id"] for one in summary["unreadable"]] == ["default/2.png"]
    assert [one["id"] for one in summary["without_photo"]] == ["default/1.png"]


def test_what_cannot_be_shown_is_one_line(made: Store, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="images must be a whole number of at least 1, not 0"):
        report_labels(made, tmp_path / "out", images=0, progress=False)
    with pytest.raises(UsageError, match="drop must be a number from 0"):
        report_labels(made, tmp_path / "out", drop=1.0, progress=False)
    empty = make_store(tmp_path / "empty", [Picture("0.png", (56, 84), (28, 42), pending=True)])
    with pytest.raises(LoaderError, match=r"no labelled image \(1 pending\)"):
        report_labels(empty, tmp_path / "out", progress=False)
    assert not (tmp_path / "out").exists()


def test_the_policy_of_the_page_allows_no_network(page: Path) -> None:
    policy = re.findall(r'Content-Security-Policy" content="([^"]+)"', page.read_text())
    assert len(policy) == 1 and policy[0].startswith("default-src &#x27;none&#x27;")
    assert not re.search(r"https?:|\*|unsafe", policy[0])


def test_open_shows_the_page_in_the_systems_browser(
    made: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    program = tmp_path / "bin" / "xdg-open"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\necho "$1" > "{tmp_path}/opened"\nexit 3\n')
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(program.parent))
    out = tmp_path / "a page"
    assert command(monkeypatch, "report", made.location, "-o", out, "--images", 1, "--open") == 0
    assert (tmp_path / "opened").read_text() == f"{out / 'index.html'}\n"
    printed = capsys.readouterr()
    assert f"Open {out / 'index.html'}" in printed.out
    assert "Note: xdg-open could not show" in printed.err


def test_the_speed_is_that_of_labelling_and_a_copied_store_has_none(tmp_path: Path) -> None:
    photos = write_photos(tmp_path / "photos", 8)
    label(photos, tmp_path / "store", str(small_teacher(tmp_path / "teacher")), shard_size=1, batch_size=1)
    found = figures.images_per_second(open_store(tmp_path / "store"))
    assert found is not None and found < 1000
    shutil.copytree(tmp_path / "store", tmp_path / "moved")
    assert figures.images_per_second(open_store(tmp_path / "moved")) == found
    shutil.copytree(tmp_path / "store", tmp_path / "copied", copy_function=shutil.copyfile)
    assert figures.images_per_second(open_store(tmp_path / "copied")) is None


def test_labels_from_elsewhere_have_no_teacher_and_may_have_no_reliability(tmp_path: Path) -> None:
    photos = write_photos(tmp_path / "photos", 3)
    (tmp_path / "maps").mkdir()
    for photo in photos.iterdir():
        np.save(tmp_path / "maps" / f"{photo.stem}.npy", np.linspace(1, 5, 48, dtype=np.float32).reshape(6, 8))
    depthsieve.import_labels(tmp_path / "maps", tmp_path / "store", images=photos, quantity="depth", progress=False)
    text = Path(report_labels(tmp_path / "store", tmp_path / "out", progress=False).page).read_text()
    assert f"Depth in metres, imported from <b>{tmp_path / 'maps'}</b>." in text
    assert "these labels came without reliability" in text
    assert gallery(tmp_path / "out")["stores"][0]["calibrated"] is False
    assert "licence of its weights" not in text and "expected relative error" not in text


def test_terms_of_the_images_are_told(tmp_path: Path) -> None:
    store = make_store(tmp_path, [Picture("0.png", (56, 84), (28, 42))])
    terms = ("CC <BY>-NC 4.0", "https://example.org/licence", "no", "not confirmed", "yes", "Not to be sold.", "")
    store = learn(store, {"default": DatasetNote("sa-1b", "SA-1B", "https://example.org", *terms)})
    write = report_labels(store, tmp_path / "out", progress=False)
    text = Path(write.page).read_text()
    assert (
        "source default: sa-1b</dt><dd>CC &lt;BY&gt;-NC 4.0: commercial use: no; labels may be passed on: not confirmed"
        in text
    )
    assert "Not to be sold." in text
    assert "does not know the terms" not in text


def test_metres_come_as_inverse_depth() -> None:
    metres_HW = np.array([[1.0, 2.0, 4.0, 0.0]])
    code_HW = np.array([[9, 9, 9, 9]], np.uint8)
    one, other = Maps.of(metres_HW, code_HW, "depth"), Maps.of(np.array([[1.0, 0.5, 0.25, 7.0]]), code_HW, "disparity")
    assert one.level_HW.tolist() == [[255, 85, 0, 0]]
    assert (one.far, one.near) == (pytest.approx(0.26), pytest.approx(0.98))
    assert other.near > 6
