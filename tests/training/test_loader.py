"""The dataset and its batches, on a real store and real images. What is tested is which pixels come, and when."""

import itertools
import json
import os
import pickle
import random
import shutil
import subprocess
import sys
from fractions import Fraction

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from storemaker import SPEC, Picture, add_planned, made_image, made_label, make_store, pictures
from torch.utils.data import DataLoader

from depthsieve.core.errors import LoaderError, StoreDamaged, StoreNotFound, UsageError
from depthsieve.core.records import RejectedImage
from depthsieve.store import Store
from depthsieve.training import Augment, PseudoLabelDataset, collate

SHAPES = {(28, 42): 6, (42, 28): 4, (28, 28): 3}
IDS = sorted(f"default/{n}.png" for n in range(13))


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    folder = tmp_path_factory.mktemp("home")
    make_store(folder, pictures(SHAPES))
    return folder


@pytest.fixture
def labels(home):
    return home / "labels"


def number_of(image_id):
    return int(image_id.removeprefix("default/").removesuffix(".png"))


def truth(image_id):
    """(image, depth, reliability) of a whole label, computed again."""
    number = number_of(image_id)
    shape = next(s for s, last in zip(SHAPES, itertools.accumulate(SHAPES.values()), strict=True) if number < last)
    image_HW3 = made_image(number, (2 * shape[0], 2 * shape[1]))[::2, ::2]
    return (image_HW3, *made_label(number, shape))


def largest_threshold(reliabilities, drop):
    """By trying: the largest code that masks at most ``drop`` of all valid pixels."""
    codes = np.concatenate([r[r > 0] for r in reliabilities])
    return max(t for t in range(1, 256) if (codes < t).sum() <= Fraction(str(drop)) * codes.size)


def ids_of(batches):
    return [batch["id"] for batch in batches]


def same(left, right):
    assert ids_of(left) == ids_of(right)
    for a, b in zip(left, right, strict=True):
        assert a.keys() == b.keys()
        assert all(torch.equal(a[name], b[name]) for name in a if name != "id")


# --- samples


def test_samples_hold_the_stored_label_and_its_image(labels):
    dataset = PseudoLabelDataset(labels)
    assert (len(dataset), dataset.ids, dataset.quantity) == (13, IDS, "disparity")
    seen = []
    for sample in dataset:
        image_HW3, depth_HW, reliability_HW = truth(sample["id"])
        assert sample["image_CHW"].dtype == torch.float32
        assert (sample["image_CHW"].numpy() == np.float32(image_HW3.transpose(2, 0, 1)) / 255).all()
        assert sample["depth_HW"].dtype == torch.float32
        assert (sample["depth_HW"].numpy() == depth_HW).all()
        assert sample["reliability_HW"].dtype == torch.uint8
        assert (sample["reliability_HW"].numpy() == reliability_HW).all()
        assert sample["mask_HW"].dtype == torch.bool
        seen.append(sample["id"])
    assert sorted(seen) == IDS
    with pytest.raises(IndexError):
        dataset[13]


@pytest.mark.parametrize("drop", [0, 0.1, 0.29, 0.9])
@pytest.mark.parametrize("scope", ["image", "batch", "dataset"])
@pytest.mark.parametrize("crop", [None, 20])
def test_masks_are_exact_at_every_scope(labels, drop, scope, crop):
    dataset = PseudoLabelDataset(labels, images=False, drop=drop, scope=scope, crop=crop)
    loader = dataset.loader(global_batch=4)
    of_all = largest_threshold([truth(image_id)[2] for image_id in IDS], drop)
    masked = valid = 0
    for batch in loader:
        whole = [truth(image_id)[2] for image_id in batch["id"]]
        in_batch = largest_threshold(whole, drop)
        for place, full_HW in enumerate(whole):
            t = {"image": largest_threshold([full_HW], drop), "batch": in_batch, "dataset": of_all}[scope]
            reliability_HW = batch["reliability_BHW"][place].numpy()
            assert (batch["mask_BHW"][place].numpy() == (reliability_HW >= t)).all()
            assert not batch["mask_BHW"][place][reliability_HW == 0].any()
            masked += int(((full_HW > 0) & (full_HW < t)).sum())
            valid += int((full_HW > 0).sum())
    loader.load_state_dict(loader.state_dict() | {"epoch": 0})
    assert loader.masked_share() == pytest.approx(masked / valid, abs=1e-12)
    assert loader.masked_share() <= drop
    assert (drop == 0) == (masked == 0)
    if scope != "batch":
        assert dataset.masked_share() == loader.masked_share()


