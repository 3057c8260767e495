"""`Catalog`: the location of a database, in a file, in the memory of this process or in a lake.

A catalog implements the operations that differ: connect, lock for writing, number rows, create the
database. `tables/` uses the protocol and never checks the class of a catalog.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Protocol, TypeVar

import duckdb
import sqlalchemy as sa

from afterimage.storage.engine.attach import (
    Opened,
)
from afterimage.storage.reports.snapshots import Snapshot

__all__ = ["Catalog"]

_Result = TypeVar("_Result")


class Catalog(Protocol):
    """The location of a database.

    Attributes:
        display_name: name of the database in messages; never contains a password.
        path: the database file; None if there is none.
        lock_timeout: seconds to wait for other writers and processes.
        column_compression: whether columns can be declared with a compression method.
        compaction: statements that merge small files, in transactions of their own.
        numbers_rows: whether the engine numbers the rows, in the order of their commits.
        is_in_memory: whether the database is in the memory of this process.
        source: the URL or path that opens the database in another process; None if none does.
    """

    display_name: str
    path: Path | None
    lock_timeout: float
    column_compression: bool
    numbers_rows: bool
    compaction: Sequence[Sequence[str]]
    is_in_memory: bool
    source: str | Path | None

    def connect(self, *, private: bool = False) -> Opened:
        """Open the database.

        Args:
            private: open it as `duckdb.connect` does. Settings and statements on the connection
                then affect no other connection of this package, and other code of this process
                can open the file at the same time.
        """

    def lent(self) -> Opened:
        """Open a read-only connection to the state of now, whose end no writer waits for."""

    def write_turn(
        self, *, appends: bool = False, alone: bool = False
    ) -> AbstractContextManager[None]:
        """Hold the writer lock, so that each sequence number is assigned once.

        Args:
            appends: whether rows are only appended. Several processes can append to a lake.
            alone: whether no rows may be appended meanwhile: tables, columns or rows change.

        Raises:
            LockTimeoutError: another thread held it for all of `lock_timeout`.
            DatabaseError: the database must not be written, because it has hard links.
        """

    def begin_reading(self, connection: sa.Connection) -> None:
        """Prepare a new connection for reads; wait for a server that is not ready."""

    def repeated(self, read: Callable[[], _Result]) -> _Result:
        """Return what a function returns; call it again if a connection to a server is lost."""

    def transaction(self, connection: sa.Connection) -> AbstractContextManager[None]:
        """Commit the changes of the block at its end, or none of them.

        Raises:
            ReplacedFileError: the file was replaced or removed during the block.
        """

    def appending(
        self, connection: sa.Connection, prepare: Callable[[sa.Connection], None]
    ) -> AbstractContextManager[None]:
        """Commit the rows that the block appends at its end, or none of them.

        Args:
            connection: a connection. The block only calls `append` and reads other data.
            prepare: reads what the block needs to know of the tables. It may be called again.

        Raises:
            ReplacedFileError: the file was replaced or removed during the block.
        """

    def append(self, connection: sa.Connection, table: sa.Table, rows: sa.Select[Any]) -> None:
        """Append the rows of a statement to a table, in their order.

        The connection is that of a `transaction` or of `appending`. The statement has the names of
        the columns.
        """

    def next_number(self, connection: sa.Connection, sequence: sa.ColumnElement[int]) -> int:
        """Return the first sequence number for new rows of a table; call it in `write_turn`."""

    def snapshots(self) -> list[Snapshot]:
        """Return the versions that can be opened, oldest first; none if it has none."""

    def is_missing(self) -> bool:
        """Return whether the database does not exist and `create` can create it.

        Raises:
            MissingFileError: it does not exist, and neither does its folder.
            DatabaseError: it does not exist and cannot be created, or cannot be accessed.
            InvalidQueryError: no file can have its path.
        """

    def create(self, make: Callable[[Catalog], None]) -> bool:
        """Create the database, if `is_missing`.

        Args:
            make: creates the tables in a new, empty database. The database appears complete after
                the call, or not at all.

        Returns:
            Whether the database is the one with the tables of `make`. Otherwise another process
            created it at the same time.
        """

    def tables_made(self, tables: Sequence[str]) -> None:
        """Set the options of new tables, given their names."""

    def size(self) -> int:
        """Return the size of the database in bytes, with open transactions; 0 if unknown."""

    def rewrite(self) -> None:
        """Write the database again without unused space, if it has a file of its own."""

    def trim_cache(self, driver: duckdb.DuckDBPyConnection, most: int) -> None:
        """Make DuckDB drop cached blocks if they exceed `most` bytes."""
