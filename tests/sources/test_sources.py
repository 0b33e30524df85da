"""The folder source on hostile folders: every file told apart, nothing outside read, nothing that blocks opened."""

import errno
import inspect
import os
import signal
import socket
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pyarrow as pa
import pytest
from hostile import DEPENDS_ON_SHAPE, SKIPPED, encoded, exif, make_hostile_folder, photo
from hypothesis import given, settings
from hypothesis import strategies as st
from scanned import Scanned, scanned

from depthsieve.core.errors import ImageRejected, SourceError, UsageError
from depthsieve.core.records import ImageRecord
from depthsieve.images.decode import decode
from depthsieve.sources import Listed, Passed, decode_path, encode_path, folder, open_source, reopen_source
from depthsieve.sources.ids import check_name, split_id
from depthsieve.sources.scan import scan_to

PHOTOS = Path(__file__).parents[2].parent / "shared" / "photos"


@pytest.fixture(autouse=True)
def no_test_hangs() -> Iterator[None]:
    """A FIFO that is opened waits for its writer for ever."""

    def too_long(*_: object) -> None:
        raise AssertionError("hangs: something that blocks was opened")

    previous = signal.signal(signal.SIGALRM, too_long)
    signal.alarm(60)
    yield
    signal.alarm(0)
    signal.signal(signal.SIGALRM, previous)


def paths(scan: Scanned) -> list[str]:
    return [image.id.partition("/")[2] for image in scan.images]


def reasons(scan: Scanned) -> dict[str, str]:
    return {image.id.partition("/")[2]: image.reason for image in scan.rejected}


def write_photo(path: Path, width: int = 16, height: int = 12) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(encoded(photo(width, height), "JPEG"))
    return path


def test_hostile_folder_every_good_image_and_every_bad_one_named(tmp_path: Path) -> None:
    expected = make_hostile_folder(tmp_path / "source")
    source = open_source(tmp_path / "source")
    scan = scanned(source)
    outcome: dict[str, str | None] = dict(reasons(scan))
    for image in scan.images:
        try:
            rgb_HW3 = decode(source.read(image.id)).rgb_HW3
            outcome[image.id.partition("/")[2]] = None
            assert rgb_HW3.shape == (image.height, image.width, 3)
        except ImageRejected as error:
            outcome[image.id.partition("/")[2]] = str(error)
    assert set(outcome) == set(expected) - SKIPPED
    for path, reason in outcome.items():
        wanted = expected[path]
        assert (reason is None) == (wanted is None), (path, reason, wanted)
        assert wanted is None or wanted in str(reason), (path, reason)
        assert str(tmp_path) not in str(reason)
    assert set(outcome) > DEPENDS_ON_SHAPE
    assert scan.skipped_hidden == 3  # .DS_Store, .hidden.jpg and .git, which is not entered
    assert scan.skipped_other == 6  # Thumbs.db, notes.txt, film.mpg, "no suffix", pipe, loop
    assert len({reason for reason in outcome.values() if reason}) >= 20
    ids = [image.id for image in scan.images]
    assert ids == sorted(ids, key=str.encode)
    rejected = [image.id for image in scan.rejected]
    assert rejected == sorted(rejected, key=str.encode)


def test_records_say_what_the_header_and_the_file_say(tmp_path: Path) -> None:
    path = tmp_path / "a" / "turned.jpg"
    path.parent.mkdir()
    path.write_bytes(encoded(photo(30, 20), "JPEG", exif=exif(6)))
    os.utime(path, ns=(0, 1_234_567_891))
    scan = scanned(open_source(tmp_path, "street"))
    size = path.stat().st_size
    assert scan.images == (ImageRecord("street/a/turned.jpg", size, 1_234_567_891, 20, 30, 6),)
    assert scan == Scanned(scan.images, (), 0, 0, 0)


