"""Near-duplicates along time: which frames of a clip stay. Axes: N images, D numbers."""

import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from commandline import command
from storemaker import PROFILE, Picture, make_store

import depthsieve
from depthsieve.core.errors import StoreError, UsageError
from depthsieve.core.records import TeacherRequest
from depthsieve.curation.in_time import find_near_frames
from depthsieve.curation.vectors import Vectors
from depthsieve.features import COLUMNS
from depthsieve.labelling.batch import feature_arrays
from depthsieve.store import Store, open_store
from depthsieve.store.create import add_generation
from depthsieve.store.layer_kinds import features_spec
from depthsieve.store.layers import commit_to_layer, make_layer
from depthsieve.store.plan import rejected_table, removed_table

LIKE = 0.95


def views(*degrees: float) -> Vectors:
    """A vector a view, turned by so much: the similarity of two views is the cosine of what lies between."""
    angle_N = np.radians(degrees)
    return Vectors(np.stack([np.cos(angle_N), np.sin(angle_N)], 1).astype(np.float16), np.zeros(2))


def stays(vectors: Vectors, *clips: list[int], bits: dict[int, int] | None = None) -> list[int]:
    """The frames that stay; hashes are equal, but for that of some numbers in so many ``bits``."""
    hash_N = np.zeros(len(vectors), np.uint64)
    for number, count in (bits or {}).items():
        hash_N[number] = (1 << count) - 1
    gone = find_near_frames(vectors, hash_N, [np.array(clip, np.int64) for clip in clips], LIKE)
    return [number for clip in clips for number in clip if number not in {one[0] for one in gone}]


def test_a_static_clip_keeps_its_first_frame() -> None:
    assert stays(views(*[40] * 6), list(range(6))) == [0]
    assert stays(views(*[40] * 6), [3, 1, 5]) == [3]  # the first in time, not by number


def test_a_clip_that_comes_back_to_a_view_keeps_it_again() -> None:
    assert stays(views(0, 1, 60, 61, 1, 0), list(range(6))) == [0, 2, 4]


def test_clips_of_the_same_content_keep_a_frame_each() -> None:
    assert stays(views(5, 5, 5, 5), [0, 1], [2, 3]) == [0, 2]
    assert stays(views(5, 5, 5, 5), [0, 1], []) == [0]


def test_frames_are_compared_with_the_last_one_kept_and_not_with_the_one_before() -> None:
    """A slow drift: each frame is like the next, 18.2 degrees are not alike any more."""
    assert stays(views(*range(0, 60, 4)), list(range(15))) == [0, 5, 10]


def test_hashes_that_differ_in_more_bits_than_those_of_near_duplicates_keep_a_frame() -> None:
    assert stays(views(0, 0, 0, 0), [0, 1, 2, 3], bits={1: 26, 2: 27, 3: 27}) == [0, 2]


def test_what_went_is_told_with_the_frame_that_stays_for_it() -> None:
    ((number, kept, similarity, bits),) = find_near_frames(
        views(0, 90, 10), np.array([3, 0, 0], np.uint64), [np.array([0, 2])], LIKE
    )
    assert (number, kept, bits) == (2, 0, 2)
    assert similarity == pytest.approx(np.cos(np.radians(10)), abs=1e-3)


# --- of a store

VIEWS = {
    "a.mp4": [0, 1, 90, 1, 90, 91],
    "b.mp4": [0, 0, 180],
    "photos": [0, 0],
}
"""Degrees of each frame. The fourth of a.mp4 is dark, its last one failed."""
PATHS = [f"{clip}{'::' if '.' in clip else '/'}{n:06d}" for clip, turned in VIEWS.items() for n in range(len(turned))]
DARK, FAILED = "a.mp4::000003", "a.mp4::000005"


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """Two videos and a folder of photos, with features that are made up."""
    pictures = [Picture(path, (28, 40), (14, 20), failed=path == FAILED) for path in PATHS if "::" in path]
    pictures += [Picture(f"{path}.png", (28, 40), (14, 20)) for path in PATHS if "::" not in path]
    made = make_store(tmp_path_factory.mktemp("store"), pictures)
    turned = [float(degrees) for clip in VIEWS.values() for degrees in clip]
    layer = make_layer(made.root, features_spec(made.spec, 8, "made up"))
    for shard_id in sorted(made.committed()):
        ids = [str(one) for one in made.reader(shard_id).column("id")]
        arrays = feature_arrays(len(ids), 8)
        for row, name in enumerate(ids):
            path = name.removeprefix("default/").removesuffix(".png")
            angle = np.radians(turned[PATHS.index(path)])
            arrays["embedding"][row, :2] = np.cos(angle), np.sin(angle)
            arrays["values"][row, list(COLUMNS).index("dark")] = path == DARK
        commit_to_layer(layer, shard_id, made.commit_record(shard_id)["content_sha256"], arrays)
    return open_store(made.path)


