"""Ranges of a table's sequence that are measured in rows.

Sequence numbers that were written by SQL can be far apart. Most ranges of equal width would then be
empty, and there could be billions of them.
"""

from __future__ import annotations

import pyarrow as pa
import sqlalchemy as sa

from afterimage.storage.engine.statements import execute_arrow

__all__ = ["range_starts"]


def range_starts(
    connection: sa.Connection,
    sequence: sa.ColumnElement[int],
    rows: int,
    *within: sa.ColumnElement[bool],
) -> pa.ChunkedArray:
    """The lowest number of each range of `rows` rows, ascending.

    Each number is there once. Rows with equal numbers are in one range, which can then have more
    rows. The engine sorts the numbers, on disk if they exceed its memory.
    """
    place = sa.func.row_number().over(order_by=sequence).label("place")
    placed = sa.select(sequence.label("number"), place).where(*within).subquery()
    starts = sa.select(placed.c.number).where(sa.func.mod(placed.c.place - 1, rows) == 0)
    found = execute_arrow(connection, starts.distinct().order_by(placed.c.number))
    return found.column(0)
