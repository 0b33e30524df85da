"""The part of a report that needs no script: what was labelled, by what and under which terms, and how good it is."""

from collections.abc import Mapping
from dataclasses import dataclass
from html import escape
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from depthsieve.core.version import __version__
from depthsieve.reliability.masking import masked_share, threshold_code
from depthsieve.report.figures import BINS, Reason, Spread, expected_error, licence, masked_at
from depthsieve.report.folder import MADE_BY
from depthsieve.report.page import cards, histogram, percent, shown, table, wide
from depthsieve.store import Store

REASONS = 20
"""How many reasons of failed images are listed."""

POLICY = (
    "default-src 'none'; script-src 'self' file:; style-src 'self' file:; img-src 'self' file: data:; "
    "base-uri 'none'; form-action 'none'"
)
"""What the page may load: what lies beside it, and nothing from a network."""


@dataclass(frozen=True)
class Facts:
    """What a report says of a store. ``states`` counts all images by status, ``labelled`` and ``shown`` those with a
    label and those in the gallery, which was chosen from
    ``chosen_from``; ``histogram_K`` is that of the dataset; ``speed`` is in images a second."""

    store: Store
    states: Mapping[str, int]
    labelled: int
    chosen_from: int
    shown: int
    drop: float
    histogram_K: NDArray[np.int64]
    failures: tuple[Reason, ...]
    spreads: tuple[Spread, ...]
    speed: float | None
    sections: tuple[str, ...] = ()
    """What else the page has, as HTML."""

    @property
    def without_reliability(self) -> bool:
        """Whether the labels came from elsewhere, without reliability: all valid pixels have the highest code."""
        return self.store.layer is None and self.store.spec.calibration == "none" and not self.histogram_K[1:255].any()

    @property
    def failed(self) -> int:
        """Images without a label because they failed or were refused."""
        return self.states.get("failed", 0) + self.states.get("rejected", 0)


def page_of(facts: Facts, files: str) -> str:
    """The whole page. ``files`` is the folder beside it that has its style, script and pictures."""
    name = shown(Path(facts.store.location).name or facts.store.location)
    sections = [
        _head(facts, name),
        _gallery(facts),
        *facts.sections,
        _quality(facts),
        _failures(facts),
        _signals(facts),
        _origin(facts),
    ]
    body = "\n".join(section for section in sections if section)
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{escape(POLICY)}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="referrer" content="no-referrer">
{MADE_BY}
<title>{escape(name)}: depthsieve report</title>
<link rel="stylesheet" href="{files}/report.css">
<script src="{files}/report.js" data-files="{files}" defer></script>
<script src="{files}/gallery.js" defer></script>
</head>
<body>
<a class="skip" href="#gallery">Skip to the gallery</a>
<main>
{body}
</main>
<footer class="soft">Written by depthsieve {escape(__version__)}. Nothing here is loaded from a network.</footer>
</body>
</html>
"""


def number(value: float) -> str:
    """A number to three digits, large ones whole."""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def _head(facts: Facts, name: str) -> str:
    code = threshold_code(facts.histogram_K, facts.drop)
    valid = int(facts.histogram_K[1:].sum())
    pixels = int(facts.histogram_K.sum())
    median = int(np.searchsorted(np.cumsum(facts.histogram_K[1:]), valid / 2)) + 1 if valid else 255
    numbers = [
        (f"{facts.labelled:,}", "images with a label"),
        (f"{facts.failed:,}", "failed; their reasons are below") if facts.failed else ("0", "failed"),
    ]
    if not facts.without_reliability:
        numbers += [
            (
                expected_error(facts.store, median),
                f"expected relative error of the median pixel (code {median} of 255)",
            ),
            (
                percent(masked_share(facts.histogram_K, code)),
                f"of the valid pixels masked at drop {facts.drop:g} over the dataset (codes under {code})",
            ),
        ]
    if facts.states.get("pending"):
        numbers.insert(1, (f"{facts.states['pending']:,}", "still to be labelled"))
    if pixels > valid:
        numbers.append((percent(valid / pixels), "of the pixels have a label"))
    if facts.speed is not None:
        numbers.append((f"{facts.speed:.3g}", "images a second while it was labelled, by the times of its files"))
    return f"""<header>
