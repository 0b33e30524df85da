"""Faults of a network of hosts that share a bucket and nothing else: links, clocks, hosts, drivers, the bucket itself.

Runs are on Ray over hosts or the parts of a job array. Whatever a disturbed run says, the same commands again must end
well, with the bytes of an undisturbed store, and leave nothing behind.
"""

import contextlib
import random
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from hosts.bucket import Bucket
from hosts.cluster import Cluster
from hosts.lab import Host, Lab, Process
from hosts.runs import problems, start, upload_photos, wait_for_commits, wait_until_idle
from s3server import SECRET

from faults.world import NotSurvived, Tally, World

IMAGES = 24
SHARDS = 12
LONGEST_S = 420.0
"""Seconds after which a disturbed run counts as hung: it may wait for workers for 300 s before it gives up."""

TRIES = 6
PAUSE_S = 25.0
"""Seconds between tries: leases of a host that is gone count for two minutes."""

DISK_MB = 400
STORE = "labels"
TEACHER = "/home/op/teacher"


@dataclass
class Stage:
    """A bucket with photos, hosts, and a way to label on them."""

    lab: Lab
    bucket: Bucket
    world: World
    tally: Tally
    on_ray: bool
    teacher: str = "tiny-v1"
    hosts: list[Host] = field(default_factory=list)
    environments: dict[str, dict[str, str]] = field(default_factory=dict)
    cluster: Cluster | None = None

    @property
    def victim(self) -> Host:
        """The last host: a node of the cluster, or one that has a part."""
        return self.hosts[-1]

    def build(self, prepare: Callable[[Host], dict[str, str]] = lambda host: {}) -> None:
        """Start the hosts: of a cluster a head and two nodes, else one for each part. ``prepare`` does something to
        each of the two, and says what is particular in the environment of its processes."""
        if self.on_ray:
            self.cluster = Cluster(self._host("head"))
        for name in ("one", "two"):
            self.add(name, prepare)

    def add(self, name: str, prepare: Callable[[Host], dict[str, str]] = lambda host: {}) -> None:
        """One more host, or a new one in the place of another."""
        host = self._host(name)
        self.environments[name] = prepare(host)
        if self.cluster is not None:
            self.cluster.join(host, **self.bucket.environment() | self.environments[name])

    def replace_victim(self) -> None:
        """Switch the victim off, and put a host in its place that has nothing particular."""
        self.victim.power_off()
        self.add(self.victim.name)

    def _host(self, name: str) -> Host:
        host = self.lab.host(name, disk_mb=DISK_MB)
        if self.teacher == TEACHER:
            shutil.copytree(self.world.teacher, host.path(TEACHER))
        self.hosts = [other for other in self.hosts if other.name != name] + [host]
        return host

    def begin(self) -> list[Process]:
        """Start the run, as a person would: one command, or one a part on a plan that is written first."""
        if self.cluster is not None:
            return [self.drive(self.hosts[0])]
        if not self.bucket.keys(f"{STORE}/plan/"):
            self._well(self._start(self.hosts[0], "--write", verb="plan"))
        return [self._start(host, "--part", f"{number}/2") for number, host in enumerate(self.hosts, start=1)]

    def drive(self, host: Host) -> Process:
        """Start a run of all: on Ray, or in this host's own process."""
        if self.cluster is None:
            return self._start(host)
        return self._start(host, "--address", self.cluster.address, **self.cluster.environment)

    def end(self, *running: Process) -> list[int]:
        """Wait for disturbed runs; they may fail, in words."""
        self.tally.tries += 1
        deadline = time.monotonic() + LONGEST_S
        codes = []
        for run in running:
            try:
                done = run.ended(max(1.0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                raise NotSurvived(f"a run hung: {run.shown[-300:]}") from None
            if SECRET in done.stdout or "Traceback" in done.stdout:
                raise NotSurvived(f"exit code {done.returncode}: {done.stdout[-400:]}")
            codes.append(done.returncode)
            self.tally.said.append(f"exit code {done.returncode}: {done.stdout.strip()[-300:]}")
        return codes

    def finish(self) -> None:
        """The same commands again until all is done; then compare, and look for what is left."""
        for _ in range(TRIES):
            if set(self.end(*self.begin())) == {0}:
                break
            time.sleep(PAUSE_S)
        else:
            raise NotSurvived(f"not done after {TRIES} tries: {self.tally.said[-1]}")
        if wrong := problems(self.bucket, STORE, self._expected()):
            raise NotSurvived("; ".join(wrong))
        wait_until_idle(*self.hosts)

    def _start(self, host: Host, *options: str, verb: str = "label", **environment: str) -> Process:
        given = self.bucket.environment() | environment | self.environments.get(host.name, {})
        return start(host, STORE, *options, verb=verb, teacher=self.teacher, **given)

    def _expected(self) -> dict[str, str]:
        """The digests of an undisturbed store of these photos: plans hold the times at which they were uploaded."""
        self._well(start(self.hosts[0], "peace", teacher=self.teacher, **self.bucket.environment()))
        return self.bucket.digests("peace")

    @staticmethod
    def _well(run: Process) -> None:
        if run.ended().returncode != 0:
            raise NotSurvived(f"undisturbed, and yet: {run.shown[-400:]}")


Disturbance = Callable[[Stage, random.Random, list[Process]], None]
Fault = Callable[[World, random.Random, Tally], None]


def over_hosts(disturb: Disturbance, on_ray: bool) -> Fault:
    """A fault: a run starts, is disturbed after some commits, ends somehow; then the same again until it is done."""

    def fault(world: World, chance: random.Random, tally: Tally) -> None:
        with _stage(world, tally, on_ray) as stage:
            stage.build()
            running = stage.begin()
            wait_for_commits(stage.bucket, STORE, chance.randrange(1, SHARDS // 2), *running)
            disturb(stage, chance, running)
            stage.end(*running)
            stage.finish()

    return fault


Preparation = Callable[[Stage, random.Random], None]


def from_the_start(prepare: Preparation, on_ray: bool) -> Fault:
    """A fault that is there before the run, which ``prepare`` starts and ends; then the same again until it is done."""

    def fault(world: World, chance: random.Random, tally: Tally) -> None:
        with _stage(world, tally, on_ray) as stage:
            prepare(stage, chance)
            stage.finish()

    return fault


@contextlib.contextmanager
def _stage(world: World, tally: Tally, on_ray: bool) -> Iterator[Stage]:
    with Lab() as lab:
        bucket = lab.bucket()
        photos = world.folder / "photos of hosts"
        shutil.rmtree(photos, ignore_errors=True)
        upload_photos(bucket, photos, IMAGES)
        yield Stage(lab, bucket, world, tally, on_ray)


# what happens to a run under way


def link_down(stage: Stage, chance: random.Random, running: list[Process]) -> None:
    """The link of a host goes down, and comes back after some seconds."""
    stage.victim.wire.up = False
    time.sleep(chance.uniform(2, 25))
    stage.victim.wire.up = True


def silence(stage: Stage, chance: random.Random, running: list[Process]) -> None:
    """All frames of a host are lost for some seconds; its card knows nothing."""
    stage.victim.wire.muted = True
    time.sleep(chance.uniform(2, 25))
    stage.victim.wire.muted = False


def host_gone(stage: Stage, chance: random.Random, running: list[Process]) -> None:
    """A host is switched off. In its place comes another one of that name, with an empty disk, for the next run."""
    stage.victim.power_off()
    stage.end(*running)
    running.clear()
    stage.replace_victim()


def bucket_gone(stage: Stage, chance: random.Random, running: list[Process]) -> None:
    """The server refuses connections, or its host's link is dead, and comes back."""
    wire = stage.bucket.host.wire
    how = chance.choice(["refused", "down", "muted"])
    if how == "refused":
        stage.bucket.stop()
    wire.up, wire.muted = how != "down", how == "muted"
    time.sleep(chance.uniform(2, 25))
    wire.up, wire.muted = True, False
    if how == "refused":
        stage.bucket.start()


def storm(stage: Stage, chance: random.Random, running: list[Process]) -> None:
    """The bucket answers most calls with 503 for some seconds, then few."""
    stage.bucket.storm(chance.uniform(0.3, 0.9))
    time.sleep(chance.uniform(5, 20))
    stage.bucket.storm(0.05)
    stage.end(*running)
    running.clear()
    stage.bucket.storm(0.0)


def driver_gone(stage: Stage, chance: random.Random, running: list[Process]) -> None:
    """The driver is killed with -9; the next run starts on another host."""
    running[0].kill()
    stage.hosts = [*stage.hosts[1:], stage.hosts[0]]


def disk_full(stage: Stage, chance: random.Random, running: list[Process]) -> None:
    """Every block of a host's disk is taken, until that run has ended."""
    filler = stage.victim.path("/tmp/filler")
    with contextlib.suppress(OSError), filler.open("wb", buffering=0) as file:
        while True:
            file.write(bytes(1 << 20))
    stage.end(*running)
    running.clear()
    filler.unlink()


# what is there from the beginning


def far_away(stage: Stage, chance: random.Random) -> None:
    """The bucket is 150 ms away, each way, and 1% of its frames are lost."""
    stage.build()
    stage.bucket.host.wire.delay_s, stage.bucket.host.wire.loss = 0.15, 0.01
    stage.end(*stage.begin())


def clocks_differ(stage: Stage, chance: random.Random) -> None:
    """The clocks of two hosts are ten minutes off, in either direction: less than a bucket minds."""
    stage.build(lambda host: host.skew(600 if host.name == "one" else -600))
    if set(stage.end(*stage.begin())) != {0}:
        raise NotSurvived(f"clocks ten minutes off: {stage.tally.said[-1]}")


def clock_wrong(stage: Stage, chance: random.Random) -> None:
    """A clock is twenty minutes off, and then set."""
    _one_unfit(stage, "clock is wrong; set it", lambda host: host.skew(chance.choice([1200, -1200])))


def other_version(stage: Stage, chance: random.Random) -> None:
    """A node has another depthsieve."""

    def prepare(host: Host) -> dict[str, str]:
        folder = host.path("/home/op/older")
        folder.mkdir()
        (folder / "sitecustomize.py").write_text(OTHER_VERSION)
        return {"PYTHONPATH": "/home/op/older"}

    _one_unfit(stage, "it has depthsieve 0.0.1", prepare)


def other_checkpoint(stage: Stage, chance: random.Random) -> None:
    """A host has another checkpoint under the same name."""
    stage.teacher = TEACHER

    def prepare(host: Host) -> dict[str, str]:
        with host.path(f"{TEACHER}/model.safetensors").open("r+b") as file:
            file.seek(-4, 2)
            last = file.read()
            file.seek(-4, 2)
            file.write(bytes(255 - byte for byte in last))
        return {}

    _one_unfit(stage, "weights", prepare)


def blind(stage: Stage, chance: random.Random) -> None:
    """A host has a key that the bucket does not know, or no name for it."""

    def no_name(host: Host) -> dict[str, str]:
        return {"AWS_ENDPOINT_URL": "http://s3.elsewhere:9000"}

    def no_key(host: Host) -> dict[str, str]:
        return {"AWS_ACCESS_KEY_ID": "UNKNOWN"}

    how, words = chance.choice([(no_name, "s3.elsewhere"), (no_key, "InvalidAccessKeyId")])
    _one_unfit(stage, words, how)


def two_drivers(stage: Stage, chance: random.Random) -> None:
    """Two runs at once, from two hosts, of the same store."""
    stage.build()
    first, second = stage.hosts[:2]
    running = [stage.drive(first)]
    wait_for_commits(stage.bucket, STORE, chance.randrange(SHARDS // 2), *running)
    stage.end(*running, stage.drive(second))


def faults() -> Iterator[tuple[str, Fault, bool]]:
    """All of them: what it is called, what does it, and whether on Ray."""
    for on_ray in (True, False):
        for what, disturbance in UNDER_WAY.items():
            yield what, over_hosts(disturbance, on_ray), on_ray
        for what, preparation in FROM_THE_START.items():
            if on_ray or preparation is not other_version:  # parts of a plan may be labelled by several versions
                yield what, from_the_start(preparation, on_ray), on_ray


UNDER_WAY: dict[str, Disturbance] = {
    "a link down and up": link_down,
    "a host silent for a while": silence,
    "a host switched off": host_gone,
    "the bucket gone and back": bucket_gone,
    "a storm of 503": storm,
    "a driver killed (-9), on from another host": driver_gone,
    "a full disk on a host": disk_full,
}

FROM_THE_START: dict[str, Preparation] = {
    "the bucket far away, and losses": far_away,
    "clocks ten minutes off": clocks_differ,
    "a clock twenty minutes off": clock_wrong,
    "another version on a host": other_version,
    "another checkpoint on a host": other_checkpoint,
    "a host that cannot see the bucket": blind,
    "two drivers at once": two_drivers,
}

OTHER_VERSION = "import depthsieve.core.version\ndepthsieve.core.version.__version__ = '0.0.1'\n"


def _one_unfit(stage: Stage, words: str, prepare: Callable[[Host], dict[str, str]]) -> None:
    """The second host cannot do the job. Somebody must say why, in one line; then it is mended. On Ray the other node
    may have done all before it was ready."""
    stage.build(lambda host: prepare(host) if host.name == "two" else {})
    done = set(stage.end(*stage.begin())) == {0}
    if not (done and stage.on_ray) and not any(words in said for said in stage.tally.said):
        raise NotSurvived(f"nobody says {words!r}: {'; '.join(stage.tally.said)}")
    stage.replace_victim()
