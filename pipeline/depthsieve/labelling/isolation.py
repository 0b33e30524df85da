"""Label a shard in isolated processes, and find the images that crash them.

A child process loads the teacher and labels the shard as any other would, but announces each step before it takes it.
When it dies, or a step takes too long, the images of that step are suspects: each goes alone, in a fresh process, and
one that crashes it again is quarantined: it fails by name. Then the whole shard is labelled again, without it.
"""

import contextlib
import json
import os
import pickle
import queue
import signal
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import IO, Any, NoReturn

from depthsieve.core.errors import DepthsieveError
from depthsieve.core.lifelines import CRASHES, die_with_parent, how_it_died, python_calling
from depthsieve.core.records import LabelJob, ShardResult
from depthsieve.core.stopping import Abandoned, Stop

STEP_S = 600.0
"""Seconds that one image may take to decode, or to pass through the teacher."""

START_S = 3600.0
"""Seconds for a step that is about no image: loading the teacher, committing the shard."""

DEATHS = 4
"""Deaths that no image is to blame for, before this run gives up the shard."""

UNSOUND = 3
"""When so many images of a shard crash their decoder and none was decoded, the fault is the machine's."""

OFTEN = 2
"""Deaths at one batch, none of whose images dies alone, before it goes through the teacher one image at a time."""

POLL_S = 0.2


@dataclass(frozen=True)
class Attempt:
    """What a child does: label and commit the shard, or only ``try_rows``, each alone. See :class:`.shard.Care`."""

    quarantined: dict[int, str]
    singly: frozenset[int] = frozenset()
    try_rows: tuple[int, ...] = ()


@dataclass(frozen=True)
class End:
    """How a child ended: with a result, or dead at a step that was about ``rows``; all empty when it tried its rows.

    ``own``: nobody asked it to end. ``hard``: the machine may have killed it all the same, as for lack of memory.
    ``decoded``: at least one image was decoded.
    """

    result: ShardResult | None = None
    step: str = ""
    rows: tuple[int, ...] = ()
    how: str = ""
    own: bool = False
    hard: bool = False
    decoded: bool = False


def label_isolated(job: LabelJob, shard_id: str, stop: Stop | None = None, step_s: float = STEP_S) -> ShardResult:
    """Label and commit one shard whose images may crash the process that labels it, or take more than ``step_s``
    seconds.

    All other images get the labels they would get anywhere else. The result has an ``error`` when no child finished and
    no image was to blame. Raises :class:`Abandoned` when a stop was requested and the grace period is over.
    """
    quarantined: dict[int, str] = {}
    at_batch: Counter[int] = Counter()
    deaths, decoded = 0, False
    while True:
        singly = frozenset(first for first, count in at_batch.items() if count >= OFTEN)
        end = _run_child(job, shard_id, Attempt(quarantined, singly), stop, step_s)
        if end.result:
            return end.result
        decoded = decoded or end.decoded
        culprit = _culprit(job, shard_id, end, quarantined, stop, step_s) if end.own else None
        if culprit:
            quarantined |= culprit
            if len(quarantined) == UNSOUND and not decoded:
                (reason,) = culprit.values()
                error = f"the first {UNSOUND} images fail alike: each {reason}; is this machine sound?"
                return ShardResult(shard_id, error=error)
            continue
        if end.step == "predict":
            at_batch[end.rows[0]] += 1
        deaths += 1
        if deaths == DEATHS:
            where = f"at {end.step} of rows {end.rows[0]}..{end.rows[-1]}" if end.rows else f"at {end.step}"
            reason = f"{deaths} isolated processes died, and no image alone does that; the last {where} ({end.how})"
            return ShardResult(shard_id, error=reason)


def _culprit(
    job: LabelJob, shard_id: str, end: End, quarantined: Mapping[int, str], stop: Stop | None, step_s: float
) -> dict[int, str] | None:
    """The image among the suspects that crashes a process when it goes alone, with the reason why it fails: one that is
    not ``quarantined`` already.

    It must have been alone at two deaths of one kind, or at three if that may as well have been the machine.
    """
    suspects, seen = tuple(row for row in end.rows if row not in quarantined), end
    alone = 1 if len(end.rows) == 1 else 0
    while suspects:
        again = _run_child(job, shard_id, Attempt({}, try_rows=suspects), stop, step_s)
        if not again.own or (alone and (again.step, again.how) != (seen.step, seen.how)):
            return None
        suspects, seen, alone = again.rows, again, alone + 1
        if alone == (3 if seen.hard else 2):
            culprit = {suspects[0]: _reason(seen)}
            if (
                seen.step == "predict"
                and _run_child(job, shard_id, Attempt(culprit, try_rows=suspects), stop, step_s).own
            ):
                return None  # the teacher cannot even look at an empty picture: it is not the image
            return culprit
    return None


