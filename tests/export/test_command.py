"""``depthsieve export`` on the command line: what it prints, its exit codes, its options."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner
from commandline import command
from exported import READERS, small_store
from storemaker import Picture, make_store

from depthsieve.export.table import TARGETS, all_options
from depthsieve_cli.export import export


def test_the_help_lists_every_target_with_its_options() -> None:
    text = CliRunner().invoke(export, ["--help"]).output
    for row in TARGETS.values():
        assert f"\n  {row.name} " in text
        assert f"Targets ({row.group.lower()}):" in text
    for one, targets in all_options():
        group = " ".join(text.partition(f"--{one.name.replace('_', '-')}")[0].split("For ")[-1].split())
        assert group.startswith(f"{', '.join(targets)}:")


def test_targets_that_share_an_option_declare_it_alike() -> None:
    declared: dict[str, object] = {}
    for row in TARGETS.values():
        for one in row.options:
            assert declared.setdefault(one.name, one) == one, (row.name, one.name)


def test_it_says_what_it_would_write_what_it_wrote_and_that_all_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    store, out = small_store(tmp_path), tmp_path / "out"
    call = ("export", store.location, out, "--for", "npz", "--mask", "0.2", "--threads", "1")
    assert command(monkeypatch, *call, "--dry-run") == 0
    assert f"Would write 4 images for npz to {out}: about 0.0" in capsys.readouterr().out
    assert command(monkeypatch, *call) == 0
    told = capsys.readouterr()
    assert "Wrote 4 images for npz in " in told.out and "its README.md says how to read them" in told.out
    assert "Left out: 1 image (failed): default/failed.png\n" in told.out
    assert command(monkeypatch, *call) == 0
    assert f"Nothing to do: {out} has all 4 images." in capsys.readouterr().out
    assert command(monkeypatch, *call[:5], "--mask", "0.3") == 2
    assert "was exported with mask 0.2, not 0.3" in capsys.readouterr().err


def test_failed_images_are_named_and_change_the_exit_code(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    store = small_store(tmp_path)
    (tmp_path / "images" / "a.jpg").unlink()
    call = ("export", store.location, tmp_path / "out", "--for", "webdataset", "--images-per-file", "2")
    assert command(monkeypatch, *call) == 3
    told = capsys.readouterr().out
    assert "  failed: default/a.jpg: its image cannot be read from" in told
    assert "1 image failed; the same command tries them again." in told
    assert command(monkeypatch, *call, "--json") == 3
    body = json.loads(capsys.readouterr().out)
    assert (body["images"], body["failed"][0]["id"]) == (3, "default/a.jpg")
    assert len([*(tmp_path / "out").glob("*.tar")]) == 2
    more = ("export", store.location, tmp_path / "more", "--for", "webdataset", "--without-photos")
    assert command(monkeypatch, *more) == 0
    assert READERS["webdataset"].read(tmp_path / "more")["default/a.jpg"].photo_HW3 is None


def test_an_option_of_another_target_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    store = small_store(tmp_path)
    assert command(monkeypatch, "export", store.location, tmp_path / "out", "--for", "png", "--without-photos") == 2
    assert "target png has no option 'without_photos'; it belongs to webdataset" in capsys.readouterr().err


def test_a_wrong_mask_is_called_by_its_option(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    store = small_store(tmp_path)
    assert command(monkeypatch, "export", store.location, tmp_path / "out", "--for", "png", "--mask", "2") == 2
    assert "mask (--mask) must be a number from 0 up to, but not including, 1, not 2.0" in capsys.readouterr().err


def test_images_without_a_label_are_named_three_at_most(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    failed = [Picture(f"x{number}.png", (28, 28), (14, 14), failed=True) for number in range(4)]
    good = [Picture(f"{number}.png", (28, 28), (14, 14)) for number in range(2)]
    store = make_store(tmp_path, [*good, *failed])
    call = ("export", store.location, tmp_path / "out", "--for", "npy", "--where", "id = 'default/1.png'")
    assert command(monkeypatch, *call) == 0
    told = capsys.readouterr().out
    assert "Left out: 1 image (not selected).\n" in told
    assert "Left out: 4 images (failed): default/x0.png, default/x1.png, default/x2.png, ...\n" in told


def test_an_export_of_no_image_says_nothing_of_reading(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    store = make_store(tmp_path, [Picture("a.jpg", (28, 28), (14, 14))])
    (tmp_path / "images" / "a.jpg").unlink()
    assert command(monkeypatch, "export", store.location, tmp_path / "out", "--for", "webdataset") == 3
    told = capsys.readouterr().out
    assert "README.md" not in told
    assert "1 image failed; the same command tries them again." in told
