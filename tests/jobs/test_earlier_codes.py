"""Stores whose codes are of the first version go on with it; what is new is of the second."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import zarr
from labelled import decided_bytes, label, small_teacher, write_photos
from layered import check

import depthsieve
from depthsieve.planning import request
from depthsieve.reliability.code import decode_error
from depthsieve.reliability.network import ErrorNetwork
from depthsieve.reliability.scale import SCALES

HOW: dict[str, Any] = {"shard_size": 2, "signals": "flip", "keep_signals": True}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Photos, and a store of the first version and one of the second, each labelled in two runs."""
    folder = tmp_path_factory.mktemp("codes")
    teacher = str(small_teacher(folder / "teacher"))
    for version, name in ((1, "old"), (2, "new")):
        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(request, "CODE_VERSION", version)
            label(write_photos(folder / "photos", 3), folder / name, teacher, **HOW)
    shutil.copytree(folder / "old", folder / "before")
    write_photos(folder / "photos", 2, first=3)
    for name in ("old", "new"):
        assert label(folder / "photos", folder / name, teacher).labelled_now == 2
    return folder


def test_a_store_of_the_first_version_goes_on_with_it(made: Path) -> None:
    old, new = (depthsieve.open_store(made / name) for name in ("old", "new"))
    assert (old.spec.spec_version, new.spec.spec_version) == (1, 2)
    before, after = decided_bytes(made / "before"), decided_bytes(made / "old")
    assert before.items() <= after.items() and len(after) > len(before)
    assert len(old) == len(new) == 5
    for image in old:
        np.testing.assert_array_equal(old[image].depth, new[image].depth)
        errors = [
            decode_error(torch.from_numpy(one[image].reliability), version=one.code_version) for one in (old, new)
        ]
        np.testing.assert_allclose(errors[0], errors[1], rtol=0.06)
        assert len(np.unique(new[image].reliability)) > 1.5 * len(np.unique(old[image].reliability))
    for name in ("old", "new"):
        assert check(made / name).sound
        version = depthsieve.open_store(made / name).code_version
        for shard in (made / name).glob("labels.zarr/shards/0*-*"):
            stated = zarr.open_array(shard / "reliability", mode="r").attrs["expected_error"]
            assert stated == SCALES[version].formula


def test_layers_say_what_their_codes_are(made: Path, tmp_path: Path) -> None:
    network = tmp_path / "network.safetensors"
    ErrorNetwork.random().save(network)
    for name, versions in (("old", (1, 2)), ("new", (2, 2))):
        store = shutil.copytree(made / name, tmp_path / name)
        depthsieve.recalibrate(store, name="weights", progress=False)
        depthsieve.recalibrate(store, calibration=network, name="net", progress=False)
        layers = [depthsieve.open_store(store, reliability=layer) for layer in ("weights", "net")]
        assert tuple(layer.code_version for layer in layers) == versions
        own = depthsieve.open_store(store)
        for image in own:  # but for the rounding of kept signals
            codes = [one[image].reliability.astype(int) for one in (own, layers[0])]
            assert np.abs(codes[0] - codes[1]).max() <= 1
        assert check(store).sound


def test_fused_labels_have_the_newest_codes_of_their_parents(made: Path, tmp_path: Path) -> None:
    other = str(small_teacher(tmp_path / "teacher", seed=1))
    label(made / "photos", tmp_path / "other", other, signals="flip")
    spec = {}
    for name in ("old", "new"):
        depthsieve.fuse([made / name, tmp_path / "other"], tmp_path / f"fused-{name}", threads=1, progress=False)
        fused = depthsieve.open_store(tmp_path / f"fused-{name}")
        spec[name] = fused.spec.spec_version
    assert spec == {"old": 2, "new": 2}
    codes = [depthsieve.open_store(tmp_path / f"fused-{name}")["default/photo 0.png"].reliability for name in spec]
    assert np.abs(codes[0].astype(int) - codes[1].astype(int)).max() <= 4  # the parent's codes were coarser
