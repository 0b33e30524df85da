"""Curation: what each step drops, with which reason, and the subset file that comes of it.

Stores are made up: their features are written here, so that what must go is known. Axes: N images, D numbers.
"""

import json
import pickle
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from commandline import command
from hypothesis import given, settings
from hypothesis import strategies as st
from storemaker import Picture, make_store

import depthsieve
from depthsieve.core.errors import LoaderError, StoreError, UsageError
from depthsieve.curation.diversity import most_diverse, turns
from depthsieve.curation.duplicates import MOST_BITS, find_duplicates
from depthsieve.curation.neighbours import EXACT, cluster, nearest
from depthsieve.curation.settings import CUTS, CurateSettings
from depthsieve.curation.vectors import Vectors, hamming
from depthsieve.curation.where import where
from depthsieve.features import COLUMNS
from depthsieve.labelling.batch import feature_arrays
from depthsieve.reliability.masking import masked_share, threshold_code
from depthsieve.store import Store, open_store
from depthsieve.store.layer_kinds import features_spec
from depthsieve.store.layers import commit_to_layer, make_layer
from depthsieve_cli.curate import curate as curate_command

IMAGES = 12
GOOD = {"detail": 8.0, "sharpness": 0.7, "text": 0.8, "luma": 0.5, "colourfulness": 30.0, "depth_range": 0.7}


def unit(values: np.ndarray) -> np.ndarray:
    return values / np.linalg.norm(values, axis=-1, keepdims=True)


def add_made_features(store: Store, changes: dict[int, dict[str, Any]], size: int | None = 16) -> None:
    """Features of every committed shard: good ones, but for the ``changes`` of images by number. Embeddings are random,
    those of an image with ``like`` are nearly another's, its hash differs from that one's in ``bits``."""
    layer = make_layer(store.root, features_spec(store.spec, size, "made up"))
    random = np.random.default_rng(0)
    embedding_ND = unit(random.normal(size=(IMAGES, size or 1)))
    phash_N = random.integers(0, 1 << 63, IMAGES, dtype=np.uint64)
    for number, change in changes.items():
        if "like" in change:
            near = embedding_ND[change["like"]] + random.normal(size=size or 1) * change.get("off", 0.02)
            embedding_ND[number] = unit(near)
            phash_N[number] = phash_N[change["like"]] ^ np.uint64((1 << change.get("bits", 3)) - 1)
    for shard_id in sorted(store.committed()):
        ids = store.reader(shard_id).column("id")
        arrays = feature_arrays(len(ids), size)
        for row, name in enumerate(ids):
            number = int(str(name).split("/")[1].split(".")[0])
            values = dict.fromkeys(COLUMNS, 0.0) | GOOD | changes.get(number, {})
            arrays["values"][row] = [values[column] for column in COLUMNS]
            arrays["phash"][row] = phash_N[number]
            if size:
                arrays["embedding"][row] = embedding_ND[number]
        commit_to_layer(layer, shard_id, store.commit_record(shard_id)["content_sha256"], arrays)


CHANGES: dict[int, dict[str, Any]] = {
    1: {"dark": 0.9, "sharpness": 0.1},
    2: {"sharpness": 0.4},
    3: {"text": 3.5},
    4: {"like": 5},
    6: {"like": 5, "sharpness": 0.75},
    8: {"sky": 0.8},
}


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """Twelve pictures of three sizes, number 7 failed, a reject, with features."""
    folder = tmp_path_factory.mktemp("store")
    shapes = [(14, 20), (20, 14), (16, 16)]
    pictures = [
        Picture(f"{n}.png", tuple(2 * s for s in shapes[n % 3]), shapes[n % 3], failed=n == 7)
        for n in range(IMAGES)  # type: ignore[arg-type]
    ]
    made = make_store(folder, pictures, rejected=["note.png"], shard_size=4)
    add_made_features(made, CHANGES)
    return open_store(made.path)


def name(number: int) -> str:
    return f"default/{number}.png"


