"""Planning out of core: the shards are those of the plainest rule, whatever comes in which order and size."""

import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from labelled import small_teacher
from storemaker import PROFILE, SPEC, make_shards

from depthsieve.core import spill
from depthsieve.core.errors import ImageRejected, RunError
from depthsieve.core.records import ImageRecord, Shape, TeacherRequest
from depthsieve.core.tables import PLAN_SCHEMA, REJECTED_SCHEMA
from depthsieve.planning.draft import IMAGES_SCHEMA, draft_batches
from depthsieve.planning.generation import write_generation
from depthsieve.planning.options import LabelOptions
from depthsieve.planning.sharding import cut_shards
from depthsieve.planning.workforce import Workforce
from depthsieve.storage import open_root
from depthsieve.store import plan
from depthsieve.store.create import open_or_create
from depthsieve.store.plan import PlannedShard
from depthsieve.teachers import load_teacher


def label_shape(height: int, width: int) -> Shape:
    """Sides halved; nothing wider than eight times its height."""
    if width > 8 * height:
        raise ImageRejected(f"{height}x{width} is too wide")
    return max(1, height // 2), max(1, width // 2)


SIZES = [(480, 640), (640, 480), (481, 641), (12000, 9000), (30, 900), (1, 1)]
RECORDS = st.builds(
    lambda name, size, stat, orientation: ImageRecord(f"default/{name}", *stat, size[1], size[0], orientation),
    st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=4),
    st.sampled_from(SIZES),
    st.tuples(st.integers(0, 2**40), st.integers(-(2**62), 2**62)),
    st.integers(1, 8),
)


def tables(images: Sequence[ImageRecord], rows: int) -> Iterator[pa.Table]:
    for start in range(0, len(images), rows):
        some = images[start : start + rows]
        yield pa.table({name: [getattr(one, name) for one in some] for name in IMAGES_SCHEMA.names}, IMAGES_SCHEMA)


def plainly(images: Sequence[ImageRecord], generation: int, shard_size: int) -> tuple[pa.Table, list[tuple[str, str]]]:
    """The rows of the plan and the rejects, from objects in memory."""
    shaped, rejected = [], []
    for image in images:
        try:
            shaped.append((image, label_shape(image.height, image.width)))
        except ImageRejected as error:
            rejected.append((image.id, str(error)))
    shards = make_shards(shaped, generation, shard_size)
    planned = [PlannedShard(shard, ("add",) * len(shard.images)).table() for shard in shards]
    return pa.concat_tables([PLAN_SCHEMA.empty_table(), *planned]), sorted(rejected)


@settings(max_examples=60, deadline=None)
@given(st.lists(RECORDS, max_size=60, unique_by=lambda image: image.id), st.integers(1, 9), st.integers(1, 25))
def test_the_shards_are_those_of_the_plain_rule(
    tmp_path_factory: pytest.TempPathFactory, images: list[ImageRecord], shard_size: int, rows: int
) -> None:
    folder = tmp_path_factory.mktemp("draft")
    expected, rejected = plainly(images, 3, shard_size)
    with draft_batches(tables(images, rows), [], label_shape, folder) as draft:
        found = pa.concat_tables([PLAN_SCHEMA.empty_table(), *draft.tables(3, shard_size)])
        assert found.cast(PLAN_SCHEMA).equals(expected)
        counts = (draft.images, draft.shards(shard_size), draft.pixels)
        named = zip(draft.rejected["id"].to_pylist(), draft.rejected["reason"].to_pylist(), strict=True)
        assert list(named) == rejected
    pixels = pc.sum(pc.multiply(expected["label_height"].cast("int64"), expected["label_width"])).as_py() or 0
    assert counts == (len(expected), len(set(expected["shard"].to_pylist())), pixels)
    shutil.rmtree(folder)


@given(st.lists(st.tuples(st.sampled_from([1, 2, 4000]), st.integers(1, 7)), max_size=12), st.integers(1, 5), st.data())
def test_shards_are_cut_alike_however_the_rows_arrive(
    runs: list[tuple[int, int]], shard_size: int, data: st.DataObject
) -> None:
    heights = sorted(height for height, count in runs for _ in range(count))
    ids = [f"{number:03}" for number in range(len(heights))]
    sides = pa.array(heights, pa.int32())
    table = pa.table({"id": ids, "label_height": sides, "label_width": pa.array([9000] * len(ids), pa.int32())})
    cuts = sorted(data.draw(st.lists(st.integers(0, len(ids)), max_size=6)))
    pieces = [table[start:end] for start, end in zip([0, *cuts], [*cuts, len(ids)], strict=True)]
    whole = list(cut_shards([table], 0, shard_size))
    torn = list(cut_shards(pieces, 0, shard_size))
    assert [row for one in torn for row in one.to_pylist()] == [row for one in whole for row in one.to_pylist()]
    firsts = [one["row"][0].as_py() for one in torn]
    shards = [set(one["shard"].to_pylist()) for one in torn]
    assert not any(firsts) and sum(map(len, shards)) == len(set().union(*shards))  # none is torn


def planned(path: Path, images: Sequence[ImageRecord], rows: int) -> dict[str, bytes]:
    """The files of a plan of these images."""
    path.mkdir()
    store = open_or_create(open_root(path), SPEC)
    rejects = pa.table([["default/z", "default/b"], [1, 2], [3, 4], ["broken", "empty"]], schema=REJECTED_SCHEMA)
    with (
        store.root.scratch("plan") as folder,
        draft_batches(tables(images, rows), [rejects], label_shape, folder, store) as draft,
    ):
        write_generation(store, draft, {"default": "/photos"}, PROFILE, TeacherRequest("made up"), 3)
    return {file.name: file.read_bytes() for part in ("plan", "commits") for file in (path / part).iterdir()}


