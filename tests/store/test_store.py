"""The store under attack: late duplicates, torn groups, records that are half there, damaged files."""

import errno
import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from storemaker import add_planned, make_shards

from depthsieve.core.errors import StoreDamaged, StoreError, StoreMismatch, StoreNotFound
from depthsieve.core.records import (
    ImageRecord,
    LabelSpec,
    NumericsProfile,
    RejectedImage,
    Shard,
    canonical_json,
    seal,
    unseal,
)
from depthsieve.planning.sharding import MAX_SHARD_PIXELS
from depthsieve.storage import open_root
from depthsieve.storage.local import LocalRoot
from depthsieve.store import open_store, schema, writer
from depthsieve.store.create import open_or_create, prepare_root
from depthsieve.store.plan import PlannedShard
from depthsieve.store.reader import Store
from depthsieve.store.writer import CommitContext, ShardArrays, commit_shard

PROFILE = NumericsProfile(4, 2, "cpu", "some processor", "sdpa", {"torch": "2"})
CONTEXT = CommitContext("", "disparity", "", "0" * 64)


def spec(**changes: object) -> LabelSpec:
    fields = {
        "weights_digest": "ab" * 32,
        "quantity": "disparity",
        "unit": "",
        "dtype": "float32",
        "preprocessing": {"size": 70},
        "signals": ("flip",),
        "calibration": "flip-2",
        "encoding": schema.ENCODING,
    }
    return LabelSpec(**fields | changes)  # type: ignore[arg-type]


def image(number: int) -> ImageRecord:
    return ImageRecord(f"default/{number}.png", 100 + number, number, 60, 40)


def content(shard: Shard, seed: int) -> ShardArrays:
    count, (height, width) = len(shard.images), shard.shape
    random = np.random.default_rng(seed)
    depth_NHW = random.random((count, height, width)).astype(np.float16)
    code_NHW = random.integers(1, 256, (count, height, width), dtype=np.uint8)
    text = lambda values: np.array(values, dtype=object)  # noqa: E731
    return ShardArrays(
        {
            "depth": depth_NHW,
            "reliability": code_NHW,
            "histogram": np.stack([np.bincount(code.ravel(), minlength=256) for code in code_NHW]).astype(np.uint32),
            "id": text([image.id for image in shard.images]),
            "status": np.zeros(count, np.uint8),
            "reason": text([""] * count),
            "source_height": np.full(count, 40, np.int32),
            "source_width": np.full(count, 60, np.int32),
            "orientation": np.ones(count, np.uint8),
            "focal_px": np.zeros(count, np.float32),
            "content_sha256": text(["c" * 64] * count),
        }
    )


@pytest.fixture
def store(tmp_path: Path) -> Store:
    path = tmp_path / "a store"
    prepare_root(open_root(path))
    return open_or_create(open_root(path), spec())


def plan(store: Store, numbers: range, rejected: tuple[RejectedImage, ...] = ()) -> list[Shard]:
    shards = make_shards([(image(n), (14, 28)) for n in numbers], len(store.generations()), 2)
    planned = [PlannedShard(shard, ("add",) * len(shard.images)) for shard in shards]
    add_planned(store, planned, rejected, sources={"default": "/photos"}, profile=PROFILE)
    return shards


def commit(store: Store, shard: Shard, seed: int) -> bool:
    context = CommitContext(store.fingerprint, "disparity", "", "0" * 64)
    return commit_shard(store.root, shard, content(shard, seed), context)


def tree(path: Path) -> dict[str, bytes]:
    return {str(file.relative_to(path)): file.read_bytes() for file in sorted(path.rglob("*")) if file.is_file()}


def test_a_late_duplicate_with_other_bits_changes_nothing(store: Store) -> None:
    (shard,) = plan(store, range(2))
    assert commit(store, shard, seed=1)
    before = tree(store.path)
    assert not commit(store, shard, seed=2)
    assert tree(store.path) == before
    expected = content(shard, seed=1).arrays
    found = open_store(store.path).label("default/1.png")
    np.testing.assert_array_equal(found.depth, expected["depth"][1].astype(np.float32))
    np.testing.assert_array_equal(found.reliability, expected["reliability"][1])


