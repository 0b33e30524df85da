"""Objects below a URL such as ``s3://bucket/prefix``, through obstore: the only file that uses it.

What goes wrong becomes an :class:`OSError` of one line, in words of our own: the library's texts hold whole requests,
and so may hold what signs them. Credentials come from the environment alone.
"""

import contextlib
import errno
import os
import random
import re
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext, suppress
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar

import obstore
from obstore.exceptions import AlreadyExistsError, BaseError
from obstore.store import AzureStore, GCSStore, S3Store

from depthsieve.core.errors import UsageError
from depthsieve.core.waiting import TELL_S, Wait, waiting
from depthsieve.storage.object_errors import IN_KEY, fault_of, is_transient
from depthsieve.storage.protocol import Entry

PATIENCE_S = 180.0
"""How long a call is retried while the server fails or cannot be reached. Signatures are valid for five minutes."""
FIRST_CONTACT_S = 6.0
"""The same before the server has ever answered: a wrong endpoint should be reported at once."""
LONGEST_PAUSE_S = 5.0
SILENCE_S = 30.0
"""How long a server may say nothing within a call before the call counts as lost."""
AGAIN_S = 0.5
"""Seconds before a lost call is repeated that the library does not repeat."""
PART_BYTES = 16 * 1024 * 1024
"""Larger files are uploaded in parts of this size, ``PARTS_AT_ONCE`` at a time."""
PARTS_AT_ONCE = 4
LARGE_AT_ONCE = 4
"""Such files that a process uploads at a time: parts in memory are 256 MiB at most."""
PAGE = 1000
MOST_STORES = 100
"""obstore objects that a process keeps, with their connections."""
ASK_S = 2
"""Seconds that a server has to say how it is, while a call waits for it."""
SLOWEST = 1e6
"""Bytes a second at which an upload is no wait for the server."""

_STORES = {"s3": S3Store, "s3a": S3Store, "gs": GCSStore, "az": AzureStore}
_ENDPOINTS = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT", "AZURE_STORAGE_ENDPOINT", "AZURE_ENDPOINT")
_CREDENTIALS = (
    "AWS_ACCESS_KEY_ID",
    "AWS_WEB_IDENTITY_TOKEN_FILE",
    "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
    "AWS_CONTAINER_CREDENTIALS_FULL_URI",
    "AWS_SKIP_SIGNATURE",
)
_PROVIDERS = ("AWS_", "AZURE_", "GOOGLE_")
_BUCKET = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9._-]{1,253}[a-zA-Z0-9]")
_Result = TypeVar("_Result")
_large = threading.BoundedSemaphore(LARGE_AT_ONCE)
_answered: set[tuple[str, str, str]] = set()  # scheme, bucket and endpoint of servers that have
_clients: dict[tuple[Any, ...], Any] = {}  # by address, patience and environment: each has connections of its own
_opening = threading.Lock()
_used_by: int | None = None  # the process in which the library's threads run


@dataclass(frozen=True, slots=True)
class Address:
    """A URL taken apart. ``prefix`` has no slash at either end, and is taken literally: ``%20`` is three characters."""

    scheme: str
    bucket: str
    prefix: str

    def __str__(self) -> str:
        return f"{self.scheme}://{self.bucket}" + (f"/{self.prefix}" if self.prefix else "")

    def below(self, key: str) -> "Address":
        """The address of a folder below this one."""
        return Address(self.scheme, self.bucket, "/".join(part for part in (self.prefix, key) if part))


def parse_url(url: str) -> Address:
    """The address that a user wrote. Raises :class:`UsageError`, which never repeats what could be a secret."""
    scheme, _, rest = url.partition("://")
    bucket, _, prefix = rest.partition("/")
    scheme = scheme.lower()
    if scheme not in _STORES:
        raise UsageError(
            f"{scheme}:// is not read or written; object stores are {', '.join(f'{s}://' for s in _STORES)}"
        )
    if "@" in bucket or "?" in rest:
        raise UsageError(
            f"a {scheme}:// URL is bucket and prefix only, without user, password or query; credentials are taken from "
            "the environment"
        )
    if not _BUCKET.fullmatch(bucket):
        raise UsageError(f"{scheme}://{bucket!r} names no bucket; write {scheme}://BUCKET/PREFIX")
    parts = prefix.strip("/").split("/") if prefix.strip("/") else []
    if any(part in ("", ".", "..") or re.search(r"[\x00-\x1f\x7f]", part) for part in parts):
        raise UsageError(f"{prefix!r} cannot be a prefix: it has an empty part, '.', '..' or a control character")
    return Address("s3" if scheme == "s3a" else scheme, bucket, "/".join(parts))


