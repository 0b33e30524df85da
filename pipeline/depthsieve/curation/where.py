"""One SQL expression over the images, evaluated by DuckDB without any access to files, the network or settings."""

import re

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from depthsieve.core.errors import UsageError


def where(table: pa.Table, expression: str) -> NDArray[np.bool_]:
    """For each row whether the expression is true there; a comparison with null is not.

    It must be one expression that gives true or false: no statement, no second one, no file. The same expression gives
    the same rows each time, with ``random()`` in it too. Raises :class:`UsageError` with one line for any other.
    """
    import duckdb  # heavy, and only this needs it here

    connection = duckdb.connect(
        config={
            "enable_external_access": False,
            "autoinstall_known_extensions": False,
            "autoload_known_extensions": False,
            "python_enable_replacements": False,
            "threads": 1,  # in the order of the rows
        }
    )
    try:
        connection.execute("SET lock_configuration = true")
        connection.execute("SELECT setseed(0.5)").fetchall()
        answer = connection.from_arrow(table).project(duckdb.SQLExpression(expression).alias("kept"))
        if [str(one) for one in answer.types] != ["BOOLEAN"]:
            found = ", ".join(str(one) for one in answer.types)
            raise UsageError(_refused(expression, f"it gives {found}, not true or false", table))
        kept = answer.to_arrow_table()["kept"].combine_chunks().fill_null(False)
        if len(kept) != len(table):
            raise UsageError(_refused(expression, f"it gives {len(kept)} answers for {len(table)} images", table))
    except (duckdb.Error, RuntimeError) as error:
        reason = _plain(str(error).split("\n")[0].removesuffix(".")) or type(error).__name__
        raise UsageError(_refused(expression, reason, table)) from error
    finally:
        connection.close()
    chosen: NDArray[np.bool_] = kept.to_numpy(zero_copy_only=False)
    return chosen


def _plain(reason: str) -> str:
    """What DuckDB says, without its own kinds of errors; an unknown column in a few words."""
    unknown = re.match(r'Binder Error: Referenced column (".*?") not found', reason)
    return f"there is no column {unknown[1]}" if unknown else re.sub(r"^(\w+ ){1,2}Error: ", "", reason)


def _refused(expression: str, reason: str, table: pa.Table) -> str:
    shown = " ".join(expression.split())
    shown = shown if len(shown) <= 80 else f"{shown[:77]}..."
    return f"--where {shown!r}: {reason}; columns are {', '.join(table.column_names)}"
