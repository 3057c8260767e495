"""Materialize the result of a statement over a table in parts, and report the progress.

DuckDB's own estimate of the progress does not change while it reads a table of wide rows. So the
table is read range by range, and the results are collected in a temporary table, which exists as
long as the connection.
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

# A range has enough rows to use all cores and to make the cost of its statement negligible, and a
# large table is divided into about a hundred ranges.
_FEWEST_ROWS = 16_384
_MOST_PARTS = 100


def kept_in_parts(
    connection: sa.Connection,
    sequence: sa.ColumnElement[int],
    select: Callable[[sa.ColumnElement[bool]], sa.Select[Any]],
    progress: Progress,
) -> sa.FromClause:
    """Return the result of a statement as a temporary table of this connection.

    Args:
        connection: a connection in a transaction, so that all parts read the same state.
        sequence: the sequence column of the table that is read.
        select: returns the statement for the rows of the table that meet a condition.
        progress: called with the number of new rows of the result after each range.
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
    for done, (low, end) in enumerate(pairwise([*starts, None]), 1):
        within = sequence >= low if end is None else sa.and_(sequence >= low, sequence < end)
        connection.execute(sa.insert(kept).from_select(kept.c.keys(), select(within)))
        total = fetch_all(connection, count)[0][0]
        report(progress, total - before, done / len(starts))
        before = total
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
