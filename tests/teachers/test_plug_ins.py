"""Teachers that installed packages offer: found by name wherever labels are made, and refused in one line."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import plug_in
import pytest
import torch
import zarr
from decoding import with_exif
from labelled import decided_bytes, job_of, unlabelled_copy, write_photos
from PIL import Image

import depthsieve
from depthsieve.core.errors import RunError, TeacherNotFound, TeacherUnsupported, UsageError
from depthsieve.labelling.isolation import label_isolated
from depthsieve.reliability.fusion import calibration_for, fuse, relative_error
from depthsieve.reliability.signals import native_disagreement
from depthsieve.store import open_store
from depthsieve.store.status import status
from depthsieve.teachers import load_teacher, plug_ins

OPTIONS: dict[str, Any] = {"teacher": "brightness", "batch_size": 2, "threads": 1, "progress": False}


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_photos(tmp_path_factory.mktemp("photos"), 3)


def test_a_plug_in_labels_and_its_confidence_becomes_a_signal(tmp_path: Path, installed: Path, photos: Path) -> None:
    summary = depthsieve.label(photos, tmp_path / "store", signals="native", keep_signals=True, **OPTIONS)
    assert summary.labelled == 3
    assert [note for note in summary.notes if "signals native is not calibrated" in note]
    store = open_store(tmp_path / "store")
    assert (store.spec.signals, store.spec.calibration) == (("native",), "native-uncalibrated")
    label = store.label("default/photo 0.png")
    rgb_HW3 = np.asarray(Image.open(photos / "photo 0.png"), np.float32)[::2, ::2]
    depth_1HW = torch.from_numpy(1 + rgb_HW3.mean(2))[None]
    np.testing.assert_allclose(label.depth, depth_1HW[0], rtol=1e-3)
    confidence_1HW = torch.from_numpy(1 + rgb_HW3[:, :, 2])[None]
    relative = {"native": relative_error(depth_1HW, native_disagreement(depth_1HW, confidence_1HW, "higher"))}
    (group,) = (tmp_path / "store" / "layers" / "signals").glob("shards/0000-000000-*")
    np.testing.assert_allclose(zarr.open_group(group, mode="r")["native"][0], relative["native"][0], rtol=2e-3)
    e_HW = fuse(depth_1HW, relative, "disparity", calibration_for("disparity", ["native"]))[0]
    order = torch.from_numpy(label.reliability).flatten()[e_HW.flatten().argsort()].int()
    assert (order.diff() <= 0).all() and order[0] > order[-1] > 0, "a larger error, a smaller code"


def test_a_process_that_labels_apart_finds_the_plug_in_by_its_name(
    tmp_path: Path, installed: Path, photos: Path
) -> None:
    depthsieve.label(photos, tmp_path / "store", **OPTIONS)
    copy = unlabelled_copy(tmp_path / "store", tmp_path / "copy")
    job = job_of(copy, photos, Path("brightness"), cores=1)
    assert [label_isolated(job, name).error for name in ("0000-000000", "0000-000001")] == [None, None]
    ours, theirs = decided_bytes(copy), decided_bytes(tmp_path / "store")
    assert ours == theirs


def test_known_focal_lengths_reach_the_teacher_in_pixels_of_its_input(tmp_path: Path, installed: Path) -> None:
    """Its input has half the source's pixels a side."""
    picture = Image.new("RGB", (160, 120), (100, 100, 100))
    (tmp_path / "photos").mkdir()
    for name, focal_35mm in (("known", 26), ("unknown", None)):
        picture.putpixel((0, 0), (0, 0, 0))
        (tmp_path / "photos" / f"{name}.png").write_bytes(with_exif(picture, "PNG", 1, focal_35mm))
    depthsieve.label(tmp_path / "photos", tmp_path / "store", signals="none", **OPTIONS)
    store = open_store(tmp_path / "store")
    for name, scale in (("known", 26 / 43.27 * 200 / 2), ("unknown", 1)):
        assert float(store.label(f"default/{name}.png").depth[5, 5]) == pytest.approx(1 + 100 * scale, rel=2e-3)


def test_the_command_line_lists_it_and_labels_with_it(tmp_path: Path, installed: Path, photos: Path) -> None:
    def command(*arguments: object) -> str:
        environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(installed), *sys.path])}
        line = [sys.executable, "-m", "depthsieve", *map(str, arguments)]
        return subprocess.run(line, env=environment, capture_output=True, text=True, check=True).stdout

    assert [row.split() for row in command("teachers").splitlines() if row.startswith("brightness")] == [
        ["brightness", "yes", "package", "acme", "1.2"]
    ]
    (listed,) = [one for one in json.loads(command("teachers", "--json")) if one["name"] == "brightness"]
    assert (listed["package"], listed["cached"], listed["licence"]) == ("acme 1.2", True, None)
    store = tmp_path / "store"
    assert "3 of 3 images labelled" in command("label", photos, store, "--teacher", "brightness", "--signals", "flip")
    request = open_store(store).generations()[0].teacher
    assert request is not None and request.name == "brightness"


