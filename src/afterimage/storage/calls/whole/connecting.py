"""Give a read-only DuckDB connection."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from afterimage.storage.calls.merging import MergingCalls
from afterimage.storage.system.interrupts import deferred_signals

if TYPE_CHECKING:  # importing the JSONL storage must not load DuckDB
    from afterimage.storage.engine.attach import Connection, Opened

__all__ = ["ConnectingCalls"]


class ConnectingCalls(MergingCalls):
    """The method that gives a connection."""

    @contextmanager
    def connect(self) -> Iterator[Connection]:
        """Give a read-only DuckDB connection in a `with` block, for your own SQL.

        It has the tables of an `SQLStorage` and the view `messages`, with the records as they are
        when the block begins. It reads a copy, so that this storage and other processes go on
        saving during the block; nothing that is saved appears in it. The copy of a database takes
        as long as the copy of its file, and longer if this process has the file open; from JSON
        lines, all records are imported first. A lake is not copied: one of its versions is read.

        Python variables are not tables: `connection.register("name", frame)` makes one of them.

        Raises:
            LockTimeoutError: another process held the file for all of `lock_timeout`.
            CorruptRecordError: a line of a JSONL file is not a valid record.
            StorageError: there is no space for the copy.

        >>> from afterimage.storage import Conversation, SQLStorage
        >>> store = SQLStorage("duckdb:///:memory:")
        >>> talk = [{"role": "user", "content": "To Rome, please."}]
        >>> store.save_conversations([Conversation(conversations=talk)])
        >>> with store.connect() as connection:
        ...     connection.execute("SELECT role, content FROM messages").fetchall()
        [('user', 'To Rome, please.')]
        """
        with deferred_signals() as signals:
            connection, release = self._lent()
            signals.undo = release
        try:
            yield connection
        finally:
            with deferred_signals():
                release()

    def _lent(self) -> Opened:
        """Open a connection to a temporary database into which all records are imported."""
        from afterimage.storage.engine.catalogs import NewFileCatalog  # noqa: PLC0415  heavy
        from afterimage.storage.engine.copies.lent import new_copy, open_copy  # noqa: PLC0415  heavy
        from afterimage.storage.tables.opening import open_tables  # noqa: PLC0415  heavy

        with new_copy() as path:
            tables = open_tables(NewFileCatalog(path, self._name()))
            MergingCalls(tables).import_store(self, skip_existing=False)
            return open_copy(path) if tables.database.exists() else tables.database.lent()
