"""Query the outline of a file: a relation of the values that its queries use.

A value is extracted from the lines once, and then kept as a column beside the outline.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Final

import pyarrow as pa
import sqlalchemy as sa

from afterimage.storage.arrow.arrays import binaries, integers
from afterimage.storage.engine.database import scratch_connection
from afterimage.storage.engine.statements import execute_arrow, fetch_all, streamed
from afterimage.storage.errors import DatabaseError
from afterimage.storage.jsonl.index.outline import Outline
from afterimage.storage.jsonl.select import relation_of_lines
from afterimage.storage.query.json_values import JsonPath, JsonValue, TypedText
from afterimage.storage.query.predicates import in_order, select_list, sliced
from afterimage.storage.query.query import Query
from afterimage.storage.query.relations import Relation, Values
from afterimage.storage.records.fields import CONVERSATIONS, Json
from afterimage.storage.records.paths import FieldRef

__all__ = ["places_in_order", "relation_of_outline", "select_outline"]

# Columns that are kept beside an outline.
_MOST_COLUMNS: Final = 64
# Rows that a thread of the engine reads at a time.
_SLICE_ROWS: Final = 8192


class _OutlineSource:
    """The fields of the records of an outline.

    Args:
        table: the relation.
        names: the names of the columns of each field.
    """

    def __init__(self, table: sa.FromClause, names: Mapping[FieldRef, Sequence[str]]) -> None:
        self._columns = table.c
        self._names = names

    @property
    def sequence(self) -> sa.ColumnElement[int]:
        return self._columns["position"]

    @property
    def identity(self) -> sa.ColumnElement[str]:
        raise AssertionError("an outline has no messages")

    @property
    def record_text(self) -> sa.ColumnElement[str]:
        raise AssertionError("an outline has no messages")

    @property
    def is_plain(self) -> sa.ColumnElement[bool]:
        raise AssertionError("an outline has no messages")

    def value(self, field: FieldRef) -> sa.ColumnElement[Any]:
        [name] = self._names[field]
        return self._columns[name]

    def json(self, field: FieldRef) -> JsonValue:
        if not isinstance(field.type, Json):
            return JsonPath(sa.func.to_json(self.value(field)))
        text, kind = self._names[field]
        whole = JsonPath(self._columns["line"], (field.column, *field.keys))
        return TypedText(self._columns[text], self._columns[kind], whole)

    def any_message(
        self,
        fields: Iterable[FieldRef],
        condition: Callable[[Values], sa.ColumnElement[bool]],
    ) -> sa.ColumnElement[bool]:
        del fields, condition
        raise AssertionError("an outline has no messages")


@contextmanager
def relation_of_outline(
    outline: Outline, query: Query, columns: Iterable[FieldRef] = ()
) -> Iterator[Relation]:
    """Provide the records of an outline for one statement, which reads them once.

    The statement may use the fields of the query, and `columns`.
    """
    fields = {*query.used_fields(), *columns}
    if len(outline.columns) > _MOST_COLUMNS:
        outline.columns.clear()
    # Another thread may clear the columns meanwhile.
    known = {field: own for field in fields if (own := outline.columns.get(field)) is not None}
    missing = [field for field in fields if field not in known]
    if missing:
        extracted = dict(_extracted(outline, missing))
        outline.columns.update(extracted)
        known.update(extracted)
    arrays = [integers(outline.places), _lines(outline)]
    names: dict[FieldRef, list[str]] = {}
    labels = ["position", "line"]
    for field in fields:
        own = known[field]
        names[field] = [f"column_{len(labels) + index}" for index in range(len(own))]
        labels += names[field]
        arrays += own
    rows = pa.RecordBatch.from_arrays(arrays, names=labels)
    slices = (rows.slice(start, _SLICE_ROWS) for start in range(0, len(rows), _SLICE_ROWS))
    with scratch_connection() as connection, streamed(connection, rows.schema, slices) as table:
        yield Relation(connection, table, _OutlineSource(table, names), query)


def _extracted(
    outline: Outline, fields: Sequence[FieldRef]
) -> Iterator[tuple[FieldRef, list[pa.Array]]]:
    """Yield the columns of fields: the value, or the text and the kind of a value in JSON."""
    with relation_of_lines(CONVERSATIONS, outline.chunks, Query()) as relation:
        parts: list[sa.ColumnElement[Any]] = []
        for field in fields:
            if isinstance(field.type, Json):
                value = relation.source.json(field)
                parts += [value.text, value.kind]
            else:
                parts.append(relation.source.value(field))
        found = execute_arrow(
            relation.connection, in_order(relation.source, Query(), parts, relation.table)
        )
    if len(found) != len(outline.places):
        raise DatabaseError("the engine returned another number of lines than were read")
    arrays = iter([column.combine_chunks() for column in found.columns])
    for field in fields:
        yield field, [next(arrays) for _ in range(2 if isinstance(field.type, Json) else 1)]


def _lines(outline: Outline) -> pa.Array:
    """Return the outlines of the records."""
    if not outline.texts:
        lines = [text for chunk in outline.chunks for text in chunk.lines]
        texts = binaries([lines[place] for place in outline.places])
        outline.texts.append(texts.cast(pa.large_string()))
    return outline.texts[0]


def places_in_order(outline: Outline, query: Query) -> list[int]:
    """Return the numbers of the matching lines, from 0, in the order of the query."""
    with relation_of_outline(outline, query) as (connection, table, source, _):
        statement = in_order(source, query, [source.sequence], table)
        return [row[0] for row in fetch_all(connection, sliced(statement, query))]


def select_outline(
    outline: Outline, query: Query, columns: Sequence[FieldRef], schema: pa.Schema
) -> Iterator[pa.RecordBatch]:
    """Yield columns of the matching records, with a schema that has a field for each."""
    with relation_of_outline(outline, query, columns) as (connection, table, source, _):
        statement = in_order(source, query, select_list(source, columns), table)
        found = execute_arrow(connection, sliced(statement, query))
    for batch in found.to_batches():
        arrays = [
            column.cast(field.type) for column, field in zip(batch.columns, schema, strict=True)
        ]
        yield pa.RecordBatch.from_arrays(arrays, schema=schema)
