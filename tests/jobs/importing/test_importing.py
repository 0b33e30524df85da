"""Importing: maps made elsewhere become a store that everything else serves."""

import hashlib
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from labelled import DECIDED, decided_bytes
from mapmaker import SHAPE, confidence_of, image_id, imported, metres_of, shape_of, write_maps
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from s3server import S3Server

import depthsieve
from depthsieve.core.errors import SourceError, StoreMismatch, UsageError
from depthsieve.reliability.masking import masked_share, threshold_code
from depthsieve.reliability.network import ErrorNetwork
from depthsieve.storage import open_root
from depthsieve.training import PseudoLabelDataset

CONFIDENT: dict[str, Any] = {
    "pattern": "mm/{dir}/{stem}.png",
    "confidence": "sure/{dir}/{stem}.npy",
    "confidence_means": "higher-is-better",
}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six photos with maps, and two stores: ``plain`` without confidence, ``sure`` with it."""
    folder = write_maps(tmp_path_factory.mktemp("importing"))
    imported(folder, folder / "plain")
    imported(folder, folder / "sure-store", ".", shard_size=2, scale=1000, **CONFIDENT)
    return folder


@pytest.fixture
def copy(made: Path, tmp_path: Path) -> Path:
    """The same, to be changed."""
    return Path(shutil.copytree(made, tmp_path / "made"))


def test_labels_are_the_maps_at_their_own_shape(made: Path) -> None:
    store = depthsieve.open_store(made / "plain")
    assert list(store) == sorted(image_id(number) for number in range(6))
    assert (store.spec.kind, store.spec.quantity, store.spec.unit, store.spec.signals) == ("imported", "depth", "m", ())
    for number in range(6):
        label, metres = store[image_id(number)], metres_of(number)
        np.testing.assert_allclose(label.depth, metres, rtol=4.9e-4)
        np.testing.assert_array_equal(label.reliability, np.where(metres > 0, 255, 0))
        assert label.source_shape == tuple(2 * side for side in shape_of(number))
        assert label.image().shape == (*shape_of(number), 3)


def test_a_store_in_a_bucket_gets_the_bytes_of_one_in_a_folder(made: Path, s3: S3Server, tmp_path: Path) -> None:
    url = f"s3://{s3.new_bucket()}/a b/labels"
    told: dict[str, Any] = {"images": made / "photos", "quantity": "depth", "scale": 1000, "progress": False}
    summary = depthsieve.import_labels(made / "mm", url, **told)
    assert (summary.store, summary.imported_now, summary.failed, summary.errors) == (url, 6, (), ())
    root, expected = open_root(url), decided_bytes(made / "plain")
    keys = [entry.key for part in DECIDED for entry in root.entries(part)]
    assert {key: hashlib.sha256(root.read(key)).hexdigest() for key in keys} == expected
    assert depthsieve.import_labels(made / "mm", url, **told).imported_now == 0
    assert depthsieve.verify(url, progress=False).sound
    depthsieve.export_labels(url, tmp_path / "out", target="npy", progress=False)
    back = depthsieve.open_store(made / "plain")
    for image in back:
        depth_HW = np.load(tmp_path / "out/depth" / f"{image}.npy")
        np.testing.assert_array_equal(np.nan_to_num(depth_HW), back[image].depth)


def test_reliability_is_the_confidence_on_one_scale(made: Path) -> None:
    store = depthsieve.open_store(made / "sure-store")
    assert store.spec.signals == ("confidence",) and store.spec.calibration.endswith("uncalibrated")
    for number in range(6):
        expected = 1 + np.rint(254 * confidence_of(number).astype(np.float64))
        expected[metres_of(number) == 0] = 0
        np.testing.assert_array_equal(store[image_id(number)].reliability, expected)


def test_everything_else_serves_the_store(made: Path, tmp_path: Path) -> None:
    store = made / "sure-store"
    report = depthsieve.verify(store, progress=False)
    assert (report.findings, report.images) == ((), 6)
    status = depthsieve.status(store)
    assert (status.labelled, status.pending, status.failed) == (6, 0, ())
    # Two rows of each map are 0, invalid: no depth of 0, which would be near, and leave all others as far as sky.
    assert depthsieve.open_store(store).index()["sky"].to_pylist() == [0] * 6
    chosen = depthsieve.curate(store, tmp_path / "subset.parquet", min_reliability=60, max_text=9, progress=False)
    means = {number: float((1 + 254 * confidence_of(number)[2:]).mean()) for number in range(6)}
    assert chosen.kept == sum(mean >= 60 for mean in means.values()) and not chosen.notes
    sample = PseudoLabelDataset(store, subset=tmp_path / "subset.parquet", drop=0.1)[0]
    valid = (sample["reliability"] > 0).float().mean()
    assert sample["image"].shape[1:] == sample["depth"].shape
    assert 0.89 < float(sample["mask"].float().mean() / valid) <= 0.91
    assert depthsieve.view(store, worst=1, progress=False).ids == (image_id(0),)
    metric = depthsieve.evaluate_labels(store, made / "m", min_pixels=1, progress=False)
    assert max(score.abs_rel for score in metric.images) < 4.9e-4
    assert depthsieve.add_features(store, progress=False).shards_now == 0, "they came with the labels"


def test_without_confidence_a_mask_drops_nothing_and_it_says_so(made: Path, tmp_path: Path) -> None:
    summary = imported(made, tmp_path / "again")
    assert any("every valid pixel has the same reliability, so a mask drops none" in note for note in summary.notes)
    label = depthsieve.open_store(made / "plain")[0]
    np.testing.assert_array_equal(label.mask(0.5), label.reliability > 0)
    counts = np.bincount(label.reliability.ravel(), minlength=256)
    assert masked_share(counts, threshold_code(counts, 0.5)) == 0
    (note,) = depthsieve.view(made / "plain", progress=False).notes
    assert note == "every valid pixel has the same reliability, so a mask at 10% drops none"
    assert not depthsieve.view(made / "plain", drop=0, progress=False).notes
    assert not depthsieve.view(made / "sure-store", progress=False).notes


def test_again_does_nothing_and_more_maps_extend(copy: Path) -> None:
    before = decided_bytes(copy / "plain")
    again = imported(copy, copy / "plain", moved=True)
    assert (again.imported_now, again.planned_now, again.labelled) == (0, 0, 6)
    moved = decided_bytes(copy / "plain")  # maps and photos lie elsewhere than they did: that is recorded
    assert {key: moved[key] for key in before} == before and len(moved) > len(before)
    again = imported(copy, copy / "plain")
    assert decided_bytes(copy / "plain") == moved
    write_maps(copy, range(6, 8))
    more = imported(copy, copy / "plain")
    assert (more.imported_now, more.labelled) == (2, 8)
    np.testing.assert_allclose(depthsieve.open_store(copy / "plain")[image_id(7)].depth, metres_of(7), rtol=4.9e-4)
    assert depthsieve.verify(copy / "plain", progress=False).sound


def test_a_changed_map_replaces_its_label_and_a_touched_one_does_not(copy: Path) -> None:
    imported(copy, copy / "plain", moved=True)
    changed, touched = copy / "mm/even/é 0.png", copy / "mm/odd ones/é 1.png"
    changed.write_bytes((copy / "mm/even/é 4.png").read_bytes())
    touched.touch()
    (copy / "photos/odd ones/é 3.png").touch()
    summary = imported(copy, copy / "plain")
    assert (summary.planned_now, summary.imported_now, summary.labelled) == (1, 1, 6)
    store = depthsieve.open_store(copy / "plain")
    np.testing.assert_array_equal(store[image_id(0)].depth, store[image_id(4)].depth)
    assert [event.action for event in store.history(image_id(0))] == ["add", "replace"]


def test_threads_and_kills_do_not_move_a_byte(made: Path, tmp_path: Path) -> None:
    """Killed between a shard's layer and its record, and after a commit: the bytes are those of one quiet run."""
    support = str(Path(__file__).parents[2] / "support")
    killed = f"""
import os, signal, sys
sys.path.insert(0, {support!r})
from pathlib import Path
from mapmaker import imported
from depthsieve.jobs import committing
store, commit = Path(sys.argv[1]), committing.commit_shard
def commit_and_die(*arguments):
    if store.with_name("once").exists():
        commit(*arguments)
    store.with_name("once").touch()
    os.kill(os.getpid(), signal.SIGKILL)
committing.commit_shard = commit_and_die
imported(Path({str(made)!r}), store, ".", shard_size=2, scale=1000, threads=2, **{CONFIDENT!r})
"""
    for pending in (6, 4):
        command = [sys.executable, "-c", killed, str(tmp_path / "store")]
        assert subprocess.run(command, check=False).returncode == -9
        assert depthsieve.status(tmp_path / "store").pending == pending
    summary = imported(made, tmp_path / "store", ".", scale=1000, threads=2, **CONFIDENT)
    assert (summary.imported_now, summary.planned_now, summary.labelled) == (4, 0, 6)
    assert depthsieve.verify(tmp_path / "store", repair=True, progress=False).sound
    assert decided_bytes(tmp_path / "store") == decided_bytes(made / "sure-store")


