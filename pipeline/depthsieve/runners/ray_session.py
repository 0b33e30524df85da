"""A connection to Ray: a private session on this machine, or a cluster, after all cheap checks."""

import contextlib
import fcntl
import logging
import os
import secrets
import shutil
import signal
import socket
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import ray
from ray import _raylet
from ray._private import services as ray_services
from ray._private import state as ray_state
from ray._private import worker as ray_internals
from ray.exceptions import RayError

from depthsieve.core.errors import RunError, RunInterrupted
from depthsieve.core.lifelines import ending_users_of
from depthsieve.core.waiting import waiting
from depthsieve.runners.head import Head, can_be_greeted, is_greeted
from depthsieve.runners.staffing import LASTS, ClusterOffer, Need

LONGEST_BASE = 16
"""Bytes of a temporary folder's path under which Ray's sockets still fit into the 107 that the kernel allows."""

PREFIX = "dsray-"

CONNECT_S = 5.0
"""Seconds in which a cluster must take a connection."""

AUTO = "auto"

NODES_S = 1.0
"""Seconds between two looks at whether a node has joined."""

LONGEST_REASON = 300
"""Characters of one of Ray's errors that the user is shown."""


def one_line(error: BaseException) -> str:
    """What one of Ray's errors says, without line breaks, advice and tracebacks."""
    cause = getattr(error, "cause", None) or error
    text = " ".join(str(cause).split()) or type(cause).__name__
    text = text.partition(" Some common causes include")[0]
    return text if len(text) <= LONGEST_REASON else text[:LONGEST_REASON] + " ..."


def current_offer() -> ClusterOffer:
    """What the connected cluster has to offer now."""
    alive = [node for node in ray.nodes() if node["Alive"]]
    offered = tuple((int(one.get("CPU", 0)), int(one.get("GPU", 0))) for one in (node["Resources"] for node in alive))
    try:
        known = ray_state.available_resources_per_node()
        left = [known[node["NodeID"]] for node in alive]
        free = tuple((float(one.get("CPU", 0)), float(one.get("GPU", 0))) for one in left)
    except (RayError, KeyError, RuntimeError, AttributeError):  # from outside the cluster it cannot be asked
        return ClusterOffer(offered)
    return ClusterOffer(offered, free)


def is_placed(actor: Any) -> bool:
    """Whether an actor has found a node that starts its process; False also where that cannot be asked."""
    try:
        return bool(ray_state.actors(actor._ray_actor_id.hex()).get("Pid"))
    except (RayError, RuntimeError, AttributeError):
        return False


def cluster_offer(address: str, need: Need, wait_s: float) -> ClusterOffer:
    """What the cluster at ``address`` has to offer, once it has a node that can work: with CPUs, and a GPU where
    ``need`` has one.

    Raises as :func:`connected`, and :class:`RunInterrupted` where no such node joins in ``wait_s`` seconds.
    """
    with connected(address, 0, 0) as head:
        offer = current_offer()
        if offer.can_work(need):
            return offer
        with waiting(f"a node with {need.least}", LASTS + " unless one joins", limit_s=wait_s) as wait:
            # A task that needs one also has an autoscaler bring it.
            joined = ray.remote(num_cpus=1, num_gpus=min(need.gpus, 1.0))(lambda: None).remote()
            while head.silent or not (offer := current_offer()).can_work(need):
                head.check(time.monotonic())
                wait.why = offer.shortage(need)
                if time.monotonic() - wait.since > wait_s:
                    reason = f"no node with {need.least} has joined in {wait_s:.0f} s: {wait.why}"
                    raise RunInterrupted(f"{reason}; run the same command again, or give it longer (--wait-workers)")
                time.sleep(NODES_S)
            ray.cancel(joined)
        return offer


