"""Labels at the resolution of photos: depth among valid pixels only, reliability of the nearest."""

import numpy as np

from depthsieve.export.resize import resize_codes, resize_depth


def test_a_plane_stays_a_plane_under_the_mapping_of_centres() -> None:
    shape, larger = (6, 8), (18, 40)
    y_H1, x_1W = np.mgrid[0 : shape[0], 0 : shape[1]]
    depth_HW = (1 + 2 * x_1W + 3 * y_H1).astype(np.float32)
    y, x = np.mgrid[0 : larger[0], 0 : larger[1]]
    x_label, y_label = (x + 0.5) * shape[1] / larger[1] - 0.5, (y + 0.5) * shape[0] / larger[0] - 0.5
    inside = (x_label >= 0) & (x_label <= shape[1] - 1) & (y_label >= 0) & (y_label <= shape[0] - 1)
    made = resize_depth(depth_HW, larger)
    assert np.allclose(made[inside], (1 + 2 * x_label + 3 * y_label)[inside], atol=0.05)  # OpenCV has 11 bits


def test_invalid_pixels_do_not_bleed_into_valid_ones() -> None:
    depth_HW = np.full((4, 4), 5, np.float32)
    depth_HW[:, 2:] = np.nan
    codes_HW = np.where(np.isnan(depth_HW), 0, 200).astype(np.uint8)
    made = resize_depth(depth_HW, (12, 12))
    assert np.all(made[:, :6] == 5) and np.isnan(made[:, 6:]).all()
    assert np.array_equal(np.isnan(made), resize_codes(codes_HW, (12, 12)) == 0)


def test_any_two_shapes_agree_on_what_is_invalid() -> None:
    random = np.random.default_rng(0)
    for shape in ((7, 5), (9, 31), (28, 40), (3, 3)):
        depth_HW = random.uniform(1, 9, (14, 20)).astype(np.float32)
        depth_HW[random.random((14, 20)) < 0.3] = np.nan
        codes_HW = np.where(np.isnan(depth_HW), 0, 9).astype(np.uint8)
        made = resize_depth(depth_HW, shape)
        assert made.shape == shape and np.nanmin(made) >= 1 and np.nanmax(made) <= 9
        assert np.array_equal(np.isnan(made), resize_codes(codes_HW, shape) == 0)


def test_the_same_shape_is_the_same_map() -> None:
    depth_HW = np.array([[1.5, np.nan]], np.float32)
    assert resize_depth(depth_HW, (1, 2)) is depth_HW
