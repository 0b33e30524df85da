"""The head of a cluster that falls silent: told of, waited for, and the end of the run before Ray ends the process."""

import socket
import threading

import pytest
from patience import wait_for

from depthsieve.core.errors import RunInterrupted
from depthsieve.core.records import RESUME
from depthsieve.core.waiting import WAITS
from depthsieve.runners import head as head_module
from depthsieve.runners.head import PATIENCE_S, Head

RAYS_OWN_S = 60.0
"""After which Ray ends a process whose head is gone."""

PLACE = "the head of the Ray cluster at 10.0.0.1:6379"


def test_a_head_that_falls_silent_is_told_of_and_ends_the_run_at_its_limit() -> None:
    head = Head("10.0.0.1:6379")
    head.note(True, 100.0)
    head.check(10_000.0)  # it answered last
    assert not head.silent
    head.note(False, 102.0)
    head.note(False, 104.0)
    assert head.silent
    (wait,) = WAITS.now()
    assert wait.line(104.0) == f"waiting for {PLACE} for 4 s; the run ends in 41 s, exit code 4, unless it answers"
    head.check(100.0 + PATIENCE_S)
    with pytest.raises(RunInterrupted) as caught:
        head.check(100.1 + PATIENCE_S)
    assert str(caught.value) == f"{PLACE} has not answered for 45 s; {RESUME}"
    head.note(True, 150.0)
    assert not head.silent and WAITS.now() == []
    head.check(1000.0)
    assert PATIENCE_S + head_module.LOOK_S * 2 < RAYS_OWN_S


def test_one_without_an_address_always_answers() -> None:
    with Head().watched() as head:
        assert not head.silent
        head.check(1e9)


def test_it_is_asked_while_it_is_watched(monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that greets as Ray does, and then is stopped."""
    monkeypatch.setattr(head_module, "LOOK_S", 0.05)
    greeted = threading.Event()
    server = socket.create_server(("127.0.0.1", 0))

    def greet() -> None:
        while True:
            try:
                taken, _ = server.accept()
            except OSError:
                return
            with taken:
                taken.recv(64)
                taken.sendall(b"\0\0\x06\x04\0\0\0\0\0")
            greeted.set()

    greeting = threading.Thread(target=greet)
    greeting.start()
    with Head(f"127.0.0.1:{server.getsockname()[1]}").watched() as head:
        wait_for(greeted.is_set)
        wait_for(lambda: not head.silent)
        server.shutdown(socket.SHUT_RDWR)
        server.close()
        wait_for(lambda: head.silent, "it is found to be silent")
    greeting.join()
    assert WAITS.now() == []


def test_tls_is_left_to_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_USE_TLS", "1")
    before = threading.active_count()
    with Head("127.0.0.1:9").watched() as head:
        assert threading.active_count() == before
        assert not head.silent
