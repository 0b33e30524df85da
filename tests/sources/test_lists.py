"""Lists of files, in all the ways in which they are written; several sources, and patterns of a shell."""

import codecs
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner
from hostile import encoded, photo
from labelled import write_photo, write_photos
from packing import pack_tar
from s3server import S3Server

import depthsieve
from depthsieve.core.errors import SourceError, UsageError
from depthsieve.sources import file_list, open_source
from depthsieve.sources.manifest_scan import ScanSummary
from depthsieve.store import open_store
from depthsieve_cli.main import cli


def scan(sources: Any, out: Path, **options: Any) -> ScanSummary:
    return depthsieve.scan(sources, out, progress=False, **options)


def rows(path: Path, *columns: str) -> list[Any]:
    table = pq.read_table(path).select(list(columns))
    return [tuple(row.values()) if len(columns) > 1 else row[columns[0]] for row in table.to_pylist()]


def png_bytes(seed: int) -> bytes:
    return encoded(photo(40 + seed, 30), "PNG")


@pytest.fixture(scope="module")
def teacher(light: str) -> str:
    return light


def test_lists_in_all_their_forms(tmp_path: Path) -> None:
    photos = write_photos(tmp_path / "photos", 3)
    (tmp_path / "other").mkdir()
    pack_tar(photos / "more.tar", {"x.png": png_bytes(2)})
    names = ["photo 0.png", "photo 2.png", "more.tar"]
    wanted = ["default/more.tar::x.png", "default/photo 0.png", "default/photo 2.png"]
    absolute = [str(photos / name) for name in names]
    forms: dict[str, tuple[bytes, Path]] = {
        "beside": ("\n".join(names).encode(), photos / "list.txt"),
        "absolute": ("\n".join(absolute).encode(), tmp_path / "other" / "list.lst"),
        "windows": ("\r\n".join(names).encode() + b"\r\n", photos / "list.list"),
        "find": ("\0".join(absolute).encode() + b"\0", photos / "nul.txt"),
        "untidy": (("\n\n  \n" + "\n".join(["./" + n for n in names * 2]) + "\n\n").encode(), photos / "u.TXT"),
    }
    for form, (data, path) in forms.items():
        path.write_bytes(data)
        source = open_source(path)
        assert source.root == str(photos), form
        summary = scan(path, tmp_path / f"{form}.parquet")
        assert rows(tmp_path / f"{form}.parquet", "id") == wanted and summary.rejected == 0, form


def test_what_a_list_names_that_is_not_there_or_outside_is_rejected(tmp_path: Path) -> None:
    photos = write_photos(tmp_path / "photos", 1)
    write_photo(tmp_path / "outside.png", 30, 20, seed=4)
    lines = ["photo 0.png", "gone.png", "../outside.png", ".", str(tmp_path / "outside.png"), "new%0Aline.png"]
    (photos / "list.txt").write_text("\n".join(lines))
    summary = scan(photos / "list.txt", tmp_path / "m.parquet", root=str(photos))
    assert rows(tmp_path / "m.parquet", "id") == ["default/photo 0.png"]
    reasons = {failure.id: failure.reason for failure in summary.rejects}
    assert "no such file" in reasons["default/gone.png"] and len(reasons) == 4
    assert sum("outside of the root of this list" in reason for reason in reasons.values()) == 2
    wide = scan(photos / "list.txt", tmp_path / "n.parquet", root=str(tmp_path))  # "photo 0.png" is not in there
    assert rows(tmp_path / "n.parquet", "id") == ["default/outside.png"]
    assert "no such file" in {failure.id: failure.reason for failure in wide.rejects}["default/photo 0.png"]


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "names no files"),
        (b"\n \n", "names no files"),
        (b"x" * 70_000, "longer than"),
        (b"a.png\ns3://b/c.png", "URLs"),
    ],
)
def test_a_list_that_cannot_be_meant_is_one_line(tmp_path: Path, data: bytes, words: str) -> None:
    (tmp_path / "list.txt").write_bytes(data)
    with pytest.raises((SourceError, UsageError), match=words) as caught:
        open_source(tmp_path / "list.txt")
    assert "\n" not in str(caught.value)
    with pytest.raises(SourceError, match="No such file"):
        open_source(tmp_path / "gone.txt")
    with pytest.raises(UsageError, match="a root is for lists"):
        open_source(tmp_path, root="/")


def test_a_long_list_is_read_in_pieces(tmp_path: Path) -> None:
    names = [f"{'d' * 40}/{number:06d}.png" for number in range(4000)]
    (tmp_path / "list.txt").write_text("\n".join(names))
    spool = file_list._lines(str(tmp_path / "list.txt"))
    assert [line.decode() for line in spool] == names


def test_a_list_of_objects(s3: S3Server, tmp_path: Path) -> None:
    name = s3.new_bucket()
    for key in ("set/a.png", "set/b/c.png", "set/d.png"):
        s3.put(name, key, png_bytes(1))
    urls = [f"s3://{name}/set/a.png", f"s3://{name}/set/b/c.png", f"s3://{name}/set/gone.png"]
    (tmp_path / "list.txt").write_text("\n".join(urls))
    assert open_source(tmp_path / "list.txt").root == f"s3://{name}/set"
    summary = scan(tmp_path / "list.txt", tmp_path / "m.parquet")
    assert rows(tmp_path / "m.parquet", "id") == ["default/a.png", "default/b/c.png"]
    assert [(one.id, one.reason) for one in summary.rejects] == [("default/gone.png", "no such object")]


