"""What a run on a cluster waits for, and when it ends for want of that: with a clock of the test's own."""

from collections.abc import Iterator
from typing import Any

import pytest

from depthsieve.core.errors import RunError, RunInterrupted
from depthsieve.core.records import RESUME, ShardTask
from depthsieve.core.waiting import WAITS, Waited
from depthsieve.runners.slots import Slot
from depthsieve.runners.staffing import ClusterOffer, Need
from depthsieve.runners.vigil import ISOLATION_PATIENCE, QUIET_S, Vigil

START = 1000.0
PLACE = "node 10.0.0.2, process 7"


@pytest.fixture
def cluster() -> list[ClusterOffer]:
    """What the cluster has now, at its end."""
    return [ClusterOffer(((4, 0),))]


@pytest.fixture
def vigil(cluster: list[ClusterOffer]) -> Iterator[Vigil]:
    made = Vigil(Need(2, 0.0), 600.0, 1800.0, lambda: cluster[-1], START)
    yield made
    made.close()
    assert lines(START) == []


def lines(now: float) -> list[str]:
    return [wait.line(now) for wait in WAITS.now()]


def pending() -> Slot:
    return Slot(actor="pending")


def loading() -> Slot:
    return Slot(actor="here", where=PLACE)


def ready(shard_id: str | None = None, **more: Any) -> Slot:
    slot = Slot(actor="here", where=PLACE, ready=True, **more)
    if shard_id is not None:
        slot.window.append(("call", ShardTask(shard_id)))
    return slot


def test_a_first_worker_that_finds_no_room_is_told_of_with_numbers_and_ends_the_run_at_its_limit(
    vigil: Vigil, cluster: list[ClusterOffer]
) -> None:
    why = "each needs 2 CPUs, and the largest of 2 nodes has 1 CPU; --threads 1 would fit"
    cluster.append(ClusterOffer(((0, 0), (1, 0))))
    vigil.look([pending()], False, START + 4)
    ends = "the run ends in 596 s, exit code 4, unless one starts"
    assert lines(START + 4) == [f"waiting for a Ray worker for 4 s: {why}; {ends}"]
    vigil.look([pending()], False, START + 600)
    with pytest.raises(RunInterrupted) as caught:
        vigil.look([pending()], False, START + 600.1)
    assert str(caught.value) == f"no Ray worker for 600 s: {why}; {RESUME}"


def test_why_is_looked_at_again_and_a_death_is_named(vigil: Vigil, cluster: list[ClusterOffer]) -> None:
    vigil.look([pending()], False, START + 1)
    assert "for 1 s: Ray is starting one; " in lines(START + 1)[0]
    vigil.lost("low on memory")
    cluster.append(ClusterOffer(((4, 0),), ((0.0, 0.0),)))
    vigil.look([Slot()], False, START + 4)
    busy = "each needs 2 CPUs, and no node has more than 0 CPUs free: others use this cluster"
    assert f"for 4 s: {busy}; the last one ended: low on memory; " in lines(START + 4)[0]


def test_a_worker_that_loads_its_teacher_is_there_and_may_take_longer(vigil: Vigil) -> None:
    vigil.look([pending()], False, START + 100)
    for now in (START + 101, START + 700, START + 1900):
        assert len(vigil.look([loading()], False, now)) == 1
    (line,) = lines(START + 1900)
    assert line == (
        f"waiting for a Ray worker for 1900 s: the one on {PLACE} loads the teacher; "
        "the run ends in 0 s if that goes on"
    )
    with pytest.raises(RunError, match=rf"^no Ray worker has made progress for 1800 s; look at {PLACE}$") as caught:
        vigil.look([loading()], False, START + 1901)
    assert not isinstance(caught.value, RunInterrupted)


def test_the_limit_counts_from_when_the_last_worker_was_there(vigil: Vigil) -> None:
    vigil.heard(START + 5000)
    vigil.look([ready("a")], False, START + 5000)
    assert lines(START + 5000) == []
    vigil.look([Slot()], False, START + 5600)
    (line,) = lines(START + 5600)
    assert line.startswith("waiting for a Ray worker for 600 s: ")
    assert line.endswith("the run ends in 0 s, exit code 4, unless one starts")
    vigil.look([ready("a")], False, START + 5601)  # just in time
    assert lines(START + 5601) == []
    vigil.look([Slot()], False, START + 6200)
    with pytest.raises(RunInterrupted):
        vigil.look([Slot()], False, START + 6202)


def test_one_ready_worker_is_enough(vigil: Vigil) -> None:
    vigil.heard(START + 5000)
    vigil.look([pending(), ready("a"), Slot()], False, START + 5000)
    assert lines(START + 5000) == []


def test_a_worker_in_doubt_is_named(vigil: Vigil) -> None:
    vigil.look([ready("a", doubt=OSError())], False, START + 4)
    assert f"the one on {PLACE} cannot be reached, and Ray finds out whether it lives" in lines(START + 4)[0]


def test_a_run_that_stops_waits_for_nobody(vigil: Vigil) -> None:
    vigil.look([Slot()], True, START + 5000)
    assert lines(START + 5000) == []


def test_workers_without_progress_are_told_of_and_end_the_run(vigil: Vigil) -> None:
    slots = [ready("0000-0001"), ready("0000-0002")]
    now = START
    for now in (START + 1, START + QUIET_S / 2, START + QUIET_S):
        vigil.look(slots, False, now)
    (wait,) = WAITS.now()
    assert wait.tell_s == QUIET_S
    assert wait.line(now) == (
        f"waiting for any Ray worker to make progress for 60 s: look at shard 0000-0001 on {PLACE} and 1 more; "
        "the run ends in 1740 s if that goes on"
    )
    vigil.heard(START + QUIET_S)
    vigil.look(slots, False, START + QUIET_S + 1)
    assert WAITS.now() == []
    named = f"shard 0000-0001 on {PLACE}, shard 0000-0002 on {PLACE}"
    with pytest.raises(RunError, match=rf"^no Ray worker has made progress for 1800 s; look at {named}$"):
        vigil.look(slots, False, START + QUIET_S + 1801)


def test_isolation_takes_longer(vigil: Vigil) -> None:
    slots = [ready("a", isolates=True)]
    vigil.look(slots, False, START + 1800 * ISOLATION_PATIENCE)
    with pytest.raises(RunError, match=r"for 14400 s"):
        vigil.look(slots, False, START + 1800 * ISOLATION_PATIENCE + 1)


def test_what_workers_wait_for_is_told_of_once(vigil: Vigil) -> None:
    def waits(age_s: float) -> tuple[Waited, ...]:
        return (Waited("s3://labels", "it answered 503", "gives up in {left}", age_s, 180 - age_s),)

    slots = [ready("a", waits=waits(5)), ready("b", waits=waits(9))]
    vigil.look(slots, False, START + 10)
    line = "waiting for s3://labels on a worker for 9 s: it answered 503; gives up in 171 s"
    assert lines(START + 10) == [line]
    slots[0].waits = waits(8)
    slots[1].waits = ()
    vigil.look(slots, False, START + 13)  # the same trouble goes on
    assert lines(START + 13) == ["waiting for s3://labels on a worker for 12 s: it answered 503; gives up in 172 s"]
    slots[0].waits = ()
    vigil.look(slots, False, START + 14)
    assert lines(START + 14) == []
