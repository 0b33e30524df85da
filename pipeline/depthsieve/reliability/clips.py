"""One scale for a clip: each frame's label brought to the same scale and shift, and how steady labels are in time.

A relative teacher's disparity has a scale and a shift of its own in every frame, which is seen as flicker. Here each
frame is fitted to frames before it, at pixels that show the same spot of the scene, and gets two numbers, so that
``scale * label + shift`` compares within a segment of a clip. A cut begins a new segment, with a scale of its own.

Axes: H row, W column of a map at working size, P pixels that count, 3 colours, 2 x and y.
"""

import math
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from depthsieve.core.clips import ClipFit
from depthsieve.reliability.masking import threshold_code, train_mask

METHOD = "flow-trimmed-2"
"""Names the whole recipe of :class:`ClipFitter`, with its numbers; another recipe has another name."""

SIDE = 192
"""Pixels of the shorter side that frames are compared at, where labels are larger."""

LEAST_SIDE = 32
"""Below this no flow is looked for."""

DROP = 0.10
"""The least reliable of a label's pixels do not count: this share."""

SAME_LEVELS = 6.0
"""Levels of 255 by which a spot may differ between two photos, once the change of exposure is taken off."""

KEPT = 0.8
"""The share of the pixels that each round fits: those that agree best."""

ROUNDS = 4

SAME_PLACE = 1.0
"""Pixels by which a spot may miss where it came from, if it is followed to the other photo and back."""

LEAST_SHARE = 0.25
"""Of the pixels that count, as many must show the same spot in the frame before; else there is a cut between them."""

LEAST_CORRELATION = 0.7
"""Of the two labels at those pixels; else no line is fitted, and without photos there is a cut between them."""

ANCHOR_RESIDUAL = 1.25
"""A frame is fitted to the anchor while that fits at most so many times worse than the frame before does."""

ANCHOR_SHARE = 0.5
"""And while at least this share of the pixels that show the same spot as the frame before do so for the anchor."""


@dataclass(frozen=True)
class Frame:
    """A frame at working size: its label, where it counts, and its photo's luma, 0..255; None: there is no photo."""

    label_HW: NDArray[np.float32]
    counted_HW: NDArray[np.bool_]
    luma_HW: NDArray[np.uint8] | None
    shape: tuple[int, int]

    @property
    def spread(self) -> float:
        """From the 5th to the 95th percentile of the label where it counts; 0 where it does not."""
        values_P = self.label_HW[self.counted_HW]
        if not len(values_P):
            return 0.0
        low, high = np.percentile(values_P, (5, 95))
        return float(high - low)


def frame_of(
    depth_HW: NDArray[np.float32], reliability_HW: NDArray[np.uint8], rgb_HW3: NDArray[np.uint8] | None
) -> Frame:
    """A label and its photo, if there is one, made ready.

    Pixels count that are valid, not among the 10% least reliable of the label, and not at the label's lowest value if
    that is 0 (where the network was cut off: sky).
    """
    codes_256 = np.bincount(reliability_HW.ravel(), minlength=256)
    counted_HW = train_mask(reliability_HW, threshold_code(codes_256, DROP)) & np.isfinite(depth_HW)
    counted_HW &= (depth_HW != 0) | (depth_HW.min() < 0)
    height, width = depth_HW.shape
    smaller = min(1.0, SIDE / min(height, width))
    size = (max(1, round(width * smaller)), max(1, round(height * smaller)))
    luma_HW = None
    if rgb_HW3 is not None:
        luma_HW = cv2.resize(cv2.cvtColor(rgb_HW3, cv2.COLOR_RGB2GRAY), size, interpolation=cv2.INTER_AREA)
    return Frame(
        cv2.resize(depth_HW.astype(np.float32), size, interpolation=cv2.INTER_NEAREST),
        cv2.resize(counted_HW.astype(np.uint8), size, interpolation=cv2.INTER_NEAREST).astype(np.bool_),
        luma_HW,
        (height, width),
    )


