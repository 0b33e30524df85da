"""Loading a teacher: from a checkpoint's files to a model on its device, or one line that says why not."""

import contextlib
import importlib.util
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import torch
import transformers

from depthsieve.core.errors import TeacherError, TeacherUnsupported, UsageError
from depthsieve.core.records import MAX_TOKENS, OVERSIZE, TeacherRequest, TeacherSettings
from depthsieve.teachers import depth_anything, lite
from depthsieve.teachers.checkpoints import PROCESSOR, Checkpoint, reason
from depthsieve.teachers.da3 import network as da3
from depthsieve.teachers.da3.preprocessing import LONGEST_SIDE, LongestSidePreprocessing
from depthsieve.teachers.da3.published import is_published, read_published
from depthsieve.teachers.da3.teacher import DepthAnything3Teacher
from depthsieve.teachers.fitting import check_fit
from depthsieve.teachers.huggingface import DTYPES, HuggingFaceTeacher, quantity_of
from depthsieve.teachers.metric3d import network as metric3d
from depthsieve.teachers.metric3d.preprocessing import CanvasPreprocessing
from depthsieve.teachers.metric3d.published import KIND as METRIC3D
from depthsieve.teachers.metric3d.published import MULTIPLE
from depthsieve.teachers.metric3d.teacher import Metric3DTeacher
from depthsieve.teachers.moge import network as moge
from depthsieve.teachers.moge import published as moge_published
from depthsieve.teachers.moge.teacher import MoGeTeacher, TokensPreprocessing
from depthsieve.teachers.preprocessing import Preprocessing, ProcessorPreprocessing, TokenLimit
from depthsieve.teachers.protocol import Teacher
from depthsieve.teachers.resolving import errors_named, resolve
from depthsieve.teachers.unidepth import published as unidepth_published

DEFAULT_PATCH = 16
NEED_TORCHVISION = ("depth_pro", "tipsv2_dpt")
"""Kinds of models whose image processors exist for torchvision only."""

OWN_TEACHERS = {
    da3.KIND: DepthAnything3Teacher,
    moge.KIND: MoGeTeacher,
    METRIC3D: Metric3DTeacher,
}


def load_checkpoint(checkpoint: Checkpoint, request: TeacherRequest) -> Teacher:
    """The teacher in a checkpoint, with the settings of a request. Raises as
    :func:`depthsieve.teachers.load_teacher`."""
    request = resolve(request)
    device, dtype = torch.device(request.device), request.dtype
    with _quiet(), errors_named(repr(request.name)):
        if unidepth_published.is_published(checkpoint.config):
            from depthsieve.teachers.unidepth.teacher import load

            return load(checkpoint, request)
        config = _load_config(checkpoint)
        quantity = quantity_of(config, request.quantity)
        preprocessing = _load_preprocessing(checkpoint, config, request)
        model = _load_model(checkpoint, config, dtype)
        if config.model_type == "depth_anything":
            depth_anything.use_official_positions(model)
        try:
            model.to(device, memory_format=torch.channels_last)  # convolutions: 15% less for a tiny teacher on a CPU
        except torch.OutOfMemoryError as error:
            raise TeacherError(f"it does not fit into the memory of {device}") from error
        kind = OWN_TEACHERS.get(config.model_type, HuggingFaceTeacher)
        return kind(checkpoint, model, preprocessing, quantity, dtype)


def _load_config(checkpoint: Checkpoint) -> Any:
    raw = checkpoint.config
    if isinstance(raw.get("backbone"), str) and not raw.get("backbone_config"):
        raise TeacherUnsupported(f"its config.json takes the backbone's settings from elsewhere ({raw['backbone']})")
    kind = raw.get("model_type")
    lite.register()
    da3.register()
    moge.register()
    metric3d.register()
    if is_published(raw):
        return da3.DepthAnything3Config(**read_published(raw))
    if moge_published.is_published(raw):
        return moge.MoGeConfig(**moge_published.read_published(raw))
    if kind not in transformers.CONFIG_MAPPING:
        code = " and brings code of its own, which is never run" if raw.get("auto_map") else ""
        raise TeacherUnsupported(f"transformers {transformers.__version__} knows no model type {kind!r}{code}")
    config = transformers.AutoConfig.from_pretrained(checkpoint.folder, trust_remote_code=False, local_files_only=True)
    if type(config) not in transformers.MODEL_FOR_DEPTH_ESTIMATION_MAPPING:
        raise TeacherUnsupported(f"it is no depth model, but a {kind} model")
    return config


