"""Depth Anything teachers against a plain, independent statement of what its authors' code computes."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import teachers_builders as builders
import torch
import transformers
from PIL import Image
from safetensors.torch import load_file
from teachers_builders import depth_of
from torch.nn import functional

import depthsieve
from depthsieve.core.errors import ImageRejected, StoreMismatch, UsageError
from depthsieve.teachers import load_teacher
from depthsieve.teachers.depth_anything import official_shape

PATCH, SIDE = builders.PATCH, builders.SIDE


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("depth_anything")
    return builders.save(path, builders.depth_anything_config(), builders.DEPTH_ANYTHING_PROCESSOR)


@pytest.fixture(scope="module")
def photo() -> np.ndarray:
    """A smooth picture with some grain, 75 x 100."""
    rows, columns = np.mgrid[0:75, 0:100] / 100
    waves = np.stack([np.sin(9 * rows + 4 * columns), np.cos(7 * columns), np.sin(11 * rows * columns)], axis=2)
    grain = np.random.default_rng(0).normal(scale=12, size=waves.shape)
    return np.clip(127 + 100 * waves + grain, 0, 255).astype(np.uint8)


# --- the official computation, written down again ------------------------------------------------------------------


def cubic_weights(taken: int, wanted: int) -> np.ndarray:
    """[wanted, taken] weights of cv2's INTER_CUBIC: pixel centres, a = -0.75, edge pixels repeated, no antialias."""
    weights = np.zeros((wanted, taken))
    for row in range(wanted):
        centre = (row + 0.5) * taken / wanted - 0.5
        for tap in range(math.floor(centre) - 1, math.floor(centre) + 3):
            x = abs(centre - tap)
            near = (1.25 * x - 2.25) * x * x + 1
            far = -0.75 * (((x - 5) * x + 8) * x - 4)
            weights[row, min(max(tap, 0), taken - 1)] += near if x <= 1 else far
    return weights


