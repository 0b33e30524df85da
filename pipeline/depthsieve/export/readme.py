"""The README of an output folder: what was written, and how to read it."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from depthsieve.core.records import ImageFailure
from depthsieve.core.version import __version__
from depthsieve.export.masked import Masked
from depthsieve.export.protocol import Target
from depthsieve.export.table import find_target
from depthsieve.reliability.fusion import means_errors
from depthsieve.reliability.scale import SCALES

IMPORTED = "imported"
"""The kind of the label specs of maps that were made elsewhere."""

SHOWN = 20
"""Failed images that are named."""


def write_readme(
    target: Target,
    asked: Mapping[str, Any],
    count: int,
    left_out: Mapping[str, int],
    failed: Sequence[ImageFailure],
    masked: Masked | None,
) -> str:
    """The text, in Markdown; ``masked`` is what the mask masks. The same export gives the same bytes."""
    store, about = target.ask.store, target.about()
    row = find_target(asked["target"])
    generations = store.generations()
    teacher = generations[-1].teacher if generations else None
    lines = [
        f"# Depth labels of {_images(count)}, for `{row.name}`",
        "",
        f"{row.summary[:1].upper()}{row.summary[1:]}. Written by depthsieve {__version__}; labels are "
        + (f"predictions of the teacher {code(teacher.name)}" if teacher else f"of kind {store.spec.kind}")
        + f", label spec `{store.fingerprint[:16]}`.",
        "",
        f"- **Files**: {about.layout}",
        f"- **Depth**: {about.depth}",
        f"- **Reliability**: {_reliability(target)}",
        f"- **Invalid pixels**: {about.invalid}",
        f"- **Mask**: {_mask(target, masked)}",
        f"- **Precision**: {about.precision}",
        f"- **Geometry**: {_geometry(target)}",
        f"- **Photos**: {about.photos}",
    ]
    own = {name: asked[name] for name in (option.name for option in row.options)}
    if own:
        lines.append("- **Options**: " + ", ".join(f"{name} {code(str(value))}" for name, value in own.items()))
    for source, note in store.datasets().items():
        terms = f"{code(note.name)}: {code(note.licence)}, {code(note.licence_url)}"
        lines.append(f"- **Licence** of the photos of source {code(source)}, dataset {terms}")
    lines += ["", "## Left out", ""]
    lines += [f"- {_images(number)} of the store: {reason}" for reason, number in left_out.items()]
    if failed:
        lines.append(f"- {_images(len(failed))} could not be exported:")
        lines += [f"  - {code(one.id)}: {code(one.reason)}" for one in failed[:SHOWN]]
        if len(failed) > SHOWN:
            lines.append(f"  - and {len(failed) - SHOWN:,} more")
    if not left_out and not failed:
        lines.append("Nothing.")
    lines += ["", "## Read it", "", "```python", about.code.strip(), "```", ""]
    front = target.front_matter()
    return (f"---\n{front}---\n\n" if front else "") + "\n".join(lines)


def _images(count: int) -> str:
    return f"{count:,} image" if count == 1 else f"{count:,} images"


def _reliability(target: Target) -> str:
    """What codes are, as far as the store knows."""
    if not target.writes_reliability:
        return "not written."
    store = target.ask.store
    spec, zero = store.spec, "0 = never train on it; "
    if store.layer is not None or means_errors(spec.calibration):
        told = ", as the imported maps say" if spec.kind == IMPORTED and store.layer is None else ""
        error = f"expected relative error `{SCALES[store.code_version].formula}`"
        return f"{zero}1..255 = {error}{told}, larger is better. It comes from {store.reliability_from}."
    if not spec.signals:
        why = "the maps were imported without confidence" if spec.kind == IMPORTED else "no signals were computed"
        return f"{zero}all valid pixels have one code, as {why}: it says nothing about their errors."
    what = "made from imported confidence" if spec.kind == IMPORTED else "made from signals that are not calibrated"
    return f"{zero}1..255 order the pixels of an image, larger is better. They are {what}, and are no expected errors."


def _mask(target: Target, masked: Masked | None) -> str:
    if masked is None:
        return "none; only pixels of reliability 0 are invalid."
    return (
        f"of each image the {target.ask.mask:.4g} of its valid pixels that are least reliable (fewer where codes "
        f"tie) are invalid too: {masked.share:.2%} of the valid pixels of all images. {masked.ties}".rstrip()
    )


def _geometry(target: Target) -> str:
    upright = "Maps are upright: the photo's EXIF orientation is undone."
    if not target.upright:
        upright = (
            "Maps have the order of pixels that the file has, EXIF orientation not undone, as this reader sees it."
        )
    if target.ask.resolution == "source":
        return (
            f"{upright} They were resized to the size of the upright photo: depth bilinearly among valid pixels, "
            "invalid where the nearest pixel is; reliability by the nearest pixel."
        )
    size = "the maps that were imported" if target.ask.store.spec.kind == IMPORTED else "the teacher worked"
    return (
        f"{upright} They are as large as {size}; the centre of pixel x lies at "
        "`(x + 0.5) * source_width / width - 0.5` of the upright photo, y likewise."
    )


def code(text: str) -> str:
    """Text that Markdown shows as it is, whatever is in it."""
    text = "".join(one if one.isprintable() else f"\\x{ord(one):02x}" for one in text)
    longest = max((len(run) for run in re.findall("`+", text)), default=0)
    fence = "`" * (longest + 1)
    space = " " if longest else ""
    return f"{fence}{space}{text}{space}{fence}"
