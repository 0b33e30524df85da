"""What a bucket that is far away costs: wall time against the same run without delay, and the requests that it takes.

    python benchmarks/far_bucket.py                                      # shards of 10 s; three minutes
    python benchmarks/far_bucket.py --delays 0 150 --losses 0 --shards 3 --shard-seconds 60

A teacher that only waits stands for a slow one, so that the machine's own speed does not count: a shard takes
``--shard-seconds`` of it. An S3 server (moto's) runs behind a relay that delays bytes (:mod:`far_link`: delay, slow
start and losses of TCP, simulated). All settings label the same photos at the same time, into buckets of their own,
photos from a folder or, with ``--photos bucket``, from that bucket. Then the same command again (nothing to do),
`status`, a dataset of the loader with its first batch, and `verify`, each in a process of its own. Printed for each:
seconds, ratio to no delay, requests by kind, and the longest chain of requests that waited for each other; for a shard,
those that name it.
"""

import argparse
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from far_link import Request, bucket, by_kind, far, longest_chain, read_log
from PIL import Image

TEACHER = '''
import hashlib
import time

import numpy as np
import torch

from depthsieve.teachers import Prediction, Teacher


class Slow(Teacher):
    """Waits, and says how bright a pixel is."""

    name = "slow"
    weights_digest = hashlib.sha256(b"slow").hexdigest()
    quantity = "disparity"
    unit = ""
    dtype = "float32"
    preprocessing = {"rule": "half size"}

    def __init__(self, request):
        self.device = torch.device("cpu")

    def label_shape(self, height, width):
        return height // 2, width // 2

    def prepare(self, rgb_HW3, shape):
        height, width = shape
        return np.ascontiguousarray(rgb_HW3[: 2 * height : 2, : 2 * width : 2].transpose(2, 0, 1), dtype=np.float32)

    def predict(self, batch):
        time.sleep(SECONDS * len(batch.image))
        return Prediction(1 + batch.image.mean(1))


def load(request):
    return Slow(request)
'''

STEP = """
import json, sys, time
import depthsieve
from depthsieve.training import PseudoLabelDataset
what, source, store, options = sys.argv[1], sys.argv[2], sys.argv[3], json.loads(sys.argv[4])
began = time.monotonic()
found = {}
if what in ("label", "resume"):
    summary = depthsieve.label(source, store, progress=False, **options)
    assert not summary.pending and not summary.failed and not summary.errors, summary
    found = {"labelled": summary.labelled_now, "run": summary.seconds}
elif what == "status":
    assert depthsieve.status(store).pending == 0
elif what == "loader":
    next(iter(PseudoLabelDataset(store, images=source, seed=0).loader(4)))
elif what == "verify":
    assert depthsieve.verify(store, progress=False).sound
ended = time.monotonic()
print(json.dumps({"began": began, "ended": ended, "seconds": ended - began, **found}))
"""

STEPS = ("label", "resume", "status", "loader", "verify")


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--delays", type=float, nargs="+", default=[0, 50, 150, 300], help="ms a round trip")
    parser.add_argument("--losses", type=float, nargs="+", default=[0, 1], help="percent of segments")
    parser.add_argument("--shards", type=int, default=6)
    parser.add_argument("--shard-images", type=int, default=16)
    parser.add_argument("--shard-seconds", type=float, default=10.0, help="of the teacher, for a whole shard")
    parser.add_argument("--photos", choices=("folder", "bucket"), default="folder")
    parser.add_argument("--steps", nargs="+", choices=STEPS, default=list(STEPS))
    parser.add_argument("--json", type=Path, help="also write what was measured there")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        rows = measure(chosen, Path(folder))
    if chosen.json:
        chosen.json.write_text(json.dumps(rows, indent=1) + "\n")


def measure(chosen: argparse.Namespace, here: Path) -> list[dict[str, Any]]:
    """A row for each setting and step."""
    photos, log = here / "photos", here / "log"
    make_photos(photos, chosen.shards * chosen.shard_images)
    install_teacher(here / "site", chosen.shard_seconds / chosen.shard_images)
    log.touch()
    print(f"{chosen.shards} shards of {chosen.shard_images} images and {chosen.shard_seconds:g} s, photos from a "
          f"{chosen.photos}; losses are simulated as the delays of retransmission")  # fmt: skip
    print(f"{'delay':>6} {'loss':>5} {'step':>7} {'seconds':>8} {'ratio':>6} {'chain':>6}  requests")
    settings = [(delay, loss) for delay in chosen.delays for loss in (chosen.losses if delay else [0])]
    rows: list[dict[str, Any]] = []
    with bucket(log) as port:
        for number in range(len(settings)):
            call(port, "PUT", f"/far-{number}")
            for path in photos.iterdir() if chosen.photos == "bucket" else ():
                call(port, "PUT", f"/far-{number}/photos/{path.name}", path.read_bytes())
        with ThreadPoolExecutor(len(settings)) as sides:

            def steps(number: int, setting: tuple[float, float]) -> list[dict[str, Any]]:
                source = f"s3://far-{number}/photos" if chosen.photos == "bucket" else str(photos)
                found = []
                with far(port, *setting, seed=number) as relay:
                    for what in chosen.steps:
                        found.append(run_step(what, source, f"s3://far-{number}/labels", relay, here, chosen))
                        time.sleep(1)  # for the last answers of the step
                return found

            measured = list(sides.map(steps, range(len(settings)), settings))
        for number, (setting, found) in enumerate(zip(settings, measured, strict=True)):
            requests = [request for request in read_log(log) if re.match(rf"/far-{number}[/?]", request.path)]
            for what, step in zip(chosen.steps, found, strict=True):
                mine = [request for request in requests if step["began"] <= request.began <= step["ended"] + 0.9]
                rows.append(row_of(what, setting, step, mine, rows))
    return rows


