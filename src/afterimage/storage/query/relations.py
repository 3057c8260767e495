"""Where the fields of a record are found in SQL: in the columns of a table, or in JSON lines.

Each class here is a `predicates.Source`; a query compiled against either gives the same answer.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import sqlalchemy as sa

from afterimage.storage.engine.sql_types import SqlType
from afterimage.storage.query.json_values import JsonPath, JsonValue, TypedText
from afterimage.storage.query.query import FieldRef
from afterimage.storage.records.fields import Double, Integer, Json, RecordTable, Text, Timestamp
from afterimage.storage.records.schema import json_structure

__all__ = ["LinesSource", "RecordSource", "TableSource", "conversation_lines", "other_lines"]


class TableSource:
    """The columns of a table of ours.

    Args:
        record_table: what the table holds.
        table: the table.
        metadata_columns: text and type column of each metadata key that has columns of its own.
    """

    def __init__(
        self,
        record_table: RecordTable,
        table: sa.FromClause,
        metadata_columns: Mapping[str, tuple[str, str]],
    ) -> None:
        self._record_table = record_table
        self._columns = table.c
        self._metadata_columns = metadata_columns

    @property
    def sequence(self) -> sa.ColumnElement[int]:
        return self._columns[self._record_table.sequence]

    def value(self, field: FieldRef) -> sa.ColumnElement[Any]:
        found: sa.ColumnElement[Any] = self._columns[field.column]
        for step in field.inner:  # declared names: constants of this package
            found = sa.func.struct_extract(found, sa.literal_column(f"'{step}'"))
        return found

    def json(self, field: FieldRef) -> JsonValue:
        if not isinstance(field.type, Json):
            return JsonPath(sa.func.to_json(self.value(field)))
        if field.column not in self._record_table.record.fields:  # a field of a subclass
            return JsonPath(self._columns["extra"], ("fields", field.column, *field.keys))
        whole = JsonPath(self._columns[field.column], field.keys)
        own = self._metadata_columns.get(field.keys[0]) if len(field.keys) == 1 else None
        if field.column != "metadata" or own is None:
            return whole
        text, kind = own
        return TypedText(self._columns[text], self._columns[kind], whole)


class LinesSource:
    """JSON lines, a record each, in a column `line` beside their `position` (from 0)."""

    def __init__(self, record_table: RecordTable, lines: sa.FromClause) -> None:
        self._record = record_table.record
        self._line = lines.c.line
        self.sequence: sa.ColumnElement[int] = lines.c.position

    def value(self, field: FieldRef) -> sa.ColumnElement[Any]:
        found = JsonPath(self._line, (field.column, *field.inner))
        default = None if field.inner else self._record.defaults.get(field.column)
        match field.type:
            case Text():
                return found.text
            case Double() | Integer() | Timestamp():
                # true and false are numbers to pydantic, and so to a load
                number = sa.case(
                    (found.text == "true", 1.0),
                    (found.text == "false", 0.0),
                    else_=sa.try_cast(found.text, sa.Double),
                )
                return _or_default(found, number, default, "DOUBLE")
            case _:
                text = _or_default(found, found.json, default, "JSON")
                structure = sa.literal_column(f"'{json_structure(field.type)}'", sa.String)
                return sa.func.json_transform(text, structure)

    def json(self, field: FieldRef) -> JsonValue:
        if not isinstance(field.type, Json):
            return JsonPath(sa.func.to_json(self.value(field)))
        found = JsonPath(self._line, (field.column, *field.keys))
        if field.keys or field.column not in self._record.defaults:
            return found
        default = self._record.defaults[field.column]
        return JsonPath(_or_default(found, found.json, default, "JSON"))


def _or_default(
    found: JsonPath, value: sa.ColumnElement[Any], default: Any, kind: str
) -> sa.ColumnElement[Any]:
    """`value` or, where the line lacks the field, the default that the model gives it."""
    if default is None:
        return value
    literal = sa.literal_column(f"'{json.dumps(default)}'", sa.String)
    return sa.case((found.json.is_(None), sa.cast(literal, SqlType(kind))), else_=value)


class RecordSource:
    """Whole records as JSON text in one column, of models this package knows nothing about."""

    def __init__(self, record: sa.ColumnElement[Any], sequence: sa.ColumnElement[int]) -> None:
        self._record = record
        self.sequence = sequence

    def value(self, field: FieldRef) -> sa.ColumnElement[Any]:
        raise AssertionError(f"{field.path} has no declared type")

    def json(self, field: FieldRef) -> JsonValue:
        return JsonPath(self._record, (field.column, *field.keys))


def conversation_lines(lines: sa.FromClause) -> sa.FromClause:
    """The lines that are conversations: `objects.is_conversation`, in one pass over each line.

    A line that is no JSON object is an error of the engine; `jsonl_storage.py` then finds it.
    """
    return _lines_that(lines, conversations=True)


def other_lines(lines: sa.FromClause) -> sa.FromClause:
    """The lines that are no conversations; see `conversation_lines`."""
    return _lines_that(lines, conversations=False)


def _lines_that(lines: sa.FromClause, *, conversations: bool) -> sa.FromClause:
    shape: sa.ColumnElement[Any] = sa.literal_column(
        "['$', '$.conversations', '$.conversations[0]',"
        " '$.conversations[0].role', '$.conversations[0].content']"
    )
    typed = sa.select(lines, sa.func.json_type(lines.c.line, shape).label("types")).subquery()
    root, entries, first, role, content = (
        sa.func.list_extract(typed.c.types, at) for at in range(1, 6)
    )
    complete = sa.and_(role.is_not(None), content.is_not(None))
    found = sa.and_(entries == "ARRAY", sa.or_(first.is_(None), complete))
    found = sa.func.coalesce(found, sa.false())
    refused = sa.cast(sa.func.error("not a JSON object"), sa.Boolean)
    wanted = found if conversations else sa.not_(found)
    return (
        sa.select(typed.c.position, typed.c.line)
        .where(sa.case((root == "OBJECT", wanted), else_=refused))
        .subquery()
    )
