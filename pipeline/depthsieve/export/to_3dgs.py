"""``3dgs``: inverse depth for gaussian-splatting's depth regularisation, with its scale in a COLMAP model's units.

Read in https://github.com/graphdeco-inria/gaussian-splatting: ``scene/dataset_readers.py`` takes
``<depths>/<name without suffix>.png`` and ``sparse/0/depth_params.json``, ``utils/camera_utils.py`` divides by
65536, and ``scene/cameras.py`` computes ``value * scale + offset`` and leaves an image out
whose scale is below 0.2 or above 5 times the median of those above 0. It knows no invalid pixels, stops where a photo
of the model has no file, and takes a map as it is where it has no scale.

Axes: H row, W column, P points.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Iterator, Mapping
from functools import cached_property
from statistics import median
from typing import Any

import numpy as np
from numpy.typing import NDArray

from depthsieve.cameras.colmap import PINHOLE, PhotoCamera, View, model_files, read_cameras, read_model
from depthsieve.cameras.matching import Matches, match_names
from depthsieve.core.cameras import WORDS
from depthsieve.core.errors import UsageError
from depthsieve.core.records import Shape
from depthsieve.export.codecs import encode_png
from depthsieve.export.metric_codes import as_in_file, as_in_file_shape, encode_inverse
from depthsieve.export.pairs import SHOWN, counted, listed, safe_stem
from depthsieve.export.protocol import About, Encoded, Entries, Item, Target
from depthsieve.export.sparse_fit import SparseFit, fit_sparse, sample_map, weight_of
from depthsieve.reliability.scale import SCALES

DEPTHS, PARAMS, FITS = "depths", "sparse/0/depth_params.json", "fits.json"
DIVISOR = 65536
"""What the reader divides by, though the largest value is 65535."""

NEAREST = 64
"""Metric depth nearer than its median over this is written as that: else a pixel at the lens takes all of 16 bits."""

LEFT_OUT = (0.2, 5.0)
"""Times the median scale, the reader leaves out what is below or above."""

OTHER_FOCAL = 0.05
"""Focal lengths of the store that are farther off the model's are told of."""

DROPPED_SHOWN = 20
_ASPECT = 0.01


