"""Compare a model with the model that is read back from its JSON.

The invariant: `difference` is None only if the second model holds the values of the first. Fields
of a declared type must be equal. Values without a declared type, such as those in metadata, must
have the same JSON: there, a date is stored as text.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import chain
from typing import Any, TypeVar, get_args

from pydantic import BaseModel
from pydantic_core import to_json

__all__ = ["difference", "iterator_in", "unwritable"]

# Annotations whose values can have any type.
_FREE = (Any, object, dict, list, tuple, set, frozenset)

# Levels of a record that the search for iterators goes into; deeper records are rejected.
_LEVELS = 200

# Steps into a record that the search for a value goes: `conversations.3.tool.arguments.unit`.
_STEPS = 5


def difference(saved: BaseModel, read: BaseModel, where: str = "") -> str | None:
    """Return the path of the first value of `saved` that `read` does not hold; None if all agree.

    `saved` is a `type(read)`, with or without further fields of its own.
    """
    cls, values = type(saved), saved.__dict__
    for name in values:
        # A cached property is stored with the fields, but its class has an attribute of its name.
        if name not in cls.model_fields and not hasattr(cls, name):
            return where + name
    for name, field in type(read).model_fields.items():
        if field.exclude:
            continue
        if name not in values:
            return where + name
        other = read.__dict__[name]
        if _is_free(field.annotation) and _json(values[name]) == _json(other):
            continue
        if (found := _value_difference(values[name], other, where + name)) is not None:
            return found
    extra, other_extra = saved.__pydantic_extra__ or {}, read.__pydantic_extra__ or {}
    for name, value in extra.items():
        if name not in other_extra or _json(value) != _json(other_extra[name]):
            return where + name
    return None


def _value_difference(saved: Any, read: Any, where: str) -> str | None:
    if isinstance(read, BaseModel) and isinstance(saved, type(read)):
        return difference(saved, read, f"{where}.")
    if isinstance(read, list | tuple) and isinstance(saved, type(read)) and len(saved) == len(read):
        pairs: Iterator[tuple[Any, Any, Any]] = (
            (index, *pair) for index, pair in enumerate(zip(saved, read, strict=True))
        )
    elif isinstance(read, dict) and isinstance(saved, dict) and saved.keys() == read.keys():
        pairs = ((key, value, read[key]) for key, value in saved.items())
    else:
        # A serializer of the user's own may write another value of the same type.
        return None if type(saved) is type(read) or _equal(saved, read) else where
    found = (_value_difference(value, other, f"{where}.{key}") for key, value, other in pairs)
    return next((path for path in found if path is not None), None)


def _equal(saved: Any, read: Any) -> bool:
    try:
        return bool(saved == read) or (saved != saved and read != read)  # NaN differs from itself
    except Exception:  # noqa: BLE001  any; comparisons of arrays are ambiguous
        return False


def _is_free(annotation: Any) -> bool:
    if isinstance(annotation, TypeVar) or any(annotation is free for free in _FREE):
        return True
    return any(map(_is_free, get_args(annotation)))


def _json(value: Any) -> bytes | None:
    try:
        return to_json(value, by_alias=False, inf_nan_mode="constants")
    except ValueError:
        return None


def unwritable(value: Any, steps: int = _STEPS) -> list[str]:
    """Return the path to a value inside `value` that cannot be written as JSON; [] if unknown."""
    if isinstance(value, BaseModel):
        inner: Any = {**value.__dict__, **(value.__pydantic_extra__ or {})}.items()
    elif isinstance(value, dict):
        inner = value.items()
    elif isinstance(value, list | tuple):
        inner = enumerate(value)
    else:
        return []
    for key, child in inner if steps else ():
        if _json(child) is None:
            return [str(key), *unwritable(child, steps - 1)]
    return []


def iterator_in(value: Any, levels: int = _LEVELS) -> str | None:
    """Return the path of the first iterator inside a value; None if there is none.

    >>> iterator_in({"a": [1, iter([2])]})
    'a.1'
    """
    items: Iterable[tuple[Any, Any]]
    if isinstance(value, BaseModel):
        items = chain(value.__dict__.items(), (value.__pydantic_extra__ or {}).items())
    elif isinstance(value, dict):
        items = value.items()
    elif isinstance(value, list | tuple):
        items = enumerate(value)
    else:
        return "" if isinstance(value, Iterator) else None
    for step, inner in items if levels else ():
        if isinstance(inner, str | int | float | None):
            continue
        if (found := iterator_in(inner, levels - 1)) is not None:
            return f"{step}.{found}".rstrip(".")
    return None
