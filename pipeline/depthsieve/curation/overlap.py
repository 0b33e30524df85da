"""Whether two images show one another in part: the crops that embeddings miss. Local features find how one would lie
over the other, and pixels decide whether it does. Axes: H row, W column, K points, 2 x and y, D numbers of a
descriptor."""

from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

SIDE = 256
"""Pixels of the short side at which images are compared; smaller ones stay as they are."""

POINTS = 300
"""Most points of an image, the strongest ones."""

CONTRAST = 0.015
"""Of a point, where OpenCV takes 0.04: also rather smooth images shall have some."""

RATIO = 0.8
"""Of the distances to the nearest and the second nearest descriptor, above which a match says nothing (Lowe 2004)."""

FEWEST = 4
"""Points that must agree on how one image lies over the other."""

SCALES = (0.4, 2.5)
MOST_DEGREES = 20.0
LEAST_COVERED = 0.3
"""What may be a crop: of its scale, its rotation, and the share of the other image that it covers."""

ALIKE = 0.75
"""Correlation of the pixels where they lie over each other. On two sets of 300 images no pair of different images
reached 0.63, and no pair of a photo and its crop to 80 to 95% of each side stayed under 0.81."""


@dataclass(frozen=True)
class Outline:
    """What is compared of an image: its grey values at a small size (uint8), and its points with their descriptors."""

    grey_HW: NDArray[np.uint8]
    point_K2: NDArray[np.float32]
    descriptor_KD: NDArray[np.uint8]


def outline(rgb_HW3: NDArray[np.uint8]) -> Outline:
    """The outline of an upright RGB image."""
    grey_HW = cv2.cvtColor(rgb_HW3, cv2.COLOR_RGB2GRAY)
    height, width = grey_HW.shape
    scale = SIDE / min(height, width)
    if scale < 1:
        size = (min(round(width * scale), 8 * SIDE), min(round(height * scale), 8 * SIDE))
        grey_HW = cv2.resize(grey_HW, size, interpolation=cv2.INTER_AREA)
    sift = cv2.SIFT.create(nfeatures=POINTS, contrastThreshold=CONTRAST)
    points, descriptors = sift.detectAndCompute(grey_HW, None)
    point_K2 = np.array([point.pt for point in points], np.float32).reshape(-1, 2)
    none = np.empty((0, 128), np.uint8)
    descriptor_KD = none if descriptors is None else descriptors.astype(np.uint8)  # whole numbers up to 255
    return Outline(np.asarray(grey_HW, np.uint8), point_K2, descriptor_KD)


def correlation(first: Outline, second: Outline) -> float:
    """How alike the pixels are where one image lies over the other, -1..1; 0 where nothing says how it would."""
    matrix = _placement(first, second)
    if matrix is None:
        return 0.0
    shape = second.grey_HW.shape
    size = (shape[1], shape[0])
    placed_HW = cv2.warpAffine(first.grey_HW, matrix, size)
    covered_HW = cv2.warpAffine(np.full(first.grey_HW.shape, 255, np.uint8), matrix, size) > 200
    if covered_HW.mean() < LEAST_COVERED:
        return 0.0
    ours, theirs = (cv2.GaussianBlur(map_HW, (0, 0), 2)[covered_HW] for map_HW in (placed_HW, second.grey_HW))
    if ours.std() == 0 or theirs.std() == 0:
        return 0.0
    return float(np.corrcoef(ours.astype(np.float64), theirs.astype(np.float64))[0, 1])


def _placement(first: Outline, second: Outline) -> NDArray[Any] | None:
    """The similarity transform [2,3] that lays the first image over the second; None where there is none that
    counts."""
    if min(len(first.point_K2), len(second.point_K2)) < FEWEST:
        return None
    ours_KD, theirs_KD = (one.descriptor_KD.astype(np.float32) for one in (first, second))
    matches = cv2.BFMatcher(cv2.NORM_L2).knnMatch(ours_KD, theirs_KD, 2)
    nearest: dict[int, Any] = {}  # of several points that match the same one, the nearest: else all can fall into one
    for match in matches:
        if len(match) == 2 and match[0].distance < RATIO * match[1].distance:
            known = nearest.get(match[0].trainIdx)
            if known is None or match[0].distance < known.distance:
                nearest[match[0].trainIdx] = match[0]
    if len(nearest) < FEWEST:
        return None
    ours = first.point_K2[[match.queryIdx for match in nearest.values()]]
    theirs = second.point_K2[[match.trainIdx for match in nearest.values()]]
    matrix, inliers = cv2.estimateAffinePartial2D(
        ours, theirs, method=cv2.RANSAC, ransacReprojThreshold=3.0, maxIters=500
    )
    if matrix is None or int(inliers.sum()) < FEWEST:
        return None
    scale, degrees = np.hypot(matrix[0, 0], matrix[1, 0]), np.degrees(np.arctan2(matrix[1, 0], matrix[0, 0]))
    return matrix if SCALES[0] < scale < SCALES[1] and abs(degrees) < MOST_DEGREES else None
