"""Fast conversion of records of this package's own classes to plain dicts and lines of JSON.

The plain dicts share the field values with the models; nothing is copied. An object of a subclass
may have additional fields or its own serializer. It gets no plain dict here; `objects.py` dumps
it. Types are checked for many records at once: a check per message would cost more than writing
the message. The serializer raises an error for a value that does not have its declared type.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from functools import cache
from itertools import chain, islice
from operator import attrgetter, itemgetter
from typing import Any

from pydantic import BaseModel
from pydantic_core import CoreConfig, SchemaSerializer, core_schema

from afterimage.storage import models
from afterimage.storage.records.fields import (
    CONVERSATIONS,
    Double,
    FieldType,
    Json,
    List,
    RecordKind,
    Struct,
    Text,
)

__all__ = ["as_plain_dict", "as_plain_dicts", "is_shallow", "line_of", "lines_of", "uses_enums"]

_ENTRY = {models.ConversationEntry}
_PERSONA = {models.PersonaEntry}
_ROLE = {models.Role}
_fields_of: Callable[[Any], dict[str, Any]] = attrgetter("__dict__")


def _has_only_declared(model: type[BaseModel], struct: Struct) -> bool:
    # A newer `afterimage` may add fields to its classes. Those are stored as extra fields.
    return model.model_fields.keys() <= struct.fields.keys()


_CONVERSATIONS = {
    model
    for model in (
        models.EvaluatedConversationWithContext,
        models.ConversationWithContext,
        models.Conversation,
    )
    if _has_only_declared(model, CONVERSATIONS.record)
    and models.ConversationEntry.model_fields.keys() == {"role", "content", "reasoning_content"}
}


def as_plain_dict(model: BaseModel) -> dict[str, Any] | None:
    """Return the fields of a model; None unless all its objects are of this package's classes."""
    if type(model) is models.Document:
        plain = model.__dict__.copy()
        personas = plain.get("personas", ())
        if not {*map(type, personas)} <= _PERSONA:
            return None
        plain["personas"] = [*map(_fields_of, personas)]
        return plain
    plains = as_plain_dicts([model])
    return plains[0] if plains is not None else None


def as_plain_dicts(records: Sequence[Any]) -> list[dict[str, Any]] | None:
    """Return the fields of conversations; None unless all objects are of this package's classes."""
    if not {*map(type, records)} <= _CONVERSATIONS:
        return None
    plains = [record.__dict__.copy() for record in records]
    messages = [plain.get("conversations", ()) for plain in plains]
    entries = [*chain.from_iterable(messages)]
    if not {*map(type, entries)} <= _ENTRY:
        return None
    plain_entries = map(_fields_of, entries)
    for plain, own_messages in zip(plains, messages, strict=True):
        plain["conversations"] = [*islice(plain_entries, len(own_messages))]
        if plain.get("evaluation") is not None:
            evaluation = _plain_evaluation(plain["evaluation"])
            if evaluation is None:
                return None
            plain["evaluation"] = evaluation
    return plains


def _plain_evaluation(evaluation: Any) -> dict[str, Any] | None:
    if type(evaluation) is not models.EvaluationSchema:
        return None
    plain = evaluation.__dict__.copy()
    for name, entry in plain.items():
        if name != "overall_grade":
            if type(entry) is not models.EvaluationEntrySchema:
                return None
            plain[name] = entry.__dict__
    return plain


def uses_enums(plains: Iterable[dict[str, Any]]) -> bool:
    """Return whether all roles and grades are enum members. The serializer does not check them."""
    entries = chain.from_iterable([plain.get("conversations", ()) for plain in plains])
    if not {*map(type, map(itemgetter("role"), entries))} <= _ROLE:
        return False
    evaluations = [plain["evaluation"] for plain in plains if plain.get("evaluation") is not None]
    return all(type(each["overall_grade"]) is models.GradeSchema for each in evaluations)


_PLAIN = {str, float, bool, type(None)}
_INTEGER_LIMIT = 2**1000


def is_shallow(plains: Iterable[dict[str, Any]]) -> bool:
    """Return whether a quick check shows that every JSON parser can read the metadata.

    True if all values are scalars or lists of scalars and no integer has more than about 300
    digits.
    """
    owners = [*plains, *chain.from_iterable([plain.get("personas", ()) for plain in plains])]
    values = [*chain.from_iterable([owner["metadata"].values() for owner in owners])]
    types = {*map(type, values)}
    if list in types:
        types.remove(list)
        items = [*chain.from_iterable([value for value in values if type(value) is list])]
        types |= {*map(type, items)}
        values += items
    if int in types:
        types.remove(int)
        integers = [value for value in values if type(value) is int]
        if max(integers) > _INTEGER_LIMIT or min(integers) < -_INTEGER_LIMIT:
            return False
    return types <= _PLAIN


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

    The metadata must not contain nested objects. Returns None if the serializer's output cannot be
    split into records, for example because a record has its fields in another order.

    Raises:
        PydanticSerializationError: a value does not have the declared type, or cannot be written
            as JSON.

    >>> from afterimage.storage.records.fields import CONVERSATIONS
    >>> lines_of(CONVERSATIONS, [{"conversations": []}, {"conversations": []}])
    b'{"conversations":[]}\n{"conversations":[]}\n'
    """
    text = _list_serializer(kind).to_json(records, warnings="error")
    # `},` followed by the first field occurs only between two records: no object inside a record
    # begins with that field, a quotation mark within a string is escaped, and one that ends a
    # string is followed by a bracket, a comma or a colon.
    start = b'{"%s":' % next(iter(kind.record.fields)).encode()
    lines = text[1:-1].split(b"}," + start)
    if len(lines) != len(records) or not text.startswith(start, 1):
        return None
    return (b"}\n" + start).join(lines) + b"\n"


@cache
def _serializer(kind: RecordKind) -> SchemaSerializer:
    return SchemaSerializer(_schema(kind.record), _CONFIG)


@cache
def _list_serializer(kind: RecordKind) -> SchemaSerializer:
    return SchemaSerializer(core_schema.list_schema(_schema(kind.record)), _CONFIG)


_CONFIG = CoreConfig(ser_json_inf_nan="constants")


def _schema(field_type: FieldType) -> core_schema.CoreSchema:
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
                        else _schema(child_type)
                    )
                    for name, child_type in fields.items()
                },
                total=False,
            )
    raise AssertionError(f"no record has a field of type {field_type}")
