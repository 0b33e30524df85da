"""How well the network finds the errors of labels, next to what there is without it. Axes: H row, W column."""

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from depthsieve.evaluation.metrics import ause_aurg, sparsification
from depthsieve.jobs.calibrate.examples import Example, batch_of_one
from depthsieve.labelling.batch import LabelWork, predict_labels
from depthsieve.reliability.fusion import calibration_for, fuse, near_level
from depthsieve.reliability.native import NativeConfidence
from depthsieve.reliability.network import ErrorNetwork
from depthsieve.teachers import Batch, Teacher

DROP = 0.10
FEWEST = 100
"""Pixels that must be known for a label to be judged."""

TIMED, TURNS = 3, 3
"""Labels on which costs are measured, and how often on each: the least counts, which other work disturbs least."""

NETWORK, FLIP, LEVEL = "network", "flip, fused", "level of the label"
NATIVE, BOTH = "confidence", "network + confidence"
SIGNALS = ("flip",)

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class MethodScore:
    """How well one ``method`` orders the pixels of ``images`` labels of one kind of ``data`` ("scenes" or "pairs").

    AUSE and AURG (Poggi et al., CVPR 2020) of two errors, ``|truth - label| / (d + median(d))`` and AbsRel, and
    ``kept``: what is left of the error when the least reliable 10% of the pixels go, as a share; all are means over
    images. ``expected``: the mean error that it expects over the one that there is; None for a method that expects
    none. ``extra_time``: what it takes beyond the plain forward pass, as a share of that; None where it was not timed.
    """

    data: str
    method: str
    images: int
    ause: float
    aurg: float
    kept: float
    abs_rel_ause: float
    abs_rel_aurg: float
    abs_rel_kept: float
    expected: float | None = None
    extra_time: float | None = None


def doubts(
    seen: Example,
    teacher: Teacher,
    network: ErrorNetwork,
    rgb_HW3: NDArray[np.uint8],
    native: NativeConfidence | None = None,
) -> dict[str, Floats]:
    """What each method says of a label, [H,W]: the more, the less reliable. ``rgb_HW3`` is the photo as it was
    labelled, ``native`` the table of the teacher's confidence."""
    depth_1HW = torch.from_numpy(seen.depth_HW)[None]
    more: dict[str, Floats] = {}
    if native is not None and seen.confidence_HW is not None:
        confidence_1HW = torch.from_numpy(seen.confidence_HW)[None].to(teacher.device)
        more[NATIVE] = native.logs(confidence_1HW)[0, 0].exp().cpu().numpy()
    if network.native is not None:
        more[BOTH] = _by_network(seen, teacher, network).numpy()
    return {
        NETWORK: _by_network(seen, teacher, network.without_confidence()).numpy(),
        **more,
        FLIP: _by_flip(teacher, _batch(teacher, rgb_HW3, seen)).numpy(),
        LEVEL: 1 - near_level(depth_1HW, teacher.quantity)[0].numpy(),
    }


def costs(seen: Example, teacher: Teacher, network: ErrorNetwork, rgb_HW3: NDArray[np.uint8]) -> dict[str, float]:
    """Seconds of the plain forward pass (""), and of what methods take with it: the least of :data:`TURNS`, in turn."""
    batch = _batch(teacher, rgb_HW3, seen)
    alone = network.without_confidence()
    whole = {
        "": lambda: teacher.predict(batch).depth.cpu(),
        NETWORK: lambda: _by_network(seen, teacher, alone),
        FLIP: lambda: _by_flip(teacher, batch),
    }
    if network.native is not None:
        whole[BOTH] = lambda: _by_network(seen, teacher, network)
    turns = [{name: _seconds(work) for name, work in whole.items()} for _ in range(TURNS)]
    return {name: min(turn[name] for turn in turns) for name in whole}


def score(
    data: str, judged: Iterable[tuple[Example, Mapping[str, Floats]]], paid: Mapping[str, float]
) -> tuple[MethodScore, ...]:
    """One line for each method; ``paid`` has their extra time. Labels with too few known pixels do not count."""
    rows: dict[str, list[tuple[float, ...]]] = {}
    for seen, said in judged:
        if seen.pixels < FEWEST:
            continue
        for method, doubt_HW in said.items():
            first_HW, second_HW = seen.errors_2HW
            known_HW = np.isfinite(first_HW) & np.isfinite(doubt_HW)
            means = float(doubt_HW[known_HW].mean()), float(first_HW[known_HW].mean())
            rows.setdefault(method, []).append((*_one(first_HW, doubt_HW), *_one(second_HW, doubt_HW), *means))
    scores = []
    for method, values in rows.items():
        ause, aurg, kept, second_ause, second_aurg, second_kept, expected, actual = (
            np.array(values).mean(axis=0).tolist()
        )
        ratio = None if method == LEVEL else expected / max(actual, 1e-12)
        six = (ause, aurg, kept, second_ause, second_aurg, second_kept)
        scores.append(MethodScore(data, method, len(values), *six, ratio, paid.get(method)))
    return tuple(scores)


def mean_ause(judged: Iterable[tuple[NDArray[np.float64], NDArray[np.float64]]]) -> float:
    """The mean AUSE of labels, each known errors [P] and what is doubted of them."""
    return float(np.mean([_one(error_P, doubt_P)[0] for error_P, doubt_P in judged]))


def _one(error_HW: NDArray[np.floating], doubt_HW: NDArray[np.floating]) -> tuple[float, float, float]:
    """AUSE, AURG and what is kept, of one error of one label."""
    known_HW = np.isfinite(error_HW) & np.isfinite(doubt_HW)
    curve = sparsification(error_HW, -doubt_HW.astype(np.float64), known_HW)
    whole = curve.kept_error(0.0)
    return *ause_aurg(curve), curve.kept_error(DROP) / whole if whole else 1.0


def _batch(teacher: Teacher, rgb_HW3: NDArray[np.uint8], seen: Example) -> Batch:
    shape = (seen.depth_HW.shape[0], seen.depth_HW.shape[1])
    return batch_of_one(teacher, rgb_HW3, shape, seen.camera)


def _by_network(seen: Example, teacher: Teacher, network: ErrorNetwork) -> torch.Tensor:
    maps = (torch.from_numpy(seen.photo_HW3)[None], torch.from_numpy(seen.depth_HW)[None])
    photo_1HW3, depth_1HW = (map_.to(teacher.device) for map_ in maps)
    confidence_1HW = None
    if network.native is not None:
        confidence_1HW = torch.from_numpy(seen.confidence_HW)[None].to(teacher.device)
    return network.expected_error(photo_1HW3, depth_1HW, teacher.quantity, confidence_1HW)[0].cpu()


@torch.inference_mode()
def _by_flip(teacher: Teacher, batch: Batch) -> torch.Tensor:
    """The label is predicted too."""
    label, relative = predict_labels(batch, LabelWork(teacher, SIGNALS))
    return fuse(label.depth, relative, teacher.quantity, calibration_for(teacher.quantity, SIGNALS))[0].cpu()


def extra_times(measured: Iterable[Mapping[str, float]]) -> dict[str, float]:
    """The medians of :func:`costs`, over the forward pass: the network comes on top of it, the flip has it within."""
    rows = list(measured)
    if not rows:
        return {}
    median = {name: float(np.median([row[name] for row in rows])) for name in rows[0]}
    by_network = {name: median[name] / median[""] for name in (NETWORK, BOTH) if name in median}
    return {**by_network, NATIVE: 0.0, FLIP: median[FLIP] / median[""] - 1, LEVEL: 0.0}


def _seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start
