"""A choice among a source's images: what counts is listed, what does not is passed over, refusals are kept apart."""

from pathlib import Path

import pytest
from labelled import write_photo

from depthsieve.errors import SourceError
from depthsieve.records import ImageRecord, RejectedImage
from depthsieve.sources import Passed, open_source
from depthsieve.sources.chosen import ChosenSource


def test_what_counts_is_listed_and_the_rest_is_passed_over(tmp_path: Path) -> None:
    for name in ("a/l_1.png", "a/r_1.png", "b/l_2.png"):
        write_photo(tmp_path / name, 40, 30, seed=1)
    for name in ("a/d_1.exr", "a/l_3.exr", "notes.txt"):
        (tmp_path / name).write_bytes(b"no picture")
    source = ChosenSource(open_source(tmp_path, "irs"), lambda path: "/l_" in path)
    passed = Passed()
    found = sorted(source.listing(passed), key=lambda one: one.id)
    assert [one.id for one in found] == ["irs/a/l_1.png", "irs/a/l_3.exr", "irs/b/l_2.png"]
    assert [isinstance(one, RejectedImage) for one in found] == [False, True, False]
    assert passed == Passed(hidden=0, other=3)
    looked = source.look(found[0])  # type: ignore[arg-type]
    assert isinstance(looked, ImageRecord) and (looked.width, looked.height) == (40, 30)
    assert (source.name, source.root, source.is_one_file, source.is_there()) == ("irs", str(tmp_path), False, True)
    assert source.at_once == open_source(tmp_path, "irs").at_once


def test_what_was_refused_is_told_of_by_a_rule_of_its_own(tmp_path: Path) -> None:
    for name in ("a.exr", "b.exr"):
        (tmp_path / name).write_bytes(b"no picture")
    source = ChosenSource(open_source(tmp_path, "x"), lambda path: False, lambda path: path == "b.exr")
    assert [one.id for one in source.listing(Passed())] == ["x/b.exr"]


def test_reading_knows_no_choice(tmp_path: Path) -> None:
    data = write_photo(tmp_path / "a.png", 40, 30, seed=1).read_bytes()
    source = ChosenSource(open_source(tmp_path, "x"), lambda path: False)
    assert source.read("x/a.png") == data
    with pytest.raises(SourceError):
        source.read("x/../a.png")
