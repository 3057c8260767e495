"""Which JSON objects are valid records, and of which model.

Every storage decides by these functions what it saves, imports and loads, so that all agree.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from typing import Any, TypeVar

from pydantic import BaseModel, TypeAdapter, ValidationError
from pydantic_core import from_json, to_json

from afterimage.storage import models
from afterimage.storage.errors import InvalidRecordError, shorten
from afterimage.storage.records.fast_json import exact_view
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

# JSON text with fewer brackets than this cannot be nested too deep for a reader.
_SHALLOW = 100

# Python, and the JSON readers used here, refuse integers with more digits.
MAX_DIGITS = 4300


@cache
def list_adapter(kind: RecordKind) -> TypeAdapter[list[Any]]:
    """The validator of a list of such records, for one call."""
    model: Any = kind.model
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


def as_declared(kind: RecordKind, record: dict[str, Any]) -> dict[str, Any]:
    """The declared fields of a JSON object as the model has them, defaults filled in.

    Raises:
        InvalidRecordError: the model refuses it.
    """
    if kind is DOCUMENTS and is_conversation(record):
        raise InvalidRecordError("not a document: it is a conversation")
    model = kind.model
    try:
        try:
            valid = model.model_validate(record)
        except ValidationError:  # as JSON, an integer too large for a float is infinite
            valid = model.model_validate_json(to_json(record))
    except ValidationError as error:
        raise InvalidRecordError(f"not a valid record of {kind.name}: {reason(error)}") from None
    view = exact_view(valid)
    assert view is not None
    return view


def readable(text: bytes) -> bytes:
    """`text`, if what reads JSON here can read it.

    Raises:
        ValueError: it is nested too deep, or has an integer of more than 4,300 digits.
    """
    if len(text) > MAX_DIGITS or text.count(b"{") + text.count(b"[") > _SHALLOW:
        # Metadata is read on its own and inside its record: the outer one is the deeper.
        from_json(b'{"":' + text + b"}")
    return text


def reason(error: Exception) -> str:
    """The first thing a validation found wrong, on one line."""
    if not isinstance(error, ValidationError):
        return shorten(error)
    first = error.errors(include_url=False, include_input=False, include_context=False)[0]
    where = ".".join(map(str, first["loc"]))
    more = f" (and {error.error_count() - 1} more)" if error.error_count() > 1 else ""
    return shorten(f"{where}: {first['msg']}{more}" if where else first["msg"])
