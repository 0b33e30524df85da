"""Folders of frames as clips: what ``--sequence`` tells a store, and that it changes no label."""

from pathlib import Path

import pytest
from labelled import decided_bytes, label, write_photo

import depthsieve
from depthsieve.core.errors import UsageError
from depthsieve.store import open_store


def test_a_sequence_is_remembered_changes_no_label_and_can_be_taken_back(tmp_path: Path, light: str) -> None:
    for number in (9, 10, 1):
        write_photo(tmp_path / "photos" / "run" / f"frame{number}.png", 120, 90, seed=number)
    write_photo(tmp_path / "photos" / "still.png", 120, 90, seed=0)
    store = tmp_path / "store"
    label(tmp_path / "photos", store, light)
    assert (open_store(store).sequences(), open_store(store).clips()) == (frozenset(), {})
    before = decided_bytes(store)

    summary = label(tmp_path / "photos", store, light, sequence=True)
    assert (summary.planned_now, summary.labelled_now) == (0, 0)
    assert before.items() <= decided_bytes(store).items()
    clips = {"default": ["default/still.png"], "default/run": [f"default/run/frame{n}.png" for n in (1, 9, 10)]}
    assert open_store(store).clips() == clips

    label(tmp_path / "photos", store, light)
    assert open_store(store).clips() == clips and len(open_store(store).generations()) == 2
    write_photo(tmp_path / "photos" / "run" / "frame2.png", 120, 90, seed=2)
    assert label(tmp_path / "photos", store, light).labelled_now == 1
    clips["default/run"].insert(1, "default/run/frame2.png")
    assert open_store(store).clips() == clips and len(open_store(store).generations()) == 3
    depthsieve.plan(tmp_path / "photos", store, sequence=False, write=True, trial=False, progress=False)
    assert open_store(store).clips() == {}
    with pytest.raises(UsageError, match="a part adds nothing to the plan: say sequence to"):
        label(tmp_path / "photos", store, light, sequence=False, part="1/2")


def test_a_new_store_has_the_bytes_of_one_without(tmp_path: Path, light: str) -> None:
    write_photo(tmp_path / "photos" / "1.png", 120, 90, seed=1)
    for name, sequence in (("with", True), ("without", None)):
        label(tmp_path / "photos", tmp_path / name, light, sequence=sequence)
    record = "commits/generation-0000.json"
    with_it, without = (decided_bytes(tmp_path / name) for name in ("with", "without"))
    assert {name for name in with_it | without if with_it.get(name) != without.get(name)} == {record}
    assert "sequences" not in (tmp_path / "without" / record).read_text()