def test_the_scope_dataset_is_the_subset_in_use(labels):
    subset = IDS[2:6]
    dataset = PseudoLabelDataset(labels, images=False, subset=subset, scope="dataset")
    t = largest_threshold([truth(image_id)[2] for image_id in subset], 0.1)
    assert t != largest_threshold([truth(image_id)[2] for image_id in IDS], 0.1)
    assert all(torch.equal(sample["mask_HW"], sample["reliability_HW"] >= t) for sample in dataset)


def test_one_window_cuts_image_depth_reliability_and_mask(labels):
    whole = {sample["id"]: sample for sample in PseudoLabelDataset(labels)}
    dataset = PseudoLabelDataset(labels, crop=(20, 24), flip=True)
    places = set()
    for epoch in range(3):
        dataset.set_epoch(epoch)
        for sample in dataset:
            assert sample["depth_HW"].shape == (20, 24)
            full = whole[sample["id"]]
            height, width = full["depth_HW"].shape
            found = [
                (top, left, flip)
                for top, left, flip in itertools.product(range(height - 19), range(width - 23), (False, True))
                if torch.equal(cut(full["depth_HW"], top, left, flip), sample["depth_HW"])
            ]
            assert len(found) == 1
            for name in ("image_CHW", "reliability_HW", "mask_HW"):
                assert torch.equal(cut(full[name], *found[0]), sample[name])
            places.add((sample["id"], *found[0]))
    assert len(places) > 30  # an image has another window in another epoch
    assert {flip for *_, flip in places} == {False, True}


def cut(tensor, top, left, flip):
    part = tensor[..., top : top + 20, left : left + 24]
    return part.flip(-1) if flip else part


def test_without_flip_nothing_is_mirrored(labels):
    for sample in PseudoLabelDataset(labels, crop=(28, 28), subset=[f"default/{n}.png" for n in (10, 11, 12)]):
        assert (sample["depth_HW"].numpy() == truth(sample["id"])[1]).all()


# --- order


def test_workers_and_their_kind_change_nothing(labels):
    dataset = PseudoLabelDataset(labels, crop=20, scope="batch", flip=True)
    alone = list(dataset.loader(global_batch=4))
    next(iter(PseudoLabelDataset(labels)))
    same(alone, list(dataset.loader(4, num_workers=2, multiprocessing_context="fork")))
    same(alone, list(dataset.loader(4, num_workers=1, multiprocessing_context="spawn")))


def test_forked_workers_open_their_own_files(labels):
    dataset = PseudoLabelDataset(labels, crop=20)
    first = [sample["id"] for sample in dataset]  # this process has them open now
    mine = dataset._samples._reader

    def what_is_open(samples):
        return [sample["id"] for sample in samples], dataset._samples._reader.process, os.getpid()

    forked = DataLoader(dataset, 13, num_workers=1, multiprocessing_context="fork", collate_fn=what_is_open)
    ((found, opened_by, worker),) = forked
    assert found == first
    assert opened_by == worker != os.getpid()
    assert dataset._samples._reader is mine
    copy = pickle.loads(pickle.dumps(dataset))
    assert copy._samples._reader is None
    assert [sample["id"] for sample in copy] == first
    assert copy.masked_share() == dataset.masked_share()


def test_persistent_workers_serve_each_epoch_its_own_windows(labels):
    dataset = PseudoLabelDataset(labels, crop=20)
    alone, kept = dataset.loader(4), dataset.loader(4, num_workers=1, persistent_workers=True)
    epochs = [list(alone), list(alone)]
    same(epochs[0], list(kept))
    same(epochs[1], list(kept))
    windows = [
        {i: d for batch in epoch for i, d in zip(batch["id"], batch["depth_BHW"], strict=True)} for epoch in epochs
    ]
    assert ids_of(epochs[0]) != ids_of(epochs[1])
    assert any(not torch.equal(windows[0][image_id], windows[1][image_id]) for image_id in IDS)


