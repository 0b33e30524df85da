"""Which image gets which of the cameras that are given: by name, at its resolution, the right way up."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from colmap_models import Shot, write_model
from hostile import exif
from PIL import Image, ImageOps

from depthsieve.cameras.colmap import PARAMETERS, read_cameras
from depthsieve.cameras.given import Found, GivenCameras, Photo, given_cameras
from depthsieve.core.cameras import Camera
from depthsieve.core.errors import SourceError, UsageError

PHOTOS = [Photo("default/a.jpg", 800, 600), Photo("default/x/b.jpg", 800, 600), Photo("default/t.tar::c.jpg", 300, 400)]


def table(tmp_path: Path, rows: str, columns: str = "image,fx,fy,cx,cy,width,height") -> GivenCameras:
    (tmp_path / "c.csv").write_text(f"{columns}\n{rows}\n")
    return given_cameras(tmp_path / "c.csv", fov=90)


def test_rows_find_their_images_and_the_rest_gets_the_one_angle(tmp_path: Path) -> None:
    given = table(tmp_path, "a.jpg,500,,,,,\ndefault/x/b.jpg,500,510,390,310,,\nt.tar::c.jpg,100,,,,,\nno.jpg,1,,,,,")
    found = given.in_file(PHOTOS)
    assert found.cameras == {
        "default/a.jpg": Camera(500, 500, 400, 300, "cameras.csv"),
        "default/x/b.jpg": Camera(500, 510, 390, 310, "cameras.csv"),
        "default/t.tar::c.jpg": Camera(100, 100, 150, 200, "cameras.csv"),
    }
    assert found.notes == (f"1 camera of no image here, such as {tmp_path}/c.csv, line 5",)
    for photo, focal in ((PHOTOS[0], 400), (PHOTOS[2], 200)):
        one = given.for_all(photo)
        assert one is not None and one.intrinsics == pytest.approx((focal, focal, photo.width / 2, photo.height / 2))
    assert given_cameras(focal_length=7).for_all(PHOTOS[2]) == Camera(7, 7, 150, 200, "given")
    assert given_cameras().in_file(PHOTOS) == Found() and given_cameras().for_all(PHOTOS[0]) is None


def test_numbers_for_another_resolution_are_scaled(tmp_path: Path) -> None:
    found = table(tmp_path, "a.jpg,1000,1010,820,590,1600,1200").in_file(PHOTOS)
    assert found.cameras["default/a.jpg"] == Camera(500, 505, 410, 295, "cameras.csv")


@pytest.mark.parametrize("orientation", [5, 6, 7, 8])
def test_numbers_for_the_pixels_of_a_turned_file_are_turned_with_it(tmp_path: Path, orientation: int) -> None:
    stored_HW = np.zeros((60, 80), np.uint8)
    stored_HW[20, 70] = 255  # where the axis goes through
    image = Image.fromarray(stored_HW)
    image.getexif()[0x0112] = orientation
    data = tmp_path / "a.png"
    image.save(data, exif=exif(orientation))
    upright_HW = np.asarray(ImageOps.exif_transpose(Image.open(data)))
    (row,), (column,) = np.nonzero(upright_HW)
    photo = Photo("default/a.png", upright_HW.shape[1], upright_HW.shape[0], orientation)
    found = table(tmp_path, "a.png,50,55,70.5,20.5,80,60").in_file([photo])
    assert found.cameras["default/a.png"] == Camera(55, 50, column + 0.5, row + 0.5, "cameras.csv")


@pytest.mark.parametrize(
    ("rows", "fault"),
    [
        ("b.jpg,5,,,,,\na.jpg,5,,,,640,640", "line 3: is of an image of 640 x 640 pixels, and default/a.jpg has 800 x"),
        ("a.jpg,5,,,,600,800", "line 2: is of an image of 600 x 800 pixels"),  # it is not turned
        ("b.jpg,5,,,,,\nx/b.jpg,5,,,,,\nq/x/b.jpg,5,,,,,", ""),
    ],
)
def test_a_camera_of_another_shape_is_refused(tmp_path: Path, rows: str, fault: str) -> None:
    if fault:
        with pytest.raises(SourceError, match=fault):
            table(tmp_path, rows).in_file(PHOTOS)
    else:
        assert table(tmp_path, rows).in_file(PHOTOS).strays == 2, "the row with the very path is that of the image"


def test_a_row_that_could_be_of_two_images_is_refused(tmp_path: Path) -> None:
    photos = [Photo("default/x/a.jpg", 8, 6), Photo("default/y/a.jpg", 8, 6)]
    with pytest.raises(
        SourceError, match=r"line 2: 'a\.jpg' could be default/x/a\.jpg and default/y/a\.jpg; write more"
    ):
        table(tmp_path, "a.jpg,5,,,,,").in_file(photos)


@pytest.mark.parametrize("options", [{"focal_length": 5, "fov": 5}, {"focal_length": 0.0}, {"fov": 180}, {"fov": -1}])
def test_numbers_that_are_no_lens_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match=r"focal_length|fov"):
        given_cameras(**options)


@pytest.mark.parametrize("text", [False, True])
@pytest.mark.parametrize("points", [False, True])
def test_a_colmap_model_gives_intrinsics_without_points_too(tmp_path: Path, text: bool, points: bool) -> None:
    nothing = np.zeros((0, 2)), np.zeros(0)
    shots = [
        Shot("a.jpg", (1200, 1600), *nothing, 1000.0),
        Shot("x/b.jpg", (600, 800), *nothing, 500.0, "OPENCV"),
        Shot("c.jpg", (400, 300), *nothing, 100.0, "SIMPLE_PINHOLE"),
    ]
    write_model(tmp_path, shots, text)
    place = tmp_path / "sparse" / "0"
    if not points:
        next(place.glob("points3D.*")).unlink()
    for named in (tmp_path, place, next(place.glob("cameras.*"))):
        given = given_cameras(named)
        assert given.in_file(PHOTOS).cameras == {
            "default/a.jpg": Camera(500, 500, 400, 300, "colmap"),
            "default/x/b.jpg": Camera(500, 500, 400, 300, "colmap"),
            "default/t.tar::c.jpg": Camera(100, 100, 150, 200, "colmap"),
        }
        assert given.notes[0].startswith(
            "1 photos of the COLMAP model have lens distortion (OPENCV), which is not used"
        )


def test_every_kind_of_camera_has_its_focal_length_where_colmap_puts_it(tmp_path: Path) -> None:
    lines = [
        f"{number} {name} 80 60 " + " ".join(str(10 * (place + 1)) for place in range(count))
        for number, (name, count) in PARAMETERS.items()
    ]
    (tmp_path / "cameras.txt").write_text("\n".join(lines))
    views = [f"{number} 1 0 0 0 0 0 0 {number} {name}.jpg\n" for number, (name, _) in PARAMETERS.items()]
    (tmp_path / "images.txt").write_text("\n".join(views) + "\n")
    found = {one.model: one.intrinsics for one in read_cameras(tmp_path)}
    one_focal = {name for name, intrinsics in found.items() if intrinsics == (10, 10, 20, 30)}
    assert one_focal == {
        *("SIMPLE_PINHOLE", "SIMPLE_RADIAL", "RADIAL", "SIMPLE_RADIAL_FISHEYE", "RADIAL_FISHEYE"),
        *("SIMPLE_DIVISION", "SIMPLE_FISHEYE"),
    }
    assert found.pop("EQUIRECTANGULAR") is None
    assert {intrinsics for name, intrinsics in found.items() if name not in one_focal} == {(10, 20, 30, 40)}
    given = given_cameras(tmp_path)
    assert "1 photos of the COLMAP model are no perspective, and have no focal length" in given.notes
