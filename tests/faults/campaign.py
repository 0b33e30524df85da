"""The kinds of fault, how often each is drawn, and the table at the end."""

import json
import random
import re
import shutil
import tempfile
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from hosts.lab import missing as no_lab

from faults import buckets, damage, local, onhosts, onray, poisonous
from faults.world import NotSurvived, Tally, World

Fault = Callable[[World, random.Random, Tally], None]


@dataclass(frozen=True)
class Kind:
    """One kind of fault: its name in the table, what does it, and how many of 240 faults are of it."""

    name: str
    do: Fault
    share: int
    lacks: Callable[[], str | None] = lambda: None
    """Why this machine cannot do it, if so."""


KINDS = (
    Kind("local: run killed (-9) at any moment", local.driver_killed, 44),
    Kind("local: command killed (-9)", local.command_killed, 6),
    Kind("local: labelling process killed (-9)", local.labelling_process_killed, 6),
    Kind("local: SIGTERM or SIGINT, with and without grace", local.interrupted, 10),
    Kind("local: two runs at once, one killed or not", local.two_at_once, 14),
    Kind("local: three parts at once, one killed", local.parts_with_one_killed, 14),
    Kind("local: files that may not grow (full disk)", local.disk_full, 8),
    Kind("local: file system that runs full", local.disk_really_full, 8),
    Kind("local: late duplicate of a worker taken for dead", local.late_duplicate, 12),
    Kind("local: images that kill their decoder", poisonous.by_the_local_runner, 8),
    Kind("disk: flipped, torn, lost files of a whole store", damage.of_a_finished_store, 30),
    Kind("disk: run killed, then a file damaged", damage.of_a_store_left_half_way, 16),
    Kind("ray: command killed (-9)", onray.driver_killed, 6),
    Kind("ray: worker killed (-9)", onray.worker_killed, 10),
    Kind("ray: SIGTERM, then on with the local runner", onray.interrupted, 4),
    Kind("ray: one of three nodes killed, not replaced", onray.node_killed, 4),
    Kind("ray: images that kill their decoder", poisonous.on_ray, 2),
    Kind("s3: 5% of all calls fail", buckets.calls_fail, 4),
    Kind("s3: server dies once and comes back", buckets.server_dies_once, 3),
    Kind("s3: run killed (-9) while calls fail", buckets.run_killed, 3),
    *(
        Kind(f"hosts, {'ray' if on_ray else 'parts'}: {what}", fault, 1, no_lab)
        for what, fault, on_ray in onhosts.faults()
    ),
)


@dataclass
class Row:
    """A line of the table."""

    fault: str
    faults: int = 0
    tries: int = 0
    survived: int = 0
    lost: int = 0
    again: int = 0
    seconds: float = 0.0
    problems: list[str] = field(default_factory=list)
    said: list[str] = field(default_factory=list)


def run(faults: int, seed: int, only: str, verbose: bool, say: Callable[[str], None]) -> list[Row]:
    """Do ``faults`` faults, spread by their shares over the kinds that ``only`` finds, at least one of each.

    ``verbose``: say how disturbed runs ended, too.
    """
    kinds = kinds_of(only)
    home = Path(tempfile.mkdtemp(prefix="depthsieve-faults-"))
    try:
        world = World(home)
        counts = zip(kinds, _counts(kinds, faults), strict=True)
        return [_do_kind(kind, count, seed, world, verbose, say) for kind, count in counts]
    finally:
        shutil.rmtree(home, ignore_errors=True)


def kinds_of(only: str) -> list[Kind]:
    """The kinds of fault whose names the regular expression finds."""
    return [kind for kind in KINDS if re.search(only, kind.name)]


def _counts(kinds: Sequence[Kind], faults: int) -> list[int]:
    whole = sum(kind.share for kind in kinds)
    return [max(1, round(faults * kind.share / whole)) for kind in kinds]


def _do_kind(kind: Kind, count: int, seed: int, world: World, verbose: bool, say: Callable[[str], None]) -> Row:
    row = Row(kind.name)
    start = time.monotonic()
    if reason := kind.lacks():
        say(f"{kind.name}: left out: {reason}")
        return row
    for number in range(count):
        tally = Tally()
        try:
            kind.do(world, random.Random(f"{seed} {kind.name} {number}"), tally)
            row.survived += 1
        except NotSurvived as error:
            row.problems.append(f"seed {seed}, number {number}: {error}")
        except Exception:
            row.problems.append(f"seed {seed}, number {number}: {traceback.format_exc()}")
        row.faults += 1
        row.tries += tally.tries
        row.lost += tally.lost
        row.again += tally.again
        row.said += tally.said
    row.seconds = time.monotonic() - start
    say(line(row))
    for said in row.said if verbose else ():
        say(f"    {' / '.join(said.splitlines())}")
    for problem in row.problems:
        say(f"    {problem}")
    return row


HEAD = f"{'fault':<52}{'faults':>7}{'runs':>7}{'survived':>10}{'lost':>6}{'again':>7}{'s':>7}"


def line(row: Row) -> str:
    """A row as text."""
    numbers = f"{row.faults:>7}{row.tries:>7}{row.survived:>10}{row.lost:>6}{row.again:>7}{row.seconds:>7.0f}"
    return f"{row.fault:<52}{numbers}"


def total(rows: Sequence[Row]) -> Row:
    """All rows in one."""
    whole = Row("all")
    for row in rows:
        whole.problems += row.problems
        for name, value in asdict(row).items():
            if isinstance(value, int | float):
                setattr(whole, name, getattr(whole, name) + value)
    return whole


def write_json(rows: Sequence[Row], path: Path) -> None:
    """The table for scripts."""
    path.write_text(json.dumps([asdict(row) for row in rows], indent=1) + "\n")
