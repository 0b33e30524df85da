"""Made ground truth for the labels of made stores."""

import numpy as np

LABEL, SOURCE = (14, 28), (28, 56)


def truth_of(number: int, shape: tuple[int, int] = SOURCE) -> np.ndarray:
    """Metres, with holes: a tilted wall with noise."""
    random = np.random.default_rng([3, number])
    rows, columns = np.meshgrid(np.linspace(0, 1, shape[0]), np.linspace(0, 1, shape[1]), indexing="ij")
    truth_HW = (1.5 + 6 * rows + 2 * columns + random.uniform(0, 1, shape)).astype(np.float32)
    truth_HW[random.random(shape) < 0.1] = 0
    return truth_HW
