"""The error network: which error to expect at each pixel of a label, told from the photo and the label alone.

A small U-net on blocks of 2x2 pixels. It sees the photo, where the label lies between far and near, how steep it is and
how far from its median; scale has no say in any of it, and shift little. It predicts two errors, as logarithms: the one
that codes stand for, ``|truth - label| / (d + median(d))``, and that of depth, ``|z - truth| / truth`` (AbsRel). What
it returns orders pixels by both and is on the scale of the first. It predicts what is sky as well: true disparity is 0
there, and the error of a label what it says beside that.

Axes: B images of a batch, C channels, H row, W column; 3 red, green, blue.
"""

import functools
import hashlib
import json
import os
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any, get_args

import torch
from torch import nn
from torch.nn.functional import interpolate, pad

from depthsieve.core.errors import UsageError, one_line
from depthsieve.core.records import Quantity
from depthsieve.reliability.alignment import is_finite, sum_map
from depthsieve.reliability.fusion import denominator_and_median
from depthsieve.reliability.native import NativeConfidence, checked_knots
from depthsieve.reliability.scale import NATIVE_VERSION

FORMAT = "depthsieve-error-network-2"
"""What a file of weights says that it is. Another number: other inputs, or another network."""

WITH_CONFIDENCE = "depthsieve-error-network-3"
"""The same of a network that looks at the teacher's own confidence as well."""

ABOUT = "depthsieve"
"""The key of the file's metadata that says so, as JSON."""

SHIPPED = "network.safetensors"
MOST_BYTES = 4 << 20
MAKE = "make one with `depthsieve calibrate`"

CONFIDENCE_LEFT_OUT = "confidence_left_out"
"""In ``meta`` of a network that was calibrated with its teacher's confidence, and is used without."""

CHANNELS = (8, 16, 32, 64)
"""Of the network's levels, from 1/2 to 1/16 of the label's sides."""

INPUTS, LOG_LEVEL = 7, 4
"""How many inputs there are, and which of them is the logarithm of the level."""

OUTPUTS, SKY = 3, 2
"""How many maps are predicted: both errors, and the sky."""

GROUP = 8
"""Channels that are normalised together, over an image."""

LEAST_LOG, MOST_LOG = -9.0, 3.0
"""The least and the most that the logarithm of an error is taken for: 1e-4 and 20."""

FIRST_GUESS = -2.5
"""The logarithm of an error that is expected before anything is learned."""

GRADIENT_FLOOR = 1e-3
LEVEL_FLOOR = 0.02

SKY_ERROR = 0.1
"""Of a sky whose disparity is 0 as it should be: now and then fog, or a blank wall, is taken for one."""


def network_inputs(photo_HW3: torch.Tensor, depth_HW: torch.Tensor, quantity: Quantity) -> torch.Tensor:
    """What the network sees of one image, float32 [7,H,W]: red, green and blue; the label's level (1 near, 0 far), and
    its logarithm; the logarithm of its steepness; its distance from the median, compressed.

    The label is rounded to float16 first, as it is stored. Pixels where it is not finite look like the median.
    """
    depth_HW = depth_HW.half().float()
    known_HW = is_finite(depth_HW)
    if not known_HW.all():
        middle = depth_HW[known_HW].median() if known_HW.any() else 0.0
        depth_HW = torch.where(known_HW, depth_HW, middle)
    denominator_HW, median = denominator_and_median(depth_HW)
    denominator_HW = denominator_HW.clamp_(min=1e-12)
    level_HW = ((depth_HW if quantity == "disparity" else median) / denominator_HW).clamp_(0, 1)
    across_HW = pad((depth_HW[:, 1:] - depth_HW[:, :-1]).abs_(), (0, 1))
    down_HW = pad((depth_HW[1:] - depth_HW[:-1]).abs_(), (0, 0, 0, 1))
    steepness_HW = across_HW.add_(down_HW).div_(denominator_HW)
    from_middle_HW = depth_HW - median
    from_middle_HW = from_middle_HW if quantity == "disparity" else -from_middle_HW
    spread = sum_map(from_middle_HW.abs().double()).div(depth_HW.numel()).float().clamp(min=1e-12)
    maps_4HW = torch.stack(
        (
            4 * (level_HW - 0.5),
            (level_HW + LEVEL_FLOOR).log_() + 1,
            (steepness_HW + GRADIENT_FLOOR).log_().add_(4.5) / 2,
            2 * from_middle_HW / (spread + from_middle_HW.abs()),
        )
    )
    colours_3HW = (photo_HW3.permute(2, 0, 1).float() / 255 - 0.5) * 3
    return torch.cat((colours_3HW, maps_4HW))


