"""`SQLStorage`: records in a columnar DuckDB database, accessed through SQLAlchemy."""

from __future__ import annotations

import datetime as dt
import os
from collections.abc import Sequence
from typing import Any, Final

import sqlalchemy as sa

from afterimage.storage.engine.attach import Opened
from afterimage.storage.engine.catalogs import catalog_of
from afterimage.storage.errors import InvalidQueryError, StorageError, shorten
from afterimage.storage.query.arguments import as_list, positive, seconds
from afterimage.storage.record_storage import RecordStorage
from afterimage.storage.records.paths import is_text
from afterimage.storage.reports.snapshots import Snapshot
from afterimage.storage.system.interrupts import signal_safe
from afterimage.storage.tables.backend import TablesBackend
from afterimage.storage.tables.opening import open_tables
from afterimage.storage.tables.schema.layout import Layout

__all__ = ["SQLStorage"]

# The default of the published API. Batches of 100 rows would make every save slower, so this value
# selects the engine's own batch size.
_DEFAULT_BATCH: Final = 100


class SQLStorage(RecordStorage):
    """Conversations and documents in a DuckDB file, in memory, or in a lake.

    Between calls the file is not locked, so the DuckDB CLI, notebooks and generators can use it in
    turn. The database has one table for conversations and one for documents, with native nested
    columns; a view `messages` with one row per message; and a table `records` for other models. If
    `conversations_table_name` is given, the latter two are `<name>_messages` and `<name>_records`.

    Args:
        url: `duckdb:///file.duckdb` or `duckdb:///:memory:`; or the path of a file, as `Path` or
            as a string that names an existing file or ends in `.duckdb`, `.ddb` or `.db`; or the
            URL of a lake, `ducklake+postgresql://…` (see docs/scale.md). A file or a lake that does
            not exist is created by the first save or import, or by the first connection of
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
        at: the version of a lake to read, or a time; see `snapshots`. Nothing can then be saved.

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
        url: str | os.PathLike[str],
        conversations_table_name: str = "conversations",
        documents_table_name: str = "documents",
        metadata_fields: list[str] | None = None,
        batch_size: int = _DEFAULT_BATCH,
        *,
        lock_timeout: float = 30,
        create: bool = True,
        at: int | dt.datetime | None = None,
    ) -> None:
        keys = _metadata_keys(metadata_fields)
        self._batch_size = positive(batch_size, "batch_size")
        create = create and at is None
        self._options = (conversations_table_name, documents_table_name, keys, create)
        self._at = at
        catalog = catalog_of(url, seconds(lock_timeout, "lock_timeout"), at)
        super().__init__(open_tables(catalog, *self._options))
        self.batch_size = batch_size

    @property
    def batch_size(self) -> int:
        """See the class; may be changed at any time."""
        return self._batch_size

    @batch_size.setter
    def batch_size(self, records: int) -> None:
        self._batch_size = positive(records, "batch_size")
        self._backend.batch_rows = None if records == _DEFAULT_BATCH else self._batch_size

    @property
    def engine(self) -> sa.Engine:
        """The SQLAlchemy engine, for your own SQL and for `pandas.read_sql`."""
        return self._backend.database.engine

    @signal_safe
    def snapshots(self) -> list[Snapshot]:
        """Return the versions of a lake, oldest first; none for a file.

        `SQLStorage(url, at=snapshot.version)` reads one of them.

        >>> SQLStorage("duckdb:///:memory:").snapshots()
        []
        """
        return self._backend.database.catalog.snapshots()

    def _lent(self) -> Opened:
        return self._backend.database.lent()

    def _layout(self) -> Layout:
        return self._backend.layout

    def __getstate__(self) -> dict[str, Any]:
        """Return what a copy in another process needs to open the same file.

        Raises:
            StorageError: the database is in memory.
        """
        catalog = self._backend.database.catalog
        if catalog.source is None:
            raise StorageError(
                f"{catalog.display_name} is in the memory of this process, so the storage cannot "
                "be copied, or sent to another process. Use a database file."
            )
        *names, create = self._options
        return {
            **self.__dict__,
            "_backend": (catalog.source, catalog.lock_timeout),
            # The copy creates no second database.
            "_options": (*names, create and not self._backend.database.exists()),
        }

    @signal_safe
    def __setstate__(self, state: dict[str, Any]) -> None:
        """Open the file of a storage that was copied or sent from another process.

        Raises:
            StorageError: as the constructor.
        """
        source, lock_timeout = state["_backend"]
        self._at = None  # in a copy of an earlier version
        self.__dict__.update(state)
        self._backend = open_tables(catalog_of(source, lock_timeout, self._at), *self._options)
        self.batch_size = self._batch_size

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