<h1>{escape(name)}</h1>
<p class="lead">{_quantity(facts.store)}, {_made(facts.store)}. <span class="soft">{
        escape(shown(facts.store.location))
    }</span></p>
</header>
{cards(numbers)}"""


def _quantity(store: Store) -> str:
    return "Depth in metres" if store.spec.quantity == "depth" else "Relative inverse depth"


def _made(store: Store) -> str:
    """Who or what made the labels, as HTML."""
    generations = store.generations()
    teacher = generations[-1].teacher if generations else None
    names = [teacher.name] if teacher else list(generations[-1].parents if generations else ())
    verb = "labelled by" if teacher else f"{store.spec.kind} from"
    return f"{verb} {' and '.join(f'<b>{escape(shown(name))}</b>' for name in names) or 'elsewhere'}"


def _gallery(facts: Facts) -> str:
    whole = "labelled images" if facts.chosen_from == facts.labelled else "images that both stores have"
    of = (
        f"All {facts.shown:,} {whole}."
        if facts.shown == facts.chosen_from
        else f"{facts.shown:,} of {facts.chosen_from:,} {whole}: those at both ends of every number that you can sort "
        "by, and others at random. Figures outside of the gallery are of all images."
    )
    return f"""<section id="gallery" aria-labelledby="gallery-title" tabindex="-1">
<h2 id="gallery-title">Gallery</h2>
<p class="soft">{of} Open one to see its depth, its reliability, and what a mask leaves out.</p>
<noscript><p>The gallery needs JavaScript; the figures below do not.</p></noscript>
<div id="app"></div>
</section>"""


def _quality(facts: Facts) -> str:
    if facts.without_reliability:
        return """<section aria-labelledby="quality-title">
<h2 id="quality-title">What a mask leaves out</h2>
<p>Nothing: these labels came without reliability, so every valid pixel has code 255. Import them with confidence maps,
or train on them unmasked.</p>
</section>"""
    rows = [
        [f"{row.drop:.0%}", f"{row.code}", expected_error(facts.store, row.code), percent(row.share)]
        for row in masked_at(facts.histogram_K)
    ]
    codes = np.flatnonzero(facts.histogram_K[1:]) + 1
    bars = ""
    if len(codes):
        low, high = int(codes[0]), int(codes[-1])
        left, right = (f"code {code}: error {expected_error(facts.store, code)}" for code in (low, high))
        text = f"Pixels by reliability code, from {low} to {high}"
        bars = (
            '<figure class="codes"><figcaption>All valid pixels by reliability code: better to the right</figcaption>'
            f"{histogram(facts.histogram_K[low : high + 1].tolist(), left, right, text)}</figure>"
        )
    return f"""<section aria-labelledby="quality-title">
<h2 id="quality-title">What a mask leaves out</h2>
<p class="soft">Over the dataset, as a loader with <code>scope="dataset"</code> masks: pixels under the threshold code.
The error is what that code expects, relative to depth. Codes tie, so that what is masked can be less than was asked
for.</p>
{table(["drop", "threshold code", "expected error there", "masked"], rows)}
{bars}
</section>"""


def _failures(facts: Facts) -> str:
    if not facts.failures:
        return ""
    listed = "".join(
        f"<tr><td>{escape(shown(one.reason))}</td><td>{escape(one.status)}</td><td>{one.images:,}</td>"
        f"<td><code>{escape(shown(one.example))}</code></td></tr>\n"
        for one in facts.failures[:REASONS]
    )
    left = facts.failures[REASONS:]
    more = f"<p>{len(left):,} more reasons, of {sum(one.images for one in left):,} images.</p>" if left else ""
    reasons = f"""<table class="texts">