def test_damage_is_mended_from_the_maps(copy: Path) -> None:
    sound = decided_bytes(copy / "plain")
    (chunk, *_) = sorted((copy / "plain").glob("labels.zarr/shards/*/depth/c/0/0/0"))
    chunk.write_bytes(chunk.read_bytes()[:-9] + b"damaged!!")
    assert not depthsieve.verify(copy / "plain", progress=False).sound
    report = depthsieve.verify(copy / "plain", repair=True, progress=False)
    assert report.sound and report.relabelled == 4
    assert decided_bytes(copy / "plain") == sound
    shutil.rmtree(copy / "plain" / "layers")
    shutil.rmtree(copy / "plain" / "copies" / "layers")
    assert depthsieve.add_features(copy / "plain", progress=False).images_now == 6
    assert decided_bytes(copy / "plain") == sound


def test_a_map_that_changed_since_it_was_planned_is_not_taken_for_the_planned_one(copy: Path, monkeypatch: Any) -> None:
    from depthsieve.jobs.importing import run

    real = run.commit_pending

    def change_first(*arguments: Any) -> Any:
        (copy / "mm/even/é 0.png").write_bytes((copy / "mm/even/é 4.png").read_bytes())
        return real(*arguments)

    monkeypatch.setattr(run, "commit_pending", change_first)
    summary = imported(copy, copy / "new")
    assert [failed.id for failed in summary.failed] == [image_id(0)]
    assert summary.failed[0].reason == "its map has changed since it was planned; import again to take the new one"
    assert imported(copy, copy / "new").failed == ()