class Objects:
    """All objects below an address; keys are relative to it. Safe to use from several threads; can be pickled.

    A process's first call to a bucket is impatient, and checks endpoint, bucket and credentials; a server that has
    answered once is waited for, for ``PATIENCE_S``.
    """

    def __init__(self, address: Address, known: bool = False) -> None:
        self.address = address
        self._known = known

    def __reduce__(self) -> tuple[Any, ...]:
        return Objects, (self.address, self._known)

    def below(self, key: str) -> "Objects":
        """The objects of a folder."""
        return Objects(self.address.below(key), self._known)

    def read(self, key: str, most: int | None = None) -> bytes:
        """A whole object. Raises :class:`OSError` with ``EFBIG`` for one of more than ``most`` bytes, unread."""

        def read(store: Any) -> bytes:
            found = obstore.get(store, key)
            if most is not None and found.meta["size"] > most:
                raise OSError(errno.EFBIG, f"{found.meta['size']:,} bytes")
            return found.bytes().to_bytes()

        return self._call(key, read)

    def read_range(self, key: str, start: int, length: int) -> bytes:
        """``length`` bytes (at least one, all within the object) from ``start`` on."""
        return self._call(key, lambda store: obstore.get_range(store, key, start=start, length=length).to_bytes())

    def entry(self, key: str) -> Entry | None:
        """Size and age; None where there is no object of that key."""
        try:
            return _entry(self._call(key, lambda store: obstore.head(store, key)))
        except FileNotFoundError:
            return None

    def walk(self, folder: str, after: str | None = None) -> Iterator[list[Entry]]:
        """All objects below a folder, some at a time, in the order of the listing; markers of folders count as objects.
        Only those whose keys come after ``after``.

        Raises :class:`OSError` with errno ``IN_KEY`` where one of the keys cannot be named (see :meth:`children`).
        """
        pages = iter(obstore.list(self.store(), folder or None, offset=after, chunk_size=PAGE))
        while True:
            try:
                with self.waited_for():
                    page = next(pages, None)
            except (BaseError, OSError, ValueError) as error:
                raise self.fault(error, folder) from None
            if page is None:
                return
            yield [_entry(meta) for meta in page if meta["path"]]

    def children(self, folder: str) -> tuple[list[str], list[Entry]]:
        """Keys of the folders directly in a folder, and the objects directly in it.

        Raises :class:`OSError` with errno ``IN_KEY`` where a key in it has an empty part, ``.``, ``..`` or a control
        character: the library names none of a page in which there is one.
        """
        listed = self._call(folder, lambda store: obstore.list_with_delimiter(store, folder or None))
        inside = f"{folder}/" if folder else ""
        objects = [_entry(meta) for meta in listed["objects"]]
        return list(listed["common_prefixes"]), [
            entry for entry in objects if entry.key.startswith(inside) and entry.key
        ]

    def put(self, key: str, data: bytes) -> None:
        """Write an object, or replace it, in one step."""
        self._call(key, lambda store: obstore.put(store, key, data, use_multipart=False))

    def put_file(self, key: str, path: Path, size: int) -> None:
        """Upload a file of ``size`` bytes, large ones in parts, of :data:`LARGE_AT_ONCE` files at a time."""

        def upload(store: Any) -> None:
            with _large if size > PART_BYTES else nullcontext():
                obstore.put(store, key, path, chunk_size=PART_BYTES, max_concurrency=PARTS_AT_ONCE)

        for attempt in range(3):
            try:
                return self._call(key, upload, size)
            except OSError as error:
                found = None
                if is_transient(error) or isinstance(error, FileNotFoundError):
                    found = self.entry(key)  # whose last part was put together, and whose answer was lost
                if found is not None and found.size == size:
                    return None
                if attempt == 2 or not path.exists():
                    raise
        return None

    def put_new(self, key: str, data: bytes) -> bool:
        """Write an object if there is none of that key; False if there is.

        The library repeats no such call when its answer was lost, since it may have done its work. So each is sent
        once, and what is there after one that was lost is compared.
        """
        self.store()
        with self.waited_for() as wait:
            return self._put_new(key, data, wait)

    def _put_new(self, key: str, data: bytes, wait: Wait) -> bool:
        once = self._open(0.0)
        unsure, until, pause = False, time.monotonic() + PATIENCE_S, 0.1
        while True:
            try:
                obstore.put(once, key, data, mode="create", use_multipart=False)
                return True
            except AlreadyExistsError as error:
                under_way = "409 Conflict" in str(error)  # a write of another process, which may still fail
                fault = self.fault(error, key)
                if not (unsure or under_way):
                    return False
                with suppress(FileNotFoundError):
                    return self.read(key) == data and unsure
            except (BaseError, OSError, ValueError) as error:
                fault = self.fault(error, key)
                if not is_transient(fault):
                    raise fault from None
                unsure = True
            wait.why = fault.strerror or ""
            if time.monotonic() + pause > until:
                raise fault
            time.sleep(pause * random.uniform(0.5, 1.0))
            pause = min(2 * pause, LONGEST_PAUSE_S)

    def delete(self, keys: Sequence[str]) -> None:
        """Remove objects; those that are not there are skipped."""
        if keys:
            with suppress(FileNotFoundError):  # which some servers say
                self._call(keys[0], lambda store: obstore.delete(store, list(keys)))

    def store(self) -> Any:
        """The patient obstore object, once the server has answered an impatient call. Raises :class:`OSError`."""
        server = (self.address.scheme, self.address.bucket, _endpoint(self.address.scheme)[0])
        if not self._known and server not in _answered:
            impatient = self._open(FIRST_CONTACT_S)
            try:
                with self.waited_for(limit_s=FIRST_CONTACT_S, asks=False):
                    next(iter(obstore.list(impatient, chunk_size=PAGE)), None)
            except (BaseError, OSError, ValueError) as error:
                fault = self.fault(error, "")
                if fault.errno != IN_KEY:
                    raise fault from None
            _answered.add(server)
        self._known = True
        return self._open(PATIENCE_S)

    def _call(self, key: str, function: Callable[[Any], _Result], size: int = 0) -> _Result:
        """Have the library do something that may be done twice.

        It repeats no deletion or upload in parts whose answer never came, as on a link that is dead for a while.
        """
        store = self.store()
        until = time.monotonic() + PATIENCE_S
        with self.waited_for(size) as wait:
            while True:
                try:
                    return function(store)
                except (BaseError, OSError, ValueError) as error:
                    fault = self.fault(error, key)
                    if fault.errno not in (errno.ETIMEDOUT, errno.ECONNREFUSED) or time.monotonic() > until:
                        raise fault from None
                    wait.why = fault.strerror or ""
                    time.sleep(AGAIN_S)

    def waited_for(
        self, size: int = 0, *, limit_s: float = PATIENCE_S, asks: bool = True
    ) -> contextlib.AbstractContextManager[Wait]:
        """Within it, this process waits for the server, with ``size`` bytes to send: what :mod:`waiting` tells of."""
        bucket = f"{self.address.scheme}://{self.address.bucket}"
        ends = "" if size > PART_BYTES else "gives up in {left}"
        ask = self._ask if asks else None
        return waiting(bucket, ends, limit_s=limit_s, ask=ask, tell_s=TELL_S + size / SLOWEST)

    def _ask(self) -> str:
        """What is wrong with the server just now; "" where it answers."""
        try:
            next(iter(obstore.list(self._open(0.0, ASK_S), chunk_size=1)), None)
        except (BaseError, OSError, ValueError) as error:
            fault = self.fault(error, "")
            return (is_transient(fault) and fault.strerror) or ""
        return ""

    def fault(self, error: Exception, key: str) -> OSError:
        """What to raise for an error of the library."""
        return fault_of(error, key, str(self.address), self.address.bucket, _endpoint(self.address.scheme)[1])

    def _open(self, patience: float, longest: float = 600) -> Any:
        """The obstore object that tries for so many seconds, and for ``longest`` at one call. Nothing is sent yet."""
        _check_fork()
        http = _endpoint(self.address.scheme)[0].lower().startswith("http://")
        environment = {name: value for name, value in os.environ.items() if name.startswith(_PROVIDERS)}
        what = (self.address, patience, longest, http, tuple(sorted(environment.items())))
        with _opening:
            if what not in _clients:
                try:
                    _clients[what] = _make_store(self.address, patience, longest, http)
                except (BaseError, OSError, ValueError) as error:
                    raise self.fault(error, "") from None
                if len(_clients) > MOST_STORES:
                    del _clients[next(iter(_clients))]
            return _clients[what]


