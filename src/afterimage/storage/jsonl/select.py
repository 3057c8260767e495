"""Queries over JSON lines, answered by DuckDB with declared types and only the columns needed.

The lines stream through Arrow into a DuckDB in memory, which parses of each only what the filters,
the sort and the projection name; whole lines come back for the records that are wanted.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import contextmanager
from itertools import chain
from typing import Any

import pyarrow as pa
import sqlalchemy as sa

from afterimage.storage.engine.database import (
    execute_arrow,
    scratch_database,
    stream_arrow,
    streamed,
)
from afterimage.storage.errors import CorruptRecordError
from afterimage.storage.jsonl.lines import Chunk
from afterimage.storage.query.counts import counted
from afterimage.storage.query.predicates import Source, in_order, select_list, sliced
from afterimage.storage.query.query import FieldRef, Query
from afterimage.storage.query.relations import (
    LinesSource,
    RecordSource,
    conversation_lines,
    other_lines,
)
from afterimage.storage.records.kinds import RECORD_TABLES

__all__ = ["count_lines", "relation_of_lines", "select_lines"]

# Lines that a thread of DuckDB takes at a time: it holds what it has parsed of them once for each
# value that is asked of a line.
_SLICE_BYTES = 128 * 1024

_LINES = pa.schema([pa.field("position", pa.int64()), pa.field("line", pa.large_string())])


def select_lines(
    kind: str,
    chunks: Iterable[Chunk],
    query: Query,
    *,
    whole: bool,
    columns: Sequence[FieldRef] = (),
    text: Callable[[Source], sa.ColumnElement[Any]] | None = None,
) -> Generator[pa.RecordBatch, None, None]:
    """The lines that a query matches, in its order; close it where you may stop or fail before.

    Args:
        kind: "conversations", "documents" or "records".
        chunks: the file.
        query: filters, order and slice.
        whole: whether to give the whole line, as the first column.
        columns: what else to give of each line, in order.
        text: an expression to give after them.

    Raises:
        CorruptRecordError: a line is no UTF-8; names it.
        DatabaseError: DuckDB refuses a line.
    """

    def chosen(relation: sa.FromClause, source: Source) -> list[sa.ColumnElement[Any]]:
        made = [] if text is None else [text(source)]
        return [relation.c.line] * whole + select_list(source, columns) + made

    if query.order:
        with relation_of_lines(kind, chunks) as (connection, relation, source):
            statement = in_order(source, query, chosen(relation, source), relation)
            yield from stream_arrow(connection, sliced(statement, query))
        return
    # In insertion order, chunk by chunk: DuckDB does not keep the order of a stream that several
    # of its threads take from, and a sort of the whole file would hold all of it.
    skip, left = query.offset, query.limit
    with scratch_database().reading() as connection:
        for some in _line_batches(chunks):
            if left is not None and left <= 0:
                return
            with streamed(connection, _LINES, some) as lines:
                relation, source = _relation(kind, lines)
                statement = in_order(source, query, chosen(relation, source), relation)
                found = execute_arrow(connection, statement)
            page = found.slice(skip, left)
            skip = max(0, skip - len(found))
            left = None if left is None else left - len(page)
            yield from page.to_batches()


def count_lines(kind: str, chunks: Iterable[Chunk], query: Query) -> int:
    """How many lines a query matches; see `select_lines`."""
    with relation_of_lines(kind, chunks) as found:
        return counted(*found, query)


@contextmanager
def relation_of_lines(
    kind: str, chunks: Iterable[Chunk]
) -> Iterator[tuple[sa.Connection, sa.FromClause, Source]]:
    """The lines of a kind of record, for one statement that reads them once and sorts them."""
    batches = chain.from_iterable(_line_batches(chunks))
    with scratch_database().reading() as connection, streamed(connection, _LINES, batches) as lines:
        yield connection, *_relation(kind, lines)


def _line_batches(chunks: Iterable[Chunk]) -> Iterator[list[pa.RecordBatch]]:
    """The lines of each chunk and their positions, in slices, so that both cores get some."""
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
            return chunk.corrupt(line, f"no UTF-8: {error.reason} at byte {error.start} of it")
    raise AssertionError("every line is UTF-8 and their column is not")


def _relation(kind: str, lines: sa.FromClause) -> tuple[sa.FromClause, Source]:
    """The lines of a kind of record, and where the fields are in them."""
    if kind == "records":
        others = other_lines(lines)
        return others, RecordSource(others.c.line, others.c.position)
    relation = conversation_lines(lines) if kind == "conversations" else lines
    return relation, LinesSource(RECORD_TABLES[kind], relation)
