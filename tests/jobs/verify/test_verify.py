"""`depthsieve verify`: every flipped bit, torn, missing and extra file is found; a repair mends just that."""

import contextlib
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from commandline import command
from flip_bits import flip, kinds_of
from labelled import decided_bytes, small_teacher, write_photo, write_photos

import depthsieve
from depthsieve.core.errors import RunError, StoreBusy, StoreDamaged, StoreNotFound
from depthsieve.core.processes import Process, started_at
from depthsieve.core.records import seal
from depthsieve.jobs.verify.repair import VerifyReport, verify
from depthsieve.storage import open_root
from depthsieve.storage.local import list_folder
from depthsieve.store import open_store
from depthsieve.store.leases import PLAN, Lease, Leases
from depthsieve.store.writer import group_name

SETTINGS: dict[str, Any] = {"batch_size": 2, "threads": 1, "shard_size": 3, "progress": False}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Photos, a teacher, and a store of eight images in four shards and two generations, one image failed."""
    folder = tmp_path_factory.mktemp("made")
    photos = write_photos(folder / "photos", 6)
    (photos / "photo 1.png").write_bytes((photos / "photo 1.png").read_bytes()[:500])
    teacher = str(small_teacher(folder / "teacher"))
    depthsieve.label(photos, folder / "store", teacher=teacher, **SETTINGS)
    write_photos(photos, 2, first=6)
    assert depthsieve.label(photos, folder / "store", teacher=teacher, **SETTINGS).labelled == 7
    return folder


@pytest.fixture
def store(made: Path, tmp_path: Path) -> Path:
    copy = tmp_path / "store"
    shutil.copytree(made / "store", copy)
    return copy


def check(store: Path, repair: bool = False) -> VerifyReport:
    return verify(store, repair=repair, progress=False)


def damage(path: Path, how: str) -> None:
    data = path.read_bytes()
    if how == "flipped":
        path.write_bytes(bytes([data[0] ^ 1]) + data[1:])
    elif how == "torn":
        path.write_bytes(data[: len(data) // 2])
    elif how == "empty":
        path.write_bytes(b"")
    else:
        path.unlink()


def _group(store: Path, path: Path) -> str | None:
    """The shard's group that a file is in."""
    parts = path.relative_to(store).parts
    return parts[2] if parts[:2] == ("labels.zarr", "shards") and len(parts) > 3 else None


def named(report: VerifyReport) -> set[str]:
    return {finding.key for finding in report.findings if not finding.harmless}


def test_a_sound_store_is_read_to_its_last_byte(made: Path) -> None:
    report = check(made / "store")
    assert (report.sound, report.findings, report.shards, report.images) == (True, (), 4, 8)
    files = [path for paths in kinds_of(made / "store").values() for path in paths]
    assert (report.files, report.bytes) == (len(files), sum(path.stat().st_size for path in files))
    assert [failure.id for failure in report.failed] == ["default/photo 1.png"]


def test_every_flipped_bit_is_found(store: Path) -> None:
    counts, missed = flip(store, flips=60, seed=1)
    assert missed == []
    assert len(counts) == 13 and all(count for count, _ in counts.values())


