"""The UniDepth v2 teacher: what its authors' ``infer`` says, as labels in metres."""

import math
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file
from torch.nn.functional import interpolate

from depthsieve.core.errors import ImageRejected, TeacherError, TeacherUnsupported, UsageError
from depthsieve.core.records import MAX_TOKENS, OVERSIZE, Shape, TeacherRequest
from depthsieve.core.threads import torch_threads
from depthsieve.teachers.checkpoints import Checkpoint
from depthsieve.teachers.depth_anything import IMAGENET_MEAN, IMAGENET_STD
from depthsieve.teachers.fitting import check_fit
from depthsieve.teachers.preprocessing import TokenLimit, check_image
from depthsieve.teachers.protocol import Batch, Prediction, Teacher
from depthsieve.teachers.unidepth import installed
from depthsieve.teachers.unidepth.published import PATCH, pixel_bounds, ratio_bounds, read_published

MEANING = (
    "exp(x), x from -8 to 8, trained by L1 towards the error of depth after its median was scaled to the truth's; its "
    "authors use it to order the pixels of one image"
)


@dataclass(frozen=True)
class UniDepthPreprocessing:
    """The size at which ``infer`` runs its network on a photo, which is made here so that labels have that size.

    ``paddings`` and ``resized`` are functions of its authors' package: the shape of a photo that was padded into the
    ratios that the model takes, and the shape for a number of pixels within bounds.
    """

    pixels: tuple[int, int]
    ratios: tuple[float, float]
    limit: TokenLimit
    package: Mapping[str, str]
    paddings: Callable[[Shape, tuple[float, float]], tuple[Any, Shape]]
    resized: Callable[[Shape, tuple[int, int], int], tuple[float, Shape]]

    @property
    def spec(self) -> Mapping[str, Any]:
        """Plain JSON: everything that decides the model's input and the label shape."""
        return {
            "rule": "unidepth-v2",
            "package": dict(self.package),
            "pixels": list(self.pixels),
            "ratios": list(self.ratios),
            "multiple": PATCH,
            "interpolation": "torch bilinear, no antialias, float32 RGB/255 after mean and std",
            "mean": list(IMAGENET_MEAN),
            "std": list(IMAGENET_STD),
            "batch": "one by one",
            **self.limit.spec,
        }

    def label_shape(self, height: int, width: int) -> Shape:
        """See :meth:`depthsieve.teachers.protocol.Teacher.label_shape`."""
        if height < 1 or width < 1:
            raise ImageRejected(f"{width}x{height} pixels: an empty image")
        padded = height, width
        if not self.fits(height, width):
            _, padded = self.paddings((height, width), self.ratios)
        _, (most_rows, most_columns) = self.resized(padded, self.pixels, PATCH)
        rows, columns = round(most_rows * height / padded[0]), round(most_columns * width / padded[1])
        if not rows or not columns:
            raise ImageRejected(f"{width}x{height} pixels are too thin: less than a row or column of what is labelled")
        return self.limit.apply((height, width), (rows, columns), PATCH)

    def fits(self, height: int, width: int, *, slack: int = 0) -> bool:
        """Whether the model takes an image of this ratio without padding; sides may be off by ``slack`` pixels."""
        return self.ratios[0] * height <= width + slack and width <= self.ratios[1] * (height + slack)

    def prepare(self, rgb_HW3: np.ndarray, shape: Shape) -> np.ndarray:
        """See :meth:`depthsieve.teachers.protocol.Teacher.prepare`."""
        check_image(rgb_HW3)
        mean_311, std_311 = (torch.tensor(values)[:, None, None] for values in (IMAGENET_MEAN, IMAGENET_STD))
        with torch_threads(1):  # other bits with two
            image_3HW = torch.from_numpy(np.ascontiguousarray(rgb_HW3.transpose(2, 0, 1), np.float32)).div_(255)
            image_3HW.sub_(mean_311).div_(std_311)
            resized_3hw = interpolate(image_3HW[None], shape, mode="bilinear", align_corners=False)[0]
        return np.ascontiguousarray(resized_3hw.numpy())

    def half_shape(self, shape: Shape) -> Shape:
        """See :meth:`depthsieve.teachers.protocol.Teacher.half_shape`: multiples of the patch remain such."""
        rows, columns = (
            math.ceil(side / 2 / PATCH) * PATCH if side % PATCH == 0 else math.ceil(side / 2) for side in shape
        )
        return rows, columns


