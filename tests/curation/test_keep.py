"""Which of several copies of a photo stays: the one that a person would keep; and crops, which only pixels tell."""

import shutil
from pathlib import Path

import cv2
import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

import depthsieve
from depthsieve.core.errors import UsageError
from depthsieve.curation.overlap import ALIKE, correlation, outline
from depthsieve.scenes import render_scene

SCENES = (11, 23)
COPIES = ("thumbnail", "grey", "blurred", "compressed", "cropped")


def copy_of(rgb_HW3: np.ndarray, kind: str) -> Image.Image:
    """One copy of a photo of 480 x 640."""
    if kind == "blurred":
        rgb_HW3 = cv2.GaussianBlur(rgb_HW3, (0, 0), 2)
    if kind == "cropped":
        rgb_HW3 = rgb_HW3[40:450, 30:590]
    image = Image.fromarray(np.ascontiguousarray(rgb_HW3))
    if kind == "thumbnail":
        image = image.resize((220, 165), Image.Resampling.LANCZOS)
    return image.convert("L").convert("RGB") if kind == "grey" else image


def photo(seed: int) -> np.ndarray:
    noise = np.random.default_rng(seed).normal(0, 2, (480, 640, 3))
    return np.clip(render_scene(seed, 480, 640, family="home").rgb_HW3 + noise, 0, 255).astype(np.uint8)


@pytest.fixture(scope="module")
def copies(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``photos``, each with a copy of each kind, and ``labels`` of them."""
    folder = tmp_path_factory.mktemp("copies")
    (folder / "photos").mkdir()
    for seed in SCENES:
        rgb_HW3 = photo(seed)
        for kind in ("photo", *COPIES):
            quality = 25 if kind == "compressed" else 92
            copy_of(rgb_HW3, kind).save(folder / "photos" / f"{seed}-{kind}.jpg", quality=quality)
    depthsieve.label(folder / "photos", folder / "labels", teacher="tiny-v1", batch_size=4, threads=1, progress=False)
    return folder


def kept(store: Path, subset: Path, **options: object) -> set[str]:
    depthsieve.curate(store, subset, near_duplicates=0.9, progress=False, **options)  # type: ignore[arg-type]
    table = pq.read_table(subset)
    return {one.partition("/")[2].removesuffix(".jpg") for one in table.filter(table["keep"])["id"].to_pylist()}


def test_the_original_stays_and_every_copy_goes(copies: Path, tmp_path: Path) -> None:
    """Reliability alone would keep others: a smooth copy looks reliable."""
    assert kept(copies / "labels", tmp_path / "s.parquet") == {f"{seed}-photo" for seed in SCENES}
    by_reliability = kept(copies / "labels", tmp_path / "r.parquet", keep="reliability")
    assert not by_reliability & {f"{seed}-photo" for seed in SCENES}


@pytest.mark.parametrize(
    ("without", "keep", "expected"),
    [
        (("photo", "compressed", "cropped"), "resolution,sharpness,reliability", "grey"),  # of grey and blurred
        (("photo", "compressed", "cropped"), "resolution,colour", "blurred"),
        (("photo", "blurred", "grey", "cropped"), "resolution,compression", "compressed"),  # and not the thumbnail
    ],
)
def test_what_decides_is_said_by_keep(
    copies: Path, tmp_path: Path, without: tuple[str, ...], keep: str, expected: str
) -> None:
    excluded = " AND ".join(f"NOT id LIKE '%-{kind}.jpg'" for kind in without)
    found = kept(copies / "labels", tmp_path / "s.parquet", keep=keep, where=excluded)
    assert found == {f"{seed}-{expected}" for seed in SCENES}


def test_crops_are_found_by_their_pixels_and_named(copies: Path, tmp_path: Path) -> None:
    both = "id LIKE '%-photo.jpg' OR id LIKE '%-cropped.jpg'"
    path = tmp_path / "s.parquet"
    summary = depthsieve.curate(copies / "labels", path, where=both, near_duplicates=1, progress=False)
    reasons = [row["reason"] for row in pq.read_table(path).to_pylist() if row["step"].startswith("near-duplicates")]
    assert len(reasons) == len(SCENES)
    assert all("they show a part of one another" in reason for reason in reasons)
    assert summary.steps[-1].note == f"by the teacher's backbone; {len(SCENES)} by their pixels"
    assert len(kept(copies / "labels", path, where=both, crops=False)) > len(SCENES)


def test_images_that_are_gone_are_told_of(copies: Path, tmp_path: Path) -> None:
    shutil.copytree(copies, tmp_path / "moved")
    depthsieve.label(
        tmp_path / "moved/photos", tmp_path / "moved/labels", moved=True, progress=False, teacher="tiny-v1"
    )
    shutil.rmtree(tmp_path / "moved" / "photos")
    summary = depthsieve.curate(tmp_path / "moved/labels", near_duplicates=0.9, progress=False)
    assert summary.steps[-1].note.endswith("; 0 by their pixels, but 12 images could not be read"), summary


def test_different_images_do_not_lie_over_each_other() -> None:
    outlines = [outline(photo(seed)) for seed in (1, 2, 3, 4, 5)]
    alike = [correlation(first, second) for first in outlines for second in outlines if first is not second]
    assert max(alike) < ALIKE
    flat = outline(np.full((64, 64, 3), 7, np.uint8))
    assert correlation(flat, flat) == correlation(flat, outlines[0]) == 0


@pytest.mark.parametrize("keep", ["", "size", "resolution,,colour", 3])
def test_an_unknown_keep_is_refused(keep: object) -> None:
    with pytest.raises(UsageError, match="keep lists some of resolution, colour, sharpness, compression, reliability"):
        depthsieve.curate("labels", keep=keep, near_duplicates=0.9)  # type: ignore[arg-type]
