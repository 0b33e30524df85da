"""Archives that mean harm: names, links, lies about sizes, bombs, and no end of members."""

import io
import os
import struct
import tarfile
import tracemalloc
import zipfile
import zlib
from pathlib import Path

import pytest
from hostile import encoded, photo
from packing import pack_tar, pack_zip, pax_member, raw_zip, tar_header, tar_member
from scanned import Scanned, scanned

from depthsieve.core.errors import ImageRejected, SourceError
from depthsieve.images.decode import decode
from depthsieve.sources import Passed, open_source
from depthsieve.sources.containers import zip as zip_source

JPEG = encoded(photo(), "JPEG")
END = b"\0" * 1024


def scan_of(tmp_path: Path, name: str, data: bytes) -> tuple[list[str], dict[str, str], Scanned]:
    """The places of images, the reasons of rejects by place ("" is the archive itself), and the scan."""
    (tmp_path / name).write_bytes(data)
    source = open_source(tmp_path / name)
    scan = scanned(source)
    for image in scan.images:
        assert decode(source.read(image.id)).rgb_HW3.shape == (48, 64, 3)
    rejected = {one.id.partition(name)[2].removeprefix("::"): one.reason for one in scan.rejected}
    return [image.id.partition("::")[2] for image in scan.images], rejected, scan


def test_names_in_a_tar_are_data(tmp_path: Path) -> None:
    names = {
        b"../../up.jpg": None,
        b"/etc/absolute.jpg": "etc/absolute.jpg",
        b"./here.jpg": "here.jpg",
        b"a//b/./c.jpg": "a/b/c.jpg",
        b"new\nline.jpg": "new%0Aline.jpg",
        b"not\xffutf8.jpg": "not%FFutf8.jpg",
        b"two::parts.jpg": "two%3A%3Aparts.jpg",
        b"50%.jpg": "50%25.jpg",
        b"-rf.jpg": "-rf.jpg",
        b"right\xe2\x80\xaegpj.jpg": "right%E2%80%AEgpj.jpg",
        b"back\\..\\slash.jpg": "back\\..\\slash.jpg",
        b".hidden.jpg": None,
        b"dir/._mac.jpg": None,
        b"words.txt": None,
    }
    data = b"".join(tar_member(name, JPEG) for name in names) + END
    places, rejected, scan = scan_of(tmp_path, "a.tar", data)
    assert places == sorted(name for name in names.values() if name)
    assert rejected == {"../../up.jpg": "its name leads out of the archive"}
    assert (scan.skipped_hidden, scan.skipped_other) == (2, 1)


def test_names_in_a_zip_are_data(tmp_path: Path) -> None:
    names = [
        b"../up.jpg",
        b"/abs.jpg",
        b"new\nline.jpg",
        b"\xffcp437.jpg",
        b"a::b.jpg",
        b"dir/",
        b"dir.jpg/",
        b".h.jpg",
    ]
    places, rejected, scan = scan_of(tmp_path, "a.zip", raw_zip([(name, JPEG, {}) for name in names]))
    assert places == ["%FFcp437.jpg", "a%3A%3Ab.jpg", "abs.jpg", "new%0Aline.jpg"]
    assert rejected == {"../up.jpg": "its name leads out of the archive"}
    assert scan.skipped_hidden == 1


def test_links_and_devices_in_archives_lead_nowhere(tmp_path: Path) -> None:
    (tmp_path / "private.jpg").write_bytes(JPEG)
    kinds = {b"1": "hard", b"2": "soft", b"3": "char", b"4": "block", b"6": "fifo"}
    data = b"".join(
        tar_header(f"{name}.jpg".encode(), 4096, kind, str(tmp_path / "private.jpg").encode())
        for kind, name in kinds.items()
    )
    places, rejected, _ = scan_of(tmp_path, "a.tar", data + tar_member(b"good.jpg", JPEG) + END)
    assert places == ["good.jpg"] and sorted(rejected) == sorted(f"{name}.jpg" for name in kinds.values())
    assert all("in an archive, which is not followed" in reason for reason in rejected.values())
    link = (b"l.jpg", b"../private.jpg", {"attributes": 0o120777 << 16})
    places, rejected, _ = scan_of(tmp_path, "a.zip", raw_zip([link, (b"good.jpg", JPEG, {})]))
    assert places == ["good.jpg"] and list(rejected) == ["l.jpg"] and "not followed" in rejected["l.jpg"]


