"""A depth map beside its photo, in folders of their own."""

from depthsieve.export.names import safe_path
from depthsieve.export.photos import PhotoFile
from depthsieve.export.protocol import Entries, Item


def stem(path: str) -> str:
    """A path without the suffix of its file."""
    folder, slash, name = path.rpartition("/")
    return folder + slash + (name.rpartition(".")[0] or name)


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
    return [f"{pixels:,} pixels of {images:,} images are farther than {limit:.6g} m, the most it holds: {instead}"]
