"""What a statement gives of a table, read range by range and kept for the next statement.

So that somebody can be told how far it is: what DuckDB says of its own progress stands still while
a table of wide rows is read. The rows are in a temporary table, which ends with the connection.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.compiler import compiles

from afterimage.storage.engine.statements import fetch_all
from afterimage.storage.query.row_ranges import range_starts
from afterimage.storage.reports.progress import Progress, report

__all__ = ["kept_in_parts"]

# A range has enough rows to occupy all cores and to make the cost of its statement negligible, and
# few enough that a large table has a hundred ranges.
_FEWEST_ROWS = 16_384
_MOST_PARTS = 100


def kept_in_parts(
    connection: sa.Connection,
    sequence: sa.ColumnElement[int],
    select: Callable[[sa.ColumnElement[bool]], sa.Select[Any]],
    progress: Progress,
) -> sa.FromClause:
    """The rows of a statement as a table of this connection.

    Args:
        connection: in a transaction, so that all parts are of one state.
        sequence: a column of the table that is read.
        select: the statement for the rows of it that meet a condition.
        progress: is told of rows as they are made.
    """
    [[rows]] = fetch_all(connection, sa.select(sa.func.count(sequence)))
    width = max(_FEWEST_ROWS, rows // _MOST_PARTS + 1)
    starts = range_starts(connection, sequence, width).to_pylist()
    none = select(sa.false())
    kept = sa.table(
        f"kept_{uuid.uuid4().hex}", *(sa.column(each.name) for each in none.selected_columns)
    )
    connection.execute(_CreateFrom(kept, none))
    count, before = sa.select(sa.func.count()).select_from(kept), 0
    for at, (low, end) in enumerate(pairwise([*starts, None]), 1):
        within = sequence >= low if end is None else sa.and_(sequence >= low, sequence < end)
        connection.execute(sa.insert(kept).from_select(kept.c.keys(), select(within)))
        found = fetch_all(connection, count)[0][0]
        report(progress, found - before, at / len(starts))
        before = found
    return kept


class _CreateFrom(sa.Executable, sa.ClauseElement):
    inherit_cache = False

    def __init__(self, table: sa.TableClause, select: sa.Select[Any]) -> None:
        self.table = table
        self.select = select


@compiles(_CreateFrom)
def _create_from(element: _CreateFrom, compiler: Any, **options: Any) -> str:
    name = compiler.process(element.table, asfrom=True)
    return f"CREATE TEMPORARY TABLE {name} AS {compiler.process(element.select, **options)}"
