"""Work done ahead by threads: its order, its bounds, and how it ends."""

import os
import random
import signal
import subprocess
import sys
import threading
import time
import weakref

import pytest
from patience import PATIENCE_S

from depthsieve.core.errors import LoaderError
from depthsieve.training.engine import Job, ahead


def our_threads():
    return [thread for thread in threading.enumerate() if thread.name.startswith("depthsieve-loader")]


def job(number, pieces=3, work=lambda number, piece: None):
    made = []

    def piece(place):
        work(number, place)
        made.append(place)

    return Job(pieces, piece, (number, made))


class Broken(Exception):
    pass


@pytest.mark.parametrize("threads", [1, 2, 5])
@pytest.mark.parametrize("count", [1, 3])
def test_results_come_in_order_and_whole(threads, count):
    def work(number, piece):
        time.sleep(random.Random(number * 7 + piece).random() / 500)

    results = list(ahead((job(n, 1 + n % 4, work) for n in range(30)), threads, count))
    assert [number for number, _ in results] == list(range(30))
    assert [sorted(made) for _, made in results] == [list(range(1 + n % 4)) for n in range(30)]
    assert our_threads() == []


@pytest.mark.parametrize("count", [1, 2, 4])
def test_no_more_is_begun_than_said(count):
    begun = []

    def jobs():
        for number in range(20):
            begun.append(number)
            yield job(number)

    results = ahead(jobs(), 2, count)
    for taken in range(1, 21):
        next(results)
        assert len(begun) == min(taken + count, 20)
    with pytest.raises(StopIteration):
        next(results)


def test_while_one_result_is_used_the_next_ones_are_made():
    others = threading.Event()

    def work(number, piece):
        if number == 2:
            others.set()

    results = ahead((job(n, 1, work) for n in range(3)), 1, 2)
    next(results)
    assert others.wait(PATIENCE_S)  # though nobody asked for it
    results.close()


def test_pieces_of_one_job_are_shared_by_the_threads():
    both = threading.Barrier(2, timeout=PATIENCE_S)
    ((number, made),) = ahead([job(0, 2, lambda number, piece: both.wait())], 2, 1)  # alone each would wait for ever
    assert (number, sorted(made)) == (0, [0, 1])


@pytest.mark.parametrize("threads", [1, 3])
def test_an_error_comes_in_its_place_and_is_that_of_the_first_piece(threads):
    def work(number, piece):
        if number == 3 and piece in (2, 3):
            time.sleep(0.02 if piece == 2 else 0)
            raise Broken(piece)

    results = ahead((job(n, 6, work) for n in range(9)), threads, 4)
    assert [next(results)[0] for _ in range(3)] == [0, 1, 2]
    with pytest.raises(Broken) as caught:
        next(results)
    assert caught.value.args == (2,)
    assert our_threads() == []
    assert next(results, None) is None


def test_an_error_between_jobs_comes_in_its_place_too():
    def jobs():
        yield job(0)
        yield job(1)
        raise Broken("no third job")

    results = ahead(jobs(), 2, 4)
    assert [next(results)[0], next(results)[0]] == [0, 1]
    with pytest.raises(Broken, match="no third job"):
        next(results)
    assert our_threads() == []


@pytest.mark.parametrize("way", ["close", "del", "raise"])
def test_threads_end_with_the_iterator(way):
    done = []
    results = ahead((job(n, 2, lambda number, piece: done.append(number)) for n in range(10_000)), 3, 2)
    next(results)
    assert our_threads()
    if way == "close":
        results.close()
    elif way == "del":
        del results
    else:
        with pytest.raises(Broken):
            results.throw(Broken())
    assert our_threads() == []
    assert max(done) <= 2


def test_an_interrupt_while_waiting_ends_the_threads_and_is_raised():
    def work(number, piece):
        time.sleep(0.1)  # until the other thread waits
        os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        next(ahead([job(0, 1, work)], 1, 1))
    assert our_threads() == []


def test_over_ten_thousand_jobs_nothing_is_kept():
    class Batch:
        pass

    alive = weakref.WeakSet()

    def jobs():
        for _ in range(10_000):
            batch = Batch()
            alive.add(batch)
            yield Job(1, lambda piece: None, batch)

    most = 0
    for number, _ in enumerate(ahead(jobs(), 2, 3)):
        if number % 100 == 0:
            most = max(most, len(alive))
            assert len(our_threads()) <= 2
    # Three under way, one in use, and those that the two threads may just be leaving.
    assert most <= 6
    assert our_threads() == []


EXIT = """
import time
from depthsieve.training.engine import Job, ahead
results = ahead((Job(1, lambda piece: time.sleep(0.01), n) for n in range(10**9)), 2, 3)
print(next(results), flush=True)
{end}
"""


@pytest.mark.parametrize(("end", "code"), [("", 0), ("raise SystemExit(7)", 7), ("1 / 0", 1)])
def test_the_program_ends_though_a_pass_was_left_early(end, code):
    script = EXIT.format(end=end)
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=PATIENCE_S, check=False
    )
    assert (done.returncode, done.stdout) == (code, "0\n")
    assert ("ZeroDivisionError" in done.stderr) == (code == 1)
    assert "Exception ignored" not in done.stderr


def test_a_process_that_is_forked_meanwhile_is_told_and_can_begin_anew():
    results = ahead((job(n) for n in range(50)), 2, 4)
    assert next(results)[0] == 0
    child = os.fork()
    if child == 0:
        code = 1
        try:
            signal.alarm(int(PATIENCE_S))
            try:
                next(results)
            except LoaderError as error:
                anew = [number for number, _ in ahead((job(n) for n in range(5)), 2, 2)]
                code = 0 if "begin a new one" in str(error) and anew == list(range(5)) else 2
        finally:
            os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert [number for number, _ in results] == list(range(1, 50))
