"""The columns of rows for training: their types follow from all rows, also from the last ones.

Messages and their tool calls are structs, texts and numbers have their types, and lists of them
too. What has no type of its own is JSON (`arrow/json_columns.py`): objects that are no messages,
lists of them, and values of several types. So the definitions of tools and content parts are JSON,
and the content of messages is text if all of it is. The invariant: a value is in its column
exactly, except that an absent key of a message is null.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from types import MappingProxyType
from typing import Any, Final

import pyarrow as pa
from pydantic_core import to_json

from afterimage.storage.arrow.json_columns import json_field
from afterimage.storage.errors import InvalidQueryError

__all__ = ["TrainingColumns"]

_MESSAGE_KEYS: Final = (
    *("messages", "conversations", "contents", "prompt", "completion", "chosen", "rejected"),
    *("preferred_output", "non_preferred_output", "shared_prefix"),
)
# Which keys of an object have objects that are structs, and which keys those have.
_Structs = Mapping[str, "_Structs"]
_NO_STRUCTS: Final[_Structs] = MappingProxyType({})
_MESSAGE: Final[_Structs] = MappingProxyType(
    {"tool_calls": MappingProxyType({"function": _NO_STRUCTS})}
)
# Objects with more different keys are JSON, and rows with more are refused.
_MOST_KEYS: Final = 200
_MOST_COLUMNS: Final = 2000
_INT64: Final = range(-(2**63), 2**63)
# Integers that a float holds.
_EXACT: Final = range(-(2**53), 2**53 + 1)
_TYPES: Final = {
    frozenset[type](): pa.string(),  # only nulls
    frozenset[type]({str}): pa.string(),
    frozenset[type]({bool}): pa.bool_(),
    frozenset[type]({int}): pa.int64(),
    frozenset[type]({float}): pa.float64(),
}


class TrainingColumns:
    """Finds the columns of rows, and converts rows to their values.

    Args:
        own: the keys that the format names.

    >>> columns = TrainingColumns(["messages"])
    >>> columns.add({"messages": [{"role": "user", "content": "Hi"}], "n": 1})
    >>> columns.add({"messages": [{"role": "user", "content": None, "weight": 0.5}], "n": 1.5})
    >>> columns.schema().field("messages").type
    ListType(list<item: struct<role: string, content: string, weight: double>>)
    >>> columns.schema().field("n").type
    DataType(double)
    """

    def __init__(self, own: Collection[str]) -> None:
        self._structs = {key: _MESSAGE for key in _MESSAGE_KEYS if key in own}
        self._fields: dict[str, _Seen] = {}

    def add(self, row: dict[str, Any]) -> None:
        """Take note of a row.

        Raises:
            InvalidQueryError: the rows have too many different keys.
        """
        for key, value in row.items():
            seen = self._fields.get(key)
            if seen is None:
                if len(self._fields) == _MOST_COLUMNS:
                    raise InvalidQueryError(
                        f"the rows have more than {_MOST_COLUMNS:,} different keys, too many for "
                        "columns of Parquet. Name the fields in columns, or export JSON lines."
                    )
                seen = self._fields[key] = _Seen(self._structs.get(key))
            seen.add(value)

    def schema(self) -> pa.Schema:
        """Return the schema of the rows so far."""
        return pa.schema([seen.field(name) for name, seen in self._fields.items()])

    def converter(self) -> Callable[[dict[str, Any]], dict[str, Any]]:
        """Return a function that returns a row with values that the schema takes."""
        writers = _writers(self._fields)
        return lambda row: _written(row, writers)


class _Seen:
    """The values at one place.

    Args:
        structs: which keys of objects at this place have structs; None if objects are JSON.
    """

    __slots__ = ("_fields", "_has", "_is_exact", "_items", "_structs")

    def __init__(self, structs: _Structs | None) -> None:
        self._structs = structs
        self._has: set[type] = set()
        self._is_exact = True  # all numbers are, as an integer and as a float
        self._items: _Seen | None = None
        self._fields: dict[str, _Seen] = {}

    def add(self, value: Any) -> None:
        kind = type(value)
        if kind is str:
            self._has.add(str)
        elif kind is list:
            self._has.add(list)
            if self._items is None:
                self._items = _Seen(self._structs)
            for item in value:
                self._items.add(item)
        elif kind is dict:
            self._has.add(dict)
            if self._structs is not None and len(self._fields) <= _MOST_KEYS:
                self._add_object(value, self._structs)
        elif value is not None:
            self._has.add(kind)
            if kind is int and value not in _EXACT:
                self._is_exact = False
                if value not in _INT64:
                    self._has.add(object)

    def _add_object(self, value: dict[str, Any], structs: _Structs) -> None:
        fields = self._fields
        for key, item in value.items():
            seen = fields.get(key)
            if seen is None:
                seen = fields[key] = _Seen(structs.get(key))
            seen.add(item)

    def field(self, name: str) -> pa.Field:
        kind = self._type()
        return json_field(name) if kind is None else pa.field(name, kind)

    def _type(self) -> pa.DataType | None:
        """Return the type of the column; None for JSON."""
        if self._has == {list} and self._items is not None:
            items = self._items._type()  # noqa: SLF001  of the same class
            return None if items is None else pa.list_(items)
        if self._has == {dict} and self._structs is not None:
            if 0 < len(self._fields) <= _MOST_KEYS:
                return pa.struct([seen.field(name) for name, seen in self._fields.items()])
            return None
        if self._has == {int, float} and self._is_exact:
            return pa.float64()
        return _TYPES.get(frozenset(self._has))

    def writer(self) -> Callable[[Any], Any] | None:
        """Return a function that converts a value for the column; None if no value changes."""
        kind = self._type()
        if kind is None:
            return _json_text
        if pa.types.is_list(kind) and self._items is not None:
            if write := self._items.writer():
                return lambda value: value and [*map(write, value)]
        elif pa.types.is_struct(kind) and (writers := _writers(self._fields)):
            return lambda value: value and _written(value, writers)
        return None


def _writers(fields: Mapping[str, _Seen]) -> dict[str, Callable[[Any], Any]]:
    return {name: write for name, seen in fields.items() if (write := seen.writer())}


def _written(value: dict[str, Any], writers: Mapping[str, Callable[[Any], Any]]) -> dict[str, Any]:
    changed = {name: write(value[name]) for name, write in writers.items() if name in value}
    return {**value, **changed} if changed else value


def _json_text(value: Any) -> str | None:
    return None if value is None else to_json(value, inf_nan_mode="constants").decode()