<thead><tr><th scope="col">reason</th><th scope="col">status</th><th scope="col">images</th><th scope="col">the first
</th></tr></thead>
<tbody>
{listed}</tbody>
</table>"""
    return f"""<section aria-labelledby="failures-title">
<h2 id="failures-title">Images without a label</h2>
<p class="soft">{facts.failed:,} in all. <code>depthsieve label --retry-failed</code> tries them again.</p>
{wide("Images without a label, by reason", reasons)}
{more}
</section>"""


def _signals(facts: Facts) -> str:
    figures = "".join(
        f"<figure><figcaption><b>{escape(one.name)}</b> {escape(one.about)}"
        f"{'' if one.known == facts.labelled else f' ({one.known:,} images have it)'}</figcaption>"
        f"{histogram(one.counts, number(one.low), number(one.high), _told(one))}</figure>\n"
        for one in facts.spreads
    )
    lacking = (
        ""
        if any(one.name == "sharpness" for one in facts.spreads)
        else ('<p class="soft">Signals of the images are not known; <code>depthsieve features</code> adds them.</p>')
    )
    return f"""<section aria-labelledby="signals-title">
<h2 id="signals-title">Images and labels in numbers</h2>
<p class="soft">All {facts.labelled:,} labelled images, in {BINS} bins; half a per cent at either end
is in the outermost bin.</p>
{lacking}<div class="spreads">
{figures}</div>
</section>"""


def _told(one: Spread) -> str:
    return (
        f"{one.name} of {one.known:,} images, from {number(one.low)} to {number(one.high)}, median {number(one.median)}"
    )


def _origin(facts: Facts) -> str:
    store = facts.store
    spec, generations = store.spec, store.generations()
    teacher = generations[-1].teacher if generations else None
    profile = generations[-1].profile if generations else None
    rows = [(f"{spec.kind} from", parent) for parent in (generations[-1].parents if generations else ())]
    for one in (teacher, teacher.second if teacher else None):
        if one is not None:
            rows.append(("teacher", f"{one.name}, revision {one.revision}" if one.revision else one.name))
            rows.append(("licence of its weights", licence(one)))
    if teacher is not None:
        rows += [("weights", f"sha256 {spec.weights_digest[:16]}…"), ("computed in", spec.dtype)]
    rows.append(("reliability from", store.reliability_from))
    if profile is not None:
        rows.append(("device", f"{profile.device_model} ({profile.device_kind})"))
    for name, root in store.sources().items():
        rows.append((f"source {name}", root))
    rows += [("label spec", store.fingerprint), ("snapshot", store.snapshot())]
    told = "".join(f"<dt>{escape(shown(name))}</dt><dd>{escape(shown(text))}</dd>\n" for name, text in rows)
    terms = "".join(
        f"<dt>source {escape(shown(name))}: {escape(note.name)}</dt><dd>{escape(note.licence)}: commercial use: "
        f"{escape(note.commercial_use)}; labels may be passed on: {escape(note.share_labels)}; name the source: "
        f"{escape(note.attribution)}. {escape(note.consequences)} "
        f'<span class="soft">{escape(note.licence_url)}</span></dd>\n'
        for name, note in store.datasets().items()
    )
    unknown = [name for name in store.sources() if name not in store.datasets()]
    if unknown:
        terms += (
            f"<dt>source {escape(shown(', '.join(unknown)))}</dt><dd>The store does not know the terms of these "
            "images. Labels made from a data set's recipe (<code>depthsieve datasets</code>) carry them.</dd>\n"
        )
    return f"""<section aria-labelledby="origin-title">
<h2 id="origin-title">Where the labels come from</h2>
<dl>
{told}</dl>
<h3>Terms of the images</h3>
<dl>
{terms}</dl>
</section>"""
