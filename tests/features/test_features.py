"""Features: what an image and its label say of themselves, where they are kept, and what becomes of damaged ones."""

import hashlib
import shutil
import sys
import threading
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from labelled import small_teacher, write_photo, write_photos
from PIL import Image
from planted import _flat, _page, _shaken
from teachers_builders import GLPN_PROCESSOR, glpn_config, save

import depthsieve
from depthsieve.core.tables import CAMERA_SCHEMA
from depthsieve.features import (
    COLUMNS,
    IMAGE_COLUMNS,
    LABEL_COLUMNS,
    RELIABILITY_COLUMNS,
    image_signals,
    label_signals,
    reliability_signals,
)
from depthsieve.features.of_image import colourfulness
from depthsieve.images.decode import decode
from depthsieve.jobs.verify.repair import verify
from depthsieve.scenes import render_scene
from depthsieve.store import open_store
from depthsieve.store.features import FeatureReader
from depthsieve.store.fits import CLIPS_SCHEMA, METRIC_SCHEMA
from depthsieve.teachers import Batch, load_teacher
from depthsieve.teachers.embedding import MOST, _projection, embed
from depthsieve_cli.main import main

SETTINGS = {"batch_size": 2, "threads": 1, "shard_size": 3, "progress": False}


def signals(rgb_HW3: np.ndarray) -> dict[str, float]:
    return dict(zip(IMAGE_COLUMNS, image_signals(rgb_HW3).values.tolist(), strict=True))


def about(depth_HW: np.ndarray, quantity: str = "disparity") -> dict[str, float]:
    return about_valid(depth_HW, np.ones(depth_HW.shape, np.bool_), quantity)


def about_valid(depth_HW: np.ndarray, valid_HW: np.ndarray, quantity: str) -> dict[str, float]:
    code_HW = np.where(valid_HW, 200, 0).astype(np.uint8)
    values = label_signals(depth_HW, code_HW, np.bincount(code_HW.ravel(), minlength=256), quantity)  # type: ignore[arg-type]
    return dict(zip(LABEL_COLUMNS, values.tolist(), strict=True))


@pytest.fixture(scope="module")
def scene() -> np.ndarray:
    return render_scene(7, 240, 320, "street").rgb_HW3


def test_a_blurred_image_is_not_sharp_at_any_size_or_contrast(scene: np.ndarray) -> None:
    blurred, shaken = cv2.GaussianBlur(scene, (0, 0), 4), _shaken(scene, 16, 0.3)
    for picture in (scene, cv2.resize(scene, None, fx=2.5, fy=2.5), (scene * 0.3).astype(np.uint8)):
        assert signals(picture)["sharpness"] > 0.55
    for picture in (blurred, shaken, cv2.resize(blurred, None, fx=2.5, fy=2.5), (blurred * 0.3).astype(np.uint8)):
        assert signals(picture)["sharpness"] < 0.53


def test_planted_faults_stand_out(scene: np.ndarray) -> None:
    random = np.random.default_rng(1)
    good = signals(scene)
    assert good["dark"] < 0.1 and good["bright"] < 0.1 and good["detail"] > 2 and good["text"] < 2
    for _ in range(3):
        assert signals(_page(random))["text"] > 2.85
        assert signals(_flat(random))["detail"] < 0.5
    black = signals((scene * 0.02).astype(np.uint8))
    assert black["dark"] == 1 and black["luma"] < 0.02 and black["detail"] < 0.8
    white = signals(np.full((100, 100, 3), 255, np.uint8))
    assert (white["bright"], white["luma"], white["colourfulness"]) == (1, 1, 0)


def test_colourfulness_is_that_of_hasler_and_suesstrunk() -> None:
    half = np.zeros((2, 2, 3), np.uint8)
    half[0] = (200, 0, 0)  # rg = 200, yb = 100; and 0, 0
    assert colourfulness(half) == pytest.approx(np.hypot(100, 50) + 0.3 * np.hypot(100, 50))


