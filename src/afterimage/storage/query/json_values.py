"""JSON values as SQL expressions: where a value of free metadata is compared or sorted by.

Two forms say the same things about a value. `JsonPath` extracts it from JSON text; `TypedText` is
a metadata field that has columns of its own (its text, and its type). Comparisons are written once,
in `predicates.py`, against what both have.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import sqlalchemy as sa

__all__ = ["JsonPath", "JsonValue", "TypedText", "json_path", "kind_of_type"]

# What DuckDB's json_type calls the types of JSON.
_KINDS = {
    "boolean": ("BOOLEAN",),
    "number": ("UBIGINT", "BIGINT", "HUGEINT", "UHUGEINT", "DOUBLE"),
    "string": ("VARCHAR",),
    "array": ("ARRAY",),
    "object": ("OBJECT",),
}


class JsonValue(Protocol):
    """One JSON value a row, or none; every expression is NULL where there is none."""

    @property
    def kind(self) -> sa.ColumnElement[str]:
        """'boolean', 'number', 'string', 'array' or 'object'; NULL for null and absent."""

    def is_a(self, kind: str) -> sa.ColumnElement[bool]:
        """Whether it is of that kind; not NULL-safe."""

    @property
    def text(self) -> sa.ColumnElement[str]:
        """A string as it is, anything else as its JSON text; NULL for null and absent."""

    @property
    def number(self) -> sa.ColumnElement[float]:
        """The nearest double of a number, NULL for any other kind."""

    @property
    def length(self) -> sa.ColumnElement[int]:
        """Items of an array."""

    @property
    def key_count(self) -> sa.ColumnElement[int]:
        """Keys of an object."""

    def child(self, key: str | int) -> JsonPath:
        """The value at a key of an object, or at a position of an array."""


def json_path(steps: Sequence[str | int]) -> list[str]:
    """DuckDB JSON paths that lead through `steps`, to be applied one after the other.

    `$."a"."b"` says that a is a key, never a position. Two keys have no such form, the empty one
    and `*` (a wildcard even in quotes): those go by JSON Pointer, in an extraction of their own.

    >>> json_path(["a", "b.c", 0])
    ['$."a"."b.c"[0]']
    >>> json_path(["a", "*"])
    ['$."a"', '/*']
    """
    found: list[str] = []
    current = ""
    for step in steps:
        if isinstance(step, str) and step in ("", "*"):
            found += [f"${current}"] * bool(current) + [f"/{step}"]
            current = ""
        elif isinstance(step, int):
            current += f"[{step}]"
        else:
            current += '."' + step.replace("\\", "\\\\").replace('"', '\\"') + '"'
    return found + [f"${current}"] * bool(current or not found)


def kind_of_type(found: sa.ColumnElement[Any]) -> sa.ColumnElement[str]:
    """The kind of JSON value that has this type in DuckDB; NULL for null and absent."""
    return sa.case({name: kind for kind, names in _KINDS.items() for name in names}, value=found)


class JsonPath:
    """The value that `steps` lead to inside the JSON text `root`."""

    def __init__(self, root: sa.ColumnElement[Any], steps: Sequence[str | int] = ()) -> None:
        self._root = root
        self._steps = tuple(steps)

    def _apply(self, function: str) -> sa.ColumnElement[Any]:
        *outer, last = json_path(self._steps)
        value = self._root
        for path in outer:
            value = sa.func.json_extract(value, path)
        return getattr(sa.func, function)(value, last)  # type: ignore[no-any-return]

    @property
    def json(self) -> sa.ColumnElement[str]:
        """Its JSON text, `null` included; NULL where absent."""
        return self._apply("json_extract") if self._steps else self._root

    @property
    def kind(self) -> sa.ColumnElement[str]:
        return kind_of_type(self._apply("json_type"))

    def is_a(self, kind: str) -> sa.ColumnElement[bool]:
        return self._apply("json_type").in_(_KINDS[kind])

    @property
    def text(self) -> sa.ColumnElement[str]:
        return self._apply("json_extract_string")

    @property
    def number(self) -> sa.ColumnElement[float]:
        # The JSON text of a string keeps its quotes, so only numbers can be cast.
        return sa.try_cast(sa.cast(self.json, sa.VARCHAR), sa.Double)

    @property
    def length(self) -> sa.ColumnElement[int]:
        return self._apply("json_array_length")

    @property
    def key_count(self) -> sa.ColumnElement[int]:
        return sa.func.len(self._apply("json_keys"))

    def child(self, key: str | int) -> JsonPath:
        return JsonPath(self._root, (*self._steps, key))


class TypedText:
    """A metadata field in columns of its own; what is inside arrays and objects is in `whole`."""

    def __init__(
        self,
        text: sa.ColumnElement[str],
        kind: sa.ColumnElement[str],
        whole: JsonPath | None = None,
    ) -> None:
        self.text = text
        self.kind = kind
        # An array's or object's text is its JSON.
        self._whole = whole or JsonPath(text)

    def is_a(self, kind: str) -> sa.ColumnElement[bool]:
        return self.kind == kind

    @property
    def number(self) -> sa.ColumnElement[float]:
        return sa.case((self.kind == "number", sa.try_cast(self.text, sa.Double)))

    @property
    def length(self) -> sa.ColumnElement[int]:
        return self._whole.length

    @property
    def key_count(self) -> sa.ColumnElement[int]:
        return self._whole.key_count

    def child(self, key: str | int) -> JsonPath:
        return self._whole.child(key)
