"""Convert a model to the JSON object that a storage keeps, or to lines of JSON.

The invariant: the object is read back as the same record, in every storage. A record without such
an object is rejected here. Records of this package's own classes with exact values are converted by
`plain.py` and `fast_json.py`, many at a time; pydantic dumps all others.
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from operator import itemgetter
from typing import Any, Literal

from pydantic import BaseModel
from pydantic_core import PydanticSerializationError, from_json, to_json

from afterimage.storage.errors import InvalidRecordError, shorten, shown
from afterimage.storage.models import Conversation, Document
from afterimage.storage.records.chat import without_unset
from afterimage.storage.records.differences import difference, iterator_in, unwritable
from afterimage.storage.records.extras import overlay, restore
from afterimage.storage.records.fast_json import line_of, lines_of
from afterimage.storage.records.fields import CONVERSATIONS, DOCUMENTS, RecordKind
from afterimage.storage.records.plain import (
    MESSAGE_FIELDS,
    Plains,
    exact_dicts,
    is_plain_metadata,
)
from afterimage.storage.records.repeated_keys import repeated_key
from afterimage.storage.records.validation import (
    as_declared,
    is_conversation,
    parsed,
    readable,
    reading,
    reason,
)

__all__ = ["as_records", "exact_lines", "exact_records", "stored_object", "to_line"]


def as_records(kind: RecordKind, records: Any) -> list[BaseModel]:
    """Return the records of a save as a list.

    Raises:
        InvalidRecordError: the argument is not a list, or has a record for the other call.
    """
    if isinstance(records, BaseModel | str | Mapping) or not isinstance(records, Iterable):
        raise InvalidRecordError(
            f"records must be a list, not one {type(records).__name__}: give [record]"
        )
    found = list(records)
    other, call = (
        (Document, "save_documents")
        if kind is CONVERSATIONS
        else (Conversation, "save_conversations")
    )
    classes: set[type] = {*map(type, found)}
    if any(issubclass(cls, other) for cls in classes):
        index = next(index for index, record in enumerate(found) if isinstance(record, other))
        raise InvalidRecordError(
            f"record {index} of the batch is a {type(found[index]).__name__}: use {call}"
        )
    return found


def stored_object(kind: RecordKind, record: Any) -> dict[str, Any]:
    """Return the JSON object that a storage keeps for a record, with declared and other fields.

    Args:
        kind: the kind to save the record as; conversations include records of other models.
        record: the model.

    Raises:
        InvalidRecordError: the record cannot be written as JSON, or a load would return another
            value than the record has. The message names the field.
    """
    dumped = _dumped_object(record)
    model: type[BaseModel] = type(record)
    if kind is CONVERSATIONS and not (isinstance(record, Conversation) or is_conversation(dumped)):
        stored = dumped
    else:
        declared = as_declared(kind, dumped)
        if kind is DOCUMENTS:
            dumped.setdefault("id", declared["id"])
        extra = overlay(kind.record, dumped)
        stored = restore(declared, extra) if extra else declared
        if kind is DOCUMENTS and not isinstance(record, Document):
            return stored  # no load returns documents as another model
    try:
        read = reading(model)(stored)
    except ValueError as error:
        raise InvalidRecordError(
            f"{_name(record)} would not be read back from its own JSON: {reason(error)}"
        ) from None
    found = difference(record, read)
    if found is not None:
        raise InvalidRecordError(
            f"{_name(record)} would not be read back as it is: {_value_at(record, found)}"
        )
    return stored


def _dumped_object(model: Any) -> dict[str, Any]:
    if not isinstance(model, BaseModel):
        raise InvalidRecordError(
            f"a record must be a pydantic model, not {type(model).__name__}: {shown(model, 60)}"
        )
    if (where := iterator_in(model)) is not None:  # the first dump would use it up
        raise InvalidRecordError(
            f"{_name(model)} cannot be written as JSON{_at(where)}: an iterator can be read only "
            "once. Make it a list"
        )
    try:
        dumped = without_unset(model, _dumped(model, "json"))
        plain = without_unset(model, _dumped(model, "python"))
        text = readable(to_json(plain, fallback=str))
        if b"NaN" in text or b"Infinity" in text:  # mode="json" dumps them as None
            dumped = _with_non_finite(dumped, plain)
        to_json(dumped)
    except (PydanticSerializationError, ValueError, TypeError, AttributeError) as error:
        where = ".".join(unwritable(model))
        raise InvalidRecordError(
            f"{_name(model)} cannot be written as JSON{_at(where)}: {shorten(error)}"
        ) from None
    if not isinstance(dumped, dict):
        raise InvalidRecordError(
            f"{_name(model)} is not a JSON object, so it cannot be stored as a record"
        )
    if (key := repeated_key(text)) is not None:
        raise InvalidRecordError(
            f"{_name(model)} has several keys that JSON writes as {shown(key, 60)}; rename one"
        )
    return dumped


def _dumped(model: BaseModel, mode: Literal["json", "python"]) -> Any:
    # Never by alias, even if the model is configured to: filters use the names of fields.
    return model.model_dump(mode=mode, serialize_as_any=True, warnings=False, by_alias=False)


def _with_non_finite(dumped: Any, plain: Any) -> Any:
    """Return `dumped` with the NaN and infinities of `plain` where `dumped` has None."""
    if dumped is None and isinstance(plain, float):
        return plain
    if isinstance(dumped, dict) and isinstance(plain, dict) and len(dumped) == len(plain):
        pairs = zip(dumped.items(), plain.values(), strict=True)
        return {key: _with_non_finite(value, other) for (key, value), other in pairs}
    if isinstance(dumped, list) and isinstance(plain, list | tuple) and len(dumped) == len(plain):
        return [_with_non_finite(*pair) for pair in zip(dumped, plain, strict=True)]
    return dumped


def exact_records(records: Sequence[Any], checked: Iterable[str] = MESSAGE_FIELDS) -> Plains | None:
    """Return records of one kind as plain dicts; None if one of them needs `stored_object`.

    The values of the dicts have exactly the declared types, and are read back equal; see
    `exact_dicts` for `checked`.
    """
    plains = exact_dicts(records, checked)
    if plains is None:
        return None
    try:
        own, inner = plains.metadata()
        exact = is_plain_metadata([*own, *inner]) or _is_read_back(own, inner)
    except ValueError:  # some metadata cannot be written as JSON, or is nested too deep
        return None
    return plains if exact else None


def _is_read_back(own: list[dict[str, Any]], inner: list[dict[str, Any]]) -> bool:
    """Return whether all metadata equals what is read back from its own JSON."""
    if iterator_in([own, inner]) is not None:  # writing it would use it up
        return False
    # The list has the place of the record. A persona is two levels deeper.
    return all(
        parsed(to_json(values, inf_nan_mode="constants"), depth) == values
        for values, depth in ((own, 0), (inner, 2))
    )


def to_line(kind: RecordKind, record: Any, encoding: str = "utf-8") -> bytes:
    """Return a model as one line of JSON in `encoding`, without a line feed.

    Raises:
        InvalidRecordError: see `stored_object`.
    """
    line = _fast_line(kind, record)
    if line is None:
        line = to_json(stored_object(kind, record))
    if encoding == "utf-8":
        return line
    return json.dumps(from_json(line)).encode(encoding)  # ASCII, which every encoding can write


def _fast_line(kind: RecordKind, record: Any) -> bytes | None:
    """Return the line of a model of this package; None if it needs `stored_object`."""
    plains = exact_records([record])
    try:
        return None if plains is None else line_of(kind, plains.with_messages()[0])
    except ValueError:  # a string is not valid Unicode
        return None


def exact_lines(kind: RecordKind, records: Sequence[Any]) -> bytes | None:
    """Return records as lines of JSON; None if each must be converted by `to_line`."""
    plains = exact_records(records, checked=("role",))  # the serializer checks other values
    try:
        if plains is None or not _have_all_fields(plains.messages):
            return None
        return lines_of(kind, plains.with_messages())
    except (KeyError, ValueError):
        return None


def _have_all_fields(messages: Sequence[dict[str, Any]]) -> bool:
    """Return whether no content is None, which the serializer accepts for every type.

    Raises:
        KeyError: a message lacks a field, which the serializer accepts, too.
    """
    content = itemgetter("content")
    deque(map(itemgetter("reasoning_content"), messages), maxlen=0)  # the quickest loop
    # Most conversations have no empty content, and this is the quickest check for that.
    return all(map(content, messages)) or None not in [*map(content, messages)]


def _name(model: BaseModel) -> str:
    return f"a record of {type(model).__name__}"


def _at(path: str) -> str:
    return f" at {shorten(ascii(path)[1:-1], 80)}" if path else ""


def _value_at(record: Any, path: str) -> str:
    """Return the path and the value there, for an error message."""
    value = record
    for step in path.split("."):
        try:
            value = value.__dict__[step] if isinstance(value, BaseModel) else value[int(step)]
        except (KeyError, IndexError, TypeError, ValueError):
            return shorten(ascii(path)[1:-1], 80)
    return f"{shorten(ascii(path)[1:-1], 80)} is {shown(value, 60)} ({type(value).__name__})"
