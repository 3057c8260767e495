"""Which rows of a database hold no valid record: those that were changed by hand.

DuckDB sees to the types of columns; what it cannot see to is checked here: that values are those
the models allow, and that JSON is what a save would have written.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import pyarrow as pa
from pydantic_core import from_json

from afterimage.storage.arrow import to_objects, without_extra
from afterimage.storage.collector import paused_collector
from afterimage.storage.errors import InvalidRecordError
from afterimage.storage.fields import RecordTable
from afterimage.storage.records import list_adapter, model_of, reason, restore

__all__ = ["UNREADABLE", "faulty_records", "faulty_rows", "record_object"]

UNREADABLE: Final = (ValueError, TypeError, KeyError, IndexError, AttributeError)
"""What reading a row may raise whose JSON is not as a save wrote it."""


def faulty_rows(
    table: RecordTable, batch: pa.RecordBatch, *, whole: bool
) -> Iterator[tuple[int, str]]:
    """Position in the batch, and fault, of each row that no load gives.

    Args:
        table: what the rows are.
        batch: with the declared columns and `extra`.
        whole: whether `extra` must be readable, too, as for what gives records whole.
    """
    try:
        with paused_collector():
            list_adapter(table).validate_python(without_extra(table, batch, members=True))
            if whole:
                to_objects(table, batch)
    except UNREADABLE:
        yield from _one_by_one(table, batch, whole=whole)


def _one_by_one(
    table: RecordTable, batch: pa.RecordBatch, *, whole: bool
) -> Iterator[tuple[int, str]]:
    objects: list[dict[str, Any]] | None
    try:
        objects = without_extra(table, batch)
    except UNREADABLE:  # JSON that cannot be read; the rows have to be taken apart
        objects = None
    model = model_of(table)
    for at, extra in enumerate(batch.column("extra").to_pylist()):
        try:
            found = without_extra(table, batch.slice(at, 1))[0] if objects is None else objects[at]
            model.model_validate(found)
            if whole and extra is not None:
                restore(found, from_json(extra))
        except UNREADABLE as error:
            yield at, _fault(error)


def faulty_records(texts: list[str | None]) -> Iterator[tuple[int, str]]:
    """Position and fault of each text that is no record of another model."""
    for at, text in enumerate(texts):
        try:
            record_object(text)
        except UNREADABLE as error:
            yield at, _fault(error)


def record_object(text: str | None) -> dict[str, Any]:
    """A record of another model as a JSON object.

    Raises:
        ValueError: the text is no such object.
    """
    record = None if text is None else from_json(text)
    if not isinstance(record, dict):
        raise InvalidRecordError(f"a JSON object is wanted, found {type(record).__name__}")
    return record


def _fault(error: Exception) -> str:
    if isinstance(error, ValueError):
        return reason(error)
    return f"extra is not as a save wrote it: {reason(error) or type(error).__name__}"
