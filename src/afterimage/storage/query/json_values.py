"""JSON values as SQL expressions, for comparing and sorting by values of free-form metadata.

There are two implementations of `JsonValue`. `JsonPath` extracts a value from JSON text;
`TypedText` reads a metadata field that has its own columns (its text and its type). `predicates.py`
uses only the protocol, so each comparison is written once.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import sqlalchemy as sa

__all__ = ["JsonPath", "JsonValue", "TypedText", "json_path", "kind_of_type"]

# The names that DuckDB's json_type returns for each JSON type.
_KINDS = {
    "boolean": ("BOOLEAN",),
    "number": ("UBIGINT", "BIGINT", "HUGEINT", "UHUGEINT", "DOUBLE"),
    "string": ("VARCHAR",),
    "array": ("ARRAY",),
    "object": ("OBJECT",),
}


class JsonValue(Protocol):
    """One JSON value per row. Every expression is NULL in a row without a value."""

    @property
    def kind(self) -> sa.ColumnElement[str]:
        """'boolean', 'number', 'string', 'array' or 'object'; NULL for null and absent."""

    def is_a(self, kind: str) -> sa.ColumnElement[bool]:
        """Whether the value is of that kind; may be NULL if it is null or absent."""

    @property
    def json(self) -> sa.ColumnElement[str]:
        """The JSON of the value; NULL for absent, and for null NULL or its JSON."""

    @property
    def text(self) -> sa.ColumnElement[str]:
        """A string itself, any other value as its JSON text; NULL for null and absent."""

    @property
    def number(self) -> sa.ColumnElement[float]:
        """The nearest double of a number; NULL for any other kind."""

    @property
    def length(self) -> sa.ColumnElement[int]:
        """The number of items of an array."""

    @property
    def items(self) -> sa.ColumnElement[Any]:
        """The items of an array, as a list of JSON."""

    @property
    def key_count(self) -> sa.ColumnElement[int]:
        """The number of keys of an object."""

    def child(self, key: str | int) -> JsonPath:
        """Return the value at a key of an object, or at an index of an array."""


def json_path(steps: Sequence[str | int]) -> list[str]:
    """Return DuckDB JSON paths that lead through `steps`, to be applied one after the other.

    The form `$."a"."b"` makes a step an object key, never an array index. Two keys cannot be
    written in this form: the empty key, and `*`, which is a wildcard even in quotes. These use JSON
    Pointer syntax in a separate extraction.

    >>> json_path(["a", "b.c", 0])
    ['$."a"."b.c"[0]']
    >>> json_path(["a", "*"])
    ['$."a"', '/*']
    """
    paths: list[str] = []
    current = ""
    for step in steps:
        if isinstance(step, str) and step in ("", "*"):
            paths += [f"${current}"] * bool(current) + [f"/{step}"]
            current = ""
        elif isinstance(step, int):
            current += f"[{step}]"
        else:
            current += '."' + step.replace("\\", "\\\\").replace('"', '\\"') + '"'
    return paths + [f"${current}"] * bool(current or not paths)


def kind_of_type(json_type: sa.ColumnElement[Any]) -> sa.ColumnElement[str]:
    """Return the `JsonValue.kind` for a result of DuckDB's json_type; NULL for null and absent."""
    kinds = {name: kind for kind, names in _KINDS.items() for name in names}
    return sa.case(kinds, value=json_type)


class JsonPath:
    """The value at the path `steps` inside the JSON text `root`."""

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
        """The JSON text of the value, also of null; NULL if the value is absent."""
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
        # The JSON text of a string includes its quotes, so TRY_CAST succeeds only for numbers.
        return sa.try_cast(sa.cast(self.json, sa.VARCHAR), sa.Double)

    @property
    def length(self) -> sa.ColumnElement[int]:
        return self._apply("json_array_length")

    @property
    def items(self) -> sa.ColumnElement[Any]:
        return sa.func.json_extract(self.json, sa.literal_column("'$[*]'"))

    @property
    def key_count(self) -> sa.ColumnElement[int]:
        return sa.func.len(self._apply("json_keys"))

    def child(self, key: str | int) -> JsonPath:
        return JsonPath(self._root, (*self._steps, key))


class TypedText:
    """A metadata field with its own columns.

    Args:
        text: the text of the value.
        kind: the kind of the value.
        whole: the value in the metadata, for access into arrays and objects. By default the text
            is used: the text of an array or object is its JSON.
    """

    def __init__(
        self,
        text: sa.ColumnElement[str],
        kind: sa.ColumnElement[str],
        whole: JsonPath | None = None,
    ) -> None:
        self.text = text
        self.kind = kind
        self._whole = whole or JsonPath(text)

    def is_a(self, kind: str) -> sa.ColumnElement[bool]:
        return self.kind == kind

    @property
    def json(self) -> sa.ColumnElement[str]:
        as_string = sa.cast(sa.func.to_json(self.text), sa.VARCHAR)
        return sa.case((self.kind == "string", as_string), else_=self.text)

    @property
    def number(self) -> sa.ColumnElement[float]:
        return sa.case((self.kind == "number", sa.try_cast(self.text, sa.Double)))

    @property
    def length(self) -> sa.ColumnElement[int]:
        return self._whole.length

    @property
    def items(self) -> sa.ColumnElement[Any]:
        return self._whole.items

    @property
    def key_count(self) -> sa.ColumnElement[int]:
        return self._whole.key_count

    def child(self, key: str | int) -> JsonPath:
        return self._whole.child(key)
