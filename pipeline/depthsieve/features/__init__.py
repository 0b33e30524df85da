"""What an image and its label say of themselves in a few numbers: pure functions, arrays in and numbers out.

Axes: H row, W column, 3 red, green, blue (uint8), K the 256 reliability codes, D numbers of an embedding.
"""

from depthsieve.features.columns import COLUMNS, IMAGE_COLUMNS, LABEL_COLUMNS, RELIABILITY_COLUMNS
from depthsieve.features.of_image import ImageSignals, image_signals
from depthsieve.features.of_label import label_signals, reliability_signals

__all__ = [
    "COLUMNS",
    "IMAGE_COLUMNS",
    "LABEL_COLUMNS",
    "RELIABILITY_COLUMNS",
    "ImageSignals",
    "image_signals",
    "label_signals",
    "reliability_signals",
]