@pytest.mark.parametrize("how", ["flipped", "torn", "empty", "missing"])
def test_damage_to_any_kind_of_file_is_found_and_mended_to_the_same_bytes(store: Path, made: Path, how: str) -> None:
    intact = {path: path.read_bytes() for paths in kinds_of(store).values() for path in paths}
    for kind, paths in kinds_of(store).items():
        if kind.startswith("layers'"):  # their features are made of images again: test_features.py
            continue
        path = paths[len(paths) // 2]
        key = path.relative_to(store).as_posix()
        times = {other: other.stat().st_mtime_ns for other in intact if other != path}
        damage(path, how)
        report = check(store)
        if how != "missing" or kind not in ("copies", "index", "commit records"):
            assert named(report) == {key}, kind
        mended = check(store, repair=True)
        assert mended.sound and mended.left == (), (kind, mended.left)
        if kind == "commit records" and how == "missing":  # then its shard is only pending
            assert path.exists() is False
            depthsieve.label(made / "photos", store, teacher=str(made / "teacher"), **SETTINGS)
        assert {path: path.read_bytes() for path in intact} == intact, kind
        for other, time in times.items():
            alike = other.name.startswith("index") or (
                _group(store, path) and _group(store, other) == _group(store, path)
            )
            assert alike or how == "missing" or other.stat().st_mtime_ns == time, f"{other} was written for {key}"
    assert decided_bytes(store) == decided_bytes(made / "store")


def test_an_extra_file_in_a_group_is_damage_and_one_elsewhere_is_named(store: Path) -> None:
    (group,) = store.glob("labels.zarr/shards/0000-000001-*")
    for extra in (group / "depth" / "c" / "0" / "0" / "1", store / "labels.zarr" / "notes", store / "mine.txt"):
        extra.write_bytes(b"x")
    report = check(store)
    found = {finding.key: (finding.harmless, finding.remedy) for finding in report.findings}
    assert found == {
        f"labels.zarr/shards/{group.name}/depth/c/0/0/1": (False, "remove"),
        "labels.zarr/notes": (True, "none"),
        "mine.txt": (True, "none"),
    }
    mended = check(store, repair=True)
    assert mended.sound and {finding.key for finding in mended.left} == {"labels.zarr/notes", "mine.txt"}
    assert (store / "mine.txt").exists() and not (group / "depth" / "c" / "0" / "0" / "1").exists()


def test_what_dead_processes_left_is_harmless_and_removed(store: Path) -> None:
    root = open_root(store)
    dead = Process("node", Process.current().machine, 4242, 1)
    lease = json.dumps({"holder": {"host": "node", "machine": dead.machine, "pid": 4242, "started": 1}}).encode()
    root.write("leases/0000-000000.0.json", lease)
    root.write(f"leases/alive-{dead.token}", b"")
    root.write(f"tmp/0000-000000-abc.{dead.token}", b"")
    root.write("labels.zarr/shards/0000-000000-0123456789ab/zarr.json", b"{}")
    root.write("plan/generation-0002.00000.parquet", b"half")
    report = check(store)
    assert report.sound and len(report.findings) == 5
    assert all(finding.harmless and finding.remedy == "remove" for finding in report.findings)
    assert check(store, repair=True).left == ()
    assert list((store / "tmp").iterdir()) == list((store / "leases").iterdir()) == []


def test_what_living_processes_have_in_hand_is_left_alone(store: Path) -> None:
    root = open_root(store)
    with Leases(root) as leases:
        held = [leases.take(name) for name in (PLAN, "0000-000000")]
        root.write("labels.zarr/shards/0000-000000-0123456789ab/zarr.json", b"{}")
        root.write("plan/generation-0002.00000.parquet", b"half")
        with root.scratch("0001-000000"):
            assert check(store).findings == ()
        damage(store / "commits" / "0000-000000.json", "flipped")
        with pytest.raises(StoreBusy):
            check(store, repair=True)
        for lease in held:
            assert isinstance(lease, Lease)
            leases.give_back(lease, settled=True)


def rewrite(change: Callable[[dict[str, Any]], None]) -> Callable[[Path], None]:
    def do(path: Path) -> None:
        body = json.loads(path.read_bytes())
        change(body)
        path.write_bytes(seal(body))

    return do


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (rewrite(lambda body: body.update(shard="0000-000001")), "its shard is '0000-000001' and must be"),
        (rewrite(lambda body: body.update(images=7)), "its rows are not those of the plan"),
        (rewrite(lambda body: body["failures"].append({"row": 0, "id": "x", "reason": "y"})), "its failures"),
        (rewrite(lambda body: body["histogram"].reverse()), "its histogram is not the sum"),
        (rewrite(lambda body: body["files"].pop("id/zarr.json")), "is not listed"),
        (lambda path: path.write_bytes(path.read_bytes().replace(b"\n", b"\n ", 1)), "does not fit its digest"),
        (lambda path: shutil.copy(path, path.with_name("0009-000000.json")), "no plan has this shard"),
    ],
)
def test_records_that_are_whole_and_wrong_are_found(store: Path, change: Callable[[Path], None], words: str) -> None:
    change(store / "commits" / "0000-000000.json")
    report = check(store)
    assert not report.sound
    assert any(words in finding.problem for finding in report.findings), report.findings


