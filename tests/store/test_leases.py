"""Leases: one holder at a time, the dead are seen to be dead, and nothing depends on clocks of two machines."""

import json
import os
import subprocess
import sys
import threading
from dataclasses import asdict, replace
from pathlib import Path

import pytest
from patience import wait_for

from depthsieve.core.errors import StoreBusy
from depthsieve.core.processes import Process, is_alive, started_at
from depthsieve.core.stopping import Stop
from depthsieve.core.waiting import WAITS
from depthsieve.storage import open_root
from depthsieve.store import leases as leases_module
from depthsieve.store.leases import Lease, Leases

ELSEWHERE = Process("node7", "0123456789ab", 4242, 99)


def hold(folder: Path, name: str, holder: Process, number: int = 0, sign: bool = True) -> Path:
    """A lease as another process would have it; returns its sign of life."""
    root = open_root(folder)
    root.write(f"leases/{name}.{number}.json", json.dumps({"holder": asdict(holder)}).encode())
    if sign:
        root.write(f"leases/alive-{holder.token}", b"")
    return folder / "leases" / f"alive-{holder.token}"


def ended_process() -> Process:
    child = subprocess.Popen([sys.executable, "-c", ""])
    started = started_at(child.pid)
    child.wait()
    return replace(Process.current(), pid=child.pid, started=started or 0)


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in (folder / "leases").iterdir() if not path.name.startswith("alive-"))


def test_only_one_holder_and_the_other_is_told_who(tmp_path: Path) -> None:
    child = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    try:
        holder = replace(Process.current(), pid=child.pid, started=started_at(child.pid) or 0)
        hold(tmp_path, "plan", holder)
        with Leases(open_root(tmp_path)) as mine:
            assert mine.take("plan") == holder
            with pytest.raises(StoreBusy, match=f"process {child.pid} on "):
                mine.take_or_raise("plan")
            assert mine.take("other") == Lease("other", 0)
    finally:
        child.communicate(b"\n")
    with Leases(open_root(tmp_path)) as mine:
        assert mine.take("plan") == Lease("plan", 1)


def test_a_dead_holder_is_taken_over_and_its_death_counted_until_the_thing_is_settled(tmp_path: Path) -> None:
    for number in range(2):
        hold(tmp_path, "0000-000001", ended_process(), number)
    with Leases(open_root(tmp_path)) as mine:
        lease = mine.take("0000-000001")
        assert lease == Lease("0000-000001", 2)
        mine.give_back(lease, settled=False)
        assert names(tmp_path) == ["0000-000001.0.json", "0000-000001.1.json"]
        again = mine.take("0000-000001")
        assert again == lease
        mine.give_back(lease, settled=True)
        assert names(tmp_path) == []
    assert list((tmp_path / "leases").iterdir()) == []


def test_a_number_used_again_is_not_taken_for_the_holder(tmp_path: Path) -> None:
    hold(tmp_path, "plan", replace(Process.current(), started=1))
    with Leases(open_root(tmp_path)) as mine:
        assert mine.take("plan") == Lease("plan", 1)


def test_a_holder_on_another_machine_lives_as_long_as_its_sign_is_renewed(tmp_path: Path) -> None:
    sign = hold(tmp_path, "plan", ELSEWHERE)
    with Leases(open_root(tmp_path)) as mine:
        assert mine.take("plan") == ELSEWHERE
        now = sign.stat().st_mtime
        os.utime(sign, (now - leases_module.STALE_S + 20, now - leases_module.STALE_S + 20))
        assert mine.take("plan") == ELSEWHERE
        os.utime(sign, (now - leases_module.STALE_S - 5, now - leases_module.STALE_S - 5))
        assert mine.take("plan") == Lease("plan", 1)


def test_a_holder_on_another_machine_without_a_sign_is_gone(tmp_path: Path) -> None:
    hold(tmp_path, "plan", ELSEWHERE, sign=False)
    with Leases(open_root(tmp_path)) as mine:
        assert mine.take("plan") == Lease("plan", 1)


def test_the_sign_is_renewed_and_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leases_module, "RENEW_S", 0.01)
    with Leases(open_root(tmp_path)):
        (sign,) = (tmp_path / "leases").glob("alive-*")
        os.utime(sign, (1, 1))
        wait_for(lambda: sign.stat().st_mtime > 1, "the sign is renewed")
    assert list((tmp_path / "leases").iterdir()) == []


