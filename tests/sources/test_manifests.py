"""Manifests: written, brought up to date, gone on with after a kill, and labelled as they stand."""

import inspect
import json
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner
from hostile import encoded, make_hostile_folder, photo
from labelled import small_teacher, write_photo, write_photos
from packing import pack_hdf5, pack_parquet, pack_tar, pack_zip

import depthsieve
from depthsieve.core.errors import SourceError, UsageError
from depthsieve.sources import folder as folder_source
from depthsieve.sources import scan as scanning
from depthsieve.sources.manifest_scan import ScanSummary
from depthsieve.store import open_store
from depthsieve_cli.main import cli


def scan(sources: Any, out: Path, **options: Any) -> ScanSummary:
    return depthsieve.scan(sources, out, progress=False, **options)


def rows(path: Path, *columns: str) -> list[Any]:
    table = pq.read_table(path).select(list(columns))
    return [tuple(row.values()) if len(columns) > 1 else row[columns[0]] for row in table.to_pylist()]


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The ids that are looked at from here on."""
    looked: list[str] = []
    real = folder_source.FolderSource.look

    def look(self: folder_source.FolderSource, listed: Any) -> Any:
        looked.append(listed.id)
        return real(self, listed)

    monkeypatch.setattr(folder_source.FolderSource, "look", look)
    return looked


def test_a_manifest_has_a_row_an_image_and_a_row_a_reject(tmp_path: Path) -> None:
    make_hostile_folder(tmp_path / "photos")
    summary = scan(tmp_path / "photos", tmp_path / "m.parquet")
    ids = rows(tmp_path / "m.parquet", "id")
    assert ids == sorted(ids) and len(ids) == summary.images > 40
    rejects = dict(rows(tmp_path / "m.rejected.parquet", "id", "reason"))
    assert len(rejects) == summary.rejected == len(summary.rejects) > 20
    assert rejects["default/broken/empty.jpg"] == "empty file"
    assert {failure.id: failure.reason for failure in summary.rejects} == rejects
    (row,) = pq.read_table(tmp_path / "m.parquet", filters=[("id", "=", "default/turned/6.jpg")]).to_pylist()
    stat = (tmp_path / "photos" / "turned" / "6.jpg").stat()
    assert row == {
        "id": "default/turned/6.jpg", "size": stat.st_size, "mtime_ns": stat.st_mtime_ns, "width": 48, "height": 64,
        "orientation": 6, "content_sha256": None, "duplicate_of": None,
    }  # fmt: skip
    note = json.loads(pq.read_schema(tmp_path / "m.parquet").metadata[b"depthsieve_manifest"])
    assert note == {"format": 1, "sources": {"default": str(tmp_path / "photos")}}
    assert (summary.skipped_hidden, summary.skipped_other, summary.opened) == (3, 6, summary.images + summary.rejected)
    assert sorted(path.name for path in tmp_path.glob("m.*")) == ["m.parquet", "m.rejected.parquet"]


def test_again_only_what_is_new_or_has_changed_is_opened(tmp_path: Path, opened: list[str]) -> None:
    photos, out = write_photos(tmp_path / "photos", 5), tmp_path / "m.parquet"
    (photos / "bad.jpg").write_bytes(b"words")
    scan(photos, out)
    before = out.read_bytes()
    opened.clear()
    summary = scan(photos, out)
    assert (summary.opened, summary.changed, opened) == (0, 0, [])
    assert out.read_bytes() == before
    write_photo(photos / "photo 1.png", 50, 60, seed=77)
    (photos / "photo 2.png").unlink()
    write_photo(photos / "new.png", 20, 20, seed=1)
    summary = scan(photos, out)
    assert sorted(opened) == ["default/new.png", "default/photo 1.png"]
    assert (summary.images, summary.rejected, summary.opened, summary.changed) == (5, 1, 2, 1)
    assert ("default/photo 1.png", 50, 60) in rows(out, "id", "width", "height")
    assert "default/photo 2.png" not in rows(out, "id")


def test_several_sources_with_names(tmp_path: Path) -> None:
    street, tar = write_photos(tmp_path / "street", 2), pack_tar(tmp_path / "a=b.tar", {"x.png": png_bytes(1)})
    summary = scan([f"street={street}", str(tar)], tmp_path / "m.parquet")
    assert summary.images == 3
    assert rows(tmp_path / "m.parquet", "id") == ["default/a=b.tar::x.png", "street/photo 0.png", "street/photo 1.png"]
    assert scan({"street": street}, tmp_path / "n.parquet").images == 2
    for sources, words in (
        ([f"a={street}", f"a={street}"], "two sources are called"),
        ([], "at least one"),
        ("a/b=c", "no such file"),
    ):
        with pytest.raises((UsageError, SourceError), match=words):
            scan(sources, tmp_path / "x.parquet")
    with pytest.raises(SourceError, match="write another manifest"):
        scan({"street": tmp_path}, tmp_path / "n.parquet")
    with pytest.raises(UsageError, match=r"ends in \.parquet"):
        scan(street, tmp_path / "m.csv")
    assert not (tmp_path / "x.parquet").exists()


def png_bytes(seed: int) -> bytes:
    return encoded(photo(40 + seed, 30), "PNG")


def test_no_file_is_overwritten_that_is_no_manifest(tmp_path: Path) -> None:
    photos = write_photos(tmp_path / "photos", 1)
    images = pack_parquet(tmp_path / "images.parquet", {"a": png_bytes(0)})
    kept = images.read_bytes()
    with pytest.raises(SourceError, match="no manifest that `depthsieve scan` wrote"):
        scan(photos, images)
    assert images.read_bytes() == kept


def test_a_container_with_nothing_in_it_is_named_itself(tmp_path: Path) -> None:
    folder = write_photos(tmp_path / "photos", 1)
    empty = pack_tar(folder / "an empty.tar", {"notes.txt": b"words"})
    words = re.escape(f"no images in {empty} (1 other and 0 hidden files)")
    with pytest.raises(SourceError, match=words):
        scan(empty, tmp_path / "m.parquet")
    (tmp_path / "some.txt").write_text(f"{empty}\n")
    with pytest.raises(SourceError, match=r"no images in the list in '.*some.txt' \(1 other and 0 hidden files\)"):
        scan(tmp_path / "some.txt", tmp_path / "m.parquet")
    with pytest.raises(SourceError, match=words):
        label(empty, tmp_path / "store", teacher=str(small_teacher(tmp_path / "teacher")))


def test_a_folder_that_is_empty_now_empties_no_manifest(tmp_path: Path) -> None:
    photos, out = write_photos(tmp_path / "photos", 2), tmp_path / "m.parquet"
    scan(photos, out)
    kept = out.read_bytes()
    photos.rename(tmp_path / "unmounted")
    photos.mkdir()
    (photos / "notes.txt").touch()
    for manifest in (out, tmp_path / "new.parquet"):
        with pytest.raises(SourceError, match=r"no images in .*photos \(1 other and 0 hidden files\)"):
            scan(photos, manifest)
    assert out.read_bytes() == kept and sorted(path.name for path in tmp_path.glob("*.parquet*")) == [
        "m.parquet",
        "m.rejected.parquet",
    ]


def test_equal_files_are_marked_with_the_first_of_them(tmp_path: Path) -> None:
    photos = write_photos(tmp_path / "photos", 3)
    (photos / "a copy.png").write_bytes((photos / "photo 1.png").read_bytes())
    pack_zip(tmp_path / "more.zip", {"photo.png": (photos / "photo 1.png").read_bytes()})
    out = tmp_path / "m.parquet"
    assert scan({"a": photos, "b": tmp_path / "more.zip"}, out).duplicates is None
    summary = scan({"a": photos, "b": tmp_path / "more.zip"}, out, duplicates=True)
    assert (summary.duplicates, summary.changed) == (2, 0)
    assert {one: of for one, of in rows(out, "id", "duplicate_of") if of} == {
        "a/photo 1.png": "a/a copy.png",
        "b/more.zip::photo.png": "a/a copy.png",
    }
    import hashlib

    digests = dict(rows(out, "id", "content_sha256"))
    assert digests["a/photo 0.png"] == hashlib.sha256((photos / "photo 0.png").read_bytes()).hexdigest()
    assert scan({"a": photos, "b": tmp_path / "more.zip"}, out, duplicates=True).opened == 0


def test_a_scan_that_was_killed_goes_on(tmp_path: Path, opened: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    photos, out = write_photos(tmp_path / "photos", 6), tmp_path / "m.parquet"
    (photos / "bad.jpg").write_bytes(b"words")
    whole = scan(photos, tmp_path / "whole.parquet")
    script = f"""