class _Block(nn.Sequential):
    """A convolution (the arguments are those of ``nn.Conv2d``), normalised over groups of channels of an image."""

    def __init__(self, before: int, after: int, *, kernel: int = 3, stride: int = 1) -> None:
        super().__init__(
            nn.Conv2d(before, after, kernel, stride, padding=(kernel - 1) // 2, bias=False),
            nn.GroupNorm(after // GROUP, after),
            nn.ReLU(inplace=True),
        )


class ErrorNetwork(nn.Module):
    """Predicts the error of labels of one ``quantity``. ``meta`` is plain JSON that says how it came about: ``teacher``
    and what else was written down when it was trained; nothing in it moves an error.

    ``fitted_on`` holds the weights digests of the teachers whose labels it was trained on. Threads may share one that
    is not being trained. With ``native`` it looks at the teacher's own confidence as well.
    """

    blend: torch.Tensor
    """``(constant, slope, share, level)``: where there is no sky, the logarithm of the expected error is ``constant +
    slope * ((1 - share) * first + share * second - level * L)``, of the two that are predicted and the logarithm of the
    label's level."""

    scale: torch.Tensor
    """What all expected errors are multiplied by. Networks that were made before there was one have 1."""

    def __init__(
        self,
        quantity: Quantity,
        fitted_on: tuple[str, ...] = (),
        meta: Mapping[str, Any] | None = None,
        native: NativeConfidence | None = None,
    ) -> None:
        super().__init__()
        self.quantity, self.fitted_on, self.meta = quantity, fitted_on, dict(meta or {})
        self.down, self.up = nn.ModuleList(), nn.ModuleList()
        before = INPUTS
        for level, channels in enumerate(CHANNELS):
            halving = _Block(before, channels, kernel=4, stride=2)  # the first level has most of the pixels
            self.down.append(nn.Sequential(halving, _Block(channels, channels)) if level else halving)
            before = channels
        for level, channels in reversed(list(enumerate(CHANNELS[:-1]))):
            self.up.append(_Block(before + channels, channels, kernel=3 if level else 1))
            before = channels
        self.head = nn.ConvTranspose2d(before, OUTPUTS, 2, 2)
        self.head.bias = nn.Parameter(torch.full((OUTPUTS,), FIRST_GUESS))
        with torch.no_grad():  # its four pixels start alike: chance would leave its grid on whatever is flat
            self.head.weight.copy_(self.head.weight[:, :, :1, :1].expand_as(self.head.weight).clone())
        self.register_buffer("blend", torch.tensor([0.0, 1.0, 0.0, 0.0]))
        self.register_buffer("scale", torch.tensor(1.0))
        self.native = native
        self.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # a third faster on a CPU

    @classmethod
    def random(cls, seed: int = 0, quantity: Quantity = "disparity", fitted_on: tuple[str, ...] = ()) -> "ErrorNetwork":
        """One that knows nothing: the weights of ``seed``, without a change to torch's own random numbers."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            network = cls(quantity, fitted_on)
            return network.eval().requires_grad_(False)

    def forward(self, inputs_BCHW: torch.Tensor) -> torch.Tensor:
        """The logarithms of both errors, and of the odds that a pixel is sky; float32 [B,3,H,W], of
        :func:`network_inputs`."""
        height, width = inputs_BCHW.shape[2:]
        step = 2 ** len(CHANNELS)
        at_BChw = inputs_BCHW
        if height % step or width % step:
            at_BChw = pad(at_BChw, (0, -width % step, 0, -height % step), mode="replicate")
        at_BChw = at_BChw.contiguous(memory_format=torch.channels_last)
        kept: list[torch.Tensor] = []
        for block in self.down:
            at_BChw = block(at_BChw)
            kept.append(at_BChw)
        kept.pop()
        for block in self.up:
            larger_BChw = interpolate(at_BChw, scale_factor=2, mode="bilinear", align_corners=False)
            at_BChw = block(torch.cat((larger_BChw, kept.pop()), 1))
        out_B3HW: torch.Tensor = self.head(at_BChw)[..., :height, :width]
        return torch.cat((out_B3HW[:, :SKY].clamp(LEAST_LOG, MOST_LOG), out_B3HW[:, SKY:]), 1)

    def mixed(self, out_B3HW: torch.Tensor, inputs_BCHW: torch.Tensor) -> torch.Tensor:
        """One logarithm of both errors on no scale, [B,H,W]: see :attr:`blend`."""
        _, _, share, level = self.blend.unbind()
        return (1 - share) * out_B3HW[:, 0] + share * out_B3HW[:, 1] - level * inputs_BCHW[:, LOG_LEVEL]

    def blended(
        self, out_B3HW: torch.Tensor, inputs_BCHW: torch.Tensor, confidence_BHW: torch.Tensor | None = None
    ) -> torch.Tensor:
        """The logarithm of the error to expect, [B,H,W]: see :attr:`blend`, and with ``confidence_BHW`` that of
        :class:`NativeConfidence`."""
        constant, slope, share, _ = self.blend.unbind()
        mixed_BHW = self.mixed(out_B3HW, inputs_BCHW)
        if self.native is not None and confidence_BHW is not None:
            return self.native.blended(mixed_BHW, confidence_BHW, share)
        return constant + slope * mixed_BHW

    def mean_error(
        self, out_B3HW: torch.Tensor, inputs_BCHW: torch.Tensor, confidence_BHW: torch.Tensor | None = None
    ) -> torch.Tensor:
        """The error to be expected, [B,H,W]: :meth:`blended` with the probability that there is no sky; the label's
        level, and :data:`SKY_ERROR`, with that of sky; and all of it times :attr:`scale`."""
        sky_BHW = out_B3HW[:, SKY].sigmoid()
        beside_0_BHW = (inputs_BCHW[:, LOG_LEVEL] - 1).exp() + (SKY_ERROR - LEVEL_FLOOR)
        ground_BHW = self.blended(out_B3HW, inputs_BCHW, confidence_BHW).exp()
        return self.scale * ((1 - sky_BHW) * ground_BHW + sky_BHW * beside_0_BHW)

    def reads(self, weights_digest: str, meaning: str) -> bool:
        """Whether the confidence of a teacher of these weights, with that ``confidence_meaning``, is the one that its
        table was made for."""
        return self.native is not None and self.native.meaning == meaning and weights_digest in self.fitted_on

    def without_confidence(self) -> "ErrorNetwork":
        """The network that looks at photo and label alone: itself where it does. A network of its own, with a digest of
        its own, for labels whose teacher's confidence is not at hand."""
        if self.native is None:
            return self
        alone = ErrorNetwork(self.quantity, self.fitted_on, {**self.meta, CONFIDENCE_LEFT_OUT: True})
        held = {name: value for name, value in self.state_dict().items() if not name.startswith("native.")}
        alone.load_state_dict(held)
        return alone.to(self.blend.device).eval().requires_grad_(False)

    @torch.inference_mode()
    def expected_error(
        self,
        photo_BHW3: torch.Tensor,
        depth_BHW: torch.Tensor,
        quantity: Quantity = "disparity",
        confidence_BHW: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """The error to be expected of each pixel, ``|truth - label| / (d + median(d))``; float32 [B,H,W], above 0, NaN
        where the label is not finite.

        Args:
            photo_BHW3: uint8, upright RGB at label shape, as :func:`depthsieve.store.stored_images.to_label_shape`
                makes it.
            depth_BHW: the labels, on the device of the photos, as the network must be. Any shape, any scale. They are
                rounded to float16 first: a stored label has the error of the one that was predicted.
            quantity: of the labels.
            confidence_BHW: what the teacher says of its error. A network with ``native`` needs it, others take none.

        On a CPU images go through one by one: what else is in the batch cannot move a bit.

        Raises:
            UsageError: labels of another quantity than the network's, shapes that do not fit together, or a confidence
                that is missing or not wanted.
        """
        if quantity != self.quantity:
            raise UsageError(f"a network that was trained on {self.quantity} cannot tell the error of {quantity}")
        if photo_BHW3.dtype != torch.uint8 or tuple(photo_BHW3.shape) != (*depth_BHW.shape, 3) or depth_BHW.ndim != 3:
            raise UsageError(
                f"the error network needs uint8 photos [B,H,W,3] and labels [B,H,W], not {photo_BHW3.dtype} "
                f"{list(photo_BHW3.shape)} and {list(depth_BHW.shape)}"
            )
        if (self.native is None) != (confidence_BHW is None):
            raise UsageError("a network takes the teacher's confidence if it was calibrated with it, and only then")
        if confidence_BHW is not None and confidence_BHW.shape != depth_BHW.shape:
            raise UsageError(f"labels {list(depth_BHW.shape)} have a confidence {list(confidence_BHW.shape)}")
        if not len(depth_BHW):
            return depth_BHW.float()
        inputs = [network_inputs(photo, depth, quantity) for photo, depth in zip(photo_BHW3, depth_BHW, strict=True)]
        parts = [one[None] for one in inputs] if depth_BHW.device.type == "cpu" else [torch.stack(inputs)]
        said = (
            [None] * len(parts) if confidence_BHW is None else torch.split(confidence_BHW, len(depth_BHW) // len(parts))
        )
        e_BHW = torch.cat([self.mean_error(self(part), part, sure) for part, sure in zip(parts, said, strict=True)])
        return torch.where(is_finite(depth_BHW), e_BHW, torch.nan)

    @property
    def digest(self) -> str:
        """Hex sha256 of all that decides an expected error."""
        whole = hashlib.sha256(f"{FORMAT} {self.quantity} {CHANNELS}".encode())
        for name, value in sorted(self.state_dict().items()):
            if name == "scale" and float(value) == 1:  # not in the digest of those that have none
                continue
            whole.update(f" {name} {list(value.shape)} ".encode())
            whole.update(value.detach().cpu().contiguous().numpy().astype("<f4").tobytes())
        return whole.hexdigest()

    @property
    def version(self) -> str:
        """How people call it: "network-", or :data:`NATIVE_VERSION` with the teacher's confidence, and the start of its
        digest."""
        return ("network-" if self.native is None else NATIVE_VERSION) + self.digest[:8]

    def name(self, weights_digest: str) -> str:
        """How a label spec names it: its version, with "-transferred" for a teacher that it was not trained on."""
        return self.version + ("" if weights_digest in self.fitted_on else "-transferred")

    def to_bytes(self) -> bytes:
        """It as a safetensors file; the same network has the same bytes."""
        from safetensors.torch import save

        about = {"format": FORMAT, "quantity": self.quantity, "fitted_on": self.fitted_on, "meta": self.meta}
        if self.native is not None:
            about |= {"format": WITH_CONFIDENCE, "confidence": self.native.meaning}
        held = {name: value.detach().cpu().contiguous() for name, value in self.state_dict().items()}
        return save(held, {ABOUT: json.dumps(about, sort_keys=True)})  # one key: their order is not fixed

    @classmethod
    def from_bytes(cls, data: bytes, shown: str) -> "ErrorNetwork":
        """The network in the bytes of a file called ``shown``. Raises :class:`UsageError` for what is none."""
        from safetensors import SafetensorError
        from safetensors.torch import load

        try:
            header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
            about = json.loads(header["__metadata__"][ABOUT])
            if about["format"] not in (FORMAT, WITH_CONFIDENCE):
                raise ValueError(f"it is {str(about['format'])[:80]!r}, and this release reads {FORMAT!r}")
            if about["quantity"] not in get_args(Quantity):
                raise ValueError(f"unknown quantity {about['quantity']!r}")
            held = load(data)
            native = None
            if about["format"] == WITH_CONFIDENCE:
                native = NativeConfidence(str(about["confidence"]), checked_knots(held["native.knots"]))
            network = cls(about["quantity"], tuple(map(str, about["fitted_on"])), about["meta"], native)
            network.load_state_dict({"scale": torch.tensor(1.0), **held})
            if not all(bool(torch.isfinite(value).all()) for value in network.state_dict().values()):
                raise ValueError("weights that are not finite")
        except (SafetensorError, KeyError, TypeError, ValueError, RuntimeError, RecursionError) as error:
            raise UsageError(f"{shown} holds no error network ({one_line(error)}); {MAKE}") from error
        return network.eval().requires_grad_(False)

    def save(self, path: str | Path) -> None:
        """Write :meth:`to_bytes`, at once: there is no half of it at any moment."""
        path = Path(path)
        partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
        try:
            partial.write_bytes(self.to_bytes())
            partial.replace(path)
        finally:
            partial.unlink(missing_ok=True)

    @classmethod
    def load(cls, path: str | Path) -> "ErrorNetwork":
        """The network in a file that :meth:`save` wrote, on the CPU. Raises :class:`UsageError` for any other."""
        path = Path(path)
        try:
            with path.open("rb") as file:
                data = file.read(MOST_BYTES + 1)
        except OSError as error:
            raise UsageError(f"calibration {path} cannot be read: {error.strerror or error}") from error
        if len(data) > MOST_BYTES:
            raise UsageError(f"{path} is larger than any error network, which has at most 4 MiB; {MAKE}")
        return cls.from_bytes(data, str(path))


def confidence_notes(network: ErrorNetwork | None, who: str) -> tuple[str, ...]:
    """What a user should know of a network that was calibrated with a confidence that ``who`` does not give."""
    if network is None or not network.meta.get(CONFIDENCE_LEFT_OUT):
        return ()
    return (
        f"the calibration was made with its teacher's own confidence, and {who} does not give that one: reliability "
        f"comes from photo and label alone ({network.version})",
    )


def is_network_file(path: str | Path) -> bool:
    """Whether a file is meant to be a network, and no JSON of weights of signals: told by its first bytes."""
    try:
        with Path(path).open("rb") as file:
            start = file.read(9)
    except OSError:
        return False
    return len(start) == 9 and start[8:] == b"{" and 0 < int.from_bytes(start[:8], "little") < MOST_BYTES


@functools.cache
def shipped_network() -> ErrorNetwork | None:
    """The network that comes with the package, trained on the labels of ``tiny``; None where there is none."""
    file = files("depthsieve.reliability") / SHIPPED
    return ErrorNetwork.from_bytes(file.read_bytes(), SHIPPED) if file.is_file() else None
