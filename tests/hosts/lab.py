"""Hosts, made and ended. See the package's docstring."""

import contextlib
import functools
import json
import os
import shlex
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Self

from patience import PATIENCE_S, wait_for

from hosts.wires import Switch, Wire

if TYPE_CHECKING:
    from hosts.bucket import Bucket

REPOSITORY = Path(__file__).parents[2]
TOOLS = ("unshare", "nsenter", "mount", "umount", "pivot_root", "ip")
SPACES = ("--net", "--mount", "--pid", "--uts", "--ipc")
AS_ROOT = () if os.geteuid() == 0 else ("--user", "--map-root-user")


@functools.cache
def missing() -> str | None:
    """What this machine lacks for a lab, or None."""
    if lacking := [tool for tool in TOOLS if shutil.which(tool) is None]:
        return f"a lab of hosts needs {', '.join(lacking)}"
    try:
        with Lab() as lab:
            lab.host("trial")
    except (OSError, subprocess.SubprocessError, AssertionError) as error:
        return f"a lab of hosts needs the right to make namespaces, mounts and network cards: {error}"
    return None


class Lab:
    """Some hosts and the switch between them."""

    def __init__(self) -> None:
        self.hosts: dict[str, Host] = {}
        self._switch = Switch()
        self._numbers = 9
        self._bucket: Bucket | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        for host in list(self.hosts.values()):
            host.power_off()
        self._switch.stop()

    def host(self, name: str, *, disk_mb: int = 2048) -> "Host":
        """A new host, or one that was switched off and comes back with an empty disk, under its old address."""
        self._numbers += 1
        host = Host(self, name, self._numbers, disk_mb)
        self._switch.plug(host.wire)
        self.hosts[name] = host
        self._tell()
        return host

    def bucket(self) -> "Bucket":
        """The lab's S3 server, started at the first call."""
        from hosts.bucket import Bucket

        self._bucket = self._bucket or Bucket(self.host("s3"))
        return self._bucket

    def forget(self, host: "Host") -> None:
        """Take a host that is off from the network."""
        self._switch.unplug(host.wire)
        self.hosts.pop(host.name, None)

    def _tell(self) -> None:
        names = "".join(f"{host.ip} {host.name}\n" for host in self.hosts.values())
        for host in self.hosts.values():
            host.path("/hosts").write_text(f"127.0.0.1 localhost\n{names}")


