"""Images beside their labels, at label shape, as JPEG: stored while labelling or later, and read for training."""

import dataclasses
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
import zarr
from commandline import command
from labelled import decided_bytes, job_of, small_teacher, unlabelled_copy, write_photo, write_photos
from numpy.typing import NDArray
from PIL import Image
from s3server import S3Server
from transformers import AutoModelForDepthEstimation

import depthsieve
from depthsieve.core.errors import LoaderError, RunError, StoreDamaged, StoreError, UsageError
from depthsieve.core.stopping import Stop
from depthsieve.images.decode import decode
from depthsieve.jobs.layers.images import store_images, without_images
from depthsieve.jobs.verify.repair import verify
from depthsieve.labelling.isolation import label_isolated
from depthsieve.planning.checks import pixel_bytes
from depthsieve.planning.options import LabelOptions
from depthsieve.store import open_store
from depthsieve.store.leases import Leases
from depthsieve.store.schema import ENCODING
from depthsieve.store.status import status
from depthsieve.store.stored_images import QUALITY, StoredImages, encode_image, pack_images, to_label_shape
from depthsieve.training import PseudoLabelDataset

SETTINGS: dict[str, Any] = {"batch_size": 2, "threads": 1, "shard_size": 3, "progress": False}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five photos in three shards, one of them broken and one upright by its EXIF alone; a store with images and one
    without."""
    folder = tmp_path_factory.mktemp("images")
    photos = write_photos(folder / "photos", 5)
    (photos / "photo 1.png").write_bytes((photos / "photo 1.png").read_bytes()[:500])
    with Image.open(photos / "photo 3.png") as opened:
        exif = opened.getexif()
        exif[0x0112] = 6
        opened.transpose(Image.Transpose.ROTATE_90).save(photos / "photo 3.jpg", quality=95, exif=exif)
    (photos / "photo 3.png").unlink()
    small_teacher(folder / "teacher")
    summary = label(folder, "stored", store_images=True)
    assert (summary.labelled, len(summary.failed), summary.stored_now, summary.not_stored) == (4, 1, 0, ())
    label(folder, "plain")
    return folder


def label(folder: Path, store: str, **options: Any) -> Any:
    shared = {"teacher": str(folder / "teacher"), **SETTINGS}
    return depthsieve.label(folder / "photos", folder / store, **shared | options)


@pytest.fixture
def copy(made: Path, tmp_path: Path) -> Path:
    """A copy of it all, whose stores know the photos where they were."""
    shutil.copytree(made, tmp_path / "copy", symlinks=True)
    return tmp_path / "copy"


def places(store: Path) -> dict[str, tuple[str, int, tuple[int, int]]]:
    """Shard, row and label shape of each labelled image."""
    rows = open_store(store).index().to_pylist()
    labelled = [row for row in rows if row["status"] == "labelled"]
    return {row["id"]: (row["shard"], row["row"], (row["label_height"], row["label_width"])) for row in labelled}


def psnr(first: NDArray[Any], second: NDArray[Any]) -> float:
    return float(10 * np.log10(255**2 / np.square(first.astype(float) - second).mean()))


# --- what is stored


def test_an_image_is_that_of_its_label_upright_and_close(made: Path) -> None:
    stored, checked = StoredImages(open_store(made / "stored")), 0
    for image_id, (shard, row, shape) in places(made / "stored").items():
        data = (made / "photos" / image_id.removeprefix("default/")).read_bytes()
        expected_HW3 = to_label_shape(decode(data).rgb_HW3, shape)
        found_HW3 = stored.image(shard, row, shape)
        assert found_HW3 is not None and found_HW3.shape == (*shape, 3) and found_HW3.dtype == np.uint8
        assert psnr(found_HW3, expected_HW3) > 32
        assert psnr(found_HW3[..., ::-1], expected_HW3) < 25  # neither red for blue
        checked += 1
    assert checked == 4


def test_a_failed_row_is_empty_and_plain_zarr_reads_the_others(made: Path) -> None:
    store = open_store(made / "stored")
    layer = zarr.open_group(made / "stored" / "layers" / "images", mode="r")
    assert layer.attrs["images"]["quality"] == QUALITY and layer.attrs["images"]["subsampling"] == "4:2:0"
    empty = 0
    for path in (made / "stored" / "layers" / "images" / "commits").glob("*.json"):
        record = json.loads(path.read_bytes())
        arrays, labels = layer["shards"][record["group"]], store.reader(record["shard"])
        offset = arrays["offset"][:]
        assert record["images"] == len(offset) - 1 == len(labels.column("status"))
        for row, state in enumerate(labels.column("status")):
            jpeg = arrays["data"][offset[row] : offset[row + 1]]
            assert (len(jpeg) == 0) == (state == 1)
            empty += len(jpeg) == 0
            if len(jpeg):
                assert cv2.imdecode(jpeg, cv2.IMREAD_COLOR).shape[:2] == labels.shape("depth")[1:]
                assert bytes(jpeg[:2]) == b"\xff\xd8"
    assert empty == 1


def test_a_shard_without_any_image_can_be_stored_and_read(tmp_path: Path) -> None:
    photos = write_photos(tmp_path / "photos", 1)
    Image.new("RGBA", (120, 90), (0, 0, 0, 0)).save(photos / "photo 0.png")
    small_teacher(tmp_path / "teacher")
    assert len(label(tmp_path, "store", store_images=True).failed) == 1
    assert StoredImages(open_store(tmp_path / "store")).jpeg("0000-000000", 0) == b""
    assert verify(tmp_path / "store", progress=False).findings == ()


def test_an_image_whose_prediction_is_no_label_is_not_stored(tmp_path: Path) -> None:
    write_photos(tmp_path / "photos", 2)
    small_teacher(tmp_path / "teacher")
    model = AutoModelForDepthEstimation.from_pretrained(tmp_path / "teacher")
    torch.nn.init.zeros_(model.head.conv3.weight)
    torch.nn.init.zeros_(model.head.conv3.bias)
    model.save_pretrained(tmp_path / "teacher")
    summary = label(tmp_path, "labels", store_images=True)
    assert [failure.reason for failure in summary.failed] == ["the teacher's output is 0 at every pixel"] * 2
    images = StoredImages(open_store(tmp_path / "labels"))
    rows = [(row["shard"], row["row"]) for row in open_store(tmp_path / "labels").index().to_pylist()]
    assert [images.jpeg(*place) for place in rows] == [b"", b""]


def test_packing_puts_images_end_to_end() -> None:
    arrays = pack_images([b"ab", b"", b"123456789"])
    assert arrays["data"].tobytes() == b"ab123456789" and arrays["offset"].tolist() == [0, 2, 2, 11]
    assert arrays["crc32c"].tolist()[1:] == [0, 0xE3069283]  # the check value of CRC-32C


def test_quality_is_heard_and_labels_are_not_changed(made: Path, tmp_path: Path) -> None:
    coarse = label(made, str(tmp_path / "coarse"), store_images=True, image_quality=30)
    assert coarse.labelled == 4
    fine, rough = (
        sum(path.stat().st_size for path in place.glob("layers/images/shards/*/data/c/0"))
        for place in (made / "stored", tmp_path / "coarse")
    )
    assert rough < 0.7 * fine
    kept = decided_bytes(tmp_path / "coarse")
    assert {name: sums for name, sums in kept.items() if "/images/" not in name} == decided_bytes(made / "plain")


# --- later, and every way to label


def test_later_gives_the_bytes_of_at_once(made: Path, copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    arguments = ["label", made / "photos", copy / "plain", "--teacher", made / "teacher"]
    assert command(monkeypatch, *arguments, "--store-images") == 3  # the broken photo
    assert decided_bytes(copy / "plain") == decided_bytes(made / "stored")
    again = depthsieve.label(
        made / "photos", copy / "plain", teacher=str(made / "teacher"), store_images=True, **SETTINGS
    )
    assert (again.stored_now, again.labelled_now) == (0, 0)
    layers = [(one.name, one.kind, one.shards) for one in status(copy / "plain").layers]
    assert ("images", "images", 3) in layers


def test_later_needs_no_pass_through_the_teacher(made: Path, copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*_: object) -> None:
        raise AssertionError("the teacher was asked")

    monkeypatch.setattr("depthsieve.teachers.huggingface.HuggingFaceTeacher.predict", never)
    shared = {"teacher": str(made / "teacher"), **SETTINGS}
    assert depthsieve.label(made / "photos", copy / "plain", store_images=True, **shared).stored_now == 4


def test_killed_while_storing_it_goes_on_to_the_same_bytes(made: Path, copy: Path) -> None:
    call = f"depthsieve.label({str(made / 'photos')!r}, {str(copy / 'plain')!r}, teacher={str(made / 'teacher')!r}"
    code = f"""
