"""What labels and their reliability are made of: the teacher, its signals, a second teacher."""

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from labelled import label, write_photos
from PIL import Image
from teachers_builders import GLPN_PROCESSOR, glpn_config, save

from depthsieve.core.errors import (
    StoreMismatch,
    UsageError,
)
from depthsieve.core.records import default_dtype
from depthsieve.reliability.code import encode_error
from depthsieve.reliability.fusion import fuse, relative_error, shipped_calibration
from depthsieve.reliability.scale import CODE_VERSION
from depthsieve.reliability.signals import (
    edges_disagreement,
    flip_disagreement,
    lowres_disagreement,
    lowres_view,
    photometric_disagreement,
    photometric_view,
    teachers_disagreement,
)
from depthsieve.store import open_store
from depthsieve.teachers import Batch, load_teacher


def test_labels_are_the_teachers_own_and_rows_say_which_image(tmp_path: Path, teacher: str) -> None:
    photos = write_photos(tmp_path / "photos")
    summary = label(photos, tmp_path / "store", teacher, signals="flip")
    assert (summary.labelled, summary.labelled_now, summary.failed, summary.pending) == (5, 5, (), 0)
    store = open_store(tmp_path / "store")
    assert store.images == [f"default/photo {number}.png" for number in range(5)]
    model = load_teacher(teacher)
    for number in range(5):
        rgb_HW3 = np.asarray(Image.open(photos / f"photo {number}.png").convert("RGB"))
        shape = model.label_shape(*rgb_HW3.shape[:2])
        image_1CHW = torch.from_numpy(model.prepare(rgb_HW3, shape))[None]
        depth_1HW = model.predict(Batch.of(image_1CHW)).depth
        found = store.label(f"default/photo {number}.png")
        assert found.depth.shape == shape == ((98, 70) if number % 3 == 2 else (70, 98))
        np.testing.assert_allclose(found.depth, depth_1HW[0], rtol=5e-4, atol=2e-6 * float(depth_1HW.max()))
        delta = flip_disagreement(depth_1HW, model.predict(Batch.of(image_1CHW.flip(-1))).depth, "disparity")
        codes = codes_of(depth_1HW, {"flip": delta})
        assert np.mean(np.abs(codes.astype(int) - found.reliability) <= 1) > 0.99
        assert len(np.unique(codes)) > 8
        assert found.source_shape == rgb_HW3.shape[:2]


def codes_of(depth_1HW: torch.Tensor, deltas: dict[str, torch.Tensor]) -> np.ndarray:
    """The codes [H,W] that labels of these disagreements have."""
    relative = {name: relative_error(depth_1HW, delta) for name, delta in deltas.items()}
    return encode_error(fuse(depth_1HW, relative, "disparity", shipped_calibration()), version=CODE_VERSION)[0].numpy()


@pytest.mark.parametrize("signals", ["lowres", "flip,lowres", "edges", "flip,photometric"])
def test_reliability_follows_from_the_signals(tmp_path: Path, teacher: str, signals: str) -> None:
    photos = write_photos(tmp_path / "photos", 3)
    label(photos, tmp_path / "store", teacher, signals=signals)
    store = open_store(tmp_path / "store")
    assert store.spec.calibration == f"{signals.replace(',', '+')}-2-transferred"  # it was not fitted on this teacher
    model = load_teacher(teacher)
    for number in range(3):
        rgb_HW3 = np.asarray(Image.open(photos / f"photo {number}.png").convert("RGB"))
        shape = model.label_shape(*rgb_HW3.shape[:2])
        image_1CHW = torch.from_numpy(model.prepare(rgb_HW3, shape))[None]
        depth_1HW, half = model.predict(Batch.of(image_1CHW)).depth, model.half_shape(shape)
        assert half == ((56, 42) if number == 2 else (42, 56))
        lowres_1Chw, warmer_1CHW = lowres_view(image_1CHW, half), photometric_view(image_1CHW)
        deltas = {
            "edges": edges_disagreement(depth_1HW),
            "flip": flip_disagreement(depth_1HW, model.predict(Batch.of(image_1CHW.flip(-1))).depth, "disparity"),
            "lowres": lowres_disagreement(depth_1HW, model.predict(Batch.of(lowres_1Chw)).depth, "disparity"),
            "photometric": photometric_disagreement(depth_1HW, model.predict(Batch.of(warmer_1CHW)).depth, "disparity"),
        }
        codes = codes_of(depth_1HW, {name: deltas[name] for name in signals.split(",")})
        found = store.label(f"default/photo {number}.png").reliability
        assert np.mean(np.abs(codes.astype(int) - found) <= 1) > 0.99
        assert len(np.unique(codes)) > 8


def test_the_calibration_is_the_first_embedded_teachers_own(tmp_path: Path) -> None:
    label(write_photos(tmp_path / "photos", 1), tmp_path / "store", "tiny-v1", signals="flip")
    assert open_store(tmp_path / "store").spec.calibration == "flip-2"


