"""moto's S3 server on a loopback port, in front of which calls can be made to fail.

It keeps its objects in memory, through a stop and a start, and takes any signature: that credentials are right is not
tested here, but that they are found and that they never leak is.
"""

import http.client
import logging
import random
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import quote

from moto.server import DomainDispatcherApplication, create_backend_app
from werkzeug.serving import make_server

SECRET = "sEcReT/that+must=never/appear"
KEY_ID = "AKIDTHATISNOSECRET"
NOWHERE = "http://127.0.0.1:9"

Fault = Callable[[dict[str, Any]], str | None]
"""Told of a call, says what becomes of it: None (served), "503" (refused), "403 Code" (with S3's word for it), "403<a>"
(with that body), "lost" (served, but the answer is not sent and the connection is reset), "reset" (not served either),
"silent" (likewise, after some seconds)."""

SILENT_S = 3.0


class S3Server:
    """A server that can be stopped, started again at the same port, and told to fail."""

    def __init__(self, host: str = "127.0.0.1", port: int = 0) -> None:
        logging.getLogger("werkzeug").setLevel(logging.CRITICAL)
        self._moto = DomainDispatcherApplication(create_backend_app)
        self._buckets = 0
        self._host = host
        self.port = port
        self.fault: Fault | None = None
        self.calls: list[tuple[str, str]] = []
        self._down = True
        self.start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def environment(self) -> dict[str, str]:
        """What a client needs, and nothing that leads off this machine."""
        return {
            "AWS_ENDPOINT_URL": self.url,
            "AWS_ACCESS_KEY_ID": KEY_ID,
            "AWS_SECRET_ACCESS_KEY": SECRET,
            "AWS_REGION": "us-east-1",
            "AWS_METADATA_ENDPOINT": NOWHERE,
        }

    def start(self) -> None:
        self._server = make_server(self._host, self.port, self, threaded=True)
        self.port = self._server.port
        self._down = False
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def stop(self) -> None:
        """New connections are refused, and standing ones reset at their next call."""
        self._down = True
        self._server.shutdown()
        self._server.server_close()

    def new_bucket(self) -> str:
        self._buckets += 1
        name = f"bucket-{self.port}-{self._buckets}"
        self.call("PUT", f"/{name}")
        return name

    def put(self, bucket: str, key: str, data: bytes) -> None:
        self.call("PUT", f"/{bucket}/{quote(key)}", data)

    def get(self, bucket: str, key: str) -> bytes:
        return self.call("GET", f"/{bucket}/{quote(key)}")

    def call(self, method: str, path: str, body: bytes | None = None) -> bytes:
        """A call of the test's own, past all faults."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        connection.request(method, path, body, {"X-From-The-Test": "1", "Authorization": f"AWS {KEY_ID}:any"})
        answer = connection.getresponse()
        data = answer.read()
        connection.close()
        assert answer.status < 300, (method, path, answer.status, data)
        return data

    @contextmanager
    def failing(self, fault: Fault) -> Iterator[None]:
        self.fault = fault
        try:
            yield
        finally:
            self.fault = None

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        ours = "HTTP_X_FROM_THE_TEST" in environ
        if not ours:
            self.calls.append((environ["REQUEST_METHOD"], environ["PATH_INFO"]))
        what = "reset" if self._down else None if ours or self.fault is None else self.fault(environ)
        if what == "silent":
            time.sleep(SILENT_S)
        if what in ("reset", "silent"):
            return self._reset(environ)
        if what is not None and what[:3].isdecimal():
            environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
            status, body = what[:3], what[3:]
            if body.startswith(" "):
                body = f"<Error><Code>{body[1:]}</Code></Error>"
            start_response(f"{status} Made to fail", [("Content-Type", "text/plain")])
            return [body.encode() or b"made to fail"]
        if what == "lost":
            answer = self._moto(environ, lambda *_: lambda data: None)
            for _ in answer:
                pass
            return self._reset(environ)
        answer: Iterable[bytes] = self._moto(environ, start_response)
        return answer

    @staticmethod
    def _reset(environ: dict[str, Any]) -> Iterable[bytes]:
        connection: socket.socket = environ["werkzeug.socket"]
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        connection.shutdown(socket.SHUT_RDWR)
        raise ConnectionResetError


def some_calls(share: float, seed: int) -> Fault:
    """That share of all calls fails: refused with 500 or 503, or done and its answer lost, in equal parts."""
    chance, lock = random.Random(seed), threading.Lock()

    def fault(environ: dict[str, Any]) -> str | None:
        with lock:
            return chance.choice(("500", "503", "lost", "reset")) if chance.random() < share else None

    return fault


def every(method: str, *, first: int, what: str, within: str = "") -> Fault:
    """The first few calls of a method end in ``what``."""
    left, lock = [first], threading.Lock()

    def fault(environ: dict[str, Any]) -> str | None:
        with lock:
            if environ["REQUEST_METHOD"] != method or within not in environ["PATH_INFO"] or not left[0]:
                return None
            left[0] -= 1
            return what

    return fault
