"""Queries over JSON lines, answered by DuckDB.

The lines stream through Arrow into a DuckDB in memory. It parses of each line only what the query
names. Single values come from the engine. Nested fields, metadata as a whole and `extra` are built
from whole lines by the code that every save uses, so a scan of a file and one of a database give
the same.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from itertools import chain
from typing import Any

import pyarrow as pa
import sqlalchemy as sa

from afterimage.storage.engine.database import scratch_connection
from afterimage.storage.engine.statements import execute_arrow, stream_arrow, streamed
from afterimage.storage.errors import CorruptRecordError
from afterimage.storage.jsonl.lines import Chunk, objects_of
from afterimage.storage.query.predicates import in_order, select_list, sliced
from afterimage.storage.query.query import Query
from afterimage.storage.query.relations import Relation, Source, lines_relation
from afterimage.storage.records.arrow import rows_of_objects, to_batch
from afterimage.storage.records.fields import Json, List, RecordKind, Struct
from afterimage.storage.records.paths import FieldRef
from afterimage.storage.records.schema import projected_schema

__all__ = ["relation_of_lines", "select_columns", "select_lines"]

# One thread of DuckDB takes so much at a time. It holds what it parsed of those lines once for each
# value that is extracted from a line.
_SLICE_BYTES = 128 * 1024

_LINES = pa.schema([pa.field("position", pa.int64()), pa.field("line", pa.large_string())])


def select_columns(
    kind: RecordKind, chunks: Iterable[Chunk], query: Query
) -> Iterator[pa.RecordBatch]:
    """The query's columns of the matching lines, with the declared schema."""
    assert query.columns is not None
    schema = projected_schema(query.columns)
    narrow = [field for field in query.columns if not _is_wide(field)]
    whole = len(narrow) < len(query.columns)
    # Close at once: the error of a refused line could keep the engine's connection open.
    with closing(select_lines(kind, chunks, query, whole=whole, columns=narrow)) as found:
        for batch in found:
            values = batch.columns[whole:]
            if whole:  # copied: otherwise they would keep the memory between the lines in pieces
                every = pa.array(range(len(batch)), pa.int64())
                values = [column.take(every) for column in values]
            arrays = dict(zip((field.path for field in narrow), values, strict=True))
            if whole:
                objects = objects_of(batch.column(0).to_pylist())
                built = to_batch(kind, rows_of_objects(kind, objects))
                arrays |= {
                    field.path: _inner(built.column(field.column), field)
                    for field in query.columns
                    if _is_wide(field)
                }
            yield pa.RecordBatch.from_arrays(
                [arrays[field.name].cast(field.type) for field in schema], schema=schema
            )


def select_lines(
    kind: RecordKind,
    chunks: Iterable[Chunk],
    query: Query,
    *,
    whole: bool,
    columns: Sequence[FieldRef] = (),
    text: Callable[[Source], sa.ColumnElement[Any]] | None = None,
) -> Generator[pa.RecordBatch, None, None]:
    """The lines that match a query, in its order; close it if you may stop before its end.

    Args:
        kind: which lines.
        chunks: the file.
        query: filters, order and slice.
        whole: whether to give the whole line, as the first column.
        columns: fields to give of each line, in order.
        text: an expression to give after them.

    Raises:
        CorruptRecordError: a line is not UTF-8; names it.
        DatabaseError: DuckDB refuses a line.
    """

    def chosen(table: sa.FromClause, source: Source) -> list[sa.ColumnElement[Any]]:
        made = [] if text is None else [text(source)]
        return [table.c.line] * whole + select_list(source, columns) + made

    if query.order:
        with relation_of_lines(kind, chunks, query) as (connection, table, source, _):
            statement = in_order(source, query, chosen(table, source), table)
            yield from stream_arrow(connection, sliced(statement, query))
        return
    # In insertion order, chunk by chunk: DuckDB does not keep the order of a stream that several of
    # its threads read, and sorting the whole file would hold all of it.
    skip, left = query.offset, query.limit
    with scratch_connection() as connection:
        for batches in _line_batches(chunks):
            if left is not None and left <= 0:
                return
            with streamed(connection, _LINES, batches) as lines:
                table, source = lines_relation(kind, lines)
                statement = in_order(source, query, chosen(table, source), table)
                found = execute_arrow(connection, statement)
            page = found.slice(skip, left)
            skip = max(0, skip - len(found))
            left = None if left is None else left - len(page)
            yield from page.to_batches()


@contextmanager
def relation_of_lines(
    kind: RecordKind, chunks: Iterable[Chunk], query: Query
) -> Iterator[Relation]:
    """The lines of one kind, for one statement that reads them once."""
    batches = chain.from_iterable(_line_batches(chunks))
    with scratch_connection() as connection, streamed(connection, _LINES, batches) as lines:
        yield Relation(connection, *lines_relation(kind, lines), query)


def _line_batches(chunks: Iterable[Chunk]) -> Iterator[list[pa.RecordBatch]]:
    """The lines of each chunk and their positions, in slices, so that all cores get some."""
    position = 0
    for chunk in chunks:
        texts = chunk.texts()
        lines = pa.array(texts, pa.large_binary())
        try:
            lines = lines.cast(pa.large_string())
        except pa.ArrowInvalid:
            raise _not_utf8(chunk) from None
        numbers = pa.array(range(position, position + len(texts)), pa.int64())
        position += len(texts)
        batch = pa.RecordBatch.from_arrays([numbers, lines], schema=_LINES)
        rows = max(1, len(texts) * _SLICE_BYTES // max(1, lines.nbytes))
        yield [batch.slice(at, rows) for at in range(0, len(texts), rows)]


def _not_utf8(chunk: Chunk) -> CorruptRecordError:
    for line in chunk.records():
        try:
            line.text.decode()
        except UnicodeDecodeError as error:
            return chunk.corrupt(line, f"not UTF-8: {error.reason} at its byte {error.start}")
    raise AssertionError("every line is UTF-8 and their column is not")


def _is_wide(field: FieldRef) -> bool:
    return isinstance(field.type, Struct | List) or (
        isinstance(field.type, Json) and not field.keys
    )


def _inner(array: pa.Array, field: FieldRef) -> pa.Array:
    for step in field.inner:
        # Flattened, a child is null where its parent is.
        array = array.flatten()[array.type.get_field_index(step)]
    return array
