"""Ranges of a table's sequence that are counted in rows, for tables with gaps in their sequence.

Where the numbers are nearly without gaps, ranges of equal width need no statement to be found.
Numbers that were written by hand may be far apart, and most ranges of equal width would be empty.
"""

from __future__ import annotations

import pyarrow as pa
import sqlalchemy as sa

from afterimage.storage.engine.database import execute_arrow

__all__ = ["has_gaps", "range_ends"]


def has_gaps(first: int, last: int, rows: int, width: int) -> bool:
    """Whether most numbers from `first` to `last` are of no row, so that to walk them all is waste.

    Args:
        first: the lowest number that is wanted.
        last: the highest one.
        rows: how many rows the table has.
        width: so many numbers are walked in one step in any case.
    """
    return last - first >= 2 * rows + width


def range_ends(
    connection: sa.Connection, sequence: sa.ColumnElement[int], first: int, last: int, rows: int
) -> pa.ChunkedArray:
    """The number of every `rows`-th row between two numbers, ascending.

    A number that several rows have may be there more than once. The engine sorts the numbers, on
    disk where they are too many for its memory.
    """
    place = sa.func.row_number().over(order_by=sequence).label("place")
    numbered = (
        sa.select(sequence.label("number"), place).where(sequence.between(first, last)).subquery()
    )
    ends = sa.select(numbered.c.number).where(sa.func.mod(numbered.c.place, rows) == 0)
    return execute_arrow(connection, ends.order_by(numbered.c.number)).column(0)
