"""docs/evaluation.md: its commands find the ground truth of data sets as they are published, in miniature."""

import re
import shlex
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest
from commandline import command
from PIL import Image
from storemaker import Picture, make_store
from truths import LABEL, SOURCE, npy, pfm, truth_of

PAGE = (Path(__file__).parents[2] / "docs" / "evaluation.md").read_text()
COMMANDS = re.findall(r"^\$ depthsieve evaluate (.*)$", PAGE, re.MULTILINE)
CALIB = "cam0=[999.421 0 294.182; 0 999.421 252.932; 0 0 1]\ndoffs=32.778\nbaseline=193.001\n"


def png(path: Path, scale: float) -> None:
    Image.fromarray(np.round(truth_of(0) * scale).astype(np.uint16)).save(path)


def hypersim(path: Path) -> None:
    with h5py.File(path, "w") as file:
        file["dataset"] = truth_of(0)


def all_of_nyu(path: Path) -> None:
    with h5py.File(path, "w") as file:
        file["depths"] = np.stack([truth_of(0).T])


def diode(path: Path) -> None:
    path.write_bytes(npy(truth_of(0)[:, :, None]))
    path.with_name("x_depth_mask.npy").write_bytes(npy(np.ones(SOURCE)))


def middlebury(path: Path) -> None:
    disparity_HW = 0.193001 * 999.421 / np.maximum(truth_of(0), 0.01) - 32.778
    path.write_bytes(pfm(np.where(truth_of(0) > 0, disparity_HW, np.inf), "-0.003922"))
    (path.parent / "calib.txt").write_text(CALIB)


LAYOUTS: dict[str, tuple[str, str, Callable[[Path], None]]] = {
    # a word of the command; an image of a store; its ground truth, and what writes it
    "demo": ("scenes/0.png", "demo/depth/scenes/0.npy", lambda path: np.save(path, truth_of(0))),
    "depth_mask": ("indoors/scene/scan/x.png", "val/indoors/scene/scan/x_depth.npy", diode),
    "trainingF": ("Motorcycle/im0.png", "trainingF/Motorcycle/disp0GT.pfm", middlebury),
    "scans": ("a/b.png", "scans/a/b_depth.png", lambda path: png(path, 1000)),
    "sets": ("nyu/a.png", "sets/nyu/a.png", lambda path: png(path, 1000)),
    "kitti --scale 256": (
        "2011_09_26/2011_09_26_drive_0001_sync/image_02/data/0000000005.png",
        "kitti/train/2011_09_26_drive_0001_sync/proj_depth/groundtruth/image_02/0000000005.png",
        lambda path: png(path, 256),
    ),
    "freiburg1": (
        "1305031102.175304.png",
        "rgbd_dataset_freiburg1_desk/depth/1305031102.160407.png",
        lambda path: png(path, 5000),
    ),
    "nyu_depth_v2_labeled": ("1.png", "nyu_depth_v2_labeled.mat", all_of_nyu),
    "hypersim": (
        "ai_001_001/images/scene_cam_00_final_preview/frame.0000.tonemap.png",
        "hypersim/ai_001_001/images/scene_cam_00_geometry_hdf5/frame.0000.depth_meters.hdf5",
        hypersim,
    ),
}


@pytest.mark.parametrize("word", LAYOUTS)
def test_documented_commands_find_the_ground_truth(
    word: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (line,) = [line for line in COMMANDS if word in line]
    image, truth, write = LAYOUTS[word]
    make_store(tmp_path / "demo" if word == "demo" else tmp_path, [Picture(image, SOURCE, LABEL)])
    (tmp_path / truth).parent.mkdir(parents=True, exist_ok=True)
    write(tmp_path / truth)
    monkeypatch.chdir(tmp_path)
    assert command(monkeypatch, "evaluate", *shlex.split(line)) == 0
    told = capsys.readouterr()
    assert told.out.splitlines()[1].startswith("1 image, ")
    assert "without an image" not in told.out


def test_frames_of_nyu_are_their_own_ground_truth_in_another_dataset(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As sparse-to-dense and FastDepth publish it; labelled for real, since its images lie in the same files."""
    (line,) = [line for line in COMMANDS if ".h5/rgb/" in line]
    (tmp_path / "val").mkdir()
    pixels_HW3 = np.random.default_rng(0).integers(0, 256, (96, 128, 3), dtype=np.uint8)
    with h5py.File(tmp_path / "val" / "00001.h5", "w") as file:
        file["rgb"] = pixels_HW3.transpose(2, 0, 1)
        file["depth"] = truth_of(0, (96, 128))
    monkeypatch.chdir(tmp_path)
    assert command(monkeypatch, "label", "val/00001.h5", "labels", "--teacher", "tiny", "--runner", "local") == 0
    capsys.readouterr()
    assert command(monkeypatch, "evaluate", *shlex.split(line)) == 0
    assert capsys.readouterr().out.splitlines()[1].startswith("1 image, ")


def test_every_command_of_the_page_is_run_here() -> None:
    words = [*LAYOUTS, ".h5/rgb/"]
    assert [line for line in COMMANDS if sum(word in line for word in words) != 1] == []
