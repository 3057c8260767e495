"""Relations: where an SQL statement finds the records of one kind, and their fields.

A table and a stream of JSON lines become relations with the same columns, so that one set of
statements serves both. A column of lines is an expression over the line: DuckDB evaluates it only
where a statement uses it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final, NamedTuple, Protocol

import sqlalchemy as sa

from afterimage.storage.engine.dialect import SqlType
from afterimage.storage.query.json_values import JsonPath, JsonValue, TypedText
from afterimage.storage.query.query import Query
from afterimage.storage.records.fields import (
    CONVERSATIONS,
    DOCUMENTS,
    OTHERS,
    Double,
    FieldType,
    Integer,
    Json,
    RecordKind,
    Text,
    Timestamp,
)
from afterimage.storage.records.paths import FieldRef
from afterimage.storage.records.schema import json_structure

__all__ = ["RecordSource", "Relation", "Source", "TableSource", "lines_relation"]

_NO_COLUMNS: Final[Mapping[str, tuple[str, str]]] = MappingProxyType({})


class Source(Protocol):
    """Where the fields of a record are found in SQL."""

    def value(self, field: FieldRef) -> sa.ColumnElement[Any]:
        """A field of a declared type (not JSON), as a column of that type."""

    def json(self, field: FieldRef) -> JsonValue:
        """A field as JSON: metadata, and what is inside it."""

    @property
    def sequence(self) -> sa.ColumnElement[int]:
        """The insertion sequence, ascending."""


class Relation(NamedTuple):
    """The records of one kind, for one statement that reads them once.

    Attributes:
        connection: executes the statement.
        table: the records.
        source: where the fields are in `table`.
        query: the query to answer, without the rows that are skipped as corrupt.
    """

    connection: sa.Connection
    table: sa.FromClause
    source: Source
    query: Query


class TableSource:
    """The declared columns of a relation.

    Args:
        kind: the kind of its records.
        table: the relation.
        metadata_columns: text and type column of each metadata key that has columns of its own.
        whole: the column that holds each record as JSON text, if there is one. Values inside JSON
            are extracted from it directly, so that a line is parsed once for each of them.
    """

    def __init__(
        self,
        kind: RecordKind,
        table: sa.FromClause,
        metadata_columns: Mapping[str, tuple[str, str]] = _NO_COLUMNS,
        whole: sa.ColumnElement[Any] | None = None,
    ) -> None:
        self._kind = kind
        self._columns = table.c
        self._metadata_columns = metadata_columns
        self._whole = whole

    @property
    def sequence(self) -> sa.ColumnElement[int]:
        return self._columns[self._kind.sequence]

    def value(self, field: FieldRef) -> sa.ColumnElement[Any]:
        found: sa.ColumnElement[Any] = self._columns[field.column]
        for step in field.inner:  # declared names: constants of this package
            found = sa.func.struct_extract(found, sa.literal_column(f"'{step}'"))
        return found

    def json(self, field: FieldRef) -> JsonValue:
        if not isinstance(field.type, Json):
            return JsonPath(sa.func.to_json(self.value(field)))
        is_declared = field.column in self._kind.record.fields
        if self._whole is not None and (field.keys or not is_declared):
            return JsonPath(self._whole, (field.column, *field.keys))
        if not is_declared:  # a field of a subclass
            return JsonPath(self._columns["extra"], ("fields", field.column, *field.keys))
        in_metadata = JsonPath(self._columns[field.column], field.keys)
        own = self._metadata_columns.get(field.keys[0]) if len(field.keys) == 1 else None
        if field.column != "metadata" or own is None:
            return in_metadata
        text, kind = own
        return TypedText(self._columns[text], self._columns[kind], in_metadata)


class RecordSource:
    """Whole records as JSON text in one column, for models that this package does not know."""

    def __init__(self, record: sa.ColumnElement[Any], sequence: sa.ColumnElement[int]) -> None:
        self._record = record
        self.sequence = sequence

    def value(self, field: FieldRef) -> sa.ColumnElement[Any]:
        raise AssertionError(f"{field.path} has no declared type")

    def json(self, field: FieldRef) -> JsonValue:
        return JsonPath(self._record, (field.column, *field.keys))


def lines_relation(kind: RecordKind, lines: sa.FromClause) -> tuple[sa.FromClause, Source]:
    """The lines of one kind with the columns that a table of that kind has.

    Args:
        kind: which lines; the others are left out.
        lines: JSON lines in a column `line` beside their `position` (from 0).

    Returns:
        The relation and its source. `extra` is not among its columns; `line` is. A line that is
        not a JSON object is an error of the engine; `jsonl/backend.py` then finds it.
    """
    rows = lines if kind is DOCUMENTS else _lines_of(kind, lines)
    if kind is OTHERS:
        return rows, RecordSource(rows.c.line, rows.c.position)
    columns = [
        _column(rows.c.line, name, field_type, kind.record.defaults.get(name)).label(name)
        for name, field_type in kind.record.fields.items()
    ]
    position = rows.c.position.label(kind.sequence)
    relation = sa.select(position, rows.c.line, *columns).subquery()
    return relation, TableSource(kind, relation, whole=relation.c.line)


def _column(
    line: sa.ColumnElement[Any], name: str, field_type: FieldType, default: Any
) -> sa.ColumnElement[Any]:
    """A declared field of a line, as a column of its SQL type."""
    found = JsonPath(line, (name,))
    match field_type:
        case Text():
            return found.text
        case Double() | Integer() | Timestamp():
            # For pydantic, and so for a load, true and false are numbers.
            number = sa.case(
                (found.text == "true", 1.0),
                (found.text == "false", 0.0),
                else_=sa.try_cast(found.text, sa.Double),
            )
            return _or_default(found, number, default, "DOUBLE")
        case Json():
            return _or_default(found, found.json, default, "JSON")
        case _:
            text = _or_default(found, found.json, default, "JSON")
            structure = sa.literal_column(f"'{json_structure(field_type)}'", sa.String)
            return sa.func.json_transform(text, structure)


def _or_default(
    found: JsonPath, value: sa.ColumnElement[Any], default: Any, sql_type: str
) -> sa.ColumnElement[Any]:
    """`value`, or the model's default where the line lacks the field."""
    if default is None:
        return value
    literal = sa.literal_column(f"'{json.dumps(default)}'", sa.String)
    return sa.case((found.json.is_(None), sa.cast(literal, SqlType(sql_type))), else_=value)


def _lines_of(kind: RecordKind, lines: sa.FromClause) -> sa.FromClause:
    """The lines that `validation.is_conversation` accepts, or those that it does not."""
    shape: sa.ColumnElement[Any] = sa.literal_column(
        "['$', '$.conversations', '$.conversations[0]',"
        " '$.conversations[0].role', '$.conversations[0].content']"
    )
    # All types in one call, so that each line is parsed once.
    typed = sa.select(lines, sa.func.json_type(lines.c.line, shape).label("types")).subquery()
    root, entries, first, role, content = (
        sa.func.list_extract(typed.c.types, at) for at in range(1, 6)
    )
    complete = sa.and_(role.is_not(None), content.is_not(None))
    found = sa.and_(entries == "ARRAY", sa.or_(first.is_(None), complete))
    found = sa.func.coalesce(found, sa.false())
    refused = sa.cast(sa.func.error("not a JSON object"), sa.Boolean)
    wanted = found if kind is CONVERSATIONS else sa.not_(found)
    return (
        sa.select(typed.c.position, typed.c.line)
        .where(sa.case((root == "OBJECT", wanted), else_=refused))
        .subquery()
    )