def test_it_loads_without_transformers(installed: Path) -> None:
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(installed), *sys.path])}
    code = "import sys, depthsieve; depthsieve.load_teacher('brightness'); sys.exit('transformers' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, env=environment)


def refusal(**options: Any) -> str:
    with pytest.raises((UsageError, TeacherUnsupported)) as caught:
        load_teacher("brightness", **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_two_packages_of_one_name_are_refused_with_both(installed: Path) -> None:
    plug_in.install(installed, package="other")
    assert [one.package for one in plug_ins()] == ["acme 1.2", "other 1.2"]
    assert refusal() == (
        "teacher 'brightness' is ambiguous: packages acme 1.2, other 1.2 all offer it; uninstall all but one"
    )


def test_a_name_of_our_own_is_not_taken_over(site: Path) -> None:
    plug_in.install(site, name="tiny")
    with pytest.raises(UsageError, match=r"'tiny' is ambiguous: package acme 1.2 offers it too, though it is a name"):
        load_teacher("tiny")


def test_a_near_miss_of_a_plug_ins_name_is_told(installed: Path) -> None:
    with pytest.raises(TeacherNotFound, match="did you mean 'brightness'"):
        load_teacher("brigthness")


@pytest.mark.parametrize(
    ("change", "target", "words"),
    [
        (("import hashlib", "import no_such_module"), "load", "ModuleNotFoundError: No module named 'no_such_module'"),
        (("", ""), "lode", "has no attribute 'lode'"),
        (("    return Brightness(request)", "    return {}['x']"), "load", "cannot be loaded: KeyError: 'x'"),
        (
            ("    return Brightness(request)", "    return 7"),
            "load",
            "what it returned, int, is no teacher: it has no 'name'",
        ),
        (('"disparity"', '"inverse"'), "load", "its quantity is 'inverse', not 'disparity' or 'depth'"),
        (('unit = ""', 'unit = "m"'), "load", "its unit is 'm', not ''"),
        (('"higher"', '"up"'), "load", "its confidence_better is 'up', not None or 'higher' or 'lower'"),
        (('hashlib.sha256(b"brightness").hexdigest()', '"v1"'), "load", "weights_digest is 'v1', no hex sha256"),
        (('{"rule": "half size"}', "{1, 2}"), "load", "its preprocessing is not plain JSON"),
    ],
)
def test_a_broken_plug_in_is_one_line_that_names_its_package(
    site: Path, change: tuple[str, str], target: str, words: str
) -> None:
    plug_in.install(site, module=plug_in.MODULE.replace(*change), target=target)
    line = refusal()
    assert line.startswith("teacher 'brightness' of package acme 1.2") and words in line


def test_a_declared_quantity_may_not_contradict_a_plug_in(installed: Path) -> None:
    assert load_teacher("brightness", quantity="disparity").quantity == "disparity"
    assert "it predicts disparity; leave out --quantity depth" in refusal(quantity="depth")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (("return Prediction(", "return Prediction(torch.tensor({}['depth']), "), "KeyError: 'depth'"),
        (("1 + batch.image.mean(1)", "1 + batch.image.double().mean(1)"), "its depth is torch.float64 ["),
        (("confidence=1 + batch.image[:, 2] * scale", "confidence=None"), "its confidence is NoneType, not"),
        (("np.ascontiguousarray(", "np.no_such_function("), "AttributeError: module 'numpy' has no attribute"),
    ],
)
def test_what_a_teacher_raises_is_one_line_and_no_failure_of_images(
    tmp_path: Path, site: Path, photos: Path, change: tuple[str, str], words: str
) -> None:
    plug_in.install(site, module=plug_in.MODULE.replace(*change))
    with pytest.raises(RunError) as caught:
        depthsieve.label(photos, tmp_path / "store", **OPTIONS)
    line = str(caught.value)
    assert line.startswith("teacher 'brightness' failed: ") and words in line and "\n" not in line
    assert (status(tmp_path / "store").pending, status(tmp_path / "store").failed) == (3, ())


def test_a_teacher_that_fails_in_the_trial_is_one_line(tmp_path: Path, site: Path) -> None:
    write_photos(tmp_path / "many", 70)
    plug_in.install(site, module=plug_in.MODULE.replace("return Prediction(", "return Prediction({}['depth'], "))
    with pytest.raises(RunError, match=r"^teacher 'brightness' failed: KeyError: 'depth'$"):
        depthsieve.plan(tmp_path / "many", tmp_path / "store", teacher="brightness", write=True, progress=False)
