"""What varies a sample: windows of another scale, and colours."""

import itertools
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from depthsieve.core.errors import UsageError
from depthsieve.training import Augment
from depthsieve.training.crops import Window, choose_window
from depthsieve.training.reader import convert

RANDOM = np.random.default_rng(0)
NOISE = RANDOM.integers(0, 256, (40, 50, 3), dtype=np.uint8)
PINNED_WINDOWS = [(33, 17, 11, 13, True), (2, 18, 25, 30, True), (35, 30, 11, 13, False)]


def windows(augment: Augment, label: tuple[int, int], count: int = 300) -> list[Window]:
    return [choose_window(label, augment, 0, epoch, "default/a.png") for epoch in range(count)]


# --- geometry


def test_windows_show_what_the_scale_says_and_stay_inside() -> None:
    found = windows(Augment(crop=(20, 30), scale=(0.5, 2.0)), (50, 66))
    assert all(w.shape == (20, 30) and w.top + w.height <= 50 and w.left + w.width <= 66 for w in found)
    scales = [20 / w.height for w in found]
    assert min(scales) < 0.51 + 0.02 and max(scales) > 1.9
    assert abs(np.mean(scales) - 1.25) < 0.1  # uniform
    assert all(abs(w.width / w.height - 1.5) < 0.13 for w in found)
    assert sum(w.resizes for w in found) > 250


def test_where_a_scale_does_not_fit_the_least_is_what_fits() -> None:
    found = windows(Augment(crop=20, scale=(0.1, 2.0)), (25, 40))
    assert max(w.height for w in found) == 25 and max(w.width for w in found) == 25
    assert abs(np.mean([20 / w.height for w in found]) - (0.8 + 2) / 2) < 0.1
    whole = windows(Augment(scale=(0.5, 2.0)), (24, 36))
    assert all(w.shape == (24, 36) and w.height <= 24 and w.width <= 36 for w in whole)
    assert max(w.height for w in whole) == 24 and min(w.height for w in whole) <= 13
    assert Augment(crop=20, scale=(1.0, 2.0)).fits((10, 10))
    assert not Augment(crop=20, scale=(1.0, 2.0)).fits((9, 30))


def test_windows_are_pinned() -> None:
    # Values of the first release: changing them changes every run that goes on from a saved state.
    found = windows(Augment(crop=(20, 24), scale=(0.5, 2.0), flip=True), (50, 66), 3)
    assert [(w.top, w.left, w.height, w.width, w.flip) for w in found] == PINNED_WINDOWS
    plain = windows(Augment(crop=(20, 24)), (50, 66), 3)
    assert [(w.top, w.left) for w in windows(Augment(crop=(20, 24), flip=True), (50, 66), 3)] == [
        (w.top, w.left) for w in plain
    ]


def test_maps_take_the_nearest_pixel_and_images_the_mean_or_what_lies_between() -> None:
    map_HW = np.arange(8 * 6).reshape(8, 6)
    assert Window(0, 0, 8, 6, shape=(4, 3)).cut(map_HW).tolist() == map_HW[1::2, 1::2].tolist()
    twice = Window(2, 1, 3, 2, shape=(6, 4)).cut(map_HW)
    assert twice.tolist() == map_HW[2:5, 1:3].repeat(2, 0).repeat(2, 1).tolist()
    flipped = Window(2, 1, 3, 2, shape=(6, 4), flip=True)
    assert flipped.cut(map_HW).tolist() == twice[:, ::-1].tolist()
    halved = Window(0, 0, 40, 50, shape=(20, 25)).cut_image(NOISE)
    means = NOISE.reshape(20, 2, 25, 2, 3).mean(axis=(1, 3))
    assert np.abs(halved - means).max() <= 0.5
    larger = Window(0, 0, 2, 2, shape=(4, 4)).cut_image(np.array([[[0], [80]], [[0], [80]]], np.uint8).repeat(3, 2))
    assert larger[0, :, 0].tolist() == [0, 20, 60, 80]
    mirrored = Window(3, 4, 5, 6, flip=True).cut_image(NOISE)
    assert (mirrored == NOISE[3:8, 4:10][:, ::-1]).all()


