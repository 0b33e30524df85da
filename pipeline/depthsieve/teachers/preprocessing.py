"""What turns an image into a model's input: the token limit, and models that follow their own image processor."""

import functools
import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import cv2
import numpy as np

from depthsieve.core.errors import ImageRejected, TeacherError, TeacherUnsupported, UsageError
from depthsieve.core.records import Oversize, Shape
from depthsieve.core.threads import torch_threads

ZOE_MARGIN = 14
"""ZoeDepth's margin on each side: this part of the label's side, which is 1/16 of the model input's."""


class Preprocessing(Protocol):
    """Label shapes and model inputs; ``spec`` is plain JSON for the label spec. Methods as in :class:`Teacher`."""

    @property
    def spec(self) -> Mapping[str, Any]: ...

    def label_shape(self, height: int, width: int) -> Shape: ...

    def prepare(self, rgb_HW3: np.ndarray, shape: Shape) -> np.ndarray: ...

    def half_shape(self, shape: Shape) -> Shape | None: ...


@dataclass(frozen=True, slots=True)
class TokenLimit:
    """At most ``tokens`` patches of ``patch`` x ``patch`` pixels; larger images are rejected, or shrunk to fit."""

    patch: int
    tokens: int
    oversize: Oversize

    @property
    def spec(self) -> dict[str, Any]:
        """What of the limit decides labels: all of it where images shrink, nothing where it only rejects them."""
        return {"max_tokens": self.tokens, "oversize": self.oversize} if self.oversize == "shrink" else {}

    def apply(self, source: Shape, shape: Shape, multiple: int) -> Shape:
        """``shape`` where it fits; else the largest one that does, of about its aspect, in multiples of ``multiple``.

        Raises :class:`ImageRejected` when images are not to be shrunk, or the aspect leaves nothing.
        """
        tokens = math.ceil(shape[0] / self.patch) * math.ceil(shape[1] / self.patch)
        if tokens <= self.tokens:
            return shape
        what = f"{source[1]}x{source[0]} pixels would be labelled at {shape[1]}x{shape[0]}, {tokens} tokens"
        if self.oversize == "reject":
            raise ImageRejected(
                f"{what}, above the limit of {self.tokens}; raise --max-tokens (then --retry-failed), or label into a "
                "new store with --oversize shrink"
            )
        factor = math.sqrt(self.tokens / tokens)
        height, width = (math.floor(side * factor / multiple) * multiple for side in shape)
        if not height or not width:
            raise ImageRejected(f"{what}, and is too thin to shrink below the limit of {self.tokens}")
        return height, width


def check_image(rgb_HW3: np.ndarray) -> None:
    """Raise :class:`UsageError` unless it is what decoders give: uint8 [H, W, 3] with pixels in it."""
    if rgb_HW3.dtype != np.uint8 or rgb_HW3.ndim != 3 or rgb_HW3.shape[2] != 3 or not rgb_HW3.size:
        raise UsageError(f"an image must be uint8 [H, W, 3], not {rgb_HW3.dtype} {list(rgb_HW3.shape)}")