class ClipFitter:
    """Takes the frames of one clip in the order of time. See :data:`METHOD`.

    * **Which pixels**: those that count in both frames and show the same spot: optical flow (DIS) from one photo to the
      other says where a pixel was, the flow back from there must lead to within 1 pixel of it, and its luma must be the
      same within 6 of 255 levels, once a change of exposure (a gain, and the median change) is taken off. Where too few
      are found, flow is looked for again about the shift of the whole picture. Where either frame has no photo: all
      that count, as if nothing moved.
    * **Fit**: least trimmed squares, 80% of the pixels, four rounds; of the two regression lines the one between
      (scale = ratio of standard deviations), since both labels err, and a line that takes one of them for exact shrinks
      the scale a little at each step.
    * **Little drift**: a frame is fitted to the anchor, the first frame of the segment, as long as that fits nearly as
      well as the frame before; else the frame before becomes the anchor. Errors add up from anchor to anchor only.
    * **Labels that do not correlate** with those of the frame before: the anchor decides alone. If they do not
      correlate there either, quartiles are laid over those of the frame before.
    * **Cut**: labels of another shape, or too few pixels that show the same spot, begin a new segment. Without photos,
      also labels that do not correlate.
    * At its end a segment is scaled as a whole, so that its mean log scale is 0 and its mean shift is 0.
    """

    def __init__(self, *, is_relative: bool = True) -> None:
        """Labels in metres (not ``is_relative``) keep their scale; their changes are measured all the same."""
        self._is_relative = is_relative
        self._before: _Placed | None = None
        self._anchor: _Placed | None = None
        self._fits: list[ClipFit] = []
        self._first = 0
        self._flow: Any = None

    def add(self, frame: Frame) -> None:
        """The next frame."""
        before, anchor = self._before, self._anchor
        pair = self._pair(frame, before) if before is not None else None
        if before is None or anchor is None or pair is None:
            segment = self._fits[-1].segment + 1 if self._fits else 0.0
            self._settle()
            self._anchor = self._before = _Placed(frame, 1.0, 0.0)
            self._fits.append(ClipFit(1.0, 0.0, segment, *[math.nan] * 4))
            return
        chosen = pair
        if self._is_relative and anchor is not before:
            to_anchor = self._pair(frame, anchor)
            if to_anchor is not None and _is_better(to_anchor, pair):
                chosen = to_anchor
            else:
                self._anchor = before
        scale, shift = (chosen.scale, chosen.shift) if self._is_relative else (1.0, 0.0)
        placed = _Placed(frame, scale, shift)
        change, aligned = self._changes(placed, before, pair)
        self._fits.append(ClipFit(scale, shift, self._fits[-1].segment, chosen.residual, pair.share, change, aligned))
        self._before = placed

    def finish(self) -> list[ClipFit]:
        """The fit of each frame, in order."""
        self._settle()
        return self._fits

    def _settle(self) -> None:
        """Scale the segment that ends here, so that its frames keep their labels' scale and shift on the whole."""
        fits = self._fits[self._first :]
        if fits and self._is_relative:
            by = math.exp(-sum(math.log(fit.scale) for fit in fits) / len(fits))
            off = -by * sum(fit.shift for fit in fits) / len(fits)
            self._fits[self._first :] = [fit._replace(scale=by * fit.scale, shift=by * fit.shift + off) for fit in fits]
        self._first = len(self._fits)

    def _pair(self, frame: Frame, other: "_Placed") -> "_Pair | None":
        """How a frame fits to an earlier one; None where there is a cut between them."""
        if frame.shape != other.frame.shape:
            return None
        counted = int(frame.counted_HW.sum())
        own_P, other_P = self._same_spots(frame, other.frame)
        share = len(own_P) / counted if counted else 0.0
        if share < LEAST_SHARE or len(own_P) < 16:
            return None
        line = _fit(own_P, other.of(other_P))
        if line is None and (frame.luma_HW is None or other.frame.luma_HW is None):
            return None
        scale, shift = line or _laid_over(own_P, other.of(other_P), other.scale)
        spread = scale * frame.spread
        off = float(np.median(np.abs(scale * own_P + shift - other.of(other_P))))
        return _Pair(scale, shift, line is not None, off / spread if spread > 0 else 0.0, share, own_P, other_P)

    def _same_spots(self, frame: Frame, other: Frame) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """The labels of both frames where they show the same spot."""
        if frame.luma_HW is None or other.luma_HW is None:
            both_HW = frame.counted_HW & other.counted_HW
            return frame.label_HW[both_HW].astype(np.float64), other.label_HW[both_HW].astype(np.float64)
        found = self._matched(frame, frame.luma_HW, other, other.luma_HW, None)
        if len(found[0]) < LEAST_SHARE * frame.counted_HW.sum():
            whole_2 = _shift_between(frame.luma_HW, other.luma_HW)
            found = max(
                found, self._matched(frame, frame.luma_HW, other, other.luma_HW, whole_2), key=lambda o: len(o[0])
            )
        return found

    def _matched(
        self,
        frame: Frame,
        luma_HW: NDArray[np.uint8],
        other: Frame,
        other_luma_HW: NDArray[np.uint8],
        start_2: NDArray[np.float32] | None,
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """The labels where flow, which is looked for about the shift ``start_2`` of the whole, finds the same spot."""
        height, width = luma_HW.shape
        y_HW, x_HW = np.mgrid[:height, :width].astype(np.float32)
        comes_back_HW = np.ones((height, width), np.bool_)
        if min(height, width) >= LEAST_SIDE:
            flow_HW2 = self._flow_from(luma_HW, other_luma_HW, start_2)
            x_HW, y_HW = x_HW + flow_HW2[..., 0], y_HW + flow_HW2[..., 1]
            back_HW2 = cv2.remap(
                self._flow_from(other_luma_HW, luma_HW, None if start_2 is None else -start_2),
                x_HW,
                y_HW,
                cv2.INTER_LINEAR,
                borderMode=cv2.BORDER_REPLICATE,
            )
            comes_back_HW = np.hypot(*np.moveaxis(flow_HW2 + back_HW2, 2, 0)) <= SAME_PLACE

        def there(map_HW: NDArray[Any], how: int, outside: float) -> NDArray[Any]:
            found: NDArray[Any] = cv2.remap(
                map_HW, x_HW, y_HW, how, borderMode=cv2.BORDER_CONSTANT, borderValue=(outside,)
            )
            return found

        counted_HW = there(other.counted_HW.astype(np.uint8), cv2.INTER_NEAREST, 0).astype(np.bool_) & frame.counted_HW
        counted_HW &= comes_back_HW
        then_HW = there(other_luma_HW.astype(np.float32), cv2.INTER_LINEAR, 0)
        if counted_HW.any():
            brighter_HW = luma_HW - _exposure(luma_HW[counted_HW], then_HW[counted_HW]) * then_HW
            counted_HW &= np.abs(brighter_HW - np.median(brighter_HW[counted_HW])) <= SAME_LEVELS
        label_HW = there(other.label_HW, cv2.INTER_NEAREST, 0)
        return frame.label_HW[counted_HW].astype(np.float64), label_HW[counted_HW].astype(np.float64)

    def _flow_from(
        self, luma_HW: NDArray[np.uint8], other_HW: NDArray[np.uint8], start_2: NDArray[np.float32] | None
    ) -> NDArray[np.float32]:
        """Where each pixel of one photo is in another, less where it is in its own [H,W,2]."""
        if self._flow is None:
            self._flow = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_FAST)
        start_HW2 = None if start_2 is None else np.tile(start_2, (*luma_HW.shape, 1))
        flow_HW2: NDArray[np.float32] = self._flow.calc(luma_HW, other_HW, start_HW2)
        return flow_HW2

    def _changes(self, placed: "_Placed", before: "_Placed", pair: "_Pair") -> tuple[float, float]:
        """The change to the frame before, of the labels as they are, and aligned."""
        if placed.frame.luma_HW is None or before.frame.luma_HW is None:
            return math.nan, math.nan
        spreads = placed.frame.spread, before.frame.spread
        raw = float(np.median(np.abs(pair.own_P - pair.other_P)))
        aligned = float(np.median(np.abs(placed.of(pair.own_P) - before.of(pair.other_P))))
        widths = (sum(spreads) / 2, (placed.scale * spreads[0] + before.scale * spreads[1]) / 2)
        return raw / widths[0] if widths[0] > 0 else 0.0, aligned / widths[1] if widths[1] > 0 else 0.0