def test_a_list_from_a_pipe_is_labelled_and_read_again_by_who_is_restarted(tmp_path: Path, teacher: str) -> None:
    photos = write_photos(tmp_path / "photos", 3)
    names = "\0".join(str(path) for path in sorted(photos.iterdir())).encode()
    script = """
import os, sys
from depthsieve_cli import stdin
stdin.keep_stdin("-")
from depthsieve.sources import open_source, Passed
for _ in range(2):
    print(sorted(one.id for one in open_source("-").listing(Passed())))
"""
    ran = subprocess.run([sys.executable, "-c", script], input=names, capture_output=True, check=True)
    wanted = str([f"default/photo {number}.png" for number in range(3)])
    assert ran.stdout.decode().splitlines() == [wanted, wanted]
    command = [sys.executable, "-m", "depthsieve", "label", "-", "labels", "--teacher", teacher, "--root", "photos"]
    names = b"photos/photo 0.png\nphotos/photo 1.png\n"  # as `find photos` writes them
    command += ["--batch-size", "2", "--threads", "1"]
    ran = subprocess.run(command, input=names, capture_output=True, cwd=tmp_path)
    assert ran.returncode == 0, ran.stderr
    assert b"2 of 2 images labelled" in ran.stdout
    assert sorted(open_store(tmp_path / "labels").images) == ["default/photo 0.png", "default/photo 1.png"]


@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be"])
def test_lists_of_windows_editors_are_read(tmp_path: Path, encoding: str, end: str) -> None:
    """PowerShell's `>` writes UTF-16, and editors put a mark before UTF-8."""
    photos = write_photos(tmp_path / "photos", 2)
    (photos / "photo 1.png").rename(photos / "bild \u00fc\u5199.png")
    mark = {"utf-16-le": codecs.BOM_UTF16_LE, "utf-16-be": codecs.BOM_UTF16_BE}.get(encoding, b"")
    text = end.join(["photo 0.png", "bild \u00fc\u5199.png", ""])
    (photos / "list.txt").write_bytes(mark + text.encode(encoding))
    scan(photos / "list.txt", tmp_path / "m.parquet")
    assert rows(tmp_path / "m.parquet", "id") == ["default/bild \u00fc\u5199.png", "default/photo 0.png"]
    if mark:
        (photos / "list.txt").write_bytes(text.encode(encoding))
        with pytest.raises(SourceError, match="looks like UTF-16 without a byte order mark: save it as UTF-8"):
            open_source(photos / "list.txt")


def test_a_long_list_in_utf_16_is_read_in_pieces(tmp_path: Path) -> None:
    names = ["\u00fc" * 41 + f"/{number:06d}.png" for number in range(4000)]
    (tmp_path / "list.txt").write_text("\n".join(names), encoding="utf-16")
    assert [line.decode() for line in file_list._lines(str(tmp_path / "list.txt"))] == names


def test_a_list_may_name_folders(tmp_path: Path) -> None:
    write_photos(tmp_path / "photos" / "a", 2)
    write_photos(tmp_path / "photos" / "b" / "deep", 1)
    (tmp_path / "photos" / "list.txt").write_text("a\nb/\nb/deep/photo 0.png\n")
    scan(tmp_path / "photos" / "list.txt", tmp_path / "m.parquet")
    assert rows(tmp_path / "m.parquet", "id") == [
        "default/a/photo 0.png",
        "default/a/photo 1.png",
        "default/b/deep/photo 0.png",
    ]


def test_several_sources_without_a_name_are_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As a shell hands over photos/*.png."""
    photos = write_photos(tmp_path / "photos", 3)
    pack_tar(tmp_path / "more.tar", {"x.png": png_bytes(2)})
    files = [photos / "photo 0.png", photos / "photo 2.png"]
    scan(files, tmp_path / "m.parquet")
    assert rows(tmp_path / "m.parquet", "id") == ["default/photo 0.png", "default/photo 2.png"]
    scan([photos, tmp_path / "more.tar", f"one={photos / 'photo 1.png'}"], tmp_path / "n.parquet")
    names = ["default/more.tar::x.png", *(f"default/photos/photo {n}.png" for n in range(3)), "one/photo 1.png"]
    assert rows(tmp_path / "n.parquet", "id") == names
    scan(files, tmp_path / "o.parquet", root=str(tmp_path))
    assert rows(tmp_path / "o.parquet", "id") == ["default/photos/photo 0.png", "default/photos/photo 2.png"]
    with pytest.raises(SourceError, match="no such file or directory"):
        scan([photos, tmp_path / "gone"], tmp_path / "x.parquet")
    monkeypatch.chdir(tmp_path)
    ran = CliRunner().invoke(cli, ["scan", "photos/photo 0.png", "photos/photo 1.png", "-o", "p.parquet"])
    assert ran.exit_code == 0 and rows(tmp_path / "p.parquet", "id") == ["default/photo 0.png", "default/photo 1.png"]


def test_a_pattern_is_what_it_fits(tmp_path: Path) -> None:
    photos = write_photos(tmp_path / "photos", 2)
    write_photo(tmp_path / "photos" / "deep" / "c.png", 20, 30, seed=3)
    scan(f"{photos}/*.png", tmp_path / "m.parquet")
    assert rows(tmp_path / "m.parquet", "id") == ["default/photo 0.png", "default/photo 1.png"]
    scan(f"{photos}/**/*.png", tmp_path / "n.parquet")
    assert len(rows(tmp_path / "n.parquet", "id")) == 3
    write_photo(photos / "[x].png", 20, 30, seed=4)
    scan(photos / "[x].png", tmp_path / "o.parquet")  # what is there is meant as it stands
    assert rows(tmp_path / "o.parquet", "id") == ["default/[x].png"]
    with pytest.raises(SourceError, match="nothing fits this pattern"):
        open_source(f"{photos}/*.jpg")
