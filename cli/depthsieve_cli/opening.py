"""``--open``: show a file in the program that the system has for it."""

import contextlib
import os
import shutil
import subprocess
import sys
from pathlib import Path


def open_file(path: Path) -> str:
    """Show a file in the viewer that the system has for it; why that could not be done, or nothing."""
    if sys.platform == "win32":
        with contextlib.suppress(OSError):
            os.startfile(path)
            return ""
    program = "open" if sys.platform == "darwin" else "xdg-open"
    if shutil.which(program) is not None:
        found = subprocess.run([program, str(path.absolute())], capture_output=True, text=True)
        if not found.returncode:
            return ""
        said = found.stderr.strip().splitlines() or [f"exit code {found.returncode}"]
        return f"{program} could not show {path}: {said[-1]}"
    return f"this system has no viewer that {program} finds; open {path} yourself"