def row_of(
    what: str, setting: tuple[float, float], found: dict[str, Any], requests: list[Request], rows: list[dict[str, Any]]
) -> dict[str, Any]:
    """What a step took, printed."""
    delay, loss = setting
    near = next((row for row in rows if row["step"] == what and not row["delay_ms"]), found)
    row = {"delay_ms": delay, "loss_percent": loss, "step": what, **found, "ratio": found["seconds"] / near["seconds"]}
    row |= {"requests": by_kind(requests), "chain": longest_chain(requests, delay / 1000) if delay else None}
    show(row, what)
    if what == "label":
        row["run_ratio"] = found["run"] / near["run"]
        shards: dict[str, list[Request]] = {}
        for request in requests:
            if name := re.search(r"\d{4}-\d{6}", request.path):
                shards.setdefault(name[0], []).append(request)
        naming = by_kind(chain.from_iterable(shards.values()))
        chains = [longest_chain(one, delay / 1000) for one in shards.values()] if delay else [0]
        row["shard"] = {
            "requests": {kind: count / len(shards) for kind, count in naming.items()},
            "chain": statistics.median(chains) if delay else None,
        }
        show(row | row["shard"] | {"seconds": found["run"], "ratio": row["run_ratio"]}, "a shard")
    return row


def show(row: dict[str, Any], what: str) -> None:
    """One line of the table."""
    counts = " ".join(f"{kind} {count:g}" for kind, count in row["requests"].items())
    total, longest = sum(row["requests"].values()), row["chain"] or ""
    print(
        f"{row['delay_ms']:>6g} {row['loss_percent']:>5g} {what:>7} {row['seconds']:>8.1f} {row['ratio']:>6.2f} "
        f"{longest:>6}  {total:g}: {counts}",
        flush=True,
    )


def run_step(what: str, source: str, store: str, port: int, here: Path, chosen: argparse.Namespace) -> dict[str, Any]:
    """What one step printed of itself, in a process of its own."""
    options = {"teacher": "slow", "signals": "none", "batch_size": 2, "threads": 1, "device": "cpu"}
    options |= {"shard_size": chosen.shard_images}
    environment = os.environ | client_environment(port) | {"DEPTHSIEVE_CACHE": str(here / f"cache-{port}")}
    environment["PYTHONPATH"] = os.pathsep.join([str(here / "site"), os.environ.get("PYTHONPATH", "")])
    done = subprocess.run(
        [sys.executable, "-c", STEP, what, source, store, json.dumps(options)],
        env=environment, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    if done.returncode:
        sys.exit(f"{what} failed")
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def client_environment(port: int) -> dict[str, str]:
    """What a client of the server at a port of this machine needs."""
    return {
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
        "AWS_ACCESS_KEY_ID": "any",
        "AWS_SECRET_ACCESS_KEY": "any",
        "AWS_REGION": "us-east-1",
    }


def call(port: int, method: str, path: str, body: bytes | None = None) -> None:
    """A call past the relay."""
    import http.client

    connection = http.client.HTTPConnection("127.0.0.1", port)
    connection.request(method, path, body, {"Authorization": "AWS any:any"})
    answer = connection.getresponse()
    answer.read()
    connection.close()
    assert answer.status < 300, (method, path, answer.status)


def make_photos(folder: Path, count: int) -> None:
    """JPEGs of about 100 kB."""
    folder.mkdir()
    noise = np.random.default_rng(0)
    for number in range(count):
        coarse = noise.integers(0, 255, (60, 80, 3), dtype=np.uint8)
        image = Image.fromarray(coarse).resize((640, 480), Image.Resampling.BICUBIC)
        image.save(folder / f"{number:05d}.jpg", quality=92)


def install_teacher(site: Path, seconds: float) -> None:
    """A package whose entry point is the teacher that takes so many seconds an image."""
    site.mkdir()
    (site / "slow_teacher.py").write_text(TEACHER.replace("SECONDS", repr(seconds)))
    metadata = site / "slow_teacher-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: slow_teacher\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text("[depthsieve.teachers]\nslow = slow_teacher:load\n")


if __name__ == "__main__":
    main()
