"""Damage to layers: what verify finds and a repair does."""

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from commandline import command
from flip_bits import flip, kinds_of
from labelled import decided_bytes
from layered import (
    NAME,
    change,
    check,
    group_of,
    records,
    reseal,
    write_calibration,
)

import depthsieve
from depthsieve.core.errors import (
    StoreBusy,
    StoreDamaged,
    StoreError,
    StoreMismatch,
)
from depthsieve.core.records import seal
from depthsieve.storage import open_root
from depthsieve.store import open_store
from depthsieve.store.layer_kinds import SIGNALS
from depthsieve.store.leases import Leases


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
    summary = depthsieve.recalibrate(store, calibration=made / "ten.json", progress=False)
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
    summary = depthsieve.recalibrate(store, calibration=made / "ten.json", progress=False)
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


def test_two_at_once_do_not_work_on_one_layer_nor_a_repair_beside_them(made: Path, store: Path) -> None:
    child = "import sys, time; from depthsieve.store.leases import Leases; from depthsieve.storage import open_root\n"
    child += (
        f"with Leases(open_root({str(store)!r})) as leases:\n    leases.take('layer-{NAME}'); print('held'); input()"
    )
    process = subprocess.Popen([sys.executable, "-uc", child], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None and process.stdout.readline() == "held\n"
    try:
        with pytest.raises(StoreBusy, match=f"layer '{NAME.replace('+', '.')}' .*process {process.pid} on "):
            depthsieve.recalibrate(store, calibration=made / "nine.json", progress=False)
        with pytest.raises(StoreBusy):
            check(store, repair=True)
    finally:
        process.kill()
        process.communicate()
    again = depthsieve.recalibrate(store, calibration=made / "nine.json", progress=False)  # its holder has died
    assert again.shards_now == 0
