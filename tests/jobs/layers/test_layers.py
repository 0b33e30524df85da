"""Layers of a store: kept signals, and reliability that another calibration makes of them."""

import hashlib
import json
import math
import pickle
import re
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import xarray
import zarr
from commandline import command
from flip_bits import flip, kinds_of
from labelled import decided_bytes, job_of, small_teacher, unlabelled_copy, write_photos
from numpy.typing import NDArray
from PIL import Image

import depthsieve
from depthsieve.core.errors import (
    LoaderError,
    StoreBusy,
    StoreDamaged,
    StoreError,
    StoreMismatch,
    StoreNotFound,
    UsageError,
)
from depthsieve.core.records import seal
from depthsieve.jobs.verify.repair import VerifyReport, verify
from depthsieve.labelling.batch import LabelWork, _Labels, predict_labels
from depthsieve.labelling.isolation import label_isolated
from depthsieve.labelling.shard import ShardLabeller
from depthsieve.planning.checks import pixel_bytes
from depthsieve.planning.options import LabelOptions
from depthsieve.reliability.fusion import shipped_calibration
from depthsieve.reliability.masking import threshold_code
from depthsieve.storage import open_root
from depthsieve.store import open_store
from depthsieve.store.layer_kinds import FEATURES, SIGNALS, LayerSpec, spec_in
from depthsieve.store.layers import commit_to_layer, find_layer
from depthsieve.store.leases import Leases
from depthsieve.store.schema import ENCODING
from depthsieve.teachers import Batch, load_teacher
from depthsieve.training import PseudoLabelDataset

SIGNAL_NAMES = ("edges", "flip", "lowres")
SETTINGS: dict[str, Any] = {
    "batch_size": 2,
    "threads": 1,
    "shard_size": 3,
    "progress": False,
    "signals": "flip,lowres,edges",
}
WEIGHTS = {"constant": -0.5, "level": -0.7, "edges": 0.2, "flip": 0.4, "lowres": 0.1}
NAME = "edges+flip+lowres-9-transferred"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Photos, a teacher, a calibration, and a store that kept signals: seven photos in three shards, one of them with
    holes, one broken; and a layer of that calibration."""
    folder = tmp_path_factory.mktemp("made")
    photos = write_photos(folder / "photos", 7)
    (photos / "photo 1.png").write_bytes((photos / "photo 1.png").read_bytes()[:500])
    with Image.open(photos / "photo 0.png") as opened:
        photo = opened.convert("RGBA")
    photo.paste((0, 0, 0, 0), (10, 10, 60, 50))
    photo.save(photos / "photo 0.png")
    teacher = str(small_teacher(folder / "teacher"))
    summary = depthsieve.label(photos, folder / "store", teacher=teacher, keep_signals=True, **SETTINGS)
    assert (summary.labelled, len(summary.failed), summary.notes) == (6, 1, ())
    write_calibration(folder / "nine.json")
    done = depthsieve.recalibrate(folder / "store", folder / "nine.json", progress=False)
    assert (done.layer, done.images_now, done.shards_now, done.shards) == (NAME, 7, 3, 3)
    return folder


def write_calibration(path: Path, version: str = "9", fitted_on: tuple[str, ...] = (), **weights: float) -> Path:
    row = WEIGHTS | weights
    body = {"version": version, "fitted_on": fitted_on, "weights": {"disparity": {"edges+flip+lowres": row}}}
    path.write_text(json.dumps(body))
    return path


@pytest.fixture
def store(made: Path, tmp_path: Path) -> Path:
    copy = tmp_path / "store"
    shutil.copytree(made / "store", copy)
    return copy


def records(store: Path, layer: str) -> dict[str, dict[str, Any]]:
    """The layer's records, by shard."""
    return {path.stem: json.loads(path.read_bytes()) for path in sorted(store.glob(f"layers/{layer}/commits/*.json"))}


def group_of(store: Path, layer: str, shard_id: str) -> Path:
    return store / "layers" / layer / "shards" / str(records(store, layer)[shard_id]["group"])


def labels_of(store: Path, shard_id: str) -> Any:
    record = json.loads((store / "commits" / f"{shard_id}.json").read_bytes())
    return zarr.open_group(store / "labels.zarr" / "shards" / record["group"], mode="r")


