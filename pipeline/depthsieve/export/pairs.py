"""A depth map beside its photo, in folders of their own; and how several targets tell what they did."""

from collections.abc import Collection, Iterable

from depthsieve.cameras.matching import stem
from depthsieve.export.names import safe_path
from depthsieve.export.photos import PhotoFile
from depthsieve.export.protocol import Entries, Item

SHOWN = 5
"""Names in a line of what is told."""


def counted(of: int | Collection[str], what: str) -> str:
    """ "1 label", "2 labels"."""
    number = of if isinstance(of, int) else len(of)
    return f"{number:,} {what}{'s' if number != 1 else ''}"


def listed(names: Iterable[str]) -> str:
    """Some names in a line, and how many more there are."""
    ordered = sorted(names)
    rest = f" and {len(ordered) - SHOWN:,} more" if len(ordered) > SHOWN else ""
    return ", ".join(ordered[:SHOWN]) + rest


def safe_stem(image_id: str) -> str:
    """:func:`~depthsieve.export.names.safe_path` without the suffix."""
    return stem(safe_path(image_id))


def with_photo(item: Item, depth: bytes, folder: str) -> dict[str, bytes | PhotoFile]:
    """A depth map, and its photo at the same place in another top ``folder``, for readers that follow EXIF."""
    photo = item.photo.file(applies_exif=True)
    return {item.path: depth, f"{folder}/{stem(item.path.partition('/')[2])}{photo.suffix}": photo}


def too_far(entries: Entries, limit: float, instead: str) -> list[str]:
    """What to say where pixels were farther than a format holds."""
    counts = [int(entry.data["too_far"]) for entry in entries()]
    pixels, images = sum(counts), sum(count > 0 for count in counts)
    if not pixels:
        return []
    what = f"{counted(pixels, 'pixel')} of {counted(images, 'image')} farther than {limit:.6g} m"
    return [f"{what}, the most that the files hold: {instead}"]
