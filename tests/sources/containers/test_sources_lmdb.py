"""LMDB databases as containers: by the contract of all of them, and against what LMDB's own library reads."""

import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import lmdb
import numpy as np
import pytest
from scanned import scanned
from test_sources_containers import FILES, PHOTOS, ContainerContract, ids, looked_at, reasons

from depthsieve.core.errors import ImageRejected, SourceError
from depthsieve.sources import Passed, open_source
from depthsieve.sources.containers.lmdb import LmdbContainer
from depthsieve.sources.containers.protocol import NoImages

PAGE = 4096


def pack_lmdb(path: Path, files: Mapping[bytes, bytes], rounds: int = 1, **options: Any) -> Path:
    """One file with these values, put in ``rounds`` transactions; the later ones write other pages."""
    with lmdb.open(str(path), map_size=1 << 28, subdir=False, lock=False, **options) as database:
        items = list(files.items())
        for part in range(rounds):
            with database.begin(write=True) as transaction:
                for key, data in items[part::rounds]:
                    transaction.put(key, data)
    return path


class TestLmdb(ContainerContract):
    name, places = "all.mdb", list(FILES)

    def pack(self, path: Path, files: Mapping[str, bytes]) -> Path:
        return pack_lmdb(path, {name.encode(): data for name, data in files.items()})


def contents(path: Path) -> dict[bytes, bytes]:
    """What LMDB's own library reads."""
    with lmdb.open(str(path), subdir=False, readonly=True, lock=False) as database, database.begin() as transaction:
        return {bytes(key): bytes(value) for key, value in transaction.cursor()}


def values(count: int) -> dict[bytes, bytes]:
    """Values of no, some and many pages, under keys as LSUN has them, and some others."""
    random = np.random.default_rng(7)
    sizes = [0, 1, 100, 1700, 2100, 4080, 4096, 9000, 70000]
    keys = [random.bytes(20).hex().encode() for _ in range(count)] + [
        b"\0",
        b"a::b",
        b"x/y%",
        b"\xff" * 511,
        b"\xc3\xa4",
    ]
    return {key: random.bytes(sizes[number % len(sizes)]) for number, key in enumerate(keys)}


def test_every_value_is_found_as_the_library_finds_it(tmp_path: Path) -> None:
    made = values(3000)
    path = pack_lmdb(tmp_path / "data.mdb", made, rounds=5)
    with lmdb.open(str(path), map_size=1 << 28, subdir=False, lock=False) as database:
        with database.begin(write=True) as transaction:
            for key in sorted(made)[100:400]:
                transaction.delete(key)
        assert database.stat()["depth"] == 3
    expected = contents(path)
    container = LmdbContainer(str(path).encode())
    members = list(container.members(Passed()))
    assert len(members) == len(expected) == 2705
    assert [member.size for member in members] == [len(expected[key]) for key in sorted(expected)]
    assert [container.read(member.place) for member in members] == [expected[key] for key in sorted(expected)]
    for key in sorted(made)[100:400]:
        with pytest.raises(SourceError, match="no key"):
            container.read(key.hex() if key == b"\0" else key.decode())


@pytest.mark.parametrize("count", [0, 1, 2])
def test_small_databases(tmp_path: Path, count: int) -> None:
    path = pack_lmdb(tmp_path / "data.mdb", {bytes([97 + number]): b"x" for number in range(count)})
    container = LmdbContainer(str(path).encode())
    assert [member.place for member in container.members(Passed())] == ["a", "b"][:count]
    with pytest.raises(SourceError, match="no key 'z'"):
        container.read("z")


def test_lsun_s_folders_are_looked_into_and_what_is_no_image_is_named(tmp_path: Path) -> None:
    for name in ("bedroom_train_lmdb", "tower_train_lmdb"):
        (tmp_path / name).mkdir()
        with lmdb.open(str(tmp_path / name), map_size=1 << 24) as database, database.begin(write=True) as transaction:
            transaction.put(b"0001c44e", FILES["d.webp"])
            transaction.put(b"num-samples", b"1")
    (tmp_path / "access.mdb").write_bytes(b"\0\x01\0\0Standard Jet DB\0" + bytes(9000))
    scan = scanned(open_source(tmp_path, "lsun"))
    places = [f"{name}/data.mdb::" for name in ("bedroom_train_lmdb", "tower_train_lmdb")]
    assert ids(scan) == [f"lsun/{place}0001c44e" for place in places]
    assert list(reasons(scan)) == [f"{place}num-samples" for place in places]
    assert scan.skipped_other == 3  # two locks and another kind of database