def test_a_plan_has_the_same_bytes_in_whatever_order_the_images_come(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plan, "PART_SHARDS", 20)
    images = [ImageRecord(f"default/{n:04}.jpg", n, n, *SIZES[n % 3]) for n in range(400)]
    whole = planned(tmp_path / "a", images, 10**6)
    monkeypatch.setattr(spill, "BATCH_ROWS", 7)
    assert planned(tmp_path / "b", images[::-1], 13) == whole
    assert len([name for name in whole if name.endswith(".parquet")]) == 7 + 3  # parts, and the three tables
    opened = open_or_create(open_root(tmp_path / "a"), SPEC)
    assert opened.read_table(opened.generations()[0], "rejected")["id"].to_pylist() == ["default/b", "default/z"]
    shards = make_shards([(image, label_shape(image.height, image.width)) for image in images], 0, 3)
    assert [opened.planned_shard(one) for one in opened.pending()] == shards
    assert not list((tmp_path / "a" / "tmp").iterdir())


def test_a_disk_without_room_is_told_before_the_sort(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    images = [ImageRecord("default/a.jpg", 1, 1, 640, 480)]
    monkeypatch.setattr("depthsieve.planning.draft.ROOM_PER_IMAGE", 10**15)
    with (
        pytest.raises(RunError, match=r"sorting 1 images takes about 1e\+06 GB on the disk of .* make room there"),
        draft_batches(tables(images, 1), [], label_shape, tmp_path / "draft"),
    ):
        pass


def test_a_fault_of_the_database_is_one_line(tmp_path: Path) -> None:
    with (
        spill.spill_database(tmp_path / "draft") as database,
        pytest.raises(RunError, match=r"cannot sort images in .*draft.* again to resume") as caught,
    ):
        database.run("SELECT nothing FROM nowhere")
    assert "\n" not in str(caught.value)
    (tmp_path / "file").touch()
    with pytest.raises(RunError, match="cannot sort"), spill.spill_database(tmp_path / "file" / "draft"):
        pass


def test_the_database_shows_no_bar_of_its_own(tmp_path: Path) -> None:
    """By default it does, on stdout, where Python runs without a script, as here and in a notebook."""
    asked = "SELECT current_setting('enable_progress_bar') AS shown"
    script = f"""
from pathlib import Path
from depthsieve.core.spill import SpillDatabase
print(SpillDatabase(Path({str(tmp_path / "draft")!r})).all({asked!r})["shown"].to_pylist())
"""
    assert subprocess.run([sys.executable, "-c", script], capture_output=True, text=True).stdout == "[False]\n"


def test_shards_come_out_before_the_last_row_is_in() -> None:
    read = 0

    def rows() -> Iterator[pa.Table]:
        nonlocal read
        for read in range(1, 10):
            sides = pa.array([14] * 5, pa.int32())
            yield pa.table({"id": [f"{read}{n}" for n in range(5)], "label_height": sides, "label_width": sides})

    counts = [(read, len(table)) for table in cut_shards(rows(), 0, 4)]
    assert counts == [(1, 4), (2, 4), (3, 4), (4, 4), (5, 8), (6, 4), (7, 4), (8, 4), (9, 8), (9, 1)]


def test_a_file_of_a_plan_has_the_same_bytes_however_its_rows_came() -> None:
    ids = [f"default/{n * 7919 % 100_003:06}-with-a-longer-name-so-that-pages-fill.jpg" for n in range(60_000)]
    table = pa.table({"id": ids}, plan.REMOVED_SCHEMA)
    torn = pa.concat_tables([table[start : start + 777] for start in range(0, len(table), 777)])
    assert plan.encode_table(torn, plan.REMOVED_SCHEMA) == plan.encode_table(table, plan.REMOVED_SCHEMA)


NODES = ((0, 0), (16, 4), (6, 2))
"""A head that labels nothing, and two nodes."""


@pytest.mark.parametrize(
    ("options", "workforce", "kind"),
    [
        ({}, Workforce(True, None, 3, 6, on_cluster=True), "cuda"),
        ({"device": "cuda", "workers": 2}, Workforce(True, 2, 3, 6, on_cluster=True), "cuda"),
        ({"device": "cpu"}, Workforce(True, None, 6, 0, on_cluster=True), "cpu"),
        ({"device": "cpu", "threads": 2}, Workforce(True, None, 2, 0, on_cluster=True), "cpu"),
    ],
)
def test_on_a_cluster_its_nodes_say_what_there_is_and_not_this_machine(
    tmp_path: Path, options: dict[str, object], workforce: Workforce, kind: str
) -> None:
    teacher = load_teacher(str(small_teacher(tmp_path / "teacher")), device="cpu")
    found = Workforce.choose(teacher, LabelOptions(address="10.0.0.1:6379", **options), NODES)  # type: ignore[arg-type]
    assert found == workforce
    profile = found.profile(teacher, 4, found.threads, videos=False)
    assert (profile.device_kind, profile.threads, profile.batch_size) == (kind, workforce.threads, 4)
    assert (profile.device_model == "the cluster's") == (kind == "cuda")


def test_without_an_address_this_machine_says_what_there_is(tmp_path: Path) -> None:
    teacher = load_teacher(str(small_teacher(tmp_path / "teacher")), device="cpu")
    assert Workforce.choose(teacher, LabelOptions(threads=2)) == Workforce(False, 1, 2, 0)
    assert Workforce.choose(teacher, LabelOptions(workers=2, threads=1)) == Workforce(True, 2, 1, 0)
    assert Workforce.choose(teacher, LabelOptions(threads=1)).device is None
