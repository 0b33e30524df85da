"""What a person should know of images that were labelled, counted over a run."""

from collections.abc import Iterable, Mapping

from depthsieve.core.cameras import APART

Remarks = tuple[tuple[str, int, str], ...]
"""(kind, how many images, the id of the first) of each kind there is."""

TRANSPARENT, DIM, NO_METRES = "transparent", "dim", "no metres"
OTHER_FOCAL, OTHER_CAMERA = "other focal", "other camera"

_WORDS: Mapping[str, str] = {
    TRANSPARENT: "with transparent parts, such as {example}: labelled as if over white; what is hidden has "
    "reliability 0 (in a new store, --alpha ignore takes the colours as they are)",
    DIM: "of 16 bits a channel, such as {example}: less than a quarter of the range is used, labelled nearly "
    "black; scale them so that white is 65535, and label them again",
    OTHER_FOCAL: f"with another focal length in EXIF than was given, by more than {APART:.0%}, such as {{example}}: "
    "the given one counts",
    OTHER_CAMERA: "with another camera than was given before, such as {example}: labels do not depend on it; point "
    "clouds and exports take the new one",
    NO_METRES: "without a scale to metres, such as {example}: nothing fits the label to what the metric teacher saw; "
    "the label stays relative, and exports in metres leave it out",
}


def add_remarks(*several: Remarks) -> Remarks:
    """All remarks in one, the first example of each kind."""
    total: dict[str, tuple[int, str]] = {}
    for kind, count, example in (one for remarks in several for one in remarks):
        before, first = total.get(kind, (0, example))
        total[kind] = before + count, first
    return tuple((kind, *found) for kind, found in sorted(total.items()))


def remark_notes(remarks: Iterable[tuple[str, int, str]]) -> tuple[str, ...]:
    """A line for each kind."""
    return tuple(
        f"{count:,} image{'s' if count != 1 else ''} {_WORDS[kind].format(example=example)}"
        for kind, count, example in remarks
    )