class Host:
    """One host. Its processes are root of their own file system."""

    def __init__(self, lab: Lab, name: str, number: int, disk_mb: int) -> None:
        self.name = name
        self.ip = f"10.77.0.{number}"
        self._lab = lab
        self._started: list[Process] = []
        mac = bytes([2, 0, 0, 0, 0, number])
        ours, theirs = socket.socketpair()
        with ours, theirs:
            settings = {"name": name, "ip": self.ip, "mac": mac.hex(":"), "disk_mb": disk_mb, "lab": theirs.fileno()}
            command = ["unshare", *AS_ROOT, *SPACES, "--propagation", "private", "--fork", "--kill-child"]
            boot = [sys.executable, "-m", "hosts.boot", json.dumps(settings | {"seen": environment_folders()})]
            self._unshare = subprocess.Popen(
                [*command, *boot],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                pass_fds=[theirs.fileno()],
                env=os.environ | {"PYTHONPATH": str(REPOSITORY / "tests")},
                start_new_session=True,
            )
            theirs.close()
            ours.settimeout(PATIENCE_S)
            _, taps, _, _ = socket.recv_fds(ours, 16, 1)
        if not taps:
            assert self._unshare.stderr is not None
            said = self._unshare.stderr.read().decode(errors="replace").strip()
            self._end()
            raise OSError(said.splitlines()[-1] if said else "a host did not start")
        self.wire = Wire(taps[0], mac)
        self.pid = _child(self._unshare.pid)

    @property
    def environment(self) -> dict[str, str]:
        """What each of its processes is given."""
        return {
            "HOME": "/home/op",
            "USER": "op",
            "LANG": "C.UTF-8",
            "PATH": f"{sys.prefix}/bin:/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin",
            "HF_HUB_OFFLINE": "1",
            "PYTHONDONTWRITEBYTECODE": "1",
            "RAY_USAGE_STATS_ENABLED": "0",
        }

    def path(self, path: str) -> Path:
        """A file or folder of this host, as it is reached from outside."""
        return Path(f"/proc/{self.pid}/root{path}")

    def start(self, *command: str, stdin: int | None = subprocess.DEVNULL, **environment: str) -> "Process":
        """Start a command, in /home/op."""
        self._started = [process for process in self._started if process.poll() is None]
        self._started.append(Process(self, command, stdin, self.environment | environment))
        return self._started[-1]

    def run(self, *command: str, timeout: float = PATIENCE_S, **environment: str) -> "subprocess.CompletedProcess[str]":
        """Wait for a command; ``stdout`` has its standard error, too. :class:`subprocess.TimeoutExpired` ends it."""
        return self.start(*command, **environment).ended(timeout)

    def skew(self, seconds: int) -> dict[str, str]:
        """An environment whose processes see a clock that is so much ahead. Needs gcc."""
        library = self.path("/tmp/skew.so")
        subprocess.run(
            ["gcc", "-shared", "-fPIC", "-O1", "-o", library, Path(__file__).with_name("skew.c")], check=True
        )
        return {"LD_PRELOAD": "/tmp/skew.so", "SKEW_S": str(seconds)}

    def processes(self) -> dict[int, str]:
        """The command lines of its processes but the first, by their ids outside."""
        space = Path(f"/proc/{self.pid}/ns/pid").readlink()
        found = {}
        for folder in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                if (folder / "ns/pid").readlink() == space and int(folder.name) != self.pid:
                    words = (folder / "cmdline").read_bytes().decode().rstrip("\0 ").split("\0")
                    found[int(folder.name)] = shlex.join(words) if len(words) > 1 else words[0]
        return found

    def power_off(self) -> None:
        """End all its processes at once, without a word to anybody; its disk is gone."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)
        self._end()
        self._lab.forget(self)

    def _end(self) -> None:
        assert self._unshare.stdin is not None and self._unshare.stderr is not None
        self._unshare.stdin.close()
        for process in self._started:
            process.wait()
            for pipe in filter(None, (process.stdin, process.stdout)):
                pipe.close()
        self._unshare.wait()
        self._unshare.stderr.close()


class Process(subprocess.Popen[str]):
    """A process of a host. Signals reach it, not the program that led it there."""

    def __init__(self, host: Host, command: tuple[str, ...], stdin: int | None, environment: dict[str, str]) -> None:
        self._output = os.memfd_create("output")
        enter = ["nsenter", *(["--user", "--preserve-credentials"] if AS_ROOT else []), f"--target={host.pid}"]
        super().__init__(
            [*enter, *SPACES, "--wdns=/home/op", *command],
            stdin=stdin,
            stdout=subprocess.PIPE if stdin == subprocess.PIPE else self._output,
            stderr=self._output,
            env=environment,
            text=True,
            start_new_session=True,
        )

    def __del__(self) -> None:
        os.close(self._output)
        super().__del__()

    @property
    def shown(self) -> str:
        """What it has printed so far; what only some characters were written of is replaced."""
        return os.pread(self._output, 1 << 24, 0).decode(errors="replace")

    @property
    def inner_pid(self) -> int:
        """Its process id outside of the host."""
        return _child(self.pid)

    def send_signal(self, number: int) -> None:
        """Send a signal to the process itself; nothing if it has ended."""
        if self.poll() is None:
            with contextlib.suppress(ProcessLookupError, FileNotFoundError):
                os.kill(self.inner_pid, number)

    def ended(self, timeout: float = PATIENCE_S) -> "subprocess.CompletedProcess[str]":
        """Wait for its end."""
        try:
            code = self.wait(timeout)
        except subprocess.TimeoutExpired:
            self.kill()
            self.wait()
            raise
        return subprocess.CompletedProcess(self.args, code, self.shown)


def _child(pid: int) -> int:
    """The one child of a process."""
    children = Path(f"/proc/{pid}/task/{pid}/children")
    wait_for(lambda: children.read_text().strip(), "a process that enters a host")
    return int(children.read_text().split()[0])


@functools.cache
def environment_folders() -> tuple[str, ...]:
    """The folders with Python, this repository and all packages; none within another."""
    asked = [sys.executable, "-I", "-c", "import sys; print(*sys.path, sep='\\n')"]
    packages = subprocess.run(asked, check=True, capture_output=True, text=True).stdout.splitlines()
    named = {Path(path).resolve() for path in (sys.prefix, sys.base_prefix, REPOSITORY, *packages)}
    outside = {path for path in named if path.is_dir() and not path.is_relative_to("/usr")}
    return tuple(sorted(str(path) for path in outside if not any(up in outside for up in path.parents)))
