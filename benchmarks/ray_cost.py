"""What Ray costs: the same shards by two Ray workers, and by two local processes that share the plan.

    python benchmarks/ray_cost.py [PHOTOS] [--images 400] [--rounds 3]

Both sides have two workers of one thread, the same teacher (the embedded one) and the same plan, written before the
clock starts; the local side is `label --part 1/2` and `label --part 2/2` at once. Sides take turns, several rounds; the
ratio of each round and the median are printed. Time counts for whole processes, start to end; beside it stands what
`label` itself counts, from the plan to the last commit, with Ray's start and stop.
"""

import argparse
import json
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from photos import gather

SCRIPT = """
import json, sys, time
import depthsieve
source, store, options = sys.argv[1], sys.argv[2], json.loads(sys.argv[3])
start = time.perf_counter()
summary = depthsieve.label(source, store, teacher="tiny", progress=False, **options)
print(json.dumps({"labelled": summary.labelled_now, "seconds": summary.seconds, "all": time.perf_counter() - start}))
"""


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("photos", nargs="?", type=Path)
    parser.add_argument("--images", type=int, default=400)
    parser.add_argument("--rounds", type=int, default=3)
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        photos = gather(chosen.photos, Path(folder) / "photos", chosen.images)
        ratios, own = [], []
        print(f"{'round':>5} {'local, s':>10} {'Ray, s':>10} {'ratio':>7} {'labelling alone':>16}")
        for number in range(1, chosen.rounds + 1):
            sides = {}
            for side in ("local", "ray") if number % 2 else ("ray", "local"):
                sides[side] = measure(side, photos, Path(folder) / "store", chosen.images)
            ratios.append(sides["ray"][0] / sides["local"][0])
            own.append(sides["ray"][1] / sides["local"][1])
            row = f"{number:>5} {sides['local'][0]:>10.1f} {sides['ray'][0]:>10.1f} {ratios[-1]:>7.3f} {own[-1]:>16.3f}"
            print(row, flush=True)
    print(f"median ratio, whole processes: {statistics.median(ratios):.3f}")
    print(f"median ratio, labelling with Ray's start and stop: {statistics.median(own):.3f}")


def measure(side: str, photos: Path, store: Path, images: int) -> tuple[float, float]:
    """Seconds of the whole processes, and of what `label` itself counts, for one side."""
    import depthsieve

    shutil.rmtree(store, ignore_errors=True)
    shared = {"batch_size": 4, "threads": 1, "shard_size": 32}
    depthsieve.plan(photos, store, write=True, progress=False, teacher="tiny", **shared)
    if side == "ray":
        runs = [shared | {"runner": "ray", "workers": 2, "part": "1/1"}]
    else:
        runs = [shared | {"part": f"{part}/2"} for part in (1, 2)]
    start = time.perf_counter()
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", SCRIPT, str(photos), str(store), json.dumps(options)],
            stdout=subprocess.PIPE,
            text=True,
        )
        for options in runs
    ]
    answers = [json.loads(process.communicate()[0].splitlines()[-1]) for process in processes]
    seconds = time.perf_counter() - start
    assert sum(answer["labelled"] for answer in answers) == images, answers
    return seconds, max(answer["seconds"] for answer in answers)


if __name__ == "__main__":
    main()