def test_frames_go_within_their_clips_before_near_duplicates_and_say_for_which(store: Store, tmp_path: Path) -> None:
    path = tmp_path / "subset.parquet"
    done = depthsieve.curate(store, path, max_dark=0.5, near_frames=0.98, progress=False)
    rows = {row["id"].removeprefix("default/"): row for row in pq.read_table(path).to_pylist()}
    kept = [name for name, row in rows.items() if row["keep"]]
    # The dark frame is passed over: the fifth is compared with the third. The failed one is no frame to compare.
    assert kept == [
        "a.mp4::000000", "a.mp4::000002", "b.mp4::000000", "b.mp4::000002", "photos/000000.png", "photos/000001.png",
    ]  # fmt: skip
    assert rows[DARK]["step"] == "max-dark 0.5" and rows[FAILED]["step"] == "labelled"
    assert rows["a.mp4::000004"]["step"] == "near-frames 0.98"
    assert rows["a.mp4::000004"]["reason"] == (
        "near-duplicate of default/a.mp4::000002, the last frame kept of its clip (similarity 1.000, 0 of 64 bits "
        "differ)"
    )
    step = done.steps[-1]
    assert (step.name, step.before, step.dropped) == ("near-frames 0.98", 9, 3)
    assert step.note == "3 of 7 frames, in 2 of 2 clips; by the teacher's backbone"
    assert json.loads(pq.read_schema(path).metadata[b"settings"]) == {"drop": 0.1, "max_dark": 0.5, "near_frames": 0.98}
    again = tmp_path / "again.parquet"
    depthsieve.curate(store, again, max_dark=0.5, near_frames=0.98, progress=False)
    assert again.read_bytes() == path.read_bytes()
    both = depthsieve.curate(store, near_frames=0.98, near_duplicates=0.98, crops=False, progress=False)
    assert [one.name for one in both.steps] == ["labelled", "near-frames 0.98", "near-duplicates 0.98"]


def test_the_command_has_it_and_explains_it(
    store: Store, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ("curate", store.location, "--near-frames", "0.98")
    assert command(monkeypatch, *options, "--dry-run") == 0
    assert "near-frames 0.98  10  2        8    2 of 8 frames, in 2 of 2 clips; by" in capsys.readouterr().out
    assert command(monkeypatch, *options, "--explain", "default/b.mp4::000000") == 0
    assert "kept instead of its near-duplicate default/b.mp4::000001" in capsys.readouterr().out


def test_how_alike_frames_are_does_not_depend_on_how_many_a_clip_has(tmp_path: Path) -> None:
    """A still video alone: less the mean of its frames, nothing but noise would be left to compare."""
    made = make_store(tmp_path, [Picture(f"a.mp4::{n:06d}", (28, 40), (14, 20)) for n in range(40)], shard_size=40)
    (shard_id,) = made.committed()
    arrays = feature_arrays(40, 8)
    arrays["embedding"][:] = np.eye(8)[0] + np.random.default_rng(0).normal(0, 0.02, (40, 8))
    layer = make_layer(made.root, features_spec(made.spec, 8, "made up"))
    commit_to_layer(layer, shard_id, made.commit_record(shard_id)["content_sha256"], arrays)
    assert depthsieve.curate(open_store(made.path), near_frames=0.95, progress=False).kept == 1


def test_a_store_without_clips_is_refused_until_it_is_said_that_folders_are_clips(tmp_path: Path) -> None:
    made = make_store(tmp_path, [Picture(f"run/{n}.png", (28, 40), (14, 20)) for n in (9, 10)])
    with pytest.raises(StoreError, match=r"has no clips, which near_frames .* --sequence`$"):
        depthsieve.curate(made, near_frames=0.9)
    add_generation(
        made, [], rejected_table([]), removed_table([]), {}, PROFILE, TeacherRequest("made up"),
        sequences={"default": True},
    )  # fmt: skip
    layer = make_layer(made.root, features_spec(made.spec, 8, "made up"))
    (shard_id,) = made.committed()
    arrays = feature_arrays(2, 8)
    arrays["embedding"][:, 0] = 1
    commit_to_layer(layer, shard_id, made.commit_record(shard_id)["content_sha256"], arrays)
    (_, step) = depthsieve.curate(open_store(made.path), near_frames=0.9, progress=False).steps
    assert step.note == "1 of 2 frames, in 1 of 1 clips; by the teacher's backbone"
    with pytest.raises(UsageError, match=r"^near_frames \(--near-frames\) must be a similarity over 0 and up to 1"):
        depthsieve.curate(made, near_frames=95)
