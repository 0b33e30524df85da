"""What a run leaves out of its source, what it does with transparency, and what it tells of the images."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from labelled import small_teacher, write_photo
from PIL import Image

import depthsieve
from depthsieve.core.errors import StoreMismatch, UsageError
from depthsieve.store import open_store


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(small_teacher(tmp_path_factory.mktemp("teacher") / "t"))


@pytest.fixture
def label(tmp_path: Path, teacher: str) -> Any:
    def run(store: str = "labels", **options: Any) -> depthsieve.LabelSummary:
        fixed = {"teacher": teacher, "batch_size": 2, "threads": 1, "signals": "none", "progress": False}
        return depthsieve.label(tmp_path / "photos", tmp_path / store, **fixed | options)

    return run


def write_depth(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((120, 90), 900, np.uint16)).save(path)


def write_rgba(path: Path, alpha_HW: np.ndarray) -> None:
    rgb_HW3 = np.random.default_rng(0).integers(0, 255, (*alpha_HW.shape, 3), dtype=np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.dstack([rgb_HW3, alpha_HW.astype(np.uint8)])).save(path)


def test_a_store_remembers_what_is_left_out(tmp_path: Path, label: Any) -> None:
    write_photo(tmp_path / "photos" / "rgb" / "a.png", 90, 120, seed=1)
    write_depth(tmp_path / "photos" / "depth" / "a.png")
    summary = label(exclude=["depth/"])
    assert (summary.labelled, summary.notes) == (1, ("1 file of source 'default' left out by --exclude depth/",))
    write_depth(tmp_path / "photos" / "depth" / "b.png")
    write_photo(tmp_path / "photos" / "mask" / "a.png", 90, 120, seed=2)
    summary = label(exclude=["mask"])
    assert (summary.labelled, summary.planned_now, summary.gone) == (1, 0, 0)
    assert open_store(tmp_path / "labels").excluded() == {"default": ("depth/", "mask")}
    assert "3 files of source 'default' left out by --exclude depth/ mask" in label().notes
    summary = label(exclude=["none", "depth/"])
    assert (summary.labelled, open_store(tmp_path / "labels").excluded()) == (2, {"default": ("depth/",)})
    generations = len(open_store(tmp_path / "labels").generations())
    assert label(exclude=["depth/"]).planned_now == 0
    assert len(open_store(tmp_path / "labels").generations()) == generations  # nothing new, nothing written


def test_what_was_labelled_before_it_is_left_out_stays_until_it_is_pruned(tmp_path: Path, label: Any) -> None:
    for number in range(3):
        write_photo(tmp_path / "photos" / "rgb" / f"{number}.png", 90, 120, seed=number)
    write_depth(tmp_path / "photos" / "depth" / "a.png")
    summary = label()
    assert any("1 of 4 images look like depth maps" in note for note in summary.notes)
    summary = label(exclude=["depth/"])
    assert summary.labelled == 4
    assert "1 image is left out by --exclude now; their labels stay (--prune removes them)" in summary.notes
    assert not any("no longer in" in note for note in summary.notes)
    summary = label(prune=True)
    assert (summary.labelled, summary.removed) == (3, 1)


def test_a_manifest_hands_on_what_its_scan_left_out(tmp_path: Path, teacher: str, label: Any) -> None:
    write_photo(tmp_path / "photos" / "rgb" / "a.png", 90, 120, seed=1)
    write_depth(tmp_path / "photos" / "depth" / "a.png")
    depthsieve.scan(tmp_path / "photos", tmp_path / "m.parquet", exclude=["depth"], progress=False)
    settings: dict[str, Any] = {"teacher": teacher, "batch_size": 2, "threads": 1, "signals": "none"}
    depthsieve.label(tmp_path / "m.parquet", tmp_path / "labels", progress=False, **settings)
    assert label().labelled == 1
    with pytest.raises(UsageError, match="is a manifest, and lists what to label"):
        depthsieve.label(tmp_path / "m.parquet", tmp_path / "labels", exclude=["rgb"], **settings)


def test_transparency_is_told_respected_or_ignored_and_remembered(tmp_path: Path, label: Any) -> None:
    alpha_HW = np.full((120, 90), 255)
    alpha_HW[:40] = 0
    write_rgba(tmp_path / "photos" / "part.png", alpha_HW)
    write_rgba(tmp_path / "photos" / "zero.png", np.zeros((120, 90)))
    summary = label()
    assert summary.notes == (
        "1 image with transparent parts, such as default/part.png: labelled as if over white; what is hidden has "
        "reliability 0 (in a new store, --alpha ignore takes the colours as they are)",
    )
    respected = open_store(tmp_path / "labels")
    assert (respected.label("default/part.png").reliability == 0).mean() > 0.3
    assert (respected.label("default/zero.png").reliability > 0).all()
    assert label("ignored", alpha="ignore").notes == ()
    ignored = open_store(tmp_path / "ignored")
    assert (ignored.label("default/part.png").reliability > 0).all()
    assert np.array_equal(ignored.label("default/zero.png").depth, respected.label("default/zero.png").depth)
    assert ignored.spec.alpha == "ignore" and ignored.fingerprint != respected.fingerprint
    assert any("--alpha ignore" in note for note in label("ignored").notes)  # taken from the store
    with pytest.raises(StoreMismatch, match="alpha"):
        label(alpha="ignore")
    with pytest.raises(UsageError, match="alpha must be one of respect, ignore"):
        label("third", alpha="white")


def test_the_photo_of_a_label_and_the_stored_image_ignore_transparency_too(tmp_path: Path, label: Any) -> None:
    alpha_HW = np.full((120, 90), 255)
    alpha_HW[:40] = 0
    write_rgba(tmp_path / "photos" / "part.png", alpha_HW)
    for alpha, white in (("respect", True), ("ignore", False)):
        label(alpha, alpha=alpha)
        dataset = depthsieve.PseudoLabelDataset(tmp_path / alpha, drop=0.1)
        top_3HW = np.asarray(dataset[0]["image"])[:, :8]
        assert bool((top_3HW == 1).all()) == white
        assert label(alpha, store_images=True).stored_now == 1
        stored = depthsieve.PseudoLabelDataset(tmp_path / alpha, drop=0.1, images="stored")
        assert bool((np.asarray(stored[0]["image"])[:, :8] > 0.97).all()) == white


def test_16_bits_of_which_few_are_used_are_told(tmp_path: Path, label: Any) -> None:
    write_depth(tmp_path / "photos" / "a.png")
    write_depth(tmp_path / "photos" / "b.png")
    told = [note for note in label().notes if "16 bits a channel" in note]
    assert told == [
        "2 images of 16 bits a channel, such as default/a.png: less than a quarter of the range is used, labelled "
        "nearly black; scale them so that white is 65535, and label them again"
    ]
