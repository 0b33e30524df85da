"""An evaluation in files: each is written whole or not at all."""

import csv
import dataclasses
import io
import json
import math
import os
from pathlib import Path

from depthsieve.core.errors import RunError, UsageError
from depthsieve.evaluation.result import Evaluation, ImageScore

FILES = ("evaluation.json", "images.csv", "sparsification.png", "calibration.png")


def prepare_folder(out: Path) -> Path:
    """Make the folder ``out`` if it is not there. Raises :class:`UsageError` where nothing can be written in it."""
    try:
        out.mkdir(parents=True, exist_ok=True)
    except FileExistsError as error:
        raise UsageError(f"{out} is a file; name a folder") from error
    except OSError as error:
        raise UsageError(f"{out} cannot be made ({error.strerror}); name another folder") from error
    if not os.access(out, os.W_OK | os.X_OK):
        raise UsageError(f"{out} cannot be written to; name another folder")
    return out


def write_evaluation(result: Evaluation, out: Path) -> None:
    """Write all of :data:`FILES` into ``out``; those of an earlier evaluation are replaced.

    Raises :class:`RunError` when the disk does not take them.
    """
    from depthsieve.evaluation.figures import calibration_figure, sparsification_figure  # matplotlib takes a second

    body = json.dumps(result.as_json(), indent=1, allow_nan=False).encode() + b"\n"
    contents = (body, images_csv(result.images), sparsification_figure(result), calibration_figure(result))
    parts = [out / f".{name}.part" for name in FILES]
    try:
        for part, data in zip(parts, contents, strict=True):
            part.write_bytes(data)
        for part, name in zip(parts, FILES, strict=True):
            part.replace(out / name)
    except OSError as error:
        raise RunError(f"{out} cannot be written to ({error.strerror}); name another folder") from error
    finally:
        for part in parts:
            part.unlink(missing_ok=True)


def images_csv(images: tuple[ImageScore, ...]) -> bytes:
    """A line for each image under a line of names; what is undefined is empty."""
    names = [field.name for field in dataclasses.fields(ImageScore)]
    text = io.StringIO(newline="")
    table = csv.writer(text, lineterminator="\n")
    table.writerow(names)
    for score in images:
        values = [getattr(score, name) for name in names]
        table.writerow(["" if isinstance(value, float) and math.isnan(value) else value for value in values])
    return text.getvalue().encode()
