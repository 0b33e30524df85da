"""Kept signals: what labelling writes of them, and that every way to label writes the same bytes."""

import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import zarr
from labelled import decided_bytes, job_of, unlabelled_copy
from layered import NAME, SETTINGS, SIGNAL_NAMES, check, group_of, labels_of, records
from PIL import Image

import depthsieve
from depthsieve.core.errors import (
    StoreError,
)
from depthsieve.labelling.batch import LabelWork, _Labels, predict_labels
from depthsieve.labelling.isolation import label_isolated
from depthsieve.labelling.shard import ShardLabeller
from depthsieve.planning.checks import pixel_bytes
from depthsieve.planning.options import LabelOptions
from depthsieve.storage import open_root
from depthsieve.store import open_store
from depthsieve.store.layer_kinds import FEATURES, SIGNALS
from depthsieve.store.layers import commit_to_layer, find_layer
from depthsieve.store.schema import ENCODING
from depthsieve.teachers import Batch, Prediction, load_teacher


def test_signals_are_those_of_the_teacher_and_zero_in_failed_rows(made: Path) -> None:
    model = load_teacher(str(made / "teacher"))
    seen = 0
    for shard_id in records(made / "store", SIGNALS):
        labels = labels_of(made / "store", shard_id)
        kept = zarr.open_group(group_of(made / "store", SIGNALS, shard_id), mode="r")
        assert sorted(kept.array_keys()) == list(SIGNAL_NAMES)
        for row, image in enumerate(labels["id"][:]):
            assert all(kept[name].dtype == np.float16 for name in SIGNAL_NAMES)
            if labels["status"][row]:
                assert not any(kept[name][row].any() for name in SIGNAL_NAMES)
                continue
            with Image.open(made / "photos" / image.removeprefix("default/")) as photo:
                rgb_HW3 = np.asarray(photo.convert("RGBA"))[..., :3]
            if "photo 0" in image:
                continue  # what its holes are filled with is not this test's matter
            image_1CHW = torch.from_numpy(model.prepare(rgb_HW3, labels["depth"].shape[1:]))[None]
            _, relative = predict_labels(Batch.of(image_1CHW), LabelWork(model, SIGNAL_NAMES))
            for name in SIGNAL_NAMES:
                np.testing.assert_allclose(kept[name][row], relative[name][0], rtol=2e-3, atol=1e-4)
            seen += 1
    assert seen == 5


def test_killed_between_the_records_it_ends_with_the_same_bytes(made: Path, tmp_path: Path) -> None:
    """The process ends itself when it is about to create the second shard's own record: its signals are committed."""
    code = """
import os, signal, sys
import depthsieve
from depthsieve.storage.local import LocalRoot
create = LocalRoot.create
def end(root, key, data, lasting=True):
    if key == "commits/0000-000001.json":
        os.kill(os.getpid(), signal.SIGKILL)
    return create(root, key, data, lasting)
LocalRoot.create = end
"""
    arguments = f"{str(made / 'photos')!r}, {str(tmp_path / 'store')!r}, teacher={str(made / 'teacher')!r}"
    code += f"depthsieve.label({arguments}, keep_signals=True, **{SETTINGS!r})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300)
    assert done.returncode == -signal.SIGKILL, done.stderr
    store = tmp_path / "store"
    assert "0000-000001" in records(store, SIGNALS) and not (store / "commits" / "0000-000001.json").exists()
    with_signals = {path.name for path in store.glob("commits/0000-*.json")}
    assert with_signals <= {f"{shard_id}.json" for shard_id in records(store, SIGNALS)}
    report = check(store)
    assert report.sound and any("its shard was never committed" in finding.problem for finding in report.findings)
    (damaged, *_) = sorted(store.glob("layers/signals/shards/0000-000001-*/*/c/0/0/0"))  # and the disk was bad, too
    damaged.write_bytes(damaged.read_bytes()[:-20])
    label = {**SETTINGS, "teacher": str(made / "teacher"), "keep_signals": True}
    assert depthsieve.label(made / "photos", store, **label).labelled == 6
    shutil.rmtree(made / "whole", ignore_errors=True)
    depthsieve.label(made / "photos", made / "whole", **label)
    assert decided_bytes(store) == decided_bytes(made / "whole")
    assert any(name.startswith("layers/signals/commits/") for name in decided_bytes(store))
    assert check(store).findings == ()


