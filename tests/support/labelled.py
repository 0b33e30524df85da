"""What the tests of labelling share: a small teacher of the real class, photos made here, and a store's bytes."""

import hashlib
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image
from teachers_builders import DEPTH_ANYTHING_PROCESSOR, depth_anything_config, save

import depthsieve
from depthsieve.core.records import LabelJob, TeacherRequest
from depthsieve.storage import open_root
from depthsieve.store import open_store

DECIDED = ("labels.zarr", "plan", "commits", "layers")
"""What two runs of one profile must agree on to the byte."""


def small_teacher(folder: Path, seed: int = 0) -> Path:
    """A Depth Anything of four narrow layers with random weights, 70 pixels on the short side."""
    return save(folder, depth_anything_config(), DEPTH_ANYTHING_PROCESSOR, seed=seed)


def write_photo(path: Path, width: int, height: int, seed: int) -> Path:
    """A lossless picture of smooth blobs; no two seeds alike."""
    path.parent.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(seed)
    coarse = Image.fromarray(random.integers(0, 256, (6, 8, 3), dtype=np.uint8))
    coarse.resize((width, height), Image.Resampling.BICUBIC).save(path)
    return path


def write_photos(folder: Path, count: int = 5, first: int = 0) -> Path:
    """``count`` photos: every third one portrait, so that there are two label shapes."""
    for number in range(first, first + count):
        size = (90, 120) if number % 3 == 2 else (120, 90)
        write_photo(folder / f"photo {number}.png", *size, seed=number)
    return folder


def decided_bytes(store: Path) -> dict[str, str]:
    """sha256 of every file that labels decide, by its path in the store."""
    files = [path for part in DECIDED for path in sorted((store / part).rglob("*")) if path.is_file()]
    return {str(path.relative_to(store)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def decided_objects(store: str) -> dict[str, str]:
    """What ``decided_bytes`` says of a folder, of a prefix."""
    root = open_root(store)
    keys = [entry.key for part in DECIDED for entry in root.entries(part)]
    with ThreadPoolExecutor(8) as threads:
        return dict(zip(keys, threads.map(lambda key: hashlib.sha256(root.read(key)).hexdigest(), keys), strict=True))


def unlabelled_copy(store: Path, copy: Path) -> Path:
    """A store as it was when it was planned, and nothing of it labelled."""
    shutil.copytree(store, copy)
    for record in (copy / "commits").glob("[0-9]*.json"):
        record.unlink()
    for group in (copy / "labels.zarr" / "shards").glob("[0-9]*-*"):
        shutil.rmtree(group)
    shutil.rmtree(copy / "layers", ignore_errors=True)
    return copy


def job_of(store: Path, photos: Path, teacher: Path, cores: int | None = None) -> LabelJob:
    """The job of labelling what is planned in ``store``."""
    opened = open_store(store)
    sources = (("default", str(photos)),)
    request = TeacherRequest(str(teacher))
    return LabelJob(str(store), request, opened.fingerprint, opened.spec.signals, sources, cores=cores)


def label(source: Path, store: Path, teacher: str, **options: object) -> depthsieve.LabelSummary:
    settings = {"progress": False, "batch_size": 2, "threads": 1} | options
    return depthsieve.label(source, store, teacher=teacher, **settings)  # type: ignore[arg-type]