def kept(path: Path) -> set[str]:
    table = pq.read_table(path)
    return set(table.filter(table["keep"])["id"].to_pylist())


def reasons(path: Path) -> dict[str, tuple[str, str]]:
    rows = pq.read_table(path).to_pylist()
    return {row["id"]: (row["step"], row["reason"]) for row in rows if not row["keep"]}


def test_every_image_is_in_the_subset_and_every_drop_has_its_reason(store: Store, tmp_path: Path) -> None:
    path = tmp_path / "subset.parquet"
    done = depthsieve.curate(store, path, where="sky < 0.5", faulty=True, near_duplicates=0.85)
    found = reasons(path)
    assert found["default/note.png"] == ("labelled", "rejected: made up")
    assert found[name(7)] == ("labelled", "failed: made up")
    assert found[name(8)] == ("where", "not (sky < 0.5)")
    assert found[name(1)] == ("max-dark 0.5", "dark 0.9 is over 0.5")  # and not the later cut that would take it too
    assert found[name(2)] == ("min-sharpness 0.53", "sharpness 0.4 is under 0.53")
    assert found[name(3)] == ("max-text 2.85", "text 3.5 is over 2.85")
    best = max((4, 5, 6), key=lambda n: reliability(store, n))
    twins = {4, 5, 6} - {best}
    for number in twins:
        step, reason = found[name(number)]
        assert step == "near-duplicates 0.85"
        assert reason.startswith(f"near-duplicate of {name(best)} (similarity 0.9")
    assert kept(path) == {name(n) for n in (0, 9, 10, 11, best)}
    assert [(step.name, step.before, step.dropped) for step in done.steps] == [
        ("labelled", 13, 2),
        ("where", 11, 1),
        ("max-dark 0.5", 10, 1),
        ("max-bright 0.5", 9, 0),
        ("min-detail 0.8", 9, 0),
        ("min-sharpness 0.53", 9, 1),
        ("max-text 2.85", 8, 1),
        ("near-duplicates 0.85", 7, 2),
    ]
    assert (done.images, done.kept, done.notes) == (13, 5, ())
    metadata = pq.read_schema(path).metadata
    assert metadata[b"fingerprint"].decode() == store.fingerprint
    assert metadata[b"snapshot"].decode() == store.snapshot()
    assert json.loads(metadata[b"settings"])["near_duplicates"] == 0.85


def reliability(store: Store, number: int) -> float:
    codes = store.label(name(number)).reliability
    return float(codes[codes > 0].mean())


def test_the_loader_takes_the_subset_and_refuses_it_for_another_store(store: Store, tmp_path: Path) -> None:
    path = tmp_path / "subset.parquet"
    depthsieve.curate(store, path, faulty=True)
    assert set(depthsieve.PseudoLabelDataset(store, subset=path).ids) == kept(path)
    pictures = [Picture("0.png", (28, 40), (14, 20))]
    other = make_store(tmp_path, pictures)
    with pytest.raises(LoaderError, match="another snapshot"):
        depthsieve.PseudoLabelDataset(other, subset=path)


def test_the_same_store_and_options_give_the_same_bytes_in_any_process(store: Store, tmp_path: Path) -> None:
    options = {"near_duplicates": 0.8, "balance": "3", "cap": 2, "max_images": 4}
    first = tmp_path / "one.parquet"
    depthsieve.curate(store, first, **options)
    code = (
        f"import depthsieve; depthsieve.curate({str(store.location)!r}, {str(tmp_path / 'two.parquet')!r}, **{options})"
    )
    subprocess.run(["taskset", "-c", "0", sys.executable, "-c", code], check=True)
    assert first.read_bytes() == (tmp_path / "two.parquet").read_bytes()
    assert not list(tmp_path.glob(".*"))