def test_the_scan_does_not_depend_on_the_directorys_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make_hostile_folder(tmp_path / "source")
    first = scanned(open_source(tmp_path / "source"))
    real_scandir = os.scandir

    class Reversed:
        def __init__(self, path: bytes) -> None:
            self.path = path

        def __enter__(self) -> Iterator[os.DirEntry[bytes]]:
            with real_scandir(self.path) as entries:
                return reversed(list(entries))

        def __exit__(self, *_: object) -> None: ...

    source = open_source(tmp_path / "source")
    monkeypatch.setattr(folder.os, "scandir", Reversed)
    assert scanned(source) == first


def test_known_images_are_counted_and_not_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("a.jpg", "b.jpg", "c.jpg"):
        write_photo(tmp_path / name)
    source = open_source(tmp_path)
    opened: list[str] = []
    real_read_header = folder.read_header

    def counting(file: object) -> object:
        opened.append("one")
        return real_read_header(file)  # type: ignore[arg-type]

    monkeypatch.setattr(folder, "read_header", counting)
    known = scanned(source).images
    opened.clear()
    assert scanned(source, known) == Scanned((), (), known=3) and opened == []
    gone = ImageRecord("default/gone.jpg", 1, 1, 2, 2)
    scan = scanned(source, (known[0], known[2], gone))
    assert paths(scan) == ["b.jpg"] and (scan.known, scan.changed) == (2, ()) and len(opened) == 1


def test_what_is_known_with_another_size_or_time_is_looked_at_again(tmp_path: Path) -> None:
    for name in ("a.jpg", "b.jpg", "c.jpg", "d.jpg", "e.jpg"):
        write_photo(tmp_path / name)
    (tmp_path / "bad.jpg").write_bytes(b"words")
    source = open_source(tmp_path)
    first = scanned(source)
    write_photo(tmp_path / "a.jpg", 20, 10)
    os.utime(tmp_path / "b.jpg", ns=(0, 5))
    (tmp_path / "c.jpg").write_bytes(b"broken now")
    write_photo(tmp_path / "bad.jpg", 30, 20)
    (tmp_path / "d.jpg").unlink()
    write_photo(tmp_path / "new.jpg")
    scan = scanned(source, first.images + first.rejected)
    assert paths(scan) == ["a.jpg", "b.jpg", "bad.jpg", "new.jpg"]
    assert reasons(scan) == {"c.jpg": "not an image but text"}
    assert scan.changed == ("default/a.jpg", "default/b.jpg", "default/bad.jpg", "default/c.jpg")
    assert scan.known == 1
    assert [(image.width, image.mtime_ns == 5) for image in scan.images[:3]] == [(20, False), (16, True), (30, False)]


def test_of_an_image_known_twice_the_newest_generation_counts(tmp_path: Path) -> None:
    write_photo(tmp_path / "a.jpg")
    source = open_source(tmp_path)
    (image,) = scanned(source).images
    row = {"id": [image.id], "size": [image.size]}
    old = pa.table({**row, "mtime_ns": [image.mtime_ns], "generation": pa.array([0], pa.int32())})
    new = pa.table({**row, "mtime_ns": [7], "generation": pa.array([1], pa.int32())})
    tallies = [
        scan_to(tmp_path / f"scan {number}", [source], tables).tally
        for number, tables in enumerate(([old, new], [new, old], [old]))
    ]
    assert [(tally.known, tally.changed, tally.images) for tally in tallies] == [(0, 1, 1), (0, 1, 1), (1, 0, 0)]


