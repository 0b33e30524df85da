"""A store as a collection of labels, and a label as what a person looks at: ids, maps, photo, picture, xarray."""

import io
import pickle
import re
import sys
from pathlib import Path

import numpy as np
import pytest
import xarray
from PIL import Image
from pinned import KINDS
from s3server import S3Server
from storemaker import Picture, add_planned, made_image, made_label, make_store

from depthsieve.core.errors import NoLabel, SourceError, StoreDamaged, StoreError, UsageError
from depthsieve.images.colours import CHECKS, TINT, VIRIDIS_256, depth_colours
from depthsieve.store import Store, open_store
from depthsieve.store.layers import commit_to_layer, make_layer
from depthsieve.store.lookup import near_ids
from depthsieve.store.stored_images import encode_image, images_spec, pack_images, to_label_shape

PICTURES = [
    Picture("near.png", (28, 42), (14, 21)),
    Picture("broken.png", (28, 42), (14, 21), failed=True),
    Picture("in/tall.png", (40, 30), (20, 15)),
    Picture("wide.png", (28, 60), (14, 30)),
    Picture("late.png", (20, 20), (10, 10), pending=True),
]
NEAR, TALL, WIDE = "default/near.png", "default/in/tall.png", "default/wide.png"


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return make_store(tmp_path, PICTURES, rejected=["empty.png"])


def test_a_store_is_a_collection_of_the_ids_of_its_labels(store: Store) -> None:
    assert list(store) == store.images == [TALL, NEAR, WIDE]
    assert len(store) == 3
    assert NEAR in store and "near.png" in store
    assert "broken.png" not in store and "default/late.png" not in store and 0 not in store


def test_a_label_is_found_by_id_with_or_without_the_source_by_number_and_by_slice(store: Store) -> None:
    assert store[NEAR].id == store["near.png"].id == store.label("near.png").id == NEAR
    assert [store[0].id, store[-1].id, store[np.int64(1)].id] == [TALL, WIDE, NEAR]
    assert [label.id for label in store[:2]] == [TALL, NEAR]
    assert [label.id for label in store[::-1]] == [WIDE, NEAR, TALL]
    for number in (3, -4):
        with pytest.raises(IndexError, match=f"3 labelled images, so there is no number {number}"):
            store[number]
    with pytest.raises(UsageError, match=r"id of its image, a number or a slice, not 1\.5"):
        store[1.5]  # type: ignore[call-overload]


def test_the_source_cannot_be_left_out_where_there_are_two(store: Store) -> None:
    add_planned(store, [], sources={"other": "/nowhere"})
    opened = open_store(store.path)
    assert NEAR in opened and "near.png" not in opened
    with pytest.raises(NoLabel, match=r"no image 'near\.png'; did you mean 'default/near\.png'\?"):
        opened["near.png"]


@pytest.mark.parametrize(
    ("image", "message"),
    [
        (
            "broken.png",
            "has no label of 'broken.png': it failed (made up); `depthsieve label --retry-failed` tries again",
        ),
        ("default/late.png", "has no label of 'default/late.png': it was not labelled yet when the store was opened"),
        ("empty.png", "it was rejected (made up)"),
        ("default/wide.png", "it was removed from the store, as it was no longer in its source"),
        ("nare.png", "has no image 'nare.png'; did you mean 'default/near.png'?"),
        ("photo", "has no image 'photo'; the column id of its index.parquet has all ids"),
    ],
)
def test_an_id_without_a_label_says_why(store: Store, image: str, message: str) -> None:
    add_planned(store, [], removed=[WIDE])
    opened = open_store(store.path)
    assert image not in opened
    with pytest.raises(KeyError) as caught:
        opened[image]
    assert isinstance(caught.value, StoreError)
    assert message in str(caught.value)
    assert str(caught.value).startswith(f"{store.location} ")


def test_a_file_is_found_by_its_own_name(tmp_path: Path) -> None:
    decomposed = "Cafe\u0301.png"
    names = ["100%.png", "two\nlines.png", decomposed, "e\u0301.png", "\u00e9.png"]
    store = make_store(tmp_path, [Picture(name, (20, 30), (10, 15)) for name in names])
    for name in names:
        assert store[name].id.startswith("default/")
    assert (store["100%.png"].id, store["two\nlines.png"].id) == ("default/100%25.png", "default/two%0Alines.png")
    assert store["Caf\u00e9.png"].id == f"default/{decomposed}"
    assert store["\u00e9.png"].id == "default/\u00e9.png" != store["e\u0301.png"].id
    assert "Caf%C3%A9.png" not in store


def test_nothing_labelled_has_no_ids_to_name(tmp_path: Path) -> None:
    store = make_store(tmp_path, [])
    assert not list(store)
    with pytest.raises(NoLabel, match="no image 'a'; nothing is labelled there yet"):
        store["a"]


