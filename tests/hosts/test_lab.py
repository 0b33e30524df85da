"""The lab itself: hosts share nothing, wires do what they are told, and nothing outlives it."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from patience import wait_for

from hosts.lab import Host, Lab, missing

SERVE = """
import socket
server = socket.create_server(("0.0.0.0", 7000))
while True:
    with server.accept()[0] as talk:
        talk.sendall(b"hello")
"""
ASK = """
import socket, sys
try:
    print(socket.create_connection((sys.argv[1], 7000), timeout=float(sys.argv[2])).recv(9).decode())
except OSError as error:
    print(type(error).__name__, error)
"""


@pytest.fixture(scope="module")
def one(lab: Lab) -> Host:
    return lab.host("one")


@pytest.fixture(scope="module")
def two(lab: Lab) -> Host:
    host = lab.host("two")
    host.start(sys.executable, "-c", SERVE)
    return host


def ask(host: Host, other: str, timeout: float = 5) -> str:
    return host.run(sys.executable, "-c", ASK, other, str(timeout)).stdout.strip()


@pytest.fixture
def talking(one: Host, two: Host) -> None:
    wait_for(lambda: ask(one, "two") == "hello")


def test_hosts_share_no_files_no_processes_and_no_names(one: Host, two: Host, tmp_path: Path) -> None:
    for folder in ("/tmp", "/var/tmp", "/home/op", "/dev/shm"):
        assert one.run("touch", f"{folder}/mine").returncode == 0
        assert one.path(f"{folder}/mine").exists()
        assert not two.path(f"{folder}/mine").exists()
        assert not Path(f"{folder}/mine").exists()
    assert not one.path(str(tmp_path)).exists()
    assert one.run("touch", "/usr/mine", str(Path(__file__).with_name("mine"))).returncode == 1
    assert [one.run("hostname").stdout, two.run("hostname").stdout] == ["one\n", "two\n"]
    sleeps = one.start("sleep", "1000")
    wait_for(lambda: "sleep 1000" in one.processes().values())
    assert "sleep" not in one.run("cat", "/proc/1/cmdline").stdout
    assert "sleep" not in two.run("sh", "-c", "cat /proc/*/cmdline").stdout
    sleeps.kill()
    assert sleeps.wait() == -signal.SIGKILL
    assert "sleep 1000" not in one.processes().values()


@pytest.mark.usefixtures("talking")
def test_a_wire_that_is_down_or_muted_carries_nothing_until_it_is_up(one: Host, two: Host) -> None:
    two.wire.up = False
    assert "hello" not in ask(one, "two", 1)
    assert two.path("/sys/class/net/eth0/carrier").read_text() == "0\n"
    two.wire.up = True
    assert ask(one, "two") == "hello"
    one.wire.muted = True
    assert ask(one, "two", 1) == "TimeoutError timed out"
    assert one.path("/sys/class/net/eth0/carrier").read_text() == "1\n"
    one.wire.muted = False
    wait_for(lambda: ask(one, "two") == "hello")


@pytest.mark.usefixtures("talking")
def test_frames_are_late_and_lost_as_told(one: Host, two: Host) -> None:
    one.wire.delay_s, two.wire.delay_s = 0.1, 0.2
    start = time.monotonic()
    assert ask(one, "two") == "hello"
    assert time.monotonic() - start > 2 * 2 * 0.3  # to connect, and to hear
    one.wire.delay_s = two.wire.delay_s = 0.0
    two.wire.loss = 1.0
    assert "hello" not in ask(one, "two", 1)
    two.wire.loss = 0.2
    wait_for(lambda: ask(one, "two") == "hello")
    two.wire.loss = 0.0


def test_a_host_that_is_switched_off_takes_its_processes_with_it_and_can_come_back(lab: Lab) -> None:
    host = lab.host("three")
    sleeps = host.start("sleep", "1000")
    pid = sleeps.inner_pid
    host.path("/tmp/mine").touch()
    host.power_off()
    assert sleeps.wait() != 0
    assert not Path(f"/proc/{pid}").exists()
    again = lab.host("three")
    assert not again.path("/tmp/mine").exists()
    again.power_off()


def test_what_kills_a_lab_ends_all_of_it() -> None:
    if reason := missing():
        pytest.skip(reason)
    code = (
        "from hosts.lab import Lab; lab = Lab(); host = lab.host('one')\n"
        "process = host.start('sh', '-c', 'setsid sleep 1000 & sleep 1000')\n"
        "import time\n"
        "while len(host.processes()) < 3: time.sleep(0.02)\n"
        "print(host.pid, *host.processes(), flush=True); time.sleep(1000)"
    )
    mounts = Path("/proc/self/mounts").read_text()
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, env=environment) as made:
        assert made.stdout is not None
        pids = made.stdout.readline().split()
        made.kill()
    assert len(pids) == 4
    wait_for(lambda: not any(Path(f"/proc/{pid}").exists() for pid in pids))
    assert Path("/proc/self/mounts").read_text() == mounts