def test_an_id_that_is_listed_twice_is_one_image(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("depthsieve.core.spill.BATCH_ROWS", 2)
    for number in range(5):
        write_photo(tmp_path / f"{number}.jpg")
    source = open_source(tmp_path)
    once = scanned(source)
    listed = list(source.listing(Passed()))
    monkeypatch.setattr(source, "listing", lambda passed: iter(listed * 3))
    assert scanned(source) == once


def test_a_listing_opens_nothing_and_counts_what_it_passes_over(tmp_path: Path) -> None:
    for index in range(130):
        (tmp_path / f"{index}.txt").touch()
    (tmp_path / "bad.jpg").touch()
    passed = Passed()
    assert [type(found) for found in open_source(tmp_path).listing(passed)] == [Listed]
    assert passed == Passed(0, 130)


def test_a_single_file_is_its_folders_only_image(tmp_path: Path) -> None:
    path = write_photo(tmp_path / "photo of mine.jpeg", 20, 10)
    write_photo(tmp_path / "another.jpg")
    source = open_source(path, "one")
    assert source.root == str(tmp_path.resolve())
    scan = scanned(source)
    assert [(image.id, image.width, image.height) for image in scan.images] == [("one/photo of mine.jpeg", 20, 10)]
    assert reopen_source("one", source.root).read(scan.images[0].id) == path.read_bytes()
    assert scanned(open_source(path, "one"), scan.images).known == 1


def test_a_single_file_needs_no_suffix_but_must_be_an_image(tmp_path: Path) -> None:
    write_photo(tmp_path / "upload")
    (tmp_path / "bad").write_bytes(b"words")
    assert paths(scanned(open_source(tmp_path / "upload"))) == ["upload"]
    assert reasons(scanned(open_source(tmp_path / "bad"))) == {"bad": "not an image but text" + folder._A_LIST}


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"filename,width\nph/a.jpg,3\n", "not an image but text, a table of it: a list of images is"),
        (b"ph/a.jpg\n", "not an image but text: a list of images is"),
        ("übrigens\n".encode(), "not an image but text"),
        (b'{"images": []}', "not an image but JSON"),
        (b"%PDF-1.7", "a PDF"),
        (b"\0\0\0\x18ftypisom\0\0\2\0", "a video, whose frames are read if its name ends in"),
        (b"\x1aE\xdf\xa3\x01\0\0\0", "a video, whose frames are read if its name ends in"),
        (b"PK\3\4\0\0", "a zip archive, which is read if its name ends in .zip"),
        (b"PAR1\x15\0", "a Parquet file, which is read if its name ends in .parquet"),
        (b"\x89HDF\r\n\x1a\n", "an HDF5 file, which is read if its name ends in .h5"),
        (b"\x93NUMPY\1\0", "a NumPy array"),
        (b"\x1f\x8b\x08\0", "a compressed file: unpack it first"),
        (b"version https://git-lfs.github.com/spec/v1\noid", "run `git lfs pull`"),
        (b"<!DOCTYPE html>", "a web page and not the file itself"),
        (b'<?xml version="1.0"?><Error><Code>AccessDenied', "an error message of a server"),
        (bytes(range(200, 256)), "not an image of a known format"),
    ],
)
def test_a_source_that_is_no_image_is_named_for_what_it_is(tmp_path: Path, data: bytes, words: str) -> None:
    (tmp_path / "named by mistake").write_bytes(data)
    ((_, reason),) = reasons(scanned(open_source(tmp_path / "named by mistake"))).items()
    assert words in reason and "\n" not in reason


def test_a_link_as_the_source_itself_is_followed(tmp_path: Path) -> None:
    real = write_photo(tmp_path / "real" / "a.jpg")
    (tmp_path / "folder").symlink_to(real.parent)
    (tmp_path / "file.jpg").symlink_to(real)
    for link in ("folder", "file.jpg"):
        source = open_source(tmp_path / link)
        assert source.root == str(real.parent.resolve())
        assert paths(scanned(source)) == ["a.jpg"]


