"""Relations: the records of one kind, and their fields, for an SQL statement.

A table and a stream of JSON lines are relations with the same columns, so the same statements work
for both. Each column of a lines relation is an expression over the line. DuckDB evaluates it only
if the statement uses it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any, Final, NamedTuple, Protocol

import sqlalchemy as sa

from afterimage.storage.arrow.schema import json_structure
from afterimage.storage.engine.dialect import SqlType, any_item
from afterimage.storage.query.computed import (
    canonical,
    computed_value,
    other_keys_of_messages,
)
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
    List,
    RecordKind,
    Struct,
    Text,
    Timestamp,
)
from afterimage.storage.records.paths import FieldRef

__all__ = [
    "SUSPECT",
    "RecordSource",
    "Relation",
    "Source",
    "TableSource",
    "Values",
    "lines_relation",
]

_NO_COLUMNS: Final[Mapping[str, tuple[str, str]]] = MappingProxyType({})


class Values(Protocol):
    """The SQL expressions for the fields of a record, or of a message."""

    def value(self, field: FieldRef) -> sa.ColumnElement[Any]:
        """Return a field of a declared type other than JSON, as an expression of that type."""

    def json(self, field: FieldRef) -> JsonValue:
        """Return a field as a JSON value: the metadata, or a value inside it."""


class Source(Values, Protocol):
    """The SQL expressions for the fields of a record."""

    def any_message(
        self,
        fields: Iterable[FieldRef],
        condition: Callable[[Values], sa.ColumnElement[bool]],
    ) -> sa.ColumnElement[bool]:
        """Return whether a condition on fields of a message holds for one of the messages."""

    @property
    def sequence(self) -> sa.ColumnElement[int]:
        """The insertion sequence number, ascending."""

    @property
    def identity(self) -> sa.ColumnElement[str]:
        """The `content_hash`; for records of other models, a hash of the whole record."""

    @property
    def record_text(self) -> sa.ColumnElement[str]:
        """The whole record as a JSON array: its number, the declared fields, and `extra`.

        For a line of a file, the second item has all fields and the third one is false.
        """

    @property
    def is_plain(self) -> sa.ColumnElement[bool]:
        """Whether the declared fields are known to hold the messages without loss."""


class Relation(NamedTuple):
    """The records of one kind, for one statement that reads them once.

    Attributes:
        connection: executes the statement.
        table: the records.
        source: the fields of the records in `table`.
        query: the query to answer. It excludes the rows that are skipped as corrupt.
    """

    connection: sa.Connection
    table: sa.FromClause
    source: Source
    query: Query


class TableSource:
    """The fields of a relation that has the declared columns.

    Args:
        kind: the kind of the records.
        table: the relation.
        metadata_columns: names of the text and type columns of each metadata key that has its own
            columns.
        whole: the column with each record as JSON text, if there is one. Values inside JSON are
            extracted directly from it, so a line is parsed only once per value.
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

    @property
    def identity(self) -> sa.ColumnElement[str]:
        return self._computed("content_hash")

    @property
    def record_text(self) -> sa.ColumnElement[str]:
        if self._whole is not None:
            return _joined("[", self.sequence + 1, ",", self._whole, ",false]")
        declared = sa.func.struct_pack(
            *(
                sa.literal_column(f'"{name}"').op(":=")(self._columns[name])
                for name in self._kind.record.fields
            )
        )
        extra = sa.func.coalesce(self._columns["extra"], "null")
        return _joined("[", self.sequence, ",", sa.func.to_json(declared), ",", extra, "]")

    @property
    def is_plain(self) -> sa.ColumnElement[bool]:
        if self._whole is not None:
            return sa.false()
        extra = sa.cast(self._columns["extra"], sa.String)
        has_more = sa.or_(*(sa.func.contains(extra, f'"{name}"') for name in ("children", "tools")))
        return sa.not_(sa.func.coalesce(has_more, sa.false()))

    def value(self, field: FieldRef) -> sa.ColumnElement[Any]:
        if field.column in self._kind.computed:
            return self._computed(field.column)
        value: sa.ColumnElement[Any] = self._columns[field.column]
        for step in field.inner:  # declared names, so they need no escaping
            value = sa.func.struct_extract(value, sa.literal_column(f"'{step}'"))
        return value

    def _computed(self, name: str) -> sa.ColumnElement[Any]:
        columns = {name: self._columns.get(name) for name in ("text", "extra")}
        messages = self._columns.get("conversations")
        return computed_value(name, messages=messages, line=self._whole, **columns)

    def json(self, field: FieldRef) -> JsonValue:
        if not isinstance(field.type, Json):
            return JsonPath(sa.func.to_json(self.value(field)))
        is_declared = field.column in self._kind.record.fields
        if self._whole is not None and (field.keys or not is_declared):
            return JsonPath(self._whole, (field.column, *field.keys))
        if not is_declared:  # an extra field
            return JsonPath(self._columns["extra"], ("fields", field.column, *field.keys))
        in_metadata = JsonPath(self._columns[field.column], field.keys)
        own = self._metadata_columns.get(field.keys[0]) if len(field.keys) == 1 else None
        if field.column != "metadata" or own is None:
            return in_metadata
        text, kind = own
        return TypedText(self._columns[text], self._columns[kind], in_metadata)

    def any_message(
        self,
        fields: Iterable[FieldRef],
        condition: Callable[[Values], sa.ColumnElement[bool]],
    ) -> sa.ColumnElement[bool]:
        messages = self._columns["conversations"]
        if not any(field.keys for field in fields):
            return any_item(messages, "m", condition(_MessageValues("m")))
        # Pairs of a message and a JSON object with its other keys.
        if self._whole is None:
            others = other_keys_of_messages(self._columns["extra"], messages)
        else:
            others = sa.func.json_extract(self._whole, sa.literal_column("'$.conversations[*]'"))
        pairs = sa.func.list_zip(messages, others)
        return any_item(pairs, "m", condition(_MessageValues("m[1]", "m[2]")))


