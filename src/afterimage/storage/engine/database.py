"""`Database`: connections to the database of a catalog, one for each call."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from typing import Protocol

import sqlalchemy as sa

from afterimage.storage.engine.attach import connect_memory
from afterimage.storage.engine.catalog import Catalog
from afterimage.storage.engine.dialect import OWN_URL, PUBLIC_URL, engine_over
from afterimage.storage.engine.statements import driver_of, translated
from afterimage.storage.engine.urls import MEMORY
from afterimage.storage.system.interrupts import interruptible

__all__ = ["MUCH_CACHED", "Database", "MakeTables", "open_database", "scratch_connection"]

MUCH_CACHED = 32 * 2**20
"""Bytes of a file that DuckDB may cache while the whole file is read or written."""


class MakeTables(Protocol):
    """Creates the tables of a database; `is_new` is true if it is known to be empty."""

    def __call__(self, connection: sa.Connection, *, is_new: bool) -> None: ...


class Database:
    """A DuckDB database.

    Attributes:
        catalog: the location of the database.
        is_new: whether this object created the database and its tables.
    """

    def __init__(self, catalog: Catalog) -> None:
        self.catalog = catalog
        self.is_new = False
        self._own = engine_over(OWN_URL, catalog.connect)

    @property
    def name(self) -> str:
        """The name of the database in messages."""
        return self.catalog.display_name

    @cached_property
    def engine(self) -> sa.Engine:
        """The SQLAlchemy engine for the users' SQL. Each connection is private."""
        return engine_over(PUBLIC_URL, lambda: self.catalog.connect(private=True))

    @contextmanager
    def reading(self, *, private: bool = False) -> Iterator[sa.Connection]:
        """Open a connection that sees one state of the database.

        Args:
            private: see `Catalog.connect`; opening the database then takes longer.
        """
        engine = self.engine if private else self._own
        with (
            translated(self.name),
            engine.connect() as connection,
            interruptible(driver_of(connection).interrupt),
        ):
            if private:  # the shared instance already has this setting
                connection.exec_driver_sql("SET arrow_large_buffer_size = true")
            yield connection

    @contextmanager
    def writing(self) -> Iterator[sa.Connection]:
        """A connection whose changes are all committed at the end, or none of them."""
        with (
            self.catalog.write_turn(),
            translated(self.name),
            self._own.begin() as connection,  # its commit is not interrupted
            self.catalog.same_place(),
            interruptible(driver_of(connection).interrupt),
        ):
            yield connection

    def trim_cache(self, connection: sa.Connection, most: int = MUCH_CACHED) -> None:
        """Have DuckDB drop cached blocks of the file where they exceed `most` bytes.

        Call it between statements.
        """
        self.catalog.trim_cache(driver_of(connection), most)


def open_database(catalog: Catalog, make: MakeTables | None = None) -> Database:
    """Open a database; create it if `make` is given and it does not exist.

    Args:
        catalog: the location of the database.
        make: creates the tables of a new database. Without it, no file is created.

    Raises:
        MissingFileError: the folder of the file does not exist.
        LockTimeoutError: another process had the file open for all of `lock_timeout`.
        DatabaseError: the file is not a DuckDB database, or cannot be opened.
    """
    database = Database(catalog)
    if make is not None:

        def make_tables(is_empty: bool) -> None:  # noqa: FBT001  a callback
            with database.writing() as connection:
                make(connection, is_new=is_empty)

        database.is_new = catalog.create(make_tables)
    return database


@contextmanager
def scratch_connection() -> Iterator[sa.Connection]:
    """A connection to no database, for queries over Arrow data that is registered with it."""
    with (
        translated(MEMORY),
        _scratch.connect() as connection,
        interruptible(driver_of(connection).interrupt),
    ):
        yield connection


_scratch = engine_over(OWN_URL, connect_memory)