def _load_preprocessing(checkpoint: Checkpoint, config: Any, request: TeacherSettings) -> Preprocessing:
    if config.model_type == "depth_anything":
        return _official_preprocessing(checkpoint, config, request)
    if config.model_type == lite.KIND:
        return _lite_preprocessing(checkpoint, request)
    if config.model_type == da3.KIND:
        _check_size(request, config.patch_size)
        return LongestSidePreprocessing(request.size or LONGEST_SIDE, _token_limit(config.patch_size, request))
    if config.model_type == moge.KIND:
        _check_size(request, config.patch_size)
        tokens = (request.size // config.patch_size) ** 2 if request.size else config.tokens
        return TokensPreprocessing(tokens, _token_limit(config.patch_size, request))
    if config.model_type == METRIC3D:
        return _canvas_preprocessing(config, request)
    if request.size is not None:
        raise UsageError(
            f"it follows its own image processor; size is for Depth Anything models, not {config.model_type}"
        )
    if config.model_type in NEED_TORCHVISION and importlib.util.find_spec("torchvision") is None:
        raise TeacherUnsupported("it needs torchvision, which is not installed: pip install torchvision")
    if not (checkpoint.folder / PROCESSOR).is_file():
        raise TeacherUnsupported(f"its folder holds no {PROCESSOR}")
    # PIL where there is a choice, so that labels do not depend on whether torchvision is installed.
    modern = int(transformers.__version__.split(".")[0]) >= 5
    choice: dict[str, Any] = {"backend": "pil"} if modern and config.model_type not in NEED_TORCHVISION else {}
    try:
        processor = transformers.AutoImageProcessor.from_pretrained(
            checkpoint.folder,
            trust_remote_code=False,
            local_files_only=True,
            **(choice if modern else {"use_fast": False}),
        )
    except ImportError as error:
        raise TeacherUnsupported(f"its image processor needs a package that is missing: {reason(error)}") from error
    plain_dpt = config.model_type == "dpt" and (config.is_hybrid or config.backbone_config is None)
    if plain_dpt and getattr(processor, "keep_aspect_ratio", False):
        raise TeacherUnsupported("its model takes square images only, but its processor keeps their aspect")
    patch = config.patch_size if isinstance(getattr(config, "patch_size", None), int) else DEFAULT_PATCH
    return ProcessorPreprocessing(processor, _token_limit(patch, request))


def _canvas_preprocessing(config: Any, request: TeacherSettings) -> Preprocessing:
    height, width = config.canvas
    if request.size is not None:
        if request.size % MULTIPLE or request.size < MULTIPLE:
            raise UsageError(f"size {request.size} is no multiple of {MULTIPLE}, as the sides of its input must be")
        height = max(1, round(height * request.size / width / MULTIPLE)) * MULTIPLE
        width = request.size
    return CanvasPreprocessing((height, width), _token_limit(config.patch_size, request))


def _lite_preprocessing(checkpoint: Checkpoint, request: TeacherSettings) -> Preprocessing:
    size = request.size or int(checkpoint.processor_settings().get("size", lite.SHORT_SIDE))
    if size % lite.PATCH:
        raise UsageError(f"size {size} is no multiple of the model's patch, {lite.PATCH}")
    return lite.LitePreprocessing(size, _token_limit(lite.PATCH, request))


def _check_size(request: TeacherSettings, patch: int) -> None:
    if request.size is not None and request.size % patch:
        raise UsageError(f"size {request.size} is no multiple of the model's patch, {patch}")


def _token_limit(patch: int, request: TeacherSettings) -> TokenLimit:
    return TokenLimit(patch, request.max_tokens or MAX_TOKENS, request.oversize or OVERSIZE)


def _official_preprocessing(checkpoint: Checkpoint, config: Any, request: TeacherSettings) -> Preprocessing:
    patch = config.patch_size
    _check_size(request, patch)
    settings = checkpoint.processor_settings()
    size = settings.get("size", 518)
    height, width = (size["height"], size["width"]) if isinstance(size, dict) else (size, size)
    if request.size is not None:
        height = width = request.size
    official = config.backbone_config.model_type == "dinov2"
    return depth_anything.OfficialPreprocessing(
        size=(int(height), int(width)),
        limit=_token_limit(patch, request),
        mean=tuple(float(value) for value in settings.get("image_mean", depth_anything.IMAGENET_MEAN)),
        std=tuple(float(value) for value in settings.get("image_std", depth_anything.IMAGENET_STD)),
        positions="official, offset 0.1" if official else "transformers",
    )


def _load_model(checkpoint: Checkpoint, config: Any, dtype: str) -> Any:
    model, report = transformers.AutoModelForDepthEstimation.from_pretrained(
        checkpoint.folder,
        config=config,
        dtype=DTYPES[dtype],
        use_safetensors=True,
        trust_remote_code=False,
        local_files_only=True,
        output_loading_info=True,
        ignore_mismatched_sizes=True,  # refused below, in words of our own
    )
    check_fit(
        model.state_dict().keys(),
        mismatched=report["mismatched_keys"],
        missing=report["missing_keys"],
        unexpected=report["unexpected_keys"],
    )
    return model.requires_grad_(False)  # from_pretrained has put it into evaluation mode


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """No progress bars and no advice from transformers while a model loads; the user's settings come back after."""
    logging = transformers.utils.logging
    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    restore: Callable[[], None] = logging.enable_progress_bar if bars else logging.disable_progress_bar
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.set_verbosity(verbosity)
        restore()
