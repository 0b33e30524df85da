"""Whether a teacher's own confidence tells its errors, and how it counts beside the error network.

Axes: H row, W column; P pixels, T terms; 2 both errors.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from depthsieve.jobs.calibrate.judging import FEWEST, mean_ause
from depthsieve.jobs.calibrate.training import batch_of, power_law
from depthsieve.reliability.native import NativeConfidence, fit_knots, rank_correlation
from depthsieve.reliability.network import ErrorNetwork
from depthsieve.teachers import Teacher

PIXELS = 2048
"""Drawn of each label for the table."""

WEIGHTS = (0.25, 0.5, 1.0, 2.0, 4.0)
"""That are tried for the table's logarithm beside the network's."""

HELPS = 0.99
"""The AUSE that must come of it, over that of the network alone, for a confidence to be used: the mean of both errors
on labels that its weight was not chosen by. Neither error may get worse."""

FEWEST_LABELS = 4
"""That must be held back for a confidence to be tried: it helps by chance on one."""

AGAINST = 0.1
"""A rank correlation with the errors beyond this, against the declared direction, is told of a confidence that is not
used; of one that is, any."""

Record = NDArray[np.void]
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class ConfidenceSummary:
    """What calibrating found of a teacher's own confidence.

    ``meaning`` is what the teacher calls it, ``declared`` which end it says is better, and ``found`` which end is.
    ``correlation`` is Spearman's, with both errors together. ``used``: it counts beside the network, since on labels
    held back the AUSE of both errors became ``ause_ratios`` times that of the network alone (None where no weight
    helped), which must be below 0.99 in the mean, and neither above 1. ``blend`` is ``(constant, network, table)``, how
    they count. ``held_back`` labels were there to try it on; it takes 4.
    """

    meaning: str
    declared: str
    found: str
    correlation: float
    used: bool
    ause_ratios: tuple[float, float] | None
    blend: tuple[float, float, float] | None
    held_back: int

    def notes(self) -> tuple[str, ...]:
        """What a user should know, a line each."""
        lines = []
        if self.is_reversed:
            other = "rise" if self.found == "lower" else "fall"
            lines.append(
                f"the teacher declares that {self.declared} confidence is better, and its errors {other} with it (rank "
                f"correlation {self.correlation:+.2f}): it is read the other way round; correct its confidence_better"
            )
        if not self.used and self.held_back < FEWEST_LABELS:
            lines.append(
                f"the teacher's own confidence ({self.meaning}) is not used: of one label in twenty that is held back, "
                f"{FEWEST_LABELS} are needed to try it on; learn from more scenes"
            )
        elif not self.used:
            ratios = self.ause_ratios
            tried = "" if ratios is None else f" (AUSE {ratios[0]:.2f} and {ratios[1]:.2f} times that without)"
            lines.append(
                f"the teacher's own confidence ({self.meaning}) tells no more than the network on labels held back"
                f"{tried}: it is not used"
            )
        return tuple(lines)

    @property
    def is_reversed(self) -> bool:
        """Whether errors go against the declared direction, clearly or in what is used."""
        return self.found != self.declared and (self.used or abs(self.correlation) > AGAINST)


def fit_confidence(
    teacher: Teacher, network: ErrorNetwork, learnt: Iterable[Record], held_back: Sequence[Record]
) -> tuple[ErrorNetwork, NativeConfidence, ConfidenceSummary]:
    """The network with the teacher's confidence, or as it is where that does not help; the table, used or not; and what
    was found.

    The table is of ``learnt`` labels; its weight beside the network is chosen by every second of those held back and
    tried on the others, and then chosen by all of them.
    """
    assert teacher.confidence_better is not None  # the caller asks of teachers that have one
    drawn = [_drawn(record_HW, number) for number, record_HW in enumerate(learnt)]
    confidence_P = np.concatenate([one[0] for one in drawn])
    errors_2P = np.concatenate([one[1] for one in drawn], axis=1)
    if not len(confidence_P):
        confidence_P, errors_2P = np.zeros(1), np.ones((2, 1))
    correlation = rank_correlation(confidence_P, errors_2P.sum(0))
    knots_3K = torch.from_numpy(fit_knots(confidence_P, errors_2P)).float()
    native = NativeConfidence(teacher.confidence_meaning, knots_3K).to(network.blend.device)
    seen = [_seen(record_HW, network, native) for record_HW in held_back]
    seen = [one for one in seen if one.error_2P.shape[1] >= FEWEST]
    weight = _best_weight(seen[::2]) if len(seen) >= FEWEST_LABELS else None
    ratios = None if weight is None else _ratios(seen[1::2], weight)
    weight = _best_weight(seen) if ratios is not None and np.mean(ratios) < HELPS and max(ratios) <= 1 else None
    blend = None if weight is None else _scaled(seen, weight)
    summary = ConfidenceSummary(
        teacher.confidence_meaning,
        teacher.confidence_better,
        "lower" if native.lower_is_better else "higher",
        correlation,
        blend is not None,
        None if ratios is None else (ratios[0], ratios[1]),
        None if blend is None else (float(blend[0]), float(blend[1]), float(blend[2])),
        len(seen),
    )
    if blend is None:
        return network, native, summary
    native.blend.copy_(torch.from_numpy(blend))
    device = network.blend.device
    whole = ErrorNetwork(network.quantity, network.fitted_on, network.meta, native)
    whole.load_state_dict({**network.state_dict(), **{f"native.{k}": v for k, v in native.state_dict().items()}})
    return whole.to(device).eval().requires_grad_(False), native, summary


@dataclass(frozen=True)
class _Seen:
    """Of the pixels of a label: the logarithms of what network and table say, and both errors."""

    network_P: Floats
    table_P: Floats
    error_2P: Floats


def _known(record_HW: Record) -> NDArray[np.bool_]:
    """Where both errors are known, which is not in the sky, and confidence is a number."""
    errors_HW2, confidence_HW = record_HW["errors"], record_HW["confidence"]
    known_HW: NDArray[np.bool_] = np.isfinite(errors_HW2).all(-1) & np.isfinite(confidence_HW)
    return known_HW


def _drawn(record_HW: Record, number: int) -> tuple[Floats, Floats]:
    """Confidence [P] and both errors [2,P] of some pixels of a label."""
    record_P = record_HW[_known(record_HW)]
    if len(record_P) > PIXELS:
        record_P = record_P[np.random.default_rng(number).choice(len(record_P), PIXELS, replace=False)]
    return record_P["confidence"].astype(np.float64), record_P["errors"].astype(np.float64).T


@torch.inference_mode()
def _seen(record_HW: Record, network: ErrorNetwork, native: NativeConfidence) -> _Seen:
    inputs_1CHW, error_12HW = batch_of([record_HW], None)
    inputs_1CHW = inputs_1CHW.to(network.blend.device)
    said_HW = network.mixed(network(inputs_1CHW), inputs_1CHW)[0]
    confidence_1HW = torch.from_numpy(np.ascontiguousarray(record_HW["confidence"]))[None].to(said_HW.device)
    table_HW = native.mixed(confidence_1HW, network.blend[2])[0]
    known_HW = torch.from_numpy(_known(record_HW))
    maps = (said_HW.cpu()[known_HW], table_HW.cpu()[known_HW], error_12HW[0][:, known_HW])
    return _Seen(*(map_.double().numpy() for map_ in maps))


def _ratios(seen: Sequence[_Seen], weight: float) -> list[float]:
    """The AUSE of each error with the table's logarithm added ``weight`` times, over that without."""
    return [
        mean_ause((one.error_2P[error], one.network_P + weight * one.table_P) for one in seen)
        / max(mean_ause((one.error_2P[error], one.network_P) for one in seen), 1e-12)
        for error in (0, 1)
    ]


def _best_weight(seen: Sequence[_Seen]) -> float | None:
    """The weight with the least AUSE, by the mean of both errors, of those that make neither worse; None without."""
    if not seen or all(np.ptp(one.table_P) < 1e-6 for one in seen):
        return None
    tried = {weight: _ratios(seen, weight) for weight in WEIGHTS}
    helping = {weight: sum(ratios) for weight, ratios in tried.items() if max(ratios) <= 1}
    return min(helping, key=lambda weight: helping[weight]) if helping else None


def _scaled(seen: Sequence[_Seen], weight: float) -> Floats | None:
    """``(constant, network, table)`` on the scale of the first error; None where that cannot be fitted."""
    log_P = np.concatenate([(one.network_P + weight * one.table_P) / (1 + weight) for one in seen])
    scale = power_law(log_P, np.concatenate([one.error_2P[0] for one in seen]))
    return None if scale is None else np.array([scale[0], *(scale[1] / (1 + weight) * np.array([1, weight]))])
