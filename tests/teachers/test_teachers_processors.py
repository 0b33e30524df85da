"""Teachers that follow their own image processor: DPT, ZoeDepth, GLPN, Depth Pro."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import teachers_builders as builders
import torch
import transformers
from teachers_builders import depth_of

from depthsieve.core.errors import ImageRejected, TeacherError, TeacherUnsupported, UsageError
from depthsieve.core.threads import torch_threads
from depthsieve.teachers import load_teacher
from depthsieve.teachers.huggingface import depth_pro_metres, quantity_of
from depthsieve.teachers.preprocessing import ProcessorPreprocessing, TokenLimit

SIZES = [(200, 300), (300, 200), (100, 100), (33, 47), (97, 61), (64, 64), (480, 640), (211, 1003)]


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    root = tmp_path_factory.mktemp("processors")
    beit = builders.dpt_config(backbone_config=builders.beit_config())
    return {
        "dpt-square": builders.save(root / "dpt-square", builders.dpt_config(), builders.DPT_SQUARE_PROCESSOR),
        "dpt-aspect": builders.save(root / "dpt-aspect", beit, builders.DPT_ASPECT_PROCESSOR),
        "glpn": builders.save(root / "glpn", builders.glpn_config(), builders.GLPN_PROCESSOR),
        "zoedepth": builders.save(root / "zoedepth", builders.zoedepth_config(), builders.ZOEDEPTH_PROCESSOR),
    }


def picture(height: int, width: int, seed: int = 0) -> np.ndarray:
    """A gradient with grain: its left half is darker than its right one."""
    ramp = np.linspace(0, 200, width)[None, :, None] + np.linspace(0, 30, height)[:, None, None]
    return np.clip(ramp + np.random.default_rng(seed).normal(10, 8, (height, width, 3)), 0, 255).astype(np.uint8)


def processor_of(folder: Path) -> Any:
    return transformers.AutoImageProcessor.from_pretrained(folder, backend="pil")


def batch(*images: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.stack(images))


@pytest.mark.parametrize("kind", ["dpt-square", "dpt-aspect", "glpn"])
def test_input_and_shape_are_the_processors(folders: dict[str, Path], kind: str) -> None:
    teacher, processor = load_teacher(str(folders[kind])), processor_of(folders[kind])
    for height, width in SIZES:
        rgb = picture(height, width)
        wanted = processor(images=rgb, return_tensors="np", input_data_format="channels_last")["pixel_values"][0]
        shape = teacher.label_shape(height, width)
        assert shape == wanted.shape[1:]
        got = teacher.prepare(rgb, shape)
        assert got.dtype == np.float32
        np.testing.assert_array_equal(got, wanted)


@pytest.mark.parametrize(
    ("kind", "shape", "quantity", "unit"),
    [
        ("dpt-square", (64, 64), "disparity", ""),
        ("dpt-aspect", (64, 96), "disparity", ""),
        ("glpn", (192, 288), "depth", "m"),
        ("zoedepth", (84, 112), "depth", "m"),
    ],
)
def test_labels_have_the_label_shape_and_the_models_values(
    folders: dict[str, Path], kind: str, shape: tuple[int, int], quantity: str, unit: str
) -> None:
    teacher = load_teacher(str(folders[kind]))
    assert (teacher.quantity, teacher.unit) == (quantity, unit)
    assert teacher.label_shape(200, 300) == shape
    image = batch(teacher.prepare(picture(200, 300), shape))
    label = depth_of(teacher, image)
    assert label.shape == (1, *shape)
    assert label.dtype == torch.float32
    assert label.std() > 0
    if kind != "zoedepth":
        model = transformers.AutoModelForDepthEstimation.from_pretrained(folders[kind]).eval()
        with torch.inference_mode():
            torch.testing.assert_close(label, model(image).predicted_depth)


def test_zoedepth_adds_a_margin_and_cuts_it_off_again(folders: dict[str, Path]) -> None:
    """The label is the inner 7/8 of what the model says about the image with its border mirrored around it."""
    teacher = load_teacher(str(folders["zoedepth"]))
    processor = processor_of(folders["zoedepth"])
    rgb = picture(200, 300)
    whole = processor(images=rgb, return_tensors="np")["pixel_values"].shape[2:]
    assert whole == (96, 128)
    assert teacher.preprocessing["margin"] == "reflect 1/14"
    image = teacher.prepare(rgb, (84, 112))
    plain = processor(
        images=rgb,
        return_tensors="np",
        do_pad=False,
        size={"height": 84, "width": 112},
        keep_aspect_ratio=False,
        ensure_multiple_of=1,
    )
    np.testing.assert_allclose(image, plain["pixel_values"][0], rtol=0, atol=1e-6)  # processors round differently
    padded = np.pad(image, ((0, 0), (6, 6), (8, 8)), mode="reflect")
    assert padded.shape == (3, *whole)
    model = transformers.AutoModelForDepthEstimation.from_pretrained(folders["zoedepth"]).eval()
    with torch.inference_mode():
        wanted = model(batch(padded)).predicted_depth[:, 6:-6, 8:-8]
    torch.testing.assert_close(depth_of(teacher, batch(image)), wanted)


def test_zoedepths_shapes_are_seven_eighths_of_the_processors(folders: dict[str, Path]) -> None:
    teacher, processor = load_teacher(str(folders["zoedepth"])), processor_of(folders["zoedepth"])
    for height, width in SIZES:
        whole = processor(images=picture(height, width), return_tensors="np")["pixel_values"].shape[2:]
        assert teacher.label_shape(height, width) == (whole[0] * 7 // 8, whole[1] * 7 // 8)
        shape = teacher.label_shape(height, width)
        assert teacher.prepare(picture(height, width), shape).shape == (3, *shape)


def test_zoedepth_labels_do_not_depend_on_the_rest_of_the_batch(folders: dict[str, Path]) -> None:
    """Its two-headed model lets the batch vote on the head; a label must be its image's own."""
    teacher = load_teacher(str(folders["zoedepth"]))
    model = teacher._model  # type: ignore[attr-defined]
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(4, 3, 84, 112, generator=generator) * torch.linspace(0.3, 6, 4)[:, None, None, None]
    padded = torch.nn.functional.pad(images, (8, 8, 6, 6), "reflect")
    with torch.inference_mode():
        logits = torch.cat([model(image[None]).domain_logits for image in padded])
    leaning = logits[:, 0] - logits[:, 1]
    with torch.no_grad():  # make the images disagree about the head
        model.metric_head.mlp_classifier.linear2.bias[0] -= leaning.sort().values[1:3].mean()
    alone = torch.cat([depth_of(teacher, image[None]) for image in images])
    torch.testing.assert_close(depth_of(teacher, images), alone, rtol=0, atol=0)
    with torch.inference_mode():
        voted = model(padded).predicted_depth[:, 6:-6, 8:-8]
    assert sorted(((voted - alone).abs().amax(dim=(1, 2)) > 1e-2).tolist()) == [False, False, True, True]


