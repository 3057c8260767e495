"""Scan a table in bounded memory, in insertion order or sorted.

In insertion order, a table is read in ranges of its sequence numbers, so only one range is in
memory at a time. A sorted scan streams the result of DuckDB's sort.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import sqlalchemy as sa

from afterimage.storage.arrow.arrays import integers
from afterimage.storage.arrow.objects import parts_of
from afterimage.storage.engine.database import MUCH_CACHED, Database
from afterimage.storage.engine.statements import (
    Prepared,
    compiled,
    execute_arrow,
    fetch_all,
    stream_arrow,
)
from afterimage.storage.errors import DatabaseError
from afterimage.storage.query.predicates import filtered, in_order, sliced
from afterimage.storage.query.prepared import prepared
from afterimage.storage.query.query import Query
from afterimage.storage.query.relations import Source
from afterimage.storage.query.row_ranges import range_starts
from afterimage.storage.tables.schema.layout import VECTOR_ROWS, StoredTable

__all__ = ["SMALL_PAGE", "count_unnumbered", "scan_table"]

# Target size of a range, in bytes of Arrow data.
_WINDOW_BYTES = 16 * 2**20
_WIDEST_WINDOW = 2**17
# DuckDB decompresses list columns in vectors of 2,048 rows, and again for each range that has some
# of these rows.
_NARROWEST_WINDOW = 256

# Assumed ratio of the size of records in memory and in the file, before any has been read.
_LIKELY_COMPRESSION = 4

SMALL_PAGE = 1000
"""Largest sorted slice that is located first; its wide columns are then read by row number."""


def scan_table(
    database: Database,
    stored: StoredTable,
    columns: Sequence[sa.ColumnElement[Any]],
    schema: pa.Schema,
    query: Query,
    *,
    batch_rows: int | None = None,
    private: bool = False,
    is_projection: bool = False,
) -> Generator[pa.RecordBatch, None, None]:
    """Yield columns of the matching records with the given schema, in the order of the query.

    Args:
        database: the database of the table.
        stored: the table.
        columns: the expressions to read.
        schema: has a field for each of `columns`.
        query: filters, order and slice.
        batch_rows: maximum number of rows of a record batch; None for the engine's own size, 2,048.
        private: see `Database.reading`.
        is_projection: whether `columns` are those of the query.
    """
    source = stored.source
    most = batch_rows or VECTOR_ROWS
    # Labels by index: names that users chose do not become part of the statement.
    labelled = [column.label(f"column_{index}") for index, column in enumerate(columns)]
    with database.reading(private=private) as connection:
        if query.order and query.limit is not None and query.limit <= SMALL_PAGE:
            page = _page(
                connection,
                source,
                stored.table,
                labelled,
                query,
                is_projection=is_projection,
            )
            yield from _without_sequence(page, schema, most)
            return
        if query.order:
            # SQL can give several rows one number. Slices then need a further key.
            is_slice = query.limit is not None or query.offset
            last = [stored.row] if is_slice else []
            statement = sliced(in_order(source, query, columns, stored.table, *last), query)
            for batch in stream_arrow(connection, statement, most):
                for part in parts_of(batch, most):
                    yield _conform(part, schema)
            return
        size = database.catalog.size()
        for low, high in (bounds := _Ranges(connection, source, stored.table, query, size)):
            if size > MUCH_CACHED:
                database.trim_cache(connection)
            within = query.between(low, high)
            if within.only == ():
                continue
            statement = filtered(sa.select(source.sequence, *labelled), source, within)
            rows = execute_arrow(connection, statement.where(source.sequence.between(low, high)))
            bounds.count(len(rows))
            bounds.adapt(rows.nbytes)
            yield from _without_sequence(_in_sequence(rows), schema, most)


def _page(
    connection: sa.Connection,
    source: Source,
    table: sa.Table,
    columns: Sequence[sa.ColumnElement[Any]],
    query: Query,
    *,
    is_projection: bool,
) -> pa.Table:
    """Return a sorted page: sort the sequence numbers first, then read only the page's columns."""
    chosen = prepared(
        connection,
        table,
        "page",
        query,
        lambda whole: in_order(source, whole, [source.sequence], table),
    )
    numbers = [row[0] for row in fetch_all(connection, chosen)]
    if not numbers:
        return execute_arrow(connection, sa.select(source.sequence, *columns).limit(0))
    if None in numbers:
        raise _bad_numbers(table, "rows without a number")
    wide = _statement_of_columns(connection, source, table, columns, query, is_projection)
    # Literals instead of bound values: DuckDB 1.5 takes longer to plan many bound values than to
    # read the page. The values are integers that DuckDB returned, so they need no escaping.
    number = str(source.sequence.compile(dialect=connection.dialect))
    listed = ", ".join(f"{each:d}" for each in numbers)
    within = f"{number} BETWEEN {min(numbers):d} AND {max(numbers):d} AND {number} IN ({listed})"
    rows = execute_arrow(connection, wide._replace(text=f"{wide.text} WHERE {within}"))
    if len(rows) != len(numbers):
        raise _bad_numbers(table, "several rows with the same number or none")
    index = {number: row for row, number in enumerate(rows.column(0).to_pylist())}
    page = rows.take(integers(index[number] for number in numbers))
    return page.combine_chunks()


