"""The quick way from a record to its line of JSON: pydantic's serializer over declared fields.

It takes a record as plain dicts, where a model and its hundred parts would each be looked at as a
model. A value that is not of its declared type is refused, never written as it happens to be.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

from pydantic_core import CoreConfig, SchemaSerializer, core_schema

from afterimage.storage.records.fields import (
    Double,
    FieldType,
    Json,
    List,
    RecordTable,
    Struct,
    Text,
)

__all__ = ["line_of", "lines_of"]


def line_of(table: RecordTable, record: dict[str, object]) -> bytes:
    """The JSON of a record's declared fields, in the order in which it has them.

    Raises:
        PydanticSerializationError: a value is not of the declared type, or has no form in JSON.

    >>> from afterimage.storage.records.fields import DOCUMENTS
    >>> line_of(DOCUMENTS, {"id": "1", "text": None, "metadata": {"score": float("nan")}})
    b'{"id":"1","text":null,"metadata":{"score":NaN}}'
    """
    return _serializer(table).to_json(record, warnings="error")


def lines_of(table: RecordTable, records: Sequence[dict[str, object]]) -> bytes | None:
    r"""The lines of many records, each with its line feed, in one call of the serializer.

    Metadata must hold no objects of its own. None where the records cannot be told apart in what
    the serializer gives, as where one has its fields in another order.

    Raises:
        PydanticSerializationError: as `line_of`.

    >>> from afterimage.storage.records.fields import CONVERSATIONS
    >>> lines_of(CONVERSATIONS, [{"conversations": []}, {"conversations": []}])
    b'{"conversations":[]}\n{"conversations":[]}\n'
    """
    text = _list_serializer(table).to_json(records, warnings="error")
    # Only the records themselves have this between them: no object inside one begins with that
    # field, and in a string a quotation mark that ends it is followed by a bracket or a comma.
    start = b'{"%s":' % next(iter(table.record.fields)).encode()
    lines = text[1:-1].split(b"}," + start)
    if len(lines) != len(records) or not text.startswith(start, 1):
        return None
    return (b"}\n" + start).join(lines) + b"\n"


@cache
def _serializer(table: RecordTable) -> SchemaSerializer:
    return SchemaSerializer(_schema(table.record), _CONFIG)


@cache
def _list_serializer(table: RecordTable) -> SchemaSerializer:
    return SchemaSerializer(core_schema.list_schema(_schema(table.record)), _CONFIG)


_CONFIG = CoreConfig(ser_json_inf_nan="constants")


def _schema(kind: FieldType) -> core_schema.CoreSchema:
    match kind:
        case Text():
            return core_schema.str_schema()
        case Double():
            return core_schema.float_schema()
        case Json():
            return core_schema.any_schema()  # a dictionary's would replace surrogates in its keys
        case List(of):
            return core_schema.list_schema(_schema(of))
        case Struct(fields):
            return core_schema.typed_dict_schema(
                {
                    name: core_schema.typed_dict_field(
                        core_schema.nullable_schema(_schema(of))
                        if name in kind.nullable
                        else _schema(of)
                    )
                    for name, of in fields.items()
                },
                total=False,
            )
    raise AssertionError(f"no record has a field of type {kind}")