def _reason(end: End) -> str:
    """Why an image fails, as its shard keeps it: stores would differ by another wording."""
    if end.how.startswith("takes"):
        return f"{end.how} to decode" if end.step == "decode" else f"{end.how} in the teacher"
    doing = "decodes it" if end.step == "decode" else "has the teacher look at it"
    return f"ends the process that {doing} ({end.how})"


def _run_child(job: LabelJob, shard_id: str, attempt: Attempt, stop: Stop | None, step_s: float) -> End:
    if stop and stop.requested:
        raise Abandoned  # a child takes too long to start
    pipe, command = subprocess.PIPE, python_calling("depthsieve.labelling.isolation._child", os.getpid())
    child = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=subprocess.DEVNULL)
    assert child.stdin and child.stdout
    told: queue.SimpleQueue[dict[str, Any] | None] = queue.SimpleQueue()
    listener = threading.Thread(target=_listen, args=(child.stdout, told), daemon=True)
    listener.start()
    try:
        request = pickle.dumps((job, shard_id, attempt))
        with contextlib.suppress(BrokenPipeError):
            child.stdin.write(len(request).to_bytes(8, "little") + request)
            child.stdin.flush()  # and left open: it closes when this process ends
        return _follow(child, told, stop, step_s)
    finally:
        child.kill()
        child.wait()
        listener.join()
        child.stdout.close()
        with contextlib.suppress(BrokenPipeError):
            child.stdin.close()


def _follow(
    child: "subprocess.Popen[bytes]",
    told: "queue.SimpleQueue[dict[str, Any] | None]",
    stop: Stop | None,
    step_s: float,
) -> End:
    """Listen to a child until it is done, dies, takes too long, or a stop ends it."""
    rows: tuple[int, ...] = ()
    step, raised, limit, decoded = "the start", "", START_S, False
    deadline = time.monotonic() + limit
    while True:
        try:
            line = told.get(timeout=POLL_S)
        except queue.Empty:
            if stop and stop.seconds_left() == 0 and step != "commit":
                raise Abandoned from None
            if time.monotonic() > deadline:
                return End(
                    step=step, rows=rows, how=f"takes more than {limit:g} s", own=True, hard=True, decoded=decoded
                )
            continue
        if line is None:
            break
        if "step" in line:
            decoded = decoded or step == "decode"
            step, rows = line["step"], tuple(line["rows"])
            limit = step_s * len(rows) if rows else START_S
            deadline = time.monotonic() + limit
        elif "raised" in line:
            raised = f", {line['raised']}"
        elif line.get("tried"):
            return End()
        else:
            result = line["result"]
            remarks = tuple(tuple(remark) for remark in result["remarks"])  # JSON knows lists only
            return End(ShardResult(**result | {"notes": tuple(result["notes"]), "remarks": remarks}))
    code = child.wait()
    own = code >= 0 or -code in CRASHES
    hard = code == -signal.SIGKILL
    return End(step=step, rows=rows, how=how_it_died(code) + raised, own=own, hard=hard, decoded=decoded)


def _listen(pipe: IO[bytes], told: "queue.SimpleQueue[dict[str, Any] | None]") -> None:
    with contextlib.suppress(OSError, ValueError):  # a line that death cut short
        for line in pipe:
            told.put(json.loads(line))
    told.put(None)


def _child(parent: int) -> NoReturn:
    """The child process. It writes JSON lines to what was its standard output, and nothing else does."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)  # a terminal or a scheduler signals all: the parent decides
    request = _read(int.from_bytes(_read(8), "little"))
    die_with_parent(parent, lifeline=0)
    out = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    begun = False

    def tell(step: str, rows: Sequence[int]) -> None:
        nonlocal begun
        begun = True
        out.write(json.dumps({"step": step, "rows": list(rows)}) + "\n")

    job, shard_id, attempt = pickle.loads(request)
    try:
        from depthsieve.labelling.shard import Care, ShardLabeller, Watch  # heavy, and the parent may die meanwhile

        watch = Watch(care=Care(tell, attempt.quarantined, attempt.singly))
        labeller = ShardLabeller(job, watch=watch)
        if attempt.try_rows:
            labeller.try_rows(shard_id, attempt.try_rows)
            answer: dict[str, Any] = {"tried": True}
        else:
            answer = {"result": asdict(labeller(shard_id))}
    except Exception as error:
        name = type(error).__name__
        if begun:
            answer = {"raised": name}
        else:  # no image is to blame
            fatal = isinstance(error, DepthsieveError)
            text = str(error) if fatal else f"{name}: {(str(error).splitlines() or [''])[0]}"
            answer = {"result": asdict(ShardResult(shard_id, error=text, fatal=fatal))}
    out.write(json.dumps(answer) + "\n")
    out.flush()
    os._exit(1 if "raised" in answer else 0)


def _read(count: int) -> bytes:
    """So many bytes of standard input, and not one more: from then on it is the parent's lifeline."""
    data = b""
    while len(data) < count:
        piece = os.read(0, count - len(data))
        if not piece:
            os._exit(1)
        data += piece
    return data
