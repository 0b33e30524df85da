"""What `depthsieve evaluate` found, as a report shows it: accuracy, and how the error falls as doubtful pixels go.

Axes: S step of a sparsification curve.
"""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from depthsieve.core.errors import UsageError
from depthsieve.evaluation.metrics.knee import MAX_DROP
from depthsieve.evaluation.writing import FILES
from depthsieve.report.page import Line, plot, shown, table
from depthsieve.storage import expand

SCORES = {
    "abs_rel": "AbsRel against ground truth: mean error of a pixel relative to its depth",
    "delta1": "share of the pixels off by less than a factor of 1.25 against ground truth",
    "aurg_abs_rel": "what reliability wins over chance in AbsRel (AURG); above 0 beats chance",
}
"""The numbers of single images that a gallery sorts by."""

MEANS = {
    "abs_rel": "AbsRel",
    "rmse": "RMSE, metres",
    "delta1": "delta1",
    "boundary_f1": "boundary F1 (1 is best)",
    "ause_abs_rel": "AUSE of AbsRel (0 is best)",
    "aurg_abs_rel": "AURG of AbsRel (above 0 beats chance)",
    "label_error": "label error (in the label's units, as reliability predicts it)",
    "ause_label_error": "AUSE of the label error",
    "aurg_label_error": "AURG of the label error",
    "spearman": "Spearman, reliability and error (-1 is best)",
}


KEPT = {"abs_rel": "AbsRel", "label_error": "label error"}
"""The errors whose fall is shown as a table."""

_LEFT_AT = 0.10


@dataclass(frozen=True)
class Judged:
    """An evaluation of the labels of one store. ``scores`` has the numbers of :data:`SCORES` of each compared image,
    NaN where undefined; ``curve`` the sparsification curves of AbsRel [S] by their names in the file; ``kept`` what is
    left of the errors of :data:`KEPT` after some drops; ``drop`` is what the curve suggests, None where nothing stands
    out."""

    ground_truth: str
    means: Mapping[str, float]
    scores: Mapping[str, Mapping[str, float]]
    curve: Mapping[str, NDArray[np.float64]]
    kept: Mapping[str, Sequence[Mapping[str, float]]]
    better_than_chance: float
    drop: float | None
    notes: Sequence[str]


def read_judged(place: str | Path) -> Judged:
    """The result that `depthsieve evaluate -o` wrote: its folder, or ``evaluation.json``.

    Raises :class:`UsageError` where it is not there or is no such file.
    """
    path = Path(expand(place))
    path = path / FILES[0] if path.is_dir() else path
    try:
        body = json.loads(path.read_bytes())
        curve = body["curves"]["abs_rel"]
        return Judged(
            ground_truth=str(body["ground_truth"]),
            means={name: _number(body["mean"][name]) for name in MEANS},
            scores={one["id"]: {name: _number(one[name]) for name in SCORES} for one in body["images"]},
            curve={
                name: np.array(curve[name], np.float64) for name in ("dropped_S", "method_S", "oracle_S", "random_S")
            },
            kept={
                error: [{name: float(row[name]) for name in ("dropped", "method", "random", "oracle")} for row in rows]
                for error, rows in body["kept"].items()
                if error in KEPT
            },
            better_than_chance=_number(body["better_than_chance"]),
            drop=body["knee"]["drop"],
            notes=[str(note["text"]) for note in body["notes"]],
        )
    except FileNotFoundError as error:
        raise UsageError(f"there is no {path}; `depthsieve evaluate STORE -o DIR` writes one: name its DIR") from error
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UsageError(f"{path} is no result of `depthsieve evaluate STORE -o DIR` ({_why(error)})") from error


def _why(error: Exception) -> str:
    return f"it has no {error}" if isinstance(error, KeyError) else str(error)


def _number(value: Any) -> float:
    return math.nan if value is None else float(value)


def section(judged: Sequence[tuple[str, Judged]], drop: float) -> str:
    """The section of a page about the evaluations of one store or two, by their names. A mark stands at ``drop``."""
    name, first = judged[0]
    kinds = ("method", "other")
    lines = [
        _line(
            "random", "pixels dropped at random" + (f": {shown(name)}" if len(judged) > 1 else ""), first, "random_S"
        ),
        *(
            _line(
                kind, "least reliable pixels first" + (f": {shown(whose)}" if len(judged) > 1 else ""), one, "method_S"
            )
            for kind, (whose, one) in zip(kinds, judged, strict=False)
        ),
        _line(
            "oracle",
            "largest errors first (the limit)" + (f": {shown(name)}" if len(judged) > 1 else ""),
            first,
            "oracle_S",
        ),
    ]
    names = [shown(whose) for whose, _ in judged] if len(judged) > 1 else ["mean"]
    means = [[text, *(_shown(one.means[key]) for _, one in judged)] for key, text in MEANS.items()]
    means.append(["images where reliability beats chance", *(f"{one.better_than_chance:.0%}" for _, one in judged)])
    means.append(["images compared", *(f"{len(one.scores):,}" for _, one in judged)])
    means.append(
        ["drop that the curve suggests", *("none" if one.drop is None else f"{one.drop:.2f}" for _, one in judged)]
    )
    means += [
        [f"{text} left after dropping {_LEFT_AT:.0%} (the limit)", *(_left(one, error) for _, one in judged)]
        for error, text in KEPT.items()
    ]
    reliable = [f"least reliable first: {one}" for one in names] if len(judged) > 1 else ["least reliable first"]
    kept = "".join(
        table([f"{text} after dropping", *reliable, "at random", "largest error first"], _kept_rows(judged, error))
        for error, text in KEPT.items()
        if all(error in one.kept for _, one in judged)
    )
    notes = "".join(
        f"<li>{escape(shown(whose))}: {escape(shown(note))}</li>" for whose, one in judged for note in one.notes
    )
    return f"""<section aria-labelledby="truth-title">
<h2 id="truth-title">Against ground truth</h2>
<p class="soft">By <code>depthsieve evaluate</code>, with {escape(shown(first.ground_truth))}. Numbers of single images
are among those that the gallery sorts by.</p>
{f'<ul class="soft">{notes}</ul>' if notes else ""}
{table(["over images", *names], means)}
<h3>Does the error fall as doubtful pixels go?</h3>
{plot(lines, "pixels dropped", "AbsRel of the pixels that are kept", drop)}
{kept}
</section>"""


def _kept_rows(judged: Sequence[tuple[str, Judged]], error: str) -> list[list[str]]:
    return [
        [
            f"{row['dropped']:.0%}",
            *(_shown(one.kept[error][number]["method"]) for _, one in judged),
            _shown(row["random"]),
            _shown(row["oracle"]),
        ]
        for number, row in enumerate(judged[0][1].kept[error])
    ]


def _left(one: Judged, error: str) -> str:
    """The share of an error that the least reliable pixels leave, and the least that any could."""
    row = next((row for row in one.kept.get(error, ()) if row["dropped"] == _LEFT_AT), None)
    if row is None or not row["random"] > 0:
        return "-"
    return f"{row['method'] / row['random']:.1%} ({row['oracle'] / row['random']:.1%})"


def _line(kind: str, name: str, one: Judged, curve: str) -> Line:
    early = one.curve["dropped_S"] <= MAX_DROP + 1e-9
    return Line(kind, name, one.curve["dropped_S"][early], one.curve[curve][early])


def _shown(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.4f}"