def test_a_plain_dataloader_gives_the_same_batches_of_crops(labels):
    dataset = PseudoLabelDataset(labels, crop=20)
    loader = dataset.loader(global_batch=4)
    for epoch in range(2):
        dataset.set_epoch(epoch)
        same(list(loader), list(DataLoader(dataset, batch_size=4, collate_fn=collate)))


@pytest.mark.parametrize("crop", [None, 20])
def test_every_image_comes_once_an_epoch_and_epochs_differ(labels, crop):
    loader = PseudoLabelDataset(labels, images=False, crop=crop).loader(global_batch=4)
    epochs = [ids_of(loader) for _ in range(3)]
    for epoch in epochs:
        assert sorted(itertools.chain(*epoch)) == IDS
        assert len(epoch) == len(loader) == 4 if crop else 5
    assert epochs[0] != epochs[1] != epochs[2]
    again = PseudoLabelDataset(labels, images=False, crop=crop).loader(global_batch=4)
    assert [ids_of(again) for _ in range(3)] == epochs
    other = PseudoLabelDataset(labels, images=False, crop=crop, seed=1).loader(global_batch=4)
    assert ids_of(other) != epochs[0]


def test_whole_labels_come_in_batches_of_one_shape(labels):
    for batch in PseudoLabelDataset(labels).loader(global_batch=4):
        count = len(batch["id"])
        height, width = truth(batch["id"][0])[1].shape
        assert batch["image_BCHW"].shape == (count, 3, height, width)
        assert batch["depth_BHW"].shape == batch["mask_BHW"].shape == (count, height, width)


@pytest.mark.parametrize(("crop", "left_out"), [(None, 1), (20, 1)])
def test_ranks_share_each_global_batch_and_only_odd_tails_are_left_out(labels, crop, left_out):
    dataset = PseudoLabelDataset(labels, images=False, crop=crop, scope="batch")
    alone = dataset.loader(global_batch=4)
    ranks = [dataset.loader(global_batch=4, rank=rank, world_size=2) for rank in range(2)]
    assert [loader.left_out for loader in (alone, *ranks)] == [0, left_out, left_out]
    for _ in range(2):
        whole, parts = ids_of(alone), [list(loader) for loader in ranks]
        assert [len(loader) for loader in ranks] == [len(part) for part in parts]
        assert [len(b["id"]) for b in parts[0]] == [len(b["id"]) for b in parts[1]]
        together = [a + b for a, b in zip(*map(ids_of, parts), strict=True)]
        assert together == [cut for b in whole if (cut := b[: len(b) - len(b) % 2])]
        for first, second in zip(*parts, strict=True):
            t = largest_threshold([truth(i)[2] for i in first["id"] + second["id"]], 0.1)
            for batch in (first, second):
                assert torch.equal(batch["mask_BHW"], batch["reliability_BHW"] >= t)


def test_drop_last_leaves_out_incomplete_batches(labels):
    loader = PseudoLabelDataset(labels, images=False).loader(global_batch=4, drop_last=True)
    assert (len(loader), loader.left_out) == (2, 5)
    assert [len(batch) for batch in ids_of(loader)] == [4, 4]


def test_ranks_are_those_of_torch_distributed(labels):
    from torch.testing._internal.distributed.fake_pg import FakeStore

    dataset = PseudoLabelDataset(labels, images=False, crop=20)
    torch.distributed.init_process_group("fake", rank=1, world_size=2, store=FakeStore())
    try:
        found = ids_of(dataset.loader(global_batch=4))
    finally:
        torch.distributed.destroy_process_group()
    assert found == ids_of(dataset.loader(global_batch=4, rank=1, world_size=2))
    assert found != ids_of(dataset.loader(global_batch=4))


def test_random_state_of_the_process_is_neither_read_nor_changed(labels):
    dataset = PseudoLabelDataset(labels, crop=20, flip=True)
    first = list(dataset.loader(global_batch=4))
    before = torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist()
    same(first, list(dataset.loader(global_batch=4, num_workers=1)))
    assert torch.equal(before[0], torch.get_rng_state())
    assert before[1:] == (random.getstate(), np.random.get_state()[1].tolist())
    torch.manual_seed(99)
    same(first, list(dataset.loader(global_batch=4)))


