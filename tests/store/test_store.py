"""The store under attack: records that are half there or of another store, damaged and missing files."""

import hashlib
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from noisestore import commit, content, empty_store, image, plan, spec, tree
from storemaker import add_planned, make_shards

from depthsieve.core.errors import StoreDamaged, StoreError, StoreMismatch, StoreNotFound
from depthsieve.core.records import (
    RejectedImage,
    canonical_json,
    seal,
    unseal,
)
from depthsieve.planning.sharding import MAX_SHARD_PIXELS
from depthsieve.storage import open_root
from depthsieve.store import open_store, schema
from depthsieve.store.create import open_or_create, prepare_root
from depthsieve.store.reader import Store
from depthsieve.store.writer import CommitContext, commit_shard


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return empty_store(tmp_path)


def test_the_newest_committed_generation_wins(store: Store) -> None:
    (old,) = plan(store, range(2))
    commit(store, old, seed=1)
    (new,) = plan(store, range(1))
    opened = open_store(store.path)
    assert list(opened.pending()) == [new.id]
    np.testing.assert_array_equal(opened.label("default/0.png").depth, content(old, 1).arrays["depth"][0])
    commit(store, new, seed=5)
    opened = open_store(store.path)
    np.testing.assert_array_equal(opened.label("default/0.png").depth, content(new, 5).arrays["depth"][0])
    np.testing.assert_array_equal(opened.label("default/1.png").depth, content(old, 1).arrays["depth"][1])
    assert len(opened) == 2


def test_the_index_names_every_state(store: Store) -> None:
    reject = RejectedImage("default/bad.png", 7, 8, "empty file")
    first, _second = plan(store, range(4), rejected=(reject,))
    arrays = content(first, 1)
    arrays.arrays["status"][1] = schema.STATUS_FAILED
    arrays.arrays["reason"][1] = "truncated"
    context = CommitContext(store.fingerprint, "disparity", "", "0" * 64)
    commit_shard(store.root, first, arrays, context)
    rows = {row["id"]: row for row in open_store(store.path).index().to_pylist()}
    states = {image_id: (row["status"], row["reason"]) for image_id, row in rows.items()}
    assert states == {
        "default/0.png": ("labelled", None),
        "default/1.png": ("failed", "truncated"),
        "default/2.png": ("pending", None),
        "default/3.png": ("pending", None),
        "default/bad.png": ("rejected", "empty file"),
    }
    found = rows["default/2.png"]
    assert (found["size"], found["mtime_ns"], found["height"], found["width"]) == (102, 2, 40, 60)
    assert (found["shard"], found["row"], found["label_height"], found["label_width"]) == ("0000-000001", 0, 14, 28)
    assert open_store(store.path).images == ["default/0.png"]


def test_a_plan_without_its_record_does_not_count(store: Store) -> None:
    plan(store, range(2))
    (store.path / "commits" / "generation-0000.json").unlink()
    assert list(open_store(store.path).pending()) == []
    plan(store, range(3))
    assert list(open_store(store.path).pending()) == ["0000-000000", "0000-000001"]


def test_records_of_another_store_are_refused(store: Store, tmp_path: Path) -> None:
    (shard,) = plan(store, range(2))
    commit(store, shard, seed=1)
    other = tmp_path / "other"
    open_or_create(open_root(other), spec(dtype="bfloat16"))
    name = "generation-0000.json"
    (other / "commits").mkdir(exist_ok=True)
    (other / "commits" / name).write_bytes((store.path / "commits" / name).read_bytes())
    with pytest.raises(StoreMismatch, match="another label spec"):
        open_store(other).generations()


@pytest.mark.parametrize("damage", ["missing", "short"])
def test_a_missing_or_short_file_is_never_read_as_zeros(store: Store, damage: str) -> None:
    (shard,) = plan(store, range(2))
    commit(store, shard, seed=1)
    (data,) = store.path.glob("labels.zarr/shards/*/reliability/c/0/0/0")
    if damage == "missing":
        data.unlink()
    else:
        data.write_bytes(data.read_bytes()[:-1])
    with pytest.raises(StoreDamaged, match="is missing" if damage == "missing" else "instead of"):
        _ = open_store(store.path).label("default/0.png").reliability


def test_flipped_bits_in_a_map_are_noticed(store: Store) -> None:
    (shard,) = plan(store, range(2))
    commit(store, shard, seed=1)
    (data,) = store.path.glob("labels.zarr/shards/*/depth/c/0/0/0")
    changed = bytearray(data.read_bytes())
    changed[100] ^= 4
    data.write_bytes(changed)
    with pytest.raises(StoreDamaged, match=r"depth.*checksum"):
        _ = open_store(store.path).label("default/0.png").depth


def test_a_plan_that_does_not_fit_its_digest_is_refused(store: Store) -> None:
    plan(store, range(2))
    path = store.path / "plan" / "generation-0000.00000.parquet"
    intact = path.read_bytes()
    for changed in (intact[:-1], intact.replace(b"add", b"adX"), b""):
        assert changed != intact
        path.write_bytes(changed)
        with pytest.raises(StoreDamaged, match="does not fit the digest"):
            open_store(store.path).index()
        with pytest.raises(StoreDamaged, match="does not fit the digest"):
            open_store(store.path).planned_shard("0000-000000")
    path.unlink()
    with pytest.raises(StoreDamaged, match="is missing"):
        open_store(store.path).index()


def test_a_missing_generation_is_not_planned_over(store: Store) -> None:
    plan(store, range(2))
    plan(store, range(2, 4))
    (store.path / "commits" / "generation-0000.json").unlink()
    before = tree(store.path)
    with pytest.raises(StoreDamaged, match=r"generation-0000\.json is missing"):
        plan(store, range(4, 6))
    assert tree(store.path) == before


