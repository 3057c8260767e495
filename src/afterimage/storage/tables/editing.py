"""Delete rows of a table, and change their metadata.

The invariant: the columns of metadata fields follow the metadata, and a number is never used again.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import pyarrow as pa
import sqlalchemy as sa
from pydantic_core import from_json

from afterimage.storage.engine.database import Database
from afterimage.storage.engine.statements import execute_arrow, streamed
from afterimage.storage.errors import CorruptRecordError
from afterimage.storage.query.figures.duplicates import repeated_numbers
from afterimage.storage.query.predicates import filtered
from afterimage.storage.query.query import Query
from afterimage.storage.records.metadata_changes import MetadataChange, metadata_text
from afterimage.storage.records.paths import FieldRef
from afterimage.storage.system.interrupts import checkpoint
from afterimage.storage.tables.schema.layout import VECTOR_ROWS, Layout, StoredTable

__all__ = ["Editing"]

_ROWS = pa.schema([pa.field("edited", pa.int64())])
_CHANGES = pa.schema([pa.field("edited", pa.int64()), pa.field("new_metadata", pa.large_string())])


class Editing:
    """The edits of one call, in one transaction.

    Args:
        database: the database of the table.
        layout: the tables, read again in this transaction.
        connection: a connection in a transaction; the caller holds the writer lock.
        stored: the table.
    """

    def __init__(
        self, database: Database, layout: Layout, connection: sa.Connection, stored: StoredTable
    ) -> None:
        self._database = database
        self._layout = layout
        self._connection = connection
        self._stored = stored
        # DuckDB's own number of a row: it tells rows apart that SQL has given one sequence number.
        self._row: sa.ColumnElement[int] = stored.row
        # The same in the table that is written to, which can be another one than reads use.
        self._written_row = sa.column("rowid", sa.BigInteger)
        self._written_row.table = stored.rows

    def delete(self, query: Query, field: FieldRef | None = None, *, last: bool = False) -> int:
        """Delete the matching rows; with a `field`, those that repeat its value. Count them."""
        table, source, written = self._stored.table, self._stored.source, self._stored.rows
        if field is None:
            rows = self._matching(query)
        else:
            statement = sa.select(source.sequence.label("number"), self._row.label("edited"))
            statement = filtered(statement.select_from(table), source, query)
            rows = execute_arrow(
                self._connection, repeated_numbers(statement, source, field, last=last)
            )
        if not len(rows):
            return 0
        self._keep_next_number()
        batches = rows.select(["edited"]).cast(_ROWS).to_batches()
        with streamed(self._connection, _ROWS, batches) as chosen:
            among = sa.select(chosen.c.edited)
            self._connection.execute(written.delete().where(self._written_row.in_(among)))
        return len(rows)

    def update(self, query: Query, change: MetadataChange) -> int:
        """Change the metadata of the matching rows; count them."""
        stored = self._stored
        old = sa.cast(stored.table.c["metadata"], sa.String).label("old")
        rows = self._matching(query, old, stored.sequence.label("number"))
        changes = pa.Table.from_batches(self._changes(rows, change), _CHANGES)
        if not len(changes):
            return 0
        with streamed(self._connection, _CHANGES, changes.to_batches()) as incoming:
            self._connection.execute(self._update_from(incoming))
        return len(changes)

    def _update_from(self, incoming: sa.FromClause) -> sa.Executable:
        stored = self._stored
        values: dict[str, Any] = {"metadata": incoming.c.new_metadata}
        rows: Any = incoming
        keys = stored.metadata_columns
        if keys:  # select the lists first, so that they are not repeated for each column
            texts, types = stored.metadata_lists(incoming.c.new_metadata, keys)
            rows = sa.select(
                *incoming.c, texts.label("new_texts"), types.label("new_types")
            ).subquery()
            values = {"metadata": rows.c.new_metadata}
            values |= stored.values_of_lists(rows.c.new_texts, rows.c.new_types, keys)
        return stored.rows.update().values(values).where(rows.c.edited == self._written_row)

    def _matching(self, query: Query, *columns: sa.ColumnElement[Any]) -> pa.Table:
        source = self._stored.source
        statement = sa.select(self._row.label("edited"), *columns).select_from(self._stored.table)
        return execute_arrow(self._connection, filtered(statement, source, query))

    def _changes(self, rows: pa.Table, change: MetadataChange) -> Iterator[pa.RecordBatch]:
        for batch in rows.to_batches(max_chunksize=VECTOR_ROWS):
            checkpoint()
            numbers = batch.column("number").to_pylist()
            found = zip(batch.column("old").to_pylist(), numbers, strict=True)
            old = [self._parsed(*each) for each in found]
            texts = [metadata_text(metadata) for metadata in change(old)]
            new = pa.array(texts, pa.large_binary()).cast(pa.large_string())
            edited = batch.column("edited").cast(pa.int64())
            yield pa.RecordBatch.from_arrays([edited, new], schema=_CHANGES)

    def _parsed(self, text: str | None, number: int) -> dict[str, Any]:
        """Return the metadata of a row as an object; a row with null has none."""
        metadata: Any = None
        with suppress(ValueError):
            metadata = {} if text is None else from_json(text)
        if not isinstance(metadata, dict):
            reason = "metadata is not a JSON object"
            name, table = self._database.name, self._stored.name
            raise CorruptRecordError(name, number, None, reason, table)
        return metadata

    def _keep_next_number(self) -> None:
        """Store the next number, so that the number of a deleted row is not given again.

        Files of earlier versions do not have it. An engine that numbers the rows sees to it itself.
        """
        if self._stored.numbered:
            return
        number = self._database.catalog.next_number(self._connection, self._stored.sequence)
        if number > self._stored.next_number:
            self._layout.store_next_number(self._connection, self._stored, min(number, 2**63 - 1))