# --- state


@pytest.mark.parametrize(("workers", "taken"), [(0, 0), (0, 2), (2, 2), (0, 4)])
def test_a_saved_state_goes_on_with_what_was_not_delivered(labels, workers, taken):
    def fresh():
        return PseudoLabelDataset(labels, crop=20, scope="batch").loader(4, num_workers=workers)

    reference, stopped = fresh(), fresh()
    expected = [*reference, *reference]
    for _ in itertools.islice(stopped, taken):
        pass
    state = json.loads(json.dumps(stopped.state_dict()))
    assert (state["epoch"], state["batch"]) == divmod(taken, 4)
    resumed = fresh()
    resumed.load_state_dict(state)
    assert resumed.epoch == taken // 4
    found = [batch for _ in range(resumed.epoch, 2) for batch in resumed]
    same(found, expected[taken:])
    assert (resumed.state_dict()["epoch"], resumed.state_dict()["batch"]) == (2, 0)


def test_a_pass_left_early_is_gone_on_with(labels):
    loader = PseudoLabelDataset(labels, images=False).loader(global_batch=4)
    expected = ids_of(PseudoLabelDataset(labels, images=False).loader(global_batch=4))
    assert [next(iter(loader))["id"], next(iter(loader))["id"]] == expected[:2]
    assert ids_of(loader) == expected[2:]
    assert loader.epoch == 1


def test_a_pass_left_after_its_last_batch_is_over(labels):
    """As loops do that count batches: they never ask for the end."""
    loader = PseudoLabelDataset(labels, images=False).loader(global_batch=4)
    reference = PseudoLabelDataset(labels, images=False).loader(global_batch=4)
    for epoch in range(3):
        assert ids_of(itertools.islice(loader, len(loader))) == ids_of(reference)
        assert loader.epoch == epoch
        assert loader.state_dict() == reference.state_dict()


def test_two_passes_at_once_are_refused(labels):
    loader = PseudoLabelDataset(labels, images=False, crop=20).loader(global_batch=13)
    older = iter(loader)
    next(older)
    loader.load_state_dict(loader.state_dict() | {"epoch": 7, "batch": 0})
    with pytest.raises(LoaderError, match="newer pass"):
        next(older)
    assert loader.epoch == 7


def test_a_state_goes_on_with_another_number_of_ranks(labels):
    dataset = PseudoLabelDataset(labels, images=False)
    alone = dataset.loader(global_batch=4)
    whole = ids_of(alone)
    stopped = dataset.loader(global_batch=4, rank=0, world_size=2)
    mine = next(iter(stopped))["id"]
    taken = next(n for n, batch in enumerate(whole) if batch[: len(mine)] == mine) + 1
    alone.load_state_dict(stopped.state_dict())
    assert ids_of(alone) == whole[taken:]


@pytest.mark.parametrize(
    ("name", "here"),
    [
        ("seed", {"seed": 1}),
        ("drop", {"drop": 0.2}),
        ("scope", {"scope": "dataset"}),
        ("crop", {"crop": 21}),
        ("flip", {"flip": True}),
        ("subset", {"subset": IDS[1:]}),
        ("global_batch", {"global_batch": 2}),
        ("drop_last", {"drop_last": True}),
    ],
)
def test_a_state_of_other_settings_is_refused_by_name(labels, name, here):
    def loader(global_batch=4, drop_last=False, **options):
        dataset = PseudoLabelDataset(labels, **{"images": False, "crop": 20} | options)
        return dataset.loader(global_batch=global_batch, drop_last=drop_last)

    stopped, other = loader(), loader(**here)
    next(iter(stopped))
    with pytest.raises(LoaderError) as caught:
        other.load_state_dict(stopped.state_dict())
    assert f"{name} is {other.state_dict()[name]!r} here and {stopped.state_dict()[name]!r} in" in str(caught.value)
    assert str(caught.value).count(" in the state") == 1
    assert other.state_dict()["batch"] == 0


