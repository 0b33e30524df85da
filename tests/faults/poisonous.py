"""Images that end the process that labels them. All others get their labels, and the culprits stand failed by name."""

import os
import random
import subprocess
from pathlib import Path

import numpy as np
from patience import PATIENCE_S
from poison import poison, poisoned

from faults.onray import ON_RAY
from faults.world import IMAGES, SUPPORT, NotSurvived, Tally, World, fresh


def by_the_local_runner(world: World, chance: random.Random, tally: Tally) -> None:
    """One or two poison images, on the local runner: the command finds them by itself."""
    _poison(world, chance, tally)


def on_ray(world: World, chance: random.Random, tally: Tally) -> None:
    """The same on Ray workers."""
    _poison(world, chance, tally, *ON_RAY)


def _poison(world: World, chance: random.Random, tally: Tally, *options: str) -> None:
    store, bug = fresh(world, "poison"), fresh(world, "bug")
    culprits = chance.sample(range(IMAGES), chance.choice([1, 2]))
    for number in culprits:
        poison(bug, world.photos / f"photo {number}.png", chance.choice(["SIGSEGV", "SIGABRT", "SIGKILL", "exit"]))
    environment = poisoned(bug)
    environment["PYTHONPATH"] = os.pathsep.join([str(bug), str(SUPPORT), os.environ.get("PYTHONPATH", "")])
    command = world.command(store, *options)
    for _ in range(8):  # a death that is no signal ends the command, and a person repeats it
        tally.tries += 1
        ended = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=PATIENCE_S)
        if ended.returncode == 3:
            break
    _check(world, store, culprits, ended)


def _check(world: World, store: Path, culprits: list[int], ended: "subprocess.CompletedProcess[str]") -> None:
    from depthsieve.store import open_store

    named = sorted(f"default/photo {number}.png" for number in culprits)
    shown = sorted(row.split(": ")[1] for row in ended.stdout.splitlines() if row.startswith("  failed: "))
    if ended.returncode != 3 or shown != named:
        raise NotSurvived(f"exit code {ended.returncode}, failed {shown} instead of {named}: {ended.stderr[-300:]}")
    found, expected = open_store(store), open_store(world.reference)
    if sorted({*expected.images} - {*named}) != found.images:
        raise NotSurvived(f"{len(found)} of {IMAGES} images are labelled")
    for image in found.images:
        one, other = found.label(image), expected.label(image)
        if not (np.array_equal(one.depth, other.depth) and np.array_equal(one.reliability, other.reliability)):
            raise NotSurvived(f"the label of {image} differs")