class UniDepthTeacher(Teacher):
    """A loaded UniDepth v2; see :class:`depthsieve.teachers.protocol.Teacher`. A known camera goes before its own."""

    def __init__(
        self, checkpoint: Checkpoint, model: Any, preprocessing: UniDepthPreprocessing, device: torch.device, dtype: str
    ) -> None:
        self._model = model
        self._preprocessing = preprocessing
        self._alone = threading.Lock()  # the network keeps the shape of the image that it is at
        self.name = checkpoint.name
        self.weights_digest = checkpoint.digest()
        self.quantity, self.unit, self.dtype = "depth", "m", dtype
        self.device = device
        self.attention = "xformers" if device.type == "cuda" and find_spec("xformers") is not None else "sdpa"
        self.preprocessing: Mapping[str, Any] = preprocessing.spec
        self.confidence_better, self.confidence_meaning = "lower", MEANING
        self.intrinsics_in, self.intrinsics_out = "used", True

    def label_shape(self, height: int, width: int) -> Shape:
        """See :meth:`depthsieve.teachers.protocol.Teacher.label_shape`."""
        return self._preprocessing.label_shape(height, width)

    def prepare(self, rgb_HW3: np.ndarray, shape: Shape) -> np.ndarray:
        """See :meth:`depthsieve.teachers.protocol.Teacher.prepare`."""
        return self._preprocessing.prepare(rgb_HW3, shape)

    def half_shape(self, shape: Shape) -> Shape:
        """See :meth:`depthsieve.teachers.protocol.Teacher.half_shape`."""
        return self._preprocessing.half_shape(shape)

    @torch.inference_mode()
    def predict(self, batch: Batch) -> Prediction:
        """See :meth:`depthsieve.teachers.protocol.Teacher.predict`. Images go one by one, since ``infer`` takes either
        cameras for all or for none."""
        with self._alone:
            found = [self._infer(*one) for one in zip(batch.image, batch.intrinsics, strict=True)]
        depth_BHW, confidence_BHW, intrinsics_B4 = (torch.cat(parts).float() for parts in zip(*found, strict=True))
        return Prediction(
            depth_BHW.contiguous(), confidence=confidence_BHW.contiguous(), intrinsics=intrinsics_B4.contiguous()
        )

    def _infer(self, image_3HW: torch.Tensor, known_4: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Depth and confidence [1,H,W] of one image, and its camera [1,4]."""
        camera_133 = None
        if torch.isfinite(known_4).all():
            camera_133 = torch.eye(3, device=known_4.device)[None]
            camera_133[0, [0, 1, 0, 1], [0, 1, 2, 2]] = known_4
        height, width = image_3HW.shape[1:]
        ratios = self._preprocessing.ratios
        if self._preprocessing.fits(height, width, slack=PATCH):
            # infer pads an image whatever its ratio. Where it rounds the width down it takes a column away, and returns
            # the last column alone (issues 123 and 139 of its repository). From half a column more on it pads nothing.
            ratios = ((width + 0.5) / height,) * 2
        self._model.shape_constraints["ratio_bounds"] = ratios
        found = self._model.infer(image_3HW[None], camera_133, normalize=False)
        seen_14 = found["intrinsics"][:, [0, 1, 0, 1], [0, 1, 2, 2]]
        return found["depth"][:, 0], found["confidence"][:, 0], seen_14 if camera_133 is None else known_4[None]


def load(checkpoint: Checkpoint, request: TeacherRequest) -> UniDepthTeacher:
    """The teacher in a checkpoint. ``request`` is resolved. Raises :class:`TeacherUnsupported` and
    :class:`UsageError`."""
    config = read_published(checkpoint.config)
    pixels, ratios = pixel_bounds(checkpoint.config), ratio_bounds(checkpoint.config)
    device = torch.device(request.device)
    dtype = "float16" if device.type == "cuda" else "float32"  # infer decides that itself
    if request.quantity not in (None, "depth"):
        raise UsageError(f"it predicts depth in metres; leave out --quantity {request.quantity}")
    if request.dtype != dtype:
        raise UsageError(f"its authors' code computes in {dtype} on {device.type}; leave out --dtype {request.dtype}")
    if request.size is not None:
        if request.size % PATCH:
            raise UsageError(f"size {request.size} is no multiple of the model's patch, {PATCH}")
        pixels = (request.size**2, request.size**2)
    code, place = installed.load()
    try:
        functions = {"paddings": code.get_paddings, "resized": code.get_resize_factor}
        network = code.UniDepthV2
    except AttributeError as error:
        raise TeacherUnsupported(f"this version of {installed.PACKAGE} is not known here: {error}") from error
    with installed.quiet():
        model = network(config)
    if not isinstance(getattr(model, "shape_constraints", None), dict):
        raise TeacherUnsupported(f"this version of {installed.PACKAGE} is not known here: it has no shape_constraints")
    _fill(model, checkpoint)
    model.resolution_level = 0  # the bounds in the configuration are open; without a level it warns at every image
    package = {"name": installed.PACKAGE, "code": installed.code_digest(place)}
    limit = TokenLimit(PATCH, request.max_tokens or MAX_TOKENS, request.oversize or OVERSIZE)
    try:
        model.to(device)
    except torch.OutOfMemoryError as error:
        raise TeacherError(f"it does not fit into the memory of {device}") from error
    model.eval().requires_grad_(False)
    preprocessing = UniDepthPreprocessing(pixels, ratios, limit, package, **functions)
    return UniDepthTeacher(checkpoint, model, preprocessing, device, dtype)


def _fill(model: Any, checkpoint: Checkpoint) -> None:
    """The checkpoint's weights into the network, all of them."""
    asked = model.state_dict()
    stored = {name: value for path in checkpoint.weights for name, value in load_file(path).items()}
    both = asked.keys() & stored.keys()
    shapes = [(name, stored[name].shape, asked[name].shape) for name in both]
    check_fit(
        asked.keys(),
        mismatched=[one for one in shapes if one[1] != one[2]],
        missing=asked.keys() - stored.keys(),
        unexpected=stored.keys() - asked.keys(),
    )
    model.load_state_dict({name: stored[name] for name in both}, strict=False)
