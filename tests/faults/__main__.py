"""Run the campaign and print its table. Exit code 1 if a fault was not survived or an image lost."""

import argparse
import os
import sys
from pathlib import Path

from faults import campaign


def main() -> int:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m faults", description=__doc__)
    parser.add_argument("--faults", type=int, default=200, help="how many in all (default: 200)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", default="", help="only kinds whose name this regular expression finds, such as ^ray")
    parser.add_argument("--verbose", action="store_true", help="say how disturbed runs over hosts ended, too")
    parser.add_argument("--json", type=Path, help="write the table here, too")
    chosen = parser.parse_args()
    if not campaign.kinds_of(chosen.only):
        names = "; ".join(kind.name for kind in campaign.KINDS)
        parser.error(f"no kind of fault matches {chosen.only!r}; there are: {names}")
    os.environ |= {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    print(campaign.HEAD)
    rows = campaign.run(
        chosen.faults, chosen.seed, chosen.only, chosen.verbose, say=lambda text: print(text, flush=True)
    )
    whole = campaign.total(rows)
    print(campaign.line(whole))
    print("lost: images committed before and gone or changed after; again: committed images that were labelled again.")
    if chosen.json:
        campaign.write_json(rows, chosen.json)
    return int(whole.survived != whole.faults or whole.lost > 0)


sys.exit(main())
