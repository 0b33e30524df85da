"""The first process of a host: its own files and network, then a wait for the end of the lab.

It runs in new namespaces, as process 1. Standard input is the lab's lifeline: when it closes the host ends.
"""

import contextlib
import fcntl
import json
import os
import signal
import socket
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

NEW_ROOT = Path("/sys")
"""Where the new file system is put together: a folder that each machine has and no host needs of the old one."""

SYSTEM = ("bin", "etc", "lib", "lib32", "lib64", "sbin", "usr")
DEVICES = ("null", "zero", "full", "random", "urandom")
TUNSETIFF, IFF_TAP, IFF_NO_PI = 0x400454CA, 0x0002, 0x1000


def main() -> None:
    """Become a host as the settings in the first argument say, and be one until the lab ends."""
    settings: dict[str, Any] = json.loads(sys.argv[1])
    socket.sethostname(settings["name"])
    tap = _network(settings["ip"], settings["mac"])
    _files(settings["seen"], settings["disk_mb"])
    with socket.socket(fileno=settings["lab"]) as lab:
        socket.send_fds(lab, [b"up"], [tap])
    os.close(tap)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # the kernel buries whoever is left to process 1
    sys.stdin.read()


def _network(ip: str, mac: str) -> int:
    """A card, of which the lab holds the other end: what is returned has its frames."""
    tap = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(tap, TUNSETIFF, struct.pack("16sH22x", b"eth0", IFF_TAP | IFF_NO_PI))
    with contextlib.suppress(OSError):
        Path("/proc/sys/net/ipv6/conf/all/disable_ipv6").write_text("1")
    _do("ip", "link", "set", "lo", "up")
    _do("ip", "link", "set", "eth0", "address", mac, "up")
    _do("ip", "addr", "add", f"{ip}/24", "dev", "eth0")
    return tap


def _files(seen: list[str], disk_mb: int) -> None:
    """A disk of its own; of the machine's files only the system's and those in ``seen``, and none can be written."""
    _mount("tmpfs", NEW_ROOT, size=f"{disk_mb}m")
    for name in SYSTEM:
        old = Path("/", name)
        if old.is_symlink():
            (NEW_ROOT / name).symlink_to(old.readlink())
        elif old.is_dir():
            _show(old)
    for name in ("proc", "sys", "dev/shm", "tmp", "var/tmp", "run", "home/op"):
        (NEW_ROOT / name).mkdir(parents=True)
    for name in ("tmp", "var/tmp"):
        (NEW_ROOT / name).chmod(0o1777)
    (NEW_ROOT / "home/op").chmod(0o700)
    for folder in seen:
        _show(Path(folder))
    for name in DEVICES:
        (NEW_ROOT / "dev" / name).touch()
        _do("mount", "--bind", f"/dev/{name}", str(NEW_ROOT / "dev" / name))
    (NEW_ROOT / "dev/fd").symlink_to("/proc/self/fd")
    (NEW_ROOT / "hosts").touch()
    _do("mount", "--bind", str(NEW_ROOT / "hosts"), str(NEW_ROOT / "etc/hosts"))
    _mount("proc", NEW_ROOT / "proc")
    _mount("sysfs", NEW_ROOT / "sys")
    _mount("tmpfs", NEW_ROOT / "dev/shm", size="1g")
    os.chdir(NEW_ROOT)
    _do("pivot_root", ".", ".")
    _do("umount", "--lazy", ".")
    os.chdir("/")


def _show(folder: Path) -> None:
    """``folder`` of the machine under the same name, to be read only."""
    here = NEW_ROOT / folder.relative_to("/")
    here.mkdir(parents=True, exist_ok=True)
    _do("mount", "--rbind", str(folder), str(here))
    flags = {os.ST_NOSUID: "nosuid", os.ST_NODEV: "nodev", os.ST_NOEXEC: "noexec"}  # in user namespaces they must stay
    kept = [name for flag, name in flags.items() if os.statvfs(here).f_flag & flag]
    _do("mount", "-o", ",".join(["remount", "bind", "ro", *kept]), str(here))


def _mount(kind: str, where: Path, **options: str) -> None:
    told = [word for name, value in options.items() for word in ("-o", f"{name}={value}")]
    _do("mount", "-t", kind, *told, kind, str(where))


def _do(*command: str) -> None:
    subprocess.run(command, check=True)


if __name__ == "__main__":
    main()