def test_failures_are_named_and_tried_again_once_they_are_mended(copy: Path) -> None:
    whole = (copy / "mm/even/é 0.png").read_bytes()
    (copy / "mm/even/é 0.png").write_bytes(whole[:200])
    (copy / "photos/odd ones/é 1.png").write_bytes(b"no image")
    (copy / "mm/even/é 2.png").unlink()
    shutil.copy(copy / "mm/even/é 4.png", copy / "mm/even/no image.png")
    (copy / "photos/no map and empty.jpg").write_bytes(b"")
    summary = imported(copy, copy / "new")
    assert {failed.id: failed.reason for failed in summary.failed} == {
        image_id(0): "its map even/é 0.png: truncated or damaged PNG",
        image_id(1): "not an image but text",
    }
    without_map = (image_id(2), "default/no map and empty.jpg")
    assert (summary.labelled, summary.without_map, summary.first_without_map) == (3, 2, without_map)
    assert (summary.without_image, summary.first_without_image) == (1, ("even/no image.png",))
    before = decided_bytes(copy / "new")
    assert imported(copy, copy / "new").failed == summary.failed
    assert decided_bytes(copy / "new") == before, "nothing new is known, so nothing is written"
    (copy / "mm/even/é 0.png").write_bytes(whole)
    assert [failed.id for failed in imported(copy, copy / "new").failed] == [image_id(1)]
    assert len(depthsieve.open_store(copy / "new")) == 4