def test_of_members_of_one_name_the_last_counts(tmp_path: Path) -> None:
    small = encoded(photo(64, 48), "PNG")
    members = [(b"b.jpg", JPEG), (b"a.jpg", b"junk"), (b"c.jpg", JPEG), (b"./a.jpg", small)]
    tar = b"".join(tar_member(*member) for member in members) + END
    for name, data in (("a.tar", tar), ("a.zip", raw_zip([(*member, {}) for member in members]))):
        places, rejected, scan = scan_of(tmp_path, name, data)
        assert (places, rejected, scan.skipped_other) == (["a.jpg", "b.jpg", "c.jpg"], {}, 1)
        assert open_source(tmp_path / name).read(f"default/{name}::a.jpg") == small
        assert scan.images[0].size == len(small)


@pytest.mark.parametrize(
    ("size", "words"),
    [
        (b"77777777777\0", "the archive ends within it"),
        (b"\x80" + (2**50).to_bytes(11, "big"), "the archive ends within it"),
        (b"\x80" + b"\xff" * 11, "without a size that can be"),
        (b"\xff" * 12, "without a size that can be"),
        (b"99999999999\0", "without a size that can be"),
        (b"-1         \0", "without a size that can be"),
    ],
)
def test_a_tar_that_lies_about_a_size(tmp_path: Path, size: bytes, words: str) -> None:
    data = tar_member(b"good.jpg", JPEG) + tar_header(b"liar.jpg", size) + JPEG + END
    places, rejected, _ = scan_of(tmp_path, "a.tar", data)
    assert places == ["good.jpg"] and any(words in reason for reason in rejected.values())


def test_a_tar_that_is_cut_off_or_scribbled_over_keeps_what_stands_before(tmp_path: Path) -> None:
    whole = tar_member(b"a.jpg", JPEG) + tar_member(b"b.jpg", JPEG)
    for data, reason in (
        (whole[:-600], {"b.jpg": "the archive ends within it", "": "a truncated tar archive"}),
        (whole + b"x" * 512, {"": "a broken tar archive, from byte"}),
        (whole + tar_header(b"c.jpg")[:300], {"": "a broken tar archive, from byte"}),
    ):
        places, rejected, _ = scan_of(tmp_path, "a.tar", data)
        assert places[0] == "a.jpg"
        for place, words in rejected.items():
            assert reason[place] in words
        assert "" in rejected or "b.jpg" in rejected


@pytest.mark.parametrize("kind", [b"L", b"K", b"x", b"X"])
@pytest.mark.parametrize("cut", [0, 1, 511, -512], ids=["whole", "less a byte", "less a block", "zeros follow"])
def test_a_tar_that_ends_behind_an_extended_header_is_cut_off(tmp_path: Path, kind: bytes, cut: int) -> None:
    extended = tar_member(b"extended", b"15 path=b.jpg\n\n", kind)
    data = extended[: len(extended) - cut] if cut >= 0 else extended + b"\0" * -cut
    places, rejected, _ = scan_of(tmp_path, "a.tar", tar_member(b"a.jpg", JPEG) + data)
    assert places == ["a.jpg"] and "a truncated tar archive: it ends before the member" in rejected[""]