import os, signal
import depthsieve
from depthsieve.storage.local import LocalRoot
create = LocalRoot.create
def end(root, key, data, lasting=True):
    if key == "layers/images/commits/0000-000001.json":
        os.kill(os.getpid(), signal.SIGKILL)
    return create(root, key, data, lasting)
LocalRoot.create = end
{call}, store_images=True, **{SETTINGS!r})
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300)
    assert done.returncode == -signal.SIGKILL, done.stderr
    report = verify(copy / "plain", progress=False)
    assert report.sound and all(finding.harmless for finding in report.findings)
    shared = {"teacher": str(made / "teacher"), **SETTINGS}
    first, *_ = (copy / "plain" / "layers" / "images" / "commits").glob("*.json")
    assert first.stem == "0000-000000"
    summary = depthsieve.label(made / "photos", copy / "plain", store_images=True, **shared)
    assert summary.stored_now == 2  # those of the other shards
    assert verify(copy / "plain", repair=True, progress=False).sound
    assert decided_bytes(copy / "plain") == decided_bytes(made / "stored")


def test_isolated_and_by_parts_the_bytes_are_the_same(made: Path, copy: Path) -> None:
    store = unlabelled_copy(copy / "plain", copy / "again")
    job = dataclasses.replace(job_of(store, made / "photos", made / "teacher"), image_quality=QUALITY)
    assert label_isolated(job, "0000-000000").error is None
    shared = {"teacher": str(made / "teacher"), **SETTINGS}
    for part in ("1/2", "2/2"):
        depthsieve.label(made / "photos", store, part=part, store_images=True, **shared)
    assert decided_bytes(store) == decided_bytes(made / "stored")
    done = depthsieve.label(made / "photos", copy / "plain", part="1/1", store_images=True, **shared)
    assert done.stored_now == 0 and any(
        "`label --store-images` without --part adds them" in note for note in done.notes
    )


