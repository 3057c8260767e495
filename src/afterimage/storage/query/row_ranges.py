"""Divide a table into ranges of its sequence numbers with an equal number of rows.

Sequence numbers written with SQL can have large gaps. Ranges of equal width would then be mostly
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
    """Return the lowest sequence number of each range of `rows` rows, ascending.

    All numbers differ. Rows with equal numbers are in one range, which can then have more rows. The
    engine sorts the numbers, on disk if they exceed its memory.
    """
    row_number = sa.func.row_number().over(order_by=sequence).label("row_number")
    numbered = sa.select(sequence.label("sequence"), row_number).where(*within).subquery()
    is_start = sa.func.mod(numbered.c.row_number - 1, rows) == 0
    starts = sa.select(numbered.c.sequence).where(is_start)
    return execute_arrow(connection, starts.distinct().order_by(numbered.c.sequence)).column(0)