def _make_store(address: Address, patience: float, longest: float, http: bool) -> Any:
    pause = min(LONGEST_PAUSE_S, patience / 10)
    options: dict[str, Any] = {
        "prefix": address.prefix or None,
        "client_options": {
            "connect_timeout": "5s",
            "read_timeout": f"{SILENCE_S:g}s",
            "timeout": f"{longest:g}s",
            "allow_http": http,
        },
        "retry_config": {
            "max_retries": 1000 if patience else 0,
            "retry_timeout": timedelta(seconds=patience),
            "backoff": {
                "init_backoff": timedelta(seconds=0.1),
                "max_backoff": timedelta(seconds=max(pause, 0.1)),
                "base": 2,
            },
        },
    }
    if address.scheme == "s3" and (provider := _profile_credentials()) is not None:
        options["credential_provider"] = provider
    return _STORES[address.scheme](address.bucket, **options)


def _profile_credentials() -> Any:
    """What boto3 finds in ``~/.aws``, which obstore does not read: where boto3 is installed, there is such a file, and
    the environment holds no other credentials."""
    if any(os.environ.get(name) for name in _CREDENTIALS):
        return None
    files = (
        os.environ.get("AWS_SHARED_CREDENTIALS_FILE", "~/.aws/credentials"),
        os.environ.get("AWS_CONFIG_FILE", "~/.aws/config"),
    )
    if not any(Path(file).expanduser().exists() for file in files):
        return None
    try:
        from obstore.auth.boto3 import Boto3CredentialProvider

        return Boto3CredentialProvider()
    except Exception:  # not installed, a profile that is not there, a file without credentials: then as without it
        return None