def test_extended_headers_of_a_tar(tmp_path: Path) -> None:
    name = "deep/" * 40 + "a.jpg"
    data = pax_member({"path": name, "mtime": "1.5"}) + tar_member(b"short.jpg", JPEG)
    data += pax_member({"size": str(len(JPEG))}) + tar_header(b"b.jpg", 0) + JPEG + b"\0" * (-len(JPEG) % 512)
    data += tar_member(b"pax", b"99999 path=evil\n", b"x") + tar_member(b"c.jpg", JPEG)
    data += tar_member(b"pax", b"19 comment=global\n\n", b"g") + tar_member(b"d.jpg", JPEG)
    data += pax_member({"GNU.sparse.major": "1", "GNU.sparse.name": "x"}) + tar_member(b"e.jpg", JPEG)
    data += tar_member(b"long", ("n" * 300 + ".jpg\0").encode(), b"L") + tar_member(b"cut", JPEG)
    data += tar_member(b"././@LongLink", b"some/target\0", b"K") + tar_member(b"f.jpg", JPEG)
    places, rejected, _ = scan_of(tmp_path, "a.tar", data + END)
    assert places == ["b.jpg", "c.jpg", "d.jpg", name, "f.jpg", "n" * 300 + ".jpg"]
    assert list(rejected) == ["e.jpg"] and "sparse" in rejected["e.jpg"]
    _, rejected, _ = scan_of(tmp_path, "b.tar", tar_header(b"long", b"\x80" + (2**40).to_bytes(11, "big"), b"L"))
    assert "a name of 1,099,511,627,776 bytes" in rejected[""]


def test_an_old_sparse_member_is_refused_and_what_follows_is_found(tmp_path: Path) -> None:
    head = bytearray(tar_header(b"sparse.jpg", 512, b"S"))
    head[482] = 1
    head[148:156] = b" " * 8
    head[148:156] = b"%06o\0 " % sum(head)
    more = bytearray(512)
    more[504] = 1
    data = bytes(head) + bytes(more) + b"\0" * 512 + b"x" * 512 + tar_member(b"good.jpg", JPEG) + END
    places, rejected, _ = scan_of(tmp_path, "a.tar", data)
    assert places == ["good.jpg"] and "sparse" in rejected["sparse.jpg"]


@pytest.mark.parametrize(("mode", "tool"), [("gz", "gzip -d"), ("bz2", "bzip2 -d"), ("xz", "xz -d")])
def test_a_compressed_tar_is_refused_with_the_remedy(tmp_path: Path, mode: str, tool: str) -> None:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=f"w:{mode}") as archive:  # type: ignore[call-overload]
        archive.addfile(tarfile.TarInfo("a.jpg"))
    places, rejected, _ = scan_of(tmp_path, "a.tar", buffer.getvalue())
    assert places == [] and f"unpack it with `{tool}`" in rejected[""]


def test_members_of_a_zip_that_cannot_be_read_are_refused_by_name(tmp_path: Path) -> None:
    entries = [
        (b"encrypted.jpg", JPEG, {"flags": 1}),
        (b"lzma.jpg", JPEG, {"method": 14}),
        (b"two sizes.jpg", JPEG, {"size": 10}),
        (b"nowhere.jpg", JPEG, {"offset": 2**31}),
        (b"huge.jpg", JPEG, {"size": 3 * 2**30, "packed": 3 * 2**30}),
        (b"not deflated.jpg", JPEG, {"method": 8}),
        (b"good.jpg", JPEG, {}),
    ]
    places, rejected, _ = scan_of(tmp_path, "a.zip", raw_zip(entries))
    assert places == ["good.jpg"]
    words = {"encrypted": "encrypted", "lzma": "method 14", "two sizes": "two sizes", "nowhere": "points to no member",
             "huge": "more than the", "not deflated": "cannot be unpacked"}  # fmt: skip
    assert {place.removesuffix(".jpg") for place in rejected} == set(words)
    for place, reason in rejected.items():
        assert words[place.removesuffix(".jpg")] in reason


def test_a_wrong_checksum_in_a_zip_is_found_when_it_is_read(tmp_path: Path) -> None:
    (tmp_path / "a.zip").write_bytes(raw_zip([(b"a.jpg", JPEG, {"crc": 5})]))
    source = open_source(tmp_path / "a.zip")
    assert len(scanned(source).images) == 1
    with pytest.raises(ImageRejected, match="not what the archive's directory declares"):
        source.read("default/a.zip::a.jpg")


