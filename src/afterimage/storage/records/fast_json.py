"""The fast way from records of our own classes to plain dicts and lines of JSON.

Views are the fields of a record as plain dicts, without a copy of what is in them. An object of a
subclass can have fields of its own, or serialise its fields in its own way: it has no view, and
`objects.py` dumps it. Types are checked for many records at once, as a check for each of a million
messages would cost more than writing them. A value that is not of its declared type is refused.
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

__all__ = ["exact_view", "exact_views", "is_shallow", "line_of", "lines_of", "uses_enums"]

_ENTRY = {models.ConversationEntry}
_PERSONA = {models.PersonaEntry}
_ROLE = {models.Role}
_fields_of: Callable[[Any], dict[str, Any]] = attrgetter("__dict__")


def _has_only_declared(model: type[BaseModel], struct: Struct) -> bool:
    # A newer `afterimage` may add fields to its classes: those are then kept as extras.
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


def exact_view(model: BaseModel) -> dict[str, Any] | None:
    """The fields of a model; None unless all its objects are of our classes."""
    if type(model) is models.Document:
        view = model.__dict__.copy()
        personas = view.get("personas", ())
        if not {*map(type, personas)} <= _PERSONA:
            return None
        view["personas"] = [*map(_fields_of, personas)]
        return view
    views = exact_views([model])
    return views[0] if views is not None else None


def exact_views(records: Sequence[Any]) -> list[dict[str, Any]] | None:
    """The fields of conversations; None unless all their objects are of our classes."""
    if not {*map(type, records)} <= _CONVERSATIONS:
        return None
    views = [record.__dict__.copy() for record in records]
    talks = [view.get("conversations", ()) for view in views]
    entries = [*chain.from_iterable(talks)]
    if not {*map(type, entries)} <= _ENTRY:
        return None
    parts = map(_fields_of, entries)
    for view, talk in zip(views, talks, strict=True):
        view["conversations"] = [*islice(parts, len(talk))]
        if view.get("evaluation") is not None:
            evaluation = _exact_evaluation(view["evaluation"])
            if evaluation is None:
                return None
            view["evaluation"] = evaluation
    return views


def _exact_evaluation(evaluation: Any) -> dict[str, Any] | None:
    if type(evaluation) is not models.EvaluationSchema:
        return None
    view = evaluation.__dict__.copy()
    for name, part in view.items():
        if name != "overall_grade":
            if type(part) is not models.EvaluationEntrySchema:
                return None
            view[name] = part.__dict__
    return view


def uses_enums(views: Iterable[dict[str, Any]]) -> bool:
    """Whether roles and grades, which the serializer takes as they come, are of their enums."""
    entries = chain.from_iterable([view.get("conversations", ()) for view in views])
    if not {*map(type, map(itemgetter("role"), entries))} <= _ROLE:
        return False
    evaluations = [view["evaluation"] for view in views if view.get("evaluation") is not None]
    return all(type(found["overall_grade"]) is models.GradeSchema for found in evaluations)


_PLAIN = {str, float, bool, type(None)}
_INTEGER_LIMIT = 2**1000


def is_shallow(views: Iterable[dict[str, Any]]) -> bool:
    """Whether it is soon seen that any reader of JSON can read their metadata.

    No value in it is nested more than once, and no integer has over some hundred digits.
    """
    parts = [*views, *chain.from_iterable([view.get("personas", ()) for view in views])]
    values = [*chain.from_iterable([part["metadata"].values() for part in parts])]
    kinds = {*map(type, values)}
    if list in kinds:
        kinds.remove(list)
        within = [*chain.from_iterable([value for value in values if type(value) is list])]
        kinds |= {*map(type, within)}
        values += within
    if int in kinds:
        kinds.remove(int)
        whole = [value for value in values if type(value) is int]
        if max(whole) > _INTEGER_LIMIT or min(whole) < -_INTEGER_LIMIT:
            return False
    return kinds <= _PLAIN


def line_of(kind: RecordKind, record: dict[str, object]) -> bytes:
    """The JSON of a record's declared fields, in the order in which it has them.

    Raises:
        PydanticSerializationError: a value is not of the declared type, or has no form in JSON.

    >>> from afterimage.storage.records.fields import DOCUMENTS
    >>> line_of(DOCUMENTS, {"id": "1", "text": None, "metadata": {"score": float("nan")}})
    b'{"id":"1","text":null,"metadata":{"score":NaN}}'
    """
    return _serializer(kind).to_json(record, warnings="error")


def lines_of(kind: RecordKind, records: Sequence[dict[str, object]]) -> bytes | None:
    r"""The lines of many records, each with its line feed, in one call of the serializer.

    Metadata must hold no objects of its own. None where the records cannot be told apart in what
    the serializer gives, as where one has its fields in another order.

    Raises:
        PydanticSerializationError: as `line_of`.

    >>> from afterimage.storage.records.fields import CONVERSATIONS
    >>> lines_of(CONVERSATIONS, [{"conversations": []}, {"conversations": []}])
    b'{"conversations":[]}\n{"conversations":[]}\n'
    """
    text = _list_serializer(kind).to_json(records, warnings="error")
    # Only the records themselves have this between them: no object inside one begins with that
    # field, and in a string a quotation mark that ends it is followed by a bracket or a comma.
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
            return core_schema.any_schema()  # a dictionary's would replace surrogates in its keys
        case List(of):
            return core_schema.list_schema(_schema(of))
        case Struct(fields):
            return core_schema.typed_dict_schema(
                {
                    name: core_schema.typed_dict_field(
                        core_schema.nullable_schema(_schema(of))
                        if name in field_type.nullable
                        else _schema(of)
                    )
                    for name, of in fields.items()
                },
                total=False,
            )
    raise AssertionError(f"no record has a field of type {field_type}")
