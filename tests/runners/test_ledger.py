"""What the ledger of a Ray run makes of deaths, without Ray."""

from collections.abc import Iterator

import pytest

from depthsieve.core.errors import RunError
from depthsieve.core.records import ShardResult, ShardTask
from depthsieve.runners import ledger
from depthsieve.runners.ledger import Death, Ledger

CRASH = Death("exit code 1", blames=True)
LOSS = Death("the node is gone", blames=False)
A, B, C = (ShardTask(name) for name in "abc")


def test_it_pulls_no_more_than_it_is_told_to_hold() -> None:
    pulled = []

    def tasks() -> Iterator[ShardTask]:
        for number in range(10):
            pulled.append(number)
            yield ShardTask(str(number), isolate=number == 1)

    book = Ledger(tasks())
    book.refill(3)
    assert pulled == [0, 1, 2]
    assert [task.shard_id for task in book.queue] == ["0", "2"]
    assert [task.shard_id for task in book.poison] == ["1"]
    book.refill(3)
    assert len(pulled) == 3
    book.refill(99)
    assert len(pulled) == 10
    book.queue.clear()
    book.poison.clear()
    assert not book.waiting


def test_only_the_shard_that_a_worker_was_at_is_a_suspect() -> None:
    book = Ledger(iter([C]))
    book.refill(1)
    assert book.bury(CRASH, [A, B], workers=2) is None
    assert list(book.queue) == [B, C, A]  # the innocent one first, the suspect last
    assert book.bury(CRASH, [B, C], workers=2) is None
    assert not book.poison
    assert book.bury(CRASH, [A], workers=2) is None
    assert list(book.poison) == [ShardTask("a", isolate=True)]


def test_losses_blame_no_shard_but_are_not_endless() -> None:
    book = Ledger(iter(()))
    for _ in range(ledger.MOST_LOSSES - 1):
        assert book.bury(LOSS, [A], workers=8) is None
        assert book.queue.pop() == A
    given_up = book.bury(LOSS, [A], workers=8)
    assert given_up is not None
    assert given_up.error == "20 Ray workers died while working on it, the last: the node is gone"
    assert not book.queue


def test_a_shard_that_kills_isolating_workers_too_is_given_up() -> None:
    book = Ledger(iter(()))
    task = A
    for _ in range(3):
        assert book.bury(CRASH, [task], workers=8) is None
        task = (book.poison or book.queue).pop()
    given_up = book.bury(CRASH, [task], workers=8)
    assert given_up is not None
    assert given_up.error == "4 Ray workers died while working on it, the last: exit code 1"
    assert not (book.queue or book.poison)


@pytest.mark.parametrize(("death", "most"), [(CRASH, 7), (LOSS, 70)])
def test_deaths_in_a_row_end_the_run_and_a_result_ends_the_row(death: Death, most: int) -> None:
    book = Ledger(iter(()))
    for _ in range(2):
        for _ in range(most):
            book.bury(death, [], workers=1)
        assert book.finish(ShardResult("z")).shard_id == "z"
    for number in range(most):
        book.bury(death, [ShardTask(str(number))], workers=1)
    with pytest.raises(
        RunError, match=rf"^{most + 1} Ray workers died one after another .*; the last: {death.reason}$"
    ):
        book.bury(death, [A], workers=1)


def test_what_is_given_up_does_not_end_the_row() -> None:
    """Else workers that all die would go through all shards, a few at each."""
    book = Ledger(iter(()))
    with pytest.raises(RunError, match="one after another"):
        for number in range(100):
            for _ in range(4):
                book.bury(CRASH, [ShardTask(str(number))], workers=1)


def test_notes_come_with_the_next_result_and_once() -> None:
    book = Ledger(iter(()))
    book.bury(LOSS, [A], workers=1)
    book.bury(LOSS, [A], workers=1)
    note = "a Ray worker died while working on shard a, which is retried: the node is gone"
    assert book.finish(ShardResult("a", 3, notes=("own",))) == ShardResult("a", 3, notes=("own", note))
    assert book.finish(ShardResult("b")).notes == ()


def test_a_result_clears_the_suspicion() -> None:
    book = Ledger(iter(()))
    book.bury(CRASH, [A], workers=1)
    book.finish(ShardResult("a"))
    book.bury(CRASH, [A], workers=1)
    assert not book.poison
