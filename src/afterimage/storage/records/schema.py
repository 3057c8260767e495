"""The Arrow schema and the SQL types of the declared fields; nothing is inferred from data.

Strings and lists have 64-bit offsets, so no amount of text in a batch overflows them.
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
    """The Arrow type of a declared type.

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
            return pa.struct([pa.field(name, arrow_type(of)) for name, of in fields.items()])
        case List(of):
            return pa.large_list(arrow_type(of))


def arrow_schema(fields: Mapping[str, FieldType]) -> pa.Schema:
    """The Arrow schema of declared fields, in their order; every field may be null."""
    return pa.schema(
        [pa.field(name, arrow_type(field_type)) for name, field_type in fields.items()]
    )


def projected_schema(columns: Iterable[FieldRef]) -> pa.Schema:
    """The Arrow schema of a projection: what lies inside JSON comes as text."""
    return pa.schema([pa.field(field.path, arrow_type(field.type)) for field in columns])


def sql_type(field_type: FieldType) -> str:
    """The DuckDB type of a declared type, as it stands in DDL.

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
            entries = (f'"{name}" {sql_type(of)}' for name, of in fields.items())
            return f"STRUCT({', '.join(entries)})"
        case List(of):
            return f"{sql_type(of)}[]"


def json_structure(field_type: FieldType) -> str:
    """The structure DuckDB's `json_transform` takes to read a value of a declared type.

    >>> json_structure(List(Struct({"role": Text()})))
    '[{"role":"VARCHAR"}]'
    """
    match field_type:
        case Struct(fields):
            entries = (f'"{name}":{json_structure(of)}' for name, of in fields.items())
            return "{" + ",".join(entries) + "}"
        case List(of):
            return f"[{json_structure(of)}]"
        case _:
            return f'"{sql_type(field_type)}"'