def test_zip_bombs_take_no_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    zeros = b"BM" + bytes(60_000_000)
    with zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("bomb.bmp", zeros)
    data = (tmp_path / "a.zip").read_bytes().replace(struct.pack("<I", len(zeros)), struct.pack("<I", 1000))
    (tmp_path / "liar.zip").write_bytes(data)  # declares 1,000 bytes, and unpacks to 60 million
    monkeypatch.setattr(zip_source, "MAX_DEFLATED_BYTES", 10_000_000)
    for name, words in (("a.zip", "more than the 10,000,000 allowed"), ("liar.zip", "not what the archive's")):
        source = open_source(tmp_path / name)
        tracemalloc.start()
        scan = scanned(source)
        with pytest.raises(ImageRejected, match=words):
            source.read(f"default/{name}::bomb.bmp")
        assert tracemalloc.get_traced_memory()[1] < 8_000_000
        tracemalloc.stop()
        assert scan.images == ()


def test_overlapping_members_of_a_zip_are_refused(tmp_path: Path) -> None:
    """The quoted kernel of a modern zip bomb: many names for one stretch of data."""
    deflated = zlib.compress(bytes(10**6))[2:-4]
    kernel = {"method": 8, "size": 10**6, "packed": len(deflated), "crc": zlib.crc32(bytes(10**6))}
    entries = [(b"good.jpg", JPEG, {}), (b"0.bmp", deflated, kernel)]
    entries += [(f"{n}.bmp".encode(), b"", {**kernel, "offset": 30 + 8 + len(JPEG)}) for n in range(1, 50)]
    places, rejected, _ = scan_of(tmp_path, "a.zip", raw_zip(entries))
    assert places == ["good.jpg"] and len(rejected) == 50
    assert all("overlaps another member" in reason for reason in rejected.values())


@pytest.mark.parametrize(
    "lie", [{"count": 60_000}, {"bytes": 2**31}, {"offset": 2**31}, {"count": 0xFFFF}, {"offset": 0xFFFFFFFF}]
)
def test_a_zip_directory_that_lies(tmp_path: Path, lie: dict[str, int]) -> None:
    places, rejected, _ = scan_of(tmp_path, "a.zip", raw_zip([(b"a.jpg", JPEG, {})], lie))
    assert places == [] and "zip archive" in rejected[""]


