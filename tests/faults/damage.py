"""Faults of the disk: bits that flip, files that are torn or gone, of every kind that a store has."""

import json
import random
import shutil
import sys
import time
from pathlib import Path
from typing import Any

from faults.world import NotSurvived, Tally, World, fork, fresh, moment

sys.path.append(str(Path(__file__).parents[2] / "tools"))
from flip_bits import kinds_of


def of_a_finished_store(world: World, chance: random.Random, tally: Tally) -> None:
    """One to three files of a whole store, each of another kind: verify names them, --repair gives the bytes back."""
    store = fresh(world, "damaged")
    shutil.copytree(world.reference, store)
    hurt = _damage(store, chance, chance.choice([1, 1, 2, 3]))
    named = set(_verify(store, tally)["named"])
    silent = {key for key, how in hurt.items() if how == "gone"}  # a lost commit record is a shard that is pending
    if not set(hurt) - silent <= named:
        raise NotSurvived(f"verify did not name {sorted(set(hurt) - silent - named)}")
    _mend(world, store, tally)


def of_a_store_left_half_way(world: World, chance: random.Random, tally: Tally) -> None:
    """A run is killed, then a file of what it left is damaged."""
    store = fresh(world, "half damaged")
    running = world.start(store)
    time.sleep(moment(world, chance))
    running.kill()
    if (store / "commits").exists():
        _damage(store, chance, 1)
    _mend(world, store, tally)


def _mend(world: World, store: Path, tally: Tally) -> None:
    if (store / "labels.zarr").exists() or (store / "copies").exists():
        mended = _verify(store, tally, repair=True)
        tally.again += mended["relabelled"]
        if not mended["sound"]:
            raise NotSurvived(f"not mended: {mended['left']}")
    world.resume(store, tally)
    world.add_features(store)  # a repair takes damaged ones out
    world.compare(store, features_too=False)
    if not (last := _verify(store, tally))["sound"] or last["named"]:
        raise NotSurvived(f"in the end verify finds {last['named']}")


def _damage(store: Path, chance: random.Random, count: int) -> dict[str, str]:
    kinds = kinds_of(store)
    hurt: dict[str, str] = {}
    for kind in chance.sample(sorted(kinds), min(count, len(kinds))):
        taken = {key.removeprefix("copies/") for key in hurt}  # both copies of a file would be beyond repair
        names = {path: path.relative_to(store).as_posix().removeprefix("copies/") for path in kinds[kind]}
        path = chance.choice([path for path, name in names.items() if name not in taken])
        how = chance.choice(["flipped", "torn", "empty", "gone"])
        data = bytearray(path.read_bytes())
        if how == "flipped":
            bit = chance.randrange(8 * len(data))
            data[bit // 8] ^= 1 << bit % 8
            path.write_bytes(data)
        elif how == "gone":
            path.unlink()
        else:
            path.write_bytes(data[: chance.randrange(1, len(data)) if how == "torn" and len(data) > 1 else 0])
        hurt[path.relative_to(store).as_posix()] = how
    return hurt


def _verify(store: Path, tally: Tally, repair: bool = False) -> dict[str, Any]:
    """A verification in a process of its own."""
    found = store.parent / "report.json"

    def work() -> dict[str, Any]:
        from depthsieve.core.errors import DepthsieveError
        from depthsieve.jobs.verify.repair import verify

        try:
            report = verify(store, repair=repair, progress=False)
        except DepthsieveError as error:
            return {"code": 1, "error": str(error)}
        named = [finding.key for finding in report.findings if not finding.harmless]
        left = [finding.key for finding in report.left if not finding.harmless]
        body = {"named": named, "left": left, "sound": report.sound, "relabelled": report.relabelled}
        found.write_text(json.dumps(body))
        return {}

    tally.tries += 1
    ended = fork(work).wait()
    if not ended.done:
        raise NotSurvived(f"verify ended with {ended.code}: {ended.error}")
    body: dict[str, Any] = json.loads(found.read_text())
    return body
