"""Convert Arrow record batches to JSON objects, one column at a time.

The invariant: a batch of `batches.py` gives every record as it was, whatever its class.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from enum import Enum
from functools import cache
from itertools import pairwise
from typing import Any

import pyarrow as pa
from pydantic_core import from_json

from afterimage.storage.records.extras import restore
from afterimage.storage.records.fields import (
    FieldType,
    Json,
    List,
    RecordKind,
    Struct,
    Text,
)

__all__ = ["dicts_of", "parts_of", "to_objects", "without_extra"]


def to_objects(kind: RecordKind, batch: pa.RecordBatch) -> list[dict[str, Any]]:
    """Return the records of a batch as complete JSON objects, with their extra fields."""
    objects = without_extra(kind, batch)
    extras = batch.column("extra")
    if extras.null_count < len(extras):
        for record, extra in zip(objects, extras.to_pylist(), strict=True):
            if extra is not None:
                restore(record, from_json(extra))
    return objects


def without_extra(
    kind: RecordKind, batch: pa.RecordBatch, *, members: bool = False
) -> list[dict[str, Any]]:
    """Return the records of a batch as JSON objects with the declared fields only.

    Args:
        kind: the kind of the records.
        batch: has a column for each declared field.
        members: whether to return enum members instead of their values. They validate faster. A
            value that the model does not accept is None.
    """
    arrays = [batch.column(name) for name in kind.record.fields]
    fields = kind.exact.fields if members else kind.record.fields
    return _structs(fields, arrays, members=members)


def parts_of(batch: pa.RecordBatch, rows: int) -> Iterator[pa.RecordBatch]:
    """Yield slices of a record batch with at most `rows` rows each."""
    for start in range(0, batch.num_rows, rows):
        yield batch.slice(start, rows)


@cache
def _members(enum: type[Enum]) -> dict[str, Enum]:
    return {member.value: member for member in enum}


def _objects(field_type: FieldType, array: pa.Array, *, members: bool) -> list[Any]:
    match field_type:
        case Text(enum) if enum and members:
            return [*map(_members(enum).get, array.to_pylist())]
        case Json():
            return [None if text is None else from_json(text) for text in array.to_pylist()]
        case Struct(fields) if array.null_count == len(array):
            return [None] * len(array)
        case Struct(fields):
            children = [array.field(index) for index in range(len(fields))]
            objects = _structs(fields, children, members=members)
            return _with_nulls(objects, array)
        case List(item_type):
            bounds = array.offsets.to_pylist()
            start = bounds[0] if bounds else 0
            values = array.values.slice(start, (bounds[-1] - start) if bounds else 0)
            items = _objects(item_type, values, members=members)
            lists = [items[low - start : high - start] for low, high in pairwise(bounds)]
            return _with_nulls(lists, array)
        case _:
            return array.to_pylist()  # type: ignore[no-any-return]


def _with_nulls(values: list[Any], array: pa.Array) -> list[Any]:
    """Return the values, with None where the array is null."""
    if not array.null_count:
        return values
    valid = array.is_valid().to_pylist()
    return [value if is_valid else None for value, is_valid in zip(values, valid, strict=True)]


def _structs(
    fields: Mapping[str, FieldType], arrays: Sequence[pa.Array], *, members: bool
) -> list[dict[str, Any]]:
    columns = [
        _objects(field_type, array, members=members)
        for field_type, array in zip(fields.values(), arrays, strict=True)
    ]
    return dicts_of(fields, columns)


def dicts_of(names: Iterable[str], columns: Sequence[Sequence[Any]]) -> list[dict[str, Any]]:
    """Return a dict for each row of columns with these names."""
    return _zipper(tuple(names))(*columns)


@cache
def _zipper(names: tuple[str, ...]) -> Callable[..., list[dict[str, Any]]]:
    """Return a function that builds a dict per row: `[{"a": a, "b": b} for a, b in zip(…)]`.

    A dict display with the names written out takes a quarter of the time of
    `dict(zip(names, row))`. A load builds hundreds of thousands of these dicts.
    """
    variables = [f"_{index}" for index in range(len(names))]
    entries = ", ".join(f"{name!r}: {var}" for name, var in zip(names, variables, strict=True))
    source = f"lambda *columns: [{{{entries}}} for {', '.join(variables)}, in zip(*columns)]"
    return eval(source)  # type: ignore[no-any-return]
