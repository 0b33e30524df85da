"""Which image belongs to which photo of a reconstruction or row of a table, by name."""

import os
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from depthsieve.sources import decode_path


@dataclass(frozen=True)
class Matches:
    """``label_of``: the id of the label of each photo that has one, by the photo's name; ``photo_of``: the other way
    round. ``ambiguous``: the ids that a photo's name could mean, where it is several, or where several photos mean one
    as well; such photos have none."""

    label_of: Mapping[str, str]
    photo_of: Mapping[str, str]
    ambiguous: Mapping[str, tuple[str, ...]]


def match_names(photos: Iterable[str], image_ids: Iterable[str]) -> Matches:
    """Match photos, named relative to the reconstruction's folder of images, to labels, named by source and path.

    The folder that was labelled may lie above or below the reconstruction's: names match where one is the end of the
    other, part by part (``cam1/a.jpg`` and ``default/site/cam1/a.jpg``). Equal paths go before a longer or shorter
    one, and equal suffixes before others (photos are often converted on the way).
    """
    by_name: dict[str, list[tuple[str, str]]] = defaultdict(list)
    for image_id in image_ids:
        parts = image_id.partition("/")[2].split("::")
        path = _normal("/".join(os.fsdecode(decode_path(part)) for part in parts))
        by_name[stem(path.rpartition("/")[2])].append((path, image_id))
    chosen: dict[str, tuple[str, ...]] = {}
    wanted: dict[str, list[tuple[tuple[int, int], str]]] = defaultdict(list)
    for photo in photos:
        name = _normal(photo)
        ranked = [
            (rank, image_id)
            for path, image_id in by_name.get(stem(name.rpartition("/")[2]), ())
            if (rank := _rank(name, path)) is not None
        ]
        best = min((rank for rank, _ in ranked), default=(0, 0))
        chosen[photo] = tuple(sorted(image_id for rank, image_id in ranked if rank == best))
        if len(chosen[photo]) == 1:
            wanted[chosen[photo][0]].append((best, photo))
    label_of: dict[str, str] = {}
    ambiguous = {photo: found for photo, found in chosen.items() if len(found) > 1}
    for image_id, owners in wanted.items():
        nearest = [photo for rank, photo in owners if rank == min(owners)[0]]
        if len(nearest) == 1:
            label_of[nearest[0]] = image_id
        else:
            ambiguous |= dict.fromkeys(nearest, (image_id,))
    return Matches(label_of, {image_id: photo for photo, image_id in label_of.items()}, ambiguous)


def stem(path: str) -> str:
    """A path without the suffix of its file."""
    folder, slash, name = path.rpartition("/")
    return folder + slash + (name.rpartition(".")[0] or name)


def _rank(name: str, path: str) -> tuple[int, int] | None:
    """How well names fit: the less the better; None where they do not."""
    common = min(name.count("/"), path.count("/"))
    for penalty, one, other in ((0, name, path), (2, stem(name), stem(path))):
        if one == other:
            return penalty, -common
        if f"/{one}".endswith(f"/{other}") or f"/{other}".endswith(f"/{one}"):
            return penalty + 1, -common
    return None


def _normal(path: str) -> str:
    return unicodedata.normalize("NFC", path.removeprefix("./"))
