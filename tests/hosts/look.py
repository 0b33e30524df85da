"""What a stranger, and a neighbour, can see of a host: open ports, and where a secret lies.

The first half runs on the stranger's host, as a script: it reads questions from standard input and prints answers.
"""

import contextlib
import json
import os
import re
import select
import shlex
import socket
import stat
import struct
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hosts.lab import Host

ANSWER_S = 5.0
WORKER = "ray::RayWorker"


def open_ports(host: str) -> list[int]:
    """The TCP ports of ``host`` that take a connection."""
    found: list[int] = []
    for first in range(1, 65536, 1024):
        waiting = {}
        poll = select.poll()
        for port in range(first, min(first + 1024, 65536)):
            probe = socket.socket()
            probe.setblocking(False)
            probe.connect_ex((host, port))
            poll.register(probe, select.POLLOUT)
            waiting[probe.fileno()] = (port, probe)
        while waiting and (ready := poll.poll(2000)):
            for number, _ in ready:
                port, probe = waiting.pop(number)
                if probe.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == 0:
                    found.append(port)
                poll.unregister(number)
                probe.close()
        for _, probe in waiting.values():
            probe.close()
    return found


def grpc_status(host: str, port: int, method: str) -> str:
    """What a gRPC server says to an empty call without any token: a status (0 well, 12 no such method, 16 no token)."""
    headers = {":method": "POST", ":scheme": "http", ":path": method, ":authority": "x", "te": "trailers"}
    headers["content-type"] = "application/grpc"
    block = b"".join(b"\0" + _text(name) + _text(value) for name, value in headers.items())
    call = _frame(4, 0, 0, b"") + _frame(1, 4, 1, block) + _frame(0, 1, 1, bytes(5))
    status = rb"grpc-status(?:\x01|\x02(?=\d\d))(\d+)"
    return _say(host, port, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + call, status)


def http_status(host: str, port: int, method: str, path: str) -> str:
    """The status of a plain HTTP call."""
    call = f"{method} {path} HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n"
    return _say(host, port, call.encode(), rb"HTTP/1.1 (\d+) ")


def _text(text: str) -> bytes:
    return bytes([len(text)]) + text.encode()


def _frame(kind: int, flags: int, stream: int, data: bytes) -> bytes:
    return struct.pack(">I", len(data))[1:] + bytes([kind, flags]) + struct.pack(">I", stream) + data


def _say(host: str, port: int, call: bytes, status: bytes) -> str:
    """Send a call, and find the status in the answer by a regular expression."""
    got = b""
    with contextlib.suppress(OSError), socket.create_connection((host, port), timeout=ANSWER_S) as talk:
        talk.sendall(call)
        while more := talk.recv(65536):
            got += more
            if found := re.search(status, got):
                return found[1].decode()
    return f"no status: {got!r}"


# from outside of a host, with the rights of its owner


def doors(host: "Host") -> dict[int, str]:
    """The TCP ports at which its processes listen for others than itself, and the process at each."""
    sockets = {}
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/{host.pid}/net/{table}").read_text().splitlines()[1:]:
            fields = line.split()
            address, _, port = fields[1].partition(":")
            if fields[3] == "0A" and not address.endswith("0100007F"):
                sockets[f"socket:[{fields[9]}]"] = int(port, 16)
    found = {}
    for pid, command in host.processes().items():
        for descriptor in Path(f"/proc/{pid}/fd").glob("*"):
            with contextlib.suppress(OSError):
                if (port_here := sockets.get(str(descriptor.readlink()))) is not None:
                    found[port_here] = process_name(command)
    return found


def process_name(command: str) -> str:
    """How a process is called in docs/cluster/security.md."""
    if command.startswith("ray::"):
        return command.partition(".")[0].replace("ray::IDLE", WORKER)
    first, *words = (Path(word).name for word in shlex.split(command))
    if "depthsieve" in words[:-1]:
        return f"depthsieve {words[words.index('depthsieve') + 1]}"
    name = next(word for word in words if word.endswith(".py")) if first.startswith("python") else first
    return WORKER if name in ("setup_worker.py", "default_worker.py") else name


def own_files(host: "Host") -> Iterator[tuple[str, os.stat_result]]:
    """All files and folders of its own disk and its shared memory, by their paths there."""
    root = host.path("/")
    for top in (root, host.path("/dev/shm")):
        device = top.stat().st_dev
        for folder, folders, names in os.walk(top):
            folders[:] = [name for name in folders if os.lstat(f"{folder}/{name}").st_dev == device]
            for name in [*folders, *names]:
                with contextlib.suppress(FileNotFoundError):
                    yield "/" + os.path.relpath(f"{folder}/{name}", root), os.lstat(f"{folder}/{name}")


def files_with(host: "Host", secret: str) -> dict[str, int]:
    """The files of its own disk that a secret is in, and their modes."""
    found = {}
    for path, status in own_files(host):
        if stat.S_ISREG(status.st_mode):
            with contextlib.suppress(FileNotFoundError):
                if secret.encode() in host.path(path).read_bytes():
                    found[path] = stat.S_IMODE(status.st_mode)
    return found


def open_to_others(host: "Host", right: int) -> list[str]:
    """What of its own disk users other than the owner have a right to (``stat.S_IROTH`` or ``stat.S_IWOTH``), through
    folders that they may enter. Folders in which all may write, but not remove what is another's, do not count."""
    found, closed = [], []
    for path, status in own_files(host):
        if any(path.startswith(folder) for folder in closed):
            continue
        if stat.S_ISDIR(status.st_mode) and not status.st_mode & stat.S_IXOTH:
            closed.append(path + "/")
            continue
        sticky = stat.S_ISDIR(status.st_mode) and status.st_mode & stat.S_ISVTX
        if status.st_mode & right and not stat.S_ISLNK(status.st_mode) and not sticky:
            found.append(path)
    return found


def memory_holds(pid: int, secret: str) -> bool:
    """Whether a secret is anywhere in what a process has written to memory."""
    needle = secret.encode()
    with Path(f"/proc/{pid}/maps").open() as maps, Path(f"/proc/{pid}/mem").open("rb", buffering=0) as memory:
        for line in maps:
            span, rights, *_ = line.split()
            first, _, last = span.partition("-")
            if rights.startswith("rw"):
                with contextlib.suppress(OSError, ValueError, OverflowError):
                    memory.seek(int(first, 16))
                    if needle in memory.read(int(last, 16) - int(first, 16)):
                        return True
    return False


def environment_holds(pid: int, secret: str) -> bool:
    """Whether a secret is in what a process was given as its environment."""
    with contextlib.suppress(OSError):
        return secret.encode() in Path(f"/proc/{pid}/environ").read_bytes()
    return False


if __name__ == "__main__":
    words = {"open_ports": open_ports, "grpc_status": grpc_status, "http_status": http_status}
    for question in sys.stdin:
        what, *arguments = json.loads(question)
        print(json.dumps(words[what](*arguments)), flush=True)