@pytest.mark.parametrize("cut", CUTS, ids=lambda cut: cut.option)
def test_each_cut_is_one_comparison_of_one_column(store: Store, tmp_path: Path, cut: Any) -> None:
    everything = tmp_path / "all.parquet"
    from depthsieve.curation.table import image_table
    from depthsieve.store.index import settled_index

    table = image_table(store, settled_index(store)[0], 0.10)
    values = dict(zip(table["id"].to_pylist(), table[cut.column].to_pylist(), strict=True))
    limit = float(np.median(list(values.values())))
    depthsieve.curate(store, everything, **{cut.option: limit})
    expected = {one for one, value in values.items() if (value >= limit if cut.least else value <= limit)}
    assert kept(everything) == expected
    if len(set(values.values())) > 2:
        assert expected != set(values)


def test_unreliable_is_the_share_under_the_datasets_threshold(store: Store) -> None:
    from depthsieve.curation.table import image_table
    from depthsieve.store.index import settled_index

    table = image_table(store, settled_index(store)[0], 0.3)
    ids = table["id"].to_pylist()
    codes = {one: store.label(one).reliability for one in ids}
    histograms = {one: np.bincount(codes[one].ravel(), minlength=256) for one in ids}
    threshold = threshold_code(sum(histograms.values()), 0.3)  # type: ignore[arg-type]
    for one, share in zip(ids, table["unreliable"].to_pylist(), strict=True):
        assert share == pytest.approx(masked_share(histograms[one], threshold))
        assert table["reliability"][ids.index(one)].as_py() == pytest.approx(codes[one][codes[one] > 0].mean())


# --- where


TABLE = pa.table({"id": ["s/a", "s/b", "s/c"], "sky": pa.array([0.1, None, 0.9], pa.float32()), "row": [1, 2, 3]})


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("sky > 0.5", [False, False, True]),
        ("NOT sky > 0.5", [True, False, False]),
        ("sky IS NULL OR id LIKE 's/a%'", [True, True, False]),
        ("row IN (1, 3) -- a comment; and more", [True, False, True]),
        ("true", [True, True, True]),
    ],
)
def test_an_expression_chooses_rows_and_null_is_not_true(expression: str, expected: list[bool]) -> None:
    assert where(TABLE, expression).tolist() == expected


def test_a_random_expression_is_the_same_each_time() -> None:
    table = pa.table({"id": [str(n) for n in range(10_000)]})
    first = where(table, "random() < 0.5")
    assert (where(table, "random() < 0.5") == first).all()
    assert 4000 < first.sum() < 6000


@pytest.mark.parametrize(
    "expression",
    [
        *("", "   ", "sky >", "sky > 1; DROP TABLE images", "sky > 1) OR (1 = 1", "sky > 1, row > 1", "ski > 1"),
        *("row", "*", "id", "sum(row) > 1", "sky > 1 UNION SELECT true", "id > 5 AND id", "-- nothing", "'"),
        *("(SELECT content FROM read_text('/etc/passwd') LIMIT 1) > ''", "EXISTS (SELECT * FROM 'x.parquet')"),
        *("(SELECT count(*) FROM read_csv('https://example.org/x.csv')) > 0", "1 = (COPY images TO '/tmp/x')"),
        *("EXISTS (SELECT * FROM TABLE)", "row > 1\nATTACH 'x.db'", "\x00", "(SELECT count(*) FROM glob('/*')) > 0"),
    ],
)
def test_what_is_no_such_expression_is_refused_in_one_line_with_the_columns(expression: str) -> None:
    with pytest.raises(UsageError) as caught:
        where(TABLE, expression)
    text = str(caught.value)
    assert text.startswith("--where ") and "\n" not in text and text.endswith("columns are id, sky, row")


@settings(max_examples=60, deadline=None)
@given(st.text(max_size=60))
def test_any_text_is_an_expression_or_refused(text: str) -> None:
    try:
        assert len(where(TABLE, text)) == 3
    except UsageError as error:
        assert "\n" not in str(error)


# --- near-duplicates


