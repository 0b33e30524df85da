"""The camera behind a map of points: MoGe's points lack a shift along z, which a pinhole camera's rays give away.

Axes: N points.
"""

import numpy as np

from depthsieve.core.records import Shape

SAMPLED = 64
"""Rows and columns of points that are looked at, as in the official ``recover_focal_shift``."""

FARTHEST = 1e3
"""A shift of more than so many times the largest z is none: no camera sees these points."""

STEPS = 60
SETTLED = 1e-12


def focal_and_shift(points_HW3: np.ndarray, valid_HW: np.ndarray, focal: float | None = None) -> tuple[float, float]:
    """Focal length in half diagonals of the image, and what must be added to z.

    They minimise ``|focal * xy / (z + shift) - uv|`` over valid points, uv being the pixels' places on a picture of
    half diagonal 1 (https://github.com/microsoft/MoGe, ``solve_optimal_focal_shift``). A known ``focal`` stays.
    Without two valid points they are 1 (or ``focal``) and 0, and where no camera sees such points, NaN.
    """
    height, width = valid_HW.shape
    rows, columns = (np.arange(SAMPLED) * side // SAMPLED for side in (height, width))
    seen = valid_HW[np.ix_(rows, columns)]
    xyz_N3 = points_HW3[np.ix_(rows, columns)][seen].astype(np.float64)
    uv_N2 = _places((height, width), rows, columns)[seen]
    if len(xyz_N3) < 2:
        return (1.0 if focal is None else focal), 0.0
    shift = _shift(xyz_N3[:, :2], xyz_N3[:, 2], uv_N2, focal)
    if not abs(shift) < FARTHEST * np.abs(xyz_N3[:, 2]).max():
        return float("nan"), float("nan")
    return (_best_focal(xyz_N3[:, :2] / (xyz_N3[:, 2:] + shift), uv_N2) if focal is None else focal), shift


def _places(shape: Shape, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    height, width = shape
    diagonal = np.hypot(height, width)
    v, u = (2 * rows + 1 - height) / diagonal, (2 * columns + 1 - width) / diagonal
    return np.stack(np.meshgrid(u, v, indexing="xy"), axis=-1)


def _best_focal(seen_N2: np.ndarray, uv_N2: np.ndarray) -> float:
    return float((seen_N2 * uv_N2).sum() / np.square(seen_N2).sum())


def _shift(xy_N2: np.ndarray, z_N: np.ndarray, uv_N2: np.ndarray, focal: float | None) -> float:
    """Levenberg and Marquardt's method in one unknown, from 0."""

    def residual(shift: float) -> tuple[np.ndarray, np.ndarray]:
        """What is minimised, and its derivative."""
        depth_N1 = (z_N + shift)[:, None]
        seen, slope = xy_N2 / depth_N1, -xy_N2 / depth_N1**2
        if focal is not None:
            return focal * seen - uv_N2, focal * slope
        square = np.square(seen).sum()
        best = (seen * uv_N2).sum() / square
        change = ((slope * uv_N2).sum() - 2 * best * (seen * slope).sum()) / square
        return best * seen - uv_N2, change * seen + best * slope

    shift, damping = 0.0, 1e-3
    error, slope = residual(shift)
    cost = np.square(error).sum()
    for _ in range(STEPS):
        steepness = np.square(slope).sum()
        if not steepness > 0:
            break
        candidate = shift - float((slope * error).sum() / (steepness * (1 + damping)))
        with np.errstate(all="ignore"):
            error_there, slope_there = residual(candidate)
            cost_there = np.square(error_there).sum()
        if cost_there < cost:
            gained = (cost - cost_there) / cost
            shift, error, slope, cost, damping = candidate, error_there, slope_there, cost_there, damping / 10
            if gained < SETTLED:
                break
        else:
            damping *= 10
            if damping > 1e12:
                break
    return shift