def test_a_perceptual_hash_is_alike_for_copies_and_not_for_others(scene: np.ndarray) -> None:
    own = image_signals(scene).phash
    smaller = image_signals(cv2.resize(scene, (200, 150), interpolation=cv2.INTER_AREA)).phash
    other = image_signals(render_scene(8, 240, 320, "room").rgb_HW3).phash
    assert (own ^ smaller).bit_count() <= 6
    assert 16 < (own ^ other).bit_count() < 50
    assert (own ^ image_signals(255 - scene).phash).bit_count() > 50
    assert own < 1 << 64


@pytest.mark.parametrize("shape", [(1, 1), (1, 5000), (5000, 1), (3, 3), (2500, 4)])
def test_any_size_has_finite_signals(shape: tuple[int, int]) -> None:
    picture = np.random.default_rng(0).integers(0, 256, (*shape, 3), dtype=np.uint8)
    assert np.isfinite(image_signals(picture).values).all()


def test_reliability_is_summed_up_from_its_histogram() -> None:
    random = np.random.default_rng(3)
    codes = [random.integers(0, 256, 997), random.integers(1, 9, 100), np.zeros(50, np.int64), np.full(7, 255)]
    histogram_NK = np.stack([np.bincount(one, minlength=256) for one in codes]).astype(np.uint32)
    for one, found in zip(codes, reliability_signals(histogram_NK), strict=True):
        valid = np.sort(one[one > 0])
        expected = (
            [valid.mean(), *(np.percentile(valid, p, method="inverted_cdf") for p in (1, 5, 10))]
            if len(valid)
            else [0] * 4
        )
        np.testing.assert_allclose(found, [*expected, len(valid) / len(one)], rtol=1e-6)
    assert len(RELIABILITY_COLUMNS) == 5


def test_flat_deep_and_far_labels_are_told_apart() -> None:
    y, x = np.mgrid[0:120, 0:160].astype(np.float32)
    plane = 1 + 0.002 * y + 0.001 * x
    assert about(np.full((120, 160), 3.0))["depth_range"] == pytest.approx(0)
    assert about(plane)["flatness"] == pytest.approx(1, abs=1e-6)
    assert about(plane)["depth_range"] == pytest.approx(0.13, abs=0.02)
    assert about(plane)["edges"] == 0
    box = plane.copy()
    box[30:90, 40:120] += 2
    assert about(box)["flatness"] < 0.6
    assert 0.005 < about(box)["edges"] < 0.06
    sky = box.copy()
    sky[:60] = 0.001
    assert about(sky)["sky"] == pytest.approx(0.5)
    for name, value in about(sky).items():
        assert about(1 / sky, "depth")[name] == pytest.approx(value, abs=1e-5), name
        assert about(1000 * sky)[name] == pytest.approx(value, abs=1e-5), name
    assert all(np.isfinite(value) for value in about(np.zeros((5, 9))).values())


# --- embeddings

PINNED = "c3477306c438a3c3"
"""Of the signs of the matrix: what is stored already must stay comparable."""


def test_the_projection_never_changes_and_keeps_angles() -> None:
    projection = _projection(768).numpy()
    signs = np.packbits(projection > 0).tobytes()
    assert hashlib.sha256(signs).hexdigest().startswith(PINNED)
    assert (projection.shape, np.unique(np.abs(projection)).size) == ((768, MOST), 1)
    random = np.random.default_rng(0)
    first = random.normal(size=(200, 768))
    second = first + random.normal(size=(200, 768)) * 0.5
    cosines = [np.einsum("nd,nd->n", a, b) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1) for a, b in
               ((first, second), (first @ projection, second @ projection))]  # fmt: skip
    assert np.abs(cosines[0] - cosines[1]).max() < 0.06


