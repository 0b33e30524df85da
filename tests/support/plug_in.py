"""A small package that offers a teacher, as others would install it: a module, its metadata, and an entry point."""

from pathlib import Path

MODULE = '''
import hashlib

import numpy as np
import torch

from depthsieve.teachers import Batch, Prediction, Teacher


class Brightness(Teacher):
    """Disparity is how bright a pixel is, and confidence how blue. A known focal length scales both."""

    name = "brightness"
    weights_digest = hashlib.sha256(b"brightness").hexdigest()
    quantity = "disparity"
    unit = ""
    dtype = "float32"
    preprocessing = {"rule": "half size"}
    confidence_better = "higher"
    confidence_meaning = "how blue it is"
    intrinsics_in = "used"

    def __init__(self, request):
        assert "auto" not in (request.dtype, request.device) and request.max_tokens and request.oversize
        self.device = torch.device(request.device)

    def label_shape(self, height, width):
        return max(1, height // 2), max(1, width // 2)

    def prepare(self, rgb_HW3, shape):
        height, width = shape
        return np.ascontiguousarray(rgb_HW3[: 2 * height : 2, : 2 * width : 2].transpose(2, 0, 1), dtype=np.float32)

    def predict(self, batch):
        scale = torch.nan_to_num(batch.focal_px, nan=1.0)[:, None, None]
        return Prediction(1 + batch.image.mean(1) * scale, confidence=1 + batch.image[:, 2] * scale)


def load(request):
    return Brightness(request)
'''


def install(
    site: Path, name: str = "brightness", package: str = "acme", module: str = MODULE, target: str = "load"
) -> Path:
    """Put a package into ``site`` whose entry point ``name`` refers to its function ``target``."""
    site.mkdir(parents=True, exist_ok=True)
    (site / f"{package}.py").write_text(module)
    metadata = site / f"{package}-1.2.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.2\n")
    (metadata / "entry_points.txt").write_text(f"[depthsieve.teachers]\n{name} = {package}:{target}\n")
    return site