def _statement_of_columns(
    connection: sa.Connection,
    source: Source,
    table: sa.Table,
    columns: Sequence[sa.ColumnElement[Any]],
    query: Query,
    is_projection: bool,  # noqa: FBT001
) -> Prepared:
    """Return the statement that reads the sequence numbers and `columns` of all rows."""

    def build(_: Query) -> sa.Select[Any]:
        return sa.select(source.sequence, *columns)

    if not is_projection:
        return compiled(connection, build(query))
    return prepared(connection, table, f"columns {query.columns}", Query(), build)


def count_unnumbered(database: Database, stored: StoredTable, query: Query) -> int:
    """Return how many rows that match the filters of a query have no sequence number."""
    source = stored.source
    statement = sa.select(sa.func.count()).select_from(stored.table)
    statement = filtered(statement.where(source.sequence.is_(None)), source, query)
    with database.reading() as connection:
        return int(fetch_all(connection, statement)[0][0])


def _bad_numbers(table: sa.FromClause, what: str) -> DatabaseError:
    return DatabaseError(
        f"table {getattr(table, 'name', table)!r} has {what} in its first column, so that pages "
        "would repeat or lose rows. `verify` lists them. Give each row its own number with SQL."
    )


class _Ranges:
    """Ranges of sequence numbers that cover the records of a query in insertion order.

    The width of the ranges is adapted to the size of the records. A slice consists of all matching
    records between its first and its last one, because the sequence is the order. If the sequence
    has large gaps, the width is counted in rows instead of sequence numbers, so the number of
    ranges depends on the number of rows only.
    """

    def __init__(
        self,
        connection: sa.Connection,
        source: Source,
        table: sa.Table,
        query: Query,
        file_size: int,
    ) -> None:
        chosen = filtered(sa.select(source.sequence.label("at")), source, query)
        if query.limit is not None or query.offset:
            chosen = sliced(chosen.order_by(source.sequence), query)
        within = chosen.subquery()
        count = sa.select(sa.func.count(source.sequence)).scalar_subquery()
        bounds = sa.select(
            sa.func.min(within.c.at),
            sa.func.max(within.c.at),
            count,
            sa.func.count(within.c.at),
            sa.func.count(),
        )
        self._next, self._last, rows, self._left, chosen_rows = fetch_all(connection, bounds)[0]
        self._table = table
        if without := chosen_rows - self._left:
            raise _bad_numbers(table, f"{without:,} rows without a number")
        self._width = VECTOR_ROWS
        if rows and file_size:
            likely = _LIKELY_COMPRESSION * file_size // rows + 1
            self._width = min(max(_NARROWEST_WINDOW, _WINDOW_BYTES // likely), _WIDEST_WINDOW)
            if self._width > VECTOR_ROWS:
                self._width -= self._width % VECTOR_ROWS
        # The number of every row at which a range can begin; None if any number will do.
        self._starts: pa.ChunkedArray | None = None
        self._at = 0
        if self._next is not None and self._last - self._next >= 2 * rows + _WIDEST_WINDOW:
            within_slice = source.sequence.between(self._next, self._last)
            self._starts = range_starts(
                connection, source.sequence, _NARROWEST_WINDOW, within_slice
            )

    def __iter__(self) -> Iterator[tuple[int, int]]:
        while self._next is not None and self._next <= self._last:
            low = self._next
            self._next = self._end_of_range(low)
            yield low, min(self._next - 1, self._last)

    def _end_of_range(self, low: int) -> int:
        """Return the first sequence number after the range that begins at `low`."""
        if self._starts is None:
            return low + self._width
        self._at += max(1, self._width // _NARROWEST_WINDOW)
        if self._at < len(self._starts):
            return int(self._starts[self._at].as_py())
        return int(self._last) + 1

    def count(self, rows: int) -> None:
        """Count the rows of a range; raise an error if the slice divides rows of one number."""
        self._left -= rows
        if self._left < 0:
            raise _bad_numbers(self._table, "several rows with the same number")

    def adapt(self, size: int) -> None:
        """Adapt the width of the next range to the size of the last one, in bytes."""
        if size < _WINDOW_BYTES // 4:
            self._width = min(self._width * 2, _WIDEST_WINDOW)
        elif size > _WINDOW_BYTES:
            self._width = max(_NARROWEST_WINDOW, self._width // 2)


def _in_sequence(rows: pa.Table) -> pa.Table:
    """Return rows sorted by sequence number, their first column. They usually are already."""
    numbers = rows.column(0).combine_chunks()
    count = len(numbers)
    if count > 1 and pc.any(pc.less(numbers.slice(1), numbers.slice(0, count - 1))).as_py():
        return rows.sort_by(rows.column_names[0])
    return rows


def _without_sequence(
    rows: pa.Table, schema: pa.Schema, batch_rows: int
) -> Iterator[pa.RecordBatch]:
    """Yield the batches of a result with the given schema, without its first column."""
    for batch in rows.to_batches(max_chunksize=batch_rows):
        yield _conform(batch.select(range(1, batch.num_columns)), schema)


def _conform(batch: pa.RecordBatch, schema: pa.Schema) -> pa.RecordBatch:
    """Return the batch with the column names and the offset types of `schema`."""
    arrays = [
        column if column.type == field.type else column.cast(field.type)
        for column, field in zip(batch.columns, schema, strict=True)
    ]
    return pa.RecordBatch.from_arrays(arrays, schema=schema)
