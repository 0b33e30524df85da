"""A made-up miniature of each dataset's download: real folders, archives and names, tiny pictures of noise in them.

``MINIATURES[name]`` lists paths as a download has them, ``::`` between an archive and its member: those that count, and
those beside them that do not. :func:`build` writes them.
"""

import io
import tarfile
import zipfile
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

import lmdb
import numpy as np
from PIL import Image
from videos import write_video


@dataclass(frozen=True)
class Miniature:
    """Paths that count and paths that do not."""

    counted: tuple[str, ...]
    others: tuple[str, ...]


MINIATURES = {
    "bdd100k": Miniature(
        (
            "bdd100k/videos/train/0000f77c-6257be58.mov::000000",
            "bdd100k/videos/train/0000f77c-6257be58.mov::000010",
            "bdd100k/videos/train/0000f77c-62623ded.mov::000000",
            "frames/train/0000f77c-6257be58/00001.jpg",
        ),
        (
            "bdd100k/videos/val/b1c66a42-6f7d68ca.mov::000000",
            "bdd100k/images/100k/train/0000f77c-6257be58.jpg",
            "bdd100k/images/track/train/0000f77c-6257be58/0000f77c-6257be58-0000001.jpg",
        ),
    ),
    "google-landmarks": Miniature(
        ("train/images_000.tar::0/0/0/000000000000a001.jpg", "train/images_499.tar::f/f/f/fff000000000a001.jpg"),
        ("train_attribution.csv", "index/images_000.tar::0/0/0/0001.jpg", "test/images_000.tar::0/0/0/0002.jpg"),
    ),
    "imagenet-21k": Miniature(
        (
            "winter21_whole/n00004475.tar::n00004475_6590.JPEG",
            "winter21_whole/n00004475.tar::n00004475_6589.JPEG",
            "winter21_whole/n00005787.tar::n00005787_13.JPEG",
        ),
        ("words.txt", "ILSVRC/val.tar::ILSVRC2012_val_00000001.JPEG"),
    ),
    "lsun": Miniature(
        (
            "bedroom_train_lmdb/data.mdb::0001c44e5f5175a7e6358d207660f971d90abaf4",
            "church_outdoor_train_lmdb/data.mdb::000319b73404935eec40ac49d1865ce197b3a553",
        ),
        (
            "bedroom_val_lmdb/data.mdb::00038e8b13a97577ada8a884702d607220ce6d15",
            "airplane/data.mdb::00039ba1bf659c30e50b757280efd5eba6fc2fe1",
        ),
    ),
    "objects365": Miniature(
        (
            "train/patch0.tar::patch0/objects365_v1_00000000.jpg",
            "train/patch50.tar::patch50/objects365_v2_01000000.jpg",
        ),
        ("train/zhiyuan_objv2_train.json", "val/patch16.tar::patch16/objects365_v2_00900000.jpg"),
    ),
    "open-images-v7": Miniature(
        ("train/000002b66c9c498e.jpg", "train_f.tar::train_f/f00002b66c9c498e.jpg"),
        ("validation/0001eeaf4aed83f9.jpg", "test.tar::test/000026e7ee790996.jpg", "image_ids_and_rotation.csv"),
    ),
    "places365": Miniature(
        (
            "train_large_places365challenge.tar::data_large/a/airfield/00000001.jpg",
            "train_large_places365challenge.tar::data_large/s/swimming_pool/outdoor/00000002.jpg",
        ),
        (
            "train_256_places365challenge.tar::data_256/a/airfield/00000001.jpg",
            "val_large.tar::val_large/Places365_val_00000001.jpg",
            "places365_train_challenge.txt",
        ),
    ),
    "sa-1b": Miniature(
        ("sa_000000.tar::sa_1.jpg", "sa_000000.tar::sa_2.jpg", "sa_000999.tar::./sa_11185362.jpg"),
        ("sa_000000.tar::sa_1.json", "sa_000000.tar::sa_2.json", "sa_images_ids.txt"),
    ),
    "blendedmvs": Miniature(
        ("5a3ca9cb/blended_images/00000000.jpg", "BlendedMVS.zip::5a4a38da/blended_images/00000001.jpg"),
        (
            "5a3ca9cb/blended_images/00000000_masked.jpg",
            "5a3ca9cb/rendered_depth_maps/00000000.pfm",
            "5a3ca9cb/cams/00000000_cam.txt",
            "BlendedMVS.zip::5a4a38da/blended_images/00000001_masked.jpg",
        ),
    ),
    "hypersim": Miniature(
        (
            "ai_001_001.zip::ai_001_001/images/scene_cam_00_final_preview/frame.0000.tonemap.jpg",
            "ai_001_001.zip::ai_001_001/images/scene_cam_01_final_preview/frame.0003.tonemap.jpg",
        ),
        (
            "ai_001_001.zip::ai_001_001/images/scene_cam_00_final_preview/frame.0000.color.jpg",
            "ai_001_001.zip::ai_001_001/images/scene_cam_00_final_preview/frame.0000.diff.jpg",
            "ai_001_001.zip::ai_001_001/images/scene_cam_00_geometry_preview/frame.0000.color.jpg",
            "ai_001_001.zip::ai_001_001/images/scene_cam_00_geometry_hdf5/frame.0000.depth_meters.hdf5",
            "ai_001_001.zip::ai_001_001/_detail/metadata_scene.csv",
        ),
    ),
    "irs": Miniature(
        ("Store.zip::Store/ConvenienceStore/l_00001.png", "Home/ArchVizInterior/l_00002.png"),
        (
            "Store.zip::Store/ConvenienceStore/r_00001.png",
            "Store.zip::Store/ConvenienceStore/d_00001.exr",
            "Home/ArchVizInterior/r_00002.png",
            "Home/ArchVizInterior/n_00002.exr",
        ),
    ),
    "tartanair": Miniature(
        (
            "office/Easy/image_left.zip::office/office/Easy/P000/image_left/000000_left.png",
            "office/Hard/image_left.zip::office/office/Hard/P001/image_left/000001_left.png",
        ),
        (
            "office/Easy/image_right.zip::office/office/Easy/P000/image_right/000000_right.png",
            "office/Easy/depth_left.zip::office/office/Easy/P000/depth_left/000000_left_depth.npy",
            "mono/ME000/000000.png",
        ),
    ),
    "vkitti2": Miniature(
        (
            "vkitti_2.0.3_rgb.tar::Scene01/15-deg-left/frames/rgb/Camera_0/rgb_00000.jpg",
            "vkitti_2.0.3_rgb.tar::Scene20/clone/frames/rgb/Camera_0/rgb_00836.jpg",
        ),
        (
            "vkitti_2.0.3_rgb.tar::Scene01/15-deg-left/frames/rgb/Camera_1/rgb_00000.jpg",
            "vkitti_2.0.3_depth.tar::Scene01/15-deg-left/frames/depth/Camera_0/depth_00000.png",
        ),
    ),
}

