"""docs/command_line.md names every field that `--json` has, and no other."""

import dataclasses
import re
from pathlib import Path
from typing import Any

import pytest

import depthsieve
from depthsieve.store.history import Event

PAGE = (Path(__file__).parents[2] / "docs" / "command_line.md").read_text()
RESULTS: dict[str, tuple[type[Any] | None, set[str]]] = {
    # what a command prints, and what it adds to that
    "calibrate": (depthsieve.CalibrateSummary, set()),
    "convert-weights": (depthsieve.ConvertSummary, set()),
    "label": (depthsieve.LabelSummary, set()),
    "plan": (depthsieve.PlanSummary, set()),
    "scan": (depthsieve.ScanSummary, set()),
    "status": (depthsieve.StoreStatus, set()),
    "status --history": (Event, set()),
    "curate": (depthsieve.CurateSummary, set()),
    "fuse": (depthsieve.FuseSummary, set()),
    "import": (depthsieve.ImportSummary, set()),
    "features": (depthsieve.FeaturesSummary, set()),
    "align-clips": (depthsieve.AlignClipsSummary, set()),
    "export": (depthsieve.ExportSummary, set()),
    "recalibrate": (depthsieve.RecalibrateSummary, set()),
    "report": (depthsieve.ReportSummary, set()),
    "view": (
        None,
        {"store", "ids", "drop", "chosen", "reliability", "notes", "out", "ply", "points", "focal_px", "focal_from"},
    ),
    "verify": (depthsieve.VerifyReport, {"sound"}),
}


@pytest.mark.parametrize("command", RESULTS)
def test_every_field_is_described(command: str) -> None:
    section = PAGE.partition(f"### `{command}`\n")[2].partition("\n###")[0]
    result, more = RESULTS[command]
    assert set(re.findall(r"^\| `(\w+)` \| .{5,}", section, re.MULTILINE)) == {
        *(field.name for field in (dataclasses.fields(result) if result else ())),
        *more,
    }


def test_every_command_with_json_is_there() -> None:
    from depthsieve_cli.main import cli

    with_json = {name for name, one in cli.commands.items() if any("--json" in option.opts for option in one.params)}
    described = {command.split()[0] for command in RESULTS} | set(re.findall(r"`(\w+)`", PAGE.splitlines()[-1]))
    assert with_json <= described
