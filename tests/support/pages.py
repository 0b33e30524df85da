"""Runs what a page of the documentation shows, block after block, in a folder, and compares what is printed.

``console`` blocks hold commands (``$ ``) and what they print; ``python`` blocks are run as they stand, and where a
``text`` block follows directly, it is what they print. Words and whole numbers must be as shown; numbers with a point,
sizes, times and paths may differ. With DEPTHSIEVE_WRITE_PAGES=1 what is printed is written into the page instead.
"""

import contextlib
import io
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from depthsieve_cli.main import main

BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
WRITE = os.environ.get("DEPTHSIEVE_WRITE_PAGES") == "1"
READER = "/home/ann"
VARIES = re.compile(
    r"(?:Reliability from |Note: (as|teacher) |No drop stands|drop 0\.\d+ would|For other images like|About [\d.]+ )"
)
"""Lines that follow from the embedded teacher's weights and error network, or from the machine's speed."""

BAR = re.compile(r"\w+: \d+ of \d+ .* left$")


@dataclass(frozen=True)
class Block:
    language: str
    text: str
    start: int
    end: int


def blocks(text: str) -> list[Block]:
    return [Block(found[1], found[2], found.start(), found.end()) for found in BLOCK.finditer(text)]


def commands(block: str) -> list[tuple[str, str]]:
    """The commands of a console block, each with what it prints as shown."""
    parts = re.split(r"^\$ ", block, flags=re.MULTILINE)
    assert parts[0] == "", f"a console block begins with a command: {block}"
    return [(command, shown) for command, _, shown in (part.partition("\n") for part in parts[1:])]


UNITS = r"(?: ?(?:ms|s|min|h|[kKMG]i?B|bytes|files|a second|images/s)\b|%)"
NUMBER = rf"\d[\d,]*\.\d+(?:e-?\d+)?{UNITS}?|\d[\d,]*{UNITS}"
LOOSE = re.compile(rf"(?P<lines>^\.\.\.\n)|(?P<digest>(?<=-)[0-9a-f]{{8}}\b)|(?P<number>{NUMBER})", re.MULTILINE)
STANDS_FOR = {"lines": r"(?:.*\n)*?", "digest": "[0-9a-f]{8}", "number": rf"\d[\d.,e-]*{UNITS}?"}


def loosened(shown: str) -> str:
    """A pattern for what is printed: numbers with a point or a unit may be others, ``...`` is any number of lines."""
    pattern, at = "", 0
    for found in LOOSE.finditer(shown):
        pattern += re.escape(shown[at : found.start()]) + STANDS_FOR[str(found.lastgroup)]
        at = found.end()
    return re.sub(r"(?:\\ ){2,}", " +", pattern + re.escape(shown[at:]))


def same(shown: str, printed: str) -> bool:
    shown, printed = ("".join(x for x in text.splitlines(True) if not VARIES.match(x)) for text in (shown, printed))
    return re.fullmatch(loosened(shown), printed) is not None


class Session:
    """A shell and a Python session in one folder, as a reader has them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.code = 0
        self.names: dict[str, object] = {"__name__": "page"}

    def shell(self, line: str) -> str:
        """What a command prints; those of depthsieve run in this process, which spares their imports."""
        if line.split("#")[0].strip() == "echo $?":
            return f"{self.code}\n"
        words = shlex.split(line, comments=True)
        output = io.StringIO()
        if words[0] == "depthsieve" and not {"|", ">", "&&"} & {*words}:
            with contextlib.redirect_stdout(output), contextlib.redirect_stderr(output):
                argv, sys.argv = sys.argv, words
                try:
                    main()
                except SystemExit as end:
                    self.code = int(end.code or 0)
                finally:
                    sys.argv = argv
            return self._readers(output.getvalue())
        path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
        environment = os.environ | {"PATH": path}
        done = subprocess.run(
            ["bash", "-c", line], cwd=self.folder, env=environment, capture_output=True, text=True, timeout=250
        )
        self.code = done.returncode
        return self._readers(done.stdout + done.stderr)

    def python(self, code: str) -> str:
        output = io.StringIO()
        with contextlib.redirect_stdout(output):
            exec(compile(code, "page", "exec"), self.names)
        return self._readers(output.getvalue())

    def _readers(self, text: str) -> str:
        """As the reader sees it, whose folder is called otherwise, without bars."""
        lines = [line for line in text.split("\n") if not BAR.match(line)]
        return "\n".join(lines).replace(str(self.folder), READER)


def run_page(page: Path, folder: Path, skip: Callable[[str], bool]) -> None:
    """Run the blocks of ``page`` in ``folder``, but for commands, and Python by its first line, that ``skip`` names."""
    session, text = Session(folder), page.read_text()
    renewed: list[tuple[Block, str]] = []
    printed: str | None = None
    for block in blocks(text):
        if block.language == "console":
            shown_now = ""
            for command, shown in commands(block.text):
                if skip(command):
                    shown_now += f"$ {command}\n{shown}"
                    continue
                output = session.shell(command)
                shown_now += f"$ {command}\n{shown if '...' in shown else output}"
                assert session.code in (0, 3, 4) or WRITE, f"{page.name}: {command}: {output}"
                assert WRITE or same(shown, output), f"{page.name}: {command} prints\n{output}\nnot\n{shown}"
            renewed.append((block, shown_now))
            printed = None
        elif block.language == "python" and not skip(block.text.partition("\n")[0]):
            printed = session.python(block.text)
        elif block.language == "text" and printed is not None:
            renewed.append((block, printed))
            assert WRITE or same(block.text, printed), f"{page.name} prints\n{printed}\nnot\n{block.text}"
            printed = None
    if WRITE:
        for block, now in reversed(renewed):
            text = f"{text[: block.start]}```{block.language}\n{now}```{text[block.end :]}"
        page.write_text(text)
