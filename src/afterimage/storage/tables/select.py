"""Scans of a table in bounded memory, in insertion order or sorted.

In insertion order a table is read by ranges of its sequence, so that neither the engine nor we
ever hold more than a range. Sorted, records come as DuckDB sorts them.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import sqlalchemy as sa

from afterimage.storage.engine.database import (
    MUCH_KEPT,
    Database,
    execute_arrow,
    fetch_all,
    stream_arrow,
)
from afterimage.storage.query.predicates import Source, filtered, in_order, sliced
from afterimage.storage.query.query import Query
from afterimage.storage.query.row_ranges import has_gaps, range_ends

__all__ = ["SMALL_PAGE", "scan_table"]

# About how many bytes of Arrow data a range of the sequence gives.
_WINDOW_BYTES = 16 * 2**20
_WIDEST_WINDOW = 2**17
# DuckDB unpacks a list column by vectors of 2,048 rows, once for each range that has some of them.
_NARROWEST_WINDOW = 256

# As many rows as DuckDB works on at a time, and as a row group of ours has.
_VECTOR = 2048

# How many times as large as in the file its records are taken to be, before any has been read.
_LIKELY_COMPRESSION = 4

SMALL_PAGE = 1000
"""Up to so many records, a sorted slice is found first and its wide columns are read after."""


def scan_table(
    database: Database,
    source: Source,
    table: sa.Table,
    columns: Sequence[sa.ColumnElement[Any]],
    schema: pa.Schema,
    query: Query,
    *,
    by_hand: bool = False,
) -> Generator[pa.RecordBatch, None, None]:
    """Columns of matching records as `schema` has them, in the order of the query.

    Args:
        database: where the table is.
        source: where the fields of its records are.
        table: the table.
        columns: what to read of each record.
        schema: a field for each of `columns`.
        query: which records, and in what order.
        by_hand: as `Database.reading` has it.
    """
    # By position, so that no name that a user chose becomes part of the statement.
    labelled = [column.label(f"column_{at}") for at, column in enumerate(columns)]
    with database.reading(by_hand=by_hand) as connection:
        if query.order and query.limit is not None and query.limit <= SMALL_PAGE:
            yield from _page(connection, source, table, labelled, schema, query)
            return
        if query.order:
            statement = sliced(in_order(source, query, columns, table), query)
            for batch in stream_arrow(connection, statement):
                yield _conform(batch, schema)
            return
        is_large = database.size > MUCH_KEPT
        for low, high in (bounds := _Ranges(connection, source, query, database.size)):
            if is_large:
                database.keep_little(connection)
            statement = filtered(sa.select(source.sequence, *labelled), source, query)
            found = execute_arrow(connection, statement.where(source.sequence.between(low, high)))
            bounds.read(found.nbytes)
            yield from _without_sequence(_in_sequence(found), schema)


def _page(
    connection: sa.Connection,
    source: Source,
    table: sa.Table,
    columns: Sequence[sa.ColumnElement[Any]],
    schema: pa.Schema,
    query: Query,
) -> Iterator[pa.RecordBatch]:
    """A sorted page: first which records are on it, then the wide columns of those only."""
    chosen = sliced(in_order(source, query, [source.sequence], table), query)
    numbers = [row[0] for row in fetch_all(connection, chosen)]
    if not numbers:
        return
    # Written out, as DuckDB 1.5 takes longer to plan so many bound values than to read the page;
    # they are integers that it gave itself.
    first, last = (sa.literal(at, literal_execute=True) for at in (min(numbers), max(numbers)))
    those: sa.BindParameter[int] = sa.bindparam(
        "numbers", numbers, expanding=True, literal_execute=True
    )
    within = source.sequence.between(first, last)
    wanted = sa.select(source.sequence, *columns).where(within, source.sequence.in_(those))
    found = execute_arrow(connection, wanted)
    place = {number: at for at, number in enumerate(found.column(0).to_pylist())}
    page = found.take(pa.array([place[number] for number in numbers], pa.int64()))
    yield from _without_sequence(page.combine_chunks(), schema)


class _Ranges:
    """Ranges of the sequence that cover a query's records, each as wide as its bytes allow.

    The records of a slice are the matching ones between the first and the last of them, as the
    sequence is the order. Where the sequence has gaps, a range is as wide in rows, not in numbers:
    the work grows with the rows, and a range after a gap holds no more of them than another.
    """

    def __init__(
        self, connection: sa.Connection, source: Source, query: Query, file_size: int
    ) -> None:
        chosen = filtered(sa.select(source.sequence.label("at")), source, query)
        if query.limit is not None or query.offset:
            chosen = sliced(chosen.order_by(source.sequence), query)
        within = chosen.subquery()
        count = sa.select(sa.func.count(source.sequence)).scalar_subquery()
        bounds = sa.select(sa.func.min(within.c.at), sa.func.max(within.c.at), count)
        self._next, self._last, rows = fetch_all(connection, bounds)[0]
        self._width = _VECTOR
        if rows and file_size:
            likely = _LIKELY_COMPRESSION * file_size // rows + 1
            self._width = min(max(_NARROWEST_WINDOW, _WINDOW_BYTES // likely), _WIDEST_WINDOW)
            if self._width > _VECTOR:
                self._width -= self._width % _VECTOR
        # The number of every 256th row; None where the ranges need no rows to be found.
        self._ends: pa.ChunkedArray | None = None
        self._passed = 0
        if self._next is not None and has_gaps(self._next, self._last, rows, _WIDEST_WINDOW):
            self._ends = range_ends(
                connection, source.sequence, self._next, self._last, _NARROWEST_WINDOW
            )

    def __iter__(self) -> Iterator[tuple[int, int]]:
        while self._next is not None and self._next <= self._last:
            low = self._next
            high = min(self._end(low), self._last)
            self._next = high + 1
            if low <= high:  # not where the rows of two ranges have the same number
                yield low, high

    def _end(self, low: int) -> int:
        """The last number of a range that begins at `low`."""
        if self._ends is None:
            return low + self._width - 1
        self._passed += max(1, self._width // _NARROWEST_WINDOW)
        if self._passed > len(self._ends):
            return int(self._last)
        return int(self._ends[self._passed - 1].as_py())

    def read(self, size: int) -> None:
        """Say how many bytes the last range gave, so that the next one is as it should be."""
        if size < _WINDOW_BYTES // 4:
            self._width = min(self._width * 2, _WIDEST_WINDOW)
        elif size > _WINDOW_BYTES:
            self._width = max(_NARROWEST_WINDOW, self._width // 2)


def _in_sequence(found: pa.Table) -> pa.Table:
    """Rows by their sequence number, which is the first column; nearly always they are already."""
    at = found.column(0).combine_chunks()
    if len(at) > 1 and pc.any(pc.less(at.slice(1), at.slice(0, len(at) - 1))).as_py():
        return found.sort_by(found.column_names[0])
    return found


def _without_sequence(found: pa.Table, schema: pa.Schema) -> Iterator[pa.RecordBatch]:
    """The batches of a result as `schema` has them, without its first column."""
    for batch in found.to_batches():
        yield _conform(batch.select(range(1, batch.num_columns)), schema)


def _conform(batch: pa.RecordBatch, schema: pa.Schema) -> pa.RecordBatch:
    """The batch with the names and the offsets of `schema`."""
    arrays = [
        column if column.type == field.type else column.cast(field.type)
        for column, field in zip(batch.columns, schema, strict=True)
    ]
    return pa.RecordBatch.from_arrays(arrays, schema=schema)