def test_glpn_images_above_the_limit(folders: dict[str, Path]) -> None:
    limit = 12 * 16
    with pytest.raises(ImageRejected, match=r"400x300 pixels would be labelled at 384x288, 432 tokens, .* 192"):
        load_teacher(str(folders["glpn"]), max_tokens=limit).label_shape(300, 400)
    teacher = load_teacher(str(folders["glpn"]), max_tokens=limit, oversize="shrink")
    shape = teacher.label_shape(300, 400)
    assert shape == (192, 256)
    rgb = np.repeat(np.repeat(np.arange(48 * 3, dtype=np.uint8).reshape(6, 8, 3), 50, axis=0), 50, axis=1)
    got = teacher.prepare(rgb, shape)
    assert got.shape == (3, 192, 256)
    np.testing.assert_allclose(got[:, 16::32, 16::32], rgb[25::50, 25::50].transpose(2, 0, 1) / 255, atol=1e-6)
    assert depth_of(teacher, batch(got)).shape == (1, 192, 256)
    with pytest.raises(ImageRejected, match="too thin"):
        teacher.label_shape(20, 400)


def test_a_limit_that_only_rejects_decides_no_label(folders: dict[str, Path]) -> None:
    low, high = (load_teacher(str(folders["glpn"]), max_tokens=limit) for limit in (12 * 16, 500))
    assert low.preprocessing == high.preprocessing
    assert not {"max_tokens", "oversize"} & set(low.preprocessing)
    shape = high.label_shape(300, 400)
    planned = high.prepare(picture(300, 400), shape)  # a plan holds, though a later run has a lower limit
    np.testing.assert_array_equal(low.prepare(picture(300, 400), shape), planned)
    shrinking = load_teacher(str(folders["glpn"]), max_tokens=12 * 16, oversize="shrink").preprocessing
    assert shrinking == {**low.preprocessing, "max_tokens": 192, "oversize": "shrink"}


def test_zoedepth_images_above_the_limit_shrink_margin_and_all(folders: dict[str, Path]) -> None:
    teacher = load_teacher(str(folders["zoedepth"]), max_tokens=30, oversize="shrink")
    shape = teacher.label_shape(200, 300)
    assert shape == (56, 84)  # 64x96 for the model, 24 tokens
    assert depth_of(teacher, batch(teacher.prepare(picture(200, 300), shape))).shape == (1, 56, 84)