def test_half_precision_becomes_single_precision_exactly() -> None:
    every = np.arange(65536, dtype=np.uint16).view(np.float16)
    for values in (every[:0x7C00], every[:0x400], every, every[0x8000:], every[0x7C00:0x7C01], every[:0]):
        out = np.empty(values.shape, np.float32)
        convert(values, out)
        np.testing.assert_array_equal(out.view(np.uint32), values.astype(np.float32).view(np.uint32))
    strided = every[:31744].reshape(124, 256)[3:90:2, ::-1]
    out = np.empty(strided.shape, np.float32)
    convert(strided, out)
    assert (out == strided).all()


# --- colours


def only(number: int, strength: float) -> Augment:
    return Augment(jitter=tuple(strength if n == number else 0.0 for n in range(4)))  # type: ignore[arg-type]


def factor_of(changed: np.ndarray[Any, Any], image: np.ndarray[Any, Any]) -> float:
    return float((changed.astype(float) * image).sum() / (image.astype(float) ** 2).sum())


def test_brightness_is_one_factor() -> None:
    image = (NOISE // 2).astype(np.uint8)
    factors = []
    for epoch in range(60):
        changed = only(0, 0.5).colours(image, epoch)
        factors.append(factor_of(changed, image))
        assert np.abs(changed - image * factors[-1]).max() <= 0.6
    assert 0.5 <= min(factors) < 0.6 and 1.4 < max(factors) <= 1.5
    assert only(0, 0.5).colours(NOISE, 1).max() == 255  # and does not wrap around


def test_contrast_keeps_the_mean_grey_and_saturation_each_pixels_grey() -> None:
    image = (64 + NOISE // 2).astype(np.uint8)
    weights = np.array([0.299, 0.587, 0.114])
    spreads = []
    for epoch in range(40):
        contrasted = only(1, 0.4).colours(image, epoch)
        assert abs((contrasted @ weights).mean() - (image @ weights).mean()) < 0.1
        spreads.append(contrasted.std() / image.std())
        saturated = only(2, 0.4).colours(image, epoch)
        assert np.abs(saturated @ weights - image @ weights).max() < 0.6
        spread = np.ptp(saturated.astype(float), axis=2).sum() / np.ptp(image.astype(float), axis=2).sum()
        assert 0.59 <= spread <= 1.41
    assert min(spreads) < 0.7 and max(spreads) > 1.3


def test_hue_turns_the_colour_wheel_and_leaves_grey_alone() -> None:
    red = np.zeros((4, 4, 3), np.uint8)
    red[..., 0] = 200
    seen = {tuple(only(3, 0.5).colours(red, epoch)[0, 0]) for epoch in range(200)}
    assert all(max(colour) == 200 and min(colour) == 0 for colour in seen)
    assert all(any(colour[channel] == 200 for colour in seen) for channel in range(3))
    turned = [int(only(3, 0.1).colours(red, epoch)[0, 0, 0]) for epoch in range(50)]
    assert set(turned) == {200}  # by 36 degrees at most: red still leads
    grey = np.full((4, 4, 3), 77, np.uint8)
    assert (only(3, 0.5).colours(grey, 0) == 77).all()


def test_odds_are_what_they_say_and_each_has_its_own() -> None:
    augment = Augment(jitter=(0.5, 0.0, 0.0, 0.0), jitter_share=0.8, grey_share=0.2)
    count = 1500
    changed = [augment.colours(NOISE[:4, :4], epoch) for epoch in range(count)]
    grey = [bool((c[..., 0] == c[..., 1]).all() and (c[..., 1] == c[..., 2]).all()) for c in changed]
    assert abs(np.mean(grey) - 0.2) < 0.05
    jittered = [not (c == NOISE[:4, :4]).all() for c, is_grey in zip(changed, grey, strict=True) if not is_grey]
    assert abs(np.mean(jittered) - 0.8) < 0.05
    blurred = [Augment(blur_share=0.5).colours(NOISE, epoch).std() < NOISE.std() - 1 for epoch in range(400)]
    assert abs(np.mean(blurred) - 0.5 * 0.9) < 0.1  # a sigma below 0.3 hardly shows


def test_changes_come_in_any_order(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []

    def change(number: int) -> Callable[[np.ndarray[Any, Any], np.float32], np.ndarray[Any, Any]]:
        def noted(image: np.ndarray[Any, Any], factor: np.float32) -> np.ndarray[Any, Any]:
            seen.append(number)
            return image

        return noted

    monkeypatch.setattr("depthsieve.training.augment._CHANGES", tuple(change(number) for number in range(4)))
    for epoch in range(300):
        Augment(jitter=(0.5, 0.5, 0.5, 0.25)).colours(NOISE[:2, :2], epoch)
    orders = {tuple(seen[start : start + 4]) for start in range(0, len(seen), 4)}
    assert orders == set(itertools.permutations(range(4)))


def test_colours_depend_on_their_key_alone_and_the_image_stays() -> None:
    augment, before = Augment.strong(), NOISE.copy()
    first = [augment.colours(NOISE, 0, epoch, "a") for epoch in range(20)]
    np.random.seed(5)
    again = [augment.colours(NOISE, 0, epoch, "a") for epoch in reversed(range(20))][::-1]
    assert all((a == b).all() for a, b in zip(first, again, strict=True))
    assert (before == NOISE).all()
    assert len({one.tobytes() for one in first}) > 15
    assert (Augment().colours(NOISE, 0) == NOISE).all()
    for one in first:
        assert one.dtype == np.uint8 and one.shape == NOISE.shape


def test_strong_is_what_the_authors_use_and_may_be_changed() -> None:
    assert Augment.strong(crop=518) == Augment(
        crop=(518, 518),
        flip=True,
        jitter=(0.5, 0.5, 0.5, 0.25),
        jitter_share=0.8,
        grey_share=0.2,
        blur_share=0.5,
        blur_sigma=(0.1, 2.0),
    )
    assert Augment.strong(flip=False).flip is False


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"crop": 0}, "crop must be"),
        ({"scale": (0.0, 1.0)}, r"scale must be \(least, most\), both above 0"),
        ({"scale": (2.0, 1.0)}, r"scale must be \(least, most\)"),
        ({"scale": 2.0}, "scale must be 2 numbers"),
        ({"scale": (1, 2, 3)}, "scale must be 2 numbers"),
        ({"scale": (0.5, 0.9)}, "needs a crop"),
        ({"jitter": (0.1, 0.1, 0.1)}, "jitter must be 4 numbers"),
        ({"jitter": (0.1, 0.1, 0.1, 0.6)}, "the hue of jitter must be at most 0.5"),
        ({"jitter": (-0.1, 0, 0, 0)}, "jitter must be 4 numbers of at least 0"),
        ({"jitter": (float("nan"), 0, 0, 0)}, "jitter must be 4 numbers"),
        ({"grey_share": 1.5}, "grey_share must be from 0 to 1"),
        ({"blur_share": "often"}, "blur_share must be a number"),
        ({"blur_sigma": (0, 1)}, "blur_sigma must be"),
        ({"blur_sigma": (1, 51)}, r"blur_sigma must be at most 50 pixels, not \(1.0, 51.0\)"),
        ({"flip": "no"}, "flip must be True or False, not 'no'"),
        ({"flip": 1}, "flip must be True or False, not 1"),
        ({"crop": (20, True)}, "crop must be"),
        ({"crop": 20.0}, "crop must be"),
        ({"grey_share": "0.5"}, "grey_share must be a number of at least 0, not '0.5'"),
        ({"jitter": "0000"}, "jitter must be 4 numbers"),
        ({"jitter": ("0", 0, 0, 0, 0)}, "jitter must be 4 numbers"),
        ({"scale": (1, 10**400)}, "scale must be 2 numbers"),
        ({"jitter_share": True}, "jitter_share must be a number"),
    ],
)
def test_settings_that_cannot_be_meant(wrong: dict[str, Any], told: str) -> None:
    with pytest.raises(UsageError, match=told):
        Augment(**wrong)
    with pytest.raises(UsageError, match=told):
        replace(Augment(), **wrong)


def test_a_crop_may_be_any_whole_number() -> None:
    for crop in (np.int64(20), (np.int32(20), 20), [20, np.uint8(20)]):
        augment = Augment(crop=crop)  # type: ignore[arg-type]
        assert augment == Augment(crop=20) and augment.shape is not None and {*map(type, augment.shape)} == {int}


def test_identity_names_every_setting_as_plain_values() -> None:
    assert Augment(crop=5, scale=[1, 2]).identity() == {  # type: ignore[arg-type]
        "crop": [5, 5],
        "scale": [1.0, 2.0],
        "flip": False,
        "jitter": [0.0, 0.0, 0.0, 0.0],
        "jitter_share": 1.0,
        "grey_share": 0.0,
        "blur_share": 0.0,
        "blur_sigma": [0.1, 2.0],
    }
