"""Parts of a page that opens from disk, without a network.

Every function that takes text escapes it; those that take ``html`` say so in the parameter's name.
"""

import base64
import io
import re
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

from PIL import Image

from depthsieve.evaluation.metrics import Floats
from depthsieve.images.colours import Rgb

WEB = Path(__file__).parent / "web"
"""Styles and scripts of pages, as they are shipped."""


def page(title: str, body_html: str) -> str:
    """A whole HTML document, its style inside."""
    style = (WEB / "page.css").read_text(encoding="utf-8")
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>\n{style}</style>\n</head>\n<body>\n<main>\n{body_html}\n</main>\n"
        "</body>\n</html>\n"
    )


def percent(share: float) -> str:
    """A share as people read it."""
    if 0 < share < 0.001:
        return "under 0.1%"
    return f"{share:.1%}" if share < 0.995 or share == 1 else f"{share:.2%}"


def shown(text: str) -> str:
    """Text of a file name as it can be shown: what would break the line or turn its direction is spelt out."""
    return _UNSEEN.sub(lambda found: _SPELT.get(found[0], f"\\u{ord(found[0]):04x}"), text)


_SPELT = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}
_UNSEEN = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u2064\u2066-\u2069\ufeff]")


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table whose first column is text and whose others are numbers."""
    top = "".join(f'<th scope="col">{escape(cell)}</th>' for cell in head)
    body = "\n".join("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    return wide(
        " and ".join(filter(None, head)),
        f"<table>\n<thead><tr>{top}</tr></thead>\n<tbody>\n{body}\n</tbody>\n</table>",
    )


def wide(name: str, table_html: str) -> str:
    """What scrolls sideways where the window is narrower, by keyboard too; ``name`` is told to a screen reader."""
    return f'<div class="wide" tabindex="0" role="group" aria-label="{escape(name)}">{table_html}</div>'


def cards(numbers: Sequence[tuple[str, str]]) -> str:
    """Large numbers, each with its meaning."""
    items = "".join(f'<div class="card"><b>{escape(number)}</b>{escape(text)}</div>' for number, text in numbers)
    return f'<div class="cards">{items}</div>'


def image(rgb_HW3: Rgb, text: str, photo: bool = False) -> str:
    """A picture inside the page, with ``text`` as its alternative. Pixels stay sharp, except in photos."""
    file = io.BytesIO()
    Image.fromarray(rgb_HW3).save(file, "PNG", optimize=True)
    data = base64.b64encode(file.getvalue()).decode()
    height, width = rgb_HW3.shape[:2]
    kind = ' class="photo"' if photo else ""
    return f'<img{kind} src="data:image/png;base64,{data}" width="{width}" height="{height}" alt="{escape(text)}">'


def panels(title: str, shown: Sequence[tuple[str, Rgb]]) -> str:
    """Pictures side by side under a title, each with its caption; the first one is taken for a photograph."""
    figures = "".join(
        f"<figure>{image(rgb_HW3, f'{caption}: {title}', photo=not number)}"
        f"<figcaption>{escape(caption)}</figcaption></figure>"
        for number, (caption, rgb_HW3) in enumerate(shown)
    )
    return f'<h3>{escape(title)}</h3>\n<div class="panels">{figures}</div>'


@dataclass(frozen=True)
class Line:
    """A line of a plot; ``kind`` is ``method``, ``other``, ``oracle`` or ``random`` and decides how it looks."""

    kind: str
    name: str
    at_S: Floats
    value_S: Floats


def plot(lines: Sequence[Line], x_name: str, y_name: str, marked: float) -> str:
    """Lines over fractions, as inline SVG: x from 0 to the last point in per cent, y from 0, a mark at x = ``marked``.

    A screen reader gets the names of the axes; put the numbers into a table beside it.
    """
    width, height, left, right, top, bottom = 680, 406, 72, 32, 44, 62
    x_end = max(float(line.at_S[-1]) for line in lines)
    step = _nice_step(max(float(line.value_S.max()) for line in lines))
    rows = int(max(float(line.value_S.max()) for line in lines) / step) + 1

    def x(fraction: float) -> float:
        return left + (width - left - right) * fraction / x_end

    def y(value: float) -> float:
        return height - bottom - (height - top - bottom) * value / (rows * step)

    parts = []
    for row in range(rows + 1):
        parts.append(
            f'<line class="grid" x1="{left}" x2="{width - right}" y1="{y(row * step):.1f}" y2="{y(row * step):.1f}"/>'
        )
        parts.append(f'<text x="{left - 8}" y="{y(row * step) + 4:.1f}" text-anchor="end">{row * step:.3g}</text>')
    for tenth in range(round(x_end * 10) + 1):
        parts.append(
            f'<text x="{x(tenth / 10):.1f}" y="{height - bottom + 24}" text-anchor="middle">{tenth * 10}%</text>'
        )
    parts.append(f'<line class="grid" x1="{x(marked):.1f}" x2="{x(marked):.1f}" y1="{top}" y2="{height - bottom}"/>')
    middle = left + (width - left - right) / 2
    parts.append(f'<text x="{middle:.1f}" y="{height - 8}" text-anchor="middle">{escape(x_name)}</text>')
    parts.append(f'<text x="0" y="18">{escape(y_name)}</text>')
    for number, line in enumerate(lines):
        points = " ".join(f"{x(at):.1f},{y(value):.1f}" for at, value in zip(line.at_S, line.value_S, strict=True))
        parts.append(f'<polyline class="{escape(line.kind)}" points="{points}"/>')
        at = left + 14
        row_y = y(0) - 16 - 26 * (len(lines) - 1 - number)
        parts.append(f'<polyline class="{escape(line.kind)}" points="{at},{row_y} {at + 34},{row_y}"/>')
        parts.append(f'<text x="{at + 42}" y="{row_y + 5:.1f}">{escape(line.name)}</text>')
    label = escape(f"{y_name} over {x_name}")
    return (
        f'<figure class="plot"><svg viewBox="0 0 {width} {height}" role="img" aria-label="{label}">'
        + "".join(parts)
        + "</svg></figure>"
    )


def histogram(counts: Sequence[int], low: str, high: str, label: str) -> str:
    """Bars of equal width as inline SVG, between the values at the ends; ``label`` is told to a screen reader."""
    width, height, most = 300, 72, max([*counts, 1])
    step = width / max(len(counts), 1)
    bars = "".join(
        f'<rect x="{place * step:.2f}" y="{height - height * count / most:.2f}" width="{step * 0.86:.2f}" '
        f'height="{height * count / most:.2f}"/>'
        for place, count in enumerate(counts)
        if count
    )
    return (
        f'<svg class="bars" viewBox="0 0 {width} {height}" preserveAspectRatio="none" role="img" '
        f'aria-label="{escape(label)}">{bars}</svg>'
        f'<div class="ends"><span>{escape(low)}</span><span>{escape(high)}</span></div>'
    )


def bar(share: float) -> str:
    """A bar of a share 0..1 beside a number that says the same."""
    return (
        '<svg class="share" viewBox="0 0 100 8" preserveAspectRatio="none" aria-hidden="true">'
        f'<rect class="track" width="100" height="8"/><rect width="{100 * share:.2f}" height="8"/></svg>'
    )


def _nice_step(top: float) -> float:
    """A round distance between grid lines, for three to seven of them below ``top``."""
    for step in (size * 10.0**power for power in range(-6, 4) for size in (1, 2, 5)):
        if top / step <= 6:
            return step
    return top
