"""The ``depthsieve`` command: its verbs, its exit codes, and errors as one line.

Exit codes: 0 all done; 1 could not do it; 2 wrong usage; 3 finished, but some images failed; 4 interrupted.
The verbs' modules import nothing heavy at their top, so that ``depthsieve --help`` answers at once.
"""

import atexit
import errno
import os
import signal
import sys
from pathlib import Path
from types import FrameType
from typing import NoReturn

import click

import depthsieve
from depthsieve.core.errors import DepthsieveError, RunInterrupted, UsageError
from depthsieve_cli.align_clips import align_clips
from depthsieve_cli.calibrate import calibrate
from depthsieve_cli.completion import completion
from depthsieve_cli.convert_weights import convert_weights
from depthsieve_cli.curate import curate
from depthsieve_cli.datasets import datasets
from depthsieve_cli.demo import demo
from depthsieve_cli.evaluate import evaluate
from depthsieve_cli.export import export
from depthsieve_cli.features import features
from depthsieve_cli.fuse import fuse
from depthsieve_cli.importing import import_maps
from depthsieve_cli.label import label
from depthsieve_cli.plan import plan
from depthsieve_cli.recalibrate import recalibrate
from depthsieve_cli.report import report
from depthsieve_cli.scan import scan
from depthsieve_cli.settings import settings_for
from depthsieve_cli.status import status
from depthsieve_cli.teachers import teachers
from depthsieve_cli.verify import verify
from depthsieve_cli.view import view


@click.group(
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Example: depthsieve label photos/ labels/ --teacher tiny",
)
@click.version_option(depthsieve.__version__, prog_name="depthsieve")
@click.pass_context
def cli(ctx: click.Context) -> None:
    """Make pseudo-labels for monocular depth: a depth map and a reliability map for every image.

    \b
    Exit codes: 0 all done; 1 could not do it; 2 wrong usage;
    3 finished, but some images failed; 4 interrupted, and the same command resumes.
    """
    ctx.default_map = settings_for(cli, Path())


for command in (
    *(
        align_clips,
        calibrate,
        completion,
        convert_weights,
        curate,
        datasets,
        demo,
        evaluate,
        export,
        features,
        fuse,
        import_maps,
    ),
    *(label, plan, recalibrate, report, scan, status, teachers, verify, view),
):
    cli.add_command(command)


def entry() -> NoReturn:
    """:func:`main`, for a process that is there for it alone. It ends once all that was asked for at its end is done,
    and does not wait for Python to take itself apart: threads of Arrow and torch that still hold an object then abort
    the process, whose work is done (https://github.com/pytorch/pytorch/pull/179291)."""
    code = 1  # of an error that nobody expected, whose traceback is printed before

    def end() -> None:
        left = code
        for stream in (sys.stdout, sys.stderr):
            try:
                stream.flush()
            except (OSError, ValueError):  # closed, full, or nobody reads it
                left = left or 1
        os._exit(left)

    atexit.register(end)  # the first to be registered is the last to be called
    try:
        main()
    except SystemExit as error:
        code = error.code if isinstance(error.code, int) else int(error.code is not None)
        raise


def main() -> NoReturn:
    """Run the command line and exit. A user's mistake is one line on stderr, never a traceback."""
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        code = cli.main(standalone_mode=False)
    except click.ClickException as error:
        error.show()
        code = error.exit_code
    except (click.Abort, KeyboardInterrupt):
        click.echo("Interrupted; what is committed is kept; run the same command again to resume.", err=True)
        code = 4
    except DepthsieveError as error:
        click.echo(f"Error: {error}", err=True)
        code = 2 if isinstance(error, UsageError) else 4 if isinstance(error, RunInterrupted) else 1
    except BrokenPipeError:
        sys.stderr.close()  # the reader of our output has gone, as in `depthsieve ... | head`
        code = 1
    except OSError as error:
        if error.errno != errno.ENOSPC or error.filename is not None:
            raise
        click.echo("Error: no space is left where the output goes", err=True)
        code = 1
    sys.exit(code or 0)


def _interrupt(number: int, frame: FrameType | None) -> NoReturn:
    raise KeyboardInterrupt