class _MessageValues:
    """The fields of a message.

    Args:
        declared: the name of the struct with the declared fields.
        others: the name of the JSON object with the other keys.
    """

    def __init__(self, declared: str, others: str = "NULL") -> None:
        self._declared = declared
        self._others = others

    def value(self, field: FieldRef) -> sa.ColumnElement[Any]:
        struct: sa.ColumnElement[Any] = sa.literal_column(self._declared)
        return sa.func.struct_extract(struct, sa.literal_column(f"'{field.inner[0]}'"))

    def json(self, field: FieldRef) -> JsonValue:
        return JsonPath(sa.literal_column(self._others), field.keys)


class RecordSource:
    """The fields of records of other models: each record is JSON text in one column."""

    def __init__(self, record: sa.ColumnElement[Any], sequence: sa.ColumnElement[int]) -> None:
        self._record = record
        self.sequence = sequence

    @property
    def identity(self) -> sa.ColumnElement[str]:
        return sa.func.md5(canonical(sa.cast(self._record, sa.String)))

    @property
    def record_text(self) -> sa.ColumnElement[str]:
        return _joined("[", self.sequence, ",", self._record, ",false]")

    @property
    def is_plain(self) -> sa.ColumnElement[bool]:
        return sa.false()

    def value(self, field: FieldRef) -> sa.ColumnElement[Any]:
        raise AssertionError(f"{field.path} has no declared type")

    def json(self, field: FieldRef) -> JsonValue:
        return JsonPath(self._record, (field.column, *field.keys))

    def any_message(
        self,
        fields: Iterable[FieldRef],
        condition: Callable[[Values], sa.ColumnElement[bool]],
    ) -> sa.ColumnElement[bool]:
        del fields, condition
        raise AssertionError("a record of another model has no messages")


def _joined(*parts: str | sa.ColumnElement[Any]) -> sa.ColumnElement[str]:
    return sa.func.concat(*parts)


SUSPECT: Final = "suspect"
"""The column that says whether a line may have a value that a load rejects."""


