"""The page that ends the demo: what was done, the numbers, and some scenes to look at. Axes: H row, W column."""

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from depthsieve.demo.settings import DemoSettings
from depthsieve.evaluation.metrics import Floats, KeptError, Sparsification
from depthsieve.images import colours
from depthsieve.images.panels import Panels, with_common_codes
from depthsieve.report.page import Line, cards, image, page, panels, plot, table


@dataclass(frozen=True)
class Accuracy:
    """Of depth against exact depth: AbsRel as mean and median over ``scenes``, and the mean share of pixels off by less
    than a factor of 1.25."""

    scenes: int
    abs_rel: float
    abs_rel_median: float
    delta1: float


@dataclass(frozen=True)
class StudentScore:
    """The student's mean loss over its first and its last ten steps, and accuracies on scenes it did not learn from."""

    loss_start: float
    loss_end: float
    constant: Accuracy
    student: Accuracy
    teacher: Accuracy


@dataclass(frozen=True)
class DemoResult:
    """What the demo measured, and where its page is. ``reliability`` says what that comes from; ``masked`` is the share
    of the valid pixels that the mask of ``drop`` really left out, ``better_than_chance`` the share of scenes whose
    reliability beats chance, ``samples`` the ids on page and contact sheet."""

    page: Path
    sheet: Path
    store: Path
    reliability: str
    settings: DemoSettings
    drop: float
    masked: float
    labels: Accuracy
    kept: tuple[KeptError, ...]
    ause: float
    aurg: float
    better_than_chance: float
    student: StudentScore
    samples: tuple[str, ...]
    seconds: float


@dataclass(frozen=True)
class SceneMaps:
    """A scene's exact depth, its label brought to the same metres, and the relative error (NaN where none counts)."""

    abs_rel: float
    truth_HW: NDArray[np.float32]
    predicted_HW: Floats
    error_HW: Floats


def number(value: float) -> str:
    """An error or a score as page and terminal show it."""
    return f"{value:.3f}"


def percent(share: float) -> str:
    """A share as page and terminal show it."""
    return f"{share:.1%}"


def error_at_drop(result: DemoResult) -> KeptError:
    """The row of :attr:`DemoResult.kept` for the demo's own drop."""
    return next(row for row in result.kept if row.dropped == result.drop)


def label_rows(result: DemoResult) -> list[list[str]]:
    """A row for each drop: what of the error is left, by three orders. The first row says whose columns these are."""
    rows = [["pixels dropped", "least reliable first", "at random", "largest error first"]]
    rows += [[f"{r.dropped:.0%}", number(r.method), number(r.random), number(r.oracle)] for r in result.kept]
    return rows


def student_rows(result: DemoResult) -> list[list[str]]:
    """A row for each predictor on the held-out scenes, under a first row that names the columns."""
    score = result.student
    named = [
        ("the same depth everywhere", score.constant),
        ("student", score.student),
        (f"teacher ({result.settings.teacher})", score.teacher),
    ]
    rows = [["on held-out scenes", "AbsRel, mean", "AbsRel, median", "delta1"]]
    rows += [[name, number(a.abs_rel), number(a.abs_rel_median), percent(a.delta1)] for name, a in named]
    return rows


def write_page(result: DemoResult, curve: Sparsification, samples: Sequence[tuple[Panels, SceneMaps]]) -> None:
    """Write ``result.page``: one file, everything inside."""
    body = "\n".join([_opening(result), _reliability(result, curve), _student(result), _gallery(result, samples)])
    result.page.write_text(page("depthsieve demo", body), encoding="utf-8")


def _opening(result: DemoResult) -> str:
    kept = error_at_drop(result)
    return f"""<h1>Pseudo-labels, and how far to trust them</h1>
<p>depthsieve rendered {
        result.settings.scenes
    } scenes and let a teacher guess their depth from the picture alone. Their exact
depth is known, so this page can say how wrong the labels are, and whether depthsieve knew.</p>
<p>Reliability comes from {
        escape(result.reliability)
    }. It says which error to expect at each pixel, as was learnt from exact depth
of other scenes; that of these is not used.</p>
{
        cards(
            [
                (
                    number(result.labels.abs_rel),
                    "AbsRel of the labels: the mean error of a pixel, relative to its depth",
                ),
                (
                    number(kept.method),
                    f"AbsRel of what is left without the least reliable {result.drop:.0%} of the pixels",
                ),
                (percent(result.labels.delta1), "delta1: pixels off by less than a factor of 1.25"),
                (percent(result.better_than_chance), "of the scenes: reliability finds errors better than chance"),
            ]
        )
    }
<p class="soft">{result.labels.scenes} scenes with something nearer than 80 m; farther pixels and sky do not count. Each
label is first brought to metres by the scale and the shift that fit it best, as is usual for labels that have neither.
Teacher: {escape(result.settings.teacher)}. It has not seen these scenes.</p>"""


