"""Which pixels are masked, at each scope."""

import pytest
import torch
from served import IDS, largest_threshold, truth

from depthsieve.training import PseudoLabelDataset


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
            reliability_HW = batch["reliability"][place].numpy()
            assert (batch["mask"][place].numpy() == (reliability_HW >= t)).all()
            assert not batch["mask"][place][reliability_HW == 0].any()
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
    assert all(torch.equal(sample["mask"], sample["reliability"] >= t) for sample in dataset)
