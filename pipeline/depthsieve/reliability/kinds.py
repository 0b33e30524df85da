"""The table of signals. A new signal is a row in :data:`SIGNALS` and its function; everything else derives from it.

Nothing here imports torch until a signal is computed, as the command line reads the table for its help.

Axes: B image of a batch, C channel, H row, W column; h and w those of another size.
"""

import difflib
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from depthsieve.core.errors import UsageError
from depthsieve.core.records import Quantity, Shape
from depthsieve.reliability.scale import NATIVE_VERSION

if TYPE_CHECKING:
    import torch

    from depthsieve.reliability.network import ErrorNetwork

NONE = "none"
"""What a user writes for no signals."""

NETWORK = "network"
"""The signal that is an expected error by itself: what a trained network makes of the photo and its label."""

KEPT_BYTES_PER_PIXEL = 1.7
"""What a pixel of one kept signal takes on disk: up to 1.64 on 16 photos (flip)."""

Need = Literal["nothing", "view", "half", "second", "confidence", "network"]
"""What a signal needs besides the label: a prediction for another view of the images at their own shape (predicted
together with the label on a GPU) or at half of it, one of a second teacher, the teacher's own confidence, or the photo
and an error network."""


@dataclass(frozen=True, slots=True)
class Seen:
    """What a signal looks at: the labels ``depth_BHW``, and what it needs. ``other_Bhw`` is the prediction to compare
    them with, ``confidence_BHW`` the teacher's own, of which ``better`` says which end means a good pixel. The
    ``network`` sees ``photo_BHW3``, uint8 at label shape, and the labels where ``valid_BHW``; the confidence too, if it
    was calibrated with it."""

    depth_BHW: "torch.Tensor"
    quantity: Quantity
    other_Bhw: "torch.Tensor | None" = None
    other_quantity: Quantity = "disparity"
    confidence_BHW: "torch.Tensor | None" = None
    better: Literal["higher", "lower"] = "higher"
    photo_BHW3: "torch.Tensor | None" = None
    valid_BHW: "torch.Tensor | None" = None
    network: "ErrorNetwork | None" = None


@dataclass(frozen=True, slots=True)
class Signal:
    """A kind of signal.

    ``passes`` is its cost in forward passes of the teacher, ``help`` what the label is compared with.
    ``disagreement`` returns how far the label is off by this signal, float32 [B,H,W] in the label's own unit, 0 or more
    and not finite where it is unknown. ``view`` makes the images to predict, of the given shape, where it needs some,
    ``mirrored`` if it swaps left and right.
    A signal that is ``whole`` returns the expected error itself, relative to the label: it stands alone, and no
    calibration of signals applies to it.
    """

    name: str
    needs: Need
    passes: float
    help: str
    disagreement: "Callable[[Seen], torch.Tensor]"
    view: "Callable[[torch.Tensor, Shape], torch.Tensor] | None" = None
    mirrored: bool = False
    whole: bool = False


def _flip(seen: Seen) -> "torch.Tensor":
    from depthsieve.reliability.signals import flip_disagreement

    assert seen.other_Bhw is not None
    return flip_disagreement(seen.depth_BHW, seen.other_Bhw, seen.quantity)


def _lowres(seen: Seen) -> "torch.Tensor":
    from depthsieve.reliability.signals import lowres_disagreement

    assert seen.other_Bhw is not None
    return lowres_disagreement(seen.depth_BHW, seen.other_Bhw, seen.quantity)


def _lowres_view(image_BCHW: "torch.Tensor", shape: Shape) -> "torch.Tensor":
    from depthsieve.reliability.signals import lowres_view

    return lowres_view(image_BCHW, shape)


def _photometric(seen: Seen) -> "torch.Tensor":
    from depthsieve.reliability.signals import photometric_disagreement

    assert seen.other_Bhw is not None
    return photometric_disagreement(seen.depth_BHW, seen.other_Bhw, seen.quantity)


def _photometric_view(image_BCHW: "torch.Tensor", shape: Shape) -> "torch.Tensor":
    from depthsieve.reliability.signals import photometric_view

    return photometric_view(image_BCHW)


def _teachers(seen: Seen) -> "torch.Tensor":
    from depthsieve.reliability.signals import teachers_disagreement

    assert seen.other_Bhw is not None
    return teachers_disagreement(seen.depth_BHW, seen.other_Bhw, seen.quantity, seen.other_quantity)


def _edges(seen: Seen) -> "torch.Tensor":
    from depthsieve.reliability.signals import edges_disagreement

    return edges_disagreement(seen.depth_BHW)


def _native(seen: Seen) -> "torch.Tensor":
    from depthsieve.reliability.signals import native_disagreement

    assert seen.confidence_BHW is not None
    return native_disagreement(seen.depth_BHW, seen.confidence_BHW, seen.better)