def test_signs_of_those_who_died_with_nothing_in_hand_are_removed(tmp_path: Path) -> None:
    root = open_root(tmp_path)
    strangers = [ELSEWHERE, replace(ELSEWHERE, pid=7)]
    for process in (ended_process(), *strangers):
        root.write(f"leases/alive-{process.token}", b"")
    old = tmp_path / "leases" / f"alive-{strangers[1].token}"
    os.utime(old, (1, 1))
    with Leases(root):
        left = {path.name for path in (tmp_path / "leases").iterdir()}
        assert left == {f"alive-{Process.current().token}", f"alive-{ELSEWHERE.token}"}


def test_leases_of_the_dead_on_what_is_settled_are_forgotten(tmp_path: Path) -> None:
    for name, holder in (("0000-000001", ended_process()), ("0000-000002", ended_process()), ("plan", ended_process())):
        hold(tmp_path, name, holder)
    hold(tmp_path, "0000-000003", Process.current())
    with Leases(open_root(tmp_path)) as mine:
        mine.forget(lambda name: name in ("0000-000001", "0000-000003"))
        assert names(tmp_path) == ["0000-000002.0.json", "0000-000003.0.json", "plan.0.json"]


def test_a_torn_lease_holds_nobody_up(tmp_path: Path) -> None:
    open_root(tmp_path).write("leases/plan.0.json", b'{"hol')
    with Leases(open_root(tmp_path)) as mine:
        assert mine.take("plan") == Lease("plan", 1)


def test_of_many_that_take_over_from_the_dead_one_gets_it(tmp_path: Path) -> None:
    hold(tmp_path, "plan", ended_process())
    took: list[Lease | Process] = []
    start = threading.Barrier(8)

    def take() -> None:
        start.wait()
        took.append(leases.take("plan"))

    with Leases(open_root(tmp_path)) as leases:
        threads = [threading.Thread(target=take) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert took.count(Lease("plan", 1)) == 1
    assert took.count(Process.current()) == 7  # type: ignore[arg-type]


def test_processes_are_told_apart() -> None:
    me = Process.current()
    assert is_alive(me.token) is True
    assert is_alive(replace(me, started=me.started + 1).token) is False
    assert is_alive(ELSEWHERE.token) is None
    assert is_alive(f"{me.machine}-x") is None
    assert str(me) == f"process {os.getpid()} on {me.host}"
    assert Process.from_json(asdict(me)) == me


def test_a_process_that_ended_and_was_not_waited_for_is_dead() -> None:
    child = subprocess.Popen([sys.executable, "-c", ""])
    started = started_at(child.pid)
    wait_for(lambda: started_at(child.pid) is None, "the process has ended")
    assert is_alive(replace(Process.current(), pid=child.pid, started=started or 0).token) is False
    child.wait()


def test_a_holder_on_another_machine_that_gives_a_sign_of_life_is_not_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(leases_module, "SIGN_S", 0.01)
    sign = hold(tmp_path, "plan", ELSEWHERE)
    said: list[str] = []

    def renew() -> None:
        wait_for(lambda: said.extend(wait.what for wait in WAITS.now()) or said, "it is waited for")
        os.utime(sign, (sign.stat().st_mtime + 1,) * 2)

    renewing = threading.Thread(target=renew)
    renewing.start()
    with (
        Leases(open_root(tmp_path)) as mine,
        pytest.raises(StoreBusy, match="is being labelled by process 4242 on node7"),
    ):
        mine.take_or_raise("plan")
    renewing.join()
    assert set(said) == {"a sign of life of process 4242 on node7, which has leases on this store"}


def test_a_holder_on_another_machine_that_gives_none_is_waited_for_and_taken_over_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(leases_module, "SIGN_S", 0.01)
    monkeypatch.setattr(leases_module, "RENEW_S", 0.01)
    sign = hold(tmp_path, "plan", ELSEWHERE)
    now = sign.stat().st_mtime
    os.utime(sign, (now - leases_module.STALE_S + 0.5,) * 2)  # expires soon, by the clock of the disk
    with Leases(open_root(tmp_path)) as mine:
        assert mine.take("plan") == ELSEWHERE
        assert mine.take_or_raise("plan") == Lease("plan", 1)


def test_a_stop_ends_the_wait(tmp_path: Path) -> None:
    hold(tmp_path, "plan", ELSEWHERE)
    stop = Stop()
    stop.request()
    with Leases(open_root(tmp_path)) as mine:
        assert mine.outlived(ELSEWHERE, stop) is False


def test_a_holder_on_this_machine_is_known_at_once(tmp_path: Path) -> None:
    with Leases(open_root(tmp_path)) as mine:
        assert mine.outlived(Process.current()) is False
        assert mine.outlived(ended_process()) is True
        assert WAITS.now() == []