def official_input(rgb_HW3: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    unit = rgb_HW3.astype(np.float64) / 255
    resized = np.einsum(
        "ih,jw,hwc->cij", cubic_weights(unit.shape[0], shape[0]), cubic_weights(unit.shape[1], shape[1]), unit
    )
    mean, std = np.array([0.485, 0.456, 0.406]), np.array([0.229, 0.224, 0.225])
    return ((resized - mean[:, None, None]) / std[:, None, None]).astype(np.float32)


class Official:
    """DINOv2 and the DPT head on the tensors of a checkpoint's file; runs no module."""

    def __init__(self, folder: Path, heads: int = 2) -> None:
        self.weights, self.heads = load_file(folder / "model.safetensors"), heads

    def linear(self, name: str, x: torch.Tensor) -> torch.Tensor:
        return functional.linear(x, self.weights[f"{name}.weight"], self.weights[f"{name}.bias"])

    def conv(self, name: str, x: torch.Tensor, **options: Any) -> torch.Tensor:
        return functional.conv2d(x, self.weights[f"{name}.weight"], self.weights.get(f"{name}.bias"), **options)

    def norm(self, name: str, x: torch.Tensor) -> torch.Tensor:
        return functional.layer_norm(
            x, x.shape[-1:], self.weights[f"{name}.weight"], self.weights[f"{name}.bias"], 1e-6
        )

    def positions(self, rows: int, columns: int) -> torch.Tensor:
        table = self.weights["backbone.embeddings.position_embeddings"]
        side = round(math.sqrt(table.shape[1] - 1))
        if rows == columns == side:
            return table
        grid = table[:, 1:].reshape(1, side, side, -1).permute(0, 3, 1, 2)
        scale = ((rows + 0.1) / side, (columns + 0.1) / side)
        grid = functional.interpolate(grid, scale_factor=scale, mode="bicubic", antialias=False)
        return torch.cat([table[:, :1], grid.flatten(2).transpose(1, 2)], dim=1)

    def attention(self, name: str, x: torch.Tensor) -> torch.Tensor:
        batch, tokens, dim = x.shape
        query, key, value = (
            self.linear(f"{name}.attention.{part}", x).reshape(batch, tokens, self.heads, -1).transpose(1, 2)
            for part in ("query", "key", "value")
        )
        scores = (query @ key.transpose(2, 3) / math.sqrt(dim // self.heads)).softmax(-1)
        return self.linear(f"{name}.output.dense", (scores @ value).transpose(1, 2).reshape(batch, tokens, dim))

    def backbone(self, image: torch.Tensor) -> list[torch.Tensor]:
        rows, columns = image.shape[2] // PATCH, image.shape[3] // PATCH
        patches = self.conv("backbone.embeddings.patch_embeddings.projection", image, stride=PATCH)
        cls = self.weights["backbone.embeddings.cls_token"].expand(len(image), -1, -1)
        x = torch.cat([cls, patches.flatten(2).transpose(1, 2)], dim=1) + self.positions(rows, columns)
        outputs = []
        for index in range(4):
            layer = f"backbone.encoder.layer.{index}"
            gain1, gain2 = (self.weights[f"{layer}.layer_scale{which}.lambda1"] for which in (1, 2))
            x = x + gain1 * self.attention(f"{layer}.attention", self.norm(f"{layer}.norm1", x))
            hidden = functional.gelu(self.linear(f"{layer}.mlp.fc1", self.norm(f"{layer}.norm2", x)))
            x = x + gain2 * self.linear(f"{layer}.mlp.fc2", hidden)
            feature = self.norm("backbone.layernorm", x)[:, 1:]
            outputs.append(feature.transpose(1, 2).reshape(len(image), -1, rows, columns))
        return outputs

    def residual(self, name: str, x: torch.Tensor) -> torch.Tensor:
        y = self.conv(f"{name}.convolution1", x.relu(), padding=1)
        return x + self.conv(f"{name}.convolution2", y.relu(), padding=1)

    def __call__(self, image: torch.Tensor) -> torch.Tensor:
        maps = []
        for index, feature in enumerate(self.backbone(image)):
            layer = f"neck.reassemble_stage.layers.{index}"
            x = self.conv(f"{layer}.projection", feature)
            if index < 2:
                weight, bias = self.weights[f"{layer}.resize.weight"], self.weights[f"{layer}.resize.bias"]
                x = functional.conv_transpose2d(x, weight, bias, stride=(4, 2)[index])
            elif index == 3:
                x = self.conv(f"{layer}.resize", x, stride=2, padding=1)
            maps.append(self.conv(f"neck.convs.{index}", x, padding=1))
        path = None
        for step, index in enumerate((3, 2, 1, 0)):
            name = f"neck.fusion_stage.layers.{step}"
            x = maps[index] if path is None else path + self.residual(f"{name}.residual_layer1", maps[index])
            x = self.residual(f"{name}.residual_layer2", x)
            size = maps[index - 1].shape[2:] if index else [2 * side for side in x.shape[2:]]
            x = functional.interpolate(x, size=size, mode="bilinear", align_corners=True)
            path = self.conv(f"{name}.projection", x)
        x = self.conv("head.conv1", path, padding=1)
        x = functional.interpolate(x, size=image.shape[2:], mode="bilinear", align_corners=True)
        return self.conv("head.conv3", self.conv("head.conv2", x, padding=1).relu()).relu()[:, 0]


def relative_difference(got: torch.Tensor, wanted: torch.Tensor) -> float:
    assert got.shape == wanted.shape
    return float((got - wanted).abs().max() / (wanted.max() - wanted.min()))


# --- tests -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("height", "width", "shape"),
    [
        (375, 500, (518, 686)),  # transformers' own rule gives 392x518 for these two
        (425, 640, (518, 784)),
        (480, 640, (518, 686)),
        (518, 518, (518, 518)),
        (1080, 1920, (518, 924)),
        (1920, 1080, (924, 518)),
        (1, 1, (518, 518)),
        (4000, 3999, (518, 518)),
        (1000, 1013, (518, 518)),  # 524.7 = 37.48 patches
        (1000, 1014, (518, 532)),  # 525.3 = 37.52 patches
    ],
)
def test_the_official_rule_gives_these_shapes(height: int, width: int, shape: tuple[int, int]) -> None:
    assert official_shape(height, width, (518, 518), 14) == shape


def test_a_side_below_the_size_goes_up_to_the_next_multiple() -> None:
    assert official_shape(100, 100, (505, 505), 14) == (518, 518)  # the nearest multiple, 504, is too small
    assert official_shape(100, 300, (28, 70), 14) == (28, 84)  # height and width may have sizes of their own


def test_the_input_is_the_official_one(folder: Path, photo: np.ndarray) -> None:
    teacher = load_teacher(str(folder))
    for picture in (photo, photo.transpose(1, 0, 2), photo[:9, :13]):  # shrunk, upright, enlarged
        shape = teacher.label_shape(*picture.shape[:2])
        got = teacher.prepare(picture, shape)
        assert got.dtype == np.float32
        assert got.flags.c_contiguous
        np.testing.assert_allclose(got, official_input(picture, shape), atol=2e-5)


@pytest.mark.parametrize("shape", [(70, 70), (70, 98), (112, 70), (84, 84), (28, 28)])
def test_the_label_is_the_official_one(folder: Path, photo: np.ndarray, shape: tuple[int, int]) -> None:
    image = torch.from_numpy(official_input(photo, shape))[None]
    with torch.inference_mode():
        wanted = Official(folder)(image)
    assert wanted.std() > 0.05  # a map worth comparing
    got = depth_of(load_teacher(str(folder)), image)
    assert got.dtype == torch.float32
    assert relative_difference(got, wanted) < 2e-5


def test_transformers_alone_misses_the_official_label_off_square(folder: Path, photo: np.ndarray) -> None:
    """What the replaced position embeddings are for; without them this file's other checks would fail."""
    model = transformers.AutoModelForDepthEstimation.from_pretrained(folder).eval()
    for shape, same in (((70, 70), True), ((70, 98), False), ((112, 70), False)):
        image = torch.from_numpy(official_input(photo, shape))[None]
        with torch.inference_mode():
            off = relative_difference(model(image).predicted_depth, Official(folder)(image))
        assert (off < 1e-5) if same else (off > 2e-3)


def test_infer_image_from_photo_to_map(folder: Path, photo: np.ndarray) -> None:
    """The whole way, as in the official ``infer_image`` up to its last resize: under 1e-3 of the map's range."""
    teacher = load_teacher(str(folder))
    shape = teacher.label_shape(75, 100)
    assert shape == (70, 98)
    with torch.inference_mode():
        wanted = Official(folder)(torch.from_numpy(official_input(photo, shape))[None])
    got = depth_of(teacher, torch.from_numpy(teacher.prepare(photo, shape))[None])
    assert relative_difference(got, wanted) < 1e-4


def test_a_batch_of_another_grid_does_not_reuse_the_last_ones_positions(folder: Path) -> None:
    teacher = load_teacher(str(folder))
    generator = torch.Generator().manual_seed(1)
    images = [torch.randn(2, 3, *shape, generator=generator) for shape in ((70, 98), (98, 70), (70, 98), (70, 140))]
    fresh = [depth_of(load_teacher(str(folder)), image) for image in images]
    for image, wanted in zip(images, fresh, strict=True):
        torch.testing.assert_close(depth_of(teacher, image), wanted, rtol=0, atol=0)


def test_metric_models_give_metres_up_to_their_maximum(tmp_path: Path) -> None:
    config = builders.depth_anything_config(depth_estimation_type="metric", max_depth=20)
    teacher = load_teacher(str(builders.save(tmp_path, config, builders.DEPTH_ANYTHING_PROCESSOR)))
    assert (teacher.quantity, teacher.unit) == ("depth", "m")
    depth = depth_of(teacher, torch.randn(1, 3, 70, 70, generator=torch.Generator().manual_seed(0)))
    assert 1 < depth.min() < depth.max() < 20


def test_size_moves_the_short_side_and_the_record(folder: Path) -> None:
    teacher = load_teacher(str(folder), size=98)
    assert teacher.label_shape(100, 200) == (98, 196)
    assert teacher.preprocessing["size"] == [98, 98]
    assert load_teacher(str(folder)).preprocessing["size"] == [70, 70]
    for size, reason in ((100, "no multiple of the model's patch, 14"), (0, "whole number of at least 1")):
        with pytest.raises(UsageError, match=reason):
            load_teacher(str(folder), size=size)


def test_too_many_tokens_are_rejected_with_the_sizes(folder: Path) -> None:
    teacher = load_teacher(str(folder), max_tokens=25)
    assert teacher.label_shape(300, 300) == (70, 70)
    with pytest.raises(ImageRejected) as caught:
        teacher.label_shape(300, 400)
    assert str(caught.value) == (
        "400x300 pixels would be labelled at 98x70, 35 tokens, above the limit of 25; raise --max-tokens (then "
        "--retry-failed), or label into a new store with --oversize shrink"
    )
    with pytest.raises(ImageRejected, match="empty"):
        teacher.label_shape(0, 10)


def test_oversized_images_shrink_to_the_limit(folder: Path, photo: np.ndarray) -> None:
    teacher = load_teacher(str(folder), max_tokens=30, oversize="shrink")
    for height, width in ((75, 100), (100, 75), (60, 60), (100, 900), (3, 80)):
        rows, columns = (side / PATCH for side in teacher.label_shape(height, width))
        assert rows == int(rows) >= 1
        assert columns == int(columns) >= 1
        assert rows * columns <= 30
    assert teacher.label_shape(75, 100) == (56, 84)
    got = teacher.prepare(photo, (56, 84))
    np.testing.assert_allclose(got, official_input(photo, (56, 84)), atol=2e-5)
    with pytest.raises(ImageRejected, match="too thin"):
        teacher.label_shape(1, 3000)


def test_everything_that_decides_the_input_is_on_record(folder: Path) -> None:
    settings = load_teacher(str(folder), max_tokens=99, oversize="shrink").preprocessing
    assert settings == {
        "rule": "depth-anything-official",
        "size": [70, 70],
        "multiple": 14,
        "interpolation": "cv2 INTER_CUBIC, float32 RGB/255",
        "mean": [0.485, 0.456, 0.406],
        "std": [0.229, 0.224, 0.225],
        "position_embedding": "official, offset 0.1",
        "max_tokens": 99,
        "oversize": "shrink",
    }


def test_a_limit_that_only_rejects_decides_no_label(folder: Path) -> None:
    low, high = (load_teacher(str(folder), max_tokens=limit).preprocessing for limit in (25, 35))
    assert low == high
    assert not {"max_tokens", "oversize"} & set(low)
    shrinking = [load_teacher(str(folder), max_tokens=limit, oversize="shrink").preprocessing for limit in (25, 35)]
    assert [spec["max_tokens"] for spec in shrinking] == [25, 35]
    assert {key: value for key, value in shrinking[0].items() if key not in ("max_tokens", "oversize")} == low


def test_the_advice_for_images_above_the_limit_works(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    for name, width in (("square", 80), ("wide", 160)):
        ramp_HW3 = np.broadcast_to(np.arange(width, dtype=np.uint8)[None, :, None], (80, width, 3))
        Image.fromarray(np.ascontiguousarray(ramp_HW3)).save(tmp_path / "photos" / f"{name}.png")

    def label(store: str, **options: Any) -> depthsieve.LabelSummary:
        options |= {"teacher": str(folder), "device": "cpu", "batch_size": 1, "threads": 1}
        return depthsieve.label(tmp_path / "photos", tmp_path / store, **options)

    first = label("store", max_tokens=25)
    assert (first.labelled, [failure.id for failure in first.failed]) == (1, ["default/wide.png"])
    assert "raise --max-tokens (then --retry-failed)" in first.failed[0].reason
    second = label("store", max_tokens=50, retry_failed=True)
    assert (second.labelled, second.labelled_now, second.failed) == (2, 1, ())
    with pytest.raises(StoreMismatch, match=r"preprocessing\.oversize: null in the store, \"shrink\" now"):
        label("store", oversize="shrink")
    assert label("other", max_tokens=25, oversize="shrink").labelled == 2


@pytest.mark.parametrize(
    "image", [np.zeros((4, 4, 3), np.float32), np.zeros((4, 4), np.uint8), np.zeros((0, 4, 3), "u1")]
)
def test_what_is_no_decoded_image_is_refused(folder: Path, image: np.ndarray) -> None:
    with pytest.raises(UsageError, match=r"must be uint8 \[H, W, 3\]"):
        load_teacher(str(folder)).prepare(image, (70, 70))


def test_half_precision_computes_in_that_type_and_gives_float32(folder: Path) -> None:
    image = torch.randn(1, 3, 70, 98, generator=torch.Generator().manual_seed(0))
    exact = depth_of(load_teacher(str(folder)), image)
    teacher = load_teacher(str(folder), dtype="bfloat16")
    rough = depth_of(teacher, image)
    assert (teacher.dtype, rough.dtype) == ("bfloat16", torch.float32)
    assert 1e-4 < relative_difference(rough, exact) < 0.1
