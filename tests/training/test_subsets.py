"""Subsets: ids or a file, which fit the store or are refused by name."""

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from served import IDS
from storemaker import Picture, make_store

from depthsieve.core.errors import LoaderError, UsageError
from depthsieve.core.nearest import near_ids
from depthsieve.training import PseudoLabelDataset


def write_subset(path, rows, **metadata):
    table = pa.table({"id": [i for i, _ in rows], "keep": [k for _, k in rows], "reason": [""] * len(rows)})
    pq.write_table(table.replace_schema_metadata(metadata), path)
    return path


def test_subsets_as_ids_and_as_a_file(tmp_path, labels):
    dataset = PseudoLabelDataset(labels, images=False, subset={IDS[3], IDS[7]})
    assert dataset.ids == [IDS[3], IDS[7]]
    assert sorted(sample["id"] for sample in dataset) == [IDS[3], IDS[7]]
    identity = dataset.identity()
    carried = {name: identity[name] for name in ("fingerprint", "snapshot")}
    path = write_subset(tmp_path / "s.parquet", [(i, i in (IDS[3], IDS[7])) for i in reversed(IDS)], **carried)
    assert PseudoLabelDataset(labels, images=False, subset=path).identity() == identity
    for name in carried:
        path = write_subset(tmp_path / "s.parquet", [(IDS[3], True)], **carried | {name: "ab" * 32})
        with pytest.raises(LoaderError, match=f"another {name} of the labels \\(abababababab"):
            PseudoLabelDataset(labels, images=False, subset=str(path))


@pytest.mark.parametrize(
    "kind",
    [pa.large_string(), pa.string_view(), pa.dictionary(pa.int32(), pa.string())],
    ids=["large", "view", "codes"],
)
def test_a_subset_may_hold_its_text_in_any_way(tmp_path, labels, kind):
    keep = [image_id in (IDS[3], IDS[7]) for image_id in IDS]
    pq.write_table(pa.table({"id": pa.array(IDS).cast(kind), "keep": keep}), tmp_path / "s.parquet")
    assert pq.read_table(tmp_path / "s.parquet")["id"].type == kind
    assert PseudoLabelDataset(labels, images=False, subset=tmp_path / "s.parquet").ids == [IDS[3], IDS[7]]


def test_subsets_that_do_not_fit(tmp_path, labels):
    def refused(subset, match, error=LoaderError):
        with pytest.raises(error, match=match) as caught:
            PseudoLabelDataset(labels, images=False, subset=subset)
        assert "\n" not in str(caught.value)

    refused([], "the subset is empty")
    refused([3], "it holds 3", UsageError)
    refused(
        [IDS[0], "x/1", "x/2", "x/3", "x/4"], r"4 of the subset's 5 ids .*: x/1 \(not in the store\), .* and 1 more"
    )
    refused(tmp_path / "none.parquet", r"there is no subset file .*none.parquet; for single images pass a list of")
    (tmp_path / "text.parquet").write_text("default/1.png")
    refused(tmp_path / "text.parquet", "cannot be read as Parquet")
    refused(write_subset(tmp_path / "a.parquet", [(IDS[0], False)]), "keeps none of its 1 images")
    refused(write_subset(tmp_path / "b.parquet", [(IDS[0], True), (IDS[0], False)]), f"more than once: {IDS[0]}")
    refused(write_subset(tmp_path / "c.parquet", [(IDS[0], None)]), "needs the columns id")
    pq.write_table(pa.table({"id": IDS}), tmp_path / "d.parquet")
    refused(tmp_path / "d.parquet", "needs the columns id")
    refused(write_subset(tmp_path / "e.parquet", [(1, True)]), "needs the columns id")
    refused(write_subset(tmp_path / "f.parquet", [(IDS[0], True), (None, True)]), "both without nulls")
    refused(write_subset(tmp_path / "g.parquet", [(IDS[0], True)], snapshot=b"\xff"), r"another snapshot .*\(\\xff")
    odd = pa.StringArray.from_buffers(1, *pa.array([b"default/\xff.jpg"]).buffers()[1:])
    pq.write_table(pa.table({"id": odd, "keep": [True]}), tmp_path / "h.parquet")
    refused(tmp_path / "h.parquet", "has ids that cannot be read as text")
    refused(["default/\udcff.jpg"], r"'default/\\udcff.jpg', which is not an image id: .* written %FF", UsageError)


@pytest.mark.parametrize(
    ("wrong", "near"),
    [
        ("3.png", "default/3.png"),
        ("photos/3.png", "default/3.png"),
        ("default/train/11.png", "default/11.png"),
        ("default/3.jpg", "default/3.png"),
        ("Default/3.JPG", None),
        ("default/none/at/all.tif", None),
        ("3", None),
        ("", None),
    ],
)
def test_an_unknown_id_says_which_is_near(labels, wrong, near):
    hint = f"; did you mean {near}?" if near else ""
    with pytest.raises(LoaderError) as caught:
        PseudoLabelDataset(labels, images=False, subset=[wrong, IDS[0]])
    told = f"1 of the subset's 2 ids have no label in {labels}: {wrong} (not in the store{hint})"
    assert str(caught.value) == told


def test_near_ids_are_those_of_the_same_name_then_those_spelled_alike():
    ids = pa.chunked_array([[f"a/{n:05}.png" for n in range(9000)], ["b/x/00007.png", "b/y/00007.png", "c/last.png"]])
    found = near_ids(ids, "y/00007.png", 3)
    assert found[0] == "b/y/00007.png" and set(found) == {"a/00007.png", "b/x/00007.png", "b/y/00007.png"}
    assert near_ids(ids, "a/00007.png") == ["a/00007.png"]
    assert near_ids(ids, "a/04321.pmg") == ["a/04321.png"]
    assert near_ids(ids, "c/lest.png") == ["c/last.png"]
    assert near_ids(ids, "z/zz.tiff") == near_ids(pa.chunked_array([[]], pa.string()), "a/00007.png") == []


def test_only_labelled_images_are_served(tmp_path):
    some = [
        Picture("a.png", (56, 56), (28, 28)),
        Picture("b.png", (56, 56), (28, 28), failed=True),
        Picture("c.png", (28, 84), (14, 42), pending=True),
    ]
    store = make_store(tmp_path / "one", some, rejected=["d.png"])
    assert PseudoLabelDataset(store).ids == ["default/a.png"]
    with pytest.raises(LoaderError, match=r"b.png \(failed\), default/c.png \(pending\), default/d.png \(rejected\)"):
        PseudoLabelDataset(store, subset=[f"default/{name}.png" for name in "bcd"])
    unlabelled = make_store(tmp_path / "two", some[1:])
    with pytest.raises(LoaderError, match="no labelled image \\(1 failed, 1 pending\\)"):
        PseudoLabelDataset(unlabelled)
