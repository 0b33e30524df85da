"""What curation dropped, step by step, as a report shows it."""

from html import escape

from depthsieve.curation.subset import Dropped
from depthsieve.report.page import bar, shown, wide

EXAMPLES = 25
"""How many dropped images of a step the page names; the gallery has more of them."""


def section(dropped: Dropped, subset: str) -> str:
    """The section of a page about a subset file."""
    total = dropped.kept + len(dropped.step)
    rows, lists = [], []
    for step in dropped.steps():
        rows.append(_row(step.name, step.before, step.dropped, step.after, total))
        ids = [image_id for image_id, name in dropped.step.items() if name == step.name]
        items = "".join(
            f"<li><code>{escape(shown(one))}</code>: {escape(shown(dropped.reason[one]))}</li>\n"
            for one in ids[:EXAMPLES]
        )
        more = (
            f'<p class="soft">{len(ids) - EXAMPLES:,} more are in the subset file.</p>' if len(ids) > EXAMPLES else ""
        )
        lists.append(
            f"<details><summary>{escape(shown(step.name))}: {len(ids):,} dropped</summary>\n"
            f'<ul class="ids">{items}</ul>'
            f"{more}</details>"
        )
    rows.append(_row("kept", dropped.kept, 0, dropped.kept, total))
    steps = f"""<table>
<thead><tr><th scope="col">step</th><th scope="col">in</th><th scope="col">dropped</th><th scope="col">out</th>
<th scope="col"><span class="hidden">share that is left</span></th></tr></thead>
<tbody>
{"".join(rows)}</tbody>
</table>"""
    return f"""<section aria-labelledby="funnel-title">
<h2 id="funnel-title">What curation keeps</h2>
<p class="soft">{dropped.kept:,} of {total:,} images are kept by <code>{escape(shown(subset))}</code>. Steps that
dropped nothing are not listed. Masks at the scope of the dataset are those of the kept images.</p>
{wide("Steps of curation", steps)}
{"".join(lists)}
</section>"""


def _row(name: str, before: int, gone: int, after: int, total: int) -> str:
    lost = f"{gone:,}" if gone else ""
    return (
        f"<tr><td>{escape(shown(name))}</td><td>{before:,}</td><td>{lost}</td><td>{after:,}</td>"
        f"<td>{bar(after / max(total, 1))}</td></tr>\n"
    )
