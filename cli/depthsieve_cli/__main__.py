"""``python -m depthsieve_cli`` is the ``depthsieve`` command."""

from depthsieve_cli.main import entry

entry()
