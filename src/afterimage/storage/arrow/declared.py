"""Types that a read declares for its columns of values inside metadata.

The invariant: a value is converted only if no part of it is lost. Numbers compare as in JSON, so
3.0 is an integer; a string is never a number.
"""

from __future__ import annotations

import re
from collections.abc import Generator, Iterable, Mapping, Sequence
from contextlib import closing
from typing import Any, Final, Self

import pyarrow as pa
from pydantic_core import from_json

from afterimage.storage.arrow.schema import arrow_type
from afterimage.storage.errors import InvalidQueryError, shorten, shown
from afterimage.storage.records.paths import FieldRef, as_json

__all__ = ["DeclaredTypes"]

_ZONED: Final = re.compile(r"timestamp\[(s|ms|us|ns), *(?:tz=)?([^\]]+)\]")
_KNOWN: Final = "bool, int64, double, string, date32, timestamp[us] or timestamp[us, UTC]"


class DeclaredTypes:
    """The declared types of some columns, which converts batches to them.

    Args:
        types: the type of each column.
    """

    def __init__(self, types: Mapping[str, pa.DataType]) -> None:
        self._types = types

    @classmethod
    def of(cls, types: object, columns: Iterable[FieldRef]) -> Self:
        """Return the checked types of an argument `types`.

        Args:
            types: maps columns to names of types, or to types.
            columns: the columns of the read.

        Raises:
            InvalidQueryError: a name is not one of the columns, a column already has a type, or a
                type is unknown or not supported.
        """
        if not isinstance(types, Mapping):
            raise InvalidQueryError(
                f"types must be a dict of columns and their types, not {shown(types, 80)}"
            )
        by_path = {field.path: field for field in columns}
        return cls({name: _type_of(name, each, by_path) for name, each in types.items()})

    def columns(self, columns: Iterable[FieldRef]) -> tuple[FieldRef, ...]:
        """Return the columns that a backend must read."""
        return as_json(columns, self._types)

    def schema(self, schema: pa.Schema) -> pa.Schema:
        """Return a schema with the declared types."""
        types = self._types
        return pa.schema([field.with_type(types.get(field.name, field.type)) for field in schema])

    def batches(
        self, batches: Generator[pa.RecordBatch, None, None]
    ) -> Generator[pa.RecordBatch, None, None]:
        """Yield batches with the declared types.

        Raises:
            InvalidQueryError: a value does not fit its type. The message gives the position of the
                record in the result, the column and the value.
        """
        position = 0
        with closing(batches):
            for batch in batches:
                arrays = [
                    _converted(name, column, self._types[name], position)
                    if name in self._types
                    else column
                    for name, column in zip(batch.schema.names, batch.columns, strict=True)
                ]
                yield pa.RecordBatch.from_arrays(arrays, schema=self.schema(batch.schema))
                position += len(batch)


def _type_of(name: object, kind: object, columns: Mapping[str, FieldRef]) -> pa.DataType:
    field = columns.get(name) if isinstance(name, str) else None
    if field is None:
        raise InvalidQueryError(
            f"types has {shown(name, 80)}, which is not one of the columns. Add it to columns."
        )
    if not field.keys:
        raise InvalidQueryError(
            f"types has {name!r}, which always is {arrow_type(field.type)}. Only values inside "
            "metadata can have another type."
        )
    found = kind if isinstance(kind, pa.DataType) else _named(kind)
    if found is None or not _is_supported(found):
        raise InvalidQueryError(
            f"types has an unknown type for {shorten(str(name), 80)!r}: {shown(kind, 60)}. "
            f"Use {_KNOWN}."
        )
    return found


def _named(name: object) -> pa.DataType | None:
    if not isinstance(name, str):
        return None
    if zoned := _ZONED.fullmatch(name):
        return pa.timestamp(zoned[1], zoned[2])
    try:
        return pa.type_for_alias(name)
    except ValueError:
        return None


def _is_supported(kind: pa.DataType) -> bool:
    is_number = pa.types.is_integer(kind) or kind in (pa.float32(), pa.float64())
    return is_number or pa.types.is_boolean(kind) or _is_text(kind) or _is_time(kind)


def _is_text(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


def _is_time(kind: pa.DataType) -> bool:
    return bool(pa.types.is_timestamp(kind) or pa.types.is_date(kind))


def _converted(name: str, column: pa.Array, kind: pa.DataType, position: int) -> pa.Array:
    """Return a column of JSON as values of a type; `position` is that of its first record."""
    texts = ["null" if text is None else text for text in column.to_pylist()]
    values = from_json(f"[{','.join(texts)}]")
    try:
        return _array(values, kind)
    except (pa.ArrowException, OverflowError, ValueError):
        for index, value in enumerate(values):
            try:
                _array([value], kind)
            except (pa.ArrowException, OverflowError, ValueError) as error:
                raise InvalidQueryError(
                    f"record {position + index} of the result: {shorten(name, 80)} is "
                    f"{shorten(texts[index], 80)}, which is not {kind}"
                    f"{_reason(error)}. Declare another type, or leave the record out by filters."
                ) from None
        raise


def _reason(error: Exception) -> str:
    _, found, reason = str(error).rpartition(": expected ")
    return f" (expected {shorten(reason.partition('. ')[0].rstrip('.'), 80)})" if found else ""


def _array(values: Sequence[Any], kind: pa.DataType) -> pa.Array:
    """Return JSON values as an array. Arrow alone makes 1 of 1.5 and of true.

    Raises:
        ValueError: a value has another JSON type; also other exceptions.
    """
    found = {*map(type, values)} - {type(None)}
    if pa.types.is_boolean(kind):
        allowed: set[type] = {bool}
    elif _is_text(kind) or _is_time(kind):
        allowed = {str}
    else:
        allowed = {int, float}
    if not found <= allowed:
        raise ValueError("a value has another type")
    if _is_time(kind):
        return pa.array(values, pa.string()).cast(kind)
    if pa.types.is_integer(kind) and float in found:
        values = [_whole(value) for value in values]
    elif kind == pa.float32():
        _check_singles(values)
    return pa.array(values, kind)


def _whole(value: float | None) -> int | None:
    if value is None:
        return None
    if value != (whole := int(value)):
        raise ValueError("a number is not whole")
    return whole


def _check_singles(values: Iterable[float | None]) -> None:
    largest = 3.4028234663852886e38
    if any(value is not None and largest < abs(value) < float("inf") for value in values):
        raise ValueError("a number is too large")