def test_another_order_of_keys_is_refused_and_a_database_within_is_named(tmp_path: Path) -> None:
    path = tmp_path / "data.mdb"
    with lmdb.open(str(path), map_size=1 << 24, subdir=False, lock=False, max_dbs=2) as database:
        inner = database.open_db(b"inner")
        with database.begin(write=True) as transaction:
            transaction.put(b"k", b"v", db=inner)
            transaction.put(b"z.jpg", FILES["a.jpg"])
    scan = scanned(open_source(path))
    assert ids(scan) == ["default/data.mdb::z.jpg"]
    assert reasons(scan) == {"data.mdb::inner": "a database within the database, which is not read"}
    data = bytearray(path.read_bytes())
    for meta in (0, PAGE):
        struct.pack_into("<H", data, meta + 16 + 24 + 48 + 4, 4)  # several values a key
    path.write_bytes(data)
    with pytest.raises(ImageRejected, match="several values for one"):
        LmdbContainer(str(path).encode())


def test_the_newest_transaction_counts_and_one_torn_meta_page_costs_nothing(tmp_path: Path) -> None:
    path = pack_lmdb(tmp_path / "data.mdb", {b"a": b"1"})
    pack_lmdb(path, {b"a": b"2", b"b": b"3"})
    assert contents(path) == {b"a": b"2", b"b": b"3"}
    container = LmdbContainer(str(path).encode())
    assert {member.place: container.read(member.place) for member in container.members(Passed())} == {
        "a": b"2",
        "b": b"3",
    }
    whole = path.read_bytes()
    places = []
    for meta in (0, PAGE):
        path.write_bytes(whole[: meta + 10] + bytes(PAGE - 10) + whole[meta + PAGE :])
        try:
            torn = LmdbContainer(str(path).encode())
            places.append([member.place for member in torn.members(Passed())])
        except (NoImages, ImageRejected):
            places.append([])
    assert ["a", "b"] in places


def test_pages_that_go_in_a_circle_or_lie_are_noticed(tmp_path: Path) -> None:
    path = pack_lmdb(tmp_path / "data.mdb", {b"%08d" % number: b"x" * 300 for number in range(200)})
    whole = path.read_bytes()
    for page in range(2, len(whole) // PAGE):
        data = bytearray(whole)
        kind = struct.unpack_from("<H", data, page * PAGE + 10)[0]
        if kind & 1:  # a branch: all that lies below it is the branch itself
            (node,) = struct.unpack_from("<H", data, page * PAGE + 16)
            struct.pack_into("<HH", data, page * PAGE + node, page, 0)
            path.write_bytes(data)
            with pytest.raises(ImageRejected, match="circle"):
                list(LmdbContainer(str(path).encode()).members(Passed()))
            with pytest.raises((ImageRejected, SourceError)):
                LmdbContainer(str(path).encode()).read("00000000")
            break
    else:
        pytest.fail("no branch")


def test_a_value_that_was_cut_off_is_refused_and_the_others_are_read(tmp_path: Path) -> None:
    path = pack_lmdb(tmp_path / "data.mdb", {b"a": b"1" * 100})
    pack_lmdb(path, {b"b": b"2" * 50_000})
    container = LmdbContainer(str(path).encode())
    (_, big) = container._leaves()
    path.write_bytes(path.read_bytes()[: big.offset + 40_000])
    cut = LmdbContainer(str(path).encode())
    with pytest.raises(ImageRejected, match="ends within it"):
        cut.read("b")
    assert cut.read("a") == b"1" * 100


@pytest.mark.parametrize("seed", range(4))
def test_damage_anywhere_is_an_error_of_ours(tmp_path: Path, seed: int) -> None:
    whole = pack_lmdb(tmp_path / "data.mdb", values(60)).read_bytes()
    random = np.random.default_rng(seed)
    for _ in range(60):
        data = bytearray(whole)
        for at in random.integers(0, len(data) // PAGE, 3):  # in heads of pages, where structure is
            data[int(at) * PAGE + int(random.integers(64))] = int(random.integers(256))
        (tmp_path / "data.mdb").write_bytes(data[: int(random.integers(PAGE, len(data) + 1))])
        try:
            container = LmdbContainer(str(tmp_path / "data.mdb").encode())
            for member in container.members(Passed()):
                if member.reason is None:
                    container.read(member.place)
        except (NoImages, ImageRejected, SourceError):
            continue


def test_real_photos_come_out_as_they_are(tmp_path: Path) -> None:
    if not PHOTOS.is_dir():
        pytest.skip("no ../shared/photos")
    files = {path.name.encode(): path.read_bytes() for path in sorted(PHOTOS.iterdir())}
    source = open_source(pack_lmdb(tmp_path / "data.mdb", files))
    assert [source.read(image.id) for image in looked_at(source)] == list(files.values())
