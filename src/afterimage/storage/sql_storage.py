"""`SQLStorage`: records in a columnar DuckDB database, accessed through SQLAlchemy."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

import sqlalchemy as sa

from afterimage.storage.engine.catalog import catalog_of
from afterimage.storage.engine.database import open_database
from afterimage.storage.errors import InvalidQueryError, shorten
from afterimage.storage.query.arguments import as_list, positive
from afterimage.storage.record_storage import RecordStorage
from afterimage.storage.records.paths import is_text
from afterimage.storage.system.interrupts import signal_safe
from afterimage.storage.tables.backend import TablesBackend
from afterimage.storage.tables.layout import Layout
from afterimage.storage.tables.opening import StorageTables

__all__ = ["SQLStorage"]

# The default of the published API. Batches of 100 rows would make every save slower, so this value
# selects the engine's own batch size.
_DEFAULT_BATCH: Final = 100


class SQLStorage(RecordStorage):
    """Conversations and documents in a DuckDB file, or in memory.

    Between calls the file is not locked, so the DuckDB CLI, notebooks and generators can use it in
    turn. The database has one table for conversations and one for documents, with native nested
    columns; a view `messages` with one row per message; and a table `records` for other models. If
    `conversations_table_name` is given, the latter two are `<name>_messages` and `<name>_records`.

    Args:
        url: `duckdb:///file.duckdb` or `duckdb:///:memory:`; or the `Path` of a file. A file that
            does not exist is created by the first save or import, or by the first connection of
            `engine`. Until then the storage is empty.
        conversations_table_name: name of the table of conversations.
        documents_table_name: name of the table of documents.
        metadata_fields: metadata keys of conversations that get their own columns: `<key>` holds
            the value of `metadata->>'key'`, and `<key>_type` the type of the value. Filters and
            sorts on these keys are then as fast as on any column. In an existing database, the
            columns are added and filled.
        batch_size: maximum number of records that a save or an import converts at a time, and
            maximum number of rows in a record batch of a scan. Smaller batches need less memory if
            records are large, but more time. The default of 100 selects the engine's own batch
            size, 2,048.
        lock_timeout: seconds to wait while another process has the file open.
        create: whether to create the database or its tables if they do not exist.

    Raises:
        UnsupportedURLError: the URL names another kind of database.
        SchemaMismatchError: a table with that name exists, with different columns; or `create` is
            false and the database does not have these tables.
        MissingFileError: the folder of the file does not exist; or `create` is false and the file
            does not exist.
        LockTimeoutError: another process had the file open for all of `lock_timeout`.
        DatabaseError: the file is not a DuckDB database.

    >>> from afterimage.storage import Conversation
    >>> store = SQLStorage("duckdb:///:memory:", metadata_fields=["domain"])
    >>> talk = [{"role": "user", "content": "To Rome, please."}]
    >>> store.save_conversations([Conversation(conversations=talk, metadata={"domain": "Flights"})])
    >>> with store.engine.connect() as connection:
    ...     connection.exec_driver_sql("SELECT domain, content FROM conversations, messages").all()
    [('Flights', 'To Rome, please.')]
    """

    _backend: TablesBackend

    @signal_safe
    def __init__(
        self,
        url: str | Path,
        conversations_table_name: str = "conversations",
        documents_table_name: str = "documents",
        metadata_fields: list[str] | None = None,
        batch_size: int = _DEFAULT_BATCH,
        *,
        lock_timeout: float = 30,
        create: bool = True,
    ) -> None:
        keys = _metadata_keys(metadata_fields)
        self.batch_size = positive(batch_size, "batch_size")
        catalog = catalog_of(url, lock_timeout)
        layout = Layout(
            conversations_table_name, documents_table_name, compress=catalog.column_compression
        )
        tables = StorageTables(layout, keys, may_create=create)
        database = open_database(catalog, tables, create=create)
        rows = None if batch_size == _DEFAULT_BATCH else self.batch_size
        super().__init__(TablesBackend(database, layout, rows))

    @property
    def engine(self) -> sa.Engine:
        """The SQLAlchemy engine, for your own SQL and for `pandas.read_sql`."""
        return self._backend.database.engine

    def __repr__(self) -> str:
        return f"SQLStorage({self._backend.database.name!r})"


def _metadata_keys(metadata_fields: Sequence[str] | None) -> list[str]:
    keys = list(as_list(metadata_fields, "metadata_fields"))
    if not all(isinstance(key, str) and is_text(key) for key in keys):
        raise InvalidQueryError(
            "metadata_fields must be a list of metadata keys, not "
            f"{shorten(ascii(metadata_fields), 80)}"
        )
    return list(dict.fromkeys(keys))
