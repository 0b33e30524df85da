"""Opens ground truth, whatever it is."""

import os
from pathlib import Path

from depthsieve.core.errors import GroundTruthError
from depthsieve.evaluation.ground_truth.folder import FolderTruth
from depthsieve.evaluation.ground_truth.hdf5 import STACK_SUFFIXES, Hdf5Stack
from depthsieve.evaluation.ground_truth.protocol import GroundTruth
from depthsieve.evaluation.ground_truth.settings import SUFFIXES, TruthSettings
from depthsieve.storage import is_url


def open_ground_truth(location: str | Path, settings: TruthSettings) -> GroundTruth:
    """A folder with a file per image, or one HDF5 file with all maps. ``~`` is the home folder.

    Raises:
        GroundTruthError: nothing there, nothing in it, or nothing of a known kind.
        UsageError: a setting for folders, and one file with all maps.
    """
    if is_url(location):
        raise GroundTruthError(f"{location}: ground truth is read from this machine's disks; copy it to a folder")
    path = Path(os.path.abspath(os.path.expanduser(location)))  # noqa: PTH100, PTH111 (links stay as they are named)
    if path.is_dir():
        return FolderTruth(path, settings)
    if not path.exists():
        raise GroundTruthError(f"{path}: no such folder or file of ground truth")
    if path.is_file() and path.suffix.lower() in STACK_SUFFIXES:
        return Hdf5Stack(path, settings)
    raise GroundTruthError(
        f"{path} is not ground truth: name a folder with a file per image ({', '.join(SUFFIXES)}), or one HDF5 file "
        f"with all maps ({', '.join(STACK_SUFFIXES)})"
    )
