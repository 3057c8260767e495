"""Which rows of a table hold no valid record: rows that were edited by hand.

DuckDB ensures the types of columns. The rest is checked here: that the models allow the values, and
that JSON is as a save writes it.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from typing import Any, Final

import pyarrow as pa
from pydantic_core import from_json

from afterimage.storage.errors import CorruptRecordError, InvalidRecordError
from afterimage.storage.query.query import Query
from afterimage.storage.records.arrow import to_objects, without_extra
from afterimage.storage.records.extras import restore
from afterimage.storage.records.fields import OTHERS, RecordKind
from afterimage.storage.records.validation import list_adapter, reason
from afterimage.storage.reports.faults import Faults
from afterimage.storage.reports.progress import Progress, ignore
from afterimage.storage.system.gc_pause import paused_collector
from afterimage.storage.tables.layout import StoredTable

__all__ = ["UNREADABLE", "RowFaults", "record_object"]

UNREADABLE: Final = (ValueError, TypeError, KeyError, IndexError, AttributeError)
"""Exceptions that rows edited by hand can raise."""


@dataclass(frozen=True)
class RowFaults:
    """The search for the rows of one table that hold no valid record.

    Attributes:
        database: name of the database, for errors.
        stored: the table.
        rows: gives the whole rows that match a query, in its order, with their sequence numbers.
        whole: whether `extra` must be readable, too, as for reads that give records whole.
    """

    database: str
    stored: StoredTable
    rows: Callable[[Query], Generator[tuple[list[int], pa.RecordBatch], None, None]]
    whole: bool

    def excluded(self, query: Query, faults: Faults) -> Query:
        """The query without these rows, if `faults` skips them.

        They are searched first, so that the query's slice is one of valid records. In insertion
        order, no row behind the slice is read.
        """
        if not faults.skip:
            return query
        wanted = None if query.order or query.limit is None else query.offset + query.limit
        without: list[int] = []
        valid = 0
        with closing(self.rows(Query(where=query.where))) as batches:
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
        """The error for the first of these rows that matches; `error` is what reading it raised."""
        unknown = CorruptRecordError(self.database, 0, None, reason(error), self.stored.name)
        return next(self.matching(query), unknown)

    def matching(self, query: Query, progress: Progress = ignore) -> Iterator[CorruptRecordError]:
        """An error for each of these rows that matches, in the order of the query.

        `progress` gets the number of all rows that are read.
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
        for at, fault in faults:
            yield CorruptRecordError(self.database, numbers[at], None, fault, self.stored.name)


def _faulty_rows(
    kind: RecordKind, batch: pa.RecordBatch, *, whole: bool
) -> Iterator[tuple[int, str]]:
    """Position in the batch, and fault, of each row that a load refuses.

    Args:
        kind: the kind of the rows.
        batch: with the declared columns and `extra`.
        whole: whether `extra` must be readable, too, as for reads that give records whole.
    """
    try:
        with paused_collector():
            list_adapter(kind).validate_python(without_extra(kind, batch, members=True))
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
    except UNREADABLE:  # JSON that cannot be read; the rows have to be taken apart
        objects = None
    model = kind.model
    for at, extra in enumerate(batch.column("extra").to_pylist()):
        try:
            found = without_extra(kind, batch.slice(at, 1))[0] if objects is None else objects[at]
            model.model_validate(found)
            if whole and extra is not None:
                restore(found, from_json(extra))
        except UNREADABLE as error:
            yield at, _fault(error)


def _faulty_records(texts: list[str | None]) -> Iterator[tuple[int, str]]:
    """Position and fault of each text that is not a record of another model."""
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