def test_zip64_and_what_stands_before_an_archive_are_understood(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        for number in range(66_000):
            archive.writestr(f"{number}.txt", b"")
        with archive.open("a.jpg", "w", force_zip64=True) as file:
            file.write(JPEG)
    source = open_source(tmp_path / "a.zip")
    scan = scanned(source)
    assert len(scan.images) == 1 and scan.skipped_other == 66_000
    assert source.read("default/a.zip::a.jpg") == JPEG
    small = pack_zip(tmp_path / "b.zip", {"a.jpg": JPEG}).read_bytes()
    places, rejected, _ = scan_of(tmp_path, "c.zip", b"#!/bin/sh\n" * 100 + small)
    assert (places, rejected) == (["a.jpg"], {})


def peak_of_listing(path: Path) -> tuple[int, int]:
    """How many images are listed, and the bytes of memory that listing takes at most."""
    source = open_source(path)
    tracemalloc.start()
    listed = sum(1 for _ in source.listing(Passed()))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return listed, peak


def test_no_end_of_empty_members_in_bounded_memory(tmp_path: Path) -> None:
    blocks = b"".join(tar_header(b"%d.jpg" % number) for number in range(2000))
    (tmp_path / "few.tar").write_bytes(blocks)
    listed, peak = peak_of_listing(tmp_path / "few.tar")
    assert listed == 2000 and peak < 1_000_000
    with (tmp_path / "a.tar").open("wb") as file:
        for _ in range(100):
            file.write(blocks)
    source = open_source(tmp_path / "a.tar")
    passed = Passed()
    assert (sum(1 for _ in source.listing(passed)), passed.other) == (2000, 198_000)  # of one name the last counts
    with pytest.raises(SourceError):
        source.read("default/a.tar::nothing.jpg")
    assert source.read("default/a.tar::1999.jpg") == b""


def test_no_end_of_entries_in_a_zip_in_bounded_memory(tmp_path: Path) -> None:
    (tmp_path / "a.zip").write_bytes(raw_zip([(b"%d.jpg" % number, b"", {}) for number in range(5_000)]))
    listed, peak = peak_of_listing(tmp_path / "a.zip")
    assert listed == 5_000 and peak < 2_500_000 + 150 * 5_000


def test_an_archive_in_an_archive_is_not_opened(tmp_path: Path) -> None:
    inner = pack_tar(tmp_path / "inner.tar", {"a.jpg": JPEG}).read_bytes()
    _, rejected, scan = scan_of(tmp_path, "outer.tar", tar_member(b"inner.tar", inner) + END)
    assert (scan.images, rejected, scan.skipped_other) == ((), {}, 1)


def test_an_archive_swapped_while_it_is_open_gives_no_bytes_of_the_wrong_place(tmp_path: Path) -> None:
    path = pack_tar(tmp_path / "a.tar", {"a.jpg": JPEG, "b.jpg": b"b" * 5000})
    source = open_source(path)
    assert source.read("default/a.tar::b.jpg") == b"b" * 5000
    pack_tar(tmp_path / "new.tar", {"0.txt": b"x" * 9000, "b.jpg": b"n" * 5000}).replace(path)
    assert source.read("default/a.tar::b.jpg") == b"n" * 5000
    with pytest.raises(SourceError):
        source.read("default/a.tar::a.jpg")
    path.unlink()
    with pytest.raises(FileNotFoundError):
        source.read("default/a.tar::b.jpg")


def test_archives_that_were_joined_are_read_to_their_end(tmp_path: Path) -> None:
    """`cat a.tar b.tar`, which `tar -i` reads."""
    one, two = (tar_member(name, JPEG) + END for name in (b"a.jpg", b"b.jpg"))
    for between in (b"", b"\0" * 10_240, b"\0" * (3 << 20)):
        places, rejected, _ = scan_of(tmp_path, "a.tar", one + between + two + b"\0" * 2048)
        assert (places, rejected) == (["a.jpg", "b.jpg"], {})
    places, rejected, _ = scan_of(tmp_path, "a.tar", one + b"what some tapes have behind it".ljust(512, b"!"))
    assert (places, rejected) == (["a.jpg"], {})
    places, rejected, _ = scan_of(tmp_path, "a.tar", one + two[:700])
    assert places == ["a.jpg"] and "ends within it" in rejected["b.jpg"]


def test_a_hole_behind_an_archive_costs_no_time(tmp_path: Path) -> None:
    path = tmp_path / "a.tar"
    path.write_bytes(tar_member(b"a.jpg", JPEG) + END)
    os.truncate(path, 1 << 42)
    assert [image.id for image in scanned(open_source(path)).images] == ["default/a.tar::a.jpg"]


def test_the_rest_of_a_member_from_another_volume_is_named(tmp_path: Path) -> None:
    data = tar_member(b"a.jpg", JPEG, b"M") + tar_member(b"b.jpg", JPEG) + END
    places, rejected, _ = scan_of(tmp_path, "a.tar", data)
    assert places == ["b.jpg"] and "begins in another volume" in rejected["a.jpg"]


def test_a_zip_behind_another_one_is_not_all(tmp_path: Path) -> None:
    one, two = (pack_zip(tmp_path / "x.zip", {name: JPEG}).read_bytes() for name in ("a.jpg", "b.jpg"))
    places, rejected, _ = scan_of(tmp_path, "a.zip", one + two)
    assert places == ["b.jpg"] and "another zip archive stands before" in rejected[""]
    places, rejected, _ = scan_of(tmp_path, "a.zip", b"#!/bin/sh\nexit\n" + two)  # one that unpacks itself
    assert (places, rejected) == (["b.jpg"], {})
