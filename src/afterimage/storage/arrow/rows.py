"""Rows of any Arrow data as JSON objects, one column at a time.

The invariant: a null in an object is a key that it does not have, as Arrow has no other way to say
so; a null in a list is kept. Columns of JSON text (`json_columns.py`) are parsed.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import pyarrow as pa
from pydantic_core import from_json

from afterimage.storage.arrow.json_columns import is_json

__all__ = ["has_json_values", "rows_of"]


def rows_of(batch: pa.RecordBatch) -> list[dict[str, Any]]:
    """Return the rows of a batch.

    >>> rows_of(pa.RecordBatch.from_pylist([{"a": 1, "b": None}, {"a": [], "b": "x"}][:1]))
    [{'a': 1}]
    """
    columns = [
        _values(field, column) for field, column in zip(batch.schema, batch.columns, strict=True)
    ]
    return _objects(batch.schema.names, columns, batch.num_rows)


def has_json_values(schema: pa.Schema) -> bool:
    """Return whether all values of the columns are values of JSON, unlike dates or bytes."""
    return all(map(_is_value_of_json, schema))


def _is_value_of_json(field: pa.Field) -> bool:
    kind = field.type
    if pa.types.is_struct(kind):
        return all(map(_is_value_of_json, kind))
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        return _is_value_of_json(kind.value_field)
    is_known = (
        *(pa.types.is_string, pa.types.is_large_string, pa.types.is_boolean),
        *(pa.types.is_integer, pa.types.is_floating, pa.types.is_null),
    )
    return is_json(field) or any(check(kind) for check in is_known)


def _values(field: pa.Field, array: pa.Array) -> list[Any]:
    kind = field.type
    if is_json(field):
        texts = getattr(array, "storage", array).to_pylist()
        return [None if text is None else from_json(text) for text in texts]
    if array.null_count == len(array):
        return [None] * len(array)
    if pa.types.is_struct(kind):
        children = [_values(child, array.field(index)) for index, child in enumerate(kind)]
        return _with_nulls(_objects([child.name for child in kind], children, len(array)), array)
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        bounds = array.offsets.to_pylist()
        start, end = bounds[0], bounds[-1]
        items = _values(kind.value_field, array.values.slice(start, end - start))
        lists = [items[low - start : high - start] for low, high in pairwise(bounds)]
        return _with_nulls(lists, array)
    values: list[Any] = array.to_pylist()
    return values


def _objects(
    names: Sequence[str], columns: Sequence[list[Any]], count: int
) -> list[dict[str, Any]]:
    full = [name for name, column in zip(names, columns, strict=True) if None not in column]
    rows = zip(*(column for column in columns if None not in column), strict=True)
    objects = [dict(zip(full, row, strict=True)) for row in rows]
    if not full:
        objects = [{} for _ in range(count)]
    for name, column in zip(names, columns, strict=True):
        if name not in full:
            for row, value in zip(objects, column, strict=True):
                if value is not None:
                    row[name] = value
    return objects


def _with_nulls(values: list[Any], array: pa.Array) -> list[Any]:
    if not array.null_count:
        return values
    valid = array.is_valid().to_pylist()
    return [value if is_valid else None for value, is_valid in zip(values, valid, strict=True)]
