"""Saved positions: what a state resumes with, and which states are refused."""

import itertools
import json
import shutil

import pytest
from served import IDS, SHAPES, ids_of, same
from storemaker import SPEC, add_planned, make_store, pictures

from depthsieve.core.errors import LoaderError
from depthsieve.core.records import RejectedImage
from depthsieve.training import PseudoLabelDataset


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
