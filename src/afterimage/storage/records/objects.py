"""A record as a JSON object: from a model, from a line, and back.

The invariant: an object is split into what the declared fields know and an overlay (`extra`) of
what they do not, and `restore(*split(object))` is the object again, but that an optional field
which a nested object lacked comes back with its default.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Any, Literal, TypeVar

from pydantic import BaseModel, TypeAdapter, ValidationError
from pydantic_core import PydanticSerializationError, from_json, to_json

from afterimage.storage import models
from afterimage.storage.errors import InvalidRecordError, shorten, shown
from afterimage.storage.records.fast_json import line_of, lines_of
from afterimage.storage.records.fields import CONVERSATIONS, DOCUMENTS, List, RecordTable, Struct
from afterimage.storage.records.views import exact_view, exact_views, has_members, is_shallow

__all__ = [
    "MAX_DIGITS",
    "as_declared",
    "check",
    "exact_lines",
    "is_conversation",
    "list_adapter",
    "matching",
    "member_of",
    "metadata_text",
    "model_of",
    "overlay",
    "readable",
    "reason",
    "restore",
    "to_line",
    "to_object",
]

_Model = TypeVar("_Model", bound=BaseModel)

_MODELS: dict[str, type[BaseModel]] = {
    CONVERSATIONS.kind: models.EvaluatedConversationWithContext,
    DOCUMENTS.kind: models.Document,
}

# JSON text with fewer brackets than this cannot be nested too deep for a reader.
_SHALLOW = 100

# What reads JSON here, and Python itself, takes no integer with more digits than this.
MAX_DIGITS = 4300


def model_of(table: RecordTable) -> type[BaseModel]:
    """The class that records of that table are loaded as."""
    return _MODELS[table.kind]


@cache
def member_of(choices: tuple[str, ...]) -> Mapping[str, Any]:
    """The enum members that a declared field's choices are the values of."""
    enum = next(
        e for e in (models.Role, models.GradeSchema) if choices == tuple(m.value for m in e)
    )
    return {member.value: member for member in enum}


@cache
def list_adapter(table: RecordTable) -> TypeAdapter[list[Any]]:
    """What validates a list of such records in one call."""
    model: Any = model_of(table)
    return TypeAdapter(list[model])


def is_conversation(record: Mapping[str, Any]) -> bool:
    """Whether a JSON object is a conversation: the one rule of every storage.

    It has an array `conversations` whose first element, if any, is an object with `role` and
    `content`. Anything else is some other model's record.
    """
    entries = record.get("conversations")
    if not isinstance(entries, list):
        return False
    return not entries or (
        isinstance(entries[0], dict) and entries[0].keys() >= {"role", "content"}
    )


def to_object(model: Any) -> dict[str, Any]:
    """A model as a JSON object, with the fields that subclasses add at any depth.

    Raises:
        InvalidRecordError: it has no form in JSON.
    """
    if not isinstance(model, BaseModel):
        raise InvalidRecordError(
            f"a record is a pydantic model, not {type(model).__name__}: {shown(model, 60)}"
        )
    try:
        dumped = _dumped(model, "json")
        plain = _dumped(model, "python")
        text = readable(to_json(plain, fallback=str))
        if b"NaN" in text or b"Infinity" in text:  # the JSON mode of a model makes them null
            dumped = _with_non_finite(dumped, plain)
        to_json(dumped)
    except (PydanticSerializationError, ValueError, TypeError, AttributeError) as error:
        raise InvalidRecordError(f"{_name(model)} has no form in JSON: {shorten(error)}") from None
    if not isinstance(dumped, dict):
        raise InvalidRecordError(f"{_name(model)} is no JSON object, so it cannot be a record")
    return dumped


def _dumped(model: BaseModel, mode: Literal["json", "python"]) -> Any:
    # By the names of fields, whatever the model says, as filters name them.
    return model.model_dump(mode=mode, serialize_as_any=True, warnings=False, by_alias=False)


def _with_non_finite(dumped: Any, plain: Any) -> Any:
    """`dumped` with the NaN and infinities that `plain` has where `dumped` has None."""
    if dumped is None and isinstance(plain, float):
        return plain
    if isinstance(dumped, dict) and isinstance(plain, dict) and len(dumped) == len(plain):
        pairs = zip(dumped.items(), plain.values(), strict=True)
        return {key: _with_non_finite(value, other) for (key, value), other in pairs}
    if isinstance(dumped, list) and isinstance(plain, list | tuple) and len(dumped) == len(plain):
        return [_with_non_finite(*pair) for pair in zip(dumped, plain, strict=True)]
    return dumped


def metadata_text(metadata: Any) -> bytes:
    """Metadata as JSON, models inside it by the names of their fields."""
    return to_json(metadata, by_alias=False)


def readable(text: bytes) -> bytes:
    """`text`, if what reads JSON here can read it.

    Raises:
        ValueError: it is nested too deep, or has an integer of more than 4,300 digits.
    """
    if len(text) > MAX_DIGITS or text.count(b"{") + text.count(b"[") > _SHALLOW:
        # Metadata is read on its own and inside its record: the outer one is the deeper.
        from_json(b'{"":' + text + b"}")
    return text


def to_line(model: Any, encoding: str = "utf-8") -> bytes:
    """A model as one line of JSON without its line feed, as `encoding` writes it.

    Raises:
        InvalidRecordError: it has no form in JSON, or could not be read back.
    """
    line = _exact_line(model)
    if line is None:
        line = to_json(check(to_object(model), type(model)))
    if encoding == "utf-8":
        return line
    return json.dumps(from_json(line)).encode(encoding)  # ASCII, so that any encoding has it