@contextlib.contextmanager
def connected(address: str | None, cpus: int, gpus: int) -> Iterator[Head]:
    """Connect to Ray: the caller's own session if there is one, the cluster at ``address``, or a private session.

    Yields the head, which is watched if it is that of ``address``. ``cpus`` and ``gpus`` are what a private session
    offers. Raises :class:`RunError` in one line, within seconds, when the cluster cannot be reached or refuses the
    connection.
    """
    if ray.is_initialized():
        yield Head()  # the caller's own session, from a notebook
        return
    found = None
    with contextlib.ExitStack() as stack:
        if address is None:
            stack.enter_context(_environment(RAY_AUTH_TOKEN=secrets.token_hex(32)))
            folder = stack.enter_context(_session_folder())
            stack.enter_context(ending_users_of(folder))  # Ray's agents outlive a driver that gets a SIGKILL
            settings: dict[str, Any] = {
                "address": "local",
                "num_cpus": cpus,
                "num_gpus": gpus,
                "include_dashboard": False,
                "_node_ip_address": "127.0.0.1",
                "_temp_dir": folder,
            }
        else:
            stack.enter_context(_environment(RAY_gcs_server_port_wait_time_s=f"{CONNECT_S:.0f}"))
            found, said = _found(address), AUTO if address == AUTO else None
            check_address(found, said)
            check_answer(found, said)
            settings = {"address": found}
        try:
            stack.enter_context(_quiet())
            with _signals_kept():
                ray.init(**settings, log_to_driver=False, logging_level=logging.ERROR)
        except (OSError, ValueError, RuntimeError, RayError, ImportError) as error:
            raise RunError(f"cannot reach Ray at {settings['address']}: {_why(error)}") from error
        stack.callback(ray.shutdown)
        yield stack.enter_context(Head(found).watched())


def _found(address: str) -> str:
    """What "auto" stands for: RAY_ADDRESS, the cluster that this machine joined last, or one whose head runs on it.

    Ray tries a cluster that is gone for minutes, so its address is checked before. Raises :class:`RunError` for "auto"
    where there is none.
    """
    if address != AUTO:
        return address
    named = os.environ.get("RAY_ADDRESS", "")
    if named not in ("", AUTO):
        return named
    file, last = Path(os.environ.get("RAY_TMPDIR") or "/tmp", "ray", "ray_current_cluster"), ""
    with contextlib.suppress(OSError, UnicodeDecodeError):
        last = file.read_text().strip()
    found = last or min(ray_services.find_gcs_addresses(), default="")
    if not found:
        raise RunError(
            f"cannot reach Ray at auto: this machine is no node of a cluster ({file} is not there, and RAY_ADDRESS is "
            "not set); join one with ray start --address=HOST:PORT, or say --address HOST:PORT"
        )
    return found


def check_address(address: str, said: str | None = None) -> None:
    """Raise :class:`RunError` for an address where nobody answers, or on another machine without a token.

    ``said`` is what a user called it.
    """
    shown = f"{said} ({address})" if said else address
    host, separator, port = address.removeprefix("ray://").rpartition(":")
    if not (host and separator and port.isdigit()):
        raise RunError(f"cannot reach Ray at {shown}: an address is HOST:PORT, ray://HOST:PORT, or auto")
    try:
        with socket.create_connection((host.strip("[]"), int(port)), timeout=CONNECT_S) as probe:
            peer = probe.getpeername()[0]
    except (OSError, OverflowError) as error:
        raise RunError(f"cannot reach Ray at {shown}: {getattr(error, 'strerror', None) or error}") from error
    if _is_here(peer):
        return
    if os.environ.get("RAY_AUTH_MODE", "").lower() not in ("token", "k8s"):
        raise RunError(
            f"the Ray cluster at {address} is not on this machine, so it must ask for a token: start it with "
            "RAY_AUTH_MODE=token, and set that here too, with its RAY_AUTH_TOKEN or RAY_AUTH_TOKEN_PATH"
        )
    if not address.startswith("ray://") and not _is_a_node():
        raise RunError(
            f"cannot reach Ray at {shown}: no node of a cluster runs on this machine, as it must for HOST:PORT; run "
            f"this on one of its nodes, or make this machine one: ray start --address={address}"
        )


def _is_a_node() -> bool:
    """Whether a node of some cluster runs on this machine, or begins to within seconds. Ray itself looks for a minute,
    and then says no more than that it failed."""
    find = getattr(ray_services, "find_node_ids", None)
    until = time.monotonic() + CONNECT_S
    while find is not None and not find():
        if time.monotonic() > until:
            return False
        time.sleep(0.5)
    return True


