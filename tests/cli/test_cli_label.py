"""`depthsieve label` as a user meets it: what it prints where, and how it exits."""

import json
import shutil
from pathlib import Path

import pytest
from commandline import command
from labelled import small_teacher, write_photo, write_photos

import depthsieve
from depthsieve.store import open_store


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(small_teacher(tmp_path_factory.mktemp("teacher") / "t"))


def test_a_folder_then_nothing_to_do(
    tmp_path: Path, teacher: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    photos, store = write_photos(tmp_path / "it's a folder", 3), tmp_path / "a store"
    (photos / ".hidden.png").write_bytes(b"")
    (photos / "notes.txt").write_text("")
    arguments = ("label", photos, store, "--teacher", teacher, "--batch-size", 2)
    assert command(monkeypatch, *arguments) == 0
    shown = capsys.readouterr()
    first, second, third, last = shown.out.splitlines()
    assert first.startswith("Labelled 3 images in ") and first.endswith("images/s).")
    assert second == f"{store}: 3 of 3 images labelled."
    assert third == "Passed over 1 hidden file, and 1 file of other kinds."
    assert last == f"See them: depthsieve view '{store}'"
    assert "\r" not in shown.err, "no bar where nobody sees one"
    assert command(monkeypatch, *arguments) == 0
    shown = capsys.readouterr()
    assert shown.out.splitlines()[:2] == ["0 images to do.", f"{store}: 3 of 3 images labelled."]
    assert "See them" not in shown.out, "nothing is new"
    assert "label:" not in shown.err


def test_failures_are_named_and_exit_with_3_until_they_are_resolved(
    tmp_path: Path, teacher: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    photos, store = write_photos(tmp_path / "photos", 2), tmp_path / "store"
    for number in range(22):
        (photos / f"bad {number:02d}.jpg").write_bytes(b"")
    arguments = ("label", photos, store, "--teacher", teacher)
    for _ in range(2):
        assert command(monkeypatch, *arguments) == 3
        out = capsys.readouterr().out
        assert "  failed: default/bad 00.jpg: empty file\n" in out
        assert "bad 19.jpg" in out and "bad 20.jpg" not in out and "and 2 more" in out
        assert "22 images failed. The same command with --retry-failed tries again." in out
        assert "2 of 24 images labelled" in out
    for number in range(22):
        (photos / f"bad {number:02d}.jpg").unlink()
        write_photo(photos / f"bad {number:02d}.jpg", 90, 90, seed=number)
    assert command(monkeypatch, *arguments, "--retry-failed") == 0
    assert "24 of 24 images labelled" in capsys.readouterr().out


def test_failed_images_that_are_allowed_are_named_and_exit_with_0(
    tmp_path: Path, teacher: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    photos, store = write_photos(tmp_path / "photos", 2), tmp_path / "store"
    (photos / "bad.jpg").write_bytes(b"")
    planned = ("plan", photos, store, "--teacher", teacher, "--no-trial")
    assert command(monkeypatch, *planned) == 3
    assert command(monkeypatch, *planned, "--json", "--allow-failed") == 0
    capsys.readouterr()
    assert command(monkeypatch, *planned, "--write", "--allow-failed") == 0
    assert "  failed: default/bad.jpg: empty file\n" in capsys.readouterr().out
    assert command(monkeypatch, "label", photos, store, "--part", "1/1") == 3
    capsys.readouterr()
    assert command(monkeypatch, "label", photos, store, "--part", "1/1", "--allow-failed") == 0
    assert "  failed: default/bad.jpg: empty file\n" in capsys.readouterr().out


def test_json_is_all_that_is_on_stdout(
    tmp_path: Path, teacher: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    photos, store = write_photos(tmp_path / "photos", 2), tmp_path / "store"
    (photos / "bad.jpg").write_bytes(b"\xff\xd8\xff")
    assert command(monkeypatch, "label", photos, store, "--teacher", teacher, "--json") == 3
    shown = capsys.readouterr()
    summary = json.loads(shown.out)
    assert summary["labelled"] == summary["labelled_now"] == 2
    assert [failure["id"] for failure in summary["failed"]] == ["default/bad.jpg"]
    assert summary["store"] == str(store)
    assert shown.err == ""


def test_one_file_is_a_source_too(tmp_path: Path, teacher: str, monkeypatch: pytest.MonkeyPatch) -> None:
    photos, store = write_photos(tmp_path / "photos", 3), tmp_path / "store"
    beside = photos / "labels"
    assert command(monkeypatch, "label", photos / "photo 1.png", beside, "--teacher", teacher) == 0
    assert open_store(beside).images == ["default/photo 1.png"]
    shutil.rmtree(beside)
    assert command(monkeypatch, "label", photos / "photo 1.png", store, "--teacher", teacher) == 0
    assert open_store(store).images == ["default/photo 1.png"]
    assert command(monkeypatch, "label", photos, store, "--teacher", teacher) == 0
    assert len(open_store(store).images) == 3


@pytest.mark.parametrize(
    ("changes", "code", "line"),
    [
        ({"source": "nowhere"}, 1, "nowhere"),
        ({"--teacher": "no/such-model"}, 1, "--teacher tiny"),
        ({"--size": "71"}, 2, "71"),
        ({"--device": "cuda:99"}, 2, "cuda"),
        ({"--batch-size": "0"}, 2, "batch_size must be a whole number of at least 1"),
        ({"--name": "a/b"}, 2, "a/b"),
        ({"--signals": "flop"}, 2, "'flop'"),
    ],
)
def test_a_mistake_is_one_line(
    tmp_path: Path,
    teacher: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    changes: dict[str, str],
    code: int,
    line: str,
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    photos = write_photos(tmp_path / "photos", 1)
    options = {"--teacher": teacher} | {name: value for name, value in changes.items() if name != "source"}
    source = tmp_path / changes["source"] if "source" in changes else photos
    arguments = [part for option in options.items() for part in option]
    assert command(monkeypatch, "label", source, tmp_path / "store", *arguments) == code
    shown = capsys.readouterr()
    errors = shown.err.strip().splitlines()
    assert len(errors) == 1 and errors[0].startswith("Error: ") and line in errors[0]
    assert shown.out == "" and not (tmp_path / "store").exists()


def test_a_plan_keeps_the_batch_size_it_was_made_with(
    tmp_path: Path, teacher: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    photos, store = write_photos(tmp_path / "photos", 4), tmp_path / "store"
    depthsieve.label(photos, store, teacher=teacher, batch_size=2, threads=1, progress=False)
    record = next(path for path in (store / "commits").iterdir() if path.name.startswith("0000"))
    before = record.read_bytes()
    record.unlink()
    assert command(monkeypatch, "label", photos, store, "--teacher", teacher, "--batch-size", 3) == 0
    assert "generation 0 was planned with --batch-size 2 and keeps it" in capsys.readouterr().err
    assert record.read_bytes() == before
