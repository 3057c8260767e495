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

from afterimage.storage.engine.database import MUCH_CACHED, Database
from afterimage.storage.engine.statements import execute_arrow, fetch_all, stream_arrow
from afterimage.storage.query.predicates import filtered, in_order, sliced
from afterimage.storage.query.query import Query
from afterimage.storage.query.relations import Source
from afterimage.storage.query.row_ranges import range_starts
from afterimage.storage.records.arrow import parts_of
from afterimage.storage.tables.layout import VECTOR_ROWS, StoredTable

__all__ = ["SMALL_PAGE", "scan_table"]

# About how many bytes of Arrow data a range of the sequence gives.
_WINDOW_BYTES = 16 * 2**20
_WIDEST_WINDOW = 2**17
# DuckDB unpacks a list column by vectors of 2,048 rows, once for each range that has some of them.
_NARROWEST_WINDOW = 256

# How many times as large as in the file its records are taken to be, before any has been read.
_LIKELY_COMPRESSION = 4

SMALL_PAGE = 1000
"""Up to so many records, a sorted slice is located first, and its wide columns are read after."""


def scan_table(
    database: Database,
    stored: StoredTable,
    columns: Sequence[sa.ColumnElement[Any]],
    schema: pa.Schema,
    query: Query,
    *,
    batch_rows: int | None = None,
    private: bool = False,
) -> Generator[pa.RecordBatch, None, None]:
    """Columns of matching records as `schema` has them, in the order of the query.

    Args:
        database: where the table is.
        stored: the table.
        columns: what to read of each record.
        schema: a field for each of `columns`.
        query: which records, and in what order.
        batch_rows: the most records of a record batch; None for the engine's own size.
        private: as in `Database.reading`.
    """
    source = stored.source
    # By position, so that no name that a user chose becomes part of the statement.
    labelled = [column.label(f"column_{at}") for at, column in enumerate(columns)]
    with database.reading(private=private) as connection:
        if query.order and query.limit is not None and query.limit <= SMALL_PAGE:
            found = _page(connection, source, stored.table, labelled, query)
            yield from _without_sequence(found, schema, batch_rows)
            return
        if query.order:
            statement = sliced(in_order(source, query, columns, stored.table), query)
            for batch in stream_arrow(connection, statement, batch_rows or VECTOR_ROWS):
                for part in parts_of(batch, batch_rows):
                    yield _conform(part, schema)
            return
        size = database.catalog.size()
        for low, high in (bounds := _Ranges(connection, source, query, size, batch_rows)):
            if size > MUCH_CACHED:
                database.trim_cache(connection)
            statement = filtered(sa.select(source.sequence, *labelled), source, query)
            found = execute_arrow(connection, statement.where(source.sequence.between(low, high)))
            bounds.read(found.nbytes)
            yield from _without_sequence(_in_sequence(found), schema, batch_rows)


def _page(
    connection: sa.Connection,
    source: Source,
    table: sa.Table,
    columns: Sequence[sa.ColumnElement[Any]],
    query: Query,
) -> pa.Table:
    """A sorted page: first the numbers of its records, then the wide columns of those only."""
    chosen = sliced(in_order(source, query, [source.sequence], table), query)
    numbers = [row[0] for row in fetch_all(connection, chosen)]
    if not numbers:
        return execute_arrow(connection, sa.select(source.sequence, *columns).limit(0))
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
    return page.combine_chunks()


class _Ranges:
    """Ranges of the sequence that cover a query's records, each as wide as its bytes allow.

    The records of a slice are the matching ones between the first and the last of them, as the
    sequence is the order. If the sequence has large gaps, the width is counted in rows, not in
    numbers: the work grows with the rows, and a range that spans a gap has no more of them.
    """

    def __init__(
        self,
        connection: sa.Connection,
        source: Source,
        query: Query,
        file_size: int,
        batch_rows: int | None,
    ) -> None:
        chosen = filtered(sa.select(source.sequence.label("at")), source, query)
        if query.limit is not None or query.offset:
            chosen = sliced(chosen.order_by(source.sequence), query)
        within = chosen.subquery()
        count = sa.select(sa.func.count(source.sequence)).scalar_subquery()
        bounds = sa.select(sa.func.min(within.c.at), sa.func.max(within.c.at), count)
        self._next, self._last, rows = fetch_all(connection, bounds)[0]
        self._widest = min(batch_rows or _WIDEST_WINDOW, _WIDEST_WINDOW)
        self._width = min(VECTOR_ROWS, self._widest)
        if rows and file_size:
            likely = _LIKELY_COMPRESSION * file_size // rows + 1
            self._width = min(max(_NARROWEST_WINDOW, _WINDOW_BYTES // likely), self._widest)
            if self._width > VECTOR_ROWS:
                self._width -= self._width % VECTOR_ROWS
        # The number of every row at which a range can begin; None if any number will do.
        self._starts: pa.ChunkedArray | None = None
        self._step = min(_NARROWEST_WINDOW, self._widest)
        self._at = 0
        if self._next is not None and self._last - self._next >= 2 * rows + self._widest:
            within_slice = source.sequence.between(self._next, self._last)
            self._starts = range_starts(connection, source.sequence, self._step, within_slice)

    def __iter__(self) -> Iterator[tuple[int, int]]:
        while self._next is not None and self._next <= self._last:
            low = self._next
            self._next = self._end_of_range(low)
            yield low, min(self._next - 1, self._last)

    def _end_of_range(self, low: int) -> int:
        """The number after the last one of the range that begins at `low`."""
        if self._starts is None:
            return low + self._width
        self._at += max(1, self._width // self._step)
        if self._at < len(self._starts):
            return int(self._starts[self._at].as_py())
        return int(self._last) + 1

    def read(self, size: int) -> None:
        """Say how many bytes the last range gave, so that the next one is as it should be."""
        if size < _WINDOW_BYTES // 4:
            self._width = min(self._width * 2, self._widest)
        elif size > _WINDOW_BYTES:
            self._width = max(min(_NARROWEST_WINDOW, self._widest), self._width // 2)


def _in_sequence(found: pa.Table) -> pa.Table:
    """Rows by their sequence number, which is the first column; nearly always they are already."""
    at = found.column(0).combine_chunks()
    if len(at) > 1 and pc.any(pc.less(at.slice(1), at.slice(0, len(at) - 1))).as_py():
        return found.sort_by(found.column_names[0])
    return found


def _without_sequence(
    found: pa.Table, schema: pa.Schema, batch_rows: int | None
) -> Iterator[pa.RecordBatch]:
    """The batches of a result as `schema` has them, without its first column."""
    for batch in found.to_batches(max_chunksize=batch_rows):
        yield _conform(batch.select(range(1, batch.num_columns)), schema)


def _conform(batch: pa.RecordBatch, schema: pa.Schema) -> pa.RecordBatch:
    """The batch with the names and the offsets of `schema`."""
    arrays = [
        column if column.type == field.type else column.cast(field.type)
        for column, field in zip(batch.columns, schema, strict=True)
    ]
    return pa.RecordBatch.from_arrays(arrays, schema=schema)
