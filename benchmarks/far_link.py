"""A bucket that is far away, on one machine: an S3 server that logs its requests, behind a relay that delays bytes.

The relay models TCP on a link of some delay and loss: the handshake takes a round trip; a connection may have so many
bytes under way, 14,600 at first, twice as many after each round trip, and as at first after a pause; a lost segment
(of 1,460 bytes) arrives a round trip later where others follow it, else after a time-out, and halves what may be under
way. Loss is simulated that way, not done to packets; the width of the link is not limited.
"""

import argparse
import asyncio
import json
import random
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from io import BytesIO
from pathlib import Path
from urllib.parse import unquote

from werkzeug.test import create_environ, run_wsgi_app

SEGMENT = 1460
FIRST_WINDOW, MOST_WINDOW = 10 * SEGMENT, 4 * 1024 * 1024
LEAST_TIMEOUT_S = 0.2
HANDSHAKE_TIMEOUT_S = 1.0


@dataclass(frozen=True, slots=True)
class Request:
    """What the server saw: ``kind`` is GET, HEAD, LIST, PUT, POST or DELETE; ``path`` has the query; seconds of the
    machine's monotonic clock."""

    kind: str
    path: str
    began: float
    ended: float


def read_log(path: Path, since: float = 0.0) -> list[Request]:
    """The requests that a server of :func:`bucket` has logged, those that began before ``since`` left out."""
    found = [Request(**json.loads(line)) for line in path.read_text().splitlines()]
    return [request for request in found if request.began >= since]


def longest_chain(requests: Iterable[Request], round_trip_s: float) -> int:
    """The most requests of which each was sent after the answer to the one before: what cannot have been overlapped.

    The server saw each half a round trip after it was sent, and its answer arrives half a round trip later.
    """
    chain, answered = 0, -1e9
    for request in sorted(requests, key=lambda one: one.ended):
        if request.began - answered >= round_trip_s:
            chain, answered = chain + 1, request.ended
    return chain


def by_kind(requests: Iterable[Request]) -> dict[str, int]:
    """How many requests there are of each kind."""
    return dict(sorted(Counter(request.kind for request in requests).items()))


@contextmanager
def bucket(log: Path) -> Iterator[int]:
    """An S3 server (moto's, which keeps objects in memory) in a process of its own; its port."""
    with _process("serve", str(log)) as port:
        yield port


@contextmanager
def far(port: int, delay_ms: float, loss_percent: float, seed: int = 0) -> Iterator[int]:
    """A port that leads to another with that delay a round trip, and that share of segments lost."""
    with _process("relay", str(port), str(delay_ms), str(loss_percent), str(seed)) as relay:
        yield relay


@contextmanager
def _process(*words: str) -> Iterator[int]:
    command = [sys.executable, str(Path(__file__)), *words]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout
    try:
        yield int(process.stdout.readline())
    finally:
        process.terminate()
        process.wait()


# The server


def serve(log_path: str) -> None:
    """Serve, and log each request once it is answered. Connections are kept, as those of real servers are: werkzeug's
    own server closes each after one answer."""
    from moto.server import DomainDispatcherApplication, create_backend_app

    moto = DomainDispatcherApplication(create_backend_app)
    log = Path(log_path).open("a", buffering=1)  # noqa: SIM115 - until the process ends

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True
        wbufsize = -1  # an answer leaves in one piece

        def answer(self) -> None:
            began = time.monotonic()
            path, _, query = self.path.partition("?")
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
            environ = create_environ(
                unquote(path, "latin-1"), f"http://{self.headers['Host']}", query, self.command,
                input_stream=BytesIO(body), headers=[*self.headers.items()],
            )  # fmt: skip
            environ["RAW_URI"] = environ["REQUEST_URI"] = self.path
            data, status, headers = run_wsgi_app(moto, environ)
            content = b"".join(data)
            self.send_response(int(status.split()[0]))
            for name, value in headers.items():
                if name.lower() not in ("content-length", "date", "server", "connection", "transfer-encoding"):
                    self.send_header(name, value)
            bare = self.command == "HEAD" or status.startswith("204")
            size = headers.get("Content-Length") if self.command == "HEAD" else len(content)
            self.send_header("Content-Length", str(size or 0))
            self.end_headers()
            self.wfile.write(b"" if bare else content)
            self.wfile.flush()
            kind = "LIST" if self.command == "GET" and "list-type" in query else self.command
            log.write(json.dumps({"kind": kind, "path": self.path, "began": began, "ended": time.monotonic()}) + "\n")

        do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = answer

        def log_message(self, *words: object) -> None:
            pass

    class Server(ThreadingHTTPServer):
        request_queue_size = 256  # else connections made at the same time wait a second

    server = Server(("127.0.0.1", 0), Handler)
    print(server.server_port, flush=True)
    server.serve_forever()


