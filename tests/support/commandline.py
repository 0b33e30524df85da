"""The command line within the tests' own process."""

import sys

import pytest

from depthsieve_cli.main import main


def command(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    """Run a command, and give its exit code."""
    monkeypatch.setattr(sys, "argv", ["depthsieve", *map(str, arguments)])
    with pytest.raises(SystemExit) as exit_info:
        main()
    assert isinstance(exit_info.value.code, int)
    return exit_info.value.code