def expected_codes(
    depth_HW: NDArray[np.float64], signals_SHW: NDArray[np.float64], weights: dict[str, float]
) -> NDArray[np.float64]:
    """The code of each pixel before it is rounded, by the formulas of the documents, in float64 and the plainest way.
    Signals are in the order of ``SIGNAL_NAMES``."""
    median = np.sort(depth_HW.ravel())[(depth_HW.size - 1) // 2]
    level_HW = (depth_HW / np.maximum(depth_HW + median, 0.1 * np.abs(depth_HW).mean())).clip(0, 1)
    log_HW = weights["constant"] + weights["level"] * np.log(level_HW + 0.02)
    height, width = depth_HW.shape
    for name, signal_HW in zip(SIGNAL_NAMES, signals_SHW, strict=True):
        mean_HW = np.empty_like(signal_HW)
        for y in range(height):
            for x in range(width):
                mean_HW[y, x] = signal_HW[max(0, y - 7) : y + 8, max(0, x - 7) : x + 8].mean()
        log_HW += weights[name] * np.log(mean_HW + 0.001)
    return np.asarray(1 + 254 * (-log_HW / math.log(1e4)).clip(0, 1))


def check(store: Path, repair: bool = False) -> VerifyReport:
    return verify(store, repair=repair, progress=False)


def change(path: Path) -> None:
    """Flip one bit in the middle of a file."""
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def reseal(path: Path, **changes: object) -> None:
    path.write_bytes(seal(json.loads(path.read_bytes()) | changes))


# --- what is written


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
            _, relative = predict_labels(Batch(image_1CHW), LabelWork(model, SIGNAL_NAMES))
            for name in SIGNAL_NAMES:
                np.testing.assert_allclose(kept[name][row], relative[name][0], rtol=2e-3, atol=1e-4)
            seen += 1
    assert seen == 5


def test_reliability_of_a_layer_follows_from_stored_labels_signals_and_weights(made: Path) -> None:
    store, checked, zeros = made / "store", 0, 0
    for shard_id in records(store, NAME):
        labels = labels_of(store, shard_id)
        kept = zarr.open_group(group_of(store, SIGNALS, shard_id), mode="r")
        found = zarr.open_group(group_of(store, NAME, shard_id), mode="r")
        assert sorted(found.array_keys()) == ["histogram", "reliability"]
        code_NHW, count_NK = found["reliability"][:], found["histogram"][:]
        assert (code_NHW.dtype, count_NK.dtype) == (np.uint8, np.uint32)
        assert ((code_NHW == 0) == (labels["reliability"][:] == 0)).all()
        for row, code_HW in enumerate(code_NHW):
            assert (count_NK[row] == np.bincount(code_HW.ravel(), minlength=256)).all()
            if labels["status"][row]:
                assert not code_HW.any()
                continue
            signals_SHW = np.stack([kept[name][row] for name in SIGNAL_NAMES]).astype(np.float64)
            exact_HW = expected_codes(labels["depth"][row].astype(np.float64), signals_SHW, WEIGHTS)
            valid_HW = code_HW > 0
            zeros += int((~valid_HW).sum())
            assert np.abs(code_HW - exact_HW)[valid_HW].max() < 0.5 + 1e-3  # float32 against float64
            checked += 1
    assert checked == 6 and zeros > 100


def test_evaluate_judges_a_layer_by_its_codes(made: Path, store: Path, tmp_path: Path) -> None:
    opened = open_store(store)
    for image_id in opened.images:  # ground truth that the labels know well, but for a corner
        disparity_HW = opened.label(image_id).depth + 1
        disparity_HW[:8, :8] += 0.5
        np.save(tmp_path / f"{image_id.removeprefix('default/').removesuffix('.png')}.npy", 1 / disparity_HW)
    write_calibration(tmp_path / "half.json", "half", constant=WEIGHTS["constant"] - math.log(2))
    half = depthsieve.recalibrate(store, tmp_path / "half.json", progress=False).layer
    found = [
        depthsieve.evaluate_labels(store, tmp_path, reliability=name, progress=False) for name in (NAME, half, None)
    ]
    assert found[0].mean["abs_rel"] == found[1].mean["abs_rel"] == found[2].mean["abs_rel"]
    assert found[1].calibration.bias - found[0].calibration.bias == pytest.approx(math.log10(2), abs=0.02)
    assert found[2].calibration.bias != found[0].calibration.bias
    with pytest.raises(StoreError, match="half"):
        depthsieve.evaluate_labels(store, tmp_path, reliability="none", progress=False)


def test_the_labels_own_calibration_gives_their_codes_back_but_for_rounding(made: Path, store: Path) -> None:
    done = depthsieve.recalibrate(store, name="same", progress=False)
    assert done.layer == "same" and done.calibration == open_store(store).spec.calibration
    for shard_id in records(store, "same"):
        old = labels_of(store, shard_id)["reliability"][:].astype(int)
        new = zarr.open_group(group_of(store, "same", shard_id), mode="r")["reliability"][:].astype(int)
        assert np.abs(new - old).max() <= 1 and (new == old).mean() > 0.9


def test_a_layer_is_plain_zarr_and_its_arrays_are_encoded_as_labels_are(made: Path) -> None:
    store = made / "store"
    root = zarr.open_group(store / "layers" / NAME, mode="r")
    assert root.attrs["calibration"]["weights"]["disparity"]["edges+flip+lowres"] == WEIGHTS
    assert (root.attrs["calibration"]["version"], root.attrs["calibration"]["transferred"]) == ("9", True)
    assert root.attrs["fingerprint"] == open_store(store).fingerprint
    (shard_id, record), *_ = records(store, NAME).items()
    codes = root["shards"][record["group"]]["reliability"]
    stored = labels_of(store, shard_id)["reliability"]
    assert codes.metadata.codecs == stored.metadata.codecs and codes.attrs.asdict() == stored.attrs.asdict()
    for name, sums in (("reliability", NAME), ("flip", SIGNALS)):
        dataset = xarray.open_zarr(group_of(store, sums, shard_id), consolidated=False, chunks=None)
        assert dataset[name].dims == ("image", "y", "x")
    group = group_of(store, NAME, shard_id)
    listed = {name: (entry["sha256"], entry["bytes"]) for name, entry in record["files"].items()}
    assert listed == {
        path.relative_to(group).as_posix(): (hashlib.sha256(path.read_bytes()).hexdigest(), path.stat().st_size)
        for path in group.rglob("*")
        if path.is_file()
    }


def test_the_documented_snippet_reads_every_layer(made: Path) -> None:
    text = (Path(__file__).parents[3] / "docs" / "store_format.md").read_text()
    (snippet,) = re.findall(r"```python\n(for place in.*?)```", text, re.DOTALL)
    code = "import sys, json, zarr\nsys.modules['depthsieve'] = None\nfrom pathlib import Path\nstore = Path('store')\n"
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code + snippet], cwd=made, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    shards = [f"0000-00000{number}" for number in range(3)]
    assert done.stdout.splitlines() == [
        *(f"reliability {NAME} {shard} ['histogram', 'reliability']" for shard in shards),
        *(f"features features {shard} ['embedding', 'phash', 'values']" for shard in shards),
        *(f"signals signals {shard} {list(SIGNAL_NAMES)}" for shard in shards),
    ]