def test_a_state_of_other_labels_is_refused(tmp_path, labels):
    grown = tmp_path / "grown"
    shutil.copytree(labels, grown)
    before = PseudoLabelDataset(grown, images=False).loader(4)
    store = before._samples.store
    add_planned(store, [], [RejectedImage("default/new.png", 1, 1, "made up")])
    with pytest.raises(LoaderError, match="snapshot is"):
        PseudoLabelDataset(grown, images=False).loader(4).load_state_dict(before.state_dict())
    spec = type(SPEC)(**vars(SPEC) | {"quantity": "depth", "unit": "m"})
    other = PseudoLabelDataset(make_store(tmp_path / "other", pictures(SHAPES), spec=spec), images=False)
    assert other.quantity == "depth"
    with pytest.raises(LoaderError, match="fingerprint is"):
        other.loader(4).load_state_dict(before.state_dict())


@pytest.mark.parametrize("change", [{"epoch": -1}, {"batch": 6}, {"batch": 1.5}, {"more": 1}])
def test_a_state_that_is_none_is_refused(labels, change):
    loader = PseudoLabelDataset(labels, images=False).loader(4)
    with pytest.raises(LoaderError, match=r"not in an epoch|its keys must be"):
        loader.load_state_dict(loader.state_dict() | change)


# --- subsets


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
    refused(tmp_path / "none.parquet", "cannot be read")
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
    refused(["default/\udcff.jpg"], r"'default/\\udcff.jpg', which is no image id: .* as %FF", UsageError)


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


# --- images


def test_images_that_moved(tmp_path, home, labels):
    moved = tmp_path / "moved"
    shutil.copytree(home, moved)
    (moved / "images" / "0.png").unlink()
    by_path = PseudoLabelDataset(labels, images=moved / "images")
    with pytest.raises(LoaderError, match=r"default/0.png: .*cannot be read \(No such file"):
        list(by_path)
    kept = PseudoLabelDataset(labels, images={"default": moved / "images"}, subset=IDS[1:])
    same(list(kept.loader(4)), list(PseudoLabelDataset(labels, subset=IDS[1:]).loader(4)))
    with pytest.raises(LoaderError, match=r"'default' are not at .*nowhere; if they moved, pass images="):
        PseudoLabelDataset(labels, images=tmp_path / "nowhere")
    with pytest.raises(UsageError, match="names the source 'other'; this store has default"):
        PseudoLabelDataset(labels, images={"other": moved})
    with pytest.raises(UsageError, match="images must be"):
        PseudoLabelDataset(labels, images=True)


def test_labels_without_images(labels):
    sample = PseudoLabelDataset(labels, images=False)[0]
    assert list(sample) == ["depth_HW", "reliability_HW", "mask_HW", "id"]


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


def test_a_worker_names_the_image_too(tmp_path):
    store = make_store(tmp_path, [Picture("a.png", (56, 56), (28, 28))])
    (tmp_path / "images" / "a.png").unlink()
    with pytest.raises(LoaderError, match=r"default/a.png: the source image cannot be read"):
        list(PseudoLabelDataset(store).loader(1, num_workers=1))


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


# --- arguments


@pytest.mark.parametrize("drop", [-0.1, 1, 1.5, float("nan"), "much", "0.1"])
def test_drop_out_of_range(labels, drop):
    with pytest.raises(UsageError, match="drop must be"):
        PseudoLabelDataset(labels, drop=drop)


