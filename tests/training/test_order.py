"""Which images come when: in an epoch, in batches, on ranks; and that nothing else changes it."""

import itertools
import random
import subprocess
import sys

import numpy as np
import pytest
import torch
from served import IDS, ids_of, same, truth

from depthsieve.training import PseudoLabelDataset


def test_workers_and_their_kind_change_nothing(labels):
    dataset = PseudoLabelDataset(labels, crop=20, scope="batch", flip=True)
    alone = list(dataset.loader(global_batch=4))
    next(iter(PseudoLabelDataset(labels)))
    same(alone, list(dataset.loader(4, num_workers=2, multiprocessing_context="fork")))
    same(alone, list(dataset.loader(4, num_workers=1, multiprocessing_context="spawn")))


def test_persistent_workers_serve_each_epoch_its_own_windows(labels):
    dataset = PseudoLabelDataset(labels, crop=20)
    alone, kept = dataset.loader(4), dataset.loader(4, num_workers=1, persistent_workers=True)
    epochs = [list(alone), list(alone)]
    same(epochs[0], list(kept))
    same(epochs[1], list(kept))
    windows = [{i: d for batch in epoch for i, d in zip(batch["id"], batch["depth"], strict=True)} for epoch in epochs]
    assert ids_of(epochs[0]) != ids_of(epochs[1])
    assert any(not torch.equal(windows[0][image_id], windows[1][image_id]) for image_id in IDS)


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
        assert batch["image"].shape == (count, 3, height, width)
        assert batch["depth"].shape == batch["mask"].shape == (count, height, width)


@pytest.mark.parametrize("crop", [None, 20])
def test_ranks_share_each_global_batch_and_all_get_as_much(labels, crop):
    """Whatever the ranks, the global batches and their masks are the same; an image of a tail may come to two ranks."""
    dataset = PseudoLabelDataset(labels, images=False, crop=crop, scope="batch")
    alone = dataset.loader(global_batch=4)
    epochs = [list(alone), list(alone)]
    shares = [[alone.load_state_dict(alone.state_dict() | {"epoch": n}), alone.masked_share()][1] for n in (0, 1)]
    for world_size, extra in ((1, 0), (2, 1), (4, 3)):
        ranks = [dataset.loader(global_batch=4, rank=rank, world_size=world_size) for rank in range(world_size)]
        assert {(len(loader), loader.left_out, loader.repeated) for loader in ranks} == {(len(alone), 0, extra)}
        for whole, share in zip(epochs, shares, strict=True):
            assert {loader.masked_share() for loader in ranks} == {share}
            parts = [list(loader) for loader in ranks]
            assert {len(part) for part in parts} == {len(whole)}
            came = 0
            for number, batch in enumerate(whole):
                mine = [part[number] for part in parts]
                ids = list(itertools.chain(*ids_of(mine)))
                assert len({len(one["id"]) for one in mine}) == 1
                assert ids == list(itertools.islice(itertools.cycle(batch["id"]), len(ids)))
                assert 0 <= len(ids) - len(batch["id"]) < world_size
                came += len(ids)
                for name in ("depth", "mask"):
                    together = torch.cat([one[name] for one in mine])
                    assert torch.equal(together[: len(batch["id"])], batch[name])
            assert came == 13 + extra


def test_drop_last_leaves_out_incomplete_batches(labels):
    loader = PseudoLabelDataset(labels, images=False).loader(global_batch=4, drop_last=True)
    assert (len(loader), loader.left_out, loader.repeated) == (2, 5, 0)
    found = ids_of(loader)
    assert [len(batch) for batch in found] == [4, 4]
    dataset = PseudoLabelDataset(labels, images=False)
    parts = [ids_of(dataset.loader(4, rank=rank, world_size=4, drop_last=True)) for rank in range(4)]
    assert [list(itertools.chain(*one)) for one in zip(*parts, strict=True)] == found


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


SCRIPT = """
from depthsieve.training import PseudoLabelDataset

dataset = PseudoLabelDataset("labels", drop=0.10, crop=20, seed=0)
loader = dataset.loader(global_batch=4, num_workers=WORKERS)
for epoch in range(2):
    for batch in loader:  # another order and other windows in each epoch
        image_BCHW, depth_BHW, mask_BHW = batch["image"], batch["depth"], batch["mask"]
        print(epoch, *batch["id"], float(depth_BHW[mask_BHW].sum()), tuple(image_BCHW.shape))
    checkpoint = loader.state_dict()
"""


def test_another_process_sees_the_same_batches(home, capsys, monkeypatch):
    monkeypatch.chdir(home)
    script = SCRIPT.replace("WORKERS", "2")
    other = subprocess.run([sys.executable, "-W", "error", "-c", script], capture_output=True, text=True, check=True)
    exec(SCRIPT.replace("WORKERS", "0"), {})
    assert other.stdout == capsys.readouterr().out
    assert len(other.stdout.splitlines()) == 8