def test_both_copies_of_a_plan_damaged_is_said_to_be_beyond_repair(store: Path) -> None:
    for place in ("plan", "copies/plan"):
        damage(store / place / "generation-0000.00000.parquet", "torn")
    report = check(store)
    assert "and so is its other copy" in report.findings[0].problem and not report.sound


def test_the_plan_of_a_record_that_is_beyond_repair_is_kept(store: Path) -> None:
    for place in ("", "copies/"):
        damage(store / place / "commits" / "generation-0001.json", "torn")
    plans = sorted(path.name for path in (store / "plan").iterdir())
    with contextlib.suppress(StoreDamaged):
        check(store, repair=True)
    assert sorted(path.name for path in (store / "plan").iterdir()) == plans
    assert sorted(path.name for path in (store / "copies" / "plan").iterdir()) == plans
    assert not check(store).sound


def test_without_what_makes_it_a_store_a_repair_says_so_and_ends(store: Path) -> None:
    for place in ("", "copies/"):
        damage(store / place / "labels.zarr" / "zarr.json", "flipped")
    report = check(store, repair=True)
    assert not report.sound and report.relabelled == 0
    assert {finding.key for finding in report.left} == {"labels.zarr/zarr.json", "copies/labels.zarr/zarr.json"}
    assert len(list((store / "plan").iterdir())) == 8
    assert all("and so is its other copy" in finding.problem for finding in report.left)


def test_a_label_that_comes_out_otherwise_is_planned_anew_and_the_rest_of_its_shard_stays(
    store: Path, made: Path, tmp_path: Path
) -> None:
    photos = tmp_path / "photos"
    shutil.copytree(made / "photos", photos)
    depthsieve.label(photos, store, teacher=str(made / "teacher"), moved=True, **SETTINGS)
    before = {image: open_store(store).label(image).depth for image in open_store(store).images}
    (group,) = store.glob("labels.zarr/shards/0000-000001-*")
    rows = [row["id"] for row in open_store(store).index().to_pylist() if row["shard"] == "0000-000001"]
    data = group / "depth" / "c" / "0" / "0" / "0"
    changed = bytearray(data.read_bytes())
    changed[40] ^= 1
    data.write_bytes(changed)
    write_photo(photos / rows[0].removeprefix("default/"), 120, 90, seed=77)
    assert len(named(check(store))) == 1
    mended = check(store, repair=True)
    assert mended.sound and mended.relabelled == 1
    assert [(finding.harmless, "it has newer labels" in finding.problem) for finding in mended.left] == [(True, True)]
    after = open_store(store)
    assert after.images == sorted(before)
    for image, depth_HW in before.items():
        same = np.array_equal(after.label(image).depth, depth_HW)
        assert same == (image != rows[0])


def test_a_repair_whose_images_are_gone_says_so_in_one_line(store: Path, made: Path, tmp_path: Path) -> None:
    (group,) = store.glob("labels.zarr/shards/0000-000000-*")
    damage(group / "depth" / "c" / "0" / "0" / "0", "torn")
    hidden = made / "hidden"
    (made / "photos").rename(hidden)
    try:
        with pytest.raises(RunError, match="cannot be labelled again"):
            check(store, repair=True)
    finally:
        hidden.rename(made / "photos")
    assert check(store, repair=True).sound


def test_a_repair_waits_for_those_who_label_parts(store: Path) -> None:
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    holder = replace(Process.current(), pid=child.pid, started=started_at(child.pid) or 0)
    lease = json.dumps({"holder": asdict(holder)}).encode()
    open_root(store).write("leases/0000-000000.0.json", lease)
    try:
        with pytest.raises(StoreBusy, match=f"process {child.pid} on "):
            check(store, repair=True)
    finally:
        child.communicate(b"\n")
    assert check(store, repair=True).left == ()
    assert list((store / "leases").iterdir()) == []


