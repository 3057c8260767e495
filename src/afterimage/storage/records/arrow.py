"""Records to Arrow record batches and back, a column at a time.

The invariant: `to_objects(to_batch(kind, rows_of(kind, records)))` gives every record as a JSON
object again, whatever its class; the schema is the declared one of `schema.py`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from enum import Enum
from functools import cache
from itertools import chain, pairwise
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc
from pydantic import BaseModel
from pydantic_core import PydanticSerializationError, from_json, to_json

from afterimage.storage.errors import InvalidRecordError, shorten
from afterimage.storage.records.extras import overlay, restore
from afterimage.storage.records.fast_json import exact_view, exact_views
from afterimage.storage.records.fields import FieldType, Json, List, RecordKind, Struct, Text
from afterimage.storage.records.objects import metadata_text, to_object
from afterimage.storage.records.schema import arrow_schema, arrow_type
from afterimage.storage.records.validation import as_declared, readable

__all__ = [
    "Rows",
    "parts_of",
    "rows_of",
    "rows_of_objects",
    "to_batch",
    "to_objects",
    "without_extra",
]

_REFUSALS = (
    pa.ArrowException,
    PydanticSerializationError,
    AttributeError,
    KeyError,
    TypeError,
    ValueError,
)


# A batch is made in one thread and let go of in another. The system's own pool takes what that one
# gives back; Arrow's usual one takes new memory from the system, which has to clear it first.
_POOL = pa.system_memory_pool()


class Rows(NamedTuple):
    """Records on their way into Arrow.

    Attributes:
        declared: the declared fields of each record.
        extra: what those do not know of it, as JSON text; None where they know all.
    """

    declared: list[dict[str, Any]]
    extra: list[bytes | None]


def rows_of(kind: RecordKind, records: Sequence[Any], start: int = 0) -> Rows:
    """The rows of models; `start` is the place of the first among all that are saved.

    Raises:
        InvalidRecordError: one of them cannot be stored; the message says which.
    """
    rows = Rows([], [])
    absent: dict[type[BaseModel], bytes | None] = {}
    views = _views(records)
    for at, (record, view) in enumerate(zip(records, views, strict=True), start):
        if view is None:
            declared, extra = _long_way(kind, record, at)
        else:
            declared, cls = view, type(record)
            if cls not in absent:
                absent[cls] = _extra(overlay(kind.record, view))
            extra = absent[cls]
        rows.declared.append(declared)
        rows.extra.append(extra)
    return rows


def rows_of_objects(kind: RecordKind, objects: Iterable[dict[str, Any]]) -> Rows:
    """The rows of JSON objects; those that the declared fields do not cover are validated here.

    Raises:
        InvalidRecordError: one of them is no record of `kind`.
    """
    rows = Rows([], [])
    for record in objects:
        if _covers(kind.record, record):
            rows.declared.append(record)
            rows.extra.append(None)
        else:
            rows.declared.append(as_declared(kind, record))
            rows.extra.append(_extra(overlay(kind.record, record)))
    return rows


def to_batch(kind: RecordKind, rows: Rows, start: int = 0) -> pa.RecordBatch:
    """A record batch of the declared fields and `extra`.

    Raises:
        InvalidRecordError: a value is not of the declared type; the message says which record.
    """
    try:
        return _to_batch(kind, rows.declared, rows.extra)
    except _REFUSALS as refusal:
        # Let the model judge each record: it may turn values into the declared type, or it says
        # what is wrong with which.
        declared = []
        for at, row in enumerate(rows.declared, start):
            try:
                declared.append(as_declared(kind, from_json(to_json(row))))
            except (InvalidRecordError, *_REFUSALS) as error:
                raise InvalidRecordError(f"record {at} of the batch: {error}") from None
        try:
            return _to_batch(kind, declared, rows.extra)
        except _REFUSALS:
            raise InvalidRecordError(f"a record does not fit the schema: {refusal}") from None


def to_objects(kind: RecordKind, batch: pa.RecordBatch) -> list[dict[str, Any]]:
    """The records of a batch as JSON objects, extras put back."""
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
    """The records of a batch as JSON objects of the declared fields.

    Args:
        kind: what they are records of.
        batch: with a column for each declared field.
        members: whether to give enum members for their values, which validate faster.
    """
    arrays = [batch.column(name) for name in kind.record.fields]
    return _structs(kind.record.fields, arrays, members=members)


def parts_of(batch: pa.RecordBatch, rows: int | None) -> Iterator[pa.RecordBatch]:
    """Slices of a record batch with at most `rows` rows each; None for the batch as it is."""
    step = rows or max(1, batch.num_rows)
    for at in range(0, batch.num_rows, step):
        yield batch.slice(at, step)


def _to_batch(
    kind: RecordKind, declared: list[dict[str, Any]], extra: list[bytes | None]
) -> pa.RecordBatch:
    defaults = kind.record.defaults
    arrays = []
    for name, field_type in kind.record.fields.items():
        if name in defaults:
            values = [row.get(name, defaults[name]) for row in declared]
        else:
            values = [row[name] for row in declared]
        array = _array(field_type, values)
        _check(field_type, array, nulls=name in kind.record.nullable, parent_nulls=0)
        arrays.append(array)
    arrays.append(pa.array(extra, pa.large_string()))
    return pa.RecordBatch.from_arrays(arrays, schema=_schema(kind))


def _array(field_type: FieldType, values: list[Any]) -> pa.Array:
    if values.count(None) == len(values):  # most fields of most data: no builder is set up
        return pa.nulls(len(values), arrow_type(field_type))
    match field_type:
        case Json():
            texts = [_json_text(value) for value in values]
            return pa.array(texts, pa.large_string(), memory_pool=_POOL)
        case Struct(fields) if _holds_json(field_type):
            children = [
                _array(of, [value[name] for value in values]) for name, of in fields.items()
            ]
            return pa.StructArray.from_arrays(children, fields=list(arrow_type(field_type)))
        case List(of) if _holds_json(of):
            offsets = [0]
            for value in values:
                offsets.append(offsets[-1] + len(value))
            items = _array(of, list(chain.from_iterable(values)))
            return pa.LargeListArray.from_arrays(
                pa.array(offsets, pa.int64()), items, type=arrow_type(field_type)
            )
        case _:
            return pa.array(values, arrow_type(field_type), memory_pool=_POOL)


@cache
def _holds_json(field_type: FieldType) -> bool:
    match field_type:
        case Struct(fields):
            return any(map(_holds_json, fields.values()))
        case List(of):
            return _holds_json(of)
        case _:
            return isinstance(field_type, Json)


def _json_text(value: Any) -> bytes:
    if not isinstance(value, dict):
        raise TypeError(f"metadata is an object, not {type(value).__name__}")
    return readable(metadata_text(value))


def _check(field_type: FieldType, array: pa.Array, *, nulls: bool, parent_nulls: int) -> None:
    """Raise where a value is null or not among the choices although it must be."""
    if not nulls and array.null_count > parent_nulls:
        raise TypeError("null where a value is required")
    if array.null_count == len(array):
        return
    match field_type:
        case Text(enum) if enum:
            allowed = _allowed(field_type)
            if not pc.all(pc.is_in(array, value_set=allowed)).as_py() and len(array):
                raise TypeError(f"a value that is none of {', '.join(field_type.choices)}")
        case Struct(fields):
            # Flattened, a child is null where its parent is; else it has some empty value there.
            for (name, of), child in zip(fields.items(), array.flatten(), strict=True):
                _check(of, child, nulls=name in field_type.nullable, parent_nulls=array.null_count)
        case List(of):
            _check(of, array.values, nulls=False, parent_nulls=0)


@cache
def _allowed(field_type: Text) -> pa.Array:
    return pa.array([*field_type.choices, None], pa.large_string())


@cache
def _members(enum: type[Enum]) -> dict[str, Enum]:
    return {member.value: member for member in enum}


@cache
def _schema(kind: RecordKind) -> pa.Schema:
    return arrow_schema(kind.stored)


def _covers(struct: Struct, record: Any) -> bool:
    """Whether a JSON object has exactly the declared fields, at every depth."""
    if not isinstance(record, dict) or record.keys() != struct.fields.keys():
        return False
    for name, field_type in struct.fields.items():
        value = record[name]
        if isinstance(field_type, Struct):
            if value is not None and not _covers(field_type, value):
                return False
        elif isinstance(field_type, List) and isinstance(field_type.of, Struct):
            if not isinstance(value, list):
                return False
            of, names = field_type.of, field_type.of.fields.keys()
            if any(isinstance(inner, Struct | List) for inner in of.fields.values()):
                if not all(_covers(of, item) for item in value):
                    return False
            elif not all(isinstance(item, dict) and item.keys() == names for item in value):
                return False
    return True


def _views(records: Sequence[Any]) -> Sequence[dict[str, Any] | None]:
    try:
        if (views := exact_views(records)) is not None:
            return views
    except (AttributeError, TypeError):  # a model that was made without being validated
        pass
    return [exact_view(record) if isinstance(record, BaseModel) else None for record in records]


def _long_way(kind: RecordKind, record: BaseModel, at: int) -> tuple[dict[str, Any], bytes | None]:
    try:
        dumped = to_object(record)
        return as_declared(kind, dumped), _extra(overlay(kind.record, dumped))
    except InvalidRecordError as error:
        raise InvalidRecordError(f"record {at} of the batch: {error}") from None


def _extra(node: Mapping[str, Any]) -> bytes | None:
    """An overlay as JSON; what it holds is nested a little deeper there than in the record.

    Raises:
        InvalidRecordError: too deep to be read again.
    """
    if not node:
        return None
    try:
        return readable(to_json(node))
    except ValueError as error:
        raise InvalidRecordError(shorten(error)) from None


def _objects(field_type: FieldType, array: pa.Array, *, members: bool) -> list[Any]:
    match field_type:
        case Text(enum) if enum and members:
            return [*map(_members(enum).get, array.to_pylist())]
        case Json():
            return [None if text is None else from_json(text) for text in array.to_pylist()]
        case Struct(fields) if array.null_count == len(array):
            return [None] * len(array)
        case Struct(fields):
            children = [array.field(at) for at in range(len(fields))]
            objects = _structs(fields, children, members=members)
            return _with_nulls(objects, array)
        case List(of):
            bounds = array.offsets.to_pylist()
            start = bounds[0] if bounds else 0
            values = array.values.slice(start, (bounds[-1] - start) if bounds else 0)
            items = _objects(of, values, members=members)
            lists = [items[low - start : high - start] for low, high in pairwise(bounds)]
            return _with_nulls(lists, array)
        case _:
            return array.to_pylist()  # type: ignore[no-any-return]


def _with_nulls(values: list[Any], array: pa.Array) -> list[Any]:
    """The values, None for those that are null in the array."""
    if not array.null_count:
        return values
    valid = array.is_valid().to_pylist()
    return [value if is_there else None for value, is_there in zip(values, valid, strict=True)]


def _structs(
    fields: Mapping[str, FieldType], arrays: Sequence[pa.Array], *, members: bool
) -> list[dict[str, Any]]:
    columns = [
        _objects(field_type, array, members=members)
        for field_type, array in zip(fields.values(), arrays, strict=True)
    ]
    return _zipper(tuple(fields))(*columns)


@cache
def _zipper(names: tuple[str, ...]) -> Callable[..., list[dict[str, Any]]]:
    """A function that makes dicts of columns: `[{"a": a, "b": b} for a, b in zip(…)]`.

    Written out for the declared names, a dict a row costs a quarter of `dict(zip(names, row))`,
    and a load makes hundreds of thousands.
    """
    at = [f"_{position}" for position in range(len(names))]
    entries = ", ".join(f"{name!r}: {value}" for name, value in zip(names, at, strict=True))
    source = f"lambda *columns: [{{{entries}}} for {', '.join(at)}, in zip(*columns)]"
    return eval(source)  # type: ignore[no-any-return]
