"""A model as a JSON object and as a line of JSON.

The invariant: what is written here can be read back as the same record. Objects of our own classes
take a fast way (`fast_json.py`); all others are dumped by pydantic.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, Literal

from pydantic import BaseModel
from pydantic_core import PydanticSerializationError, from_json, to_json

from afterimage.storage import models
from afterimage.storage.errors import InvalidRecordError, shorten, shown
from afterimage.storage.records.fast_json import (
    exact_view,
    exact_views,
    is_shallow,
    line_of,
    lines_of,
    uses_enums,
)
from afterimage.storage.records.fields import CONVERSATIONS, DOCUMENTS
from afterimage.storage.records.validation import check, readable

__all__ = ["exact_lines", "metadata_text", "to_line", "to_object"]


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
        if view is None or not uses_enums([view]):
            return None
        line = line_of(DOCUMENTS if type(model) is models.Document else CONVERSATIONS, view)
        return line if is_shallow([view]) else readable(line)
    except (PydanticSerializationError, ValueError, TypeError, AttributeError, KeyError):
        return None


def exact_lines(models_: Sequence[Any]) -> bytes | None:
    """Conversations as lines of JSON in one step; None where `to_line` must look at each."""
    try:
        views = exact_views(models_)
        if views is None or not (uses_enums(views) and is_shallow(views)):
            return None
        return lines_of(CONVERSATIONS, views)
    except (PydanticSerializationError, ValueError, TypeError, AttributeError, KeyError):
        return None


def _name(model: BaseModel) -> str:
    return f"a record of {type(model).__name__}"
