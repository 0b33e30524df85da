"""What an interrupted run says of the work that it threw away."""

from pathlib import Path

import pytest
from commandline import command
from labelled import small_teacher, write_photos

import depthsieve
from depthsieve.runners import dispatch
from depthsieve_cli.label import _print_summary


def test_images_of_unfinished_shards_are_counted_as_discarded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    teacher, photos = str(small_teacher(tmp_path / "teacher")), write_photos(tmp_path / "photos", 12)
    stop, done = depthsieve.Stop(grace_s=0), dict[str, int]()
    genuine = dispatch._Progress.on_images

    def on_images(self: dispatch._Progress, shard_id: str, images: int) -> None:
        genuine(self, shard_id, images)
        done[shard_id] = images
        stop.request()

    monkeypatch.setattr(dispatch._Progress, "on_images", on_images)
    options = {"batch_size": 1, "threads": 1, "progress": False}
    summary = depthsieve.label(photos, tmp_path / "store", teacher=teacher, stop=stop, **options)  # type: ignore[arg-type]
    assert (summary.interrupted, summary.labelled, summary.pending) == (True, 0, 12)
    discarded = sum(done.values())
    assert 0 < summary.discarded == discarded < 12

    _print_summary(summary)
    err = capsys.readouterr().err
    assert f"Interrupted: 12 images left, {discarded} of them discarded with a shard that was not finished;" in err
    monkeypatch.undo()
    assert command(monkeypatch, "label", photos, tmp_path / "store", "--json") == 0
    assert depthsieve.status(tmp_path / "store").labelled == 12