def _endpoint(scheme: str) -> tuple[str, str]:
    """The endpoint that the environment names, "" for none, and how to show it: without user and password."""
    prefix = {"s3": "AWS_", "az": "AZURE_"}.get(scheme, "none")
    named = next((os.environ[name] for name in _ENDPOINTS if name.startswith(prefix) and os.environ.get(name)), "")
    service = {"s3": "Amazon S3", "gs": "Google Cloud Storage", "az": "Azure Blob Storage"}[scheme]
    if not named:
        return "", service
    host = re.fullmatch(
        r"(https?://)(?:[^/?#]*@)?([a-zA-Z0-9.-]+(?::\d{1,5})?|\[[0-9a-fA-F:]+\](?::\d{1,5})?)(?:[/?#].*)?", named
    )
    if host is None:
        raise UsageError(
            "the endpoint in the environment is no URL of a server; write http://HOST:PORT or https://HOST"
        )
    return named, host[1] + host[2]


def _check_fork() -> None:
    """The library's threads do not come along into a forked process, where a call would wait for them for ever."""
    global _used_by
    if _used_by is None:
        _used_by = os.getpid()
    elif _used_by != os.getpid():
        raise UsageError(
            "this process was forked from one that had used an object store, and cannot use one itself; start worker "
            "processes with multiprocessing_context='forkserver' or 'spawn'"
        )


def _entry(meta: Any) -> Entry:
    return Entry(meta["path"], meta["size"], meta["last_modified"].timestamp())