def check_answer(address: str, said: str | None = None) -> None:
    """Raise :class:`RunError` where what listens at an address is not Ray, or does not answer any longer: Ray itself
    would try for minutes."""
    if not can_be_greeted():
        return
    shown = f"{said} ({address})" if said else address
    try:
        is_ray = is_greeted(address, CONNECT_S)
    except TimeoutError as error:
        words = f"it takes connections, but has not answered in {CONNECT_S:.0f} s"
        raise RunError(f"cannot reach Ray at {shown}: {words}; is it Ray's port, and is the head up?") from error
    except OSError as error:
        raise RunError(f"cannot reach Ray at {shown}: {error.strerror or error}") from error
    if not is_ray:
        raise RunError(f"cannot reach Ray at {shown}: something else listens there; is it the port of Ray's head?")


def _is_here(ip: str) -> bool:
    """Whether an IP address is one of this machine's own: only those can be bound."""
    family = socket.AF_INET6 if ":" in ip else socket.AF_INET
    try:
        with socket.socket(family) as probe:
            probe.bind((ip, 0))
    except OSError:
        return False
    return True


def _why(error: BaseException) -> str:
    """The reason that a user can act on; Ray hides that of a wrong token in the error's cause."""
    behind = f"{error} {error.__cause__}"
    if "AuthenticationError" in behind or "AuthToken" in behind or "authentication token" in behind:
        return (
            "it asks for a token, and none or another one is set here; set RAY_AUTH_MODE=token and the cluster's "
            "RAY_AUTH_TOKEN or RAY_AUTH_TOKEN_PATH"
        )
    return one_line(error)


def unreached() -> str:
    """What may be wrong where a cluster ends the workers of a driver that lives, and what to do."""
    mode = os.environ.get("RAY_AUTH_MODE", "not set")
    return (
        "the Ray cluster ended this run's workers before they began, since it cannot call this process back: "
        f"RAY_AUTH_MODE is {mode} here, and must be what the cluster was started with; if it is, a firewall keeps the "
        "cluster's hosts from this one"
    )


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep Ray from printing each worker's death to stdout, which belongs to --json; notes report them."""
    before = getattr(ray_internals, "_worker_logs_enabled", True)
    ray_internals._worker_logs_enabled = False
    try:
        yield
    finally:
        ray_internals._worker_logs_enabled = before


@contextlib.contextmanager
def _signals_kept() -> Iterator[None]:
    """Undo Ray's own SIGTERM handler, which would end the command without a message."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextlib.contextmanager
def _session_folder() -> Iterator[str]:
    """Where a private Ray keeps its logs and sockets. Folders of runs that were killed are removed first.

    A run holds a lock in its folder for as long as it lives, so that no other process has to guess from a process id
    whether it does.
    """
    base = Path(tempfile.gettempdir())
    if len(os.fsencode(base)) > LONGEST_BASE:
        base = Path("/tmp")
    for old in base.glob(f"{PREFIX}*"):
        with contextlib.suppress(OSError), _locked(old / "lock"):
            shutil.rmtree(old, ignore_errors=True)
    new = Path(tempfile.mkdtemp(prefix="new-dsray-", dir=base))
    try:
        with (new / "lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            folder = new.rename(base / f"{PREFIX}{os.getpid()}-{secrets.token_hex(2)}")
            new = folder
            yield str(folder)
    finally:
        shutil.rmtree(new, ignore_errors=True)


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Hold the lock of an existing file; :class:`OSError` if another process does, or there is none."""
    with path.open("r+") as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield


@contextlib.contextmanager
def _environment(**settings: str) -> Iterator[None]:
    """Ray's settings for a session: no usage reports, and CPU workers that see no GPU.

    A private session also gets a random token of its own, never written to HOME. Ray turns token authentication on
    for local sessions by itself (and sets RAY_AUTH_MODE), from 2.59 on.
    """
    wanted = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0"} | settings
    before = {name: os.environ.get(name) for name in (*wanted, "RAY_AUTH_MODE")}
    os.environ.update(wanted)
    _forget_authentication()
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value
        _forget_authentication()


def _forget_authentication() -> None:
    """Have Ray read its environment again: it keeps the mode and the token of a process's first connection, and after a
    private session it would refuse the calls of a cluster that knows no token, which then ends this driver's actors."""
    core: Any = _raylet  # its types name neither
    core.Config.initialize("")
    core.AuthenticationTokenLoader.instance().reset_cache()