def test_an_embedding_is_the_means_of_the_quarters_without_the_class_token() -> None:
    tokens_BPC = torch.zeros(1, 1 + 4 * 6, 3)
    tokens_BPC[:, 0] = 99
    grid = tokens_BPC[0, 1:].view(4, 6, 3)
    grid[:2, :3, 0], grid[2:, 3:, 1] = 3, 4
    found = embed(tokens_BPC, (4, 6))[0].view(3, 2, 2)
    assert found[0].flatten().tolist() == pytest.approx([0.6, 0, 0, 0])
    assert found[1, 1, 1] == pytest.approx(0.8) and found[2].abs().max() == 0
    maps = grid.permute(2, 0, 1)[None]
    torch.testing.assert_close(embed(maps, (4, 6)), embed(tokens_BPC, (4, 6)))


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(small_teacher(tmp_path_factory.mktemp("teacher") / "t"))


def test_each_thread_gets_the_embedding_of_its_own_images(teacher: str) -> None:
    model = load_teacher(teacher)
    images = [torch.randn(1, 3, 70, 70, generator=torch.Generator().manual_seed(seed)) for seed in range(6)]
    alone = []
    for image in images:
        alone.append(model.predict(Batch.of(image)).embedding)
    assert model.embedding_size == alone[0].shape[1] and alone[0].norm() == pytest.approx(1)
    found: dict[int, torch.Tensor] = {}

    def work(number: int) -> None:
        for _ in range(5):
            found[number] = model.predict(Batch.of(images[number])).embedding

    threads = [threading.Thread(target=work, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for number, expected in enumerate(alone):
        torch.testing.assert_close(found[number], expected)


# --- in a store


@pytest.mark.parametrize("quantity", ["depth", "disparity"])
@pytest.mark.parametrize("hidden", [0.0, 60000.0, np.nan])
def test_signals_of_depth_are_those_of_the_valid_pixels(quantity: str, hidden: float) -> None:
    """Holes, in blocks as measured depth has them, leave the signals about as they are without, whatever is in them."""
    inverse_HW = 0.2 + np.linspace(0, 0.3, 160) * np.ones((120, 1))  # one plane, with a nearer half
    inverse_HW[60:] += 0.4
    depth_HW = 1 / inverse_HW if quantity == "depth" else inverse_HW
    hole_HW = np.kron(np.random.default_rng(0).random((15, 20)) < 0.2, np.ones((8, 8), np.bool_))
    whole = about(depth_HW, quantity)
    holed = about_valid(np.where(hole_HW, hidden, depth_HW), ~hole_HW, quantity)
    assert holed["valid"] == pytest.approx(1 - hole_HW.mean()) and holed["sky"] == whole["sky"] == 0
    for name in ("depth_range", "flatness"):
        assert holed[name] == pytest.approx(whole[name], abs=0.02)
    assert holed["edges"] == pytest.approx(whole["edges"], rel=0.3)
    plane_HW = 0.2 + np.linspace(0, 0.3, 160) * np.ones((120, 1))
    flat_HW = 1 / plane_HW if quantity == "depth" else plane_HW
    flat = about_valid(np.where(hole_HW, hidden, flat_HW), ~hole_HW, quantity)
    assert (flat["flatness"], flat["edges"]) == (pytest.approx(1, abs=1e-6), 0)


def test_too_few_valid_pixels_have_no_signals_of_depth() -> None:
    depth_HW, valid_HW = np.random.default_rng(0).random((40, 40)), np.zeros((40, 40), np.bool_)
    names = ("depth_range", "flatness", "sky", "edges")
    for count in (0, 15):
        valid_HW[0, :count] = True
        found = about_valid(depth_HW, valid_HW, "disparity")
        assert all(np.isnan(found[name]) for name in names) and np.isfinite(found["reliability"])
    valid_HW[::2, ::2] = True  # enough, but no two are neighbours
    found = about_valid(depth_HW, valid_HW, "disparity")
    assert np.isfinite([found[name] for name in names[:3]]).all()
    valid_HW[0] = False
    assert np.isnan(about_valid(depth_HW, valid_HW, "disparity")["edges"])


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, teacher: str) -> Path:
    """Six photos, one of them cut off, in a store of three shards."""
    folder = tmp_path_factory.mktemp("made")
    photos = write_photos(folder / "photos", 6)
    small_teacher(folder / "teacher")
    (photos / "photo 1.png").write_bytes((photos / "photo 1.png").read_bytes()[:500])
    depthsieve.label(photos, folder / "store", teacher=teacher, **SETTINGS)
    return folder


@pytest.fixture
def store(made: Path, tmp_path: Path) -> Path:
    shutil.copytree(made / "store", tmp_path / "store")
    return tmp_path / "store"


def test_labelling_keeps_the_features_of_each_image_and_the_index_has_them(made: Path, teacher: str) -> None:
    opened, model = open_store(made / "store"), load_teacher(teacher)
    rows = {row["id"]: row for row in opened.index().to_pylist()}
    assert all(rows["default/photo 1.png"][name] is None for name in [*COLUMNS, "phash"])
    for number in (0, 2, 5):
        name = f"default/photo {number}.png"
        rgb_HW3 = decode((made / "photos" / f"photo {number}.png").read_bytes()).rgb_HW3
        expected, row = image_signals(rgb_HW3), rows[name]
        np.testing.assert_array_equal([row[one] for one in IMAGE_COLUMNS], expected.values)
        assert row["phash"] == expected.phash
        reader = opened.reader(row["shard"])
        histogram = reader.column("histogram")[row["row"]]
        wanted = label_signals(reader.depth(row["row"]), reader.reliability(row["row"]), histogram, "disparity")
        np.testing.assert_array_equal([row[one] for one in LABEL_COLUMNS], wanted)
        image = torch.from_numpy(model.prepare(rgb_HW3, model.label_shape(*rgb_HW3.shape[:2])))[None]
        table = opened.index().filter(opened.index()["id"].to_numpy(zero_copy_only=False) == name)
        found = FeatureReader(opened).embeddings(*(table[one].combine_chunks() for one in ("shard", "row")))
        np.testing.assert_allclose(found[0], model.predict(Batch.of(image)).embedding[0].numpy(), atol=2e-3)
    of_layers = {*COLUMNS, "phash", *METRIC_SCHEMA.names, *CAMERA_SCHEMA.names, *CLIPS_SCHEMA.names}
    assert set(opened.index(features=False).column_names) == set(opened.index().column_names) - of_layers


def test_a_teacher_without_a_known_backbone_keeps_the_rest(made: Path, tmp_path: Path) -> None:
    glpn = save(tmp_path / "glpn", glpn_config(), GLPN_PROCESSOR)
    assert load_teacher(str(glpn)).embedding_size is None
    write_photo(tmp_path / "photos" / "one.png", 128, 96, seed=1)
    depthsieve.label(tmp_path / "photos", tmp_path / "store", teacher=str(glpn), **SETTINGS)
    opened = open_store(tmp_path / "store")
    assert FeatureReader(opened).embedding_size is None
    (row,) = opened.index().to_pylist()
    assert row["phash"] == image_signals(np.asarray(Image.open(tmp_path / "photos" / "one.png"))).phash


def test_features_that_are_missing_are_added_from_images_and_labels(made: Path, store: Path) -> None:
    before = open_store(store).index()
    shutil.rmtree(store / "layers")
    shutil.rmtree(store / "copies" / "layers")
    assert open_store(store).index()["sharpness"].null_count == 6
    done = depthsieve.add_features(store, progress=False)
    assert (done.images_now, done.shards_now, done.shards, done.without_image, done.errors) == (6, 3, 3, (), ())
    after = open_store(store).index()
    assert after.equals(before)
    found = FeatureReader(open_store(store)), FeatureReader(open_store(made / "store"))
    place = [after.filter(after["status"].to_numpy(zero_copy_only=False) == "labelled")[n] for n in ("shard", "row")]
    ours, theirs = (one.embeddings(*(column.combine_chunks() for column in place)) for one in found)
    np.testing.assert_allclose(ours, theirs, atol=2e-3)
    assert verify(store, progress=False).findings == ()
    assert depthsieve.add_features(store, progress=False).shards_now == 0


def test_an_image_that_is_gone_or_changed_keeps_the_features_of_its_label(made: Path, tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    shutil.copytree(made / "photos", photos)
    depthsieve.label(photos, tmp_path / "store", teacher=str(made / "teacher"), **SETTINGS)
    shutil.rmtree(tmp_path / "store" / "layers")
    (photos / "photo 0.png").unlink()
    write_photo(photos / "photo 3.png", 120, 90, seed=99)
    done = depthsieve.add_features(tmp_path / "store", progress=False)
    told = {failure.id: failure.reason for failure in done.without_image}
    assert set(told) == {"default/photo 0.png", "default/photo 3.png"}
    assert "no such file" in told["default/photo 0.png"] and told["default/photo 3.png"].startswith("changed since")
    rows = {row["id"]: row for row in open_store(tmp_path / "store").index().to_pylist()}
    for name in told:
        assert rows[name]["sharpness"] is None and rows[name]["depth_range"] > 0
    assert rows["default/photo 2.png"]["sharpness"] > 0


def test_the_transparent_part_of_an_image_is_in_no_signal_of_its_label(made: Path, tmp_path: Path) -> None:
    """Neither while labelling nor afterwards."""
    (tmp_path / "photos").mkdir()
    photo = Image.open(made / "photos" / "photo 0.png").convert("RGBA")
    photo.paste((0, 0, 0, 0), (0, 0, 50, 90))
    photo.save(tmp_path / "photos" / "hole.png")
    depthsieve.label(tmp_path / "photos", tmp_path / "store", teacher=str(made / "teacher"), **SETTINGS)
    (row,) = open_store(tmp_path / "store").index().to_pylist()
    label = open_store(tmp_path / "store")[0]
    assert 0.4 < row["valid"] < 0.9
    expected = about_valid(label.depth, label.reliability > 0, "disparity")
    assert expected["depth_range"] != about(label.depth)["depth_range"]
    for name in ("depth_range", "flatness", "sky", "edges"):
        assert row[name] == expected[name]
    shutil.rmtree(tmp_path / "store" / "layers")
    depthsieve.add_features(tmp_path / "store", progress=False)
    assert open_store(tmp_path / "store").index().to_pylist() == [row]


@pytest.mark.parametrize("how", ["flipped", "missing"])
def test_damaged_features_are_found_taken_out_and_added_again(
    store: Path, how: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("depthsieve.core.progress.LOG_EVERY_S", 0)
    (values,) = (store / "layers" / "features" / "shards").glob("0000-000001-*/values/c/0/0")
    intact = open_store(store).index()
    if how == "flipped":
        data = values.read_bytes()
        values.write_bytes(bytes([data[0] ^ 1]) + data[1:])
    else:
        values.unlink()
    (finding,) = verify(store, progress=False).findings
    assert (finding.key, finding.remedy, finding.shard) == (
        values.relative_to(store).as_posix(), "take out", "0000-000001",
    )  # fmt: skip
    assert main_code(monkeypatch, "verify", store, "--repair") == 3
    assert f"add them again: depthsieve features {store}" in capsys.readouterr().out
    assert main_code(monkeypatch, "features", store) == 0
    out, err = capsys.readouterr()
    assert ("Added features of 1 image in" in out, "features: 1 of 1 images" in err) == (True, True)
    assert open_store(store).index().equals(intact)
    assert main_code(monkeypatch, "features", store) == 0
    out, err = capsys.readouterr()
    assert (out.splitlines()[0], "features:" in err) == ("0 images to do.", False)


def main_code(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    monkeypatch.setattr(sys, "argv", ["depthsieve", *map(str, arguments)])
    with pytest.raises(SystemExit) as caught:
        main()
    return int(caught.value.code or 0)
