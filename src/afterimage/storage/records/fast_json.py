"""Fast conversion of plain dicts, as of `plain.py`, to lines of JSON."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from types import MappingProxyType

from pydantic_core import CoreConfig, SchemaSerializer, core_schema

from afterimage.storage.records.fields import (
    Double,
    FieldType,
    Json,
    List,
    RecordKind,
    Struct,
    Text,
)

__all__ = ["line_of", "lines_of"]


def line_of(kind: RecordKind, record: dict[str, object]) -> bytes:
    """Return a record's declared fields as JSON, in the order of the dict.

    Raises:
        PydanticSerializationError: a value does not have the declared type, or cannot be written
            as JSON.

    >>> from afterimage.storage.records.fields import DOCUMENTS
    >>> line_of(DOCUMENTS, {"id": "1", "text": None, "metadata": {"score": float("nan")}})
    b'{"id":"1","text":null,"metadata":{"score":NaN}}'
    """
    return _serializer(kind).to_json(record, warnings="error")


def lines_of(kind: RecordKind, records: Sequence[dict[str, object]]) -> bytes | None:
    r"""Return the lines of many records, each with its line feed, from one serializer call.

    Returns None if the serializer's output cannot be split into records, for example because a
    record has its fields in another order.

    Raises:
        PydanticSerializationError: a value does not have the declared type, or cannot be written
            as JSON.

    >>> from afterimage.storage.records.fields import CONVERSATIONS
    >>> lines_of(CONVERSATIONS, [{"conversations": []}, {"conversations": []}])
    b'{"conversations":[]}\n{"conversations":[]}\n'
    """
    first = next(iter(kind.record.fields))
    if {*map(next, map(iter, records))} != {first}:
        return None
    text = _list_serializer(kind).to_json(records, warnings="error", by_alias=True)
    # The serializer writes an alias for the first field. A quotation mark within a string is
    # escaped, so `},{` and the alias as a key occur only between two records. If metadata has such
    # a key, there are too many of them.
    start = b'{"%s":' % first.encode()
    between = b"}\n" + start
    lines = text.replace(_BETWEEN, between)
    if len(text) - len(lines) != (len(records) - 1) * (len(_BETWEEN) - len(between)):
        return None
    return b"".join([start, memoryview(lines)[len(_START) + 1 : -1], b"\n"])


# A long alias of a byte that is rare in texts: a search for it skips over most of the text.
_ALIAS = "\x7f" * 64
_START = b'{"%s":' % _ALIAS.encode()
_BETWEEN = b"}," + _START


@cache
def _serializer(kind: RecordKind) -> SchemaSerializer:
    return SchemaSerializer(_schema(kind.record), _CONFIG)


@cache
def _list_serializer(kind: RecordKind) -> SchemaSerializer:
    first = next(iter(kind.record.fields))
    schema = _schema(kind.record, {first: _ALIAS})
    return SchemaSerializer(core_schema.list_schema(schema), _CONFIG)


_CONFIG = CoreConfig(ser_json_inf_nan="constants")


def _schema(
    field_type: FieldType, aliases: Mapping[str, str] = MappingProxyType({})
) -> core_schema.CoreSchema:
    match field_type:
        case Text():
            return core_schema.str_schema()
        case Double():
            return core_schema.float_schema()
        case Json():
            return core_schema.any_schema()  # dict_schema would replace surrogates in keys
        case List(item_type):
            return core_schema.list_schema(_schema(item_type))
        case Struct(fields):
            return core_schema.typed_dict_schema(
                {
                    name: core_schema.typed_dict_field(
                        core_schema.nullable_schema(_schema(child_type))
                        if name in field_type.nullable
                        else _schema(child_type),
                        serialization_alias=aliases.get(name),
                    )
                    for name, child_type in fields.items()
                },
                total=False,
            )
    raise AssertionError(f"no record has a field of type {field_type}")
