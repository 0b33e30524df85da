"""Images of an object store are fetched ahead of the lanes, side by side, and within bounds."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from patience import PATIENCE_S, wait_for

from depthsieve.core.errors import ImageRejected
from depthsieve.core.records import ImageRecord
from depthsieve.labelling import ahead
from depthsieve.labelling.ahead import FetchedAhead, fetched_ahead


class Slow:
    """A source in a bucket whose reads wait until they are let through."""

    root = "s3://bucket/photos"

    def __init__(self, through: bool = False) -> None:
        self.asked: list[str] = []
        self.gate = threading.Event()
        if through:
            self.gate.set()

    def read(self, image_id: str) -> bytes:
        self.asked.append(image_id)
        assert self.gate.wait(PATIENCE_S)
        if "torn" in image_id:
            raise OSError(5, "torn")
        return image_id.encode()

    def is_there(self) -> bool:
        return True


def images(*names: str, size: int = 1000) -> list[ImageRecord]:
    return [ImageRecord(f"far/{name}", size, 0, 8, 8) for name in names]


def test_what_comes_next_is_fetched_side_by_side(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ahead, "FETCHES", 4)
    source = Slow()
    fetched = FetchedAhead(source, images(*map(str, range(20))))  # type: ignore[arg-type]
    with ThreadPoolExecutor(1) as lane:
        first = lane.submit(fetched.read, "far/0")
        wait_for(lambda: len(source.asked) == 4, "four fetches at once")
        source.gate.set()
        assert first.result() == b"far/0"
    assert [fetched.read(f"far/{number}") for number in range(1, 20)] == [b"far/%d" % n for n in range(1, 20)]
    fetched.close()
    assert sorted(source.asked) == sorted(f"far/{number}" for number in range(20))


def test_no_more_than_so_many_bytes_wait_to_be_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ahead, "AHEAD_BYTES", 2500)
    source = Slow(through=True)
    fetched = FetchedAhead(source, images("0", "1", "2", "3", "4"))  # type: ignore[arg-type]
    assert fetched.read("far/0") == b"far/0"
    wait_for(lambda: len(source.asked) == 3, "two images wait")
    assert fetched.read("far/1") == b"far/1"
    wait_for(lambda: len(source.asked) == 4, "one more is fetched for each that is decoded")
    fetched.close()
    assert len(source.asked) == 4


def test_an_image_out_of_order_and_one_larger_than_the_bound_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ahead, "AHEAD_BYTES", 10)
    fetched = FetchedAhead(Slow(through=True), images("0", "torn", "2"))  # type: ignore[arg-type]
    assert fetched.read("far/2") == b"far/2"
    with pytest.raises(OSError, match="torn"):
        fetched.read("far/torn")
    assert fetched.read("far/0") == b"far/0"
    fetched.close()


def test_only_sources_in_an_object_store_are_fetched_ahead() -> None:
    far, near = Slow(through=True), Slow(through=True)
    near.root = "/data/photos"
    sources = {"far": far, "near": near}
    with fetched_ahead(sources, images("0", "1")) as ready:  # type: ignore[arg-type]
        assert ready["near"] is near
        assert ready["far"].read("far/1") == b"far/1" and ready["far"].is_there()
    assert not near.asked and sorted(far.asked) == ["far/0", "far/1"]
    with fetched_ahead({"far": far}, images("0")):  # type: ignore[dict-item]
        pass  # a run that is stopped before its first image fetches none
    assert len(far.asked) == 2


class Film:
    """A source of two frames that fail and others that do not, on this machine's disk."""

    root = "/films"

    def __init__(self) -> None:
        self.asked: list[str] = []

    def read(self, image_id: str) -> bytes:
        self.asked.append(image_id)
        if image_id.endswith(("3", "4")):
            raise ImageRejected(f"{image_id} is damaged")
        return image_id.encode()

    def is_there(self) -> bool:
        return True


def test_frames_of_a_video_are_read_in_order_once_and_fail_where_they_are_asked_for() -> None:
    film = Film()
    ids = [f"far/clip.mp4::{number:06d}" for number in range(8)]
    shard = [*images(*(one.removeprefix("far/") for one in ids)), *images("photo.jpg")]
    with fetched_ahead({"far": film}, shard) as ready:  # type: ignore[dict-item]
        assert ready["far"].read(ids[5]) == ids[5].encode()
        assert film.asked == ids[:6]
        for number in (4, 3):
            with pytest.raises(ImageRejected, match=f"00000{number} is damaged"):
                ready["far"].read(ids[number])
        assert ready["far"].read("far/photo.jpg") == b"far/photo.jpg"
        assert [ready["far"].read(ids[number]) for number in (0, 7, 1, 2, 6)]
        assert film.asked == [*ids[:6], "far/photo.jpg", *ids[6:]]
