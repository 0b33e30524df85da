"""Labels read with the reliability of a layer: by a store, a data set, a loader."""

import json
import pickle
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zarr
from layered import NAME, group_of, write_calibration

import depthsieve
from depthsieve.core.errors import (
    LoaderError,
    StoreError,
)
from depthsieve.reliability.masking import threshold_code
from depthsieve.store import open_store
from depthsieve.store.layer_kinds import SIGNALS
from depthsieve.training import PseudoLabelDataset


def test_a_store_opened_with_a_layer_serves_its_reliability_and_nothing_else_changes(made: Path) -> None:
    plain, layered = open_store(made / "store"), open_store(made / "store", reliability=NAME)
    assert layered.images == plain.images and layered.snapshot() == plain.snapshot()
    copies = [layered, pickle.loads(pickle.dumps(layered)), plain.with_layer(NAME)]
    differ = 0
    for shard_id in sorted(plain.committed()):
        codes = zarr.open_group(group_of(made / "store", NAME, shard_id), mode="r")
        for store in copies:
            assert (store.reader(shard_id).column("histogram") == codes["histogram"][:]).all()
        for row, image in enumerate(plain.reader(shard_id).column("id").tolist()):
            if image in plain.images:
                label = plain.label(image)
                for store in copies:
                    assert (store.label(image).reliability == codes["reliability"][row]).all()
                    assert (store.label(image).depth == label.depth).all()
                differ += int((label.reliability != codes["reliability"][row]).sum())
    assert differ > 1000
    assert pickle.loads(pickle.dumps(plain)).layer is None


@pytest.mark.parametrize("name", ["nothing", SIGNALS, "../layers/" + NAME, ""])
def test_an_unknown_layer_is_named_with_those_there_are(made: Path, name: str) -> None:
    for attempt in (
        open_store,
        lambda path, reliability: PseudoLabelDataset(path, images=False, reliability=reliability),
    ):
        with pytest.raises(StoreError, match=r"no layer of reliability called '.*'; there are: edges\+flip\+lowres-9"):
            attempt(made / "store", reliability=name)


@pytest.mark.parametrize("workers", [0, 2])
def test_the_loader_masks_by_the_layer(made: Path, workers: int) -> None:
    dataset = PseudoLabelDataset(made / "store", images=False, drop=0.3, reliability=NAME)
    served = open_store(made / "store", reliability=NAME)
    loader = dataset.loader(2, num_workers=workers)
    seen = []
    for batch in loader:
        for place, image in enumerate(batch["id"]):
            code_HW = served.label(image).reliability
            t = threshold_code(np.bincount(code_HW.ravel(), minlength=256), 0.3)
            assert (batch["reliability"][place].numpy() == code_HW).all()
            assert (batch["mask"][place].numpy() == (code_HW >= t)).all()
            seen.append(image)
    assert sorted(seen) == dataset.ids == served.images


def test_a_state_of_another_layer_is_refused(made: Path, store: Path, tmp_path: Path) -> None:
    def loader(reliability: str | None) -> Any:
        return PseudoLabelDataset(store, images=False, reliability=reliability).loader(2)

    depthsieve.recalibrate(
        store, calibration=write_calibration(tmp_path / "o.json", "9", flip=0.5), name="other", progress=False
    )
    states = {name: loader(name).state_dict() for name in (None, NAME, "other")}
    for here in states:
        for there, state in states.items():
            if here == there:
                loader(here).load_state_dict(json.loads(json.dumps(state)))
            else:
                with pytest.raises(LoaderError, match="reliability is "):
                    loader(here).load_state_dict(state)
    shutil.rmtree(store / "layers" / "other")  # the same name, written again with another calibration
    depthsieve.recalibrate(
        store, calibration=write_calibration(tmp_path / "p.json", "9", flip=0.6), name="other", progress=False
    )
    with pytest.raises(LoaderError, match="reliability is 'other"):
        loader("other").load_state_dict(states["other"])


def test_a_store_that_grew_since_can_still_be_unpickled(made: Path, store: Path) -> None:
    dataset = PseudoLabelDataset(store, images=False, reliability=NAME)
    pickled = pickle.dumps(dataset)
    (store / "layers" / NAME / "commits" / "0000-000002.json").unlink()  # as if labelled after it was opened
    again = pickle.loads(pickled)
    with pytest.raises(StoreError, match=r"does not have shard 0000-000002; `depthsieve recalibrate"):
        list(again)