def test_near_ids_are_found_among_many() -> None:
    ids = sorted(f"default/{number:06d}.jpg" for number in range(30_000))
    assert "default/012345.jpg" in near_ids("012345.jpeg", "default/012345.jpeg", ids)
    assert near_ids("default/zzz", "default/zzz", ids[:100]) == []


def test_a_label_has_the_maps_and_the_mask_of_its_own_histogram(store: Store) -> None:
    label = store[NEAR]
    depth_HW, codes_HW = made_label(0, (14, 21))
    np.testing.assert_array_equal(label.depth, depth_HW)
    np.testing.assert_array_equal(label.reliability, codes_HW)
    assert (label.depth.dtype, label.reliability.dtype) == (np.float32, np.uint8)
    assert (label.shape, label.source_shape, label.quantity) == ((14, 21), (28, 42), "disparity")
    valid = np.sort(codes_HW[codes_HW > 0])
    for drop in (0.0, 0.1, 0.35):
        masked = int(drop * valid.size)
        np.testing.assert_array_equal(label.mask(drop), codes_HW >= max(valid[masked], 1))
    with pytest.raises(UsageError, match="drop"):
        label.mask(1.0)


def test_a_label_can_be_pickled(store: Store) -> None:
    label = store[NEAR]
    copy = pickle.loads(pickle.dumps(label))
    np.testing.assert_array_equal(copy.depth, label.depth)
    assert copy.store.location == store.location


def test_its_image_is_the_original_at_label_shape(store: Store) -> None:
    for image, number in ((NEAR, 0), (TALL, 2)):
        expected = to_label_shape(made_image(number, PICTURES[number].source), PICTURES[number].label)
        np.testing.assert_array_equal(store[image].image(), expected)


def test_an_original_that_is_gone_or_changed_is_refused_by_name(store: Store) -> None:
    root = Path(store.sources()["default"])
    Image.fromarray(made_image(7, (28, 42))).save(root / "near.png")
    (root / "wide.png").unlink()
    with pytest.raises(SourceError, match=re.escape(f"{NEAR}: its image cannot be read from {root} (it has changed")):
        store[NEAR].image()
    with pytest.raises(SourceError, match=r"wide\.png: .*No such file.*has no copy; restore it there"):
        store[WIDE].image()


def test_its_image_is_the_stored_one_where_there_is_one(store: Store) -> None:
    shard = store[NEAR].shard
    layer = make_layer(store.root, images_spec(store.fingerprint, 95))
    jpeg = encode_image(np.full((28, 42, 3), (200, 40, 90), np.uint8), (14, 21), 95)
    digest = store.commit_record(shard)["content_sha256"]
    commit_to_layer(layer, shard, digest, pack_images([jpeg, b""]), store.spec.encoding)
    (Path(store.sources()["default"]) / "near.png").unlink()
    opened = open_store(store.path)
    np.testing.assert_allclose(opened[NEAR].image(), np.broadcast_to([200, 40, 90], (14, 21, 3)), atol=3)
    np.testing.assert_array_equal(opened[TALL].image(), store[TALL].image())  # whose shard the layer does not have


def shown_in(png: bytes, tops: list[int]) -> list[list[np.ndarray]]:
    """The four pictures of each row of a notebook's picture, of labels of 14x21, whose upper edges are there."""
    whole = np.asarray(Image.open(io.BytesIO(png)).convert("RGB"))
    return [[whole[top : top + 224, left : left + 336] for left in range(16, 16 + 4 * 352, 352)] for top in tops]


def enlarged(rgb_HW3: np.ndarray) -> np.ndarray:
    return np.asarray(Image.fromarray(rgb_HW3).resize((336, 224), Image.Resampling.NEAREST))


def test_a_notebook_shows_photo_depth_reliability_and_mask(store: Store) -> None:
    label = store[NEAR]
    ((photo, depth, reliability, mask),) = shown_in(label._repr_png_(), [92])
    np.testing.assert_array_equal(photo, enlarged(label.image()))
    np.testing.assert_array_equal(depth, enlarged(depth_colours(label.depth, "disparity", label.reliability > 0)))
    colours = {tuple(one) for one in reliability.reshape(-1, 3)}
    assert {tuple(VIRIDIS_256[0]), tuple(VIRIDIS_256[-1])} <= colours  # stretched over codes that span far less
    assert int(np.ptp(label.reliability[label.reliability > 0])) < 100
    masked_HW = (label.reliability > 0) & ~label.mask(0.10)
    np.testing.assert_array_equal((mask == TINT).all(axis=-1), enlarged(masked_HW.astype(np.uint8)) == 1)


def test_a_notebook_shows_checks_for_a_photo_that_is_gone(store: Store) -> None:
    (Path(store.sources()["default"]) / "near.png").unlink()
    ((photo, depth, _, _),) = shown_in(store[NEAR]._repr_png_(), [92])
    assert {tuple(one) for one in photo.reshape(-1, 3)} == set(CHECKS)
    assert len({tuple(one) for one in depth.reshape(-1, 3)}) > 20
    assert "near.png: its image cannot be read" in store[NEAR].panels().no_photo


