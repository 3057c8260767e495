"""The Arrow schema and the SQL types of the declared fields. Nothing is inferred from data.

Strings and lists use 64-bit offsets. A batch can hold more than 2 GiB of text without overflow.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cache

import pyarrow as pa

from afterimage.storage.records.fields import (
    Double,
    FieldType,
    Integer,
    Json,
    List,
    Messages,
    Struct,
    Text,
    Timestamp,
)
from afterimage.storage.records.paths import FieldRef

__all__ = [
    "arrow_schema",
    "arrow_type",
    "json_structure",
    "projected_schema",
    "sql_type",
]


@cache
def arrow_type(field_type: FieldType) -> pa.DataType:
    """Return the Arrow type of a declared type.

    >>> arrow_type(List(Struct({"role": Text()})))
    LargeListType(large_list<item: struct<role: large_string>>)
    """
    match field_type:
        case Text() | Json():
            return pa.large_string()
        case Double():
            return pa.float64()
        case Integer():
            return pa.int64()
        case Timestamp():
            return pa.timestamp("us")
        case Struct(fields):
            return pa.struct([pa.field(name, arrow_type(child)) for name, child in fields.items()])
        case List(item_type):
            return pa.large_list(arrow_type(item_type))
        case Messages():
            raise _no_column()


def arrow_schema(fields: Mapping[str, FieldType]) -> pa.Schema:
    """Return the Arrow schema of declared fields, in their order; all fields are nullable."""
    return pa.schema(
        [pa.field(name, arrow_type(field_type)) for name, field_type in fields.items()]
    )


def projected_schema(columns: Iterable[FieldRef]) -> pa.Schema:
    """Return the Arrow schema of a projection; values inside JSON are returned as JSON text."""
    return pa.schema([pa.field(field.path, arrow_type(field.type)) for field in columns])


def sql_type(field_type: FieldType) -> str:
    """Return the DuckDB type of a declared type, as written in DDL.

    >>> sql_type(List(Struct({"role": Text()})))
    'STRUCT("role" VARCHAR)[]'
    """
    match field_type:
        case Text():
            return "VARCHAR"
        case Json():
            return "JSON"
        case Double():
            return "DOUBLE"
        case Integer():
            return "BIGINT"
        case Timestamp():
            return "TIMESTAMP"
        case Struct(fields):
            entries = (f'"{name}" {sql_type(child)}' for name, child in fields.items())
            return f"STRUCT({', '.join(entries)})"
        case List(item_type):
            return f"{sql_type(item_type)}[]"
        case Messages():
            raise _no_column()


def _no_column() -> AssertionError:
    return AssertionError("fields of messages are only for conditions")


def json_structure(field_type: FieldType) -> str:
    """Return the structure argument of DuckDB's `json_transform` for a declared type.

    >>> json_structure(List(Struct({"role": Text()})))
    '[{"role":"VARCHAR"}]'
    """
    match field_type:
        case Struct(fields):
            entries = (f'"{name}":{json_structure(child)}' for name, child in fields.items())
            return "{" + ",".join(entries) + "}"
        case List(item_type):
            return f"[{json_structure(item_type)}]"
        case _:
            return f'"{sql_type(field_type)}"'