def crowd(groups: int, each: int, size: int, spread: float, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Vectors (float16 [N,D]) in groups around random centres, in no order, and each one's group."""
    random = np.random.default_rng(seed)
    centres = unit(random.normal(size=(groups, size)))
    group_N = random.permutation(np.repeat(np.arange(groups), each))
    return unit(centres[group_N] + random.normal(size=(len(group_N), size)) * spread).astype(np.float16), group_N


def reference(vectors: Vectors, phash_N: np.ndarray, threshold: float) -> np.ndarray:
    """Which stay, by the plain rule: in order, each that is like none that stays."""
    rows = vectors.rows(slice(None)).astype(np.float64)
    kept: list[int] = []
    for number in range(len(rows)):
        close = [k for k in kept if rows[k] @ rows[number] >= threshold and (int(phash_N[k]) ^ int(phash_N[number])).bit_count() <= MOST_BITS]  # noqa: E501  # fmt: skip
        if not close:
            kept.append(number)
    return np.array(kept)


@pytest.mark.parametrize(("groups", "each", "spread"), [(40, 5, 0.02), (200, 1, 0.1), (3, 80, 0.02), (30, 8, 0.12)])
def test_duplicates_are_those_of_the_plain_rule(groups: int, each: int, spread: float) -> None:
    raw, _ = crowd(groups, each, 32, spread)
    vectors, hashes = Vectors.of(raw), np.zeros(len(raw), np.uint64)
    found = find_duplicates(vectors, hashes, 0.8)
    assert np.flatnonzero(found.of_N < 0).tolist() == reference(vectors, hashes, 0.8).tolist()


def check_cover(vectors: Vectors, hashes: np.ndarray, threshold: float, of_N: np.ndarray) -> None:
    """Each that goes is like the better one that stays for it; none that stays is like another."""
    rows = vectors.rows(slice(None)).astype(np.float64)
    gone, stays = np.flatnonzero(of_N >= 0), np.flatnonzero(of_N < 0)
    assert (of_N[of_N[gone]] < 0).all() and (of_N[gone] < gone).all()
    assert (np.einsum("nd,nd->n", rows[gone], rows[of_N[gone]]) >= threshold - 1e-6).all()
    between = rows[stays] @ rows[stays].T - 2 * np.eye(len(stays))
    assert between.max() < threshold + 1e-6


def test_a_film_keeps_views_and_not_one_frame_of_all() -> None:
    """Each frame is like the next: connected components would keep a single one."""
    angle_N = np.arange(300) * 0.01
    raw = np.stack([np.cos(angle_N), np.sin(angle_N), np.zeros(300), np.zeros(300)], axis=1).astype(np.float16)
    vectors, hashes = Vectors(raw, np.zeros(4)), np.zeros(300, np.uint64)
    found = find_duplicates(vectors, hashes, 0.95)
    check_cover(vectors, hashes, 0.95, found.of_N)
    assert 8 <= (found.of_N < 0).sum() <= 12  # 3 radians, a third apart each


def test_crowds_larger_than_the_list_of_neighbours_are_gone_through() -> None:
    raw, group_N = crowd(4, 700, 24, 0.03)
    vectors = Vectors.of(raw)
    found = find_duplicates(vectors, np.zeros(len(raw), np.uint64), 0.7)
    assert len(np.unique(group_N[found.of_N < 0])) == 4
    check_cover(vectors, np.zeros(len(raw), np.uint64), 0.7, found.of_N)


def test_hashes_that_differ_much_keep_alike_embeddings_apart() -> None:
    raw = np.repeat(unit(np.random.default_rng(0).normal(size=(2, 16))), 2, axis=0).astype(np.float16)
    hashes = np.array([0, (1 << MOST_BITS) - 1, 0, (1 << (MOST_BITS + 1)) - 1], np.uint64)
    assert find_duplicates(Vectors.of(raw), hashes, 0.9).of_N.tolist() == [-1, 0, -1, -1]
    assert hamming(hashes[:2], hashes[2:]).tolist() == [0, 1]


def test_two_images_alone_can_be_duplicates_and_need_not() -> None:
    one, other = unit(np.random.default_rng(1).normal(size=(2, 32))) + 3 / 32**0.5
    for pair, gone in (([one, one], 1), ([one, other], 0)):
        raw = unit(np.array(pair)).astype(np.float16)
        found = find_duplicates(Vectors.of(raw), np.zeros(2, np.uint64), 0.85)
        assert (found.of_N >= 0).sum() == gone


def test_many_images_are_looked_up_in_parts_of_space_alike_by_any_threads() -> None:
    raw, group_N = crowd(EXACT // 4 + 500, 4, 24, 0.01)
    assert len(raw) > EXACT
    vectors, hashes = Vectors.of(raw), np.zeros(len(raw), np.uint64)
    one, three = (find_duplicates(vectors, hashes, 0.95, threads) for threads in (1, 3))
    for first, second in zip(pickle.loads(pickle.dumps(one)).__dict__.values(), three.__dict__.values(), strict=True):
        np.testing.assert_array_equal(first, second)
    assert (group_N[one.of_N[one.of_N >= 0]] == group_N[one.of_N >= 0]).all()
    assert (one.of_N >= 0).sum() > 0.98 * 3 * len(raw) / 4


# --- balance, diversity


def test_turns_count_those_before_of_the_same_group() -> None:
    assert turns(np.array([5, 2, 5, 5, 2, 9])).tolist() == [0, 0, 1, 2, 1, 0]
    assert turns(np.zeros(0, np.int64)).tolist() == []


def test_farthest_points_come_from_every_group_before_a_second_of_one() -> None:
    raw, group_N = crowd(6, 9, 16, 0.02)
    chosen = most_diverse(Vectors.of(raw), 6, 1)
    assert chosen[0] and sorted(group_N[chosen].tolist()) == list(range(6))
    assert most_diverse(Vectors.of(raw), 100, 1).all()


def test_of_too_many_images_clusters_take_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("depthsieve.curation.diversity.MOST_PRODUCTS", 10)
    raw, group_N = crowd(6, 9, 16, 0.02)
    chosen = most_diverse(Vectors.of(raw), 6, 1)
    assert chosen.sum() == 6 and len(set(group_N[chosen].tolist())) >= 5


def test_clusters_are_the_groups_and_the_same_by_any_threads() -> None:
    raw, group_N = crowd(5, 40, 16, 0.03)
    first, second = (cluster(Vectors.of(raw), 5, threads) for threads in (1, 3))
    assert first.tolist() == second.tolist()
    agreement = {(a, b) for a, b in zip(first.tolist(), group_N.tolist(), strict=True)}
    assert len(agreement) <= 6


def test_neighbours_come_nearest_first_with_themselves() -> None:
    raw, _ = crowd(5, 10, 16, 0.1)
    vectors = Vectors.of(raw)
    rows = vectors.rows(slice(None))
    told: list[int] = []
    ((part, similar, numbers),) = nearest(vectors, vectors, 4, 2, told.append)
    assert part == slice(0, 50) and numbers[:, 0].tolist() == list(range(50))
    assert sum(told) == 100  # put in, and looked up
    np.testing.assert_allclose(similar, np.sort(rows @ rows.T, axis=1)[:, :-5:-1], atol=1e-5)


def test_balance_keeps_the_best_of_each_source_and_cluster(store: Store, tmp_path: Path) -> None:
    path = tmp_path / "s.parquet"
    depthsieve.curate(store, path, balance="sources", cap=3)
    best = sorted((n for n in range(IMAGES) if n != 7), key=lambda n: -reliability(store, n))[:3]
    assert kept(path) == {name(n) for n in best}
    assert reasons(path)[name(min(set(range(IMAGES)) - set(best) - {7}))] == (
        "balance sources, cap 3",
        "3 better ones of the 11 of default stay",
    )
    done = depthsieve.curate(store, balance="4", cap=1, max_images=2)
    assert done.kept == 2 and done.steps[-1].note == "farthest points by the teacher's backbone"


# --- what lacks, and what cannot be meant


def test_a_store_without_features_is_curated_by_its_labels_and_says_what_lacks(tmp_path: Path) -> None:
    made = make_store(tmp_path, [Picture(f"{n}.png", (28, 40), (14, 20)) for n in range(6)])
    done = depthsieve.curate(made, where="reliability > 100", max_sky=None)
    assert 0 < done.kept < 6
    assert done.notes == (
        f"6 of 6 labelled images have no image signals; `depthsieve features {made.location}` adds the features "
        "that lack",
    )
    with pytest.raises(
        StoreError, match="min-sharpness needs the column sharpness, which no image has; `depthsieve feat"
    ):
        depthsieve.curate(made, min_sharpness=0.5)
    with pytest.raises(StoreError, match="6 of 6 images have no perceptual hash"):
        depthsieve.curate(made, near_duplicates=0.9)


def test_without_embeddings_hashes_alone_find_duplicates(tmp_path: Path) -> None:
    made = make_store(tmp_path, [Picture(f"{n}.png", (28, 40), (14, 20)) for n in range(IMAGES)])
    add_made_features(made, {1: {"like": 0, "bits": 3}, 3: {"like": 2, "bits": 12}}, size=None)
    path = tmp_path / "s.parquet"
    done = depthsieve.curate(open_store(made.path), path, near_duplicates=0.85)
    assert done.steps[-1].note == "by perceptual hash (no embeddings are kept); 0 by their pixels"
    assert len(set(reasons(path)) & {name(0), name(1)}) == 1 and len(reasons(path)) == 1


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"near_duplicates": 1.5}, r"near_duplicates \(--near-duplicates\) must be a similarity"),
        ({"balance": "1", "cap": 3}, "balance must be 'sources' or a number"),
        ({"balance": "6"}, "balance and cap go together"),
        ({"cap": 6}, "balance and cap go together"),
        ({"max_images": 0}, r"max_images \(--max\) must be a whole number"),
        ({"balance": "6", "cap": 0}, "^cap must be a whole number"),
        ({"min_sharpness": float("nan")}, r"min_sharpness \(--min-sharpness\) must be a number, not nan"),
        ({"drop": 1.0}, "drop must be a share"),
        ({"where": 3}, "where must be an SQL expression"),
        ({"where": " "}, "where must be an SQL expression, such as 'sky < 0.5', not ' '$"),
        ({"explain": "default/none.png"}, "knows no image 'default/none.png'; ids look like 'default/0.png'"),
    ],
)
def test_what_cannot_be_meant_is_refused(store: Store, options: dict[str, Any], match: str) -> None:
    with pytest.raises(UsageError, match=match) as caught:
        depthsieve.curate(store, **options)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("options", "match"),
    [
        (
            {"min_reliability": 256.0},
            "no image is left after min-reliability 256, which dropped the last 11; the first",
        ),
        ({"where": "false"}, "no image is left after where, which dropped the last 11"),
    ],
)
def test_options_that_leave_no_image_are_told_of_by_the_step(
    store: Store, options: dict[str, Any], match: str, tmp_path: Path
) -> None:
    for more in ({}, {"explain": name(2), "subset": tmp_path / "s.parquet"}):
        with pytest.raises(StoreError, match=match) as caught:
            depthsieve.curate(store, **options, **more)
        assert "\n" not in str(caught.value)
    assert not list(tmp_path.iterdir())