def test_photos_in_the_same_folder_are_no_maps_without_an_image(tmp_path: Path) -> None:
    """As datasets have them: a_rgb.png beside a_depth.png; one photo has no map, one map no photo."""
    made, together = write_maps(tmp_path / "apart", range(2)), tmp_path / "together"
    together.mkdir()
    for number, name in enumerate(("even/é 0", "odd ones/é 1")):
        shutil.copy(made / "photos" / f"{name}.png", together / f"{number}_rgb.png")
        shutil.copy(made / "mm" / f"{name}.png", together / f"{number + 1}_depth.png")
    told: dict[str, Any] = {
        "pattern": "{dir}/{stem}_depth.png",
        "replace": (("_rgb", ""),),
        "exclude": ("*_depth.png",),
    }
    summary = imported(tmp_path, tmp_path / "new", "together", images=together, scale=1000, **told)
    assert (summary.labelled, summary.first_without_map) == (1, ("default/0_rgb.png",))
    assert summary.first_without_image == ("2_depth.png",)


def test_the_depth_maps_of_an_export_are_named_by_a_pattern(made: Path, tmp_path: Path) -> None:
    depthsieve.export_labels(made / "plain", tmp_path / "out", target="kitti", resolution="label", progress=False)
    told: dict[str, Any] = {"images": made / "photos", "scale": 256, "pattern": "default/{dir}/{stem}.png"}
    summary = imported(tmp_path / "out", tmp_path / "new", "depth", **told)
    assert (summary.labelled, summary.without_map, summary.without_image) == (6, 0, 0)
    before, after = depthsieve.open_store(made / "plain")[0], depthsieve.open_store(tmp_path / "new")[0]
    np.testing.assert_allclose(after.depth, before.depth, atol=1 / 512, rtol=4.9e-4)


def test_a_map_of_another_aspect_fails_unless_it_is_said_to_be_stretched(copy: Path) -> None:
    np.save(copy / "m/even/é 0.npy", np.random.default_rng(0).uniform(1, 9, (40, 40)))
    (failed,) = imported(copy, copy / "new", "m").failed
    assert failed.id == image_id(0) and "its map is 40x40 and its photo 80x60" in failed.reason
    assert imported(copy, copy / "new", "m", stretched=True).failed == ()
    assert depthsieve.open_store(copy / "new")[image_id(0)].shape == (40, 40)


def with_texts(path: Path, texts: dict[str, str]) -> None:
    """Add text chunks to a PNG."""
    with Image.open(path) as picture:
        values_HW = np.array(picture)
    chunks = PngInfo()
    for key, text in texts.items():
        chunks.add_text(key, text)
    Image.fromarray(values_HW).save(path, pnginfo=chunks)


def test_a_logarithmic_png_is_read_by_its_own_near_and_far(copy: Path) -> None:
    """As MoGe's ``read_depth`` does: 0 is unknown, 65535 infinitely far; whatever the scale of the others is."""
    path = copy / "mm" / f"{Path(image_id(0)).parent.name}/é 0.png"
    code_HW = np.arange(60 * 80, dtype=np.uint16).reshape(60, 80) * 13
    code_HW[7, :9] = 65535
    Image.fromarray(code_HW).save(path)
    with_texts(path, {"near": "0.5", "far": "60"})
    assert imported(copy, copy / "new", scale=1).failed == ()
    label = depthsieve.open_store(copy / "new")[image_id(0)]
    t_HW = (code_HW.astype(np.float64) - 1) / 65533
    valid_HW = (code_HW > 0) & (code_HW < 65535)
    np.testing.assert_array_equal(label.reliability > 0, valid_HW)
    expected_HW = np.where(valid_HW, 0.5 ** (1 - t_HW) * 60**t_HW, 0).astype(np.float32).astype(np.float16)
    np.testing.assert_array_equal(label.depth, expected_HW)


