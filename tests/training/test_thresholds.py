"""Thresholds at the three scopes, against counting the pixels of made labels."""

import pickle
from pathlib import Path

import numpy as np
import pytest
from storemaker import Picture, made_label, make_store, pictures

from depthsieve.core.errors import StoreDamaged, UsageError
from depthsieve.reliability.masking import threshold_code
from depthsieve.store import Store, open_store
from depthsieve.store.arrays import ShardReader
from depthsieve.training.samples import Pixels
from depthsieve.training.selection import Selection, select
from depthsieve.training.thresholds import Thresholds

SHAPES = {(28, 28): 5, (28, 42): 4, (42, 28): 2}
DROP = 0.2


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """11 pictures in 5 shards; one failed."""
    images = pictures(SHAPES)
    images[3] = Picture("3.png", (56, 56), (28, 28), failed=True)
    return make_store(tmp_path_factory.mktemp("labels"), images)


def number_of(image_id: str) -> int:
    return int(image_id.removeprefix("default/").removesuffix(".png"))


def histograms(store: Store, selection: Selection) -> np.ndarray:
    """[N,256] counted from the pixels."""
    rows = []
    for entry in (selection[index] for index in range(len(selection))):
        _, codes = made_label(number_of(entry.id), entry.label_shape)
        rows.append(np.bincount(codes.ravel(), minlength=256))
    return np.array(rows)


def pixels(histogram: np.ndarray, t: int) -> Pixels:
    return Pixels(int(histogram[1:].sum()), int(histogram[t:].sum()))


@pytest.mark.parametrize("subset", [None, ["default/1.png", "default/4.png", "default/10.png", "default/5.png"]])
def test_every_scope_counts_the_pixels_of_what_is_served(store: Store, subset: list[str] | None) -> None:
    selection = select(store, subset)
    counts = histograms(store, selection)
    indices = np.arange(len(selection))[::-1]
    each = [threshold_code(row, DROP) for row in counts]
    shared = threshold_code(counts.sum(0), DROP)
    assert len(set(each)) > 2 and shared not in (min(each), max(each))

    image = Thresholds(store, selection, DROP, "image")
    codes = image.of(indices)
    assert codes.dtype == np.int16 and codes.tolist() == each[::-1]
    assert image.count() == sum((pixels(row, t) for row, t in zip(counts, each, strict=True)), Pixels())
    assert 0 < image.masked_share() <= DROP

    dataset = Thresholds(store, selection, DROP, "dataset")
    assert dataset.of(indices).tolist() == [shared] * len(selection)
    assert dataset.count() == pixels(counts.sum(0), shared)

    batch = Thresholds(store, selection, DROP, "batch")
    for members in (np.array([0, 3]), np.array([1, 2, 3]), np.array([0, 3])):
        own = threshold_code(counts[members].sum(0), DROP)
        assert batch.of_batch(members) == own
        assert batch.count_batch(members) == pixels(counts[members].sum(0), own)
    for refused in (lambda: batch.of(indices), batch.count, batch.masked_share):
        with pytest.raises(UsageError, match="depends on the batches"):
            refused()


def test_they_travel_to_another_process(store: Store) -> None:
    thresholds = Thresholds(store, select(store, None), DROP, "image")
    indices = np.arange(10)
    before = thresholds.of(indices[:3])
    copy = pickle.loads(pickle.dumps(thresholds))
    assert copy.of(indices).tolist() == thresholds.of(indices).tolist()
    assert copy.of(indices)[:3].tolist() == before.tolist()


def test_a_whole_dataset_is_summed_from_its_records(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only of the shard of which images are left out a histogram is read. A failed image is none."""
    read = []
    column = ShardReader.column
    monkeypatch.setattr(ShardReader, "column", lambda self, name: read.append(name) or column(self, name))
    whole = select(store, None)
    Thresholds(store, whole, DROP, "dataset")
    assert read == []
    Thresholds(store, select(store, [image for image in whole.ids if image != "default/9.png"]), DROP, "dataset")
    assert read == ["histogram"]
    image = Thresholds(store, whole, DROP, "image")
    image.of(np.array([0, 0, 1]))
    assert len(read) == 1 + len({whole[0].shard, whole[1].shard})


def test_a_damaged_histogram_is_found_before_single_rows_of_it_are_used(tmp_path: Path) -> None:
    store = make_store(tmp_path, pictures({(28, 28): 3}))
    selection = select(store, None)
    (file,) = store.path.glob("labels.zarr/shards/*/histogram/c/0/0")
    data = bytearray(file.read_bytes())
    data[2 * 1024 + 4 * 60] ^= 1
    file.write_bytes(data)
    for scope in ("image", "batch"):
        thresholds = Thresholds(open_store(store.path), selection, DROP, scope)
        for _ in range(2):
            with pytest.raises(StoreDamaged, match=r"histogram cannot be read: a checksum does not fit"):
                thresholds.of(np.array([0])) if scope == "image" else thresholds.of_batch(np.array([0]))
