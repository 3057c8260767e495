"""Columns of JSON text, marked as Arrow's extension type `arrow.json`.

A reader that knows the type gives the values, as Hugging Face `datasets` does; for all others it is
a column of strings. The invariant: only a marked column is read as JSON.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import pyarrow as pa
from pydantic_core import from_json

__all__ = ["json_field", "json_reader"]

_NAME: Final = "arrow.json"
_MARK: Final = {"ARROW:extension:name": _NAME, "ARROW:extension:metadata": ""}

Reader = Callable[[Any], Any]


def json_field(name: str) -> pa.Field:
    """Return a field of JSON text.

    The mark is metadata of the field, as the type itself is only in newer versions of pyarrow.
    """
    return pa.field(name, pa.string(), metadata=_MARK)


def json_reader(field: pa.Field) -> Reader | None:
    """Return a function that parses the JSON in a value of a field; None if it has none.

    >>> read = json_reader(pa.field("tags", pa.list_(json_field("item"))))
    >>> read(['{"a":1}', None])
    [{'a': 1}, None]
    >>> json_reader(pa.field("tags", pa.list_(pa.string()))) is None
    True
    """
    kind = field.type
    if _is_json(field):
        return lambda value: value if value is None else from_json(value)
    if pa.types.is_struct(kind):
        readers = {child.name: read for child in kind if (read := json_reader(child))}
        return (lambda value: value and _read_object(value, readers)) if readers else None
    is_list = pa.types.is_list(kind) or pa.types.is_large_list(kind)
    if is_list and (read := json_reader(kind.value_field)):
        return lambda value: value and [*map(read, value)]
    return None


def _read_object(value: dict[str, Any], readers: dict[str, Reader]) -> dict[str, Any]:
    return {
        **value,
        **{name: read(value[name]) for name, read in readers.items() if name in value},
    }


def _is_json(field: pa.Field) -> bool:
    if getattr(field.type, "extension_name", None) == _NAME:
        return True
    return (field.metadata or {}).get(b"ARROW:extension:name") == _NAME.encode()