@pytest.mark.parametrize("metric", [False, True])
def test_a_second_teacher_judges_the_first(tmp_path: Path, teacher: str, metric: bool) -> None:
    photos, store = write_photos(tmp_path / "photos", 3), tmp_path / "store"
    second = str(save(tmp_path / "second", glpn_config(), GLPN_PROCESSOR)) if metric else "tiny-v1"
    label(photos, store, teacher, second_teacher=second, signals="edges")
    opened = open_store(store)
    assert opened.spec.signals == ("edges", "teachers")
    first, other = load_teacher(teacher), load_teacher(second)
    assert opened.spec.second == {
        "weights_digest": other.weights_digest,
        "quantity": "depth" if metric else "disparity",
        "unit": "m" if metric else "",
        "dtype": "float32",
        "preprocessing": other.preprocessing,
    }
    for number in range(3):
        rgb_HW3 = np.asarray(Image.open(photos / f"photo {number}.png").convert("RGB"))
        shape = first.label_shape(*rgb_HW3.shape[:2])
        depth_1HW = first.predict(Batch.of(torch.from_numpy(first.prepare(rgb_HW3, shape))[None])).depth
        smaller = shape[0] * shape[1] < rgb_HW3.shape[0] * rgb_HW3.shape[1]
        small_HW3 = cv2.resize(rgb_HW3, shape[::-1], interpolation=cv2.INTER_AREA if smaller else cv2.INTER_CUBIC)
        second_1Chw = torch.from_numpy(other.prepare(small_HW3, other.label_shape(*shape)))[None]
        delta = teachers_disagreement(
            depth_1HW, other.predict(Batch.of(second_1Chw)).depth, "disparity", other.quantity
        )
        codes = codes_of(depth_1HW, {"edges": edges_disagreement(depth_1HW), "teachers": delta})
        found = opened.label(f"default/photo {number}.png").reliability
        assert np.mean(np.abs(codes.astype(int) - found) <= 1) > 0.99
        assert len(np.unique(codes)) > 8
    assert label(photos, store, teacher, second_teacher=second, signals="edges").labelled_now == 0
    with pytest.raises(StoreMismatch, match="second"):
        label(photos, store, teacher, second_teacher=teacher)


def test_what_a_teacher_cannot_tell_is_refused_before_anything_is_written(tmp_path: Path, teacher: str) -> None:
    photos, store = write_photos(tmp_path / "photos", 1), tmp_path / "store"
    metric = str(save(tmp_path / "metric", glpn_config(), GLPN_PROCESSOR))
    refused: list[tuple[str, dict[str, object], str]] = [
        (teacher, {"signals": "flip,native"}, "gives no confidence of its own"),
        (teacher, {"signals": "teachers"}, "compares two; name one: --second-teacher NAME"),
        (metric, {"second_teacher": teacher}, "cannot judge the metres of teacher"),
        (teacher, {"signals": "none", "keep_signals": True}, "no signals to keep"),
    ]
    for name, options, words in refused:
        with pytest.raises(UsageError, match=words):
            label(photos, store, name, **options)
        assert not store.exists()


def test_a_teacher_of_fixed_sizes_gives_no_lowres_signal(tmp_path: Path) -> None:
    fixed = str(save(tmp_path / "glpn", glpn_config(), GLPN_PROCESSOR))
    with pytest.raises(UsageError, match=r"signal 'lowres' needs half of them; leave it out"):
        label(write_photos(tmp_path / "photos", 1), tmp_path / "store", fixed, signals="lowres")
    assert not (tmp_path / "store").exists()


def test_the_dtype_is_the_stores_own_unless_one_is_named(tmp_path: Path, teacher: str) -> None:
    photos, store = write_photos(tmp_path / "photos", 2), tmp_path / "store"
    label(photos, store, teacher, dtype="bfloat16")
    write_photos(photos, 1, first=2)
    assert label(photos, store, teacher).labelled == 3
    assert open_store(store).spec.dtype == "bfloat16"
    with pytest.raises(StoreMismatch, match="dtype"):
        label(photos, store, teacher, dtype="float32")
    label(photos, tmp_path / "another", teacher)
    assert open_store(tmp_path / "another").spec.dtype == "float32"
    assert [default_dtype(kind) for kind in ("cpu", "mps", "cuda")] == ["float32", "float32", "float16"]


def test_without_signals_every_pixel_counts_as_reliable(tmp_path: Path, teacher: str) -> None:
    label(write_photos(tmp_path / "photos", 1), tmp_path / "store", teacher, signals="none")
    store = open_store(tmp_path / "store")
    assert store.spec.signals == ()
    assert set(np.unique(store.label("default/photo 0.png").reliability)) == {255}