def lines_relation(
    kind: RecordKind,
    lines: sa.FromClause,
    names: Container[str] | None = None,
    checked: Sequence[FieldRef] = (),
) -> tuple[sa.FromClause, Source]:
    """Return the lines of one kind as a relation with the columns of a table of that kind.

    Args:
        kind: the kind of the records. Lines of other kinds are filtered out.
        lines: JSON lines in a column `line`, and their `position`, from 0.
        names: the fields that the statement uses; None for all. DuckDB evaluates no unused column,
            but it takes time to plan one.
        checked: the fields whose types the column `SUSPECT` is about; without any, the relation
            does not have it.

    Returns:
        The relation and its source. The relation has the column `line` instead of `extra`. A line
        that is not a JSON object makes the statement fail; `jsonl/backend.py` then locates it.
    """
    steps = _steps(kind, checked)
    rows = _typed_lines(kind, lines, list(steps))
    if kind is OTHERS:
        return rows, RecordSource(rows.c.line, rows.c.position)
    columns = [
        _column(rows.c.line, name, field_type, kind.record.defaults.get(name)).label(name)
        for name, field_type in kind.record.fields.items()
        if names is None or name in names
    ]
    position = rows.c.position.label(kind.sequence)
    if steps:
        first = 1 if kind is DOCUMENTS else len(_SHAPE) + 1
        suspicions = [*_suspicions(rows.c.types, first, steps), *_unknown(rows.c.line, checked)]
        columns.append(sa.func.coalesce(sa.or_(*suspicions), sa.false()).label(SUSPECT))
    relation = sa.select(position, rows.c.line, *columns).subquery()
    return relation, TableSource(kind, relation, whole=relation.c.line)


class _Step(NamedTuple):
    """A value on the way to a field: what a load accepts there.

    Attributes:
        types: names that DuckDB's json_type may return.
        parent: path of the object around the value.
        required: whether that object must have the value.
    """

    types: tuple[str, ...]
    parent: str
    required: bool


def _steps(kind: RecordKind, fields: Iterable[FieldRef]) -> dict[str, _Step]:
    """Return the path of each value on the way to the fields, and what is accepted there."""
    steps: dict[str, _Step] = {}
    for field in fields:
        struct, path = kind.record, "$"
        for name in (field.column, *field.inner):
            if name not in struct.fields:
                break
            field_type, parent = struct.fields[name], path
            path += f'."{name}"'
            types = _json_types(field_type) + (("NULL",) if name in struct.nullable else ())
            steps[path] = _Step(types, parent, name not in struct.defaults)
            if isinstance(field_type, Struct):
                struct = field_type
    return steps


def _json_types(field_type: FieldType) -> tuple[str, ...]:
    match field_type:
        case Text():
            return ("VARCHAR",)
        case Double():
            # Rarer types, such as booleans, are only suspect. DuckDB is slow for many alternatives.
            return ("DOUBLE", "UBIGINT", "BIGINT")
        case List():
            return ("ARRAY",)
        case _:
            return ("OBJECT",)


def _suspicions(
    types: sa.ColumnElement[Any], first: int, steps: Mapping[str, _Step]
) -> Iterator[sa.ColumnElement[bool]]:
    """Yield the conditions under which a load may reject a value.

    The items of `types` from the index `first` are the types of `steps`.
    """
    found = {path: sa.func.list_extract(types, at) for at, path in enumerate(steps, first)}
    for path, step in steps.items():
        yield found[path].not_in(step.types)
        if step.required:
            absent = found[path].is_(None)
            yield (
                sa.and_(absent, found[step.parent] == "OBJECT") if step.parent in found else absent
            )


