"""``nerfstudio``: a folder with ``transforms.json`` whose frames have depth, as nerfstudio's own dataparser reads it.

Read in https://github.com/nerfstudio-project/nerfstudio: ``data/dataparsers/nerfstudio_dataparser.py`` wants
``depth_file_path`` in every frame or in none, ``data/utils/data_utils.py`` reads 16-bit images or ``.npy``, both times
``depth_unit_scale_factor`` (0.001) metres, and 0 is unknown to the losses. Its images are not turned by EXIF.

Axes: H row, W column.
"""

import copy
import hashlib
import json
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from depthsieve.cameras.matching import Matches, match_names, stem
from depthsieve.core.errors import SourceError, UsageError, one_line
from depthsieve.export.codecs import CODES, encode_npy, encode_png
from depthsieve.export.metric_codes import as_in_file, encode_linear
from depthsieve.export.names import Places
from depthsieve.export.pairs import SHOWN, counted, listed, too_far
from depthsieve.export.photos import PhotoFile
from depthsieve.export.protocol import About, Encoded, Entries, Item, Target

MILLIMETRES = 1000
FARTHEST = CODES / MILLIMETRES
_BESIDE = ("mask_path", "file_path")


class NerfstudioTarget(Target):
    """``transforms.json``, ``images/...`` as its frames name them, ``depths/...``."""

    writes_reliability = False
    wants = "metres"
    links = True
    upright = False
    renames = False

    def check(self) -> None:
        super().check()
        if self.ask.options["transforms"] is None:
            raise UsageError("nerfstudio needs the poses of the photos: --transforms says where its transforms.json is")
        if not self._matches.label_of:
            raise UsageError(
                f"none of the {len(self._frames):,} frames of {self._file} has a label here (its first is "
                f"{next(iter(self._frames))!r}); label the photos that it names"
            )

    @cached_property
    def _file(self) -> Path:
        given = Path(self.ask.options["transforms"])
        return given / "transforms.json" if given.is_dir() else given

    @cached_property
    def _data(self) -> bytes:
        try:
            return self._file.read_bytes()
        except OSError as error:
            raise SourceError(f"cannot read {self._file}: {error.strerror}") from error

    @cached_property
    def _meta(self) -> dict[str, Any]:
        try:
            meta: dict[str, Any] = json.loads(self._data)
            names = [frame["file_path"] for frame in meta["frames"]]
        except (ValueError, KeyError, TypeError) as error:
            raise SourceError(
                f"{self._file} is no transforms.json of nerfstudio, with a list of frames that each have a file_path: "
                f"{one_line(error)}"
            ) from error
        if not names or not all(isinstance(name, str) and PurePosixPath(name).name for name in names):
            raise SourceError(f"{self._file} has no frames, or a file_path that is no path")
        return meta

    @cached_property
    def _frames(self) -> dict[str, str]:
        """Where the depth of each frame goes, by its file_path."""
        places = Places()
        found: dict[str, str] = {}
        for frame in self._meta["frames"]:
            name = frame["file_path"]
            if name not in found:
                path = PurePosixPath(name)
                within = path.relative_to("images") if path.parts[0] == "images" and len(path.parts) > 1 else path
                parts = [part for part in within.parts if part not in ("/", "..")]
                wanted = f"depths/{stem('/'.join(parts))}.{self.ask.options['depth_format']}"
                found[name] = places.give(name, wanted)
        return found

    @cached_property
    def _matches(self) -> Matches:
        return match_names(self._frames, self.ask.ids)

    def inputs(self) -> dict[str, str]:
        return {"transforms_sha256": hashlib.sha256(self._data).hexdigest()[:16]}

    def leave_out(self, image_id: str) -> str:
        return "" if image_id in self._matches.photo_of else "no frame of transforms.json has this name"

    def place(self, image_id: str) -> str:
        return self._frames[self._matches.photo_of[image_id]]

    def notes(self) -> list[str]:
        told = []
        missing = [name for name in self._frames if name not in self._matches.label_of]
        plain = [name for name in missing if name not in self._matches.ambiguous]
        if plain:
            told.append(
                f"{counted(plain, 'frame')} of {len(self._frames):,} without a label got depth of zeros (unknown): "
                f"nerfstudio wants one for every frame; {listed(plain)}"
            )
        for name, ids in list(self._matches.ambiguous.items())[:SHOWN]:
            told.append(f"frame {name} could be {listed(ids)}: its depth is zeros; choose with --subset")
        strays = [image_id for image_id in self.ask.ids if image_id not in self._matches.photo_of]
        if strays:
            told.append(f"{counted(strays, 'label')} left out, as no frame has the name: {listed(strays)}")
        told.append("nerfstudio takes depth for metres only where the poses of transforms.json are in metres, too")
        return told

    def encode(self, item: Item) -> Encoded:
        metres_HW, far = as_in_file(item.depth_HW, item.orientation), 0
        if self.ask.options["depth_format"] == "npy":
            data = encode_npy((np.nan_to_num(metres_HW, nan=0.0) * MILLIMETRES).astype(np.float32))
        else:
            code_HW, far = encode_linear(metres_HW, MILLIMETRES)
            data = encode_png(code_HW)
        files: dict[str, bytes | PhotoFile] = {item.path: data}
        frame = self._matches.photo_of[item.id]
        if (inside := _inside(frame)) is not None:
            files[inside] = self._frames_own(frame) or item.photo.file(applies_exif=False)
        return Encoded(files, {"frame": frame, "too_far": far})

    def _frames_own(self, name: str) -> PhotoFile | None:
        """The file that a frame names, beside transforms.json: its poses belong to that one."""
        path = self._file.parent / name
        try:
            return PhotoFile(path.read_bytes(), path.suffix, path.resolve())
        except OSError:
            return None

    def finish(self, entries: Entries) -> Iterator[tuple[str, bytes]]:
        made = {str(entry.data["frame"]) for entry in entries()}
        empty = np.zeros((1, 1), np.uint16)
        written = set()
        for name, path in self._frames.items():
            if name not in made:
                is_npy = self.ask.options["depth_format"] == "npy"
                yield path, encode_npy(empty.astype(np.float32)) if is_npy else encode_png(empty)
        meta = copy.deepcopy(self._meta)
        for frame in meta["frames"]:
            frame["depth_file_path"] = self._frames[frame["file_path"]]
        for owner, key in [(meta, "ply_file_path"), *((frame, key) for frame in meta["frames"] for key in _BESIDE)]:
            name = owner.get(key)
            if not isinstance(name, str) or (key == "file_path" and name in made and _inside(name)):
                continue
            inside, original = _inside(name), self._file.parent / name
            if inside is None:
                owner[key] = str(original.resolve())
            elif inside not in written and original.is_file():
                written.add(inside)
                yield inside, original.read_bytes()
        yield "transforms.json", (json.dumps(meta, indent=2) + "\n").encode()

    def after(self, entries: Entries) -> list[str]:
        return too_far(entries, FARTHEST, "they are 0, unknown; --depth-format npy has no limit")

    def about(self) -> About:
        npy = self.ask.options["depth_format"] == "npy"
        return About(
            layout="`transforms.json`, the given one with `depth_file_path` in every frame; `depths/...`, named as the "
            "frames; photos, masks and points where transforms.json names them. Frames without a label have a depth "
            "map of one pixel, 0.",
            depth="millimetres along the camera's axis (`depth_unit_scale_factor` is 0.001 by default). Poses must be "
            f"in metres for it to fit. {'float32, `.npy`.' if npy else '16 bits.'}",
            invalid="0, unknown." + ("" if npy else f" So is what is farther than {FARTHEST:g} m."),
            precision="float32 of the store's value."
            if npy
            else "within half a millimetre; a valid pixel is 1 at least.",
            photos="those of transforms.json, else the source files.",
            code=_CODE,
        )


def _inside(name: str) -> str | None:
    """Where a file goes that transforms.json names, in the new folder; None where that is outside."""
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or not path.parts:
        return None
    return str(path)


_CODE = """
import json
from pathlib import Path
import cv2
import numpy as np

path = json.loads(Path("transforms.json").read_text("utf-8"))["frames"][0]["depth_file_path"]
raw = np.load(path) if path.endswith(".npy") else cv2.imread(path, cv2.IMREAD_ANYDEPTH)
metres = raw.astype("float32") * 0.001  # 0 = unknown
"""
