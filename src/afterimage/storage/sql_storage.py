"""`SQLStorage`: records in a DuckDB database, columnar, behind SQLAlchemy."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Final

import sqlalchemy as sa

from afterimage.storage.engine.database import open_database
from afterimage.storage.errors import InvalidQueryError, SchemaMismatchError, shorten
from afterimage.storage.query.arguments import as_list, positive
from afterimage.storage.record_storage import RecordStorage
from afterimage.storage.records.paths import is_text
from afterimage.storage.tables.backend import TablesBackend
from afterimage.storage.tables.layout import Layout

__all__ = ["SQLStorage"]

# The default of the published API. Batches of this size would make every save slower, so it stands
# for the engine's own size.
_DEFAULT_BATCH: Final = 100


class SQLStorage(RecordStorage):
    """Conversations and documents in a DuckDB file, or in memory.

    Between calls the file is not locked, so that the DuckDB CLI, notebooks and generators can use
    it in turn. The database has the tables of conversations and documents with native nested
    columns, a view `messages` with one row for each message, and a table `records` for other models
    (with a table name of your own: `<name>_messages`, `<name>_records`).

    Args:
        url: `duckdb:///file.duckdb` or `duckdb:///:memory:`.
        conversations_table_name: name of the conversations' table.
        documents_table_name: name of the documents' table.
        metadata_fields: metadata keys of conversations that get columns of their own: `<key>`
            holds what `metadata->>'key'` gives and `<key>_type` the type of the value. Filters and
            sorts on them then cost what a column costs. An existing database gets them filled in.
        batch_size: the most records that a save or an import converts at a time, and that a record
            batch of a scan has. Smaller batches need less memory where records are large, and more
            time. The default, 100, stands for the engine's own size, 2,048.
        lock_timeout: seconds to wait while another process has the file open.
        create: whether to make a database, or tables, that are not there yet.

    Raises:
        UnsupportedURLError: the URL names another kind of database.
        SchemaMismatchError: a table of that name is there, with other columns; or, without
            `create`, the database has no such tables.
        MissingFileError: the file's folder does not exist; or, without `create`, the file.
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

    def __init__(
        self,
        url: str,
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
        layout = Layout(conversations_table_name, documents_table_name)
        make = partial(layout.create, metadata_fields=keys) if create else None
        database = open_database(url, lock_timeout, make)
        if not database.is_new:
            with database.reading() as connection:
                ready = layout.is_ready(connection, keys)
            if not (ready or create):
                raise SchemaMismatchError(
                    f"{database.name} is a DuckDB database without a store in the tables "
                    f"{conversations_table_name!r} and {documents_table_name!r}. Name other "
                    "tables, or open it with create=True to make them."
                )
            if not ready:
                with database.writing() as connection:
                    layout.create(connection, keys)
        rows = None if batch_size == _DEFAULT_BATCH else batch_size
        super().__init__(TablesBackend(database, layout, rows))

    @property
    def engine(self) -> sa.Engine:
        """The SQLAlchemy engine, for SQL by hand and for `pandas.read_sql`."""
        return self._backend.database.engine

    def __repr__(self) -> str:
        return f"SQLStorage({self._backend.database.name!r})"


def _metadata_keys(metadata_fields: Sequence[str] | None) -> list[str]:
    keys = list(as_list(metadata_fields, "metadata_fields"))
    if not all(isinstance(key, str) and is_text(key) for key in keys):
        raise InvalidQueryError(
            f"metadata_fields is a list of metadata keys, not {shorten(ascii(metadata_fields), 80)}"
        )
    return list(dict.fromkeys(keys))