FORMATS = {"jpg": "JPEG", "JPEG": "JPEG", "png": "PNG", "webp": "WEBP"}


def build(root: Path, name: str) -> Miniature:
    """Write the miniature of a dataset below ``root``; every picture is another one."""
    miniature = MINIATURES[name]
    archives: dict[str, list[tuple[str, bytes]]] = defaultdict(list)
    for seed, path in enumerate((*miniature.counted, *miniature.others)):
        archive, _, member = path.partition("::")
        data = content(path, seed)
        if member:
            archives[archive].append((member, data))
        else:
            (root / path).parent.mkdir(parents=True, exist_ok=True)
            (root / path).write_bytes(data)
    for archive, members in archives.items():
        (root / archive).parent.mkdir(parents=True, exist_ok=True)
        if archive.endswith(".mov"):
            last = max(int(member) for member, _ in members)
            write_video(root / archive, frames=last + 3, options={"preset": "ultrafast"})
            continue
        {".tar": write_tar, ".zip": write_zip, ".mdb": write_lmdb}[Path(archive).suffix](root / archive, members)
    return miniature


def content(path: str, seed: int) -> bytes:
    """A picture of 40 x 30 pixels where the name is one of a picture (or a key of LSUN), else a few bytes."""
    kind = "WEBP" if len(path.rpartition("::")[2]) == 40 else FORMATS.get(path.rpartition(".")[2])
    if kind is None:
        return b"no picture"
    random = np.random.default_rng([len(path), seed])
    buffer = io.BytesIO()
    Image.fromarray(random.integers(0, 256, (30, 40, 3), dtype=np.uint8)).save(buffer, kind)
    return buffer.getvalue()


def write_tar(path: Path, members: list[tuple[str, bytes]]) -> None:
    with tarfile.open(path, "w") as archive:
        for member, data in members:
            entry = tarfile.TarInfo(member)
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))


def write_zip(path: Path, members: list[tuple[str, bytes]]) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        for member, data in members:
            archive.writestr(zipfile.ZipInfo(member), data)


def write_lmdb(path: Path, members: list[tuple[str, bytes]]) -> None:
    with lmdb.open(str(path.parent), map_size=1 << 20) as database, database.begin(write=True) as transaction:
        for member, data in members:
            transaction.put(member.encode(), data)
