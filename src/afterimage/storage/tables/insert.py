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

from afterimage.storage.engine.database import Database
from afterimage.storage.engine.statements import streamed
from afterimage.storage.errors import DatabaseError, InvalidRecordError
from afterimage.storage.models import Conversation
from afterimage.storage.records.arrow import rows_of, to_batch
from afterimage.storage.records.fields import CONVERSATIONS, RecordKind
from afterimage.storage.records.objects import to_object
from afterimage.storage.records.schema import arrow_type
from afterimage.storage.records.validation import check, is_conversation
from afterimage.storage.system.interrupts import checkpoint
from afterimage.storage.tables.layout import StoredTable

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
        connection: a connection in a transaction; the caller holds the writer lock.
    """

    def __init__(self, database: Database, connection: sa.Connection) -> None:
        self._database = database
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
        numbered = _numbered(batches, schema, first, stored)
        with streamed(self._connection, schema, numbered) as incoming:
            rows = incoming
            keys = stored.metadata_columns if "metadata" in names else {}
            if keys:  # select the lists first, so that they are not repeated for each column
                texts, types = stored.metadata_lists(incoming.c["metadata"], keys)
                lists = (texts.label(_TEXTS), types.label(_TYPES))
                rows = sa.select(*incoming.c, *lists).subquery()
            values: dict[str, Any] = {
                stored.kind.sequence: rows.c.sequence,
                "timestamp": sa.literal(self._saved_at),
                **{name: rows.c[name] for name in names},
            }
            if keys:
                values |= stored.values_of_lists(rows.c[_TEXTS], rows.c[_TYPES], keys)
            self._connection.execute(
                stored.table.insert().from_select(list(values), sa.select(*values.values()))
            )

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
    kind: RecordKind, records: Sequence[BaseModel], rows: int
) -> Iterator[pa.RecordBatch]:
    """Yield record batches of models, with `rows` records each.

    Raises:
        InvalidRecordError: a record cannot be stored; the message gives its index in `records`.
    """
    # Build each batch separately. DuckDB misreads structs in a slice of a larger batch.
    for start in range(0, len(records), rows):
        checkpoint()
        part = records[start : start + rows]
        yield to_batch(kind, rows_of(kind, part, start), start)


def split_by_kind(
    kind: RecordKind, records: Sequence[BaseModel]
) -> tuple[Sequence[BaseModel], list[Other]]:
    """Return the records of `kind`, and the records of other models.

    Raises:
        InvalidRecordError: a record cannot be written as JSON, or could not be read back.
    """
    if kind is not CONVERSATIONS or all(isinstance(record, Conversation) for record in records):
        return records, []
    declared: list[BaseModel] = []
    others: list[Other] = []
    for index, record in enumerate(records):
        if isinstance(record, Conversation):
            declared.append(record)
            continue
        checkpoint()
        try:
            dumped = check(to_object(record), type(record))
        except InvalidRecordError as error:
            raise InvalidRecordError(f"record {index} of the batch: {error}") from None
        if is_conversation(dumped):
            declared.append(record)
        else:
            others.append((type(record).__name__, to_json(dumped)))
    return declared, others


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
        numbers = pa.array(range(first, first + len(batch)), pa.int64())
        yield pa.RecordBatch.from_arrays([numbers, *batch.columns], schema=schema)
        first += len(batch)
