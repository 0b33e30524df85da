"""What there is to label: a source without a single image makes nothing, and is named for what it is."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from labelled import small_teacher, write_photo, write_photos

import depthsieve
from depthsieve.core.errors import SourceError


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(small_teacher(tmp_path_factory.mktemp("teacher") / "t"))


def label(source: Path, store: Path, teacher: str, name: str = "default") -> depthsieve.LabelSummary:
    return depthsieve.label(source, store, teacher=teacher, batch_size=2, threads=1, progress=False, name=name)


def mistaken(folder: Path, kind: str) -> Path:
    path = folder / kind
    if kind == "filtered.parquet":
        depthsieve.scan([folder / "photos"], folder / "m.parquet", progress=False)
        pq.write_table(pa.Table.from_pylist(pq.read_table(folder / "m.parquet").to_pylist()), path)
    elif kind == "broken":
        path.mkdir()
        for name in ("a.jpg", "b.png"):
            (path / name).write_bytes(b"no image")
    elif kind == "wide":
        write_photo(path / "a.png", 9000, 70, seed=1)
    else:
        path.write_bytes(b"filename\nphotos/a.jpg\n")
    return path


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("files.csv", "is a table, not an image; a list of images is a text file .* called .txt"),
        ("film.M4V", "is a video, whose frames are read if its name ends in .mp4"),
        ("filtered.parquet", "looks like a manifest of `depthsieve scan` that has lost its metadata"),
        ("thesis.pdf", "no image in .*thesis.pdf: "),
        ("broken", "none of 2 files in .*broken can be labelled; the first is .*/a.jpg: "),
    ],
)
def test_a_source_without_an_image_makes_nothing_and_the_right_one_is_taken_after(
    tmp_path: Path, teacher: str, kind: str, words: str
) -> None:
    photos, store = write_photos(tmp_path / "photos", 2), tmp_path / "store"
    source = mistaken(tmp_path, kind)
    with pytest.raises(SourceError, match=f"{words}.*; nothing was written$") as caught:
        label(source, store, teacher)
    assert "\n" not in str(caught.value) and not store.exists()
    assert label(photos, store, teacher).labelled == 2
    with pytest.raises(SourceError, match=words):
        label(source, store, teacher, name="second")
    assert depthsieve.open_store(store).sources() == {"default": str(photos)}


def test_images_that_the_teacher_cannot_label_make_nothing_either(tmp_path: Path, teacher: str) -> None:
    source = write_photo(tmp_path / "wide" / "a.png", 90_000, 2, seed=1).parent
    with pytest.raises(SourceError, match=r"none of the 1 images in .*wide has a size that the teacher can label"):
        label(source, tmp_path / "store", teacher)
    assert not (tmp_path / "store").exists()


def test_a_known_source_may_hold_nothing_but_broken_files(tmp_path: Path, teacher: str) -> None:
    photos, store = write_photos(tmp_path / "photos", 1), tmp_path / "store"
    label(photos, store, teacher)
    (photos / "photo 0.png").rename(tmp_path / "aside.png")
    (photos / "broken.png").write_bytes(b"no image")
    summary = label(photos, store, teacher)
    assert (summary.labelled, len(summary.failed), summary.gone) == (1, 1, 1)