def test_bad_sources_are_refused_in_one_line(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    for path, words in (
        (tmp_path / "gone", "no such file"),
        (tmp_path / "fifo", "neither a folder nor a file but a FIFO"),
        (Path("/dev/null"), "a device"),
        (Path("nul\0byte"), "null"),
    ):
        with pytest.raises(SourceError, match=words) as caught:
            open_source(path)
        assert "\n" not in str(caught.value)
    with pytest.raises(SourceError, match="no such file"):
        scanned(reopen_source("default", str(tmp_path / "gone")))


@pytest.mark.parametrize("name", ["", "a/b", "/", "a::b", "new\nline", "\x00", "100%", "\x7f", "bad\udcff", ":a"])
def test_names_that_cannot_stand_in_an_id(name: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot name a source"):
        open_source(tmp_path, name)
    with pytest.raises(UsageError, match="cannot name a source"):
        reopen_source(name, str(tmp_path))


@pytest.mark.parametrize("name", ["default", "my photos", "caf\u00e9", "-x", "a:b", ".hidden"])
def test_names_that_can(name: str, tmp_path: Path) -> None:
    check_name(name)
    write_photo(tmp_path / "a.jpg")
    assert [image.id for image in scanned(open_source(tmp_path, name)).images] == [f"{name}/a.jpg"]


@pytest.mark.parametrize(
    "image_id",
    [
        "default/../private.jpg",
        "default/inside/../../private.jpg",
        "default//private.jpg",
        "default/./a.jpg",
        "default/a.jpg/",
        "default/link.jpg",
        "default/linked/private.jpg",
        "default/%2E%2E/private.jpg",
        "default/%61.jpg",
        "default/a%2fb.jpg",
        "default/a%00.jpg",
        "default/a\n.jpg",
        "default/\ud800.jpg",
        "default/",
        "default",
        "other/a.jpg",
        "",
    ],
)
def test_no_id_leads_out_of_the_root(image_id: str, tmp_path: Path) -> None:
    root = tmp_path / "root"
    write_photo(root / "a.jpg")
    private = write_photo(tmp_path / "private.jpg")
    (root / "inside").mkdir()
    (root / "link.jpg").symlink_to(private)
    (root / "linked").symlink_to(tmp_path)
    with pytest.raises(SourceError):
        open_source(root).read(image_id)


def test_a_name_that_only_begins_like_the_roots_is_outside(tmp_path: Path) -> None:
    (tmp_path / "root").mkdir()
    sibling = write_photo(tmp_path / "root-sibling" / "private.jpg")
    (tmp_path / "root" / "link.jpg").symlink_to(sibling)
    source = open_source(tmp_path / "root")
    assert list(reasons(scanned(source))) == ["link.jpg"]
    with pytest.raises(SourceError, match="leads out"):
        source.read("default/link.jpg")


def test_reading_passes_the_systems_errors_and_opens_no_fifo(tmp_path: Path) -> None:
    source = open_source(tmp_path)
    with pytest.raises(FileNotFoundError):
        source.read("default/gone.jpg")
    os.mkfifo(tmp_path / "swapped.jpg")
    with pytest.raises(ImageRejected, match="not a file but a FIFO"):
        source.read("default/swapped.jpg")
    (tmp_path / "folder.jpg").mkdir()
    with pytest.raises((ImageRejected, IsADirectoryError)):
        source.read("default/folder.jpg")


def test_a_socket_is_told_from_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # a socket's path may not be long
    with socket.socket(socket.AF_UNIX) as server:
        server.bind("socket.jpg")
        assert reasons(scanned(open_source(tmp_path))) == {"socket.jpg": "not a file but a socket"}


def test_a_file_too_large_to_read_whole_is_rejected_from_its_size(tmp_path: Path) -> None:
    path = write_photo(tmp_path / "large.jpg")
    os.truncate(path, folder.MAX_FILE_BYTES + 1)  # sparse
    source = open_source(tmp_path)
    assert reasons(scanned(source)) == {"large.jpg": "2,147,483,649 bytes, more than the 2,147,483,648 allowed"}
    with pytest.raises(ImageRejected, match="more than"):
        source.read("default/large.jpg")


def failing(real: Callable[..., object], part: bytes, error: OSError) -> Callable[..., object]:
    def call(path: object, *args: object, **options: object) -> object:
        if isinstance(path, bytes) and path.endswith(part):
            raise error
        return real(path, *args, **options)

    return call


def test_permission_denied_costs_nobody_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("good.jpg", "closed.jpg", "closed folder/a.jpg", "weak disk.jpg"):
        write_photo(tmp_path / name)
    source = open_source(tmp_path)
    denied, broken = PermissionError(errno.EPERM, "Operation not permitted"), OSError(errno.EIO, "Input/output error")
    monkeypatch.setattr(folder.os, "open", failing(os.open, b"closed.jpg", denied))
    monkeypatch.setattr(folder.os, "scandir", failing(os.scandir, b"closed folder", denied))
    monkeypatch.setattr(folder.os, "stat", failing(os.stat, b"weak disk.jpg", broken))
    scan = scanned(source)
    assert paths(scan) == ["good.jpg"]
    assert reasons(scan) == {
        "closed.jpg": "permission denied",
        "closed folder/": "permission denied",
        "weak disk.jpg": "input/output error",
    }
    with pytest.raises(PermissionError):
        source.read("default/closed.jpg")


def test_links_between_folders_end(tmp_path: Path) -> None:
    write_photo(tmp_path / "a" / "one.jpg")
    write_photo(tmp_path / "b" / "two.jpg")
    (tmp_path / "a" / "to b").symlink_to(tmp_path / "b")
    (tmp_path / "b" / "to a").symlink_to("../a")
    (tmp_path / "b" / "up.jpg").symlink_to("..")
    scan = scanned(open_source(tmp_path))
    assert paths(scan) == ["a/one.jpg", "b/two.jpg"]
    assert scan.rejected == () and scan.skipped_other == 3


def test_folders_may_be_deeper_than_pythons_recursion(tmp_path: Path) -> None:
    down = write_photo(tmp_path / ("d/" * 400) / "down.jpg")
    source = open_source(tmp_path)
    limit = sys.getrecursionlimit()
    sys.setrecursionlimit(len(inspect.stack(0)) + 200)
    try:
        scan = scanned(source)
    finally:
        sys.setrecursionlimit(limit)
    assert paths(scan) == ["d/" * 400 + "down.jpg"]
    assert source.read(scan.images[0].id) == down.read_bytes()


def test_real_photos_are_all_there() -> None:
    if not PHOTOS.is_dir():
        pytest.skip("no ../shared/photos")
    source = open_source(PHOTOS)
    scan = scanned(source)
    assert paths(scan) == sorted(path.name for path in PHOTOS.iterdir())
    assert scan.rejected == ()
    assert source.read("default/rgba_demo1.png") == (PHOTOS / "rgba_demo1.png").read_bytes()


@settings(deadline=None)
@given(st.binary(max_size=40))
def test_any_bytes_go_into_an_id_and_back(path: bytes) -> None:
    encoded_path = encode_path(path)
    assert decode_path(encoded_path) == path
    assert "::" not in encoded_path
    encoded_path.encode("utf-8")  # no lone surrogate is left
    assert not any(ord(letter) < 32 or 127 <= ord(letter) < 160 for letter in encoded_path)


@settings(deadline=None)
@given(st.text(alphabet="a:%/\udcff\u202e\n\u00e9", max_size=12))
def test_names_as_the_system_gives_them_go_into_an_id_and_back(path: str) -> None:
    assert encode_path(path) == encode_path(os.fsencode(path))
    assert os.fsdecode(decode_path(encode_path(path))) == path
    member = f"archive.tar{encode_path(path)}::{encode_path(path)}"
    assert member.split("::") == [f"archive.tar{encode_path(path)}", encode_path(path)]


def test_what_is_encoded_and_what_is_not() -> None:
    assert encode_path(b"a b/\xc3\xa9'\"*~.jpg") == "a b/\u00e9'\"*~.jpg"
    assert encode_path("cafe\u0301") != encode_path("caf\u00e9")
    assert encode_path("50%::x:y\udcff\n:") == "50%25%3A%3Ax:y%FF%0A%3A"
    assert split_id("default/a/b.jpg", "default") == "a/b.jpg"