import os, signal
from depthsieve.sources import manifest_scan
from depthsieve.sources import scan as scanning
manifest_scan.PART_SECONDS, scanning.LOOKED_AT = -1.0, 2
real, looks = scanning._look, []
def look(*arguments):
    looks.append(1)
    if len(looks) == 4:
        os.kill(os.getpid(), signal.SIGKILL)
    return real(*arguments)
scanning._look = look
import depthsieve
depthsieve.scan({str(photos)!r}, {str(out)!r}, progress=False)
"""
    killed = subprocess.run([sys.executable, "-c", script], check=False)
    assert killed.returncode == -signal.SIGKILL and not out.exists()
    opened.clear()
    summary = scan(photos, out)
    assert 0 < len(opened) < 4 and summary.opened == len(opened)
    assert out.read_bytes() == (tmp_path / "whole.parquet").read_bytes()
    assert (summary.images, summary.rejected) == (whole.images, whole.rejected)
    assert sorted(path.name for path in tmp_path.glob("m.*")) == ["m.parquet", "m.rejected.parquet"]


def test_a_scan_that_is_interrupted_keeps_what_it_opened(
    tmp_path: Path, opened: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    photos, out = write_photos(tmp_path / "photos", 6), tmp_path / "m.parquet"
    real, looks = scanning._look, []

    def interrupted(*arguments: Any) -> Any:
        looks.append(1)
        if len(looks) == 3:
            raise KeyboardInterrupt
        return real(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(scanning, "_look", interrupted)
        patch.setattr(scanning, "LOOKED_AT", 2)
        with pytest.raises(KeyboardInterrupt):
            scan(photos, out)
    assert opened == [f"default/photo {number}.png" for number in range(4)] and not out.exists()
    assert [path.suffix for path in (tmp_path / "m.parquet.parts").iterdir()] == [".part"]
    assert (scan(photos, out).opened, len(opened)) == (2, 6)


def test_a_torn_part_is_left_out(tmp_path: Path) -> None:
    photos, out = write_photos(tmp_path / "photos", 2), tmp_path / "m.parquet"
    (tmp_path / "m.parquet.parts").mkdir()
    (tmp_path / "m.parquet.parts" / "000000-1.part").write_bytes(b"PAR1 torn")
    assert scan(photos, out).images == 2


# Labelling a manifest, and all kinds of sources alike


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(small_teacher(tmp_path_factory.mktemp("teacher") / "t"))


def label(source: Any, store: Path, teacher: str, **options: Any) -> depthsieve.LabelSummary:
    fixed = {"teacher": teacher, "batch_size": 2, "threads": 1, "progress": False}
    return depthsieve.label(source, store, **fixed, **options)


def labels(store: Path) -> list[tuple[bytes, bytes]]:
    """Depth and reliability of each image, in the order of ids."""
    opened = open_store(store)
    found = [opened.label(image) for image in sorted(opened.images)]
    return [(one.depth.tobytes(), one.reliability.tobytes()) for one in found]


def test_all_kinds_of_sources_give_the_same_labels_to_the_byte(tmp_path: Path, teacher: str) -> None:
    photos = write_photos(tmp_path / "photos", 5)
    files = {path.name: path.read_bytes() for path in sorted(photos.iterdir())}
    (tmp_path / "list.txt").write_text("\n".join(str(path) for path in sorted(photos.iterdir())))
    scan(photos, tmp_path / "manifest.parquet")
    scan(pack_tar(tmp_path / "scanned.tar", files), tmp_path / "tar manifest.parquet")
    sources = {
        "folder": photos,
        "list": tmp_path / "list.txt",
        "tar": pack_tar(tmp_path / "all.tar", files),
        "zip": pack_zip(tmp_path / "all.zip", files),
        "parquet": pack_parquet(tmp_path / "all.parquet", files),
        "hdf5": pack_hdf5(tmp_path / "all.h5", files),
        "manifest": tmp_path / "manifest.parquet",
        "manifest of a tar": tmp_path / "tar manifest.parquet",
    }
    wanted: list[tuple[bytes, bytes]] = []
    for kind, source in sources.items():
        summary = label(source, tmp_path / f"labels of {kind}", teacher)
        assert (summary.labelled, summary.failed) == (5, ()), kind
        found = labels(tmp_path / f"labels of {kind}")
        wanted = wanted or found
        assert found == wanted and len(set(found)) == 5, kind


def test_a_manifest_is_labelled_as_it_stands(tmp_path: Path, teacher: str) -> None:
    a, b = write_photos(tmp_path / "a", 3), write_photos(tmp_path / "b", 2, first=10)
    out, store = tmp_path / "m.parquet", tmp_path / "labels"
    scan({"a": a, "b": b}, out)
    write_photo(a / "later.png", 120, 90, seed=50)
    planned = depthsieve.plan(out, store, teacher=teacher, trial=False, progress=False)
    assert planned.images == 5
    summary = label(out, store, teacher)
    assert (summary.labelled, summary.failed) == (5, ())
    assert open_store(store).sources() == {"a": str(a), "b": str(b)}
    assert label(out, store, teacher).planned_now == 0
    scan({"a": a, "b": b}, out)
    assert label(out, store, teacher).labelled_now == 1
    with pytest.raises(UsageError, match="is a manifest, and says itself"):
        label(out, store, teacher, name="street")


def test_what_changed_since_the_manifest_is_named_and_costs_no_other(tmp_path: Path, teacher: str) -> None:
    photos, out, store = write_photos(tmp_path / "photos", 4), tmp_path / "m.parquet", tmp_path / "labels"
    scan(photos, out)
    write_photo(photos / "photo 0.png", 90, 120, seed=70)
    (photos / "photo 1.png").unlink()
    summary = label(out, store, teacher)
    reasons = {failure.id: failure.reason for failure in summary.failed}
    assert set(reasons) == {"default/photo 0.png", "default/photo 1.png"} and summary.labelled == 2
    assert all("changed since m.parquet was made: scan again" in reason for reason in reasons.values())
    assert reasons["default/photo 1.png"].startswith("no such file")
    scan(photos, out)
    assert label(out, store, teacher, retry_failed=True).labelled == 3


def test_a_broken_manifest_is_one_line(tmp_path: Path, teacher: str) -> None:
    out = tmp_path / "m.parquet"
    scan(write_photos(tmp_path / "photos", 2), out)
    table = pq.read_table(out)
    later = json.dumps({"format": 2, "sources": {}})
    pq.write_table(table.replace_schema_metadata({"depthsieve_manifest": later}), out)
    with pytest.raises(SourceError, match="format 2, and this version reads format 1") as caught:
        label(out, tmp_path / "labels", teacher)
    assert "\n" not in str(caught.value)


# The command line


def test_the_command_says_what_it_found_and_exits_with_3_for_rejects(tmp_path: Path) -> None:
    photos = write_photos(tmp_path / "photos", 2)
    run = CliRunner()
    out = str(tmp_path / "m.parquet")
    good = run.invoke(cli, ["scan", str(photos), "-o", out])
    assert good.exit_code == 0 and "2 images." in good.output and "Opened 2 files" in good.output
    (photos / "bad.jpg").write_bytes(b"words")
    (photos / "copy.png").write_bytes((photos / "photo 0.png").read_bytes())
    ran = run.invoke(cli, ["scan", str(photos), "--out", out, "--duplicates"], standalone_mode=False)
    assert ran.return_value == 3
    assert "failed: default/bad.jpg: not an image but text" in ran.output
    assert "1 file cannot be labelled" in ran.output and "1 image equal to another" in ran.output
    ran = run.invoke(cli, ["scan", f"x={photos}", "-o", str(tmp_path / "n.parquet"), "--json"], standalone_mode=False)
    body = json.loads(ran.output)
    assert (body["images"], body["rejected"], body["duplicates"]) == (3, 1, None)
    (photos / "list.txt").write_text("photos/photo 0.png")
    ran = run.invoke(
        cli, ["scan", str(photos / "list.txt"), "--root", str(tmp_path), "-o", str(tmp_path / "l.parquet")]
    )
    assert "1 image." in ran.output


def test_the_options_of_the_function_are_those_of_the_command() -> None:
    command = cli.commands["scan"].make_context("scan", ["photos", "-o", "photos.parquet"]).params
    options = inspect.signature(depthsieve.scan).parameters
    keywords = {name: one.default for name, one in options.items() if one.kind is one.KEYWORD_ONLY}
    assert {**keywords, "progress": None} == {
        "progress": None,
        **{name: value for name, value in command.items() if name not in ("sources", "out", "as_json")},
    }
    assert all(one.annotation is not inspect.Parameter.empty for one in options.values())
    described = inspect.cleandoc(depthsieve.scan.__doc__ or "")
    assert all(f"\n    {name}: " in described for name in options)


def test_pixels_in_hdf5_are_labelled_like_a_lossless_file_of_them(tmp_path: Path, teacher: str) -> None:
    photos = write_photos(tmp_path / "photos", 2)
    from depthsieve.images.decode import decode

    pixels = [decode(path.read_bytes()).rgb_HW3 for path in sorted(photos.iterdir())]
    with h5py.File(tmp_path / "all.h5", "w") as file:
        file["images"] = np.stack(pixels)
    label(photos, tmp_path / "a", teacher)
    label(tmp_path / "all.h5", tmp_path / "b", teacher)
    assert labels(tmp_path / "a") == labels(tmp_path / "b")
