"""Which labels a dataset serves, and how it learns of them: from the index that was written, or from the plans."""

import hashlib
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from storemaker import Picture, make_store, pictures

from depthsieve.core.errors import LoaderError
from depthsieve.core.records import seal
from depthsieve.store import Store, open_store, schema
from depthsieve.store.create import write_index
from depthsieve.store.index import read_index
from depthsieve.training.selection import Selection, select

SHAPES = {(28, 28): 5, (28, 42): 4, (42, 28): 2}


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """11 pictures in 5 shards; one failed."""
    images = pictures(SHAPES)
    images[3] = Picture("3.png", (56, 56), (28, 28), failed=True)
    return make_store(tmp_path, images)


@pytest.fixture
def growing(tmp_path: Path) -> Store:
    """The last shard is pending, one image failed, one was refused."""
    images = [Picture(f"{n}.png", (56, 56), (28, 28), failed=n == 1, pending=n > 5) for n in range(8)]
    return make_store(tmp_path, images, rejected=["none.png"])


def told(selection: Selection) -> tuple[object, ...]:
    entries = [selection[index] for index in range(len(selection))]
    return entries, selection.snapshot, selection.digest, selection.images_of_shards(), selection.shards


def test_the_written_index_tells_what_the_plans_do(growing: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    subset = ["default/0.png", "default/5.png"]
    expected = [told(select(growing, one)) for one in (None, subset)]
    assert expected[0][3] == {"0000-000000": 2, "0000-000001": 3}
    write_index(growing)
    monkeypatch.setattr(Store, "index", lambda store, **_: pytest.fail("the plans were read"))
    assert [told(select(open_store(growing.path), one)) for one in (None, subset)] == expected
    found = read_index(growing, growing.snapshot(), ["id", "status"], "failed")
    assert found is not None and found.to_pydict() == {"id": ["default/1.png"], "status": ["failed"]}


@pytest.mark.parametrize(
    "fault", ["none", "record", "old", "flip", "short", "other rows", "no parquet", "other columns"]
)
def test_an_index_that_does_not_fit_is_not_believed(growing: Store, fault: str) -> None:
    expected = told(select(growing, None))
    write_index(growing)
    index, record = growing.path / schema.INDEX, growing.path / schema.INDEX_RECORD
    data = index.read_bytes()
    if fault == "none":
        index.unlink()
    elif fault == "record":
        record.write_bytes(record.read_bytes().replace(b"bytes", b"bites"))
    elif fault == "old":
        (last,) = growing.path.glob("commits/0000-000001.json")
        last.unlink()
        expected = told(select(growing, None))
        assert expected[3] == {"0000-000000": 2}
    elif fault == "flip":
        index.write_bytes(data[:99] + bytes([data[99] ^ 1]) + data[100:])
    elif fault == "short":
        index.write_bytes(data[:-1])
    elif fault == "other rows":
        pq.write_table(pq.read_table(index)[1:], index)
    else:
        body = json.loads(record.read_text()) | {"sha256": hashlib.sha256(b"junk").hexdigest()}
        index.write_bytes(b"junk")
        if fault == "other columns":
            pq.write_table(pa.table({"id": ["x"]}), index)
            body["sha256"] = hashlib.sha256(index.read_bytes()).hexdigest()
        record.write_bytes(seal(body))
    assert read_index(growing, growing.snapshot(), ["id", "shard"], "labelled") is None
    assert told(select(open_store(growing.path), None)) == expected


@pytest.mark.parametrize("written", [False, True])
def test_a_store_without_a_label_says_how_its_images_stand(tmp_path: Path, written: bool) -> None:
    store = make_store(tmp_path, [Picture("a.png", (56, 56), (28, 28), pending=True)], rejected=["b.png"])
    if written:
        write_index(store)
    with pytest.raises(
        LoaderError, match=r"no labelled image \(1 pending, 1 rejected\); label images first: `depthsieve label`"
    ):
        select(store, None)


def test_a_selection_tells_where_labels_lie(store: Store) -> None:
    selection = select(store, None)
    ids = sorted(f"default/{n}.png" for n in range(11) if n != 3)
    assert selection.ids == ids and len(selection) == 10
    assert selection.digest == hashlib.sha256("".join(f"{one}\n" for one in ids).encode()).hexdigest()
    entry = selection[ids.index("default/7.png")]
    assert (entry.id, entry.shard, entry.row) == ("default/7.png", "0000-000002", 2)
    assert (entry.label_shape, entry.source_shape) == ((28, 42), (56, 84))
    assert entry.source_size == (store.path.parent / "images" / "7.png").stat().st_size
    assert selection.images_of_shards() == {f"0000-{n:06d}": count for n, count in enumerate((3, 1, 3, 1, 2))}
    rows = {selection.shards[shard]: sorted(row.tolist()) for shard, row in selection.rows_of_shards()}
    expected = {"0": [0, 1, 2], "1": [1], "2": [0, 1, 2], "3": [0], "4": [0, 1]}
    assert rows == {f"0000-00000{shard}": row for shard, row in expected.items()}
    assert selection.label_shapes().tolist() == [list(selection[n].label_shape) for n in range(10)]


def test_sources_are_found_without_a_look_at_every_id(store: Store) -> None:
    table = store.index().filter(pc.field("status") == "labelled")
    names = ["a", "a", "a b", "a.b", "a0", "b", "b", "b-", "ä", "ä"]
    ids = sorted(f"{name}/{number}/x.png" for number, name in enumerate(names))
    selection = Selection(table.set_column(0, "id", [ids]), "snapshot")
    assert selection.source_names == sorted(set(names))
