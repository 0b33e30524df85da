"""How a store stands, counted without its index, is what its index says; and what a new generation adds to it."""

import dataclasses
import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from storemaker import SPEC, add_planned

from depthsieve.core.errors import StoreDamaged
from depthsieve.core.records import ImageRecord, RejectedImage, Shard, seal
from depthsieve.core.tables import REJECTED_SCHEMA
from depthsieve.planning.draft import IMAGES_SCHEMA, draft_batches
from depthsieve.storage import open_root
from depthsieve.store import Store, open_store, schema
from depthsieve.store.create import open_or_create, write_index
from depthsieve.store.plan import PlannedShard
from depthsieve.store.standing import Again, known_files, standing


def record(image: str) -> ImageRecord:
    return ImageRecord(image, 1, 1, 28, 14)


def commit(store: Store, shard: Shard, failed: Sequence[int] = ()) -> None:
    """A commit record as a writer makes it; the arrays that it stands for are not looked at here."""
    body = {
        "format_version": schema.FORMAT_VERSION,
        "shard": shard.id,
        "group": f"{shard.id}-made up",
        "fingerprint": store.fingerprint,
        "images": len(shard.images),
        "failures": [{"row": row, "id": shard.images[row].id, "reason": f"{shard.id} broke it"} for row in failed],
    }
    assert store.root.create(schema.commit_key(shard.id), seal(body))


@dataclass
class Made:
    """A store of several generations that grows at random, as runs make it: what is known is not added again, but
    what failed, was refused or removed may be."""

    store: Store
    chance: random.Random
    left: list[Shard] = field(default_factory=list)

    def grow(self) -> None:
        """Another generation, of which some shards are committed; and some of those that were left."""
        chance = self.chance
        number = len(self.store.generations())
        rows = {row["id"]: row["status"] for row in self.store.index().to_pylist()}
        waiting = {image.id for shard in self.left for image in shard.images}
        free = [f"default/{n}" for n in range(60) if f"default/{n}" not in rows]
        free += [image for image, status in rows.items() if status in ("failed", "rejected")]
        labelled = [image for image, status in rows.items() if status == "labelled"]
        chosen = [image for image in free if image not in waiting and chance.random() < 0.4]
        changed = [image for image in labelled if image not in waiting and chance.random() < 0.05]
        images, rejected, removed = [*changed], [], []
        for image in chosen:
            kind = chance.choice(("image", "image", "image", "rejected", "removed"))
            {"image": images, "rejected": rejected, "removed": removed}[kind].append(image)
        shards, start = [], 0
        while start < len(images):
            count = chance.randint(1, 4)
            records = tuple(record(image) for image in images[start : start + count])
            shards.append(Shard(schema.shard_name(number, len(shards)), (14, 28), records))
            start += count
        planned = [
            PlannedShard(
                one, tuple("replace" if rows.get(i.id) in ("failed", "labelled") else "add" for i in one.images)
            )
            for one in shards
        ]
        rejects = [RejectedImage(image, 1, 1, f"refused {number}") for image in sorted(rejected)]
        add_planned(self.store, planned, rejects, sorted(removed), {"default": "/photos"})
        self.left += shards
        for shard in list(self.left):
            if chance.random() < 0.6:
                failed = [row for row in range(len(shard.images)) if chance.random() < 0.3]
                commit(self.store, shard, failed)
                self.left.remove(shard)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    (tmp_path / "store").mkdir()
    return open_or_create(open_root(tmp_path / "store"), SPEC)


def check_against_index(store: Store) -> None:
    index = store.index()
    found = standing(store)
    status = index["status"].to_pylist()
    assert (found.labelled, found.pending) == (status.count("labelled"), status.count("pending"))
    for what, named in (("failed", found.failed), ("rejected", found.rejected)):
        rows = [row for row in index.to_pylist() if row["status"] == what]
        assert named == {row["id"]: row["reason"] for row in rows}
    assert [failure.id for failure in found.unlabelled] == sorted({**found.failed, **found.rejected})


@pytest.mark.parametrize("seed", range(10))
def test_it_stands_as_its_index_says(store: Store, seed: int) -> None:
    made = Made(store, random.Random(seed))
    for _ in range(5):
        made.grow()
        check_against_index(store)


def test_a_store_without_a_generation_stands_empty(store: Store) -> None:
    found = standing(store)
    assert (found.labelled, found.pending, found.unlabelled) == (0, 0, ())