def test_a_notebook_shows_some_labels_of_a_store(tmp_path: Path) -> None:
    pictures = [Picture(f"{number}.png", (28, 42), (14, 21)) for number in range(9)]
    store = make_store(tmp_path, pictures)
    drawn = store._repr_png_()
    assert drawn is not None
    rows = shown_in(drawn, [16 + 26 + 50 + 26 + number * (26 + 224 + 16) for number in range(3)])
    for row, image in zip(rows, ("0.png", "3.png", "6.png"), strict=True):
        np.testing.assert_array_equal(row[0], enlarged(store[image].image()))
    assert open_store(make_store(tmp_path / "none", []).path)._repr_png_() is None
    (store.path / "commits" / "generation-0000.json").write_text("no record")
    assert open_store(store.path)._repr_png_() is None


def test_a_label_as_xarray(store: Store) -> None:
    label = store[NEAR]
    found = label.to_xarray()
    assert isinstance(found, xarray.Dataset)
    np.testing.assert_array_equal(found["depth"], label.depth)
    np.testing.assert_array_equal(found["reliability"], label.reliability)
    assert found["depth"].dims == ("y", "x") and found["depth"].attrs["quantity"] == "disparity"
    assert found.attrs == {"id": NEAR, "source_height": 28, "source_width": 42}


def test_a_shard_as_xarray(store: Store) -> None:
    label = store[NEAR]
    found = store.to_xarray(label.shard)
    assert found["depth"].dims == ("image", "y", "x") and list(found["id"].values) == [NEAR, "default/broken.png"]
    assert "id" in found.coords and list(found["status"].values) == [0, 1]
    np.testing.assert_array_equal(found["reliability"][label.row], label.reliability)
    for shard, asked in ((None, "name one of its shards"), ("0000-000009", "it has no shard '0000-000009'")):
        with pytest.raises(UsageError, match=f"{asked} .0000-000000, 0000-000001, 0000-000002"):
            store.to_xarray(shard)


def test_a_shard_as_xarray_has_the_reliability_of_the_stores_layer(tmp_path: Path) -> None:
    labels = KINDS["layered"](tmp_path / "labels")
    layered = open_store(labels.path, reliability="flip-9-transferred")
    label = layered[0]
    found = layered.to_xarray(label.shard).isel(image=label.row)
    np.testing.assert_array_equal(found["reliability"], label.reliability)
    np.testing.assert_array_equal(found["depth"], label.depth)
    assert int(found["histogram"].sum()) == label.reliability.size
    assert (labels[0].reliability != label.reliability).any()


def test_the_only_shard_need_not_be_named_and_must_be_whole(tmp_path: Path) -> None:
    store = make_store(tmp_path, PICTURES[:2])
    assert store.to_xarray().sizes == {"image": 2, "y": 14, "x": 21, "code": 256}
    (chunk,) = store.path.glob("labels.zarr/shards/*/depth/c/0/0/0")
    chunk.unlink()
    with pytest.raises(StoreDamaged, match="depth/c/0/0/0 is missing"):
        open_store(store.path).to_xarray()


def test_a_store_in_a_bucket_shows_the_same(store: Store, s3: S3Server) -> None:
    bucket = s3.new_bucket()
    for path in store.path.rglob("*"):
        if path.is_file():
            s3.put(bucket, f"labels/{path.relative_to(store.path).as_posix()}", path.read_bytes())
    far = open_store(f"s3://{bucket}/labels")
    assert list(far) == list(store)
    assert repr(far) == repr(store).replace(store.location, far.location)
    np.testing.assert_array_equal(far["near.png"].depth, store["near.png"].depth)
    np.testing.assert_array_equal(far["near.png"].image(), store["near.png"].image())
    assert far.to_xarray("0000-000000").equals(store.to_xarray("0000-000000"))


def test_without_xarray_one_line_says_so(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "xarray", None)
    for call in (store[NEAR].to_xarray, lambda: store.to_xarray("0000-000000")):
        with pytest.raises(UsageError, match=r"needs the package xarray .*: pip install xarray"):
            call()


def test_a_store_says_what_it_is(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    counts = "3 images labelled, 2 failed, 1 pending"
    assert repr(store) == f"<Store {store.location}: {counts}; disparity by made up>"
    monkeypatch.setattr("depthsieve.store.reader.COUNTED_SHARDS", 1)
    assert repr(store) == f"<Store {store.location}: 4 images labelled or failed, 1 pending; disparity by made up>"
    (store.path / "commits" / "generation-0000.json").write_text("no record")
    assert repr(open_store(store.path)).startswith(f"<Store {store.location}: ")
    assert "not a readable record" in repr(open_store(store.path))
