"""Ray over hosts of a lab, started as docs/cluster/ray.md says: a head without work of its own, workers, a token."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hosts.lab import Host

PORT = 6379
OBJECT_STORE = 80_000_000
"""Bytes: labels do not pass through it, and Ray takes no less."""

TOKEN = "/home/op/.ray/auth_token"


class Cluster:
    """A running head; each process of Ray, and each driver, is given ``environment``."""

    def __init__(self, head: "Host") -> None:
        self.head = head
        self.address = f"{head.name}:{PORT}"
        self.environment = {"RAY_AUTH_MODE": "token"}
        _do(head, "sh", "-c", "umask 077; ray get-auth-token --generate", **self.environment)
        self.token = head.path(TOKEN).read_text()
        self._start(head, "--head", f"--port={PORT}", "--num-cpus=0")

    def join(self, host: "Host", cpus: int = 1, **environment: str) -> None:
        """Make a host a node of the cluster. Workers there inherit ``environment``, which leads to the bucket."""
        self.give_token(host)
        self._start(host, f"--address={self.address}", f"--num-cpus={cpus}", **environment)

    def give_token(self, host: "Host") -> None:
        """Let a host reach the cluster, as a driver."""
        host.path(TOKEN).parent.mkdir(mode=0o700, exist_ok=True)
        host.path(TOKEN).touch(mode=0o600)
        host.path(TOKEN).write_text(self.token)

    def _start(self, host: "Host", *options: str, **environment: str) -> None:
        size = f"--object-store-memory={OBJECT_STORE}"
        _do(host, "ray", "start", *options, size, **self.environment | environment)


def _do(host: "Host", *command: str, **environment: str) -> None:
    done = host.run(*command, **environment)
    assert done.returncode == 0, done.stdout