def _reliability(result: DemoResult, curve: Sparsification) -> str:
    shown = curve.dropped_S <= result.kept[-1].dropped + 1e-9
    lines = [
        Line(kind, name, curve.dropped_S[shown], values_S[shown])
        for kind, name, values_S in (
            ("random", "pixels dropped at random", curve.random_S),
            ("method", "least reliable pixels dropped first", curve.method_S),
            ("oracle", "largest errors dropped first (the limit)", curve.oracle_S),
        )
    ]
    head, *rows = label_rows(result)
    return f"""<h2>Does the error fall as doubtful pixels go?</h2>
{plot(lines, "pixels dropped", "AbsRel of the pixels that are kept", result.drop)}
{table(head, rows)}
<p class="soft">Means over scenes. The limit needs the exact depth, so no reliability can reach it. Area between method
and limit (AUSE): {result.ause:.4f}. Area won over chance (AURG): {result.aurg:.4f}; above 0 beats chance.</p>"""


def _student(result: DemoResult) -> str:
    head, *rows = student_rows(result)
    score, settings = result.student, result.settings
    return f"""<h2>A student trained on the labels</h2>
<p>A small network, begun from nothing, saw the labels of {settings.scenes - settings.held_out} scenes for
{settings.steps} steps, and never their exact depth. The mask left out {percent(result.masked)} of the pixels, the least
reliable of each picture; of the rest the trim skipped the {result.drop:.0%} with the largest loss in each step. Its
loss went from {number(score.loss_start)} to {number(score.loss_end)}. On scenes that it did not learn from:</p>
{table(head, rows)}
<p class="soft">A student this small, trained this briefly, shows that the parts work together. It is not a depth
model to use.</p>"""


def _gallery(result: DemoResult, samples: Sequence[tuple[Panels, SceneMaps]]) -> str:
    labels = with_common_codes([label for label, _ in samples])
    low, high = labels[0].codes
    parts = [
        "<h2>Scenes to look at</h2>",
        "<p>Taken at even distances from the best label to the worst.</p>",
        f'<div class="key">{_key("far", colours.SPECTRAL_256, "near")}'
        f"{_key(f'doubtful (code {low:.0f})', colours.VIRIDIS_256, f'reliable (code {high:.0f})')}"
        f"{_key('no error', colours.MAGMA_256, f'{colours.ERROR_TOP:.0%} and more')}"
        f"<span>{image(np.full((4, 8, 3), colours.TINT, np.uint8), '')}masked</span>"
        f"<span>{image(colours.with_checks(np.zeros((4, 8, 3), np.uint8), np.zeros((4, 8), np.bool_)), '')}"
        "sky, or no label</span></div>",
    ]
    for label, (_, maps) in zip(labels, samples, strict=True):
        with np.errstate(divide="ignore"):
            disparity_HW, truth_HW = 1 / maps.predicted_HW, 1 / maps.truth_HW
        span = colours.span_of(disparity_HW)
        pictures = [
            ("picture", label.image_HW3),
            ("depth: the label", label.depth_HW3),
            ("depth: exact", colours.depth_colours(truth_HW, span=span)),
            ("reliability", label.reliability_HW3),
            (f"mask: {percent(label.masked)} left out", label.mask_HW3),
            ("relative error of the label", colours.error_colours(maps.error_HW)),
        ]
        parts.append(panels(f"{label.id}: AbsRel {number(maps.abs_rel)}", pictures))
    parts.append(
        f'<p class="soft">The labels are in the store <code>{escape(str(result.store))}</code>, the same pictures on '
        f"one sheet in <code>{escape(result.sheet.name)}</code>. Depth and exact depth share their colours: equal "
        "colour, equal distance.</p>"
    )
    return "\n".join(parts)


def _key(low: str, table_256: colours.Rgb, high: str) -> str:
    """A colour scale with what its ends mean."""
    return f"<span>{escape(low)}{image(np.repeat(table_256[None, ::8], 4, axis=0), '')}{escape(high)}</span>"
