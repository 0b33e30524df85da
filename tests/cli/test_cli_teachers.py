"""`depthsieve teachers`: what is listed, and what counts as being on this machine."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner
from teachers_builders import DEPTH_ANYTHING_PROCESSOR, depth_anything_config, save

from depthsieve.teachers import IN_PACKAGE, PRESETS
from depthsieve_cli.main import cli


def test_every_preset_stands_in_the_list_with_its_licence_and_quantity() -> None:
    lines = CliRunner().invoke(cli, ["teachers"]).output.splitlines()
    rows = {line.split()[0]: line for line in lines[: lines.index("")]}
    for preset in PRESETS:
        assert preset.hub_id in rows[preset.name] and preset.licence in rows[preset.name]
        assert preset.quantity in rows[preset.name] and preset.parameters in rows[preset.name]
    assert "  depth-anything-v2-large: not for commercial use" in lines
    assert lines[1].startswith("tiny") and "yes" in lines[1]


def test_whether_commercial_use_is_allowed_is_told_for_each() -> None:
    lines = CliRunner().invoke(cli, ["teachers"]).output.splitlines()
    listed = json.loads(CliRunner().invoke(cli, ["teachers", "--json"]).output)
    allowed = {entry["name"]: entry["commercial_use"] for entry in listed}
    assert [allowed[one.name] for one in IN_PACKAGE] == [True] * len(IN_PACKAGE)
    for preset in PRESETS:
        if preset.licence in ("CC-BY-NC-4.0", "Apple-AMLR"):
            assert allowed[preset.name] is False
    assert allowed["depth-anything-v2-small"] is allowed["dpt-beit-large-512"] is True
    # The authors' word alone, and conversions that contradict each other.
    assert allowed["depth-anything-v2-indoor-large"] is allowed["distill-any-depth-small"] is None
    words = {line.split()[0]: line.split() for line in lines[1 : lines.index("")]}
    assert "commercial" in lines[0].split()
    for entry in listed:
        assert {True: "yes", False: "no", None: "unclear"}[entry["commercial_use"]] in words[entry["name"]][3:-2]


def test_what_is_in_the_hub_cache_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    before = json.loads(CliRunner().invoke(cli, ["teachers", "--json"]).output)
    embedded = [one.name for one in IN_PACKAGE]
    assert [entry["name"] for entry in before if entry["cached"]] == embedded
    preset = PRESETS[0]
    folder = tmp_path / f"models--{preset.hub_id.replace('/', '--')}"
    (folder / "refs").mkdir(parents=True)
    (folder / "refs" / "main").write_text("0" * 40)
    save(folder / "snapshots" / ("0" * 40), depth_anything_config(), DEPTH_ANYTHING_PROCESSOR)
    after = json.loads(CliRunner().invoke(cli, ["teachers", "--json"]).output)
    assert [entry["name"] for entry in after if entry["cached"]] == [*embedded, preset.name]
