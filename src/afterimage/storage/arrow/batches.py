"""Convert records to Arrow record batches, one column at a time.

The invariant: `to_objects(kind, batch_of_models(kind, records, indexes))` returns every record as a
JSON object, whatever its class. The schema is always the declared one of `schema.py`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from functools import cache, lru_cache
from itertools import accumulate, chain
from operator import itemgetter
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc
from pydantic import BaseModel
from pydantic_core import PydanticSerializationError, from_json, to_json

from afterimage.storage.arrow.arrays import binaries
from afterimage.storage.arrow.schema import arrow_schema, arrow_type
from afterimage.storage.errors import InvalidRecordError, shorten
from afterimage.storage.records.extras import overlay
from afterimage.storage.records.fields import (
    FieldType,
    Json,
    List,
    RecordKind,
    Struct,
    Text,
)
from afterimage.storage.records.objects import exact_records, stored_object
from afterimage.storage.records.validation import as_declared, readable

__all__ = ["Rows", "batch_of_models", "has_valid_values", "rows_of_objects", "to_batch"]

_CONVERSION_ERRORS = (
    pa.ArrowException,
    PydanticSerializationError,
    AttributeError,
    KeyError,
    TypeError,
    ValueError,
)


# Batches are allocated in one thread and freed in another. The system pool reuses memory that
# another thread freed. Arrow's default pool would request new pages, which the kernel must zero.
_POOL = pa.system_memory_pool()

# Records that are converted at once. Each of them is visited many times, and the objects of so many
# stay in the cache of a processor core: with 2,048 records, a conversion takes a quarter longer.
_PART_ROWS = 512


class Rows(NamedTuple):
    """Records as Python rows, ready for conversion to Arrow.

    Attributes:
        declared: the declared fields of each record.
        extra: the fields of each record that are not declared, as JSON text; None if there are
            no others.
    """

    declared: list[dict[str, Any]]
    extra: list[bytes | None]


def batch_of_models(
    kind: RecordKind, records: Sequence[BaseModel], indexes: Sequence[int]
) -> pa.RecordBatch:
    """Return a record batch of models.

    Args:
        kind: the kind of the records.
        records: the models.
        indexes: index of each record within the whole save, for error messages.

    Raises:
        InvalidRecordError: a record cannot be stored; the message gives its index and the field.
    """
    parts = [
        _part_of_models(kind, records[start : start + _PART_ROWS], indexes[start:])
        for start in range(0, max(1, len(records)), _PART_ROWS)
    ]
    return parts[0] if len(parts) == 1 else _joined(parts)


def _part_of_models(
    kind: RecordKind, records: Sequence[BaseModel], indexes: Sequence[int]
) -> pa.RecordBatch:
    plains = exact_records(records, checked=())  # Arrow checks the values of messages
    if plains is not None:
        extra = [_absent_fields(kind, cls) for cls in map(type, records)]
        with suppress(*_CONVERSION_ERRORS):
            return _to_batch(kind, plains.columns, extra, None, plains.messages, kind.exact)
    rows = Rows([], [])
    for index, record in zip(indexes, records, strict=False):
        try:
            own = _exact_rows(kind, record) or _stored_rows(kind, record)
        except InvalidRecordError as error:
            raise InvalidRecordError(f"record {index} of the batch: {error}") from None
        rows.declared.extend(own.declared)
        rows.extra.extend(own.extra)
    return to_batch(kind, rows, indexes)


def _joined(batches: Sequence[pa.RecordBatch]) -> pa.RecordBatch:
    table = pa.Table.from_batches(batches).combine_chunks(memory_pool=_POOL)
    [batch] = table.to_batches()
    return batch


@cache
def _absent_fields(kind: RecordKind, cls: type[BaseModel]) -> bytes | None:
    """Return the value of `extra` for records that have exactly the fields of their class."""
    return _extra(overlay(kind.record, cls.model_fields))


def _exact_rows(kind: RecordKind, record: BaseModel) -> Rows | None:
    plains = exact_records([record])
    if plains is None:
        return None
    declared = plains.with_messages()
    try:
        to_json(declared)
    except ValueError:  # a string is not valid Unicode
        return None
    return Rows(declared, [_absent_fields(kind, type(record))])


def _stored_rows(kind: RecordKind, record: BaseModel) -> Rows:
    stored = stored_object(kind, record)
    return Rows([stored], [_extra(overlay(kind.record, stored))])


def rows_of_objects(
    kind: RecordKind, objects: Iterable[dict[str, Any]], *, to_store: bool = True
) -> Rows:
    """Return the rows of JSON objects.

    Objects with other fields than the declared ones are validated here.

    Args:
        kind: the kind of the objects.
        objects: the objects.
        to_store: whether the rows will be stored. Only then is their nesting limited: a read
            returns what was parsed.

    Raises:
        InvalidRecordError: an object is not a valid record of `kind`.
    """
    rows = Rows([], [])
    for record in objects:
        if _has_declared_fields(kind.record, record):
            rows.declared.append(record)
            rows.extra.append(None)
        elif (filled := _filled(kind, record)) is not None:
            rows.declared.append(filled)
            rows.extra.append(_absent_names(kind, tuple(record)))
        else:
            rows.declared.append(as_declared(kind, record))
            extra = overlay(kind.record, record)
            if to_store and extra.keys() - {"absent"}:
                _check_nesting(record)
            rows.extra.append(_extra(extra))
    return rows


def to_batch(
    kind: RecordKind,
    rows: Rows,
    indexes: Sequence[int] | None = None,
    *,
    to_store: bool = True,
) -> pa.RecordBatch:
    """Return a record batch with the declared fields and `extra`.

    Args:
        kind: the kind of the records.
        rows: the rows of the batch.
        indexes: index of each row within the whole save, for error messages; None if these are all
            rows.
        to_store: see `rows_of_objects`.

    Raises:
        InvalidRecordError: a value does not have the declared type; the message gives the index
            of the record.
    """
    depth = 1 if to_store else None
    try:
        return _batch_of_rows(kind, rows, depth)
    except _CONVERSION_ERRORS as conversion_error:
        # Validate each record with the model. It may coerce values to the declared types;
        # otherwise its error names the invalid record and value.
        declared, extras = [], []
        numbers = indexes or range(len(rows.declared))
        for index, row, extra in zip(numbers, rows.declared, rows.extra, strict=True):
            try:
                declared.append(as_declared(kind, from_json(to_json(row))))
                # A row of declared fields can have the parts of a content in place of its text.
                extras.append(_extra(overlay(kind.record, row)) if extra is None else extra)
            except (InvalidRecordError, *_CONVERSION_ERRORS) as error:
                raise InvalidRecordError(f"record {index} of the batch: {error}") from None
        try:
            return _batch_of_rows(kind, Rows(declared, extras), depth)
        except _CONVERSION_ERRORS:
            raise InvalidRecordError(
                f"a record does not fit the schema: {conversion_error}"
            ) from None


def has_valid_values(kind: RecordKind, batch: pa.RecordBatch) -> bool:
    """Return whether a load accepts the declared fields that are columns of a batch.

    False is only a suspicion: a JSON object may begin with a blank.
    """
    try:
        for name, array in zip(batch.schema.names, batch.columns, strict=True):
            if name in kind.record.fields:
                nulls = name in kind.record.nullable
                _check(kind.record.fields[name], array, nulls=nulls, parent_nulls=0)
    except TypeError:
        return False
    return True


def _batch_of_rows(kind: RecordKind, rows: Rows, depth: int | None) -> pa.RecordBatch:
    defaults = kind.record.defaults
    columns = {
        name: [row.get(name, defaults[name]) for row in rows.declared]
        if name in defaults
        else [row[name] for row in rows.declared]
        for name in kind.record.fields
    }
    return _to_batch(kind, columns, rows.extra, depth)


def _to_batch(
    kind: RecordKind,
    columns: Mapping[str, list[Any]],
    extra: list[bytes | None],
    depth: int | None,
    messages: list[dict[str, Any]] | None = None,
    record: Struct | None = None,
) -> pa.RecordBatch:
    """Return the batch of records.

    Args:
        kind: the kind of the records.
        columns: the values of each declared field.
        extra: the fields of each record that are not declared; see `Rows`.
        depth: see `_array`.
        messages: the messages of all records, if they are not in the columns themselves.
        record: the fields with the values that they may have; None for those of the kind.
    """
    record = record or kind.record
    arrays = []
    for name, field_type in record.fields.items():
        values = columns[name]
        if messages and isinstance(field_type, List) and isinstance(field_type.of, Struct):
            array = _list_array(field_type.of, [*map(len, values)], messages, depth)
        else:
            array = _array(field_type, values, depth)
        _check(field_type, array, nulls=name in record.nullable, parent_nulls=0)
        arrays.append(array)
    arrays.append(pa.array(extra, pa.large_string()))
    return pa.RecordBatch.from_arrays(arrays, schema=_schema(kind))


def _array(field_type: FieldType, values: list[Any], depth: int | None) -> pa.Array:
    """Return values as an array of their declared type.

    Args:
        field_type: the declared type.
        values: the values.
        depth: number of levels of the record around each value; None if all metadata can be
            parsed again, because a check has shown it or because it was parsed.

    Raises:
        TypeError: a value does not have the declared type; also other exceptions.
    """
    if not values or (values[0] is None and values.count(None) == len(values)):
        return pa.nulls(len(values), arrow_type(field_type))  # common, and faster than a builder
    match field_type:
        case Json():
            texts = [_json_text(value, depth) for value in values]
            return pa.array(texts, pa.large_string(), memory_pool=_POOL)
        case List(Struct() as item_type):
            if not {*map(type, values)} <= {list}:
                raise TypeError("a list of objects is required")
            return _list_array(
                item_type,
                [*map(len, values)],
                [*chain.from_iterable(values)],
                depth,
                filled=True,
            )
        case _:
            if isinstance(field_type, Text) and depth is None:
                types = {*map(type, values)}  # Arrow takes bytes as text
                if not all(issubclass(cls, (str, type(None))) for cls in types):
                    raise TypeError("text must be a string")
            return pa.array(values, arrow_type(field_type), memory_pool=_POOL)


def _list_array(
    struct: Struct,
    counts: list[int],
    items: list[dict[str, Any]],
    depth: int | None,
    *,
    filled: bool = False,
) -> pa.Array:
    """Return lists of objects as an array.

    Args:
        struct: the type of the objects.
        counts: number of objects in each list.
        items: the objects of all lists.
        depth: number of levels of the record around each list; see `_array`.
        filled: whether objects can lack fields that have a default. A model lacks none.
    """
    values = _values if filled else _all_values
    inner = None if depth is None else depth + 2
    children = [
        _array(field_type, values(struct, name, items), inner)
        for name, field_type in struct.fields.items()
    ]
    return pa.LargeListArray.from_arrays(
        pa.array([0, *accumulate(counts)], pa.int64()),
        pa.StructArray.from_arrays(children, fields=list(arrow_type(struct))),
        type=arrow_type(List(struct)),
    )


def _json_text(value: Any, depth: int | None) -> bytes:
    if not isinstance(value, dict):
        raise TypeError(f"metadata must be an object, not {type(value).__name__}")
    text = to_json(value, by_alias=False)
    return text if depth is None else readable(text, depth)


def _check(field_type: FieldType, array: pa.Array, *, nulls: bool, parent_nulls: int) -> None:
    """Raise TypeError if a required value is null, no allowed choice or no JSON object."""
    if not nulls and array.null_count > parent_nulls:
        raise TypeError("null where a value is required")
    if array.null_count == len(array):
        return
    match field_type:
        case Text(enum) if enum:
            allowed = _allowed(field_type)
            if not pc.all(pc.is_in(array, value_set=allowed)).as_py() and len(array):
                raise TypeError(f"a value is not one of {', '.join(field_type.choices)}")
        case Json():
            if not pc.all(pc.starts_with(array, "{")).as_py():
                raise TypeError("metadata must be an object")
        case Struct(fields):
            # `flatten` makes a child null where its parent is null. `array.field` would return an
            # arbitrary empty value there.
            for (name, child_type), child in zip(fields.items(), array.flatten(), strict=True):
                nulls = name in field_type.nullable
                _check(child_type, child, nulls=nulls, parent_nulls=array.null_count)
        case List(item_type):
            _check(item_type, array.values, nulls=False, parent_nulls=0)


@cache
def _allowed(field_type: Text) -> pa.Array:
    choices = binaries([choice.encode() for choice in field_type.choices])
    return pa.concat_arrays([choices.cast(pa.large_string()), pa.nulls(1, pa.large_string())])


@cache
def _schema(kind: RecordKind) -> pa.Schema:
    return arrow_schema(kind.stored)


def _has_declared_fields(struct: Struct, record: Any) -> bool:
    """Return whether a JSON object has exactly the declared fields, at every depth."""
    if not isinstance(record, dict) or record.keys() != struct.fields.keys():
        return False
    for name, field_type in struct.fields.items():
        value = record[name]
        if isinstance(field_type, Struct):
            if value is not None and not _has_declared_fields(field_type, value):
                return False
        elif isinstance(field_type, List) and isinstance(field_type.of, Struct):
            if not isinstance(value, list):
                return False
            item_type, names = field_type.of, field_type.of.fields.keys()
            if any(isinstance(inner, Struct | List) for inner in item_type.fields.values()):
                if not all(_has_declared_fields(item_type, item) for item in value):
                    return False
            elif not all(isinstance(item, dict) and item.keys() == names for item in value):
                return False
    return True


def _filled(kind: RecordKind, record: dict[str, Any]) -> dict[str, Any] | None:
    """Return a JSON object with the defaults of the declared fields that it lacks.

    Only for an object that has no other fields, as a conversation without an evaluation; else None.
    """
    struct = kind.record
    if not record.keys() <= struct.fields.keys():
        return None
    filled = {**struct.defaults, **record}
    for name, field_type in struct.fields.items():
        if name not in filled:
            return None
        value = filled[name]
        if isinstance(field_type, Struct):
            if value is not None and not _has_declared_fields(field_type, value):
                return None
        elif (
            isinstance(field_type, List)
            and isinstance(field_type.of, Struct)
            and not _has_flat_items(field_type.of, value)
        ):
            return None
    return filled


def _has_flat_items(struct: Struct, items: Any) -> bool:
    """Return whether a value is a list of objects with only declared fields, none of them a list.

    Fields that have a default can be missing.
    """
    if not (isinstance(items, list) and {*map(type, items)} <= {dict}):
        return False
    present = set[str]().union(*items)
    if not present <= struct.fields.keys():
        return False
    for name, field_type in struct.fields.items():
        if isinstance(field_type, Struct | List):
            return False
        try:
            if name in present and list in {*map(type, _values(struct, name, items))}:
                return False
        except KeyError:
            return False
    return not items or all(name in struct.defaults for name in struct.fields.keys() - present)


def _all_values(_: Struct, name: str, items: list[dict[str, Any]]) -> list[Any]:
    return [*map(itemgetter(name), items)]


def _values(struct: Struct, name: str, items: list[dict[str, Any]]) -> list[Any]:
    """Return the values of a field of objects, which can lack it if it has a default."""
    try:
        return [*map(itemgetter(name), items)]
    except KeyError:
        if name not in struct.defaults:
            raise
        default = struct.defaults[name]
        return [item.get(name, default) for item in items]


@lru_cache(maxsize=256)
def _absent_names(kind: RecordKind, names: tuple[str, ...]) -> bytes | None:
    """Return the value of `extra` for a JSON object that has only these fields."""
    return _extra(overlay(kind.record, dict.fromkeys(names)))


def _extra(node: Mapping[str, Any]) -> bytes | None:
    """Return an overlay as JSON text; None if it is empty."""
    return to_json(node) if node else None


def _check_nesting(record: Mapping[str, Any]) -> None:
    try:
        readable(to_json(record))
    except ValueError as error:
        raise InvalidRecordError(shorten(error)) from None
