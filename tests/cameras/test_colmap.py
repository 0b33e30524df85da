"""Sparse models of COLMAP are read as they are, in both of their formats."""

from pathlib import Path

import numpy as np
import pytest
from colmap_models import Shot, shoot, write_model

from depthsieve.cameras.colmap import PARAMETERS, View, read_model
from depthsieve.core.errors import SourceError
from depthsieve.scenes import render_scene


def shots() -> list[Shot]:
    scene = render_scene(3, 24, 32)
    return [
        shoot("b/2 of 3.jpg", scene.depth_HW, scene.focal_px, 40, seed=1, camera="OPENCV"),
        shoot("a.jpg", scene.depth_HW, scene.focal_px, 30, unit=2.5, camera="SIMPLE_PINHOLE"),
        Shot("nothing.jpg", (24, 32), np.zeros((0, 2)), np.zeros(0), 20.0),
    ]


@pytest.mark.parametrize("text", [False, True])
def test_a_model_gives_names_cameras_places_and_depths(tmp_path: Path, text: bool) -> None:
    written = shots()
    found = read_model(write_model(tmp_path, written, text))
    assert [view.name for view in found] == ["a.jpg", "b/2 of 3.jpg", "nothing.jpg"]
    assert [view.camera for view in found] == ["SIMPLE_PINHOLE", "OPENCV", "PINHOLE"]
    by_name = {shot.name: shot for shot in written}
    for view in found:
        shot = by_name[view.name]
        assert view.shape == (24, 32)
        np.testing.assert_array_equal(view.xy_P2, shot.xy_P2)
        np.testing.assert_allclose(view.z_P, shot.z_P, rtol=1e-12)


def test_pycolmap_reads_the_same_of_a_model_and_writes_one_that_we_read(tmp_path: Path) -> None:
    pycolmap = pytest.importorskip("pycolmap", reason="pycolmap is not installed")
    theirs = pycolmap.Reconstruction(str(write_model(tmp_path, shots()) / "sparse" / "0"))
    again = tmp_path / "again"
    again.mkdir()
    theirs.write(str(again))
    for found in (read_model(tmp_path), read_model(again)):
        assert [view.name for view in found] == sorted(image.name for image in theirs.images.values())
        for view in found:
            image = next(image for image in theirs.images.values() if image.name == view.name)
            pose = image.cam_from_world() if callable(image.cam_from_world) else image.cam_from_world
            observed = [point for point in image.points2D if point.has_point3D()]
            expected = [(pose * theirs.points3D[point.point3D_id].xyz)[2] for point in observed]
            np.testing.assert_allclose(view.z_P, expected, rtol=1e-12)
            np.testing.assert_array_equal(view.xy_P2, np.array([point.xy for point in observed]).reshape(-1, 2))
    known = {int(kind.value): kind.name for kind in map(pycolmap.CameraModelId, PARAMETERS)}
    assert {number: name for number, (name, _) in PARAMETERS.items()} == known
    for number, (_, count) in PARAMETERS.items():
        camera = pycolmap.Camera.create_from_model_id(1, pycolmap.CameraModelId(number), 10.0, 8, 6)
        assert len(camera.params) == count


def test_a_model_is_found_in_the_folder_itself_and_binary_goes_first(tmp_path: Path) -> None:
    first, second = shots()[:2]
    write_model(tmp_path / "one", [first], text=True)
    write_model(tmp_path / "two", [second])
    place = tmp_path / "one" / "sparse" / "0"
    for path in (tmp_path / "two" / "sparse" / "0").iterdir():
        (place / path.name).write_bytes(path.read_bytes())
    assert [view.name for view in read_model(place)] == [second.name]


@pytest.mark.parametrize("part", ["cameras", "images", "points3D"])
@pytest.mark.parametrize("text", [False, True])
def test_a_file_that_is_cut_short_is_named(tmp_path: Path, part: str, text: bool) -> None:
    write_model(tmp_path, shots()[:2], text)
    path = tmp_path / "sparse" / "0" / f"{part}.{'txt' if text else 'bin'}"
    path.write_bytes(path.read_bytes() + b"9 PINHOLE\n" if text else path.read_bytes()[:-5])
    with pytest.raises(SourceError, match=rf"{part}\.(txt|bin) is no such file of COLMAP, or is cut short"):
        read_model(tmp_path)


def test_what_is_no_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(SourceError, match="no COLMAP model in"):
        read_model(tmp_path)
    write_model(tmp_path, shots()[:1])
    cameras = tmp_path / "sparse" / "0" / "cameras.bin"
    data = bytearray(cameras.read_bytes())
    data[12] = 99  # the kind of camera
    cameras.write_bytes(data)
    with pytest.raises(SourceError, match=r"cameras\.bin .* model 99, which this version does not know"):
        read_model(tmp_path)
    data[8:16] = b"\x63\0\0\0\x01\0\0\0"  # another id than its photo asks for
    cameras.write_bytes(data)
    with pytest.raises(SourceError, match=r"no camera 11, which took 'b/2 of 3\.jpg'"):
        read_model(tmp_path)


def test_points_that_a_photo_names_and_the_model_lacks_are_passed_over(tmp_path: Path) -> None:
    first, second = shots()[:2]
    write_model(tmp_path / "whole", [first, second])
    write_model(tmp_path / "part", [first])
    whole, part = (tmp_path / name / "sparse" / "0" / "points3D.bin" for name in ("whole", "part"))
    whole.write_bytes(part.read_bytes())
    found: dict[str, View] = {view.name: view for view in read_model(tmp_path / "whole")}
    assert (len(found[first.name].z_P), len(found[second.name].z_P)) == (40, 0)
