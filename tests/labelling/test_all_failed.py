"""A batch in which no image can be read: it is named, and the run goes on."""

from pathlib import Path

from labelled import label, write_photos

from depthsieve.planning.summary import ImageFailure


def test_a_batch_of_one_broken_image_ends_no_run(tmp_path: Path) -> None:
    photos = write_photos(tmp_path / "photos", 1)
    assert label(photos, tmp_path / "labels", "tiny", runner="local").labelled == 1  # reliability by a network
    whole = (photos / "photo 0.png").read_bytes()
    (photos / "broken.png").write_bytes(whole[: len(whole) // 2])
    (failure,) = label(photos, tmp_path / "labels", "tiny", runner="local").failed
    assert isinstance(failure, ImageFailure)
    assert (failure.id, "truncated" in failure.reason) == ("default/broken.png", True), failure