def test_signals_that_an_attempt_left_for_other_labels_are_replaced(made: Path, store: Path) -> None:
    """As when an image could not be read then, and can be now: its row of zeros would say that it is reliable."""
    shard_id = "0000-000000"
    kept = find_layer(open_root(store), SIGNALS, open_store(store).fingerprint)
    assert kept is not None
    record, intact = records(store, SIGNALS)[shard_id], decided_bytes(store)
    group = zarr.open_group(group_of(store, SIGNALS, shard_id), mode="r")
    zeros = {name: np.zeros_like(group[name][:]) for name in SIGNAL_NAMES}
    assert not commit_to_layer(kept, shard_id, record["labels"], zeros)  # for these labels there are some
    assert decided_bytes(store) == intact
    assert commit_to_layer(kept, shard_id, "0" * 64, zeros)
    assert len(list(store.glob(f"layers/signals/shards/{shard_id}-*"))) == 1
    (store / "commits" / f"{shard_id}.json").unlink()
    job = replace(job_of(store, made / "photos", made / "teacher"), signals=SIGNAL_NAMES, keep_signals=True)
    assert ShardLabeller(job)(shard_id).error is None
    assert decided_bytes(store) == intact


def test_isolated_and_by_parts_the_bytes_are_the_same(made: Path, store: Path, tmp_path: Path) -> None:
    copy = unlabelled_copy(store, tmp_path / "copy")
    job = replace(job_of(copy, made / "photos", made / "teacher"), signals=SIGNAL_NAMES, keep_signals=True)
    assert label_isolated(job, "0000-000000").error is None
    label = {**SETTINGS, "teacher": str(made / "teacher"), "keep_signals": True}
    for part in ("1/2", "2/2"):
        depthsieve.label(made / "photos", copy, part=part, **label)
    shutil.rmtree(store / "layers" / NAME)
    assert decided_bytes(copy) == decided_bytes(store)


@pytest.mark.slow
def test_on_ray_the_bytes_are_the_same(made: Path, store: Path, tmp_path: Path) -> None:
    copy = unlabelled_copy(store, tmp_path / "copy")
    label = {**SETTINGS, "teacher": str(made / "teacher"), "keep_signals": True, "runner": "ray", "workers": 2}
    depthsieve.label(made / "photos", copy, **label)
    shutil.rmtree(store / "layers" / NAME)
    assert decided_bytes(copy) == decided_bytes(store)


def test_signals_change_no_label_and_without_the_option_there_are_none(made: Path, tmp_path: Path) -> None:
    depthsieve.label(made / "photos", tmp_path / "plain", teacher=str(made / "teacher"), **SETTINGS)
    assert [path.name for path in (tmp_path / "plain" / "layers").iterdir()] == [FEATURES]
    kept = decided_bytes(made / "store")
    assert decided_bytes(tmp_path / "plain") == {
        k: v for k, v in kept.items() if not k.startswith("layers/") or k.startswith(f"layers/{FEATURES}/")
    }
    with pytest.raises(StoreError, match=r"kept no signals.*label into a new store with --keep-signals"):
        depthsieve.recalibrate(tmp_path / "plain", calibration=made / "nine.json", progress=False)


def test_room_for_signals_is_counted() -> None:
    plain, kept = LabelOptions(signals="flip,edges"), LabelOptions(signals="flip,edges", keep_signals=True)
    assert pixel_bytes(kept, ENCODING) - pixel_bytes(plain, ENCODING) == pytest.approx(2 * 1.7)


def test_a_plan_counts_the_bytes_of_signals(made: Path, tmp_path: Path) -> None:
    label = {**SETTINGS, "teacher": str(made / "teacher")}
    plain, kept = (
        depthsieve.plan(made / "photos", tmp_path / "store", keep_signals=keep, **label) for keep in (False, True)
    )
    assert plain.tried == kept.tried > 0
    assert kept.bytes > 2 * plain.bytes  # three float16 maps more
    without_trial = depthsieve.plan(made / "photos", tmp_path / "store", keep_signals=True, trial=False, **label)
    assert without_trial.bytes == int(7 * 70 * 98 * (2.2 + 3 * 1.7))


def test_a_signal_beyond_float16_is_stored_as_the_largest() -> None:
    wild_BHW = torch.tensor([[[1e6, 0.25], [70_000.0, 65_504.0]]])
    labels = _Labels.of(
        Prediction(torch.ones(1, 2, 2)), torch.ones(1, 2, 2, dtype=torch.uint8), [wild_BHW, wild_BHW / 2]
    )
    assert labels.signal_BSHW.dtype == torch.float16
    assert labels.signal_BSHW[0, 0].tolist() == [[65_504.0, 0.25], [65_504.0, 65_504.0]]