def test_two_attempts_that_race_never_share_a_path_and_one_wins(store: Store) -> None:
    (shard,) = plan(store, range(2))
    record = store.path / "commits" / f"{shard.id}.json"
    commit(store, shard, seed=1)
    first = record.read_bytes()
    record.unlink()  # the moment before the record: the first group is an orphan
    assert commit(store, shard, seed=2)
    groups = sorted(path.name for path in (store.path / "labels.zarr" / "shards").glob("0000-*"))
    assert len(groups) == 2 and len(set(groups)) == 2
    winner = json.loads(record.read_bytes())["group"]
    assert winner in groups and winner != json.loads(first)["group"]
    expected = content(shard, seed=2).arrays["depth"][0].astype(np.float32)
    np.testing.assert_array_equal(open_store(store.path).label("default/0.png").depth, expected)


def test_who_is_overtaken_at_the_last_moment_takes_its_group_away(store: Store) -> None:
    (shard,) = plan(store, range(2))
    genuine = LocalRoot.create

    with pytest.MonkeyPatch.context() as patch:

        def overtaken(root: LocalRoot, key: str, data: bytes, lasting: bool = True) -> bool:
            patch.undo()
            assert commit(store, shard, seed=2)  # the worker that everyone thought dead
            return genuine(root, key, data, lasting)

        patch.setattr(LocalRoot, "create", overtaken)
        assert not commit(store, shard, seed=1)
    (group,) = store.path.glob("labels.zarr/shards/0000-*")
    assert store.commit_record(shard.id)["group"] == group.name
    assert list((store.path / "tmp").iterdir()) == []


def test_a_group_torn_by_a_power_cut_is_written_again(store: Store) -> None:
    (shard,) = plan(store, range(2))
    commit(store, shard, seed=1)
    before = tree(store.path)
    record = store.path / "commits" / f"{shard.id}.json"
    group = store.path / "labels.zarr" / "shards" / json.loads(record.read_bytes())["group"]
    record.unlink()
    data = group / "depth" / "c" / "0" / "0" / "0"
    data.write_bytes(data.read_bytes()[:-100])
    assert commit(store, shard, seed=1)
    assert tree(store.path) == before


def test_a_commit_record_lists_every_file_with_its_digest(store: Store) -> None:
    (shard,) = plan(store, range(2))
    commit(store, shard, seed=1)
    record = open_store(store.path).commit_record(shard.id)
    group = store.path / "labels.zarr" / "shards" / record["group"]
    listed = {name: (entry["sha256"], entry["bytes"]) for name, entry in record["files"].items()}
    found = {
        str(path.relative_to(group)): (hashlib.sha256(path.read_bytes()).hexdigest(), path.stat().st_size)
        for path in group.rglob("*")
        if path.is_file()
    }
    assert listed == found and "depth/c/0/0/0" in listed
    arrays = content(shard, seed=1)
    assert record["content_sha256"] == arrays.content_digest() != content(shard, seed=2).content_digest()
    assert record["histogram"] == arrays.arrays["histogram"].sum(axis=0).tolist()
    assert sum(record["histogram"]) == 2 * 14 * 28


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


def test_a_worker_that_outlived_its_run_cannot_commit_half_a_group(store: Store) -> None:
    (shard,) = plan(store, range(2))
    genuine = writer.list_folder

    def listing_then_cleared(folder: Path) -> dict[str, dict[str, Any]]:
        listed = genuine(folder)
        with pytest.MonkeyPatch.context() as dead:
            dead.setattr("depthsieve.storage.local.is_alive", lambda token: False)
            store.root.clear_scratch()  # the next run begins just now, and takes this process for dead
        return listed

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(writer, "list_folder", listing_then_cleared)
        with pytest.raises(FileNotFoundError):
            commit(store, shard, seed=1)
    assert list(open_store(store.path).pending()) == [shard.id]
    assert commit(store, shard, seed=1)
    assert len(open_store(store.path)) == 2


def test_file_systems_without_hard_links(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: Path, target: Path) -> None:
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(Path, "hardlink_to", refuse)
    (shard,) = plan(store, range(2))
    assert commit(store, shard, seed=1)
    assert not commit(store, shard, seed=2)
    assert len(open_store(store.path)) == 2


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


def test_exclusive_and_atomic_writes(tmp_path: Path) -> None:
    root = open_root(tmp_path)
    assert root.create("a/record", b"first")
    assert not root.create("a/record", b"second")
    assert root.read("a/record") == b"first"
    root.write("a/record", b"third")
    assert root.read("a/record") == b"third"
    assert list((tmp_path / "tmp").iterdir()) == []


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
