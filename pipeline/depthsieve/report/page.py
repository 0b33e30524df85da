"""Parts of a page that opens from disk: one HTML file with its style and pictures inside, no script, no network.

Every function that takes text escapes it; those that take ``html`` say so in the parameter's name.
"""

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

from PIL import Image

from depthsieve.evaluation.metrics import Floats
from depthsieve.images.colours import Rgb

_STYLE = """
:root { color-scheme: light dark; --page: #fff; --text: #1c2024; --soft: #5b6470; --line: #d9dde2; --card: #f4f6f8;
  --method: #b3123f; --oracle: #14795f; --random: #6b7480; }
@media (prefers-color-scheme: dark) { :root { --page: #14171a; --text: #e6e9ec; --soft: #9aa4af; --line: #343b42;
  --card: #1e2328; --method: #ff6f91; --oracle: #53cfa7; --random: #98a2ad; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--page); color: var(--text); font: 16px/1.55 system-ui, sans-serif; }
main { max-width: 1080px; margin: 0 auto; padding: 1.5rem 1rem 4rem; }
h1 { font-size: 1.7rem; line-height: 1.25; margin: .5rem 0; }
h2 { font-size: 1.25rem; margin: 2.5rem 0 .5rem; }
p { max-width: 44rem; margin: .6rem 0; }
.soft, figcaption, th { color: var(--soft); }
code { overflow-wrap: anywhere; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; margin: .8rem 0; font-variant-numeric: tabular-nums; }
th, td { text-align: right; padding: .3rem .9rem .3rem 0; border-bottom: 1px solid var(--line); font-weight: normal;
  vertical-align: bottom; }
th:first-child, td:first-child { text-align: left; }
.cards { display: grid; grid-template-columns: repeat(auto-fit, minmax(11rem, 1fr)); gap: .8rem; margin: 1.2rem 0; }
.card { background: var(--card); border-radius: 8px; padding: .8rem 1rem; font-size: .9rem; line-height: 1.4; }
.card b { display: block; font-size: 1.6rem; line-height: 1.3; }
.plot { max-width: 44rem; margin: 1rem 0; }
.plot svg { display: block; width: 100%; height: auto; }
.plot text { font: 13px system-ui, sans-serif; fill: var(--soft); }
@media (max-width: 40rem) { .plot text { font-size: 21px; } th, td { padding-right: .6rem; } }
.plot .grid { stroke: var(--line); }
.plot polyline { fill: none; stroke-width: 2.5; stroke-linejoin: round; }
.method { stroke: var(--method); } .oracle { stroke: var(--oracle); stroke-dasharray: 7 4; }
.random { stroke: var(--random); stroke-dasharray: 2 4; }
.panels { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(20rem, 45%), 1fr)); gap: .7rem;
  margin: .5rem 0 1.8rem; }
.panels figure { margin: 0; }
.panels img { display: block; width: 100%; height: auto; border-radius: 4px; image-rendering: pixelated; }
.panels img.photo { image-rendering: auto; }
figcaption { font-size: .85rem; line-height: 1.35; margin-top: .25rem; }
h3 { font-size: 1rem; margin: 1.2rem 0 0; overflow-wrap: anywhere; }
.key { display: flex; flex-wrap: wrap; gap: .4rem 1.6rem; align-items: center; font-size: .9rem; margin: .8rem 0; }
.key span { display: inline-flex; gap: .5rem; align-items: center; }
.key img { width: auto; height: 1em; image-rendering: pixelated; border-radius: 2px; }
"""


def page(title: str, body_html: str) -> str:
    """A whole HTML document."""
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n<main>\n{body_html}\n</main>\n"
        "</body>\n</html>\n"
    )


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table whose first column is text and whose others are numbers."""
    top = "".join(f'<th scope="col">{escape(cell)}</th>' for cell in head)
    body = "\n".join("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    return f'<div class="wide"><table>\n<thead><tr>{top}</tr></thead>\n<tbody>\n{body}\n</tbody>\n</table></div>'


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
    """A line of a plot; ``kind`` is ``method``, ``oracle`` or ``random`` and decides how it looks."""

    kind: str
    name: str
    at_S: Floats
    value_S: Floats


def plot(lines: Sequence[Line], x_name: str, y_name: str, marked: float) -> str:
    """Lines over fractions, as inline SVG: x from 0 to the last point in per cent, y from 0, a mark at x = ``marked``.

    A screen reader gets the names of the axes; put the numbers into a table beside it.
    """
    width, height, left, right, top, bottom = 680, 406, 58, 32, 44, 62
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


def _nice_step(top: float) -> float:
    """A round distance between grid lines, for three to seven of them below ``top``."""
    for step in (size * 10.0**power for power in range(-6, 4) for size in (1, 2, 5)):
        if top / step <= 6:
            return step
    return top