def test_pngs_with_a_scale_of_their_own_are_refused_by_name(copy: Path) -> None:
    far = "far is more than near"
    given = ({"near": "60", "far": "0.5"}, {"near": "x", "far": "inf"}, {"depthsieve:scale": "0.1"}, {"Title": "depth"})
    for number, texts in enumerate(given):
        with_texts(copy / "mm" / f"{Path(image_id(number)).parent.name}/é {number}.png", texts)
    failed = {one.id: one.reason for one in imported(copy, copy / "new").failed}
    assert set(failed) == {image_id(0), image_id(1), image_id(2)}
    assert far in failed[image_id(0)] and far in failed[image_id(1)]
    assert "name the folder that holds depth.json" in failed[image_id(2)]


def test_the_largest_whole_number_is_no_depth_unless_it_is_said_to_be(copy: Path) -> None:
    path = copy / "mm/even/é 0.png"
    map_HW = np.array(Image.open(path))
    map_HW[5, :7] = 65535
    Image.fromarray(map_HW).save(path)
    taken = imported(copy, copy / "new")
    label = depthsieve.open_store(copy / "new")[image_id(0)]
    assert not label.reliability[5, :7].any() and label.reliability[5, 7:].all()
    found = (
        "7 pixels hold the largest value of their file's type (65,535 in 16 bits), in 1 of 6 maps, and were taken for "
    )
    assert [note.removeprefix(found) for note in taken.notes if note.startswith(found)] == [
        "invalid; if they are depth, say with --invalid what is invalid, such as --invalid 0"
    ]
    taken = imported(copy, copy / "deep", invalid=(0,))
    assert [note.removeprefix(found) for note in taken.notes if note.startswith(found)] == [
        "valid, as --invalid names others"
    ]
    assert depthsieve.open_store(copy / "deep")[image_id(0)].depth[5, :7].tolist() == [65.5625] * 7  # as float16
    assert len(imported(copy, copy / "named", invalid=(65535,)).notes) == 1


def test_a_dry_run_says_the_same_and_writes_nothing(made: Path, tmp_path: Path) -> None:
    summary = imported(made, tmp_path / "new", dry_run=True)
    assert (summary.planned_now, summary.pending, summary.labelled, summary.imported_now) == (6, 6, 0, 0)
    assert 6 * SHAPE[0] * SHAPE[1] < summary.bytes < 30 * SHAPE[0] * SHAPE[1]
    assert not (tmp_path / "new").exists()


def test_hypersims_distances_are_told_of_until_they_are_converted(copy: Path) -> None:
    for path in [*copy.glob("mm/*/*.png")]:
        path.rename(path.with_name(f"{path.stem}.depth_meters.png"))
    told: dict[str, Any] = {"pattern": "{dir}/{stem}.depth_meters.png", "dry_run": True}
    assert any("--distance-to-depth 886.81 converts them" in one for one in imported(copy, copy / "new", **told).notes)
    told = {**told, "distance_to_depth": 900.0}
    assert not any("distance" in one for one in imported(copy, copy / "new", **told).notes)