def test_changed_and_lost_images_are_refused_by_name_and_tried_again(
    made: Path, copy: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shared = {"teacher": str(made / "teacher"), **SETTINGS}
    photos = copy / "photos"
    depthsieve.label(photos, copy / "plain", moved=True, **shared)
    changed = photos / "photo 0.png"
    kept, times = changed.read_bytes(), (changed.stat().st_atime_ns, changed.stat().st_mtime_ns)
    changed.write_bytes(kept[:-1] + b"?")
    os.utime(changed, ns=times)  # of the same size and time, which labelling takes for unchanged
    (photos / "photo 2.png").rename(photos / "hidden")
    arguments = ("label", photos, copy / "plain", "--teacher", made / "teacher", "--store-images")
    assert command(monkeypatch, *arguments) == 3
    out = capsys.readouterr().out
    assert "default/photo 0.png: changed since it was labelled" in out
    assert "default/photo 2.png: cannot be read any more: no such file" in out
    assert "Stored 2 images of what was labelled before." in out and "2 labelled images could not be stored" in out
    assert command(monkeypatch, *arguments) == 3  # and so it is until it is resolved
    assert capsys.readouterr().out.replace("0 images to do.\n", "") == out.replace(
        "Stored 2 images of what was labelled before.\n", ""
    )
    assert verify(copy / "plain", progress=False).findings == ()
    notes = sorted((copy / "plain").glob("layers/images/lacking/*"))
    noted = [one.read_text() for one in notes]
    notes[0].write_text(noted[0].replace("changed", "chanced"))
    with pytest.raises(StoreDamaged, match=r"lacking/.*--repair"):
        PseudoLabelDataset(copy / "plain")
    assert [(one.key.split("/")[2], one.remedy) for one in verify(copy / "plain", progress=False).findings] == [
        ("lacking", "remove")
    ]
    notes[0].write_text(noted[0])
    lacking = r"no stored image of 1 of 1 images \(the first is default/photo 0.png: changed since.*--retry-failed"
    with pytest.raises(LoaderError, match=lacking):
        PseudoLabelDataset(copy / "plain", subset=["default/photo 0.png"], images="stored")
    everything = PseudoLabelDataset(copy / "plain")
    assert everything.identity()["images"] == "source" and everything.image_roots == {"default": str(photos)}
    others = sorted(set(everything.ids) - {"default/photo 0.png", "default/photo 2.png"})
    assert len(list(PseudoLabelDataset(copy / "plain", subset=others, images="stored"))) == 2
    changed.write_bytes(kept)
    os.utime(changed, ns=times)
    again = depthsieve.label(photos, copy / "plain", store_images=True, retry_failed=True, **shared)
    assert [one.id for one in again.not_stored] == ["default/photo 2.png"] and again.stored_now == 1
    photos.rename(copy / "away")
    with pytest.raises(LoaderError, match=r"no stored image of 1 of 4 .*; the images of the source 'default' are not"):
        PseudoLabelDataset(copy / "plain")
    (copy / "away").rename(photos)
    (photos / "hidden").rename(photos / "photo 2.png")
    (photos / "photo 0.png").rename(photos / "hidden")  # what is stored stays
    again = depthsieve.label(photos, copy / "plain", store_images=True, retry_failed=True, **shared)
    assert again.not_stored == () and again.stored_now == 1
    assert PseudoLabelDataset(copy / "plain").identity()["images"] == "stored"
    assert list((copy / "plain").glob("layers/images/lacking/*")) == []
    wanted = {place: sums for place, sums in decided_bytes(made / "stored").items() if "/images/" in place}
    assert wanted.items() <= decided_bytes(copy / "plain").items()
    assert verify(copy / "plain", progress=False).findings == ()


def test_a_source_that_is_not_there_refuses_no_image(made: Path, copy: Path) -> None:
    depthsieve.label(copy / "photos", copy / "plain", moved=True, teacher=str(made / "teacher"), **SETTINGS)
    (copy / "photos").rename(copy / "away")
    store = open_store(copy / "plain")
    missing = r"source 'default' are not at .*photos; is the disk"
    with Leases(store.root) as leases, pytest.raises(RunError, match=missing):
        store_images(store, QUALITY, leases, Stop(), progress=False)
    assert not list((copy / "plain").glob("layers/images/commits/*"))


def test_a_stop_is_heard_between_shards(made: Path, copy: Path) -> None:
    store, stop = open_store(copy / "plain"), Stop(0)
    stop.request()
    with Leases(store.root) as leases:
        done = store_images(store, QUALITY, leases, stop, progress=False)
    assert done.stopped and done.images == 0 and without_images(store).images == 5


# --- options


def test_options_that_cannot_be_meant_are_refused(made: Path) -> None:
    with pytest.raises(UsageError, match="say store_images"):
        LabelOptions(store_images=False, image_quality=80)
    with pytest.raises(UsageError, match="say store_images"):
        label(made, "plain", image_quality=80)
    with pytest.raises(UsageError, match="whole number of 1 to 100, not 101"):
        LabelOptions(store_images=True, image_quality=101)
    with pytest.raises(UsageError, match=f"has images of quality {QUALITY}, not 50"):
        label(made, "stored", store_images=True, image_quality=50)


def test_room_for_images_is_counted(made: Path, tmp_path: Path) -> None:
    options = LabelOptions(store_images=True)
    assert pixel_bytes(options, ENCODING) == pytest.approx(pixel_bytes(LabelOptions(), ENCODING) + 0.6)
    shared = {"teacher": str(made / "teacher"), **SETTINGS}
    plain, kept = (
        depthsieve.plan(made / "photos", tmp_path / "x", store_images=keep, **shared) for keep in (False, True)
    )
    assert kept.bytes > plain.bytes * 1.02


def test_a_store_that_keeps_images_goes_on_to_until_it_is_told_not_to(made: Path, copy: Path) -> None:
    shared = {"teacher": str(made / "teacher"), **SETTINGS}
    assert depthsieve.label(copy / "photos", copy / "stored", moved=True, **shared).notes == ()
    write_photo(copy / "photos" / "photo 8.png", 120, 90, seed=8)
    grown = depthsieve.label(copy / "photos", copy / "stored", **shared)
    assert grown.notes == ("images are stored too, as this store does: --no-store-images leaves them out",)
    assert PseudoLabelDataset(copy / "stored", images="stored").ids == sorted(places(copy / "stored"))
    assert len(places(copy / "stored")) == 5
    with pytest.raises(UsageError, match=f"has images of quality {QUALITY}, not 50"):
        depthsieve.label(copy / "photos", copy / "stored", image_quality=50, **shared)


def test_what_is_labelled_without_images_beside_others_is_noted(made: Path, copy: Path) -> None:
    depthsieve.label(copy / "photos", copy / "stored", moved=True, teacher=str(made / "teacher"), **SETTINGS)
    write_photo(copy / "photos" / "photo 9.png", 120, 90, seed=9)
    shared = {"teacher": str(made / "teacher"), **SETTINGS}
    assert depthsieve.label(copy / "photos", copy / "stored", store_images=False, **shared).notes == ()
    later = depthsieve.label(copy / "photos", copy / "stored", **shared)
    assert later.notes == ("1 of the committed shards have no stored images; `label --store-images` adds them",)
    assert later.stored_now == 0
    with pytest.raises(LoaderError, match=r"no stored images of 1 shards in use \(the first is 0002-000000\)"):
        PseudoLabelDataset(copy / "stored", images="stored")
    assert PseudoLabelDataset(copy / "stored").identity()["images"] == "source"
    subset = ["default/photo 0.png", "default/photo 2.png"]
    assert PseudoLabelDataset(copy / "stored", subset=subset).identity()["images"] == "stored"


# --- damage


def test_flipped_bits_are_found_taken_out_and_stored_again(
    made: Path, copy: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    store = copy / "stored"
    (data,) = store.glob("layers/images/shards/0000-000000-*/data/c/0")
    body = bytearray(data.read_bytes())
    body[len(body) // 3] ^= 4
    data.write_bytes(body)
    with pytest.raises(StoreDamaged, match=r"photo .*: stored image of shard 0000-000000, row .*checksum.*--repair"):
        list(PseudoLabelDataset(store))
    assert command(monkeypatch, "verify", store) == 1
    assert f"`depthsieve label SOURCE {store} --store-images` adds it again" in capsys.readouterr().out
    assert command(monkeypatch, "verify", store, "--repair") == 3
    assert "Layer images lost 1 shard (0000-000000); add them again: depthsieve label SOURCE" in capsys.readouterr().out
    arguments = ("label", made / "photos", store, "--teacher", made / "teacher", "--store-images")
    assert command(monkeypatch, *arguments) == 3
    assert decided_bytes(store) == decided_bytes(made / "stored")


def test_a_lost_record_is_written_anew_and_labels_made_again_bring_their_images(made: Path, copy: Path) -> None:
    store = copy / "stored"
    (store / "layers" / "images" / "commits" / "0000-000000.json").write_text("{}")
    (depth,) = store.glob("labels.zarr/shards/0000-000001-*/depth/c/0/0/0")
    depth.write_bytes(depth.read_bytes()[:-1])
    report = verify(store, repair=True, progress=False)
    assert report.sound and report.taken_out == () and report.left == ()
    assert decided_bytes(store) == decided_bytes(made / "stored")


@pytest.mark.parametrize("name", ["offset", "crc32c"])
def test_wrong_offsets_and_sums_are_damage(copy: Path, name: str) -> None:
    (path,) = (copy / "stored").glob(f"layers/images/shards/0000-000000-*/{name}/c/0")
    whole = path.read_bytes()
    for place, bit in ((0, 1), (1, 128), (6, 16), (9, 3)):
        body = bytearray(whole)
        body[place] ^= bit
        path.write_bytes(body)
        with pytest.raises(StoreDamaged):
            for row in range(3):
                StoredImages(open_store(copy / "stored")).image("0000-000000", row, (70, 98))


# --- for training


def test_training_reads_the_stored_image_to_the_pixel_of_its_label(made: Path, copy: Path) -> None:
    (copy / "photos").rename(copy / "away")
    dataset = PseudoLabelDataset(copy / "stored", drop=0, crop=56, flip=True)
    assert dataset.identity()["images"] == "stored" and dataset.image_roots == {} and dataset.has_images
    source = PseudoLabelDataset(made / "stored", images="source", drop=0, crop=56, flip=True)
    assert source.identity()["images"] == "source"
    for stored, read in zip(dataset, source, strict=True):
        assert stored["id"] == read["id"] and (stored["depth"] == read["depth"]).all()
        first, second = (255 * one["image"].numpy() for one in (stored, read))
        assert psnr(first, second) > 32
        assert psnr(np.roll(first, 1, axis=2), second) < psnr(first, second) - 1  # by a pixel, and it would show
    batches = list(dataset.loader(global_batch=2, num_workers=1))
    assert sum(len(batch["id"]) for batch in batches) == 4
    assert PseudoLabelDataset(copy / "stored", images=False).identity()["images"] is None


def test_depth_coded_in_the_picture_lies_on_its_pixels() -> None:
    """Halves and thirds of a ramp: where a pixel of the label is told its place, the stored image tells the same."""
    for scale in (2, 3):
        ramp_W = np.repeat(np.arange(14, 14 + 84), scale).astype(np.uint8)
        rgb_HW3 = np.repeat(np.broadcast_to(ramp_W, (70 * scale, 84 * scale))[..., None], 3, axis=2)
        jpeg = encode_image(rgb_HW3, (70, 84), 95)
        found_HW3 = cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR_RGB).astype(int)
        assert np.abs(found_HW3 - np.arange(14, 14 + 84)[None, :, None]).max() <= 2


def test_without_stored_images_they_cannot_be_asked_for(made: Path) -> None:
    with pytest.raises(StoreError, match=r"has no stored images; `depthsieve label --store-images`"):
        PseudoLabelDataset(made / "plain", images="stored")
    assert PseudoLabelDataset(made / "plain").identity()["images"] == "source"


def test_from_an_object_store_each_shard_comes_once(
    made: Path, tmp_path: Path, s3: S3Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DEPTHSIEVE_CACHE", str(tmp_path / "cache"))
    url = f"s3://{s3.new_bucket()}/labels"
    shared = {"teacher": str(made / "teacher"), **SETTINGS}
    assert depthsieve.label(made / "photos", url, store_images=True, **shared).labelled == 4
    s3.calls.clear()
    far = list(PseudoLabelDataset(url, drop=0)) + list(PseudoLabelDataset(url, drop=0))
    assert sum("layers/images" in str(call) and "/data/c/0" in str(call) for call in s3.calls) == 3
    near = {sample["id"]: sample for sample in PseudoLabelDataset(made / "stored", drop=0)}
    assert len(far) == 8 and all((one["image"] == near[one["id"]]["image"]).all() for one in far)