def drafted(
    store: Store, images: list[str], rejected: list[str], retry_failed: bool, folder: Path
) -> tuple[object, ...]:
    """What a generation would hold, planned out of core: (id, action) of its images, its rejects, and who leaves."""

    def leaves(image: str) -> bool:
        return image.startswith("default/")

    listed = [dataclasses.asdict(record(image)) for image in images]
    refused = [{"id": image, "size": 1, "mtime_ns": 1, "reason": "no"} for image in rejected]
    tables = [pa.Table.from_pylist(listed, IMAGES_SCHEMA)], [pa.Table.from_pylist(refused, REJECTED_SCHEMA)]
    again = Again.of(store, retry_failed)
    with draft_batches(*tables, lambda *size: size, folder, store, again, leaves) as draft:
        rows = [row for table in draft.tables(9, 3) for row in table.to_pylist()]
        pairs = sorted((row["id"], row["action"]) for row in rows)
        return pairs, draft.rejected["id"].to_pylist(), draft.gone["id"].to_pylist()


def plainly(store: Store, images: list[str], rejected: list[str], retry_failed: bool) -> tuple[object, ...]:
    """The same from the whole index in memory."""
    states = {row["id"]: row["status"] for row in store.index().to_pylist()}
    known = {image for image, state in states.items() if not (retry_failed and state in ("failed", "rejected"))}
    known |= {image.id for shard in store.pending() for image in store.planned_shard(shard).images}
    new = sorted(image for image in images if image not in known)
    found = {*images, *rejected, *known}
    standing_ids = [image for image, state in states.items() if state in ("failed", "rejected")]
    return (
        [(image, "replace" if states.get(image) == "failed" else "add") for image in new],
        sorted(image for image in rejected if image not in known),
        sorted(image for image in standing_ids if retry_failed and image not in found),
    )


@pytest.mark.parametrize("retry_failed", [False, True])
@pytest.mark.parametrize("seed", range(4))
def test_what_is_new_is_what_the_index_does_not_know(
    store: Store, tmp_path: Path, seed: int, retry_failed: bool
) -> None:
    chance = random.Random(seed)
    made = Made(store, chance)
    for step in range(4):
        made.grow()
        images = [f"default/{n}" for n in range(70) if chance.random() < 0.5]
        rejected = [image for image in images if chance.random() < 0.2]
        images = [image for image in images if image not in rejected]
        args = (store, images, rejected, retry_failed)
        assert drafted(*args, tmp_path / f"draft {step}") == plainly(*args)


def test_known_files_are_those_that_no_scan_need_look_at(store: Store) -> None:
    made = Made(store, random.Random(3))
    for _ in range(4):
        made.grow()
    states = {row["id"]: row["status"] for row in store.index().to_pylist()}
    waiting = {image.id for shard in made.left for image in shard.images}
    for retry_failed in (False, True):
        ids = {one for table in known_files(store, Again.of(store, retry_failed)) for one in table["id"].to_pylist()}
        dropped = {one for one, state in states.items() if retry_failed and state in ("failed", "rejected")}
        assert ids == (set(states) - dropped) | waiting


def test_a_record_that_does_not_fit_its_digest_is_not_counted(store: Store) -> None:
    shard = Shard("0000-000000", (14, 28), (record("default/a"),))
    add_planned(store, [PlannedShard(shard, ("add",))])
    commit(store, shard)
    path = store.path / "commits" / "0000-000000.json"
    path.write_text(path.read_text().replace('"images": 1', '"images": 2'))
    with pytest.raises(StoreDamaged, match="does not fit its own digest"):
        standing(store)


@pytest.mark.parametrize("seed", range(3))
def test_the_index_file_is_the_index(store: Store, seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("depthsieve.core.spill.BATCH_ROWS", 3)
    made = Made(store, random.Random(seed))
    for _ in range(4):
        made.grow()
        write_index(store)
        assert pq.read_table(store.path / schema.INDEX).equals(store.index())


def test_an_index_file_of_the_same_snapshot_is_left_alone(store: Store) -> None:
    made = Made(store, random.Random(1))
    made.grow()
    write_index(store)
    path = store.path / schema.INDEX
    before = path.stat().st_ino
    write_index(open_store(store.path))
    assert path.stat().st_ino == before
    whole = pq.read_table(path)
    for spoiled in (whole[:-1], whole.replace_schema_metadata(None)):
        pq.write_table(spoiled, path)
        write_index(store)
        assert pq.read_table(path).equals(whole)
    path.write_bytes(b"torn")
    write_index(store)
    assert pq.read_table(path).equals(whole)
    made.grow()
    write_index(store)
    assert pq.read_table(path).equals(store.index())
