"""Queries over JSON lines, answered by DuckDB with declared types and only the columns needed.

The lines stream through Arrow into a DuckDB in memory, which parses of each only what the filters,
the sort and the projection name; whole lines come back for the records that are wanted.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import cache
from typing import Any

import pyarrow as pa
import sqlalchemy as sa

from afterimage.storage.duckdb_driver import (
    Database,
    fetch_all,
    memory_database,
    registered,
    stream_arrow,
)
from afterimage.storage.errors import CorruptRecordError
from afterimage.storage.fields import CONVERSATIONS, DOCUMENTS, RecordTable
from afterimage.storage.lines import Chunk
from afterimage.storage.predicates import Source, order_by, select_list, where
from afterimage.storage.query import FieldRef, Query
from afterimage.storage.sources import LinesSource, RecordSource, conversation_lines, other_lines

__all__ = ["count_lines", "select_lines"]

_LINES = pa.schema([pa.field("position", pa.int64()), pa.field("line", pa.large_string())])


def select_lines(
    kind: str,
    chunks: Iterable[Chunk],
    query: Query,
    *,
    whole: bool,
    columns: Sequence[FieldRef] = (),
) -> Iterator[pa.RecordBatch]:
    """The lines that a query matches, in its order.

    Args:
        kind: "conversations", "documents" or "records".
        chunks: the file.
        query: filters, order and slice.
        whole: whether to give the whole line, as the first column.
        columns: what else to give of each line, in order.

    Raises:
        CorruptRecordError: a line is no UTF-8; names it.
        DatabaseError: DuckDB refuses a line.
    """
    feed = _Feed(chunks)
    with _engine().reading() as connection, registered(connection, "lines", feed.reader()) as lines:
        relation, source = _relation(kind, lines)
        chosen: list[sa.ColumnElement[Any]] = [relation.c.line] if whole else []
        chosen += select_list(source, columns)
        labelled = [column.label(f"column_{at}") for at, column in enumerate(chosen)]
        statement = _matching(sa.select(*labelled).select_from(relation), source, query)
        statement = statement.order_by(*order_by(source, query))
        if query.limit is not None:
            statement = statement.limit(query.limit)
        if query.offset:
            statement = statement.offset(query.offset)
        with feed.errors():
            yield from stream_arrow(connection, statement)


def count_lines(kind: str, chunks: Iterable[Chunk], query: Query) -> int:
    """How many lines a query matches; see `select_lines`."""
    feed = _Feed(chunks)
    with _engine().reading() as connection, registered(connection, "lines", feed.reader()) as lines:
        relation, source = _relation(kind, lines)
        counted = sa.select(sa.func.count()).select_from(relation)
        with feed.errors():
            return int(fetch_all(connection, _matching(counted, source, query))[0][0])


class _Feed:
    """Chunks of a file as an Arrow stream; remembers why it broke off, as DuckDB does not."""

    def __init__(self, chunks: Iterable[Chunk]) -> None:
        self._chunks = chunks
        self._error: BaseException | None = None

    def reader(self) -> pa.RecordBatchReader:
        return pa.RecordBatchReader.from_batches(_LINES, self._batches())

    def errors(self) -> _Feed:
        return self

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        if self._error is not None and error is not self._error:
            raise self._error from None

    def _batches(self) -> Iterator[pa.RecordBatch]:
        position = 0
        try:
            for chunk in self._chunks:
                texts = chunk.texts()
                lines = pa.array(texts, pa.large_binary())
                try:
                    lines = lines.cast(pa.large_string())
                except pa.ArrowInvalid:
                    raise _not_utf8(chunk) from None
                numbers = pa.array(range(position, position + len(texts)), pa.int64())
                position += len(texts)
                # In slices, so that both cores get some of even one chunk.
                batch = pa.RecordBatch.from_arrays([numbers, lines], schema=_LINES)
                for at in range(0, len(texts), 1024):
                    yield batch.slice(at, 1024)
        except BaseException as error:
            self._error = error
            raise


def _not_utf8(chunk: Chunk) -> CorruptRecordError:
    for line in chunk.records():
        try:
            line.text.decode()
        except UnicodeDecodeError as error:
            return chunk.corrupt(line, f"no UTF-8: {error.reason} at byte {error.start} of it")
    raise AssertionError("every line is UTF-8 and their column is not")


@cache
def _engine() -> Database:
    return memory_database()


def _relation(kind: str, lines: sa.FromClause) -> tuple[sa.FromClause, Source]:
    """The lines of a kind of record, and where the fields are in them."""
    if kind == "records":
        others = other_lines(lines)
        return others, RecordSource(others.c.line, others.c.position)
    table: RecordTable = CONVERSATIONS if kind == "conversations" else DOCUMENTS
    relation = conversation_lines(lines) if kind == "conversations" else lines
    return relation, LinesSource(table, relation)


def _matching(statement: sa.Select[Any], source: Source, query: Query) -> sa.Select[Any]:
    predicate = where(source, query)
    return statement if predicate is None else statement.where(predicate)