def test_removed_images_leave_the_store_and_may_come_back(store: Store) -> None:
    reject = RejectedImage("default/bad.png", 7, 8, "empty file")
    (shard,) = plan(store, range(2), rejected=(reject,))
    commit(store, shard, seed=1)
    add_planned(store, [], removed=["default/0.png", "default/bad.png"], sources={"default": "/photos"})
    opened = open_store(store.path)
    assert opened.images == ["default/1.png"] and opened.index().num_rows == 1
    assert list(opened.pending()) == []
    (again,) = plan(store, range(1))
    commit(store, again, seed=2)
    assert open_store(store.path).images == ["default/0.png", "default/1.png"]


def test_a_store_whose_records_are_lost_is_never_emptied(store: Store) -> None:
    (shard,) = plan(store, range(2))
    commit(store, shard, seed=1)
    shutil.rmtree(store.path / "commits")
    before = tree(store.path)
    with pytest.raises(StoreMismatch, match="another label spec"):
        open_or_create(store.root, spec(dtype="bfloat16"))
    assert tree(store.path) == before


def test_a_store_that_was_killed_while_it_was_made_can_be_made_again(tmp_path: Path) -> None:
    path = tmp_path / "store"
    for leftover in ("tmp/labels.zarr-1/zarr.json", "leases/plan.0.json", ".DS_Store"):
        (path / leftover).parent.mkdir(parents=True, exist_ok=True)
        (path / leftover).write_text("")
    root = open_root(path)
    prepare_root(root)
    root.clear_scratch()
    assert list((path / "tmp").iterdir()) == []
    assert open_or_create(root, spec()).images == []
    assert open_or_create(root, spec(dtype="bfloat16")).spec.dtype == "bfloat16"  # nothing was planned


def test_a_label_spec_of_a_later_release_is_refused_in_one_line(store: Store) -> None:
    root = store.path / "labels.zarr" / "zarr.json"
    body = json.loads(root.read_text())
    body["attributes"]["label_spec"]["hue"] = "red"
    body["attributes"] = json.loads(seal(body["attributes"]))
    root.write_text(json.dumps(body))
    with pytest.raises(StoreMismatch, match="update depthsieve"):
        open_store(store.path)


def test_opening_what_is_no_store(tmp_path: Path) -> None:
    with pytest.raises(StoreNotFound, match="not a label store"):
        open_store(tmp_path)
    (tmp_path / "labels.zarr").mkdir()
    root = tmp_path / "labels.zarr" / "zarr.json"
    root.write_text('{"attributes": {"made": "by hand"}}')
    with pytest.raises(StoreNotFound, match="was not made by depthsieve"):
        open_store(tmp_path)
    root.write_text('{"attributes": {"format": "depthsieve-labels", "format_version": 99}}')
    with pytest.raises(StoreMismatch, match="format 99"):
        open_store(tmp_path)
    root.write_text('{"attri')
    with pytest.raises(StoreDamaged, match="not readable"):
        open_store(tmp_path)
    (tmp_path / "loop").symlink_to("loop")
    for path in (tmp_path / "loop", tmp_path / ("n" * 300)):
        with pytest.raises(StoreError, match="cannot read"):
            open_store(path)


def test_the_fingerprint_knows_what_decides_a_label_and_nothing_else() -> None:
    assert spec().fingerprint == spec(kind="teacher", parents=(), spec_version=1).fingerprint
    changes = [{"dtype": "bfloat16"}, {"signals": ()}, {"preprocessing": {"size": 84}}, {"kind": "fused"}]
    changes.append({"second": {"weights_digest": "ef" * 32}})
    prints = {spec(**change).fingerprint for change in [{}, *changes, {"weights_digest": "cd" * 32}]}
    assert len(prints) == 7
    body = spec().to_json()
    for default in ("kind", "parents", "spec_version", "second"):
        del body[default]
    assert spec().fingerprint == hashlib.sha256(canonical_json(body).encode()).hexdigest()


def test_a_sealed_record_shows_every_change() -> None:
    sealed = seal({"a": 1, "b": [1, 2]})
    assert {key: value for key, value in unseal(sealed, "x").items() if key != "digest"} == {"a": 1, "b": [1, 2]}
    flips = 0
    for place in range(len(sealed)):
        for bit in range(8):
            changed = bytearray(sealed)
            changed[place] ^= 1 << bit
            try:
                same = unseal(bytes(changed), "x") == unseal(sealed, "x")
            except StoreDamaged:
                flips += 1
            else:
                assert same  # white space between values may change, values may not
    assert flips > 7 * len(sealed)


def test_shards_follow_from_the_set_of_images_alone() -> None:
    images = [(image(n), (14, 28) if n % 2 else (28, 14)) for n in range(9)]
    shards = make_shards(images, 3, 2)
    assert shards == make_shards(reversed(images), 3, 2)
    assert [shard.id for shard in shards] == ["0003-000000", "0003-000001", "0003-000002", "0003-000003", "0003-000004"]
    assert [(shard.shape, len(shard.images)) for shard in shards] == [
        ((14, 28), 2),
        ((14, 28), 2),
        ((28, 14), 2),
        ((28, 14), 2),
        ((28, 14), 1),
    ]
    (first, second) = make_shards([(image(n), (8000, 8000)) for n in range(2)], 0, 256)
    assert len(first.images) == len(second.images) == 1 and MAX_SHARD_PIXELS < 8000 * 8000 * 2
