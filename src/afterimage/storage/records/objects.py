"""Convert a model to a JSON object or to a line of JSON.

The invariant: every line can be read back as the same record. Objects of this package's own classes
are converted by `fast_json.py`; pydantic dumps all others.
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
    as_plain_dict,
    as_plain_dicts,
    is_shallow,
    line_of,
    lines_of,
    uses_enums,
)
from afterimage.storage.records.fields import CONVERSATIONS, DOCUMENTS
from afterimage.storage.records.validation import check, readable

__all__ = ["exact_lines", "metadata_text", "to_line", "to_object"]


def to_object(model: Any) -> dict[str, Any]:
    """Return a model as a JSON object, including fields that subclasses add at any depth.

    Raises:
        InvalidRecordError: the model is not a pydantic model or cannot be written as JSON.
    """
    if not isinstance(model, BaseModel):
        raise InvalidRecordError(
            f"a record must be a pydantic model, not {type(model).__name__}: {shown(model, 60)}"
        )
    try:
        dumped = _dumped(model, "json")
        plain = _dumped(model, "python")
        text = readable(to_json(plain, fallback=str))
        if b"NaN" in text or b"Infinity" in text:  # mode="json" dumps them as None
            dumped = _with_non_finite(dumped, plain)
        to_json(dumped)
    except (PydanticSerializationError, ValueError, TypeError, AttributeError) as error:
        raise InvalidRecordError(
            f"{_name(model)} cannot be written as JSON: {shorten(error)}"
        ) from None
    if not isinstance(dumped, dict):
        raise InvalidRecordError(
            f"{_name(model)} is not a JSON object, so it cannot be stored as a record"
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


def metadata_text(metadata: Any) -> bytes:
    """Return metadata as JSON text. Models inside it are written by field name, not by alias."""
    return to_json(metadata, by_alias=False)


def to_line(model: Any, encoding: str = "utf-8") -> bytes:
    """Return a model as one line of JSON in `encoding`, without a line feed.

    Raises:
        InvalidRecordError: the model cannot be written as JSON, or could not be read back.
    """
    line = _fast_line(model)
    if line is None:
        line = to_json(check(to_object(model), type(model)))
    if encoding == "utf-8":
        return line
    return json.dumps(from_json(line)).encode(encoding)  # ASCII, which every encoding can write


def _fast_line(model: Any) -> bytes | None:
    """Return the line of a model of this package; None if the result would not be exact."""
    try:
        plain = as_plain_dict(model) if isinstance(model, BaseModel) else None
        if plain is None or not uses_enums([plain]):
            return None
        line = line_of(DOCUMENTS if type(model) is models.Document else CONVERSATIONS, plain)
        return line if is_shallow([plain]) else readable(line)
    except (PydanticSerializationError, ValueError, TypeError, AttributeError, KeyError):
        return None


def exact_lines(models_: Sequence[Any]) -> bytes | None:
    """Return conversations as lines of JSON; None if each must be converted by `to_line`."""
    try:
        plains = as_plain_dicts(models_)
        if plains is None or not (uses_enums(plains) and is_shallow(plains)):
            return None
        return lines_of(CONVERSATIONS, plains)
    except (PydanticSerializationError, ValueError, TypeError, AttributeError, KeyError):
        return None


def _name(model: BaseModel) -> str:
    return f"a record of {type(model).__name__}"
