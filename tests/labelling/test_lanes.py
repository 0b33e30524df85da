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

SMALL = [1] * 20
SPANS = [range(start, start + 2) for start in range(0, 20, 2)]
PATIENCE_S = 60.0
"""Longer than anything here takes on a busy machine: only what hangs waits for so long."""


class Seen:
    """Work on batches, and how much of it went on at once: the first ``at_once`` batches wait for each other."""

    def __init__(self, at_once: int = 1, broken: int | None = None) -> None:
        self.broken = broken
        self.lock = threading.Lock()
        self.now = self.most = 0
        self.begun: list[int] = []
        self.prepared: list[int] = []
        self.together = threading.Barrier(at_once)

    def prepare(self, row: int) -> int:
        with self.lock:
            self.prepared.append(row)
        return row * 10

    def work(self, span: range, prepared: list[int]) -> list[int]:
        with self.lock:
            self.now += 1
            self.most = max(self.most, self.now)
            self.begun.append(span.start)
            first = len(self.begun) <= self.together.parties
        if first:
            self.together.wait(PATIENCE_S)
        with self.lock:
            self.now -= 1
        if span.start == self.broken:
            raise ValueError(f"batch {span.start}")
        return prepared

    def run(self, lanes: Lanes) -> list[tuple[range, list[int]]]:
        return list(lanes.run(SPANS, SMALL, self.prepare, self.work))


def wait_until_all_are_begun(lanes: Lanes) -> None:
    """Until everything that the lanes and decoders were given has been begun: they take it in order."""
    for pool in (lanes._lanes, lanes._decoders):
        if pool is not None:
            pool.submit(lambda: None).result(PATIENCE_S)


@pytest.mark.parametrize("lanes", [Lanes(1), Lanes(3), Lanes(2, decoders=3)])
def test_as_many_batches_go_on_at_once_as_there_are_lanes_each_with_its_own_rows(lanes: Lanes) -> None:
    seen = Seen(at_once=lanes.count)
    assert seen.run(lanes) == [(span, [row * 10 for row in span]) for span in SPANS]
    assert seen.most == lanes.count
    assert sorted(seen.prepared) == list(range(20))


def test_batches_come_in_order_though_the_first_is_done_last() -> None:
    others = threading.Semaphore(0)

    def work(span: range, rows: list[int]) -> int:
        if span.start == 0:
            assert others.acquire(timeout=PATIENCE_S) and others.acquire(timeout=PATIENCE_S)
        else:
            others.release()
        return span.start

    done = list(Lanes(2).run(SPANS, SMALL, lambda row: row, work))
    assert done == [(span, span.start) for span in SPANS]


def run_with_another_waiting(lanes: Lanes, spans: list[range]) -> None:
    """Run the spans with the turn taken. The last batch ends when another thread has got the turn, which must not come
    before the last batches, one a lane, are all that is left."""
    passed, waiting = threading.Event(), threading.Event()

    def other() -> None:
        waiting.set()
        with lanes.turn.taken():
            passed.set()

    def work(span: range, rows: list[int]) -> None:
        if span == spans[-1]:
            assert passed.wait(PATIENCE_S)

    thread = threading.Thread(target=other)
    with lanes.turn.taken():
        thread.start()
        assert waiting.wait(PATIENCE_S)
        for done, _ in enumerate(lanes.run(spans, SMALL, lambda row: row, work), 1):
            assert (lanes.turn._holder == threading.get_ident()) == (done <= len(spans) - lanes.count)
        assert passed.is_set()
    thread.join(PATIENCE_S)
    assert not thread.is_alive()


@pytest.mark.parametrize("lanes", [Lanes(1), Lanes(3), Lanes(2, decoders=3)])
def test_the_turn_is_passed_on_when_the_last_batches_are_under_way(lanes: Lanes) -> None:
    run_with_another_waiting(lanes, SPANS)
    run_with_another_waiting(lanes, SPANS)  # and all is as at the start


def test_the_turn_is_passed_on_also_for_fewer_batches_than_lanes() -> None:
    run_with_another_waiting(Lanes(8), SPANS[:1])


def test_only_the_thread_that_has_the_turn_passes_it_on() -> None:
    lanes, seen = Lanes(2), Seen()
    taken, enough = threading.Event(), threading.Event()

    def hold() -> None:
        with lanes.turn.taken():
            taken.set()
            assert enough.wait(PATIENCE_S)

    def take() -> None:
        with lanes.turn.taken(), lanes.turn.taken():  # its own already
            got.set()

    got = threading.Event()
    threads = [threading.Thread(target=hold), threading.Thread(target=take)]
    threads[0].start()
    assert taken.wait(PATIENCE_S)
    threads[1].start()
    assert len(seen.run(lanes)) == len(SPANS)  # as a trial does, which takes no turn
    assert not got.wait(0.1)
    enough.set()
    assert got.wait(PATIENCE_S)
    for thread in threads:
        thread.join(PATIENCE_S)


@pytest.mark.parametrize("lanes", [Lanes(2), Lanes(2, decoders=2)])
def test_no_more_than_two_batches_a_lane_are_under_way(lanes: Lanes) -> None:
    seen = Seen()
    batches = lanes.run(SPANS, SMALL, seen.prepare, seen.work)
    next(batches)
    wait_until_all_are_begun(lanes)  # and nobody asks for more
    batches.close()
    assert sorted(seen.begun) == [0, 2, 4, 6]
    assert max(seen.prepared) == 7


@pytest.mark.parametrize("lanes", [Lanes(2), Lanes(2, decoders=2)])
def test_an_error_is_raised_and_nothing_goes_on_after_it(lanes: Lanes) -> None:
    seen = Seen(broken=4)
    with pytest.raises(ValueError, match="batch 4"):
        seen.run(lanes)
    begun = len(seen.begun)
    assert seen.now == 0 and begun < len(SPANS)
    wait_until_all_are_begun(lanes)
    assert len(seen.begun) == begun


def test_images_wait_until_there_is_room_to_decode_them_and_the_largest_goes_alone() -> None:
    lock = threading.Lock()
    for pixels, expected in ((10, 4), (50_000_000, 2), (500_000_000, 1)):
        begun = at_once = most = 0
        together = threading.Barrier(expected)

        def prepare(row: int, together: threading.Barrier = together) -> int:
            nonlocal begun, at_once, most
            with lock:
                begun += 1
                first = begun <= together.parties
                at_once += 1
                most = max(most, at_once)
            if first:
                together.wait(PATIENCE_S)
                time.sleep(0.05)  # in which others come in, if they may
            with lock:
                at_once -= 1
            return row

        list(Lanes(4).run(SPANS, [pixels] * 20, prepare, lambda span, rows: None))  # type: ignore[misc]
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
    lanes = lanes_of(OnGpu(), job, make_profile(load_teacher("tiny-v1"), 4, 1))  # type: ignore[arg-type]
    assert lanes.count == 2 and lanes._decoders is not None and lanes._decoders._max_workers == 5
