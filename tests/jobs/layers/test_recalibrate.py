"""Reliability that another calibration computes from kept signals."""

import json
import math
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import zarr
from commandline import command
from labelled import decided_bytes, write_photos
from layered import (
    NAME,
    SETTINGS,
    SIGNAL_NAMES,
    WEIGHTS,
    check,
    expected_codes,
    group_of,
    labels_of,
    records,
    write_calibration,
)

import depthsieve
from depthsieve.core.errors import (
    StoreError,
    StoreMismatch,
    StoreNotFound,
    UsageError,
)
from depthsieve.reliability.fusion import shipped_calibration
from depthsieve.store import open_store
from depthsieve.store.layer_kinds import FEATURES, SIGNALS
from depthsieve.training import PseudoLabelDataset


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
    half = depthsieve.recalibrate(store, calibration=tmp_path / "half.json", progress=False).layer
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
    unkept = depthsieve.label(photos, store, keep_signals=False, **label)
    assert not any("signals" in note for note in unkept.notes)
    assert command(monkeypatch, "recalibrate", store, "--calibration", made / "nine.json") == 3
    out = capsys.readouterr().out
    assert out.count("  no signals: shard ") == 3 and "  no signals: shard 0000-000000\n" in out
    assert "3 shards with 4 images kept no signals and were skipped" in out
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
    kept = depthsieve.label(photos, store, **label)
    assert "signals are kept, as this store does: --no-keep-signals leaves them out" in kept.notes
    assert any(note.startswith("3 of the shards were labelled without --keep-signals") for note in kept.notes)
    unneeded = depthsieve.label(photos, store, **label)  # nothing is labelled
    assert not any("signals are kept" in note or "--keep-signals" in note for note in unneeded.notes)
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
depthsieve.recalibrate({str(store)!r}, calibration={str(made / "nine.json")!r}, progress=False)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300)
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert sorted(records(store, NAME)) == ["0000-000000"]
    assert len(list(store.glob(f"layers/{NAME}/shards/0000-000001-*"))) == 1
    report = check(store)
    assert report.sound and {finding.remedy for finding in report.findings} == {"remove"}
    again = depthsieve.recalibrate(store, calibration=made / "nine.json", progress=False)
    assert (again.shards_now, again.shards) == (2, 3)
    assert decided_bytes(store) == intact and check(store).findings == ()


def test_a_fitted_teacher_is_not_transferred_and_versions_name_layers(made: Path, store: Path, tmp_path: Path) -> None:
    weights = open_store(store).spec.weights_digest
    file = write_calibration(tmp_path / "f.json", "10", (weights,))
    done = depthsieve.recalibrate(store, calibration=file, progress=False)
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
        assert out.startswith(f"Nothing to do: the labels of {store} are made with calibration {own}.")
    assert decided_bytes(store) == before


def test_what_cannot_be_meant_is_refused_in_one_line(made: Path, store: Path, tmp_path: Path) -> None:
    def refused(error: type[Exception], match: str, calibration: Path, name: str | None = None) -> None:
        with pytest.raises(error, match=match) as caught:
            depthsieve.recalibrate(store, calibration=calibration, name=name, progress=False)
        assert "\n" not in str(caught.value)

    before = decided_bytes(store)
    version = shipped_calibration().version
    refused(UsageError, "has other weights; give the layer another name", write_calibration(tmp_path / "a", version))
    refused(StoreMismatch, "of another calibration; name another", write_calibration(tmp_path / "b", flip=0.5))
    refused(UsageError, "cannot be read: No such file", tmp_path / "none.json")
    for number, text in enumerate(("{", "\xff", "[" * 100_000)):
        (tmp_path / f"bad {number}").write_bytes(text.encode("latin-1"))
        refused(UsageError, f"bad {number} is neither an error network", tmp_path / f"bad {number}")
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


def test_weights_beyond_all_measure_make_pixels_unreliable_never_invalid(store: Path, tmp_path: Path) -> None:
    file = write_calibration(tmp_path / "wild.json", "wild", constant=1e6, level=-1e6, flip=1e6)
    done = depthsieve.recalibrate(store, calibration=file, progress=False)
    for shard_id in records(store, str(done.layer)):
        codes = zarr.open_group(group_of(store, str(done.layer), shard_id), mode="r")["reliability"][:]
        assert ((codes == 0) == (labels_of(store, shard_id)["reliability"][:] == 0)).all()


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
        f"{store}: layer mine has 3 shards, with calibration edges+flip+lowres-11-transferred, which was not fitted on "
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