def test_preparing_is_the_same_in_many_threads(folders: dict[str, Path]) -> None:
    for kind, folder in folders.items():
        teacher = load_teacher(str(folder))
        pictures = [picture(60 + 7 * index, 90, seed=index) for index in range(12)]
        shapes = [teacher.label_shape(*rgb.shape[:2]) for rgb in pictures]
        wanted = [teacher.prepare(rgb, shape) for rgb, shape in zip(pictures, shapes, strict=True)]
        for threads in (1, 2):  # of torch
            with torch_threads(threads), ThreadPoolExecutor(4) as pool:
                for index, got in enumerate(pool.map(teacher.prepare, pictures, shapes)):
                    np.testing.assert_array_equal(got, wanted[index], err_msg=f"{kind}, {threads} threads")


def test_another_processor_setting_is_another_record(folders: dict[str, Path], tmp_path: Path) -> None:
    processor = builders.DPT_SQUARE_PROCESSOR
    first = load_teacher(str(folders["dpt-square"])).preprocessing
    assert first["settings"]["size"] == {"height": 64, "width": 64}
    assert first["processor"] == "DPTImageProcessorPil"
    changed = processor | {"image_mean": [0.4, 0.5, 0.5]}
    other = load_teacher(str(builders.save(tmp_path, builders.dpt_config(), changed))).preprocessing
    assert {key for key in first if first[key] != other[key]} == {"settings"}
    assert other["settings"] == first["settings"] | {"image_mean": [0.4, 0.5, 0.5]}


def test_half_precision_takes_the_same_float32_input(folders: dict[str, Path]) -> None:
    for kind in ("glpn", "dpt-square"):
        exact, rough = (load_teacher(str(folders[kind]), dtype=dtype) for dtype in ("float32", "bfloat16"))
        image = batch(exact.prepare(picture(64, 64), (64, 64)))
        label = depth_of(rough, image)
        assert label.dtype == torch.float32
        assert 0 < (label - depth_of(exact, image)).abs().max() < 0.2


def test_processors_take_no_size(folders: dict[str, Path]) -> None:
    with pytest.raises(UsageError, match="size is for Depth Anything models, not glpn"):
        load_teacher(str(folders["glpn"]), size=128)


class OneSize:
    """A stand-in for a processor that transformers has no rule for here: everything becomes ``side`` x 2 ``side``."""

    def __init__(self, side: int) -> None:
        self.side, self.calls = side, 0

    def to_dict(self) -> dict[str, Any]:
        return {"side": 8, "image_processor_type": "OneSize", "_hidden": 1, "nothing": None}

    def __call__(self, **_: Any) -> dict[str, list[np.ndarray]]:
        self.calls += 1
        return {"pixel_values": [np.zeros((3, self.side, 2 * self.side))]}


def test_an_unknown_processors_shape_is_measured_once_a_size() -> None:
    processor = OneSize(8)
    preprocessing = ProcessorPreprocessing(processor, TokenLimit(16, 100, "reject"))
    assert [preprocessing.label_shape(50, 60) for _ in range(3)] == [(8, 16)] * 3
    assert processor.calls == 1
    assert preprocessing.spec["settings"] == {"side": 8}
    processor.side = 9
    with pytest.raises(TeacherError, match=r"gave \[3, 9, 18\] for a 60x50 image, not \[3, 8, 16\]"):
        preprocessing.prepare(np.zeros((50, 60, 3), np.uint8), (8, 16))


def test_depth_pro_gives_metres() -> None:
    """A canonical inverse depth of 0.25 seen with 90 degrees (f = width / 2): 1 / (0.25 * 2) = 2 m."""
    inverse = torch.tensor([[[0.25, 0.5]], [[0.25, 0.0]]])
    metres = depth_pro_metres(inverse, torch.tensor([90.0, 60.0]))
    torch.testing.assert_close(metres[0], torch.tensor([[2.0, 1.0]]))
    torch.testing.assert_close(metres[1], torch.tensor([[4 * 3**0.5 / 2, 1e4]]))


def test_depth_pro_without_a_field_of_view_is_disparity() -> None:
    assert quantity_of(transformers.DepthProConfig(use_fov_model=True)) == "depth"
    assert quantity_of(transformers.DepthProConfig(use_fov_model=False)) == "disparity"


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"do_pad": True, "size_divisor": 14}, "labels would not cover their images"),
        ({"keep_aspect_ratio": True}, "takes square images only"),
    ],
)
def test_processors_that_would_give_wrong_labels_are_refused(
    tmp_path: Path, change: dict[str, Any], reason: str
) -> None:
    folder = builders.save(tmp_path, builders.dpt_config(), builders.DPT_SQUARE_PROCESSOR | change)
    with pytest.raises(TeacherUnsupported, match=reason):
        load_teacher(str(folder))