class GaussianSplattingTarget(Target):
    """``depths/NAME.png``, ``sparse/0/depth_params.json``, ``fits.json``."""

    writes_reliability = False
    holds_invalid = False
    upright = False
    renames = False

    def check(self) -> None:
        if self.ask.mask is not None:
            raise UsageError(
                "gaussian-splatting knows no invalid pixels, so --mask has no value to write; leave it out: unreliable "
                "pixels count less where the scale is fitted"
            )
        for view in self._views:
            if _key(view.name) is None:
                raise UsageError(
                    f"the photo {view.name!r} of {self.ask.options['colmap']} has no name that a file could be "
                    "made of: a suffix, and no .. or leading /"
                )

    @cached_property
    def _views(self) -> tuple[View, ...]:
        folder = self.ask.options["colmap"]
        return () if folder is None else read_model(folder)

    @cached_property
    def _by_name(self) -> Mapping[str, View]:
        return {view.name: view for view in self._views}

    @cached_property
    def _cameras(self) -> Mapping[str, PhotoCamera]:
        return {camera.name: camera for camera in read_cameras(self.ask.options["colmap"])}

    @cached_property
    def _matches(self) -> Matches:
        return match_names(self._by_name, self.ask.ids)

    @cached_property
    def _shared(self) -> frozenset[str]:
        """Photos that are one to the reader, because their names differ in the suffix alone."""
        counts = Counter(_key(view.name) for view in self._views)
        return frozenset(view.name for view in self._views if counts[_key(view.name)] > 1)

    def inputs(self) -> dict[str, str]:
        folder = self.ask.options["colmap"]
        if folder is None:
            return {}
        digest = hashlib.sha256()
        for path in model_files(folder):
            digest.update(hashlib.sha256(path.read_bytes()).digest())
        return {"colmap_sha256": digest.hexdigest()[:16]}

    def leave_out(self, image_id: str) -> str:
        if not self._views:
            return ""
        photo = self._matches.photo_of.get(image_id)
        if photo is None:
            return "no photo of the COLMAP model has this name"
        return "the COLMAP model has two photos that differ in the suffix alone" if photo in self._shared else ""

    def place(self, image_id: str) -> str:
        photo = self._matches.photo_of.get(image_id)
        return f"{DEPTHS}/{safe_stem(image_id).partition('/')[2] if photo is None else _key(photo)}.png"

    def notes(self) -> list[str]:
        if not self._views:
            return [
                f"without --colmap there is no {PARAMS}: gaussian-splatting stops at once without it; give --colmap, "
                "or run its utils/make_depth_scale.py on these files"
            ]
        told = []
        missing = [view.name for view in self._views if view.name not in self._matches.label_of]
        plain = [name for name in missing if name not in self._matches.ambiguous and name not in self._shared]
        if plain:
            told.append(
                f"{counted(plain, 'photo')} of the model without a label, and so without depth: {listed(plain)}"
            )
        for name, ids in list(self._matches.ambiguous.items())[:SHOWN]:
            told.append(f"photo {name} of the model could be {listed(ids)}: it gets no depth; choose with --subset")
        if len(self._matches.ambiguous) > SHOWN:
            told.append(f"and {len(self._matches.ambiguous) - SHOWN} more photos of the model are ambiguous")
        if self._shared:
            told.append(
                f"photos that differ in the suffix alone share a file, and get no depth: {listed(self._shared)}"
            )
        strays = [image_id for image_id in self.ask.ids if image_id not in self._matches.photo_of]
        if strays:
            told.append(f"{counted(strays, 'label')} left out, as no photo of the model has the name: {listed(strays)}")
        distorted = sorted({view.camera for view in self._views} - set(PINHOLE))
        if distorted:
            told.append(
                f"the model has cameras of kind {', '.join(distorted)}, and gaussian-splatting takes PINHOLE and "
                "SIMPLE_PINHOLE only: undistort with `colmap image_undistorter`, and label the photos that it writes"
            )
        return told

    def encode(self, item: Item) -> Encoded:
        near_large_HW, clipped = self._inverse(item.depth_HW)
        code_HW, _, _ = encode_inverse(as_in_file(near_large_HW, item.orientation))
        valid_HW = as_in_file(item.valid, item.orientation)
        entry: dict[str, Any] = {
            "filled": int((~valid_HW).sum()) if valid_HW.any() else 0,
            "clipped": clipped,
            "empty": not valid_HW.any(),
        }
        photo = self._matches.photo_of.get(item.id)
        if photo is not None:
            codes_HW = as_in_file(item.reliability_HW, item.orientation)
            photo_shape = as_in_file_shape(item.source_shape, item.orientation)
            fit = self._fit(self._by_name[photo], photo_shape, code_HW, valid_HW, codes_HW)
            entry["fit"] = {
                "photo": photo,
                "id": item.id,
                "scale": fit.scale,
                "offset": fit.offset,
                "points": fit.points,
                "inliers": fit.inliers,
                "residual": fit.residual if fit.scale else None,
                "reason": fit.reason,
                "focal_px": item.focal_px,
                "focal_from": item.focal_from,
                "colmap_focal_px": round(self._focal_of(photo, photo_shape), 3),
            }
        return Encoded({item.path: encode_png(code_HW)}, entry)

    def _focal_of(self, photo: str, shape: Shape) -> float:
        """COLMAP's horizontal focal length of a photo of that (height, width) as stored; 0 where it has none."""
        camera = self._cameras[photo]
        return camera.intrinsics[0] * shape[1] / camera.shape[1] if camera.intrinsics else 0.0

    def _inverse(self, depth_HW: NDArray[np.float32]) -> tuple[NDArray[np.floating], int]:
        """Larger for nearer; and how many pixels were too near."""
        if self.ask.quantity == "disparity":
            return depth_HW, 0
        if np.isnan(depth_HW).all():
            return depth_HW, 0
        inverse_HW = 1 / np.where(depth_HW > 0, depth_HW, np.nan).astype(np.float64)
        limit = NEAREST * float(np.nanmedian(inverse_HW))
        return np.minimum(inverse_HW, limit), int((inverse_HW > limit).sum())

    def _fit(
        self,
        view: View,
        photo_shape: Shape,
        code_HW: NDArray[np.uint16],
        valid_HW: NDArray[np.bool_],
        reliability_HW: NDArray[np.uint8],
    ) -> SparseFit:
        height, width = photo_shape
        if abs(np.log(width * view.shape[0] / (height * view.shape[1]))) > max(_ASPECT, 1 / min(height, width)):
            return SparseFit(
                0.0,
                0.0,
                0,
                reason=f"COLMAP saw {view.shape[1]} x {view.shape[0]} pixels, another shape than {width} x {height} of "
                "the photo that was labelled",
            )
        ahead_P = view.z_P > 0
        xy_P2, z_P = view.xy_P2[ahead_P], view.z_P[ahead_P]
        value_P, usable_P, nearest_P = sample_map(code_HW / DIVISOR, valid_HW, xy_P2, view.shape)
        scale = SCALES[self.ask.store.code_version]
        error_K = np.array([np.nan, *(scale.error(code) for code in range(1, 256))])  # no valid pixel has code 0
        weight_P = weight_of(error_K[reliability_HW.ravel()[nearest_P[usable_P]]])
        return fit_sparse(value_P[usable_P], 1 / z_P[usable_P], weight_P)

    def finish(self, entries: Entries) -> Iterator[tuple[str, bytes]]:
        if not self._views:
            return
        fits = [entry.data["fit"] for entry in entries()]
        yield FITS, (json.dumps(fits, indent=1) + "\n").encode()
        made = {_key(fit["photo"]): fit for fit in fits}
        empty = encode_png(np.zeros((1, 1), np.uint16))
        for key in sorted({str(_key(view.name)) for view in self._views}):
            if key not in made:
                yield f"{DEPTHS}/{key}.png", empty
        if any(fit["scale"] for fit in fits):
            keys = sorted(str(_key(view.name)) for view in self._views)
            params = {key: _line(made.get(key)) for key in keys}
            yield PARAMS, (json.dumps(params, indent=2) + "\n").encode()

    def after(self, entries: Entries) -> list[str]:
        filled = sum(int(entry.data["filled"]) for entry in entries())
        clipped = sum(int(entry.data["clipped"]) for entry in entries())
        told = []
        if filled:
            told.append(
                f"{counted(filled, 'invalid pixel')} got the value of the nearest valid one: gaussian-splatting has no "
                "invalid pixels"
            )
        if clipped:
            told.append(
                f"{counted(clipped, 'pixel')} nearer than 1/{NEAREST} of their image's median depth got that depth"
            )
        if not self._views:
            return told
        fits = [entry.data["fit"] for entry in entries()]
        both = [fit for fit in fits if fit["focal_px"] and fit["colmap_focal_px"]]
        others = [fit for fit in both if abs(fit["focal_px"] / fit["colmap_focal_px"] - 1) > OTHER_FOCAL]
        if others:
            told.append(
                f"{counted(len(others), 'image')} of {len(both):,} with a focal length in the store of more than "
                f"{OTHER_FOCAL:.0%} beside COLMAP's, such as {others[0]['photo']} ({others[0]['focal_px']:g} px from "
                f"{WORDS[others[0]['focal_from']]}, {others[0]['colmap_focal_px']:g} px in the model): "
                "`label --cameras` takes the model's"
            )
        scales = [fit["scale"] for fit in fits if fit["scale"]]
        if not scales:
            return [*told, f"no image could be fitted to the model, so {PARAMS} was not written; {FITS} says why"]
        low, high = (bound * median(scales) for bound in LEFT_OUT)
        dropped = [fit for fit in fits if not low <= fit["scale"] <= high]
        for fit in dropped[:DROPPED_SHOWN]:
            reason = fit["reason"] or (
                f"its scale {fit['scale']:.4g} is not within {LEFT_OUT[0]} to {LEFT_OUT[1]:g} times the median, "
                f"{median(scales):.4g}"
            )
            told.append(f"gaussian-splatting leaves out {fit['photo']}: {reason}")
        if len(dropped) > DROPPED_SHOWN:
            told.append(f"and {len(dropped) - DROPPED_SHOWN:,} more, see {FITS}")
        return told

    def about(self) -> About:
        known = "disparity of the teacher" if self.ask.quantity == "disparity" else "1 / depth"
        return About(
            layout=f"`{DEPTHS}/NAME.png` (16 bits), NAME being that of COLMAP without its suffix"
            + (
                f"; `{PARAMS}`; and `{FITS}`: of each image the points that were used, how many agree, and their "
                f"median relative error. Copy `{DEPTHS}` and `sparse` into the scene's folder and train with `-d`."
                if self._views
                else f" (here: the id's path). Without a COLMAP model there is no `{PARAMS}`, and no known scale."
            ),
            depth=f"{known}, larger is nearer, over each image's own range of 16 bits"
            + (
                ": `value / 65536 * scale + offset` is 1/z in the model's units. Fitted to the model's points by "
                "reweighted least squares from a least-median start; a point counts 1 / (e^2 + 0.01^2), e being the "
                "error that its pixel's reliability expects. Where it cannot be fitted, scale and offset are 0, and "
                "the reader leaves the image out, as it does photos without a label (a file of one pixel)."
                if self._views
                else "."
            ),
            invalid="that reader knows none: an invalid pixel has the value of the nearest valid one.",
            precision="within half a step of 1/65535 of the image's range of inverse depth. In a metric store, what is "
            f"nearer than 1/{NEAREST} of the image's median depth is written as that.",
            photos="not written.",
            code=_CODE if self._views else _PLAIN_CODE,
        )


def _key(name: str) -> str | None:
    """What the reader calls a photo: its name without what follows the last dot. None where no file can be that."""
    key = name[: -len(name.split(".")[-1]) - 1]
    parts = key.split("/")
    return key if key and not {"", ".", ".."} & set(parts) and "\0" not in key and "\\" not in key else None


def _line(fit: Mapping[str, Any] | None) -> dict[str, float]:
    return {"scale": 0.0, "offset": 0.0} if fit is None else {"scale": fit["scale"], "offset": fit["offset"]}


_PLAIN_CODE = """
from pathlib import Path
import cv2

path = next(Path("depths").rglob("*.png"))
value = cv2.imread(str(path), cv2.IMREAD_UNCHANGED) / 65536.0  # larger is nearer; scale and shift unknown
"""

_CODE = """
import json
from pathlib import Path
import cv2

params = json.loads(Path("sparse/0/depth_params.json").read_text("utf-8"))
name, line = next((name, line) for name, line in params.items() if line["scale"] > 0)
value = cv2.imread(f"depths/{name}.png", cv2.IMREAD_UNCHANGED) / 65536.0
inverse_depth = value * line["scale"] + line["offset"]  # 1/z in the units of the COLMAP model
"""
