"""Reaching a Ray cluster, or one clear line within seconds; and private sessions that leave nothing behind."""

import contextlib
import json
import os
import re
import secrets
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from labelled import decided_bytes, write_photos
from patience import PATIENCE_S, wait_for
from poison import poison, poisoned
from ray.exceptions import ActorDiedError, NodeDiedError, OutOfMemoryError, RayError, RaySystemError

import depthsieve
from depthsieve.core import lifelines
from depthsieve.core.errors import RunError
from depthsieve.runners import ray as ray_module
from depthsieve.runners import ray_session
from depthsieve.runners.ray_session import check_address, check_answer
from depthsieve.runners.ray_worker import death_of
from depthsieve.runners.slots import Slot

SCRIPT = """
import json, sys
import depthsieve
from depthsieve.core import lifelines
from depthsieve.core.errors import DepthsieveError
source, store, options = *sys.argv[1:3], json.loads(sys.argv[3])
options |= {"batch_size": 1, "threads": 1, "progress": False}
try:
    summary = depthsieve.label(source, store, **options)
except DepthsieveError as error:
    print(json.dumps(f"{type(error).__name__}: {error}"))
else:
    print(json.dumps([summary.labelled_now, {f.id: f.reason for f in summary.failed}, list(summary.errors)]))
"""


@pytest.fixture(scope="module")
def teacher(light: str) -> Path:
    return Path(light)


@pytest.fixture
def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def start(photos: Path, store: Path, environment: dict[str, str], **options: object) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", SCRIPT, str(photos), str(store), json.dumps(options)]
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=os.environ | environment
    )


def answer(process: subprocess.Popen[str]) -> object:
    """What the script printed."""
    with process:
        try:
            out, err = process.communicate(timeout=PATIENCE_S)
        except BaseException:
            process.kill()
            raise
    assert process.returncode == 0, err
    return json.loads(out)  # one line, whatever died


def sessions_of(pid: int) -> list[Path]:
    return list(Path("/tmp").glob(f"dsray-{pid}-*"))


def processes_mentioning(text: str) -> list[str]:
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            command = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            if text in command:
                found.append(f"{folder.name}: {command}")
    return found


# addresses


@pytest.mark.parametrize("address", ["nonsense", "host:", ":6379", "ray://", "host:port", "http://host"])
def test_what_is_no_address_is_refused(address: str) -> None:
    with pytest.raises(RunError, match=rf"^cannot reach Ray at {address}: an address is HOST:PORT, ray://HOST:PORT"):
        check_address(address)


@pytest.mark.parametrize("scheme", ["", "ray://"])
def test_an_address_at_which_nobody_answers_is_refused_at_once(free_port: int, scheme: str) -> None:
    with pytest.raises(RunError, match=rf"^cannot reach Ray at {scheme}127.0.0.1:{free_port}: Connection refused$"):
        check_address(f"{scheme}127.0.0.1:{free_port}")


def test_a_host_that_does_not_exist_is_refused() -> None:
    with pytest.raises(RunError, match=r"^cannot reach Ray at no-such-host\.invalid:6379: "):
        check_address("no-such-host.invalid:6379")


@pytest.mark.parametrize(("mode", "refused"), [(None, True), ("disabled", True), ("token", False), ("k8s", False)])
def test_a_cluster_elsewhere_must_ask_for_a_token(
    monkeypatch: pytest.MonkeyPatch, mode: str | None, refused: bool
) -> None:
    """The server stands here, so whether it does is turned round."""
    monkeypatch.delenv("RAY_AUTH_MODE", raising=False)
    if mode:
        monkeypatch.setenv("RAY_AUTH_MODE", mode)
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
        check_address(address)  # ours
        monkeypatch.setattr(ray_session, "_is_here", lambda ip: not real(ip))
        with pytest.raises(RunError, match=r"must ask for a token.*RAY_AUTH_MODE=token") if refused else nothing():
            check_address(f"ray://{address}")  # for which this machine need not be a node


real = ray_session._is_here


@contextlib.contextmanager
def nothing() -> Iterator[None]:
    yield


