"""How frames are brought to one scale, and what begins a segment. Axes: H row, W column, 3 colours."""

import itertools
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from wobble import HEIGHT, WIDTH, scene

from depthsieve.core.clips import ClipFit
from depthsieve.reliability.clips import ClipFitter, frame_of


def label_of(picture_HW3: NDArray[np.uint8], seed: int | None = None) -> NDArray[np.float32]:
    """A label that follows the picture; with a ``seed`` one that has nothing to do with it."""
    if seed is not None:
        picture_HW3 = scene(seed, *picture_HW3.shape[:2])
    return np.asarray(1 + cv2.blur(picture_HW3, (7, 7)).mean(2) / 64, np.float32)


def fitted(
    pictures: list[NDArray[np.uint8]], labels: list[NDArray[Any]], *, photos: bool = True, is_relative: bool = True
) -> list[ClipFit]:
    fitter = ClipFitter(is_relative=is_relative)
    for picture_HW3, label_HW in zip(pictures, labels, strict=True):
        reliability_HW = np.full(label_HW.shape, 200, np.uint8)
        fitter.add(frame_of(label_HW.astype(np.float32), reliability_HW, picture_HW3 if photos else None))
    return fitter.finish()


def segments(fits: list[ClipFit]) -> list[float]:
    return [fit.segment for fit in fits]


def pan(seed: int, frames: int, step: int = 5) -> list[NDArray[np.uint8]]:
    """A window that slides over a scene."""
    wide_HW3 = scene(seed, HEIGHT, WIDTH + step * frames)
    return [np.ascontiguousarray(wide_HW3[:, step * number :][:, :WIDTH]) for number in range(frames)]


@pytest.mark.parametrize("odd", [2, 5])
def test_a_label_that_is_quite_another_begins_no_segment_where_photos_show_the_same(odd: int) -> None:
    pictures = pan(0, 6)
    labels = [label_of(one, 77 if number == odd else None) for number, one in enumerate(pictures)]
    fits = fitted(pictures, labels)
    assert segments(fits) == [0] * 6
    assert fits[odd].residual > 5 * max(fit.residual for at, fit in enumerate(fits) if at not in (0, odd))
    scales = [fit.scale for at, fit in enumerate(fits) if at != odd]
    np.testing.assert_allclose(scales, scales[0], rtol=0.02)  # the odd one misleads none of those after it
    assert all(fit.scale > 0 for fit in fits)
    assert segments(fitted(pictures, labels, photos=False))[-1] > 0  # labels are all that is known then


def smooth(seed: int) -> NDArray[np.uint8]:
    """Soft blobs: optical flow makes any two such pictures alike, in one direction."""
    coarse = np.random.default_rng(seed).integers(60, 200, (6, 8, 3)).astype(np.uint8)
    return np.asarray(cv2.resize(coarse, (240, 180), interpolation=cv2.INTER_CUBIC))


@pytest.mark.parametrize("seed", [1, 2, 5])
def test_a_cut_is_seen_in_the_photos_even_if_labels_agree(seed: int) -> None:
    first = smooth(seed)
    pictures = [first, first, first[:, ::-1].copy(), smooth(seed + 50), smooth(seed + 50)]
    level_HW = np.tile(np.linspace(1, 5, 180)[:, None], (1, 240))  # as of roads
    assert segments(fitted(pictures, [level_HW] * 5)) == [0, 0, 1, 2, 2]


def test_exposure_that_jumps_begins_no_segment() -> None:
    pictures = [(one * gain).astype(np.uint8) for one, gain in zip(pan(0, 6), (1, 0.6, 1, 0.7, 0.9, 0.5), strict=True)]
    fits = fitted(pictures, [label_of(one) for one in pan(0, 6)])
    assert segments(fits) == [0] * 6 and min(fit.pixels for fit in fits[1:]) > 0.6


def test_a_fast_pan_is_followed() -> None:
    pictures = pan(0, 5, step=40)  # a third of the width
    assert segments(fitted(pictures, [label_of(one) for one in pictures])) == [0] * 5


def test_a_frame_without_depth_in_it_has_the_scale_of_the_one_before() -> None:
    pictures = pan(0, 4)
    labels = [label_of(one) for one in pictures]
    labels[1] = np.full_like(labels[1], 2)
    fits = fitted(pictures, labels)
    assert segments(fits) == [0] * 4 and fits[1].scale == fits[0].scale
    assert fits[1].scale * 2 + fits[1].shift == pytest.approx(float(np.median(labels[0])), rel=0.1)


def test_metres_of_a_known_scale_a_frame_are_measured_and_not_fitted() -> None:
    """A camera that moves ahead changes true depths as a scale that wobbles does: who fits one takes out the other."""
    scales = [1, 1.1, 0.9, 1, 1.3]
    pictures = [scene(0)] * len(scales)
    metres_HW = 2 * label_of(pictures[0])
    fits = fitted(pictures, [scale * metres_HW for scale in scales], is_relative=False)
    assert [(fit.scale, fit.shift, fit.segment) for fit in fits] == [(1, 0, 0)] * len(scales)
    spread, middle = np.subtract(*np.percentile(metres_HW, (95, 5))), np.median(metres_HW)
    for fit, (before, now) in zip(fits[1:], itertools.pairwise(scales), strict=True):
        assert fit.change == pytest.approx(abs(now - before) * middle / (spread * (now + before) / 2), rel=0.02)
        assert fit.change_aligned == fit.change
    relative = fitted(pictures, [scale * metres_HW for scale in scales])
    np.testing.assert_allclose(
        [fit.scale * scale for fit, scale in zip(relative, scales, strict=True)], relative[0].scale
    )
