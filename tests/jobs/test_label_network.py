"""Reliability that comes from an error network: while labelling, afterwards, by whichever worker, and after damage."""

import dataclasses
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from labelled import decided_bytes, job_of, label, small_teacher, unlabelled_copy, write_photos
from layered import change, check
from PIL import Image

import depthsieve
from depthsieve.core.errors import StoreDamaged, StoreMismatch, UsageError
from depthsieve.core.threads import torch_threads
from depthsieve.images.decode import decode
from depthsieve.labelling.isolation import label_isolated
from depthsieve.labelling.shard import ShardLabeller
from depthsieve.planning import calibrated
from depthsieve.reliability.code import encode_error
from depthsieve.reliability.network import ErrorNetwork
from depthsieve.reliability.scale import CODE_VERSION
from depthsieve.store.stored_images import to_label_shape
from depthsieve.teachers import load_teacher

SETTINGS = {"shard_size": 3}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Seven photos, one of them with a hole and one broken; a teacher, a network for it, and a store by each of network
    and flip."""
    folder = tmp_path_factory.mktemp("network")
    photos = write_photos(folder / "photos", 7)
    (photos / "photo 1.png").write_bytes((photos / "photo 1.png").read_bytes()[:500])
    with Image.open(photos / "photo 0.png") as opened:
        photo = opened.convert("RGBA")
    photo.paste((0, 0, 0, 0), (10, 10, 60, 50))
    photo.save(photos / "photo 0.png")
    teacher = small_teacher(folder / "teacher")
    network_for(teacher).save(folder / "network.safetensors")
    calibration = str(folder / "network.safetensors")
    done = label(photos, folder / "store", str(teacher), calibration=calibration, **SETTINGS)
    assert (done.labelled, len(done.failed)) == (6, 1)
    label(photos, folder / "flip", str(teacher), signals="flip", **SETTINGS)
    return folder


@pytest.fixture
def store(made: Path, tmp_path: Path) -> Path:
    shutil.copytree(made / "store", tmp_path / "store")
    return tmp_path / "store"


def network_for(teacher: Path, seed: int = 0) -> ErrorNetwork:
    return ErrorNetwork.random(seed, fitted_on=(load_teacher(str(teacher), device="cpu").weights_digest,))


def test_codes_are_what_the_network_expects_of_photo_and_stored_label(made: Path) -> None:
    store, network = depthsieve.open_store(made / "store"), ErrorNetwork.load(made / "network.safetensors")
    holes = []
    for image in store:
        found = store[image]
        rgb_HW3 = decode((made / "photos" / image.partition("/")[2]).read_bytes(), "respect").rgb_HW3
        photo_1HW3 = torch.from_numpy(to_label_shape(rgb_HW3, found.shape))[None]
        hole_HW = found.reliability == 0
        depth_1HW = torch.from_numpy(np.where(hole_HW, np.nan, found.depth))[None]
        with torch_threads(1):  # as the store was labelled
            e_1HW = network.expected_error(photo_1HW3, depth_1HW, "disparity")
        codes_HW = encode_error(e_1HW, version=CODE_VERSION)[0].numpy()
        np.testing.assert_array_equal(found.reliability, codes_HW)
        assert len(np.unique(codes_HW)) > 1
        holes.append(int(hole_HW.sum()))
    assert holes[0] > 500 and not any(holes[1:])


def test_the_label_spec_has_the_digest_and_a_store_of_signals_none(made: Path, tmp_path: Path) -> None:
    network = ErrorNetwork.load(made / "network.safetensors")
    spec = depthsieve.open_store(made / "store").spec
    assert (spec.signals, spec.calibration_digest) == (("network",), network.digest)
    assert spec.calibration == f"network-{network.digest[:8]}"
    document = json.loads((made / "flip" / "labels.zarr" / "zarr.json").read_bytes())
    assert "calibration_digest" not in document["attributes"]["label_spec"]
    network_for(made / "teacher", seed=1).save(tmp_path / "other.safetensors")
    with pytest.raises(StoreMismatch, match="calibration_digest"):
        label(made / "photos", made / "store", str(made / "teacher"), calibration=str(tmp_path / "other.safetensors"))
    ErrorNetwork.random().save(tmp_path / "foreign.safetensors")
    foreign = label(
        made / "photos", tmp_path / "foreign", str(made / "teacher"), calibration=str(tmp_path / "foreign.safetensors")
    )
    assert foreign.labelled == 6
    assert depthsieve.open_store(tmp_path / "foreign").spec.calibration.endswith("-transferred")


def test_recalibrated_labels_are_those_that_the_network_labels(made: Path, tmp_path: Path) -> None:
    store, photo = tmp_path / "store", made / "photos" / "photo 3.png"
    shutil.copytree(made / "flip", store)
    photo.rename(tmp_path / "away.png")
    try:
        first = depthsieve.recalibrate(store, calibration=made / "network.safetensors", name="net", progress=False)
    finally:
        (tmp_path / "away.png").rename(photo)
    assert [one.id for one in first.without_photo] == ["default/photo 3.png"]
    assert (first.images_now, first.shards) == (6, 3) and "read" in first.without_photo[0].reason
    assert not depthsieve.open_store(store, reliability="net")["default/photo 3.png"].reliability.any()
    again = depthsieve.recalibrate(store, name="net", progress=False)  # by the network that the store keeps
    assert (again.images_now, again.without_photo, again.shards) == (1, (), 3)
    assert depthsieve.recalibrate(store, name="net", progress=False).shards_now == 0
    direct, layer = depthsieve.open_store(made / "store"), depthsieve.open_store(store, reliability="net")
    assert list(direct) == list(layer)
    for image in direct:
        np.testing.assert_array_equal(layer[image].reliability, direct[image].reliability)
    assert check(store).sound
    assert "network" in layer.reliability_from and "flip" in depthsieve.open_store(store).reliability_from
    same = depthsieve.recalibrate(made / "store", calibration=made / "network.safetensors", progress=False)
    assert same.layer is None


def test_whoever_labels_finds_the_network_in_the_store(made: Path, tmp_path: Path) -> None:
    """A resumed run, parts, and a process of its own, as workers on a cluster: none has the file."""
    photos, teacher = made / "photos", made / "teacher"
    bare = unlabelled_copy(made / "store", tmp_path / "bare")
    shutil.copytree(bare, tmp_path / "parts")
    shutil.copytree(bare, tmp_path / "apart")
    label(photos, bare, str(teacher))
    for part in ("1/2", "2/2"):
        label(photos, tmp_path / "parts", str(teacher), part=part)
    job = dataclasses.replace(job_of(tmp_path / "apart", photos, teacher), signals=("network",))
    assert label_isolated(job, "0000-000000").error is None
    worker = ShardLabeller(job)  # as one on a cluster makes it
    assert [worker(shard_id).error for shard_id in ("0000-000001", "0000-000002")] == [None, None]
    for other in (bare, tmp_path / "parts", tmp_path / "apart"):
        assert decided_bytes(other) == decided_bytes(made / "store")


def test_a_repair_labels_again_by_the_network_and_mends_the_network_by_its_copy(made: Path, store: Path) -> None:
    before = decided_bytes(store)
    (file,) = (store / "networks").iterdir()
    whole = file.read_bytes()
    change(next(store.glob("labels.zarr/shards/0000-000001-*/reliability/c/0/0/0")))
    change(file)
    assert {finding.remedy for finding in check(store).findings} == {"relabel", "restore"}
    assert check(store, repair=True).sound
    assert decided_bytes(store) == before and file.read_bytes() == whole


def test_a_store_that_lost_its_network_says_so_and_takes_it_back(made: Path, store: Path) -> None:
    photos, teacher = made / "photos", str(made / "teacher")
    for place in ("networks", "copies/networks"):
        shutil.rmtree(store / place)
    assert not check(store).sound
    with pytest.raises(StoreDamaged, match="--calibration FILE"):
        label(photos, store, teacher)
    label(photos, store, teacher, calibration=str(made / "network.safetensors"))
    assert check(store).sound


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"signals": "flip"}, "--signals flip and --calibration"),
        ({"signals": "none"}, "--signals none and --calibration"),
        ({"second_teacher": "tiny"}, "--second-teacher and --calibration"),
        ({"keep_signals": True}, "no signals to keep"),
        ({"signals": "network,flip", "calibration": None}, "stands alone"),
        ({"calibration": "photos/photo 0.png"}, "photo 0.png"),
        ({"calibration": "nowhere.safetensors"}, "cannot be read"),
        ({"calibration": "metres"}, "trained on labels of depth"),
    ],
)
def test_what_does_not_go_with_a_network_is_one_line(
    made: Path, tmp_path: Path, options: dict[str, object], message: str
) -> None:
    chosen = {"calibration": "network.safetensors"} | options
    if chosen["calibration"] == "metres":
        ErrorNetwork.random(quantity="depth").save(tmp_path / "metres")
        chosen["calibration"] = str(tmp_path / "metres")
    elif chosen["calibration"]:
        chosen["calibration"] = str(made / str(chosen["calibration"]))
    with pytest.raises(UsageError, match=message) as raised:
        label(made / "photos", tmp_path / "new", str(made / "teacher"), **chosen)
    assert "\n" not in str(raised.value) and not (tmp_path / "new").exists()


def test_a_network_of_metres_is_not_lent_to_a_teacher_of_disparity(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(calibrated, "shipped_network", lambda: ErrorNetwork.random(quantity="depth"))
    with pytest.raises(UsageError, match="has no error network"):
        label(made / "photos", tmp_path / "new", str(made / "teacher"), signals="network")
    assert not (tmp_path / "new").exists()


def test_the_shipped_network_is_the_default_where_it_can_read_the_labels(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shipped: Callable[[], ErrorNetwork] = lambda: ErrorNetwork.load(made / "network.safetensors")  # noqa: E731
    monkeypatch.setattr(calibrated, "shipped_network", shipped)
    photos, teacher = made / "photos", str(made / "teacher")
    own = label(photos, tmp_path / "own", teacher, **SETTINGS)
    assert decided_bytes(tmp_path / "own") == decided_bytes(made / "store")
    assert not any("calibrate" in note for note in own.notes)
    asked = label(photos, tmp_path / "asked", teacher, signals="flip", **SETTINGS)
    assert decided_bytes(tmp_path / "asked") == decided_bytes(made / "flip")
    assert not any("calibrate" in note for note in asked.notes)
    kept = label(photos, tmp_path / "kept", teacher, keep_signals=True)
    assert depthsieve.open_store(tmp_path / "kept").spec.signals == ("flip",)
    assert sum("--signals network takes that" in note for note in kept.notes) == 1
    other = label(photos, tmp_path / "other", str(small_teacher(tmp_path / "t", seed=1)), **SETTINGS)
    spec = depthsieve.open_store(tmp_path / "other").spec
    assert spec.signals == ("network",) and spec.calibration.endswith("-transferred")
    assert sum("trained for another teacher" in note and "--signals flip" in note for note in other.notes) == 1
    monkeypatch.setattr(calibrated, "shipped_network", lambda: ErrorNetwork.random(quantity="depth"))
    metres = label(photos, tmp_path / "metres", teacher)
    assert depthsieve.open_store(tmp_path / "metres").spec.signals == ("flip",)
    assert sum("depthsieve calibrate" in note for note in metres.notes) == 1
    resumed = label(photos, made / "flip", teacher)
    assert not any("calibrate" in note for note in resumed.notes)
