"""Samples: what ``dataset[i]`` holds, in which window, and whose files are open."""

import itertools
import os
import pickle

import numpy as np
import pytest
import torch
from served import IDS, ids_of, same, truth
from torch.utils.data import DataLoader, Subset

from depthsieve.core.errors import UsageError
from depthsieve.training import PseudoLabelDataset


def test_samples_hold_the_stored_label_and_its_image(labels):
    dataset = PseudoLabelDataset(labels)
    assert (len(dataset), dataset.ids, dataset.quantity) == (13, IDS, "disparity")
    assert ids_of(dataset) == IDS
    for sample in dataset:
        assert list(sample) == ["image", "depth", "reliability", "mask", "id"]
        image_HW3, depth_HW, reliability_HW = truth(sample["id"])
        assert sample["image"].dtype == torch.float32
        assert (sample["image"].numpy() == np.float32(image_HW3.transpose(2, 0, 1)) / 255).all()
        assert sample["depth"].dtype == torch.float32
        assert (sample["depth"].numpy() == depth_HW).all()
        assert sample["reliability"].dtype == torch.uint8
        assert (sample["reliability"].numpy() == reliability_HW).all()
        assert sample["mask"].dtype == torch.bool


@pytest.mark.parametrize("options", [{}, {"crop": 20, "seed": 5}, {"subset": IDS[3:7]}])
def test_item_i_is_that_of_the_ith_id_in_every_epoch(labels, options):
    dataset = PseudoLabelDataset(labels, images=False, **options)
    ids = dataset.ids
    for epoch in (0, 3):
        dataset.set_epoch(epoch)
        assert dataset.epoch == epoch
        assert ids_of(dataset[i] for i in range(len(dataset))) == ids_of(dataset) == ids
        assert [dataset[i]["id"] for i in (-1, -len(ids), np.int64(2), torch.tensor(1))] == [
            ids[i] for i in (-1, 0, 2, 1)
        ]
        assert ids_of(dataset[1:3]) == ids[1:3] and ids_of(dataset[::-2]) == ids[::-2] and dataset[9:2] == []
    for outside in (len(ids), -len(ids) - 1):
        with pytest.raises(IndexError, match=f"sample {outside} of {len(ids)}"):
            dataset[outside]
    with pytest.raises(UsageError, match=r"takes a whole number or a slice, not 'default/1.png'; dataset.ids"):
        dataset["default/1.png"]


@pytest.mark.parametrize("workers", [0, 2])
def test_torchs_own_dataloader_gives_batches_of_any_order(labels, workers):
    """As a user of plain PyTorch writes it, without a word of ours."""
    dataset = PseudoLabelDataset(labels, crop=20, flip=True)
    expected = {sample["id"]: sample for sample in dataset}
    found = list(DataLoader(dataset, batch_size=4, shuffle=True, num_workers=workers))
    assert [len(batch["id"]) for batch in found] == [4, 4, 4, 1]
    assert {name: tuple(value.shape) for name, value in found[0].items() if name != "id"} == {
        "image": (4, 3, 20, 20),
        "depth": (4, 20, 20),
        "reliability": (4, 20, 20),
        "mask": (4, 20, 20),
    }
    ids = list(itertools.chain(*ids_of(found)))
    assert sorted(ids) == IDS != ids
    for batch in found:
        same(
            [{name: batch[name][place] for name in batch} for place in range(len(batch["id"]))],
            [expected[image_id] for image_id in batch["id"]],
        )
    chosen = Subset(dataset, [7, 2, 11])
    assert ids_of(DataLoader(chosen, batch_size=3)) == [[IDS[7], IDS[2], IDS[11]]]


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_the_epoch_reaches_persistent_workers(labels, method):
    dataset = PseudoLabelDataset(labels, crop=20, flip=True)
    loader = DataLoader(
        dataset, batch_size=4, num_workers=1, persistent_workers=True, multiprocessing_context=method, prefetch_factor=1
    )
    ours = dataset.loader(4)
    seen = []
    for epoch in (0, 1, 2):
        dataset.set_epoch(epoch)
        windows = {i: depth for batch in loader for i, depth in zip(batch["id"], batch["depth"], strict=True)}
        for batch in ours:  # which counts by itself
            for image_id, depth in zip(batch["id"], batch["depth"], strict=True):
                assert torch.equal(windows[image_id], depth)
        seen.append(windows)
    for one, other in itertools.combinations(seen, 2):
        assert sum(not torch.equal(one[image_id], other[image_id]) for image_id in IDS) > 9


def test_copies_have_an_epoch_of_their_own_that_their_workers_hear_of(labels):
    dataset = PseudoLabelDataset(labels, images=False, crop=20)
    dataset.set_epoch(3)
    copy = pickle.loads(pickle.dumps(dataset))
    assert copy.epoch == 3
    loader = DataLoader(copy, 13, num_workers=1, persistent_workers=True, multiprocessing_context="fork")
    list(loader)
    copy.set_epoch(4)
    same(list(loader), list(DataLoader(copy, 13)))
    assert dataset.epoch == 3
    dataset.set_epoch(4)
    same([dataset[5]], [copy[5]])


def test_a_dataset_and_its_loader_say_what_they_are(home, labels):
    dataset = PseudoLabelDataset(labels, crop=(20, 24), drop=0.25, scope="dataset", seed=3)
    text = (
        f"PseudoLabelDataset({labels}: 13 images, disparity, drop=0.25, scope='dataset', crop=20x24, seed=3, "
        f"images from {home / 'images'})"
    )
    assert repr(dataset) == text
    loader = dataset.loader(4, rank=1, world_size=2)
    next(iter(loader))
    assert repr(loader) == f"BatchLoader(4 batches of 4 an epoch, rank 1 of 2, next: epoch 0, batch 1, of {text})"
    assert len(loader.dataset) == 13
    bare = repr(PseudoLabelDataset(labels, images=False, subset=IDS[:2]))
    assert "2 images, " in bare and "scope='image', whole labels, seed=0, images from nowhere)" in bare


def test_labels_without_images(labels):
    sample = PseudoLabelDataset(labels, images=False)[0]
    assert list(sample) == ["depth", "reliability", "mask", "id"]


def test_one_window_cuts_image_depth_reliability_and_mask(labels):
    whole = {sample["id"]: sample for sample in PseudoLabelDataset(labels)}
    dataset = PseudoLabelDataset(labels, crop=(20, 24), flip=True)
    places = set()
    for epoch in range(3):
        dataset.set_epoch(epoch)
        for sample in dataset:
            assert sample["depth"].shape == (20, 24)
            full = whole[sample["id"]]
            height, width = full["depth"].shape
            found = [
                (top, left, flip)
                for top, left, flip in itertools.product(range(height - 19), range(width - 23), (False, True))
                if torch.equal(cut(full["depth"], top, left, flip), sample["depth"])
            ]
            assert len(found) == 1
            for name in ("image", "reliability", "mask"):
                assert torch.equal(cut(full[name], *found[0]), sample[name])
            places.add((sample["id"], *found[0]))
    assert len(places) > 30  # an image has another window in another epoch
    assert {flip for *_, flip in places} == {False, True}


def cut(tensor, top, left, flip):
    part = tensor[..., top : top + 20, left : left + 24]
    return part.flip(-1) if flip else part


def test_without_flip_nothing_is_mirrored(labels):
    for sample in PseudoLabelDataset(labels, crop=(28, 28), subset=[f"default/{n}.png" for n in (10, 11, 12)]):
        assert (sample["depth"].numpy() == truth(sample["id"])[1]).all()


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
