"""The target ``huggingface``, beside what every target is held to: groups of rows in bounded memory, and its card."""

from pathlib import Path

import pyarrow.parquet as pq
import pytest
from exported import READERS, check_equal, export, labels_of, small_store

from depthsieve.export import to_huggingface


def test_rows_are_written_when_they_take_enough(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(to_huggingface, "GROUP_BYTES", 1)
    monkeypatch.setenv("HF_DATASETS_OFFLINE", "1")
    store = small_store(tmp_path)
    export(store, tmp_path / "out", "huggingface")
    assert pq.ParquetFile(tmp_path / "out" / "data" / "train-00000.parquet").num_row_groups == 4
    check_equal(READERS["huggingface"].read(tmp_path / "out"), labels_of(store), READERS["huggingface"])


def test_the_readme_is_a_card(tmp_path: Path) -> None:
    export(small_store(tmp_path), tmp_path / "out", "huggingface")
    _, card, text = (tmp_path / "out" / "README.md").read_text().split("---\n", 2)
    assert "- depth-estimation\n" in card and "path: data/*.parquet" in card
    assert text.startswith("\n# Depth labels of 4 images")