@dataclass(frozen=True)
class _Placed:
    """A frame with its scale and shift within the segment, before that is scaled as a whole."""

    frame: Frame
    scale: float
    shift: float

    def of(self, label_P: NDArray[np.float64]) -> NDArray[np.float64]:
        return self.scale * label_P + self.shift


@dataclass(frozen=True)
class _Pair:
    """A frame fitted to an earlier one, by pixels that show the same spot in both: the labels of the two there.
    ``correlates``: these do, so that the fit is one."""

    scale: float
    shift: float
    correlates: bool
    residual: float
    share: float
    own_P: NDArray[np.float64]
    other_P: NDArray[np.float64]


def _shift_between(luma_HW: NDArray[np.uint8], other_HW: NDArray[np.uint8]) -> NDArray[np.float32]:
    """By how much the whole picture has moved in the other one, x and y, by phase correlation."""
    window_HW = cv2.createHanningWindow(luma_HW.shape[::-1], cv2.CV_32F) if min(luma_HW.shape) > 1 else None
    shift, _ = cv2.phaseCorrelate(luma_HW.astype(np.float32), other_HW.astype(np.float32), window_HW)
    return np.array(shift, np.float32)


def _exposure(luma_P: NDArray[Any], other_P: NDArray[Any]) -> float:
    """By what the luma of one photo is multiplied in the other: the ratio of the two interquartile ranges, from 1/2 to
    2; 1 where either has none."""
    widths = [float(np.subtract(*np.percentile(one_P, (75, 25)))) for one_P in (luma_P, other_P)]
    return min(2.0, max(0.5, widths[0] / widths[1])) if min(widths) > 0 else 1.0