def _column(
    line: sa.ColumnElement[Any], name: str, field_type: FieldType, default: Any
) -> sa.ColumnElement[Any]:
    """Return a declared field of a line as an expression of its SQL type."""
    value = JsonPath(line, (name,))
    match field_type:
        case Text():
            return value.text
        case Double() | Integer() | Timestamp():
            # A load validates with pydantic, which accepts true and false as numbers.
            number = sa.case(
                (value.text == "true", 1.0),
                (value.text == "false", 0.0),
                else_=sa.try_cast(value.text, sa.Double),
            )
            return _or_default(value, number, default, "DOUBLE")
        case Json():
            return _or_default(value, value.json, default, "JSON")
        case _:
            text = _or_default(value, value.json, default, "JSON")
            structure = sa.literal_column(f"'{json_structure(field_type)}'", sa.String)
            typed = sa.func.json_transform(text, structure)
            if name != "conversations":
                return typed
            # The engine would make the JSON of content parts the text of the message.
            has_parts = sa.func.contains(sa.cast(text, sa.String), '"content":[')
            return sa.case((has_parts, _with_texts(text)), else_=typed)


# The text of content parts, as of `records/chat.py`.
_TEXT_OF_PARTS: Final = """
    list_transform([list_filter(
        json_extract(m.content, '$[*].text'), lambda part: json_type(part) = 'VARCHAR'
    )], lambda texts: CASE WHEN len(texts) > 0 THEN
        array_to_string(list_transform(texts, lambda part: part ->> '$'), chr(10))
    END)[1]"""
_MESSAGES_WITH_PARTS: Final = '[{"role":"VARCHAR","content":"JSON","reasoning_content":"VARCHAR"}]'


def _with_texts(messages: sa.ColumnElement[Any]) -> sa.ColumnElement[Any]:
    """Return messages in JSON as structs, with the text of content parts as their content."""
    typed = sa.func.json_transform(messages, sa.literal_column(f"'{_MESSAGES_WITH_PARTS}'"))
    message = (
        "lambda m: struct_pack(role := m.role, content := CASE json_type(m.content) "
        f"WHEN 'ARRAY' THEN {_TEXT_OF_PARTS} ELSE m.content ->> '$' END, "
        "reasoning_content := m.reasoning_content)"
    )
    return sa.func.list_transform(typed, sa.literal_column(message))


def _or_default(
    field: JsonPath, value: sa.ColumnElement[Any], default: Any, sql_type: str
) -> sa.ColumnElement[Any]:
    """Return `value`, or the model's default if the line does not have the field."""
    if default is None:
        return value
    literal = sa.literal_column(f"'{json.dumps(default)}'", sa.String)
    return sa.case((field.json.is_(None), sa.cast(literal, SqlType(sql_type))), else_=value)


def _unknown(
    line: sa.ColumnElement[Any], fields: Iterable[FieldRef]
) -> Iterator[sa.ColumnElement[bool]]:
    """Yield for each field with choices the condition that its value is not one of them."""
    for field in fields:
        if isinstance(field.type, Text) and field.type.choices:
            yield JsonPath(line, (field.column, *field.inner)).text.not_in(field.type.choices)


_SHAPE: Final = (
    "$",
    "$.conversations",
    "$.conversations[0]",
    "$.conversations[0].role",
    "$.conversations[0].content",
)


def _typed_lines(kind: RecordKind, lines: sa.FromClause, paths: Sequence[str]) -> sa.FromClause:
    """Return the lines of one kind, as `validation.is_conversation` decides.

    The last items of their column `types` are the JSON types of the values at `paths`.
    """
    shape = () if kind is DOCUMENTS else _SHAPE
    if not (shape or paths):
        return lines
    every: sa.ColumnElement[Any] = sa.literal_column(f"{[*shape, *paths]}")
    # One json_type call for all paths parses each line only once.
    typed = sa.select(lines, sa.func.json_type(lines.c.line, every).label("types")).subquery()
    if not shape:
        return typed
    root, entries, first, role, content = (
        sa.func.list_extract(typed.c.types, index) for index in range(1, 6)
    )
    complete = sa.and_(role.is_not(None), content.is_not(None))
    is_conversation = sa.and_(entries == "ARRAY", sa.or_(first.is_(None), complete))
    is_conversation = sa.func.coalesce(is_conversation, sa.false())
    error = sa.cast(sa.func.error("not a JSON object"), sa.Boolean)
    matches = is_conversation if kind is CONVERSATIONS else sa.not_(is_conversation)
    return sa.select(typed).where(sa.case((root == "OBJECT", matches), else_=error)).subquery()