def test_only_a_subset_file_is_replaced_and_nothing_is_left_by_a_failure(store: Store, tmp_path: Path) -> None:
    for mine in ("mine.txt", "mine"):
        (tmp_path / mine).write_text("mine")
    pq.write_table(store.index(), tmp_path / "index.parquet")
    pq.write_table(pa.table({"id": ["a"], "mine": [1]}), tmp_path / "other.parquet")
    for target, match in (
        (tmp_path / "none" / "s.parquet", "is not a folder"),
        (tmp_path, "is a folder; name a file"),
        (tmp_path / "mine.txt", "a subset file's name ends in .parquet, not 'mine.txt'"),
        (tmp_path / "new.csv", "a subset file's name ends in .parquet, not 'new.csv'"),
        (tmp_path / "mine", "is there and is no subset file"),
        (tmp_path / "index.parquet", "is there and is no subset file"),
        (tmp_path / "other.parquet", "is there and is no subset file"),
    ):
        before = target.read_bytes() if target.is_file() else None
        with pytest.raises(UsageError, match=match):
            depthsieve.curate(store, target)
        assert (target.read_bytes() if target.is_file() else None) == before
    path = tmp_path / "s.parquet"
    depthsieve.curate(store, path)
    before_bytes = path.read_bytes()
    with pytest.raises(StoreError):
        depthsieve.curate(store, path, where="false")
    assert path.read_bytes() == before_bytes
    depthsieve.curate(store, path, faulty=True)
    assert path.read_bytes() != before_bytes
    assert len(list(tmp_path.iterdir())) == 5


