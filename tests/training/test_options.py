"""Options of datasets and loaders: what is invalid, and how it is said."""

import dataclasses
import inspect
import json

import numpy as np
import pytest

from depthsieve.core.errors import LoaderError, StoreNotFound, UsageError
from depthsieve.training import Augment, PseudoLabelDataset
from depthsieve.training.delivery import Delivery


def test_defaults_of_the_loader_are_those_of_its_delivery():
    given = inspect.signature(PseudoLabelDataset.loader).parameters
    for one in dataclasses.fields(Delivery):
        assert given[one.name].default == one.default, one.name
    assert {one.kind for name, one in given.items() if name not in ("self", "global_batch")} == {
        inspect.Parameter.KEYWORD_ONLY
    }


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
    for epoch in ("1", 1.0, -1, True, None, 1 << 63):
        with pytest.raises(UsageError, match=f"an epoch must be a whole number of at least 0, not {epoch!r}"):
            dataset.set_epoch(epoch)
    with pytest.raises(LoaderError, match=r"a mask depends on the whole batch: take batches from dataset.loader"):
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
    with pytest.raises(TypeError, match="unexpected keyword argument 'shuffle'"):
        dataset.loader(4, shuffle=True)
    with pytest.raises(
        LoaderError, match=r"no batch is left: 13 images in 3 label shapes do not fill a batch of 8, .*; use a crop"
    ):
        dataset.loader(8, drop_last=True)


def test_whole_numbers_may_be_numpys(labels):
    plain = PseudoLabelDataset(labels, images=False, seed=3)
    other = PseudoLabelDataset(labels, images=False, seed=np.int64(3))
    plain.set_epoch(2)
    other.set_epoch(np.uint8(2))
    assert [sample["id"] for sample in other] == [sample["id"] for sample in plain]
    expected = plain.loader(4, rank=1, world_size=2)
    ranks = {"rank": np.int64(1), "world_size": np.int64(2)}
    same = other.loader(np.int64(4), num_workers=np.int32(0), threads=np.int64(2), prefetch=np.int8(3), **ranks)
    assert [batch["id"] for batch in same] == [batch["id"] for batch in expected]
    state = json.loads(json.dumps(same.state_dict()))
    assert state == expected.state_dict() and (state["epoch"], state["batch"]) == (1, 0)
    expected.load_state_dict(state | {"epoch": np.int64(4), "batch": np.int64(1)})
    assert json.loads(json.dumps(expected.state_dict()))["epoch"] == 4
