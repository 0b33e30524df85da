"""Images that moved, are gone or have changed, and damaged labels: each is named."""

import shutil
import zipfile

import pytest
from PIL import Image
from served import IDS, same
from storemaker import Picture, made_image, make_store

from depthsieve.core.errors import LoaderError, StoreDamaged, UsageError
from depthsieve.store import Store
from depthsieve.training import PseudoLabelDataset


def test_images_that_moved(tmp_path, home, labels):
    moved = tmp_path / "moved"
    shutil.copytree(home, moved)
    (moved / "images" / "0.png").unlink()
    by_path = PseudoLabelDataset(labels, images=moved / "images")
    with pytest.raises(LoaderError, match=r"default/0.png: its photo is gone \(No such file"):
        list(by_path)
    kept = PseudoLabelDataset(labels, images={"default": moved / "images"}, subset=IDS[1:])
    same(list(kept.loader(4)), list(PseudoLabelDataset(labels, subset=IDS[1:]).loader(4)))
    with pytest.raises(LoaderError, match=r"'default' are not at .*nowhere; if they moved, pass images="):
        PseudoLabelDataset(labels, images=tmp_path / "nowhere")
    with pytest.raises(UsageError, match="names the source 'other'; this store has default"):
        PseudoLabelDataset(labels, images={"other": moved})
    with pytest.raises(UsageError, match="images must be"):
        PseudoLabelDataset(labels, images=True)


def test_an_image_that_changed_is_refused_by_name(tmp_path):
    store = make_store(tmp_path, [Picture("a.png", (56, 56), (28, 28))])
    path = tmp_path / "images" / "a.png"
    data = path.read_bytes()
    path.write_bytes(data + b"\0")
    with pytest.raises(LoaderError, match=f"default/a.png: .*has {len(data) + 1} bytes and had {len(data)} when"):
        PseudoLabelDataset(store)[0]
    path.write_bytes(b"\0" * len(data))
    with pytest.raises(LoaderError, match=r"default/a.png: the source image cannot be read"):
        PseudoLabelDataset(store)[0]


def test_an_image_of_another_shape_is_refused_by_name(tmp_path):
    store = make_store(tmp_path, [Picture("a.ppm", (56, 84), (28, 42))])
    path = tmp_path / "images" / "a.ppm"
    Image.fromarray(made_image(0, (84, 56))).save(path)  # as many bytes
    with pytest.raises(LoaderError, match=r"default/a.ppm: the source image is 84x56 .* was 56x84"):
        PseudoLabelDataset(store)[0]


def test_a_photo_that_is_gone_is_named_with_the_ways_out(tmp_path):
    store = make_store(tmp_path, [Picture("a.png", (56, 56), (28, 28)), Picture("b.zip::x.png", (56, 56), (28, 28))])
    images = tmp_path / "images"
    (images / "a.png").unlink()
    with zipfile.ZipFile(images / "b.zip", "w") as archive:
        archive.writestr("other.png", b"")
    dataset = PseudoLabelDataset(store)
    for place, told in (
        (0, f"default/a.png: its photo is gone (No such file or directory, below {images}); "),
        (1, "default/b.zip::x.png: its photo is gone (the archive has no member 'x.png', or none that can be read); "),
    ):
        with pytest.raises(LoaderError) as caught:
            dataset[place]
        assert str(caught.value).startswith(told)
        for remedy in ("restore it", "`depthsieve label SOURCE STORE --prune`", "subset=...", "`label --store-images`"):
            assert remedy in str(caught.value)
    (images / "a.png").mkdir()
    with pytest.raises(LoaderError, match=r"default/a.png: the source image cannot be read \(.*\); restore it"):
        dataset[0]


def test_a_worker_names_the_image_too(tmp_path):
    store = make_store(tmp_path, [Picture("a.png", (56, 56), (28, 28))])
    (tmp_path / "images" / "a.png").unlink()
    with pytest.raises(LoaderError, match=r"^default/a.png: its photo is gone .* needs no photos$") as caught:
        list(PseudoLabelDataset(store).loader(1, num_workers=1))
    assert "in DataLoader worker process 0" in str(caught.value.__cause__)  # with all that led to it


def test_a_damaged_label_is_named(tmp_path):
    store = make_store(tmp_path, [Picture("a.png", (56, 56), (28, 28))])
    dataset = PseudoLabelDataset(store)
    (shard,) = (tmp_path / "labels" / "labels.zarr" / "shards").glob("0*/depth/c/0/0/0")
    content = bytearray(shard.read_bytes())
    content[100] ^= 1
    shard.write_bytes(content)
    with pytest.raises(StoreDamaged, match=r"default/a.png: its label \(shard 0000-000000, row 0.*repair` mends it$"):
        dataset[0]


@pytest.mark.parametrize(
    ("fault", "told"),
    [
        (
            StoreDamaged("x/depth: a checksum does not fit; restore it"),
            ": x/depth: a checksum does not fit; restore it",
        ),
        (OSError("disk gone"), " cannot be read (disk gone); `depthsieve verify --repair` mends it"),
    ],
)
def test_whatever_is_wrong_with_a_label_its_image_is_named(tmp_path, monkeypatch, fault, told):
    dataset = PseudoLabelDataset(make_store(tmp_path, [Picture("a.png", (56, 56), (28, 28))]))

    def broken(store, shard):
        raise fault

    dataset[0]  # so its threshold is known
    monkeypatch.setattr(Store, "reader", broken)
    with pytest.raises(StoreDamaged) as caught:
        dataset[0]
    label = f"default/a.png: its label (shard 0000-000000, row 0 of {tmp_path / 'labels'})"
    assert str(caught.value) == label + told