def test_fields_of_records_and_documents_are_those_documented(made: Path) -> None:
    text = (Path(__file__).parents[3] / "docs" / "store_format.md").read_text()
    of_layer = text.partition("**The layer's attributes**")[2].partition("- **A layer's record")[0]
    of_shard = text.partition("**A layer's record of a shard**")[2].partition("\n\n")[0]
    attributes = zarr.open_group(made / "store" / "layers" / NAME, mode="r").attrs.asdict()
    for field in (set(attributes) | set(attributes["calibration"])) - {"digest"}:
        assert f"`{field}`" in of_layer, field
    for field in set(records(made / "store", NAME)["0000-000000"]) - {"digest"}:
        assert f"`{field}`" in of_shard, field


# --- every way to label


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
        depthsieve.recalibrate(tmp_path / "plain", made / "nine.json", progress=False)


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
    labels = _Labels.of(torch.ones(1, 2, 2), torch.ones(1, 2, 2, dtype=torch.uint8), [wild_BHW, wild_BHW / 2])
    assert labels.signal_BSHW.dtype == torch.float16
    assert labels.signal_BSHW[0, 0].tolist() == [[65_504.0, 0.25], [65_504.0, 65_504.0]]


# --- recalibrate


def test_a_store_that_kept_signals_of_some_shards_gives_a_layer_of_those(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    photos, store = write_photos(tmp_path / "photos", 3), tmp_path / "store"
    label = {**SETTINGS, "teacher": str(made / "teacher")}
    depthsieve.label(photos, store, **label)
    write_photos(photos, 3, first=3)
    added = depthsieve.label(photos, store, keep_signals=True, **label)
    assert [note for note in added.notes if "without --keep-signals and stay without" in note]
    write_photos(photos, 1, first=6)
    unkept = depthsieve.label(photos, store, **label)
    assert [note for note in unkept.notes if "what is labelled now is without them" in note]
    assert command(monkeypatch, "recalibrate", store, "--calibration", made / "nine.json") == 3
    out = capsys.readouterr().out
    assert out.count("  no signals: shard ") == 3 and "  no signals: shard 0000-000000\n" in out
    assert "3 shards with 4 images kept no signals and are left out" in out
    assert command(monkeypatch, "recalibrate", store, "--name", NAME, "--json") == 3
    body = json.loads(capsys.readouterr().out)
    assert (body["shards_now"], body["shards"], body["images_without_signals"]) == (0, 2, 4)
    with pytest.raises(StoreError, match=r"does not have 4 of 7 images \(in 3 of 5 shards\).*recalibrate .* --name"):
        open_store(store, reliability=NAME)
    with pytest.raises(StoreError, match="does not have 4 of 7 images"):
        PseudoLabelDataset(store, images=False, reliability=NAME)
    subset = ["default/photo 3.png", "default/photo 5.png"]
    assert PseudoLabelDataset(store, images=False, subset=subset, reliability=NAME).ids == subset
    write_photos(photos, 2, first=7)
    depthsieve.label(photos, store, keep_signals=True, **label)
    again = depthsieve.recalibrate(store, name=NAME, progress=False)  # by the calibration that the layer holds
    assert (again.images_now, again.shards_now) == (2, again.shards - 2)


def test_killed_it_goes_on_and_ends_with_the_same_bytes(made: Path, store: Path) -> None:
    intact = decided_bytes(store)
    shutil.rmtree(store / "layers" / NAME)
    code = f"""
import os, signal
import depthsieve
from depthsieve.storage.local import LocalRoot
create = LocalRoot.create
def end(root, key, data, lasting=True):
    if key.endswith("commits/0000-000001.json"):
        os.kill(os.getpid(), signal.SIGKILL)
    return create(root, key, data, lasting)
LocalRoot.create = end
depthsieve.recalibrate({str(store)!r}, {str(made / "nine.json")!r}, progress=False)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300)
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert sorted(records(store, NAME)) == ["0000-000000"]
    assert len(list(store.glob(f"layers/{NAME}/shards/0000-000001-*"))) == 1
    report = check(store)
    assert report.sound and {finding.remedy for finding in report.findings} == {"remove"}
    again = depthsieve.recalibrate(store, made / "nine.json", progress=False)
    assert (again.shards_now, again.shards) == (2, 3)
    assert decided_bytes(store) == intact and check(store).findings == ()


def test_a_fitted_teacher_is_not_transferred_and_versions_name_layers(made: Path, store: Path, tmp_path: Path) -> None:
    weights = open_store(store).spec.weights_digest
    file = write_calibration(tmp_path / "f.json", "10", (weights,))
    done = depthsieve.recalibrate(store, file, progress=False)
    assert (done.layer, done.transferred) == ("edges+flip+lowres-10", False)
    states = {layer.name: (layer.kind, layer.shards, layer.transferred) for layer in depthsieve.status(store).layers}
    assert states == {
        NAME: ("reliability", 3, True),
        "edges+flip+lowres-10": ("reliability", 3, False),
        FEATURES: (FEATURES, 3, False),
        SIGNALS: ("signals", 3, False),
    }


def test_the_calibration_of_the_labels_is_nothing_to_do(
    store: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    before = decided_bytes(store)
    own = open_store(store).spec.calibration
    for arguments in ((), ("--name", own)):
        assert command(monkeypatch, "recalibrate", store, *arguments) == 0
        out = capsys.readouterr().out
        assert out.startswith(f"Nothing to do: the labels of {store} were made with calibration {own}.")
    assert decided_bytes(store) == before


def test_what_cannot_be_meant_is_refused_in_one_line(made: Path, store: Path, tmp_path: Path) -> None:
    def refused(error: type[Exception], match: str, *arguments: Any) -> None:
        with pytest.raises(error, match=match) as caught:
            depthsieve.recalibrate(store, *arguments, progress=False)
        assert "\n" not in str(caught.value)

    before = decided_bytes(store)
    version = shipped_calibration().version
    refused(UsageError, "has other weights; give the layer another name", write_calibration(tmp_path / "a", version))
    refused(StoreMismatch, "of another calibration; name another", write_calibration(tmp_path / "b", flip=0.5))
    refused(UsageError, "cannot be read: No such file", tmp_path / "none.json")
    for number, text in enumerate(("{", "\xff", "[" * 100_000)):
        (tmp_path / f"bad {number}").write_bytes(text.encode("latin-1"))
        refused(UsageError, f"bad {number} is not JSON", tmp_path / f"bad {number}")
    for number, body in enumerate(([], {}, {"version": "1", "fitted_on": [], "weights": 3}, "text", None)):
        (tmp_path / f"no {number}").write_text(json.dumps(body))
        refused(UsageError, "is no calibration", tmp_path / f"no {number}")
    huge = (tmp_path / "b").read_text().replace("0.5", "1" + "0" * 400)
    (tmp_path / "huge").write_text(huge)
    refused(UsageError, "is no calibration", tmp_path / "huge")
    refused(UsageError, "needs finite weights", write_calibration(tmp_path / "nan", flip=math.nan))
    flip_only = {"flip": {"constant": 0, "level": 0, "flip": 1}}
    body = {"version": "9", "fitted_on": [], "weights": {"disparity": flip_only}}
    (tmp_path / "c").write_text(json.dumps(body))
    refused(UsageError, "was not fitted for disparity with signals edges.flip.lowres", tmp_path / "c")
    refused(UsageError, "a layer cannot be called .*name it with --name", write_calibration(tmp_path / "d", "../../x"))
    for name in ("signals", "../x", "", "a/b", ".hidden"):
        refused(UsageError, "a layer cannot be called", made / "nine.json", name)
    assert decided_bytes(store) == before
    with pytest.raises(StoreNotFound):
        depthsieve.recalibrate(tmp_path / "nothing", progress=False)


def test_two_at_once_do_not_work_on_one_layer_nor_a_repair_beside_them(made: Path, store: Path) -> None:
    child = "import sys, time; from depthsieve.store.leases import Leases; from depthsieve.storage import open_root\n"
    child += (
        f"with Leases(open_root({str(store)!r})) as leases:\n    leases.take('layer-{NAME}'); print('held'); input()"
    )
    process = subprocess.Popen([sys.executable, "-uc", child], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None and process.stdout.readline() == "held\n"
    try:
        with pytest.raises(StoreBusy, match=f"layer '{NAME.replace('+', '.')}' .*process {process.pid} on "):
            depthsieve.recalibrate(store, made / "nine.json", progress=False)
        with pytest.raises(StoreBusy):
            check(store, repair=True)
    finally:
        process.kill()
        process.communicate()
    assert depthsieve.recalibrate(store, made / "nine.json", progress=False).shards_now == 0  # its holder has died


def test_weights_beyond_all_measure_make_pixels_unreliable_never_invalid(store: Path, tmp_path: Path) -> None:
    file = write_calibration(tmp_path / "wild.json", "wild", constant=1e6, level=-1e6, flip=1e6)
    done = depthsieve.recalibrate(store, file, progress=False)
    for shard_id in records(store, str(done.layer)):
        codes = zarr.open_group(group_of(store, str(done.layer), shard_id), mode="r")["reliability"][:]
        assert ((codes == 0) == (labels_of(store, shard_id)["reliability"][:] == 0)).all()


# --- reading


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

    depthsieve.recalibrate(store, write_calibration(tmp_path / "o.json", "9", flip=0.5), "other", progress=False)
    states = {name: loader(name).state_dict() for name in (None, NAME, "other")}
    for here in states:
        for there, state in states.items():
            if here == there:
                loader(here).load_state_dict(json.loads(json.dumps(state)))
            else:
                with pytest.raises(LoaderError, match="reliability is "):
                    loader(here).load_state_dict(state)
    shutil.rmtree(store / "layers" / "other")  # the same name, made anew by another calibration
    depthsieve.recalibrate(store, write_calibration(tmp_path / "p.json", "9", flip=0.6), "other", progress=False)
    with pytest.raises(LoaderError, match="reliability is 'other"):
        loader("other").load_state_dict(states["other"])


def test_a_store_that_grew_since_can_still_be_unpickled(made: Path, store: Path) -> None:
    dataset = PseudoLabelDataset(store, images=False, reliability=NAME)
    pickled = pickle.dumps(dataset)
    (store / "layers" / NAME / "commits" / "0000-000002.json").unlink()  # as if labelled after it was opened
    again = pickle.loads(pickled)
    with pytest.raises(StoreError, match=r"does not have shard 0000-000002; `depthsieve recalibrate"):
        list(again)


# --- verify


def test_a_store_with_layers_is_read_to_its_last_byte(made: Path) -> None:
    report = check(made / "store")
    files = [path for paths in kinds_of(made / "store").values() for path in paths]
    assert (report.sound, report.findings, report.shards, report.images) == (True, (), 3, 7)
    assert (report.files, report.bytes) == (len(files), sum(path.stat().st_size for path in files))


def test_every_flipped_bit_is_found(store: Path) -> None:
    counts, missed = flip(store, flips=80, seed=3)
    assert missed == []
    assert all(counts[f"layers' {kind}"][0] >= 1 for kind in ("arrays", "documents", "records"))


def test_damaged_reliability_is_taken_out_and_made_again(
    made: Path, store: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    intact = decided_bytes(store)
    path = group_of(store, NAME, "0000-000001") / "reliability" / "c" / "0" / "0" / "0"
    change(path)
    assert command(monkeypatch, "verify", store) == 1
    key = path.relative_to(store).as_posix()
    line = f"  damaged: {key}: does not fit its digest (--repair takes the shard out of the layer; `depthsieve recal"
    assert capsys.readouterr().out.startswith(line)
    with pytest.raises(StoreDamaged):
        for image in open_store(store, reliability=NAME).images:
            _ = open_store(store, reliability=NAME).label(image).reliability
    assert command(monkeypatch, "verify", store, "--repair") == 3  # an image stands failed
    out = capsys.readouterr().out
    again = f"depthsieve recalibrate {store} --name {NAME}"
    assert f"Layer {NAME} lost 1 shard (0000-000001); add them again: {again}\n" in out
    assert sorted(records(store, NAME)) == ["0000-000000", "0000-000002"]
    assert not list(store.glob(f"layers/{NAME}/shards/0000-000001-*"))
    with pytest.raises(StoreError, match="recalibrate"):
        open_store(store, reliability=NAME)
    assert command(monkeypatch, *again.split()[1:]) == 0
    assert decided_bytes(store) == intact


def test_damaged_signals_are_named_as_lost_and_labels_stand(
    made: Path, store: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    labels = {name: sums for name, sums in decided_bytes(store).items() if not name.startswith("layers/signals")}
    change(group_of(store, SIGNALS, "0000-000001") / "flip" / "c" / "0" / "0" / "0")
    write_calibration(made / "ten.json", "10")
    summary = depthsieve.recalibrate(store, made / "ten.json", progress=False)
    assert len(summary.errors) == 1 and "shard 0000-000001: " in summary.errors[0] and summary.shards == 2
    shutil.rmtree(store / "layers" / str(summary.layer))
    shutil.rmtree(store / "copies" / "layers" / str(summary.layer))
    assert command(monkeypatch, "verify", store) == 1
    assert "(--repair takes the shard out of the layer; it cannot be computed again" in capsys.readouterr().out
    assert command(monkeypatch, "verify", store, "--repair") == 3
    out = capsys.readouterr().out
    assert "Layer signals lost 1 shard (0000-000001); it cannot be computed again without new labels;" in out
    found = decided_bytes(store)
    assert {name: sums for name, sums in found.items() if not name.startswith("layers/signals")} == labels
    summary = depthsieve.recalibrate(store, made / "ten.json", progress=False)
    assert (summary.without_signals, summary.shards, summary.errors) == (("0000-000001",), 2, ())


@pytest.mark.parametrize("layer", [SIGNALS, NAME])
@pytest.mark.parametrize("what", ["zarr.json", "shards/zarr.json", "commits/0000-000000.json"])
@pytest.mark.parametrize("how", ["a bit", "a space that means nothing"])
def test_documents_and_records_are_mended_to_the_same_bytes(store: Path, layer: str, what: str, how: str) -> None:
    intact = decided_bytes(store)
    path = store / "layers" / layer / what
    if how == "a bit":
        change(path)
    else:
        path.write_bytes(path.read_bytes() + b" ")
    key = f"layers/{layer}/{what}"
    assert [(finding.key, finding.harmless) for finding in check(store).findings] == [(key, False)]
    mended = check(store, repair=True)
    assert mended.sound and mended.left == () and mended.taken_out == ()
    assert decided_bytes(store) == intact


def test_what_does_not_belong_is_found(store: Path, tmp_path: Path) -> None:
    record = store / "layers" / NAME / "commits" / "0000-000000.json"
    group = group_of(store, NAME, "0000-000000")
    (group / "reliability" / "more").write_bytes(b"x")
    orphan = group.with_name("0000-000001-0123456789ab")
    shutil.copytree(group, orphan)
    for stray in ("layers/mine.txt", f"layers/{NAME}/mine", f"layers/{NAME}/commits/x.json", "layers/signals/shards/x"):
        (store / stray).write_bytes(b"x")
    (store / "layers" / "half" / "shards").mkdir(parents=True)
    found = {finding.key: (finding.harmless, finding.remedy) for finding in check(store).findings}
    assert found == {
        f"layers/{NAME}/shards/{group.name}/reliability/more": (False, "remove"),
        f"layers/{NAME}/shards/{orphan.name}": (True, "remove"),
        "layers/mine.txt": (True, "none"),
        f"layers/{NAME}/mine": (True, "none"),
        f"layers/{NAME}/commits/x.json": (True, "none"),
        "layers/signals/shards/x": (True, "none"),
        "layers/half": (True, "remove"),
    }
    mended = check(store, repair=True)
    assert mended.sound and {finding.remedy for finding in mended.left} == {"none"}
    reseal(record, labels="0" * 64)
    (finding,) = (finding for finding in check(store).findings if not finding.harmless)
    assert finding.problem == "belongs to other labels than those committed"
    with pytest.raises(StoreError, match="does not have shard 0000-000000"):
        open_store(store, reliability=NAME).reader("0000-000000")


@pytest.mark.parametrize(
    ("changes", "error", "words"),
    [
        ({"group": "../../../labels.zarr"}, StoreDamaged, "does not say what it commits"),
        ({"files": None}, StoreDamaged, "does not say what it commits"),
        ({"labels": 3}, StoreDamaged, "does not say what it commits"),
        ({"fingerprint": "0"}, StoreMismatch, "has another fingerprint than its layer"),
        ({"layer": "other"}, StoreMismatch, "has another layer than its layer"),
        ({"shard": "0000-000001"}, StoreMismatch, "has another shard than its layer"),
    ],
)
def test_hostile_records_are_refused_and_found(
    store: Path, changes: dict[str, Any], error: type[Exception], words: str
) -> None:
    reseal(store / "layers" / NAME / "commits" / "0000-000000.json", **changes)
    with pytest.raises(error, match=words):
        open_store(store, reliability=NAME).reader("0000-000000")
    report = check(store)
    assert [finding.remedy for finding in report.findings if not finding.harmless] == ["layer record"]
    assert check(store, repair=True).sound and open_store(store, reliability=NAME).reader("0000-000000")


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"name": "other"}, StoreMismatch),
        ({"fingerprint": "0"}, StoreMismatch),
        ({"format": "x"}, StoreMismatch),
        ({"format_version": 2}, StoreMismatch),
        ({"kind": "secret"}, StoreMismatch),
        ({"calibration": None}, StoreDamaged),
        ({"calibration": [1]}, StoreDamaged),
        ({"signals": 7}, StoreDamaged),
    ],
)
def test_hostile_documents_are_refused_found_and_restored(
    store: Path, changes: dict[str, Any], error: type[Exception]
) -> None:
    path = store / "layers" / NAME / "zarr.json"
    intact = path.read_bytes()
    body = json.loads(intact)
    body["attributes"] = json.loads(seal(body["attributes"] | changes))
    path.write_bytes((json.dumps(body, indent=2) + "\n").encode())
    with pytest.raises(error) as caught:
        open_store(store, reliability=NAME)
    assert "\n" not in str(caught.value) and f"layers/{NAME}/zarr.json" in str(caught.value)
    assert {layer.name: layer.kind for layer in depthsieve.status(store).layers}[NAME] == "damaged"
    assert [finding.remedy for finding in check(store).findings] == ["restore"]
    assert check(store, repair=True).sound and path.read_bytes() == intact


def test_a_shard_that_a_repair_labels_again_keeps_its_signals(made: Path, store: Path) -> None:
    intact = decided_bytes(store)
    record = store / "commits" / "0000-000000.json"
    body = json.loads(record.read_bytes())
    change(store / "labels.zarr" / "shards" / body["group"] / "depth" / "c" / "0" / "0" / "0")
    change(record)  # nothing can be told of the shard any more: it is pending again
    (store / "layers" / "signals" / "commits" / "0000-000000.json").unlink()
    shutil.rmtree(next(store.glob("layers/signals/shards/0000-000000-*")))
    assert check(store, repair=True).sound
    assert decided_bytes(store) == intact


def test_what_the_living_have_in_hand_is_left_alone(store: Path) -> None:
    shutil.copytree(group_of(store, NAME, "0000-000000"), store / "layers" / NAME / "shards/0000-000001-0123456789ab")
    with Leases(open_root(store)) as leases:
        leases.take(f"layer-{NAME}")
        assert check(store).findings == ()
    next(store.glob(f"leases/layer-{NAME}.0.json")).unlink()
    assert len(check(store).findings) == 1


# --- the command


def test_status_lists_layers(made: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    command(monkeypatch, "status", made / "store")
    out = capsys.readouterr().out
    assert f"Layer {NAME} (reliability, transferred): 3 of 3 committed shards.\n" in out
    assert "Layer signals (signals): 3 of 3 committed shards.\n" in out


def test_the_command_says_what_it_did(
    made: Path, store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("depthsieve.core.progress.LOG_EVERY_S", 0)
    file = write_calibration(tmp_path / "eleven.json", "11")
    assert command(monkeypatch, "recalibrate", store, "--calibration", file, "--name", "mine") == 0
    shown = capsys.readouterr()
    first, second = shown.out.splitlines()
    assert first.startswith("Recalibrated 7 images in ")
    assert second == (
        f"{store}: layer mine has 3 shards, by calibration edges+flip+lowres-11-transferred, which was not fitted on "
        "this teacher."
    )
    assert "recalibrate: 7 of 7 images" in shown.err
    assert command(monkeypatch, "recalibrate", store, "--name", "mine") == 0
    shown = capsys.readouterr()
    assert (shown.out.startswith("0 images to do.\n"), shown.err) == (True, "")
    assert command(monkeypatch, "recalibrate", store, "--calibration", tmp_path / "none") == 2
    assert (
        capsys.readouterr().err == f"Error: calibration {tmp_path / 'none'} cannot be read: No such file or directory\n"
    )
    assert command(monkeypatch, "recalibrate", tmp_path / "nothing") == 1


def test_in_an_object_store_the_bytes_are_a_folders(s3: Any, made: Path) -> None:
    """Labels, signals, a layer, reading and verifying it, and what one flipped bit does."""
    url = f"s3://{s3.new_bucket()}/labels"
    label = {**SETTINGS, "teacher": str(made / "teacher"), "keep_signals": True}
    depthsieve.label(made / "photos", url, **label)
    depthsieve.recalibrate(url, made / "nine.json", progress=False)
    root = open_root(url)
    keys = [entry.key for part in ("labels.zarr", "layers", "commits") for entry in root.entries(part)]
    expected = {name: sums for name, sums in decided_bytes(made / "store").items() if not name.startswith("plan/")}
    assert {key: hashlib.sha256(root.read(key)).hexdigest() for key in keys} == expected
    here, there = open_store(made / "store", reliability=NAME), open_store(url, reliability=NAME)
    for image in here.images:
        assert (there.label(image).reliability == here.label(image).reliability).all()
    (key,) = (key for key in keys if key.startswith(f"layers/{NAME}/shards/0000-000000-") and "/reliability/c" in key)
    root.write(key, bytes([root.read(key)[0] ^ 1]) + root.read(key)[1:])
    report = verify(url, progress=False)
    assert [finding.key for finding in report.findings] == [key]
    assert [(out.layer, out.shard) for out in verify(url, repair=True, progress=False).taken_out] == [
        (NAME, "0000-000000")
    ]
    assert depthsieve.recalibrate(url, name=NAME, progress=False).shards_now == 1
    assert {key: hashlib.sha256(root.read(key)).hexdigest() for key in keys} == expected


# --- kinds


@pytest.mark.parametrize(
    ("name", "kind", "detail"),
    [
        (SIGNALS, "reliability", {"name": "n", "digest": "d", "transferred": False}),
        ("mine", SIGNALS, None),
        ("mine", "reliability", {"name": "n", "digest": "d"}),
    ],
)
def test_a_layer_whose_name_and_kind_do_not_go_together_is_damage(
    name: str, kind: str, detail: dict[str, Any] | None
) -> None:
    document = LayerSpec(name, kind, "f", ("flip",), detail).document()
    with pytest.raises(StoreDamaged, match="here is not a readable record of a layer"):
        spec_in(document, "here")


def test_what_a_layer_says_is_read_back() -> None:
    detail = {"name": "n", "digest": "d", "transferred": False}
    for spec in (LayerSpec(SIGNALS, SIGNALS, "f", ("flip",)), LayerSpec("mine", "reliability", "f", (), detail)):
        assert spec_in(spec.document(), "here") == spec
