"""Pickled weights become safetensors without anything in them being run, or are refused in one line."""

import argparse
import json
import os
import pickle
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner
from safetensors.torch import load_file
from teachers_builders import DEPTH_ANYTHING_PROCESSOR, depth_anything_config, depth_of, save

from depthsieve import convert_weights
from depthsieve.core.errors import DepthsieveError, TeacherNotFound, TeacherUnsupported, UsageError
from depthsieve.teachers import load_teacher
from depthsieve_cli.main import cli

WEIGHTS = {"a.weight": torch.arange(6.0).reshape(2, 3), "a.bias": torch.zeros(2, dtype=torch.float16)}


def saved(folder: Path, held: object) -> Path:
    torch.save(held, folder / "weights.pt")
    return folder / "weights.pt"


def refusal(kind: type[DepthsieveError], source: Path, folder: Path, part: str | None = None) -> str:
    with pytest.raises(kind) as caught:
        convert_weights(source, folder, part=part)
    assert "\n" not in str(caught.value)
    assert not (folder / "model.safetensors").exists() or kind is UsageError
    return str(caught.value)


@pytest.mark.parametrize(
    ("held", "part"),
    [
        (WEIGHTS, ""),
        ({"model": WEIGHTS, "epoch": 3}, "model"),
        ({"state": {"ema": WEIGHTS}, "name": "x"}, "state.ema"),
    ],
)
def test_weights_are_found_and_keep_names_types_and_values(tmp_path: Path, held: object, part: str) -> None:
    summary = convert_weights(saved(tmp_path, held), tmp_path / "out")
    assert (summary.part, summary.tensors, summary.parameters, summary.config) == (part, 2, 8, None)
    found = load_file(summary.weights)
    assert set(found) == set(WEIGHTS)
    for name, tensor in found.items():
        assert tensor.dtype == WEIGHTS[name].dtype
        torch.testing.assert_close(tensor, WEIGHTS[name], rtol=0, atol=0)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out", "weights.pt"]


def test_settings_beside_the_weights_become_the_configuration(tmp_path: Path) -> None:
    held = {
        "model": WEIGHTS | {"version": 2},
        "model_config": {"layers": [1, 2]},
        "optimizer": {"lr": float("nan")},
        "epoch": 3,
    }
    summary = convert_weights(saved(tmp_path, held), tmp_path / "out")
    assert summary.config is not None
    assert json.loads(summary.config.read_text()) == {"model_config": {"layers": [1, 2]}}
    assert summary.left_out == ("epoch", "optimizer", "model.version")
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept" / "config.json").write_text("{}")
    again = convert_weights(tmp_path / "weights.pt", tmp_path / "kept")
    assert (again.config, (tmp_path / "kept" / "config.json").read_text()) == (None, "{}")
    assert "model_config" in again.left_out


def test_of_several_parts_one_must_be_named(tmp_path: Path) -> None:
    source = saved(tmp_path, {"model": WEIGHTS, "ema": {"a.bias": torch.ones(2)}})
    message = refusal(UsageError, source, tmp_path / "out")
    assert message.endswith("holds weights under model, ema; say which with --part")
    assert convert_weights(source, tmp_path / "out", part="ema").parameters == 2
    assert "has a model.safetensors already" in refusal(UsageError, source, tmp_path / "out", part="ema")
    assert "holds no weights under 'emma'; it has model, ema" in refusal(
        UsageError, source, tmp_path / "new", part="emma"
    )


def test_weights_that_share_memory_are_written_apart(tmp_path: Path) -> None:
    one = torch.arange(4.0)
    summary = convert_weights(saved(tmp_path, {"one": one, "same": one, "half": one[::2]}), tmp_path / "out")
    found = load_file(summary.weights)
    assert (found["same"] == one).all() and found["half"].tolist() == [0, 2]


class Bomb:
    def __reduce__(self) -> object:
        return os.mkdir, (os.environ["BOMB"],)


def test_nothing_in_a_pickle_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BOMB", str(tmp_path / "exploded"))
    for number, held in enumerate(({"model": WEIGHTS, "x": Bomb()}, {"model": WEIGHTS, "x": argparse.Namespace(a=1)})):
        folder = tmp_path / str(number)
        folder.mkdir()
        message = refusal(TeacherUnsupported, saved(folder, held), folder / "out")
        assert ("mkdir" if number == 0 else "argparse.Namespace") in message
        assert "could run code" in message
    assert not (tmp_path / "exploded").exists()


def test_files_that_are_no_weights_are_refused(tmp_path: Path) -> None:
    (tmp_path / "plain.pt").write_bytes(b"not a pickle")
    (tmp_path / "numbers.pkl").write_bytes(pickle.dumps([1, 2]))
    (tmp_path / "empty.pt").write_bytes(b"")
    source = saved(tmp_path, {"model": WEIGHTS})
    (tmp_path / "cut.pt").write_bytes(source.read_bytes()[:400])
    for name in ("plain.pt", "numbers.pkl", "empty.pt", "cut.pt"):
        assert str(tmp_path / name) in refusal(TeacherUnsupported, tmp_path / name, tmp_path / "out")
    assert "holds no weights; it has epoch" in refusal(
        TeacherUnsupported, saved(tmp_path, {"epoch": 3}), tmp_path / "out"
    )
    assert "holds a list" in refusal(TeacherUnsupported, saved(tmp_path, [torch.ones(1)]), tmp_path / "out")
    assert "there is no file" in refusal(TeacherNotFound, tmp_path / "none.pt", tmp_path / "out")
    assert "is a folder" in refusal(UsageError, tmp_path, tmp_path / "out")
    assert "is a file" in refusal(UsageError, source, source)
    assert sorted(path.suffix for path in tmp_path.iterdir()) == [".pkl", ".pt", ".pt", ".pt", ".pt"]


def test_a_converted_checkpoint_labels_as_the_one_it_was_made_from(tmp_path: Path) -> None:
    folder = save(tmp_path / "model", depth_anything_config(), DEPTH_ANYTHING_PROCESSOR)
    torch.save(load_file(folder / "model.safetensors"), tmp_path / "pytorch_model.bin")
    image = torch.randn(1, 3, 70, 70, generator=torch.Generator().manual_seed(0))
    wanted = depth_of(load_teacher(str(folder)), image)
    (folder / "model.safetensors").unlink()
    result = CliRunner().invoke(cli, ["convert-weights", str(tmp_path / "pytorch_model.bin"), str(folder)])
    assert (result.exit_code, "tensors, " in result.stdout) == (0, True)
    torch.testing.assert_close(depth_of(load_teacher(str(folder)), image), wanted, rtol=0, atol=0)
