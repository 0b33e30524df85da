"""Depth in the numbers that readers take. Axes: H row, W column."""

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageOps

from depthsieve.export.metric_codes import (
    as_in_file,
    as_in_file_shape,
    encode_inverse,
    encode_linear,
    encode_log,
    fill_nearest,
    to_distance,
)
from depthsieve.scenes import render_scene


def depth_with_holes() -> NDArray[np.float32]:
    depth_HW = np.minimum(render_scene(4, 48, 64).depth_HW, 60).astype(np.float32)
    depth_HW[5:9, 10:20] = np.nan
    return depth_HW


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_map_goes_back_to_the_order_of_pixels_of_its_file(orientation: int) -> None:
    upright_HW = np.arange(12, dtype=np.uint8).reshape(3, 4)
    in_file = Image.fromarray(as_in_file(upright_HW, orientation))
    assert as_in_file_shape(upright_HW.shape, orientation) == in_file.size[::-1]
    exif = in_file.getexif()
    exif[0x0112] = orientation
    np.testing.assert_array_equal(np.asarray(ImageOps.exif_transpose(in_file)), upright_HW)


@pytest.mark.parametrize(("steps", "invalid"), [(1000, 0), (256, 0), (100, 65535)])
def test_linear_codes_are_within_half_a_step(steps: int, invalid: int) -> None:
    depth_HW = depth_with_holes()
    code_HW, far = encode_linear(depth_HW, steps, invalid)
    valid_HW = ~np.isnan(depth_HW)
    assert (code_HW.dtype, far) == (np.uint16, 0)
    assert (code_HW[~valid_HW] == invalid).all()
    assert np.abs(code_HW / steps - depth_HW)[valid_HW].max() <= 0.5 / steps + 1e-6


def test_no_valid_pixel_gets_the_code_of_an_invalid_one_and_what_is_too_far_does_with_a_count() -> None:
    depth_HW = np.array([[0.0001, 65.535, 65.536, 1e9, np.nan]], np.float32)
    code_HW, far = encode_linear(depth_HW, 1000)
    assert (code_HW.tolist(), far) == ([[1, 65535, 0, 0, 0]], 2)
    code_HW, far = encode_linear(np.array([[0.0001, 655.34, 655.35, np.nan]], np.float32), 100, 65535)
    assert (code_HW.tolist(), far) == ([[0, 65534, 65535, 65535]], 1)


def test_the_logarithmic_code_is_read_back_within_its_step() -> None:
    depth_HW = depth_with_holes()
    code_HW, near, far = encode_log(depth_HW)
    valid_HW = ~np.isnan(depth_HW)
    assert (near, far) == (depth_HW[valid_HW].min(), depth_HW[valid_HW].max())
    t_HW = (code_HW.astype(np.float64) - 1) / 65533
    back_HW = near ** (1 - t_HW) * far**t_HW
    assert (code_HW[~valid_HW] == 0).all()
    assert code_HW[valid_HW].min() == 1
    assert code_HW.max() == 65534
    off_HW = np.abs(back_HW / depth_HW - 1)[valid_HW]
    assert off_HW.max() <= np.log(far / near) / 131066 * 1.001


def test_the_logarithmic_code_of_a_wall_and_of_nothing() -> None:
    code_HW, near, far = encode_log(np.full((2, 3), 2.0, np.float32))
    assert (near, far, code_HW.tolist()) == (2.0, 2.2, [[1, 1, 1]] * 2)
    code_HW, near, far = encode_log(np.full((2, 3), np.nan, np.float32))
    assert (near, far, code_HW.any()) == (1.0, 1.0, False)


def test_the_inverse_code_covers_the_range_and_fills_what_is_invalid_from_beside() -> None:
    near_large_HW = 1 / depth_with_holes()
    code_HW, low, step = encode_inverse(near_large_HW)
    valid_HW = ~np.isnan(near_large_HW)
    assert (code_HW.min(), code_HW.max()) == (0, 65535)
    assert np.abs(low + step * code_HW - near_large_HW)[valid_HW].max() <= step / 2 * 1.001
    np.testing.assert_array_equal(code_HW[6:8, 10], code_HW[6:8, 9])
    assert not encode_inverse(np.full((2, 3), 3.0))[0].any()
    assert encode_inverse(np.full((2, 3), np.nan))[1:] == (0.0, 0.0)


def test_the_nearest_valid_pixel_fills() -> None:
    map_HW = np.full((7, 9), np.nan, np.float32)
    map_HW[1, 1], map_HW[5, 7] = 3.0, 4.0
    rows, columns = np.mgrid[:7, :9]
    first_HW = np.hypot(rows - 1, columns - 1)
    second_HW = np.hypot(rows - 5, columns - 7)
    filled_HW = fill_nearest(map_HW)
    clear_HW = np.abs(first_HW - second_HW) > 0.2  # cv2 measures distances within a few percent
    np.testing.assert_array_equal(filled_HW[clear_HW], np.where(first_HW < second_HW, 3.0, 4.0)[clear_HW])
    assert fill_nearest(map_HW * np.nan) is not None


def test_distance_is_taken_out_again_by_the_reader_of_hypersim() -> None:
    height, width, focal = 768, 1024, 886.81
    depth_HW = np.random.default_rng(0).uniform(1, 9, (height, width)).astype(np.float32)
    x_HW = np.linspace(-0.5 * width + 0.5, 0.5 * width - 0.5, width)[None, :].repeat(height, 0)
    y_HW = np.linspace(-0.5 * height + 0.5, 0.5 * height - 0.5, height)[:, None].repeat(width, 1)
    plane_HW3 = np.stack([x_HW, y_HW, np.full_like(x_HW, focal)], axis=2)
    back_HW = to_distance(depth_HW, focal) / np.linalg.norm(plane_HW3, axis=2) * focal
    np.testing.assert_allclose(back_HW, depth_HW, rtol=1e-6)