# --- the command line


def test_the_command_prints_the_funnel_and_writes_only_if_told(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "s.parquet"
    assert command(monkeypatch, "curate", store.location, "-o", path, "--dry-run", "--faulty", "--near-duplicates") == 0
    out, err = capsys.readouterr()
    assert err == ""  # no bar where stderr is no terminal
    assert "near-duplicates 0.9  8   2        6    by the teacher's backbone" in out
    assert out.endswith("6 of 13 images (46.2%) are kept. Nothing was written.\n")
    assert not path.exists()
    assert command(monkeypatch, "curate", store.location) == 2
    assert "name the file to write with -o" in capsys.readouterr().err
    steps = ("--max", 3, "--near-duplicates", 0.9)
    assert command(monkeypatch, "curate", store.location, "-o", path, *steps, "--json") == 0
    out, err = capsys.readouterr()
    shown = json.loads(out)
    assert err == ""
    assert (shown["kept"], shown["subset"], shown["steps"][-1]["name"]) == (3, str(path), "max 3")
    assert len(kept(path)) == 3
    assert command(monkeypatch, "curate", store.location, "--dry-run", "--where", "ski > 1") == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_every_option_that_is_refused_is_named_as_the_command_has_it() -> None:
    known = {option for one in curate_command.params for option in one.opts}
    for option in ("near_duplicates", "max_images", *(cut.option for cut in CUTS)):
        with pytest.raises(UsageError, match="must be") as caught:
            CurateSettings(**{option: float("nan")})
        assert re.match(rf"{option} \((--\S+)\)", str(caught.value)).group(1) in known  # type: ignore[union-attr]


def test_an_image_is_explained(
    store: Store, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    best = max((4, 5, 6), key=lambda n: reliability(store, n))
    options = ("--faulty", "--near-duplicates", "--max-sky", "0.5")
    expected = {
        7: ["default/7.png: dropped by labelled: failed: made up."],
        1: ["default/1.png: dropped by max-dark 0.5: dark 0.9 is over 0.5.", "max-dark 0.5: 0.9, does not pass",
            "max-sky 0.5: 0, passes"],
        best: [f"{name(best)}: kept."]
        + [f"kept instead of its near-duplicate {name(n)}" for n in sorted({4, 5, 6} - {best})],
    }  # fmt: skip
    for number, lines in expected.items():
        assert command(monkeypatch, "curate", store.location, *options, "--explain", name(number)) == 0
        out = capsys.readouterr().out
        assert all(line in out for line in lines), (lines, out)


def test_an_image_is_explained_where_none_is_left(
    store: Store, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ("curate", store.location, "--max-dark", "0.5", "--min-reliability", "256")
    assert command(monkeypatch, *options, "--dry-run") == 1
    out, err = capsys.readouterr()
    assert (out, "no image is left after min-reliability 256" in err) == ("", True)
    for number, dropped in ((1, "max-dark 0.5: dark 0.9 is over 0.5."), (2, "min-reliability 256: reliability ")):
        assert command(monkeypatch, *options, "--explain", name(number)) == 0
        out, err = capsys.readouterr()
        assert out.startswith(f"{name(number)}: dropped by {dropped}")
        assert f"reliability {reliability(store, number):.4g}" in out
        assert "Error" not in err
