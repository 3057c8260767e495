"""Columns of JSON text, marked as Arrow's extension type `arrow.json`.

A reader that knows the type gives the values, as Hugging Face `datasets` does; for all others it is
a column of strings. The invariant: only a marked column is read as JSON.
"""

from __future__ import annotations

from typing import Final

import pyarrow as pa

__all__ = ["is_json", "json_field"]

_NAME: Final = "arrow.json"
_MARK: Final = {"ARROW:extension:name": _NAME, "ARROW:extension:metadata": ""}


def json_field(name: str) -> pa.Field:
    """Return a field of JSON text.

    The mark is metadata of the field, as the type itself is only in newer versions of pyarrow.
    """
    return pa.field(name, pa.string(), metadata=_MARK)


def is_json(field: pa.Field) -> bool:
    """Return whether a field has JSON text.

    >>> is_json(json_field("a")), is_json(pa.field("a", pa.string()))
    (True, False)
    """
    if getattr(field.type, "extension_name", None) == _NAME:
        return True
    return (field.metadata or {}).get(b"ARROW:extension:name") == _NAME.encode()
