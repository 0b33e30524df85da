"""``python -m depthsieve`` is the ``depthsieve`` command."""

from depthsieve_cli.main import entry

entry()
