"""Decide which JSON objects are valid records, and of which model.

Every storage uses these functions for saves, imports and loads, so all storages agree.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from typing import Any, TypeVar

from pydantic import BaseModel, TypeAdapter, ValidationError
from pydantic_core import from_json, to_json

from afterimage.storage.errors import InvalidRecordError, shorten, shown
from afterimage.storage.records.chat import declared_chat, is_chat
from afterimage.storage.records.fields import CONVERSATIONS, DOCUMENTS, RecordKind
from afterimage.storage.records.plain import as_plain_dict

__all__ = [
    "MAX_DIGITS",
    "MAX_NESTING",
    "as_declared",
    "check_nesting",
    "is_conversation",
    "list_adapter",
    "matching",
    "parsed",
    "readable",
    "reading",
    "reason",
]

_Model = TypeVar("_Model", bound=BaseModel)

# JSON text with at most this many opening brackets cannot be nested too deep for a parser.
_SHALLOW = 100

# Python and the JSON parsers used here reject integers with more digits.
MAX_DIGITS = 4300

# Levels of objects and arrays that the parser used here accepts, including the outermost.
_PARSED_NESTING = 200

# Levels that a saved or imported record may have. A table keeps the extra fields of messages in an
# object that has three levels more than the record.
MAX_NESTING = 196


@cache
def list_adapter(kind: RecordKind) -> TypeAdapter[list[Any]]:
    """Return a validator that validates a whole list of records in one call."""
    model: Any = kind.model
    return TypeAdapter(list[model])


def is_conversation(record: Mapping[str, Any]) -> bool:
    """Return whether a JSON object is a conversation. Every storage uses this rule.

    A conversation has an array `conversations` whose first element, if any, is an object with
    `role` and `content`. Every other object is a record of another model.
    """
    entries = record.get("conversations")
    if not isinstance(entries, list):
        return False
    return not entries or (
        isinstance(entries[0], dict) and entries[0].keys() >= {"role", "content"}
    )


@cache
def matching(model: type[_Model]) -> Callable[[dict[str, Any]], _Model | None]:
    """Return a function that converts a JSON object to a `model`, or returns None.

    An object matches `model` if it validates and all its keys are fields of the model (or the
    model allows extra fields). This rule lets records of several models share a storage.
    """
    known = _known_keys(model)
    read: Callable[[dict[str, Any]], _Model] = reading(model)

    def match(record: dict[str, Any]) -> _Model | None:
        if known is not None and not record.keys() <= known:
            return None
        try:
            return read(record)
        except ValueError:
            return None

    return match


@cache
def reading(model: type[_Model]) -> Callable[[dict[str, Any]], _Model]:
    """Return the function of `matching` that raises ValueError instead of returning None."""
    computed = set(model.model_computed_fields)
    known = _known_keys(model)

    def read(record: dict[str, Any]) -> _Model:
        if known is not None and not record.keys() <= known:
            unknown = next(name for name in record if name not in known)
            raise InvalidRecordError(f"{shown(unknown, 60)} is not a field of {model.__name__}")
        written = {name: value for name, value in record.items() if name not in computed}
        # Validate JSON text: only there do strict models accept strings as dates.
        text = to_json(written)
        try:
            return model.model_validate_json(text, by_alias=False, by_name=True)
        except ValidationError as error:
            try:  # another program wrote the record by alias
                return model.model_validate_json(text, by_alias=True, by_name=True)
            except ValidationError:
                raise error from None

    return read


def _known_keys(model: type[BaseModel]) -> set[str] | None:
    """Return the keys that an object of a model may have; None if it may have any."""
    if model.model_config.get("extra") == "allow":
        return None
    aliases = {
        alias
        for field in model.model_fields.values()
        for alias in (field.validation_alias, field.serialization_alias)
        if isinstance(alias, str)
    }
    return aliases | {*model.model_fields} | {*model.model_computed_fields}


def as_declared(kind: RecordKind, record: dict[str, Any]) -> dict[str, Any]:
    """Return the declared fields of a JSON object, validated by the model, with defaults.

    Raises:
        InvalidRecordError: the object is not a valid record of `kind`.
    """
    if kind is DOCUMENTS and is_conversation(record):
        raise InvalidRecordError("not a document: it is a conversation")
    model = kind.model
    error: ValidationError | None = None
    if kind is CONVERSATIONS and is_chat(record):
        try:
            return declared_chat(record)
        except ValidationError as invalid:  # a field `tools` of the caller's own may be a text
            error = invalid
    try:
        try:
            valid = model.model_validate(record)
        except ValidationError:  # in JSON text, an integer too large for a float becomes infinite
            valid = model.model_validate_json(to_json(record))
    except ValidationError as invalid:
        fault = reason(error or invalid)
        raise InvalidRecordError(f"not a valid record of {kind.name}: {fault}") from None
    return as_plain_dict(valid)


def readable(text: bytes, depth: int = 0) -> bytes:
    """Return JSON text of a record, or of a value in it, if every parser used here can parse it.

    Args:
        text: the text.
        depth: number of objects and arrays of the record around the value.

    Raises:
        ValueError: the record is nested deeper than `MAX_NESTING`, or has an integer of more than
            4,300 digits.
    """
    if len(text) > MAX_DIGITS or text.count(b"{") + text.count(b"[") > _SHALLOW:
        parsed(text, depth)
    return text


def check_nesting(record: dict[str, Any], source: bytes) -> None:
    """Check that the record of a row can be parsed by every parser used here.

    Args:
        record: the record.
        source: the text of the row, which has an opening bracket for each level of the record but
            for a few.

    Raises:
        ValueError: the record is nested deeper than `MAX_NESTING`.
    """
    if source.count(b"{") + source.count(b"[") > _SHALLOW:
        readable(to_json(record, inf_nan_mode="constants"))


def parsed(text: bytes, depth: int = 0) -> Any:
    """Return the value of JSON text; see `readable`."""
    levels = _PARSED_NESTING - MAX_NESTING + depth
    value = from_json(b"[" * levels + text + b"]" * levels)
    for _ in range(levels):
        [value] = value
    return value


def reason(error: Exception) -> str:
    """Return the first problem that a validation found, on one line."""
    if not isinstance(error, ValidationError):
        return shorten(error)
    first = error.errors(include_url=False, include_input=False, include_context=False)[0]
    where = ".".join(map(str, first["loc"]))
    more = f" (and {error.error_count() - 1} more)" if error.error_count() > 1 else ""
    return shorten(f"{where}: {first['msg']}{more}" if where else first["msg"])
