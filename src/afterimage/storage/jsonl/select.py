"""Query JSON lines with DuckDB.

The lines are streamed through Arrow into an in-memory DuckDB, which extracts only the values that
the query names. It returns single values. Nested fields, whole metadata and `extra` are built from
whole lines with the same code as saves, so scans of a file and of a database have equal results.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Container, Generator, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import replace
from itertools import chain
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import sqlalchemy as sa

from afterimage.storage.arrow.arrays import binaries, integers
from afterimage.storage.arrow.batches import rows_of_objects, to_batch
from afterimage.storage.arrow.schema import projected_schema
from afterimage.storage.engine.database import scratch_connection
from afterimage.storage.engine.statements import execute_arrow, stream_arrow, streamed
from afterimage.storage.errors import CorruptRecordError
from afterimage.storage.jsonl.lines import Chunk, objects_of
from afterimage.storage.query.computed import COMPUTED_FROM
from afterimage.storage.query.figures.duplicates import repeated_numbers
from afterimage.storage.query.predicates import filtered, in_order, select_list, sliced
from afterimage.storage.query.query import Query
from afterimage.storage.query.relations import SUSPECT, Relation, Source, lines_relation
from afterimage.storage.records.fields import Json, List, RecordKind, Struct
from afterimage.storage.records.paths import FieldRef, resolve

__all__ = [
    "as_bytes",
    "can_build",
    "columns_of_objects",
    "positions_of_lines",
    "relation_of_lines",
    "select_columns",
    "select_lines",
]

# Bytes that a DuckDB thread processes at a time. For each value that is extracted from a line, the
# thread holds the parsed lines of a whole slice.
_SLICE_BYTES = 128 * 1024

_LINES = pa.schema([pa.field("position", pa.int64()), pa.field("line", pa.large_string())])


def select_columns(
    kind: RecordKind,
    chunks: Iterable[Chunk],
    query: Query,
    on_suspect: Callable[[], None] | None = None,
) -> Iterator[pa.RecordBatch]:
    """Yield the query's columns of the matching lines, with the declared schema.

    Args:
        kind: the kind of the lines.
        chunks: the file.
        query: filters, order, slice and projection.
        on_suspect: called once if the values of a line may be of types that a load rejects; None
            if there is no such line. Only the columns of the query are checked.
    """
    assert query.columns is not None
    schema = projected_schema(query.columns)
    narrow = [field for field in query.columns if not _is_wide(field)]
    whole = len(narrow) < len(query.columns)  # conversion of whole lines checks all values
    check = on_suspect is not None and not whole
    # Close now: the error of a corrupt line could keep the engine's connection open.
    with closing(
        select_lines(kind, chunks, query, whole=whole, columns=narrow, check=check)
    ) as batches:
        for batch in batches:
            if check and on_suspect is not None and pc.any(batch.column(len(narrow))).as_py():
                on_suspect()
                on_suspect = None
            values = batch.columns[whole : whole + len(narrow)]
            if whole:  # copy: small values between the freed lines would fragment the memory
                every = integers(range(len(batch)))
                values = [column.take(every) for column in values]
            arrays = dict(zip((field.path for field in narrow), values, strict=True))
            if whole:
                objects = objects_of(as_bytes(batch.column(0)))
                wide = [field for field in query.columns if _is_wide(field)]
                arrays |= _declared_columns(kind, objects, wide)
            yield pa.RecordBatch.from_arrays(
                [arrays[field.name].cast(field.type) for field in schema], schema=schema
            )


def can_build(kind: RecordKind, columns: Iterable[FieldRef]) -> bool:
    """Return whether the columns can be built from whole records as fast as by the engine."""
    fields = list(columns)
    # The engine gives values inside metadata as text, and computes fields.
    by_engine = (field.keys or field.column in kind.computed for field in fields)
    return any(map(_is_wide, fields)) and not any(by_engine)


def columns_of_objects(
    kind: RecordKind, objects: Sequence[dict[str, Any]], columns: Sequence[FieldRef]
) -> pa.RecordBatch:
    """Return the columns of records, for which `can_build` is true.

    Raises:
        InvalidRecordError: an object is not a valid record.
    """
    schema = projected_schema(columns)
    arrays = _declared_columns(kind, objects, columns)
    return pa.RecordBatch.from_arrays(
        [arrays[field.name].cast(field.type) for field in schema], schema=schema
    )


def _declared_columns(
    kind: RecordKind, objects: Sequence[dict[str, Any]], fields: Iterable[FieldRef]
) -> dict[str, pa.Array]:
    rows = rows_of_objects(kind, objects, to_store=False)
    records = to_batch(kind, rows, to_store=False)
    return {field.path: _inner(records.column(field.column), field) for field in fields}


def as_bytes(texts: pa.Array) -> list[bytes]:
    """Return the strings of an array as UTF-8, without decoding them."""
    return texts.cast(pa.large_binary()).to_pylist()  # type: ignore[no-any-return]


def select_lines(
    kind: RecordKind,
    chunks: Iterable[Chunk],
    query: Query,
    *,
    whole: bool,
    columns: Sequence[FieldRef] = (),
    check: bool = False,
    text: Callable[[Source], sa.ColumnElement[Any]] | None = None,
) -> Generator[pa.RecordBatch, None, None]:
    """Yield the lines that match a query, in its order. Close it if you stop before its end.

    Args:
        kind: the kind of the lines.
        chunks: the file.
        query: filters, order and slice.
        whole: whether the first column of the result is the whole line.
        columns: the next columns of the result.
        check: whether the next column of the result is `SUSPECT`, about `columns`.
        text: returns the expression of the last column of the result.

    Raises:
        CorruptRecordError: a line is not UTF-8. The error names the line.
        DatabaseError: DuckDB rejects a line.
    """

    def chosen(table: sa.FromClause, source: Source) -> list[sa.ColumnElement[Any]]:
        texts = [] if text is None else [text(source)]
        suspect = [table.c[SUSPECT]] if check else []
        return [table.c.line] * whole + select_list(source, columns) + suspect + texts

    checked = [*_stored_fields(kind, columns)] if check else []
    only, query = query.only, replace(query, only=None)
    if query.order:
        lines_of_order = replace(query, only=only)
        with relation_of_lines(kind, chunks, lines_of_order, checked) as relation:
            connection, table, source, _ = relation
            statement = in_order(source, query, chosen(table, source), table)
            yield from stream_arrow(connection, sliced(statement, query))
        return
    # For insertion order, query one chunk at a time: DuckDB does not preserve the order of a stream
    # that several threads read, and a sort of the whole file would need memory for all of it.
    skip, left = query.offset, query.limit
    names = None if text else _used_columns([*query.used_fields(), *columns])
    with scratch_connection() as connection:
        for batches in _line_batches(chunks, only):
            if left is not None and left <= 0:
                return
            with streamed(connection, _LINES, batches) as lines:
                table, source = lines_relation(kind, lines, names, checked)
                statement = in_order(source, query, chosen(table, source), table)
                matching = execute_arrow(connection, statement)
            page = matching.slice(skip, left)
            skip = max(0, skip - len(matching))
            left = None if left is None else left - len(page)
            yield from page.to_batches()


def positions_of_lines(
    kind: RecordKind,
    chunks: Iterable[Chunk],
    query: Query,
    field: FieldRef | None = None,
    *,
    last: bool = False,
) -> list[int]:
    """Return the numbers of the matching lines, from 0, ascending; blank lines do not count.

    Args:
        kind: the kind of the lines.
        chunks: the file.
        query: the filters.
        field: if given, only lines whose value of this field another line before them has.
        last: whether "after them" is meant instead.
    """
    names = _used_columns([*query.used_fields(), *([] if field is None else [field])])
    relation = relation_of_lines(kind, chunks, query, names=names)
    with relation as (connection, table, source, _):
        statement = sa.select(source.sequence.label("number")).select_from(table)
        statement = filtered(statement, source, query)
        if field is not None:
            statement = repeated_numbers(statement, source, field, last=last)
        numbers = execute_arrow(connection, statement).column(0)
    return sorted(numbers.to_pylist())


def _used_columns(fields: Sequence[FieldRef]) -> set[str]:
    """Return the names of the columns that expressions with these fields use."""
    # Values inside JSON are extracted from the line itself, without the column around them.
    used = [field.column for field in fields if not field.keys]
    used += chain.from_iterable(COMPUTED_FROM.get(name, ()) for name in used)
    if any(field.of_message for field in fields):
        used.append("conversations")
    return {*used}


def _stored_fields(kind: RecordKind, fields: Iterable[FieldRef]) -> Iterator[FieldRef]:
    """Yield the fields, with those that a computed field is computed from in its place."""
    for field in fields:
        if field.column in kind.computed:
            names = COMPUTED_FROM[field.column]
            yield from (resolve(kind.record.fields, name) for name in names if name in kind.stored)
        else:
            yield field


@contextmanager
def relation_of_lines(
    kind: RecordKind,
    chunks: Iterable[Chunk],
    query: Query,
    checked: Sequence[FieldRef] = (),
    names: Container[str] | None = None,
) -> Iterator[Relation]:
    """Provide the lines of one kind for one statement, which reads them once.

    For `checked` and `names`, see `lines_relation`.
    """
    batches = chain.from_iterable(_line_batches(chunks, query.only))
    query = replace(query, only=None)
    with scratch_connection() as connection, streamed(connection, _LINES, batches) as lines:
        yield Relation(connection, *lines_relation(kind, lines, names, checked), query)


def _line_batches(
    chunks: Iterable[Chunk], only: tuple[int, ...] | None = None
) -> Iterator[list[pa.RecordBatch]]:
    """Yield the lines of each chunk with their positions, in slices for parallel processing.

    Args:
        chunks: the file.
        only: the positions of the lines to yield, ascending; None for all.
    """
    position = 0
    for chunk in chunks:
        texts = chunk.texts()
        end = position + len(texts)
        places: Sequence[int] = range(position, end)
        if only is not None:
            places = only[bisect_left(only, position) : bisect_left(only, end)]
            texts = [texts[place - position] for place in places]
        if not texts:
            position = end
            continue
        lines = binaries(texts)
        try:
            lines = lines.cast(pa.large_string())
        except pa.ArrowInvalid:
            raise _not_utf8(chunk) from None
        numbers = integers(places)
        position = end
        batch = pa.RecordBatch.from_arrays([numbers, lines], schema=_LINES)
        rows = max(1, len(texts) * _SLICE_BYTES // max(1, lines.nbytes))
        yield [batch.slice(start, rows) for start in range(0, len(texts), rows)]


def _not_utf8(chunk: Chunk) -> CorruptRecordError:
    for line in chunk.records():
        try:
            line.text.decode()
        except UnicodeDecodeError as error:
            return chunk.corrupt(
                line, f"not UTF-8: {error.reason} at byte {error.start} of the line"
            )
    raise AssertionError("Arrow rejects the column, but every line is UTF-8")


def _is_wide(field: FieldRef) -> bool:
    return isinstance(field.type, Struct | List) or (
        isinstance(field.type, Json) and not field.keys
    )


def _inner(array: pa.Array, field: FieldRef) -> pa.Array:
    for step in field.inner:
        # `flatten` makes a child null where its parent is null.
        array = array.flatten()[array.type.get_field_index(step)]
    return array