# The relay


class _Way:
    """One direction of a connection: when the next bytes may be sent, and when they arrive."""

    def __init__(self, delay_s: float, loss: float, chance: random.Random) -> None:
        self._trip, self._loss, self._chance = delay_s, loss, chance
        self._window, self._left, self._round_ends = FIRST_WINDOW, FIRST_WINDOW, 0.0
        self._arrives = self._last = 0.0

    def room(self, now: float) -> tuple[int, float]:
        """How many bytes may be sent now, or 0 and until when to wait."""
        if now - self._last > max(1.0, 4 * self._trip):
            self._window = FIRST_WINDOW
        if now >= self._round_ends:
            if self._left == 0:
                self._window = min(2 * self._window, MOST_WINDOW)
            self._left, self._round_ends = self._window, now + self._trip
        return self._left, self._round_ends

    def send(self, size: int, now: float) -> float:
        """When so many bytes arrive: after all that were sent before."""
        self._left -= size
        self._last = now
        late = 0.0
        segments = -(-size // SEGMENT)
        for segment in range(segments):
            timeout = max(LEAST_TIMEOUT_S, self._trip) + self._trip
            while self._chance.random() < self._loss:
                late = max(late, self._trip if segments - segment > 3 else timeout)
                timeout *= 2
                self._window = max(2 * SEGMENT, self._window // 2)
        self._arrives = max(self._arrives, now + self._trip / 2 + late)
        return self._arrives


async def relay(port: int, delay_s: float, loss: float, seed: int) -> None:
    """Pass connections on to a port of this machine."""
    chance = random.Random(seed)
    loop = asyncio.get_running_loop()

    async def carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, opened: float) -> None:
        way = _Way(delay_s, loss, chance)
        arriving: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue()

        async def deliver() -> None:
            while True:
                due, data = await arriving.get()
                await asyncio.sleep(max(0.0, due - loop.time()))
                if not data:
                    writer.write_eof()
                    return
                writer.write(data)
                await writer.drain()

        delivering = asyncio.create_task(deliver())
        try:
            await asyncio.sleep(max(0.0, opened - loop.time()))
            while data := await reader.read(1 << 16):
                while data:
                    room, until = way.room(loop.time())
                    if not room and delay_s:
                        await asyncio.sleep(max(0.001, until - loop.time()))
                        continue
                    now, part = loop.time(), data[: room if delay_s else len(data)]
                    data = data[len(part) :]
                    arriving.put_nowait((way.send(len(part), now), part))
            arriving.put_nowait((way.send(0, loop.time()), b""))
            await delivering
        except OSError:
            pass
        finally:
            delivering.cancel()

    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        opened, timeout = loop.time() + delay_s, HANDSHAKE_TIMEOUT_S
        while loss and chance.random() < 2 * loss:
            opened, timeout = opened + timeout, 2 * timeout
        try:
            far_reader, far_writer = await asyncio.open_connection("127.0.0.1", port)
            await asyncio.gather(carry(reader, far_writer, opened), carry(far_reader, writer, 0.0))
            far_writer.close()
        except OSError:
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(connected, "127.0.0.1", 0, backlog=256)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


def main() -> None:
    """The processes that :func:`bucket` and :func:`far` start."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=("serve", "relay"))
    parser.add_argument("words", nargs="*")
    chosen = parser.parse_args()
    if chosen.what == "serve":
        serve(chosen.words[0])
    else:
        port, delay_ms, loss_percent, seed = chosen.words
        asyncio.run(relay(int(port), float(delay_ms) / 1000, float(loss_percent) / 100, int(seed)))


if __name__ == "__main__":
    main()