def test_what_is_here_and_what_is_not() -> None:
    assert real("127.0.0.1")
    assert not real("198.51.100.1")  # a block for documentation (RFC 5737)


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    """Takes connections, since the kernel does, and answers only where the test does."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server


@pytest.mark.parametrize("scheme", ["", "ray://"])
def test_what_takes_connections_and_is_silent_is_refused(
    listener: socket.socket, monkeypatch: pytest.MonkeyPatch, scheme: str
) -> None:
    """As a head that hangs: Ray itself would try for minutes."""
    monkeypatch.setattr(ray_session, "CONNECT_S", 0.5)
    address = f"{scheme}127.0.0.1:{listener.getsockname()[1]}"
    words = r"it takes connections, but has not answered in 0 s; is it Ray's port, and is the head up\?$"
    with pytest.raises(RunError, match=rf"^cannot reach Ray at auto \({address}\): {words}"):
        check_answer(address, "auto")


@pytest.mark.parametrize(
    ("answer", "is_ray"), [(b"HTTP/1.0 400 Bad request\r\n\r\n", False), (b"\0\0\x06\x04\0\0\0\0\0", True)]
)
def test_what_listens_and_is_no_ray_is_refused(listener: socket.socket, answer: bytes, is_ray: bool) -> None:
    def greet() -> None:
        taken, _ = listener.accept()
        with taken:
            assert taken.recv(64)[:3] == b"PRI"
            taken.sendall(answer)

    greeting = threading.Thread(target=greet)
    greeting.start()
    with nothing() if is_ray else pytest.raises(RunError, match="something else listens there; is it the port of"):
        check_answer(f"127.0.0.1:{listener.getsockname()[1]}")
    greeting.join()


@pytest.mark.parametrize(
    ("named", "last", "running", "found"),
    [
        ("10.0.0.1:6379", "10.0.0.2:6379", {"10.0.0.3:6379"}, "10.0.0.1:6379"),
        ("auto", "10.0.0.2:6379\n", {"10.0.0.3:6379"}, "10.0.0.2:6379"),
        (None, None, {"10.0.0.3:6379"}, "10.0.0.3:6379"),
        ("", "", set(), None),
        (None, None, set(), None),
    ],
)
def test_what_auto_stands_for(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    named: str | None,
    last: str | None,
    running: set[str],
    found: str | None,
) -> None:
    """Of the processes of this machine, which may have any Ray, only what Ray finds is replaced."""
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path))
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    if named is not None:
        monkeypatch.setenv("RAY_ADDRESS", named)
    if last is not None:
        (tmp_path / "ray").mkdir()
        (tmp_path / "ray" / "ray_current_cluster").write_text(last)
    monkeypatch.setattr(ray_session.ray_services, "find_gcs_addresses", lambda: running)
    assert ray_session._found("10.0.0.9:6379") == "10.0.0.9:6379"
    if found is not None:
        assert ray_session._found("auto") == found
        return
    with pytest.raises(RunError, match=r"^cannot reach Ray at auto: this machine is no node of a cluster \(/"):
        ray_session._found("auto")


@pytest.mark.slow
def test_clusters_that_do_not_let_one_in_are_one_line_in_seconds(tmp_path: Path, teacher: Path, free_port: int) -> None:
    """One that asks for a token, with none, another and the right one; and none at all, for "auto".

    The right one lets a whole run through, from its start to its end: no refusal may take ten times as long, as Ray's
    own patience of minutes would.
    """
    photos = write_photos(tmp_path / "photos", 2)
    token = secrets.token_hex(32)
    base = {"HOME": str(tmp_path / "home"), "RAY_USAGE_STATS_ENABLED": "0"}
    Path(base["HOME"]).mkdir()
    with_token = base | {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": token}
    folder = tempfile.mkdtemp(prefix="r-", dir="/tmp")
    head = [str(Path(sys.executable).parent / "ray"), "start", "--head", "--block", "--num-cpus=1"]
    head += ["--port=0", "--dashboard-agent-listen-port=0", "--min-worker-port=0", "--max-worker-port=0"]
    head += [f"--temp-dir={folder}", "--include-dashboard=false", "--node-ip-address=127.0.0.1"]
    options = {"teacher": str(teacher), "runner": "ray", "workers": 1}
    nobody = base | {"RAY_ADDRESS": f"127.0.0.1:{free_port}"}  # else "auto" would find whatever Ray this machine has
    auto, of_auto = timed_answer(start(photos, tmp_path / "auto", nobody, address="auto", **options))
    assert isinstance(auto, str) and auto.startswith(f"RunError: cannot reach Ray at auto (127.0.0.1:{free_port}): ")
    refusals = [of_auto]
    with subprocess.Popen(head, env=os.environ | with_token, stdout=subprocess.DEVNULL, start_new_session=True) as ray:
        try:
            wait_for((Path(folder) / "ray_current_cluster").exists, "the cluster is up")
            address = (Path(folder) / "ray_current_cluster").read_text()
            asks = "it asks for a token, and none or another one is set here; set RAY_AUTH_MODE=token and the cluster's"
            refused = f"RunError: cannot reach Ray at {address}: {asks} RAY_AUTH_TOKEN or RAY_AUTH_TOKEN_PATH"
            for number, wrong in enumerate((base, base | {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "0" * 64})):
                process = start(photos, tmp_path / f"refused {number}", wrong, address=address, **options)
                told, seconds = timed_answer(process)
                assert told == refused
                refusals.append(seconds)
            let_in, of_whole = timed_answer(start(photos, tmp_path / "let in", with_token, address=address, **options))
            assert let_in == [2, {}, []]
            assert max(refusals) < 10 * of_whole
        finally:
            ray.terminate()
            ray.wait(timeout=PATIENCE_S)
            wait_for(lambda: not processes_mentioning(folder), "the cluster is down")
            subprocess.run(["rm", "-rf", folder], check=True)


def timed_answer(process: subprocess.Popen[str]) -> tuple[object, float]:
    """What the script printed, and how long it took."""
    start = time.monotonic()
    return answer(process), time.monotonic() - start


# private sessions


@pytest.mark.slow
def test_a_driver_killed_with_9_leaves_no_process_and_the_next_run_removes_its_folder(
    tmp_path: Path, teacher: Path
) -> None:
    photos = write_photos(tmp_path / "photos", 12)
    poison(tmp_path / "bugs", photos / "photo 9.png", "wait")
    options = {"teacher": str(teacher), "runner": "ray", "workers": 2, "shard_size": 1}
    environment = {"HOME": str(tmp_path), "TMPDIR": str(tmp_path)}
    process = start(photos, tmp_path / "store", poisoned(tmp_path / "bugs") | environment, **options)
    with process:
        wait_for(lambda: list((tmp_path / "store" / "commits").glob("0000-*.json")), "a shard is committed")
        process.send_signal(signal.SIGKILL)
    (folder,) = sessions_of(process.pid)
    wait_for(lambda: not processes_mentioning(folder.name), "all is gone")
    assert len(list((tmp_path / "store" / "commits").glob("0000-*.json"))) < 12
    depthsieve.label(
        photos, tmp_path / "local", teacher=str(teacher), batch_size=1, threads=1, shard_size=1, progress=False
    )
    again = start(photos, tmp_path / "store", environment, **options)
    result = answer(again)
    assert isinstance(result, list)
    assert result[1:] == [{}, []]
    assert not folder.exists()
    assert decided_bytes(tmp_path / "store") == decided_bytes(tmp_path / "local")


def test_a_session_of_a_run_that_lives_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    with tempfile.TemporaryDirectory(dir="/tmp", prefix="b") as base:
        monkeypatch.setattr(ray_session.tempfile, "gettempdir", lambda: base)
        stale, strange = Path(base) / "dsray-1-ab", Path(base) / "dsray-2-cd"
        stale.mkdir()
        (stale / "lock").touch()
        strange.mkdir()
        with ray_session._session_folder() as first, ray_session._session_folder() as second:
            assert re.fullmatch(rf"{base}/dsray-{os.getpid()}-[0-9a-f]{{4}}", first)
            assert {path.name for path in Path(base).iterdir()} == {Path(first).name, Path(second).name, strange.name}
        assert list(Path(base).iterdir()) == [strange]


@pytest.mark.slow
def test_an_image_that_ends_workers_is_named_and_all_others_are_labelled(tmp_path: Path, teacher: Path) -> None:
    """The real thing: a decoder that crashes at one image, in two workers and then in isolation."""
    photos = write_photos(tmp_path / "photos", 4)
    poison(tmp_path / "bugs", photos / "photo 3.png", "SIGSEGV")
    options = {"teacher": str(teacher), "runner": "ray", "workers": 2, "shard_size": 2}
    environment = poisoned(tmp_path / "bugs") | {"HOME": str(tmp_path), "TMPDIR": str(tmp_path)}
    labelled = answer(start(photos, tmp_path / "store", environment, **options))
    reason = "ends the process that decodes it (signal 11, SIGSEGV)"
    assert labelled == [3, {"default/photo 3.png": reason}, []]


# deaths


def died(cause: str, preempted: bool = False) -> ActorDiedError:
    error = ActorDiedError()
    error.error_msg = f"The actor died unexpectedly before finishing this task.\n\tpid: 5\n\tip: 10.0.0.2\n{cause}"
    error._preempted = preempted
    return error


DIED = "The actor is dead because its worker process has died. Worker exit type:"
END = "Worker unexpectedly exits with a connection error code 2. End of file."
KILLED = f"{DIED} SYSTEM_ERROR Worker exit detail: {END} Some common causes include: (1) the OOM killer, (2)"
EXITED = f"{DIED} SYSTEM_ERROR Worker exit detail: Worker exits with an exit code 2."
TERMINATED = f"{DIED} SYSTEM_ERROR Worker exit detail: exit code 1. The process receives a SIGTERM."
FULL = f"{DIED} NODE_OUT_OF_MEMORY Worker exit detail: low on memory."
OF_ITS_NODE = "The actor died because its node has died."
OF_ITS_OWNER = "The actor is dead because its owner has died."


@pytest.mark.parametrize(
    ("error", "blames", "reason"),
    [
        (died(KILLED), True, f"{END} (node 10.0.0.2)"),
        (died(EXITED), True, "Worker exits with an exit code 2. (node 10.0.0.2)"),
        (died(TERMINATED), False, "exit code 1. The process receives a SIGTERM. (node 10.0.0.2)"),
        (died(FULL), False, "low on memory. (node 10.0.0.2)"),
        (died(KILLED, preempted=True), False, f"{END} (node 10.0.0.2)"),
        (died(f"{OF_ITS_NODE} Node Id: {'0a' * 28}"), False, f"{OF_ITS_NODE} (node 10.0.0.2)"),
        (died(OF_ITS_OWNER), False, f"{OF_ITS_OWNER} (node 10.0.0.2)"),
        (OutOfMemoryError("1 worker(s) were killed, low on memory."), False, "1 worker(s) were killed, low on memory."),
        (NodeDiedError("the node\nis gone"), False, "the node is gone"),
    ],
)
def test_deaths_are_told_apart(error: RayError, blames: bool, reason: str) -> None:
    death = death_of(error)
    assert (death.reason, death.blames) == (reason, blames)


def test_an_actor_whose_creation_is_cancelled_is_as_good_as_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ray says so of one that its head had not registered yet; it ended the run."""

    def cancelled(actor: object) -> None:
        raise RaySystemError("Actor creation cancelled")

    monkeypatch.setattr(ray_module.ray, "kill", cancelled)
    driver, slot = object.__new__(ray_module._Driver), Slot(actor="pending", ready=True)
    driver._calls = {}
    driver._vacate(slot)
    assert slot.actor is None and not slot.ready