class ProcessorPreprocessing:
    """A model's own Hugging Face image processor, with its output size known before any pixel is read.

    The sizes of the DPT, ZoeDepth and GLPN processors are computed, those of others found by a run on a black image.
    ZoeDepth pads images by an amount that depends on the source's size. Labels of one batch need one geometry, so the
    image fills 7/8 of the size that the processor asks for, and :func:`pad_margin` adds the rest inside the model's
    call: what the processor does itself at about 1,000 pixels a side.
    """

    def __init__(self, processor: Any, limit: TokenLimit) -> None:
        self._processor = processor
        self._limit = limit
        self._settings = _settings(processor)
        self._family = type(processor).__name__.removesuffix("Pil").removesuffix("Fast")
        self._multiple = _multiple(self._family, self._settings, limit.patch)
        self.margin = self._family == "ZoeDepthImageProcessor" and bool(self._settings.get("do_pad"))
        if self._family == "DPTImageProcessor" and self._settings.get("do_pad"):
            raise TeacherUnsupported("its processor pads images to a multiple, so labels would not cover their images")
        if self.margin and self._multiple % 16:
            raise TeacherUnsupported(f"its processor pads, and asks for multiples of {self._multiple}, not of 16")
        self._natural = functools.lru_cache(maxsize=65536)(self._processor_shape)

    @property
    def spec(self) -> Mapping[str, Any]:
        """Plain JSON: the processor's class and settings, and how oversized images shrink, if they do."""
        return {
            "rule": "processor",
            "processor": type(self._processor).__name__,
            "settings": self._settings,
            "margin": f"reflect 1/{ZOE_MARGIN}" if self.margin else "none",
            **self._limit.spec,
        }

    def label_shape(self, height: int, width: int) -> Shape:
        """See :meth:`depthsieve.teachers.protocol.Teacher.label_shape`."""
        shape = self._limit.apply((height, width), self._natural(height, width), self._multiple)
        return (shape[0] * 7 // 8, shape[1] * 7 // 8) if self.margin else shape

    def prepare(self, rgb_HW3: np.ndarray, shape: Shape) -> np.ndarray:
        """See :meth:`depthsieve.teachers.protocol.Teacher.prepare`."""
        check_image(rgb_HW3)
        overrides: dict[str, Any] = {}
        if self._shrinks(rgb_HW3.shape[0], rgb_HW3.shape[1]):
            rgb_HW3 = cv2.resize(rgb_HW3, (shape[1], shape[0]), interpolation=cv2.INTER_AREA)
            overrides = {"do_resize": False, "do_pad": False}
        elif self.margin:
            size = {"height": shape[0], "width": shape[1]}
            overrides = {"size": size, "keep_aspect_ratio": False, "ensure_multiple_of": 1, "do_pad": False}
        image_CHW = self._run(rgb_HW3, **overrides)
        if image_CHW.shape != (3, *shape):
            raise TeacherError(
                f"the image processor gave {list(image_CHW.shape)} for a {rgb_HW3.shape[1]}x{rgb_HW3.shape[0]} image, "
                f"not {[3, *shape]}: this release of transformers resizes by another rule"
            )
        return image_CHW

    def half_shape(self, shape: Shape) -> Shape | None:
        """None: whether a model works at other sizes than its processor's is not known."""
        return None

    def _shrinks(self, height: int, width: int) -> bool:
        if self._limit.oversize == "reject":  # which label_shape does; a plan may have had another limit
            return False
        natural = self._natural(height, width)
        return self._limit.apply((height, width), natural, self._multiple) != natural

    def _run(self, rgb_HW3: np.ndarray, **overrides: Any) -> np.ndarray:
        if not rgb_HW3.flags.writeable:  # processors that use torchvision warn of each such image
            rgb_HW3 = rgb_HW3.copy()
        with torch_threads(1):  # ZoeDepth's processor resizes in torch, by other bits with two threads
            batch = self._processor(images=rgb_HW3, return_tensors="np", input_data_format="channels_last", **overrides)
        return np.ascontiguousarray(batch["pixel_values"][0], dtype=np.float32)

    def _processor_shape(self, height: int, width: int) -> Shape:
        if height < 1 or width < 1:
            raise ImageRejected(f"{width}x{height} pixels: an empty image")
        rule = _RULES.get(self._family)
        if rule is not None:
            shape = rule(self._settings, height, width)
        else:
            shape = self._run(np.zeros((height, width, 3), np.uint8)).shape[-2:]
        if min(shape) < 1:
            raise ImageRejected(
                f"{width}x{height} pixels are too thin: the model's processor makes {shape[1]}x{shape[0]}"
            )
        return shape[0], shape[1]


def pad_margin(shape: Shape) -> Shape:
    """Rows and columns of ZoeDepth's margin on each side of a label of ``shape``."""
    return shape[0] // ZOE_MARGIN, shape[1] // ZOE_MARGIN


def _settings(processor: Any) -> dict[str, Any]:
    """The processor's settings as plain JSON, without names, versions and what is not set."""
    raw = {key: value for key, value in processor.to_dict().items() if not key.startswith("_") and value is not None}
    for key in ("image_processor_type", "processor_class", "transformers_version"):
        raw.pop(key, None)
    settings: dict[str, Any] = json.loads(json.dumps(raw, default=_plain))
    size = settings.get("size")
    if isinstance(size, dict):
        settings["size"] = {key: value for key, value in size.items() if value is not None}
    return settings


def _plain(value: Any) -> Any:
    try:
        return dict(value)
    except (TypeError, ValueError):
        return getattr(value, "__dict__", None) or str(value)


def _multiple(family: str, settings: Mapping[str, Any], patch: int) -> int:
    """What both sides of the processor's output are multiples of; at least 1."""
    asked = settings.get("size_divisor" if family == "GLPNImageProcessor" else "ensure_multiple_of", 1)
    return math.lcm(max(1, int(asked)), 1 if family in _RULES and asked > 1 else patch)


def _dpt_shape(settings: Mapping[str, Any], height: int, width: int) -> Shape:
    """DPT: to the given size; with the aspect kept, by that side's scale which is nearer to 1. Nearest multiples."""
    if not settings.get("do_resize", True):
        return height, width
    size, multiple = settings["size"], settings.get("ensure_multiple_of", 1)
    scales = size["height"] / height, size["width"] / width
    if settings.get("keep_aspect_ratio"):
        scales = (scales[1],) * 2 if abs(1 - scales[1]) < abs(1 - scales[0]) else (scales[0],) * 2
    rows, columns = (
        int(round(scale * side / multiple) * multiple) for scale, side in zip(scales, (height, width), strict=True)
    )
    return rows, columns


def _zoedepth_shape(settings: Mapping[str, Any], height: int, width: int) -> Shape:
    """ZoeDepth: DPT's rule after padding by 3 * sqrt(side / 2) on each side."""
    if settings.get("do_pad"):
        height, width = (side + 2 * int(math.sqrt(side / 2) * 3) for side in (height, width))
    return _dpt_shape(settings, height, width)


def _glpn_shape(settings: Mapping[str, Any], height: int, width: int) -> Shape:
    """GLPN: the image's own size, rounded down to multiples."""
    if not settings.get("do_resize", True):
        return height, width
    divisor = settings.get("size_divisor", 32)
    return height // divisor * divisor, width // divisor * divisor


def _fixed_shape(settings: Mapping[str, Any], height: int, width: int) -> Shape:
    """Depth Pro: one size for all images."""
    return settings["size"]["height"], settings["size"]["width"]


_RULES: Mapping[str, Callable[[Mapping[str, Any], int, int], Shape]] = {
    "DPTImageProcessor": _dpt_shape,
    "ZoeDepthImageProcessor": _zoedepth_shape,
    "GLPNImageProcessor": _glpn_shape,
    "DepthProImageProcessor": _fixed_shape,
}