def test_maps_of_other_settings_never_mix(made: Path) -> None:
    for other, changed in (
        ({"scale": 256}, "--scale 1000 there, 256 here"),
        (
            {"invalid": (7, 65535), "max_value": 9},
            "--invalid not given there, 7 65535 here; --max not given there, 9 here",
        ),
        ({"made_by": "another"}, "--made-by not given there, another here"),
        ({"quantity": "disparity"}, "--quantity depth there, disparity here"),
    ):
        with pytest.raises(StoreMismatch) as raised:
            imported(made, made / "plain", **other)
        assert f"was imported with other settings ({changed}), and maps of two" in str(raised.value)
        assert "digest" not in str(raised.value) and "teacher" not in str(raised.value)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"quantity": None}, UsageError, "say what the maps hold with --quantity"),
        ({"scale": None}, UsageError, "need --scale, how many are a metre: 1000"),
        ({"scale": 0}, UsageError, "scale must be a number above 0"),
        ({"confidence": "{stem}.npy"}, UsageError, "--confidence-means, what they hold, go together"),
        ({"confidence_range": (0, 1)}, UsageError, "is for confidence of which higher or lower is better"),
        ({"pattern": "../{stem}.png"}, UsageError, "would leave the folder"),
        ({"pattern": "{stem}.npy"}, SourceError, r"looked for é 0\.npy, and what is there begins with even/é 0\.png"),
        ({"images": "nowhere"}, SourceError, "no such file"),
        ({"max_value": 0.001}, SourceError, "none of 6 maps .* its map has no valid pixel; nothing was written"),
        ({"threads": 0}, UsageError, "threads must be a whole number"),
        ({"distance_to_depth": 0}, UsageError, "distance_to_depth must be a number above 0"),
        ({"quantity": "disparity", "distance_to_depth": 9}, UsageError, "is for maps of depth, not of disparity"),
    ],
)
def test_mistakes_are_one_line(made: Path, tmp_path: Path, options: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        imported(made, tmp_path / "new", **options)
    assert not (tmp_path / "new").exists()


def test_maps_that_do_not_belong_to_one_image_are_refused(copy: Path, tmp_path: Path) -> None:
    with pytest.raises(SourceError, match=r"have the same map, even/é 0\.png; tell them apart with --pattern"):
        imported(copy, tmp_path / "new", pattern="even/é 0.png")
    np.save(copy / "mm/even/é 0.npy", metres_of(0))
    with pytest.raises(
        SourceError, match=r"has two maps in .*, even/é 0\.npy and even/é 0\.png; say which with --patt"
    ):
        imported(copy, tmp_path / "new")
    with pytest.raises(SourceError, match="it is its own map, one and the same file"):
        imported(copy, tmp_path / "new", "photos")


def test_the_command_says_what_it_did(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from commandline import command

    arguments = ("import", made / "m", tmp_path / "store", "--images", made / "photos", "--quantity", "depth")
    assert command(monkeypatch, *arguments, "--dry-run") == 0
    assert command(monkeypatch, *arguments) == 0
    shown = capsys.readouterr()
    first, second, third = shown.out.splitlines()
    assert first.startswith(f"Would import 6 images into {tmp_path / 'store'}, at most ")
    assert first.endswith("; 0 are there. Nothing was written.")
    assert second.startswith("Imported 6 images in ") and third == f"{tmp_path / 'store'}: 6 of 6 images labelled."
    assert shown.err.startswith("Note: no confidence: ")
    assert command(monkeypatch, *arguments, "--json") == 0
    assert json.loads(capsys.readouterr().out)["labelled"] == 6
    assert command(monkeypatch, *arguments, "--max", 0) == 2


def test_reliability_of_maps_may_come_from_a_network(made: Path, tmp_path: Path) -> None:
    """While they are imported, when more are, and afterwards as a layer: the same codes."""
    network = ErrorNetwork.random(quantity="depth")
    network.save(tmp_path / "network.safetensors")
    calibration = tmp_path / "network.safetensors"
    with pytest.raises(UsageError, match="not from both"):
        imported(made, tmp_path / "both", ".", scale=1000, calibration=calibration, **CONFIDENT)
    done = imported(made, tmp_path / "store", calibration=calibration)
    assert not any("confidence" in note for note in done.notes)
    store = depthsieve.open_store(tmp_path / "store")
    assert (store.spec.signals, store.spec.calibration_digest) == (("network",), network.digest)
    assert imported(made, tmp_path / "store").planned_now == 0  # by what the store keeps
    shutil.copytree(made / "plain", tmp_path / "plain")
    depthsieve.recalibrate(tmp_path / "plain", calibration=calibration, name="net", progress=False)
    layer = depthsieve.open_store(tmp_path / "plain", reliability="net")
    for number in range(6):
        codes_HW = store[image_id(number)].reliability
        np.testing.assert_array_equal(codes_HW > 0, metres_of(number) > 0)
        np.testing.assert_array_equal(codes_HW, layer[image_id(number)].reliability)
        assert len(np.unique(codes_HW)) > 1
