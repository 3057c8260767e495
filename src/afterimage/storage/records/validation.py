"""Decide which JSON objects are valid records, and of which model.

Every storage uses these functions for saves, imports and loads, so all storages agree.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from typing import Any, TypeVar

from pydantic import BaseModel, TypeAdapter, ValidationError
from pydantic_core import from_json, to_json

from afterimage.storage import models
from afterimage.storage.errors import InvalidRecordError, shorten
from afterimage.storage.records.fast_json import as_plain_dict
from afterimage.storage.records.fields import CONVERSATIONS, DOCUMENTS, RecordKind

__all__ = [
    "MAX_DIGITS",
    "as_declared",
    "check",
    "is_conversation",
    "list_adapter",
    "matching",
    "readable",
    "reason",
]

_Model = TypeVar("_Model", bound=BaseModel)

# JSON text with at most this many opening brackets cannot be nested too deep for a parser.
_SHALLOW = 100

# Python and the JSON parsers used here reject integers with more digits.
MAX_DIGITS = 4300


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
            # Validate JSON text: only there do strict models accept strings as dates.
            text = to_json(written)
            try:
                return model.model_validate_json(text, by_alias=False, by_name=True)
            except ValidationError:  # another program wrote the record by alias
                return model.model_validate_json(text, by_alias=True, by_name=True)
        except ValidationError:
            return None

    return match


def check(record: dict[str, Any], model: type[BaseModel]) -> dict[str, Any]:
    """Return `record`, dumped from a `model`, if it can be loaded again.

    Raises:
        InvalidRecordError: the record has the form of a conversation but is not a valid one, so
            `load_conversations` would fail on it; or `load_records(model)` could not read it.
    """
    if is_conversation(record):
        as_declared(CONVERSATIONS, record)
    elif not issubclass(model, models.Document) and matching(model)(record) is None:
        raise InvalidRecordError(
            f"a record of {model.__name__} would not be read back from its own JSON: "
            f"{shorten(record, 100)}"
        )
    return record


def as_declared(kind: RecordKind, record: dict[str, Any]) -> dict[str, Any]:
    """Return the declared fields of a JSON object, validated by the model, with defaults.

    Raises:
        InvalidRecordError: the object is not a valid record of `kind`.
    """
    if kind is DOCUMENTS and is_conversation(record):
        raise InvalidRecordError("not a document: it is a conversation")
    model = kind.model
    try:
        try:
            valid = model.model_validate(record)
        except ValidationError:  # in JSON text, an integer too large for a float becomes infinite
            valid = model.model_validate_json(to_json(record))
    except ValidationError as error:
        raise InvalidRecordError(f"not a valid record of {kind.name}: {reason(error)}") from None
    plain = as_plain_dict(valid)
    assert plain is not None
    return plain


def readable(text: bytes) -> bytes:
    """Return `text` if the JSON parsers used here can parse it.

    Raises:
        ValueError: it is nested too deep, or has an integer of more than 4,300 digits.
    """
    if len(text) > MAX_DIGITS or text.count(b"{") + text.count(b"[") > _SHALLOW:
        # Metadata is parsed alone and inside its record. Wrap it: that is the deeper nesting.
        from_json(b'{"":' + text + b"}")
    return text


def reason(error: Exception) -> str:
    """Return the first problem that a validation found, on one line."""
    if not isinstance(error, ValidationError):
        return shorten(error)
    first = error.errors(include_url=False, include_input=False, include_context=False)[0]
    where = ".".join(map(str, first["loc"]))
    more = f" (and {error.error_count() - 1} more)" if error.error_count() > 1 else ""
    return shorten(f"{where}: {first['msg']}{more}" if where else first["msg"])
