"""The Hugging Face teacher: any ``AutoModelForDepthEstimation`` whose output is known to be depth or disparity."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch.nn.functional import interpolate, pad

from depthsieve.core.errors import TeacherUnsupported, UsageError
from depthsieve.core.records import Quantity, Shape
from depthsieve.teachers.bins import MEANING, BinSpread
from depthsieve.teachers.checkpoints import Checkpoint
from depthsieve.teachers.embedding import METHOD, BackboneEmbedding
from depthsieve.teachers.preprocessing import Preprocessing, ProcessorPreprocessing, pad_margin
from depthsieve.teachers.protocol import Batch, Prediction, Teacher

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


class HuggingFaceTeacher(Teacher):
    """A loaded depth model; see :class:`depthsieve.teachers.protocol.Teacher`. Made by
    :func:`depthsieve.teachers.loading.load`."""

    def __init__(
        self, checkpoint: Checkpoint, model: Any, preprocessing: Preprocessing, quantity: Quantity, dtype: str
    ) -> None:
        config = model.config
        self._model = model
        self._preprocessing = preprocessing
        self._margin = isinstance(preprocessing, ProcessorPreprocessing) and preprocessing.margin
        # ZoeDepth's two-headed model picks the head by a vote of the whole batch: there an image must be alone.
        self._one_by_one = len(getattr(config, "bin_configurations", ())) > 1
        self.name = checkpoint.name
        self.weights_digest = checkpoint.digest()
        self.quantity = quantity
        self.unit = "m" if quantity == "depth" else ""
        self.dtype = dtype
        self.attention = _attention(model)
        self.device: torch.device = next(model.parameters()).device
        self.preprocessing: Mapping[str, Any] = preprocessing.spec
        self._embedding = BackboneEmbedding(model)
        self.embedding_size = self._embedding.size
        self.embedding_method = METHOD
        self._bins = BinSpread(model)
        if self._bins.known:
            self.confidence_better, self.confidence_meaning = "lower", MEANING

    def label_shape(self, height: int, width: int) -> Shape:
        """See :meth:`depthsieve.teachers.protocol.Teacher.label_shape`."""
        return self._preprocessing.label_shape(height, width)

    def prepare(self, rgb_HW3: np.ndarray, shape: Shape) -> np.ndarray:
        """See :meth:`depthsieve.teachers.protocol.Teacher.prepare`."""
        return self._preprocessing.prepare(rgb_HW3, shape)

    def half_shape(self, shape: Shape) -> Shape | None:
        """See :meth:`depthsieve.teachers.protocol.Teacher.half_shape`."""
        return self._preprocessing.half_shape(shape)

    @torch.inference_mode()
    def predict(self, batch: Batch) -> Prediction:
        """See :meth:`depthsieve.teachers.protocol.Teacher.predict`."""
        image_BCHW = batch.image
        if self._one_by_one and len(image_BCHW) > 1:
            alone = [self.predict(Batch.of(image_CHW[None])) for image_CHW in image_BCHW]
            whole = {name: [getattr(one, name) for one in alone] for name in ("depth", "confidence", "embedding")}
            return Prediction(**{name: torch.cat(maps) for name, maps in whole.items() if maps[0] is not None})
        shape = image_BCHW.shape[-2:]
        rows, columns = pad_margin((shape[0], shape[1])) if self._margin else (0, 0)
        if rows or columns:
            image_BCHW = pad(image_BCHW, (columns, columns, rows, rows), mode="reflect")
        pixels_BCHW = image_BCHW.to(DTYPES[self.dtype], memory_format=torch.channels_last)
        output = self._model(pixel_values=pixels_BCHW)

        def of_images(map_Bhw: torch.Tensor) -> torch.Tensor:
            """A map of the model at the images' size, without their margin."""
            if map_Bhw.shape[-2:] != image_BCHW.shape[-2:]:
                map_Bhw = interpolate(map_Bhw[:, None], size=image_BCHW.shape[-2:], mode="bilinear").squeeze(1)
            return map_Bhw[:, rows : rows + shape[0], columns : columns + shape[1]]

        depth_BHW, spread_Bhw = of_images(output.predicted_depth.float()), self._bins.take()
        if getattr(output, "field_of_view", None) is not None:
            depth_BHW = depth_pro_metres(depth_BHW, output.field_of_view.float())
        embedding_BD = self._embedding.take(image_BCHW.shape[2], image_BCHW.shape[3])
        doubt_BHW = None if spread_Bhw is None else of_images(spread_Bhw).contiguous()
        return Prediction(depth_BHW.contiguous(), confidence=doubt_BHW, embedding=embedding_BD)


def depth_pro_metres(inverse_BHW: torch.Tensor, degrees_B: torch.Tensor) -> torch.Tensor:
    """Metres from Depth Pro's canonical inverse depth and its horizontal field of view.

    The model's inverse depth is that of a camera whose focal length is the image's width. With the real one,
    ``f / width = 1 / (2 tan(fov / 2))``, it is ``inverse * 2 tan(fov / 2)``, kept within 1e-4..1e4 before it is
    inverted (``DepthProImageProcessor.post_process_depth_estimation`` in transformers).
    """
    scale_B = 2 * torch.tan(0.5 * torch.deg2rad(degrees_B.reshape(-1)))
    return 1 / (inverse_BHW * scale_B[:, None, None]).clamp(1e-4, 1e4)


def quantity_of(config: Any, declared: Quantity | None = None) -> Quantity:
    """What a model predicts, from its configuration; as ``declared`` where that does not say.

    Raises :class:`TeacherUnsupported` where neither says it, and :class:`UsageError` where they contradict each other.
    """
    kind, known = config.model_type, _known_quantity(config)
    if declared is not None and declared != (known or declared):
        raise UsageError(f"its configuration says that it predicts {known}; leave out --quantity {declared}")
    if (quantity := known or declared) is None:
        why = f"what {kind} models predict is not known here"
        if kind == "dpt":
            why = "DPT on DINOv2 is published for depth and for disparity, and its configuration does not say which"
        raise TeacherUnsupported(f"{why}; declare it: --quantity disparity, or --quantity depth for metres")
    return quantity


def _known_quantity(config: Any) -> Quantity | None:
    kind = config.model_type
    if kind == "prompt_depth_anything":
        raise TeacherUnsupported("it needs a measured depth map beside each image")
    if kind == "chmv2":
        raise TeacherUnsupported("it predicts how high trees are, seen from above, and no depth")
    if kind == "depth_anything":
        return "depth" if config.depth_estimation_type == "metric" else "disparity"
    if kind == "depthsieve_lite":
        return "disparity"
    if kind == "depthsieve_da3":
        return None if config.metric is None else "depth" if config.metric else "disparity"
    if kind == "dpt":
        return None if getattr(config.backbone_config, "model_type", None) == "dinov2" else "disparity"
    if kind == "depth_pro":
        return "depth" if config.use_fov_model else "disparity"
    metric = ("zoedepth", "glpn", "tipsv2_dpt", "depthsieve_moge2", "depthsieve_metric3d2")
    return "depth" if kind in metric else None


def _attention(model: Any) -> str:
    """The attention backend in use: the backbone's where there is one, since wrappers do none themselves."""
    owner = getattr(model, "backbone", None)
    config = owner.config if owner is not None and hasattr(owner, "config") else model.config
    return str(getattr(config, "_attn_implementation", None) or "eager")
