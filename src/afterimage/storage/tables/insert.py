"""Insert Arrow record batches into a table, with sequence numbers in the order of the records."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import Any

import pyarrow as pa
import sqlalchemy as sa
from pydantic import BaseModel
from pydantic_core import to_json

from afterimage.storage.arrow.arrays import integers
from afterimage.storage.arrow.batches import batch_of_models
from afterimage.storage.arrow.schema import arrow_type
from afterimage.storage.engine.database import Database
from afterimage.storage.engine.statements import streamed
from afterimage.storage.errors import DatabaseError, InvalidRecordError
from afterimage.storage.models import Conversation
from afterimage.storage.records.fields import CONVERSATIONS, RecordKind
from afterimage.storage.records.objects import stored_object
from afterimage.storage.records.validation import is_conversation
from afterimage.storage.system.interrupts import checkpoint
from afterimage.storage.tables.schema.layout import Layout, StoredTable

__all__ = ["Insert", "Other", "batches_of_models", "split_by_kind"]

# The highest number that a sequence column, of 64 bits, can hold.
_HIGHEST = 2**63 - 1

# Names of no column of a record.
_TEXTS, _TYPES = "metadata texts", "metadata types"

Other = tuple[str, bytes]
"""Class name and JSON text of a record of another model."""


class Insert:
    """The inserts of one save or import, in one transaction. All rows get the same timestamp.

    Args:
        database: the database of the tables.
        layout: the tables.
        connection: a connection in a transaction; the caller holds the writer lock.
    """

    def __init__(self, database: Database, layout: Layout, connection: sa.Connection) -> None:
        self._database = database
        self._layout = layout
        self._connection = connection
        # The column has UTC times without a time zone.
        self._saved_at = dt.datetime.now(dt.UTC).replace(tzinfo=None)

    def batches(self, stored: StoredTable, batches: Iterable[pa.RecordBatch]) -> None:
        """Append batches. They have the stored columns of the table's kind, in that order."""
        names = list(stored.kind.stored)
        schema = pa.schema(
            [
                pa.field("sequence", pa.int64()),
                *(pa.field(name, arrow_type(stored.fields[name])) for name in names),
            ]
        )
        first = self._database.catalog.next_number(self._connection, stored.sequence)
        first = next_number = max(first, stored.next_number)

        def counted() -> Iterator[pa.RecordBatch]:
            nonlocal next_number
            for batch in _numbered(batches, schema, first, stored):
                next_number += len(batch)
                yield batch

        with streamed(self._connection, schema, counted()) as incoming:
            rows = incoming
            keys = stored.metadata_columns if "metadata" in names else {}
            if keys:  # select the lists first, so that they are not repeated for each column
                texts, types = stored.metadata_lists(incoming.c["metadata"], keys)
                lists = (texts.label(_TEXTS), types.label(_TYPES))
                rows = sa.select(*incoming.c, *lists).subquery()
            values: dict[str, Any] = {
                **({} if stored.numbered else {stored.kind.sequence: rows.c.sequence}),
                "timestamp": sa.literal(self._saved_at),
                **{name: rows.c[name] for name in names},
            }
            if keys:
                values |= stored.values_of_lists(rows.c[_TEXTS], rows.c[_TYPES], keys)
            labelled = (value.label(name) for name, value in values.items())
            self._database.catalog.append(self._connection, stored.rows, sa.select(*labelled))
        if stored.numbered:
            return
        # A number is not used again, even if the rows with the highest numbers are deleted.
        self._layout.store_next_number(self._connection, stored, min(next_number, _HIGHEST))

    def others(self, stored: StoredTable, others: Iterable[Other], rows: int) -> None:
        """Append records of other models, in batches of `rows`."""

        def batches() -> Iterator[pa.RecordBatch]:
            remaining = iter(others)
            while part := list(islice(remaining, rows)):
                names, texts = zip(*part, strict=True)
                columns = {
                    "model": pa.array(names, pa.large_string()),
                    "record": pa.array(texts, pa.large_string()),
                }
                yield pa.RecordBatch.from_pydict(columns)

        self.batches(stored, batches())


def batches_of_models(
    kind: RecordKind, records: Sequence[BaseModel], indexes: Sequence[int], rows: int
) -> Iterator[pa.RecordBatch]:
    """Yield record batches of models, with `rows` records each.

    Args:
        kind: the kind of the records.
        records: the models.
        indexes: the index of each record within the whole save, for error messages.
        rows: number of records in a batch.

    Raises:
        InvalidRecordError: a record cannot be stored; the message gives its index in the save.
    """
    # Build each batch separately. DuckDB misreads structs in a slice of a larger batch.
    for start in range(0, len(records), rows):
        checkpoint()
        part = slice(start, start + rows)
        yield batch_of_models(kind, records[part], indexes[part])


def split_by_kind(
    kind: RecordKind, records: Sequence[BaseModel]
) -> tuple[Sequence[BaseModel], Sequence[int], list[Other]]:
    """Return the records of `kind` with their indexes, and the records of other models.

    Raises:
        InvalidRecordError: a record cannot be stored; the message gives its index.
    """
    if kind is not CONVERSATIONS or all(isinstance(record, Conversation) for record in records):
        return records, range(len(records)), []
    declared: list[BaseModel] = []
    indexes: list[int] = []
    others: list[Other] = []
    for index, record in enumerate(records):
        if not isinstance(record, Conversation):
            checkpoint()
            try:
                stored = stored_object(kind, record)
            except InvalidRecordError as error:
                raise InvalidRecordError(f"record {index} of the batch: {error}") from None
            if not is_conversation(stored):
                others.append((type(record).__name__, to_json(stored)))
                continue
        declared.append(record)
        indexes.append(index)
    return declared, indexes, others


def _numbered(
    batches: Iterable[pa.RecordBatch], schema: pa.Schema, first: int, stored: StoredTable
) -> Iterator[pa.RecordBatch]:
    """Yield the batches with sequence numbers, from `first`, as their first column."""
    for batch in batches:
        if first + len(batch) > _HIGHEST + 1:
            name = stored.kind.sequence
            raise DatabaseError(
                f"table {stored.name!r} has no {name} left for new rows: its highest {name} is at "
                f"or near the limit, {_HIGHEST}. Give the rows with such numbers lower ones. "
                "Nothing was saved."
            )
        numbers = integers(range(first, first + len(batch)))
        yield pa.RecordBatch.from_arrays([numbers, *batch.columns], schema=schema)
        first += len(batch)