def test_arguments_that_cannot_be_meant(labels, tmp_path):
    with pytest.raises(StoreNotFound):
        PseudoLabelDataset(tmp_path / "nothing")
    with pytest.raises(UsageError, match="scope must be 'image', 'batch' or 'dataset', not 'pixel'"):
        PseudoLabelDataset(labels, scope="pixel")
    for wrong, told in (
        ({"seed": 0.5}, "seed must be a whole number, not 0.5"),
        ({"seed": True}, "seed must be a whole number, not True"),
        ({"augment": "strong"}, r"augment must be an Augment, for example .*, not 'strong'"),
        ({"images": {"default": None}}, "images must give a path for the source 'default', not None"),
        ({"subset": 5}, "subset must hold image ids .*, not 5"),
    ):
        with pytest.raises(UsageError, match=told):
            PseudoLabelDataset(labels, **wrong)
    with pytest.raises(LoaderError, match=r"crop 30x20 .* 9 of 13 images .* is 28x28\); use a crop of at most 28x28"):
        PseudoLabelDataset(labels, crop=(30, 20))
    with pytest.raises(LoaderError, match=r"is 28x28\); use a scale of up to 2.858, or a subset without them"):
        PseudoLabelDataset(labels, crop=80, augment=Augment(scale=(1e-9, 1e-8), crop=1))
    assert PseudoLabelDataset(labels, crop=80, augment=Augment(scale=(1, 2.858))).crop == (80, 80)
    dataset = PseudoLabelDataset(labels, images=False, scope="batch")
    for epoch in ("1", 1.0, -1, True, None):
        with pytest.raises(UsageError, match=f"an epoch must be a whole number of at least 0, not {epoch!r}"):
            dataset.set_epoch(epoch)
    with pytest.raises(LoaderError, match="loader\\(global_batch"):
        dataset[0]
    with pytest.raises(UsageError, match="masked_share"):
        dataset.masked_share()
    for wrong in (
        {"global_batch": 0},
        {"global_batch": 3, "rank": 0, "world_size": 2},
        {"global_batch": 1.0},
        {"global_batch": True},
    ):
        with pytest.raises(UsageError, match="global_batch counts"):
            dataset.loader(**wrong)
    for wrong in ({"rank": 1}, {"world_size": 2}, {"rank": 2, "world_size": 2}, {"rank": -1, "world_size": 2}):
        with pytest.raises(UsageError, match="rank"):
            dataset.loader(4, **wrong)
    for wrong in ({"rank": "0", "world_size": "2"}, {"rank": 0.0, "world_size": 2}, {"rank": 0, "world_size": True}):
        with pytest.raises(UsageError, match="rank and world_size must be whole numbers, not"):
            dataset.loader(4, **wrong)
    with pytest.raises(UsageError, match="drop_last must be True or False, not 'no'"):
        dataset.loader(4, drop_last="no")
    with pytest.raises(UsageError, match="shuffle is the loader's own"):
        dataset.loader(4, shuffle=True)
    with pytest.raises(LoaderError, match="no batch is left: 13 images in 3 label shapes"):
        dataset.loader(8, drop_last=True)


def test_whole_numbers_may_be_numpys(labels):
    plain = PseudoLabelDataset(labels, images=False, seed=3)
    other = PseudoLabelDataset(labels, images=False, seed=np.int64(3))
    plain.set_epoch(2)
    other.set_epoch(np.uint8(2))
    assert [sample["id"] for sample in other] == [sample["id"] for sample in plain]
    expected = plain.loader(4, rank=1, world_size=2)
    same = other.loader(np.int64(4), np.int32(0), np.int64(1), np.int64(2), threads=np.int64(2), prefetch=np.int8(3))
    assert [batch["id"] for batch in same] == [batch["id"] for batch in expected]
    state = json.loads(json.dumps(same.state_dict()))
    assert state == expected.state_dict() and (state["epoch"], state["batch"]) == (1, 0)
    expected.load_state_dict(state | {"epoch": np.int64(4), "batch": np.int64(1)})
    assert json.loads(json.dumps(expected.state_dict()))["epoch"] == 4


README = """
from depthsieve.training import PseudoLabelDataset

dataset = PseudoLabelDataset("labels", drop=0.10, crop=20, seed=0)
loader = dataset.loader(global_batch=4, num_workers=WORKERS)
for epoch in range(2):
    for batch in loader:  # another order and other windows in each epoch
        image_BCHW, depth_BHW, mask_BHW = batch["image_BCHW"], batch["depth_BHW"], batch["mask_BHW"]
        print(epoch, *batch["id"], float(depth_BHW[mask_BHW].sum()), tuple(image_BCHW.shape))
    checkpoint = loader.state_dict()
"""


def test_the_lines_of_the_readme_run_and_another_process_sees_the_same(home, capsys, monkeypatch):
    monkeypatch.chdir(home)
    script = README.replace("WORKERS", "2")
    other = subprocess.run([sys.executable, "-W", "error", "-c", script], capture_output=True, text=True, check=True)
    exec(README.replace("WORKERS", "0"), {})
    assert other.stdout == capsys.readouterr().out
    assert len(other.stdout.splitlines()) == 8
