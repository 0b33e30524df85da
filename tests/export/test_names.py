"""Where images go in an output folder: safe on any file system, each its own, and never moved by others."""

import json
import re
import tarfile
import unicodedata
import zipfile
from pathlib import Path

import pytest
from exported import READERS, check_equal, export, labels_of
from hypothesis import given
from hypothesis import strategies as st
from storemaker import Picture, make_store

from depthsieve.core.errors import UsageError
from depthsieve.export.names import Places, safe_path, same_file
from depthsieve.export.to_webdataset import WebDatasetTarget
from depthsieve.sources import encode_path

HOSTILE = (
    "<img src=x onerror=alert(1)>.jpg",
    'quo"te|d?*.jpg',
    "a b/..hidden.jpg",
    ".hidden/a.jpg",
    "-rf.jpg",
    "__init__.jpg",
    "CON/aux.jpg",
    "trailing. /a.jpg",
    "a.JPG",
    "a.jpg",
    unicodedata.normalize("NFC", "é.jpg"),
    unicodedata.normalize("NFD", "é.jpg"),
    "new\nline`.jpg",
    "[link](javascript:alert(1)).jpg",
    "a.jpg.png/b.jpg",
    "x" * 200 + ".jpg",
    "{a..c}.jpg",
    "100%.jpg",
)
"""Names of files, as a disk has them."""


@pytest.mark.parametrize(
    ("image_id", "path"),
    [
        ("default/a b/é.jpg", "default/a b/é.jpg"),
        ("default/a.tar::b/c.jpg", "default/a.tar/b/c.jpg"),
        ("default/f.h5::/images::3", "default/f.h5/images/3"),
        ("default/a%0Ab.jpg", "default/a%0Ab.jpg"),
        ("default/<b>.jpg", "default/%3Cb%3E.jpg"),
        ("default/../../etc/passwd", "default/%2E%2E/%2E%2E/etc/passwd"),
        ("default/.a/con.jpg", "default/%2Ea/%63on.jpg"),
        ("default/a\\b:c.jpg", "default/a%5Cb%3Ac.jpg"),
        ("default//a ", "default/a%20"),
    ],
)
def test_an_id_becomes_a_path(image_id: str, path: str) -> None:
    assert safe_path(image_id) == path


@given(st.text(min_size=1, max_size=300))
def test_any_name_becomes_a_path_that_any_file_system_takes(name: str) -> None:
    path = safe_path(f"default/{encode_path(name)}")
    assert path.startswith("default") and not re.search(r'[<>:"|?*\\\x00-\x1f]', path)
    for part in path.split("/"):
        assert part and len(part.encode()) <= 180 and part[0] not in ".- " and part[-1] not in ". "


@given(st.lists(st.text(alphabet="aA.é\u0301e/", min_size=1, max_size=6), unique=True, max_size=12))
def test_no_two_images_get_one_path_and_later_ones_move_none(names: list[str]) -> None:
    ids = [f"s/{name}" for name in names]
    first = Places()
    given_first = [first.give(one, safe_path(one)) for one in ids[: len(ids) // 2]]
    again = Places(given_first)
    paths = given_first + [again.give(one, safe_path(one)) for one in ids[len(ids) // 2 :]]
    keys = [same_file(path) for path in paths]
    assert len(set(keys)) == len(keys)
    for key in keys:  # a file and a folder of one name cannot be
        assert not any(other.startswith((f"{key}/", f"{key}.png/")) for other in keys)


def test_where_a_reader_knows_one_name_only_both_are_named() -> None:
    places = Places()
    places.give("s/a.jpg", "s/a", renames=False)
    with pytest.raises(UsageError, match=r"s/a\.png would be written as s/a, the same as s/a\.jpg"):
        places.give("s/a.png", "s/a", renames=False)


@pytest.mark.parametrize("target", ["png", "hdf5", "webdataset", "huggingface"])
def test_hostile_names_are_read_back_under_their_ids(target: str, tmp_path: Path) -> None:
    store = make_store(tmp_path, [Picture(name, (14, 14), (14, 14)) for name in HOSTILE])
    summary = export(store, tmp_path / "out", target)
    assert (summary.images, summary.failed) == (len(HOSTILE), ())
    check_equal(READERS[target].read(tmp_path / "out"), labels_of(store), READERS[target])
    paths = [path.relative_to(tmp_path / "out") for path in (tmp_path / "out").rglob("*")]
    names = [path.as_posix() for path in paths if not path.parts[0].startswith(".")]
    assert len({same_file(name) for name in names}) == len(names)
    assert not any(re.search(r'[<>"|?*\\:]', name) for name in names)


def test_a_readme_shows_failed_names_as_text(tmp_path: Path) -> None:
    store = make_store(tmp_path, [Picture(name, (14, 14), (14, 14)) for name in ("<b>`x`.jpg", "b.jpg")])
    (tmp_path / "images" / "<b>`x`.jpg").unlink()
    summary = export(store, tmp_path / "out", "webdataset")
    assert [one.id for one in summary.failed] == ["default/<b>`x`.jpg"]
    assert "\n  - `` default/<b>`x`.jpg ``: `" in (tmp_path / "out" / "README.md").read_text()


def test_keys_of_webdataset_hold_no_dots(tmp_path: Path) -> None:
    store = make_store(tmp_path, [Picture(name, (14, 14), (14, 14)) for name in ("a.b.jpg", "a_b.jpg", "v1.0/a.jpg")])
    export(store, tmp_path / "out", "webdataset")
    with tarfile.open(tmp_path / "out" / "labels-000000.tar") as archive:
        names = archive.getnames()
        assert {(member.mtime, member.uid, member.uname) for member in archive} == {(0, 0, "")}
    assert {name.partition(".")[2] for name in names} == {"jpg", "depth.npy", "reliability.npy", "json"}
    assert len({name.partition(".")[0] for name in names}) == 3 and len(names) == 12
    assert WebDatasetTarget.place(object.__new__(WebDatasetTarget), "__a__/b.jpg") == "%5F_a__/b_jpg"


def test_npz_files_have_no_times(tmp_path: Path) -> None:
    export(make_store(tmp_path, [Picture("a.jpg", (14, 14), (14, 14))]), tmp_path / "out", "npz")
    with zipfile.ZipFile(tmp_path / "out" / "labels" / "default" / "a.jpg.npz") as archive:
        assert {one.filename: one.date_time[0] for one in archive.infolist()} == {
            "depth.npy": 1980,
            "reliability.npy": 1980,
        }


def test_the_id_is_in_the_index(tmp_path: Path) -> None:
    store = make_store(tmp_path, [Picture(name, (14, 14), (14, 14)) for name in ("a.JPG", "a.jpg")])
    export(store, tmp_path / "out", "npy")
    rows = json.loads((tmp_path / "out" / "index.json").read_text())["images"]
    assert [row["id"] for row in rows] == ["default/a.JPG", "default/a.jpg"]
    assert rows[0]["depth"] == "depth/default/a.JPG.npy"
    assert re.fullmatch(r"depth/default/a~[0-9a-f]{8}\.jpg\.npy", rows[1]["depth"])