def test_users_of_a_folder_end_with_the_process_that_asked_for_it_even_by_sigkill(tmp_path: Path) -> None:
    """As Ray's agents do not: they have left the process tree, and their names and environments are overwritten."""
    code = f"""
import subprocess, sys, time
from depthsieve.core.lifelines import ending_users_of
with ending_users_of({str(tmp_path / "session")!r}):
    user = "import sys, time; file = open(sys.argv[1] + '/log', 'w'); print('open', flush=True); time.sleep(600)"
    stays = subprocess.Popen([sys.executable, "-c", user, sys.argv[1]], start_new_session=True)
    time.sleep(600)
"""
    (tmp_path / "session").mkdir()
    (tmp_path / "session two").mkdir()
    users = [
        subprocess.Popen([sys.executable, "-c", code, str(folder)], stdout=subprocess.PIPE, text=True)
        for folder in (tmp_path / "session", tmp_path / "session two")
    ]
    try:
        for user in users:
            assert user.stdout is not None and user.stdout.readline() == "open\n"
        assert len(lifelines._users_of(str(tmp_path / "session"))) == 1
        for user in users:
            user.kill()
            user.wait()
        wait_for(lambda: not lifelines._users_of(str(tmp_path / "session")), "it has ended")
        assert len(lifelines._users_of(str(tmp_path / "session two"))) == 1  # not below the folder, whatever its name
    finally:
        for pid in lifelines._users_of(str(tmp_path / "session two")):
            os.kill(pid, signal.SIGKILL)
        for user in users:
            assert user.stdout is not None
            user.stdout.close()


def test_the_process_that_asked_for_it_is_spared_and_goes_on(tmp_path: Path) -> None:
    (tmp_path / "session").mkdir()
    with (tmp_path / "session" / "lock").open("w"):
        with lifelines.ending_users_of(str(tmp_path / "session")):
            user = (
                "import sys, time; file = open(sys.argv[1] + '/log', 'w'); print('open', flush=True); time.sleep(600)"
            )
            command = [sys.executable, "-c", user, str(tmp_path / "session")]
            child = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
            assert child.stdout is not None and child.stdout.readline() == "open\n"
        assert child.wait(PATIENCE_S) == -signal.SIGKILL
        child.stdout.close()
