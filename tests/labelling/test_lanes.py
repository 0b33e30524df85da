"""The worker's pipeline: batches in lanes, in order, bounded; and the same bytes however many lanes there are."""

import threading
import time
from pathlib import Path

import pytest
from labelled import decided_bytes, job_of, small_teacher, unlabelled_copy, write_photos

import depthsieve
from depthsieve.core.records import LabelJob
from depthsieve.labelling.lanes import Lanes
from depthsieve.labelling.numerics import make_profile, threads_a_lane
from depthsieve.labelling.shard import ShardLabeller, lanes_of
from depthsieve.store import open_store
from depthsieve.teachers import load_teacher

SPANS = [range(start, start + 2) for start in range(0, 20, 2)]


class Seen:
    """Work that takes a while, and how much of it went on at once."""

    def __init__(self, slow: int | None = None, broken: int | None = None) -> None:
        self.slow, self.broken = slow, broken
        self.lock = threading.Lock()
        self.now = self.most = 0
        self.begun: list[int] = []
        self.prepared: list[int] = []
        self.rooms: list[int] = []

    def prepare(self, row: int) -> int:
        with self.lock:
            self.prepared.append(row)
        return row * 10

    def work(self, span: range, prepared: list[int]) -> list[int]:
        with self.lock:
            self.now += 1
            self.most = max(self.most, self.now)
            self.begun.append(span.start)
        time.sleep(0.05 if span.start == self.slow else 0.005)
        with self.lock:
            self.now -= 1
        if span.start == self.broken:
            raise ValueError(f"batch {span.start}")
        return prepared

    def run(self, lanes: Lanes, pixels: int = 1) -> list[tuple[range, list[int]]]:
        batches = lanes.run(
            SPANS, lambda row: pixels, self.prepare, self.work, lambda: self.rooms.append(len(self.begun))
        )
        return list(batches)


@pytest.mark.parametrize("lanes", [Lanes(1), Lanes(3), Lanes(2, decoders=3)])
def test_batches_come_in_order_each_with_its_own_rows(lanes: Lanes) -> None:
    seen = Seen(slow=0)
    assert seen.run(lanes) == [(span, [row * 10 for row in span]) for span in SPANS]
    assert seen.most == lanes.count
    assert sorted(seen.prepared) == list(range(20))


@pytest.mark.parametrize("lanes", [Lanes(1), Lanes(3), Lanes(2, decoders=3)])
def test_room_is_made_once_when_the_last_batches_are_under_way(lanes: Lanes) -> None:
    seen = Seen()
    seen.run(lanes)
    assert len(seen.rooms) == 1
    assert len(SPANS) - lanes.count <= seen.rooms[0] <= len(SPANS)


def test_room_is_made_also_for_fewer_batches_than_lanes() -> None:
    called: list[bool] = []
    seen = Seen()
    list(Lanes(8).run(SPANS[:1], lambda row: 1, seen.prepare, seen.work, lambda: called.append(True)))
    assert called == [True]


@pytest.mark.parametrize("lanes", [Lanes(2), Lanes(2, decoders=2)])
def test_no_more_than_two_batches_a_lane_are_under_way(lanes: Lanes) -> None:
    seen = Seen()
    batches = lanes.run(SPANS, lambda row: 1, seen.prepare, seen.work, lambda: None)
    next(batches)
    time.sleep(0.2)  # nobody asks for more
    assert sorted(seen.begun) == [0, 2, 4, 6]
    assert max(seen.prepared) <= 7
    batches.close()
    assert sorted(seen.begun) == [0, 2, 4, 6]


@pytest.mark.parametrize("lanes", [Lanes(2), Lanes(2, decoders=2)])
def test_an_error_is_raised_and_nothing_goes_on_after_it(lanes: Lanes) -> None:
    seen = Seen(broken=4)
    with pytest.raises(ValueError, match="batch 4"):
        seen.run(lanes)
    begun = len(seen.begun)
    assert seen.now == 0 and begun < len(SPANS)
    time.sleep(0.05)
    assert len(seen.begun) == begun


def test_images_wait_until_there_is_room_to_decode_them_and_the_largest_goes_alone() -> None:
    at_once = most = 0
    lock = threading.Lock()

    def prepare(row: int) -> int:
        nonlocal at_once, most
        with lock:
            at_once += 1
            most = max(most, at_once)
        time.sleep(0.01)
        with lock:
            at_once -= 1
        return row

    for pixels, expected in ((10, 4), (50_000_000, 2), (500_000_000, 1)):
        most = 0
        list(Lanes(4).run(SPANS, lambda row, p=pixels: p, prepare, lambda span, rows: None, lambda: None))  # type: ignore[misc]
        assert most == expected


@pytest.mark.parametrize(
    ("cores", "images", "threads"), [(2, 1000, 1), (2, 1, 2), (8, 1000, 1), (64, 1000, 8), (8, 2, 4), (1, 0, 1)]
)
def test_threads_of_a_lane(cores: int, images: int, threads: int) -> None:
    assert threads_a_lane(cores, images) == threads


def test_the_bytes_are_the_same_however_many_lanes_a_worker_has(tmp_path: Path) -> None:
    teacher, photos = small_teacher(tmp_path / "t"), write_photos(tmp_path / "photos", 12)
    options = {"batch_size": 2, "threads": 2, "shard_size": 5, "signals": "flip", "progress": False}
    depthsieve.label(photos, tmp_path / "whole", teacher=str(teacher), **options)
    (generation,) = open_store(tmp_path / "whole").generations()
    assert generation.profile.threads == 1
    for cores in (1, 3):
        store = unlabelled_copy(tmp_path / "whole", tmp_path / f"{cores} cores")
        job = job_of(store, photos, teacher, cores)
        labeller = ShardLabeller(job)
        assert lanes_of(load_teacher(str(teacher)), job, generation.profile).count == cores
        for shard_id in open_store(store).pending():
            assert labeller(shard_id).error is None
        assert decided_bytes(store) == decided_bytes(tmp_path / "whole")


def test_a_gpu_has_two_lanes_and_a_decoder_a_core() -> None:
    class OnGpu:
        device = type("device", (), {"type": "cuda"})

    job = LabelJob("", None, "", (), (), cores=5)  # type: ignore[arg-type]
    lanes = lanes_of(OnGpu(), job, make_profile(load_teacher("tiny"), 4, 1))  # type: ignore[arg-type]
    assert lanes.count == 2 and lanes._decoders is not None and lanes._decoders._max_workers == 5