def _exact_line(model: Any) -> bytes | None:
    """The quick way for objects of our own classes; None where it would not be exact."""
    try:
        view = exact_view(model) if isinstance(model, BaseModel) else None
        if view is None or not has_members([view]):
            return None
        line = line_of(DOCUMENTS if type(model) is models.Document else CONVERSATIONS, view)
        return line if is_shallow([view]) else readable(line)
    except (PydanticSerializationError, ValueError, TypeError, AttributeError, KeyError):
        return None


def exact_lines(models_: Sequence[Any]) -> bytes | None:
    """Conversations as lines of JSON in one step; None where `to_line` must look at each."""
    try:
        views = exact_views(models_)
        if views is None or not (has_members(views) and is_shallow(views)):
            return None
        return lines_of(CONVERSATIONS, views)
    except (PydanticSerializationError, ValueError, TypeError, AttributeError, KeyError):
        return None


def check(record: dict[str, Any], model: type[BaseModel]) -> dict[str, Any]:
    """`record`, dumped from a `model`, if it can be loaded again.

    Raises:
        InvalidRecordError: it looks like a conversation and is none, so that storing it would make
            `load_conversations` fail; or `load_records(model)` could not read it.
    """
    if is_conversation(record):
        as_declared(CONVERSATIONS, record)
    elif not issubclass(model, models.Document) and matching(model)(record) is None:
        raise InvalidRecordError(
            f"a record of {model.__name__} would not be read back from its own JSON: "
            f"{shorten(record, 100)}"
        )
    return record


def as_declared(table: RecordTable, record: dict[str, Any]) -> dict[str, Any]:
    """The declared fields of a JSON object as the model has them, defaults filled in.

    Raises:
        InvalidRecordError: the model refuses it.
    """
    if table is DOCUMENTS and is_conversation(record):
        raise InvalidRecordError("not a document: it is a conversation")
    model = model_of(table)
    try:
        try:
            valid = model.model_validate(record)
        except ValidationError:  # as JSON, an integer too large for a float is infinite
            valid = model.model_validate_json(to_json(record))
    except ValidationError as error:
        raise InvalidRecordError(f"not a valid record of {table.kind}: {reason(error)}") from None
    view = exact_view(valid)
    assert view is not None
    return view


def reason(error: Exception) -> str:
    """The first thing a validation found wrong, on one line."""
    if not isinstance(error, ValidationError):
        return shorten(error)
    first = error.errors(include_url=False, include_input=False, include_context=False)[0]
    where = ".".join(map(str, first["loc"]))
    more = f" (and {error.error_count() - 1} more)" if error.error_count() > 1 else ""
    return shorten(f"{where}: {first['msg']}{more}" if where else first["msg"])


def overlay(struct: Struct, record: Mapping[str, Any], *, top: bool = True) -> dict[str, Any]:
    """What `struct` does not know of a JSON object; empty where it knows all.

    Returns:
        A node `{"absent": [names], "fields": {name: value}, "children": {name or index: node}}`,
        each part only where it is not empty. `absent` names declared fields that the object
        lacks, and stands at the top only.
    """
    absent = [name for name in struct.fields if name not in record] if top else []
    fields = {name: value for name, value in record.items() if name not in struct.fields}
    children: dict[str, Any] = {}
    for name, kind in struct.fields.items():
        value = record.get(name)
        if isinstance(kind, Struct) and isinstance(value, dict):
            children[name] = overlay(kind, value, top=False)
        elif isinstance(kind, List) and isinstance(kind.of, Struct) and isinstance(value, list):
            of = kind.of
            nodes = {
                str(at): overlay(of, item, top=False)
                for at, item in enumerate(value)
                if isinstance(item, dict)
            }
            children[name] = _node(children={at: node for at, node in nodes.items() if node})
    return _node(
        absent=absent, fields=fields, children={at: node for at, node in children.items() if node}
    )


def _node(**parts: Any) -> dict[str, Any]:
    return {name: part for name, part in parts.items() if part}


def restore(record: Any, node: Mapping[str, Any]) -> Any:
    """Put an overlay back into the declared fields of an object, in place."""
    for at, child in node.get("children", {}).items():
        restore(record[int(at)] if isinstance(record, list) else record[at], child)
    if isinstance(record, dict):
        for name in node.get("absent", ()):
            del record[name]
        record.update(node.get("fields", {}))
    return record


@cache
def matching(model: type[_Model]) -> Callable[[dict[str, Any]], _Model | None]:
    """A function that makes a `model` of a JSON object, or None where it is none.

    A record is one of `model` if all its keys are fields of it (or it allows others) and it
    validates; so records of several models in one store do not get in each other's way.
    """
    computed = set(model.model_computed_fields)
    known = set(model.model_fields) | computed
    known |= {
        alias
        for field in model.model_fields.values()
        for alias in (field.validation_alias, field.serialization_alias)
        if isinstance(alias, str)
    }
    open_ended = model.model_config.get("extra") == "allow"

    def match(record: dict[str, Any]) -> _Model | None:
        if not (open_ended or record.keys() <= known):
            return None
        written = {name: value for name, value in record.items() if name not in computed}
        try:
            # As JSON, so that strict models read back what JSON has no type for.
            text = to_json(written)
            try:
                return model.model_validate_json(text, by_alias=False, by_name=True)
            except ValidationError:  # written by others, by alias
                return model.model_validate_json(text, by_alias=True, by_name=True)
        except ValidationError:
            return None

    return match


def _name(model: BaseModel) -> str:
    return f"a record of {type(model).__name__}"
