"""Depth maps and masks among photos: told by their names, or by 16 bits in one channel.

They lie beside the photos in most RGB-D sets, and would be labelled like them. A name alone may mislead, so they are
told of, with the pattern that leaves them out, and nothing is decided.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass, field

DEPTH, MASK, NORMALS = "depth maps", "masks", "normal maps"
_WORDS = {
    DEPTH: "depths?|disp|disparity|disparities",
    MASK: "masks?|segs?|segmentations?|segmentation_?(?:class|object)|semantics?|instances?|label_?ids|gt_?fine",
    NORMALS: "normals?",
}
_BESIDE = "(?:(?:gt|groundtruth|ground_truth|raw|left|right|rendered|maps?|pngs?|images?|occ|noc|vis|[0-9])[_.-]?)*"
_FOLDERS = {kind: re.compile(f"{_BESIDE}(?:{words})[_.-]?{_BESIDE}", re.I) for kind, words in _WORDS.items()}
_ENDS = {kind: re.compile(f".*([._-](?:{words})[.][^.]+)", re.I | re.S) for kind, words in _WORDS.items()}
_BEGINS = {kind: re.compile(f"((?:{words})[._-]?)[0-9]+[.][^.]+", re.I) for kind, words in _WORDS.items()}


@dataclass
class Suspects:
    """Images that look like something else than photos: by what they look like, how many, and an example with the
    pattern that leaves it out."""

    found: dict[str, tuple[int, str, str]] = field(default_factory=dict)

    def add_all(self, ids: Iterable[str], deep_grey: frozenset[str]) -> None:
        """Look at ids of images; ``deep_grey`` are those of them that have 16 bits in one channel."""
        for image_id in ids:
            suspect = suspect_of(image_id.partition("/")[2], image_id in deep_grey)
            if suspect is not None:
                count, example, pattern = self.found.get(suspect[0], (0, image_id, suspect[1]))
                self.found[suspect[0]] = count + 1, example, pattern

    def notes(self, images: int) -> tuple[str, ...]:
        """A line for each kind, of so many images in all."""
        return tuple(
            f"{count:,} of {images:,} images look like {kind} and not like photos, such as {example}: leave them out "
            f"with --exclude {pattern}"
            for kind, (count, example, pattern) in sorted(self.found.items())
        )


def suspect_of(path: str, is_deep_grey: bool) -> tuple[str, str] | None:
    """What a path below the root says of an image, and a pattern for its like; None for what looks like a photo."""
    *folders, name = path.replace("::", "/").split("/")
    for kind in _WORDS:
        for folder in folders:
            if _FOLDERS[kind].fullmatch(folder):
                return kind, f"{folder}/"
        if found := _ENDS[kind].fullmatch(name):
            return kind, f"'*{found[1]}'"
        if found := _BEGINS[kind].fullmatch(name):
            return kind, f"'{found[1]}*'"
    if is_deep_grey:
        return f"{DEPTH} (16 bits in one channel)", f"{folders[-1]}/" if folders else "PATTERN"
    return None