def _is_better(to_anchor: _Pair, to_before: _Pair) -> bool:
    """Whether a frame is fitted to the anchor."""
    if to_anchor.correlates != to_before.correlates:
        return to_anchor.correlates
    fits = to_anchor.residual <= ANCHOR_RESIDUAL * to_before.residual
    return fits and to_anchor.share >= ANCHOR_SHARE * to_before.share


def _laid_over(source_P: NDArray[np.float64], target_P: NDArray[np.float64], scale: float) -> tuple[float, float]:
    """Scale and shift that lay the quartiles of one over those of the other; ``scale`` where either has no width."""
    low, middle, high = np.percentile(source_P, (25, 50, 75))
    wanted_low, wanted_middle, wanted_high = np.percentile(target_P, (25, 50, 75))
    if high > low and wanted_high > wanted_low:
        scale = float((wanted_high - wanted_low) / (high - low))
    return scale, float(wanted_middle - scale * middle)


def _fit(source_P: NDArray[np.float64], target_P: NDArray[np.float64]) -> tuple[float, float] | None:
    """Scale and shift, by trimmed squares; None where the two do not vary together."""
    low, high = np.percentile(source_P, (25, 75)), np.percentile(target_P, (25, 75))
    if high[1] <= high[0] or low[1] <= low[0]:
        low, high = (np.array([one.min(), one.max()]) for one in (source_P, target_P))
    if low[1] <= low[0]:
        return None
    scale = float((high[1] - high[0]) / (low[1] - low[0]))
    shift = float(np.median(target_P) - scale * np.median(source_P))
    for _ in range(ROUNDS):
        off_P = np.abs(scale * source_P + shift - target_P)
        kept_P = off_P <= np.quantile(off_P, KEPT)
        source, target = source_P[kept_P], target_P[kept_P]
        across, along = float(source.std()), float(target.std())
        if not (across > 0 and along > 0):
            return None
        together = float(((source - source.mean()) * (target - target.mean())).mean()) / (across * along)
        if together < LEAST_CORRELATION:
            return None
        scale = along / across
        shift = float(target.mean() - scale * source.mean())
    return scale, shift
