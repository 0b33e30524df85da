"""The lab's S3 server, in a host of its own: here the handle that a test holds, and the process in the host.

The two talk in lines of JSON over the process's standard input and output, so a muted wire does not cut them off.
"""

import datetime
import hashlib
import json
import random
import re
import shutil
import subprocess
import sys
import threading
import time
import urllib.parse
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from s3server import KEY_ID, SECRET, S3Server

if TYPE_CHECKING:
    from hosts.lab import Host

PORT = 9000
NAME = "data"
LONGEST_SKEW_S = 900
"""What S3 allows between its clock and a client's."""


class Bucket:
    """A test's hold of ``s3://data``. Keys are without the bucket's name."""

    def __init__(self, host: "Host") -> None:
        self.host = host
        self._lock = threading.Lock()
        repository = Path(__file__).parents[2]
        paths = f"{repository}/tests:{repository}/tests/support"
        self._server = host.start(sys.executable, "-m", "hosts.bucket", stdin=subprocess.PIPE, PYTHONPATH=paths)
        self._ask("ready")

    def environment(self) -> dict[str, str]:
        """What a host's process needs to reach it."""
        return {
            "AWS_ENDPOINT_URL": f"http://{self.host.name}:{PORT}",
            "AWS_ACCESS_KEY_ID": KEY_ID,
            "AWS_SECRET_ACCESS_KEY": SECRET,
            "AWS_REGION": "us-east-1",
        }

    def upload(self, folder: Path, prefix: str) -> None:
        """Put the files of a folder of this machine under ``prefix``."""
        shutil.copytree(folder, self.host.path("/tmp/upload"))
        self._ask("upload", prefix)
        shutil.rmtree(self.host.path("/tmp/upload"))

    def digests(self, prefix: str) -> dict[str, str]:
        """sha256 of each object under ``prefix``, by its key without that."""
        found: dict[str, str] = self._ask("digests", prefix)
        return found

    def keys(self, prefix: str) -> list[str]:
        """The keys under ``prefix``, whole."""
        found: list[str] = self._ask("keys", prefix)
        return found

    def read(self, key: str) -> bytes:
        """An object."""
        return bytes.fromhex(self._ask("read", key))

    def find(self, text: str) -> list[str]:
        """The keys of all objects that have ``text`` in them or in their keys."""
        found: list[str] = self._ask("find", text)
        return found

    def calls(self, since: int = 0) -> list[str]:
        """The calls from hosts so far but the first ``since``: "10.77.0.11 PUT /data/labels/lock 200"."""
        found: list[str] = self._ask("calls", since)
        return found

    def commits(self, prefix: str) -> int:
        """How many shards of the store under ``prefix`` are committed."""
        return sum(1 for key in self.keys(f"{prefix}/commits/") if not key.startswith(f"{prefix}/commits/generation"))

    def storm(self, share: float) -> None:
        """Answer that share of all calls with 503 SlowDown."""
        self._ask("storm", share)

    def stop(self) -> None:
        """Refuse connections; all objects stay."""
        self._ask("stop")

    def start(self) -> None:
        """Come back."""
        self._ask("start")

    def _ask(self, what: str, *more: Any) -> Any:
        assert self._server.stdin is not None and self._server.stdout is not None
        with self._lock:
            print(json.dumps([what, *more]), file=self._server.stdin, flush=True)
            answer = self._server.stdout.readline()
        assert answer, f"the lab's S3 server has ended: {self._server.shown[-600:]}"
        return json.loads(answer)


class _Server(S3Server):
    """The process in the host: refuses clocks that are off and keys that it does not know, as S3 does."""

    def __init__(self) -> None:
        super().__init__(host="0.0.0.0", port=PORT)
        self.share_503 = 0.0
        self.log: list[str] = []
        self.call("PUT", f"/{NAME}")

    def ready(self) -> None:
        """Answered once it is up."""

    def upload(self, prefix: str) -> None:
        folder = Path("/tmp/upload")
        for path in sorted(path for path in folder.rglob("*") if path.is_file()):
            self.put(NAME, f"{prefix}/{path.relative_to(folder)}", path.read_bytes())

    def keys(self, prefix: str) -> list[str]:
        found: list[str] = []
        more = ""
        while True:
            query = f"list-type=2&prefix={urllib.parse.quote(prefix)}{more}"
            page = ElementTree.fromstring(self.call("GET", f"/{NAME}?{query}"))
            found += [element.text or "" for element in page.iterfind("{*}Contents/{*}Key")]
            if (token := page.findtext("{*}NextContinuationToken")) is None:
                return found
            more = f"&continuation-token={urllib.parse.quote(token)}"

    def digests(self, prefix: str) -> dict[str, str]:
        keys = self.keys(prefix + "/")
        return {key.removeprefix(prefix + "/"): hashlib.sha256(self.get(NAME, key)).hexdigest() for key in keys}

    def find(self, text: str) -> list[str]:
        return [key for key in self.keys("") if text in key or text.encode() in self.get(NAME, key)]

    def read(self, key: str) -> str:
        return self.get(NAME, key).hex()

    def calls_since(self, since: int) -> list[str]:
        return self.log[since:]

    def storm(self, share: float) -> None:
        self.share_503 = share

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        if "HTTP_X_FROM_THE_TEST" in environ:
            return super().__call__(environ, start_response)
        shown = ["no answer"]

        def answered(status: str, headers: list[tuple[str, str]], *more: Any) -> Any:
            shown[0] = status[:3]
            return start_response(status, headers, *more)

        if refusal := self._refusal(environ):
            status, code = refusal
            environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
            body = f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>{code}</Message></Error>".encode()
            answered(status, [("Content-Type", "application/xml"), ("Content-Length", str(len(body)))])
            answer: Iterable[bytes] = [body]
        else:
            answer = super().__call__(environ, answered)
        self.log.append(f"{environ['REMOTE_ADDR']} {environ['REQUEST_METHOD']} {environ['PATH_INFO']} {shown[0]}")
        return answer

    def _refusal(self, environ: dict[str, Any]) -> tuple[str, str] | None:
        if random.random() < self.share_503:
            return "503 Slow Down", "SlowDown"
        key = re.search(r"Credential=([^/]+)", environ.get("HTTP_AUTHORIZATION", ""))
        if key is None or key[1] != KEY_ID:
            return "403 Forbidden", "InvalidAccessKeyId"
        date = datetime.datetime.strptime(environ["HTTP_X_AMZ_DATE"], "%Y%m%dT%H%M%SZ")
        if abs(date.replace(tzinfo=datetime.UTC).timestamp() - time.time()) > LONGEST_SKEW_S:
            return "403 Forbidden", "RequestTimeTooSkewed"
        return None


def main() -> None:
    """Serve until standard input ends."""
    server = _Server()
    words = {name: getattr(server, name) for name in ("ready", "upload", "keys", "digests", "find", "read", "storm")}
    words |= {"calls": server.calls_since, "stop": server.stop, "start": server.start}
    for line in sys.stdin:
        what, *more = json.loads(line)
        print(json.dumps(words[what](*more)), flush=True)


if __name__ == "__main__":
    main()
