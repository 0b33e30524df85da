"""What a checkpoint predicts: as its configuration says, or as the user declares where that does not say."""

from pathlib import Path
from typing import Any

import pytest
import teachers_builders as builders
import torch
import transformers
from labelled import write_photos

import depthsieve
from depthsieve.core.errors import StoreMismatch, TeacherUnsupported, UsageError
from depthsieve.store import open_store
from depthsieve.teachers import load_teacher
from depthsieve.teachers.huggingface import quantity_of


@pytest.fixture(scope="module")
def silent(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A teacher that does not say what it predicts."""
    folder = tmp_path_factory.mktemp("silent")
    return str(builders.save(folder, builders.dpt_dinov2_config(), builders.DPT_DINOV2_PROCESSOR))


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_photos(tmp_path_factory.mktemp("photos"))


def test_a_declared_quantity_becomes_the_teachers(silent: str) -> None:
    with pytest.raises(TeacherUnsupported, match=r"its configuration does not say which; declare it: --quantity"):
        load_teacher(silent)
    metric, relative = (load_teacher(silent, quantity=quantity) for quantity in ("depth", "disparity"))
    assert (metric.quantity, metric.unit) == ("depth", "m")
    assert (relative.quantity, relative.unit) == ("disparity", "")


def test_a_declaration_may_not_contradict_the_checkpoint() -> None:
    assert quantity_of(transformers.GLPNConfig(), "depth") == "depth"
    with pytest.raises(UsageError, match=r"says that it predicts depth; leave out --quantity disparity"):
        quantity_of(transformers.GLPNConfig(), "disparity")


def test_what_a_kind_predicts_that_is_not_known_here_can_be_declared() -> None:
    unknown = transformers.PretrainedConfig()
    with pytest.raises(TeacherUnsupported, match=r"is not known here; declare it: --quantity disparity, or"):
        quantity_of(unknown)
    assert quantity_of(unknown, "disparity") == "disparity"


def test_a_model_that_needs_more_than_the_image_stays_refused() -> None:
    with pytest.raises(TeacherUnsupported, match="needs a measured depth map beside each image"):
        quantity_of(transformers.PromptDepthAnythingConfig(), "depth")


def test_a_store_remembers_the_declaration(tmp_path: Path, silent: str, photos: Path) -> None:
    store = tmp_path / "store"

    def label(**more: Any) -> None:
        options = {"signals": "none", "batch_size": 1, "threads": 1, "progress": False}
        depthsieve.label(photos, store, teacher=silent, **options, **more)

    with pytest.raises(TeacherUnsupported, match="--quantity depth for metres"):
        label()
    assert not store.exists()
    label(quantity="depth")
    assert (open_store(store).spec.quantity, open_store(store).spec.unit) == ("depth", "m")
    label()
    with pytest.raises(StoreMismatch, match="quantity"):
        label(quantity="disparity")


def test_a_declaration_is_only_recorded_where_there_is_one(tmp_path: Path, silent: str, photos: Path) -> None:
    """So that records of teachers that need none stay as they were."""
    options = {"batch_size": 1, "threads": 1, "signals": "none", "progress": False}
    depthsieve.label(photos, tmp_path / "declared", teacher=silent, quantity="disparity", **options)
    depthsieve.label(photos, tmp_path / "tiny", teacher="tiny-v1", size=98, **options)
    requests = [open_store(tmp_path / name).generations()[0].teacher for name in ("declared", "tiny")]
    assert [request.to_json().get("quantity", "nothing") for request in requests if request] == ["disparity", "nothing"]


def test_the_declared_quantity_labels_alike(silent: str) -> None:
    image = torch.ones(1, 3, 70, 70)
    one, other = (
        builders.depth_of(load_teacher(silent, quantity=quantity), image) for quantity in ("depth", "disparity")
    )
    torch.testing.assert_close(one, other, rtol=0, atol=0)