def _network(seen: Seen) -> "torch.Tensor":
    import torch

    assert seen.network is not None and seen.photo_BHW3 is not None and seen.valid_BHW is not None
    depth_BHW = torch.where(seen.valid_BHW, seen.depth_BHW, torch.nan)
    confidence_BHW = seen.confidence_BHW if seen.network.native is not None else None
    return seen.network.expected_error(seen.photo_BHW3, depth_BHW, seen.quantity, confidence_BHW)


SIGNALS = {
    signal.name: signal
    for signal in (
        Signal("flip", "view", 1, "the mirrored image", _flip, lambda image_BCHW, shape: image_BCHW.flip(-1), True),
        Signal("lowres", "half", 0.25, "the mirrored image at half the resolution", _lowres, _lowres_view, True),
        Signal("photometric", "view", 1, "the image in warmer colours, with noise", _photometric, _photometric_view),
        Signal("teachers", "second", 1, "another teacher (--second-teacher)", _teachers),
        Signal("edges", "nothing", 0, "the label's own depth edges", _edges),
        Signal("native", "confidence", 0, "the teacher's own confidence", _native),
        Signal(
            NETWORK, "network", 0, "what a network expects by photo and label (--calibration)", _network, whole=True
        ),
    )
}

LACKS: dict[Need, str] = {
    "half": "works at its processor's sizes only, and signal {signal!r} needs half of them; leave it out",
    "second": "has no second teacher, and signal {signal!r} compares two; name one: --second-teacher NAME",
    "confidence": "gives no confidence of its own, which signal {signal!r} is made of; leave it out",
    "network": "has no error network in this release; train one with `depthsieve calibrate` and say --calibration FILE",
}
"""Error text for a teacher that lacks what a signal needs. Views need nothing of a teacher."""


def parse_signals(text: str) -> tuple[str, ...]:
    """The signals that a comma-separated list names, sorted; none for ``"none"``. Raises :class:`UsageError`."""
    if not isinstance(text, str):
        raise UsageError(f"signals is a comma-separated list, such as 'flip', not {text!r}")
    names = {name.strip() for name in text.split(",")}
    for name in sorted(names - {NONE, *SIGNALS}):
        near = difflib.get_close_matches(name, [*SIGNALS, NONE], n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"there are: {', '.join([*common_signals(), NONE])}"
        raise UsageError(f"unknown signal {name!r}; {hint}")
    alone = sorted(names & {NONE, *(signal.name for signal in SIGNALS.values() if signal.whole)})
    if alone and len(names) > 1:
        others = ", ".join(sorted(names - {alone[0]}))
        raise UsageError(
            f"signals: {alone[0]!r} stands alone, and cannot be combined with {others}; leave one of them out"
        )
    return tuple(sorted(names - {NONE}))


def common_signals() -> tuple[str, ...]:
    """Those that any teacher can have, in the order of the table: none that needs its own confidence or a network."""
    return tuple(signal.name for signal in SIGNALS.values() if signal.needs not in ("confidence", "network"))


def signals_that(needs: Collection[Need]) -> tuple[str, ...]:
    """The names of the signals whose need is among these, sorted."""
    return tuple(sorted(signal.name for signal in SIGNALS.values() if signal.needs in needs))


def check_needs(names: Sequence[str], teacher: str, met: Collection[Need]) -> None:
    """Raise :class:`UsageError` for a signal that needs what a teacher of that name does not have."""
    for name in names:
        if (need := SIGNALS[name].needs) not in met:
            raise UsageError(f"teacher {teacher!r} {LACKS[need].format(signal=name)}")


def full_views(names: Sequence[str]) -> int:
    """How many views of an image at its own shape go through the teacher for these signals, the image itself too."""
    return 1 + sum(SIGNALS[name].needs == "view" for name in names)


def signals_help() -> str:
    """The table in one sentence, for the help of an option."""
    shown = (*common_signals(), NETWORK)
    listed = [f"{name}: {SIGNALS[name].help} ({_cost(SIGNALS[name].passes)})" for name in shown]
    return f"{'; '.join(listed)}; {NONE}: every pixel counts as reliable"


def _cost(passes: float) -> str:
    if passes == 0:
        return "no extra pass"
    return "1 extra pass" if passes == 1 else f"{passes:g} of a pass"


def whole_signal(names: Sequence[str]) -> bool:
    """Whether the signal of these names is an expected error by itself, so that no calibration of signals applies."""
    return any(name in SIGNALS and SIGNALS[name].whole for name in names)


def made_of(signals: Sequence[str], calibration: str, *, imported: bool = False) -> str:
    """What the reliability of labels comes from, in words, by what their spec, or a layer, says: for ``status``,
    reports and exports."""
    if NETWORK in signals:
        other = "; it was trained for other teachers" if calibration.endswith("-transferred") else ""
        sees = "photo, label and own confidence" if calibration.startswith(NATIVE_VERSION) else "photo and label"
        return f"an error network, by {sees} ({calibration}){other}"
    if not signals:
        return "nothing: every valid pixel has the same code"
    what = "imported confidence" if imported else f"signals: {', '.join(signals)}"
    return f"{what} ({calibration})"