def test_of_two_whole_groups_the_one_counts_that_the_damaged_record_names(store: Path) -> None:
    record = store / "commits" / "0001-000000.json"
    intact, (group,) = record.read_bytes(), store.glob("labels.zarr/shards/0001-000000-*")
    shutil.copytree(group, store / "aside")
    attributes = store / "aside" / "zarr.json"
    attributes.write_bytes(attributes.read_bytes() + b"\n")
    other = group_name("0001-000000", list_folder(store / "aside"))
    (store / "aside").rename(group.parent / other)
    record.write_bytes(intact.replace(b'"images": ', b'"images":  '))
    assert check(store, repair=True).sound
    assert record.read_bytes() == intact
    assert check(store, repair=True).left == ()
    assert group.exists() and not (group.parent / other).exists()


def test_one_shard_that_cannot_be_mended_costs_no_other(store: Path, made: Path, tmp_path: Path) -> None:
    """The photos of one source are away."""
    photos = write_photos(tmp_path / "more", 3, first=20)
    depthsieve.label(photos, store, teacher=str(made / "teacher"), name="more", **SETTINGS)
    hurt = [next(store.glob(f"labels.zarr/shards/{shard}-*/depth/c/0/0/0")) for shard in ("0001-000000", "0002-000000")]
    whole = [path.read_bytes() for path in hurt]
    for path in hurt:
        damage(path, "flipped")
    away = made / "away"
    (made / "photos").rename(away)
    try:
        with pytest.raises(RunError, match="shard 0001-000000 cannot be labelled again"):
            check(store, repair=True)
    finally:
        away.rename(made / "photos")
    assert [path.read_bytes() == data for path, data in zip(hurt, whole, strict=True)] == [False, True]


def test_no_store_is_no_store(tmp_path: Path) -> None:
    for repair in (False, True):
        with pytest.raises(StoreNotFound):
            check(tmp_path / "nothing", repair)
    assert not (tmp_path / "nothing").exists()


def test_the_command(store: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert command(monkeypatch, "verify", store) == 3  # sound, and one image stands failed
    out = capsys.readouterr().out.splitlines()
    assert out[0].startswith(f"{store}: 4 shards, 8 images, ") and out[0].endswith(" MB read: sound.")
    assert out[1].startswith("  failed: default/photo 1.png: ")
    (group,) = store.glob("labels.zarr/shards/0000-000000-*")
    damage(group / "reliability" / "c" / "0" / "0" / "0", "flipped")
    assert command(monkeypatch, "verify", store) == 1
    shown = capsys.readouterr()
    key = f"labels.zarr/shards/{group.name}/reliability/c/0/0/0"
    assert shown.out.splitlines()[0] == f"  damaged: {key}: does not fit its digest (--repair labels the shard again)"
    assert "`depthsieve verify --repair`" in shown.err
    assert command(monkeypatch, "verify", store, "--json") == 1
    body = json.loads(capsys.readouterr().out)
    assert body["findings"][0]["key"] == key and body["sound"] is False
    assert command(monkeypatch, "verify", store, "--repair") == 3
    shown = capsys.readouterr()
    assert "images labelled again." in shown.out and "MB read: sound." in shown.out and "Error" not in shown.err
    assert command(monkeypatch, "verify", store / "nothing") == 1


def test_verify_runs_beside_a_labelling_run(made: Path, tmp_path: Path) -> None:
    """What is in flight is no damage."""
    photos, store = write_photos(tmp_path / "photos", 30), tmp_path / "store"
    start = [sys.executable, "-m", "depthsieve", "label", str(photos), str(store), "--teacher"]
    options = [str(made / "teacher"), "--batch-size", "1", "--threads", "1", "--shard-size", "1"]
    process = subprocess.Popen([*start, *options], stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    reports = []
    while process.poll() is None:
        if (store / "labels.zarr" / "zarr.json").exists():
            reports.append(check(store))
    assert process.returncode == 0
    assert len(reports) > 1 and all(report.sound for report in reports), reports
    assert all(finding.remedy == "index" for report in reports for finding in report.findings), reports
