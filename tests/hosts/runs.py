"""Runs of the command on hosts, and what must be true of a store in the bucket when all is over."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from labelled import write_photos
from patience import wait_for

if TYPE_CHECKING:
    from hosts.bucket import Bucket
    from hosts.lab import Host, Process

OPTIONS = ("--threads", "1", "--batch-size", "2", "--shard-size", "2")
PHOTOS = "s3://data/photos"


def upload_photos(bucket: "Bucket", folder: Path, count: int) -> None:
    """Put ``count`` small photos where all runs take them from; two fit into a shard."""
    bucket.upload(write_photos(folder / "photos", count), "photos")


def start(
    host: "Host", store: str, *options: str, verb: str = "label", teacher: str = "tiny-v1", **environment: str
) -> "Process":
    """Label the photos into ``s3://data/<store>``; ``environment`` leads to the bucket, if the host is to see it."""
    command = ("depthsieve", verb, PHOTOS, f"s3://data/{store}", "--teacher", teacher, *OPTIONS)
    return host.start(*command, *options, **environment)


def wait_for_commits(bucket: "Bucket", store: str, count: int, *running: "Process") -> None:
    """Return when so many shards are committed, or a run has ended."""
    wait_for(lambda: bucket.commits(store) >= count or any(run.poll() is not None for run in running), pause_s=0.1)


def problems(bucket: "Bucket", store: str, expected: Mapping[str, str]) -> list[str]:
    """What is wrong with a store that is done: objects that are not, to the byte, those of an undisturbed one. Leases
    and scratch are among them, and so is the index."""
    found = bucket.digests(store)
    wrong = sorted(key for key in {*found, *expected} if found.get(key) != expected.get(key))
    more = [key for key in wrong if key not in expected]
    said = [f"{len(wrong)} objects differ from the undisturbed store, such as {', '.join(wrong[:3])}"] if wrong else []
    return said + ([f"{len(more)} of them should not be there, such as {', '.join(more[:3])}"] if more else [])


def working(*hosts: "Host") -> list[str]:
    """Processes of runs on these hosts: commands, and Ray's workers of ours."""
    words = ("depthsieve label", "depthsieve plan", "ray::RayWorker")
    shown = [(host.name, line) for host in hosts for line in host.processes().values()]
    return [f"{name}: {line[:80]}" for name, line in shown if any(word in line for word in words)]


def wait_until_idle(*hosts: "Host") -> None:
    """Return when nothing of any run is left on these hosts."""
    wait_for(lambda: not working(*hosts), "processes of a run that has ended", pause_s=0.2)
