"""Find the corrupt rows of a table, for example rows that were edited by hand.

DuckDB ensures the types of the columns. This module checks that the models accept the values, and
that JSON text has the form that saves write.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from typing import Any, Final

import pyarrow as pa
import sqlalchemy as sa
from pydantic_core import from_json

from afterimage.storage.arrow.models import models_of
from afterimage.storage.arrow.objects import to_objects, without_extra
from afterimage.storage.errors import CorruptRecordError, InvalidRecordError
from afterimage.storage.query.query import Query
from afterimage.storage.records.extras import restore
from afterimage.storage.records.fields import (
    OTHERS,
    FieldType,
    Json,
    RecordKind,
    Struct,
    Text,
)
from afterimage.storage.records.validation import reason
from afterimage.storage.reports.faults import Faults
from afterimage.storage.reports.progress import Progress, ignore
from afterimage.storage.system.gc_pause import paused_collector
from afterimage.storage.tables.schema.layout import StoredTable

__all__ = ["UNNUMBERED", "UNREADABLE", "RowFaults", "checked_text", "record_object"]

UNREADABLE: Final = (ValueError, TypeError, KeyError, IndexError, AttributeError)
"""Exceptions that rows edited by hand can raise."""

UNNUMBERED: Final = "a row without a number in its first column"
"""The fault of a row that SQL left without a sequence number: it has no place in the order."""


@dataclass(frozen=True)
class RowFaults:
    """The search for the corrupt rows of one table.

    Attributes:
        database: name of the database, for errors.
        stored: the table.
        rows: yields the sequence numbers and all columns of the rows that match a query, in its
            order.
        unnumbered: counts the rows without a sequence number that match the filters of a query.
        whole: whether `extra` must also be readable. Reads of whole records need it.
    """

    database: str
    stored: StoredTable
    rows: Callable[[Query], Generator[tuple[list[int], pa.RecordBatch], None, None]]
    unnumbered: Callable[[Query], int]
    whole: bool

    def excluded(self, query: Query, faults: Faults) -> Query:
        """Return the query without the corrupt rows, if `faults` skips them.

        The rows are searched before the query is executed, so limit and offset count valid records
        only. In insertion order, the search does not read rows after the slice.
        """
        if not faults.skip:
            return query
        is_beginning = not (query.order or query.shares) and query.only is None
        wanted = None
        if is_beginning and query.limit is not None:
            wanted = query.offset + query.limit
        without: list[int] = []
        valid = 0
        if unnumbered := self.unnumbered(query):
            query = replace(query, numbered=True)
        for _ in range(unnumbered):
            faults.handle(CorruptRecordError(self.database, 0, None, UNNUMBERED, self.stored.name))
        with closing(self.rows(Query(where=query.where, numbered=query.numbered))) as batches:
            for numbers, batch in batches:
                if wanted is not None and valid >= wanted:
                    break
                for error in self._within(numbers, batch):
                    faults.handle(error)
                    without.append(error.line)
                    valid -= 1
                valid += len(numbers)
        return replace(query, without=tuple(without))

    def first(self, query: Query, error: Exception) -> CorruptRecordError:
        """Return the error for the first corrupt row that matches the query.

        Args:
            query: the query.
            error: the exception that a read raised, for the message if no row is found.
        """
        unknown = CorruptRecordError(self.database, 0, None, reason(error), self.stored.name)
        return next(self.matching(query), unknown)

    def matching(self, query: Query, progress: Progress = ignore) -> Iterator[CorruptRecordError]:
        """Yield an error for each corrupt row that matches the query, in the query's order.

        Args:
            query: the query.
            progress: called with the number of rows read, valid ones included.
        """
        for numbers, batch in self.rows(query):
            yield from self._within(numbers, batch)
            progress(len(numbers))

    def _within(self, numbers: list[int], batch: pa.RecordBatch) -> Iterator[CorruptRecordError]:
        kind = self.stored.kind
        if kind is OTHERS:
            faults = _faulty_records(batch.column("record").to_pylist())
        else:
            faults = _faulty_rows(kind, batch, whole=self.whole)
        for index, fault in faults:
            yield CorruptRecordError(self.database, numbers[index], None, fault, self.stored.name)


def checked_text(stored: StoredTable, text: sa.ColumnElement[str]) -> sa.ColumnElement[str]:
    """Return an expression of a row that is an error if a load rejects the row.

    The expression itself must reject messages that are not valid.
    """
    if stored.kind is OTHERS:
        return text
    record = stored.kind.record
    wrong = [
        condition
        for name, field_type in record.fields.items()
        for condition in _wrong(field_type, stored.table.c[name], nulls=name in record.nullable)
    ]
    error = sa.func.error("not a valid record")
    return sa.case((sa.func.coalesce(sa.or_(*wrong), sa.false()), error), else_=text)


def _wrong(
    field_type: FieldType, value: sa.ColumnElement[Any], *, nulls: bool
) -> Iterator[sa.ColumnElement[bool]]:
    """Yield the conditions under which a load may reject a value; items of lists are not read."""
    if not nulls:
        yield value.is_(None)
    match field_type:
        case Text(enum) if enum:
            yield value.not_in(field_type.choices)
        case Json():
            # The type is needed only for text that a storage has not written.
            other = sa.not_(sa.func.starts_with(value, "{"))
            yield sa.and_(other, sa.func.json_type(value) != "OBJECT")
        case Struct(fields):
            for name, child in fields.items():
                inner = sa.func.struct_extract(value, sa.literal_column(f"'{name}'"))
                for condition in _wrong(child, inner, nulls=name in field_type.nullable):
                    yield sa.and_(value.is_not(None), condition)


def _faulty_rows(
    kind: RecordKind, batch: pa.RecordBatch, *, whole: bool
) -> Iterator[tuple[int, str]]:
    """Yield the index in the batch and the fault of each corrupt row.

    Args:
        kind: the kind of the rows.
        batch: has the declared columns and `extra`.
        whole: whether `extra` must also be readable. Reads of whole records need it.
    """
    try:
        with paused_collector():
            models_of(kind, batch)
            if whole:
                to_objects(kind, batch)
    except UNREADABLE:
        yield from _one_by_one(kind, batch, whole=whole)


def _one_by_one(
    kind: RecordKind, batch: pa.RecordBatch, *, whole: bool
) -> Iterator[tuple[int, str]]:
    objects: list[dict[str, Any]] | None
    try:
        objects = without_extra(kind, batch)
    except UNREADABLE:  # some JSON text cannot be parsed: convert the rows one by one
        objects = None
    for index, extra in enumerate(batch.column("extra").to_pylist()):
        try:
            if objects is None:
                record = without_extra(kind, batch.slice(index, 1))[0]
            else:
                record = objects[index]
            models_of(kind, batch.slice(index, 1))
            if whole and extra is not None:
                restore(record, from_json(extra))
        except UNREADABLE as error:
            yield index, _fault(error)


def _faulty_records(texts: list[str | None]) -> Iterator[tuple[int, str]]:
    """Yield the index and the fault of each text that is not a record of another model."""
    for index, text in enumerate(texts):
        try:
            record_object(text)
        except UNREADABLE as error:
            yield index, _fault(error)


def record_object(text: str | None) -> dict[str, Any]:
    """Return a record of another model as a JSON object.

    Raises:
        ValueError: the text is not a JSON object.
    """
    record = None if text is None else from_json(text)
    if not isinstance(record, dict):
        raise InvalidRecordError(f"not a JSON object but {type(record).__name__}")
    return record


def _fault(error: Exception) -> str:
    if isinstance(error, ValueError):
        return reason(error)
    return f"the column extra is not valid: {reason(error) or type(error).__name__}"
