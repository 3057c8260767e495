"""`Database`: connections to the database of a catalog, one for each call."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cached_property
from typing import Protocol

import sqlalchemy as sa

from afterimage.storage.engine.attach import Opened, connect_memory
from afterimage.storage.engine.catalog import Catalog
from afterimage.storage.engine.catalogs import EmptyCatalog
from afterimage.storage.engine.dialect import OWN_URL, PUBLIC_URL, engine_over
from afterimage.storage.engine.statements import (
    driver_of,
    give_space_back,
    is_about_names,
    translated,
)
from afterimage.storage.engine.urls import MEMORY
from afterimage.storage.errors import DatabaseError, MissingFileError
from afterimage.storage.system.interrupts import checkpoint, interruptible

__all__ = ["MUCH_CACHED", "Database", "Tables", "open_database", "scratch_connection"]

MUCH_CACHED = 32 * 2**20
"""Bytes of a file that DuckDB may cache while the whole file is read or written."""

# A transaction that is rolled back may leave this much in the file, which the next one uses.
_LITTLE_GROWTH = 2**20


class Tables(Protocol):
    """The tables that a database must have."""

    def create(self, connection: sa.Connection) -> None:
        """Create them in an empty database."""

    def check_names(self) -> bool:
        """Check their names without a database; return whether they can surely be created."""

    def check(self, database: Database) -> None:
        """Check those of an existing database, and create or upgrade them if that is allowed."""

    def explain(self, database: Database) -> None:
        """Raise a `DatabaseError` that names what was changed in the tables, if anything was."""


class Database:
    """A DuckDB database. It need not exist: it is created by the first write.

    Until then, reads see an empty database in memory, so that a misspelt path leaves no file.

    Args:
        catalog: the location of the database.
        missing: the tables to create if the database does not exist; None if it exists.
        tables: the tables, to explain errors; None for no explanation.
    """

    def __init__(
        self, catalog: Catalog, missing: Tables | None = None, tables: Tables | None = None
    ) -> None:
        self.catalog = catalog
        self._missing = missing
        self._tables = tables
        self._own = engine_over(OWN_URL, catalog.connect)

    def _to_create(self) -> Tables | None:
        """Return the tables to create if the database does not exist.

        Another process may have created it meanwhile. Its tables are then checked.
        """
        tables = self._missing
        if tables is None or self.catalog.is_missing():
            return tables
        self.catalog.repeated(lambda: tables.check(Database(self.catalog)))
        self._missing = None
        return None

    def _create(self) -> None:
        """Create the database if it does not exist."""
        tables = self._to_create()
        if tables is None:
            return
        # Several threads may do this at the same time: only the first file is kept.
        if self.catalog.create(lambda catalog: _make(Database(catalog), tables)):
            self._missing = None
        elif self._to_create() is not None:
            raise DatabaseError(
                f"{self.name} was removed while it was created. Nothing was saved. Try again."
            )

    def exists(self) -> bool:
        """Return whether the database exists. If not, the first write creates it."""
        return self._to_create() is None

    @property
    def name(self) -> str:
        """The name of the database in messages."""
        return self.catalog.display_name

    @cached_property
    def engine(self) -> sa.Engine:
        """The SQLAlchemy engine for the users' SQL. Each connection is private."""

        def connect() -> Opened:
            self._create()
            return self.catalog.connect(private=True)

        return engine_over(PUBLIC_URL, connect)

    @contextmanager
    def reading(self, *, private: bool = False) -> Iterator[sa.Connection]:
        """Open a connection that sees one state of the database.

        Args:
            private: see `Catalog.connect`; opening the database then takes longer.
        """
        if (tables := self._to_create()) is not None:
            with _empty(tables) as empty, empty.reading() as connection:
                yield connection
            return
        engine = self.engine if private else self._own
        with (
            self._explained(),
            translated(self.name),
            engine.connect() as connection,
            interruptible(driver_of(connection).interrupt),
        ):
            self.catalog.begin_reading(connection)
            if private:  # the shared instance already has this setting
                connection.exec_driver_sql("SET arrow_large_buffer_size = true")
            yield connection

    def lent(self) -> Opened:
        """Open a read-only connection for SQL of users, to the database as it is now."""
        if (tables := self._to_create()) is not None:
            with _empty(tables) as empty:
                return empty.lent()
        with translated(self.name):
            return self.catalog.repeated(self.catalog.lent)

    @contextmanager
    def writing(self, *, alone: bool = False) -> Iterator[sa.Connection]:
        """A connection whose changes are all committed at the end, or none of them.

        Args:
            alone: whether tables, columns or rows are changed. No rows are appended meanwhile.
        """
        self._create()
        with (
            self._explained(),
            self.catalog.write_turn(alone=alone),
            translated(self.name),
            self._own.connect() as connection,
            self._space_given_back(connection),
            self.catalog.transaction(connection),  # its commit is not interrupted
            interruptible(driver_of(connection).interrupt),
        ):
            yield connection

    @contextmanager
    def appending(self, prepare: Callable[[sa.Connection], None]) -> Iterator[sa.Connection]:
        """A connection for `Catalog.append`. All rows are committed at the end, or none of them.

        Args:
            prepare: see `Catalog.appending`.
        """
        self._create()
        with (
            self._explained(),
            self.catalog.write_turn(appends=True),
            translated(self.name),
            self._own.connect() as connection,
            self._space_given_back(connection),
            self.catalog.appending(connection, prepare),  # its commit is not interrupted
            interruptible(driver_of(connection).interrupt),
        ):
            yield connection

    def compact(self) -> None:
        """Write the file again without unused space, or merge the small files of a lake."""
        if not self.exists():
            return
        with translated(self.name):
            self.catalog.rewrite()
        for statements in self.catalog.compaction:
            with self.writing() as connection:
                for statement in statements:
                    checkpoint()
                    connection.exec_driver_sql(statement)

    @contextmanager
    def _space_given_back(self, connection: sa.Connection) -> Iterator[None]:
        """Make the file as small as before if the block fails: the disk may be full."""
        size = 0 if self.catalog.path is None else self.catalog.size()
        try:
            yield
        except BaseException:
            if self.catalog.path is not None and self.catalog.size() > size + _LITTLE_GROWTH:
                give_space_back(driver_of(connection))
            raise

    @contextmanager
    def _explained(self) -> Iterator[None]:
        """Name what was changed with SQL if a statement finds no table or column of a name."""
        try:
            yield
        except DatabaseError as error:
            if self._tables is not None and is_about_names(error):
                self._tables.explain(Database(self.catalog))
            raise

    def trim_cache(self, connection: sa.Connection, most: int = MUCH_CACHED) -> None:
        """Have DuckDB drop cached blocks of the file where they exceed `most` bytes.

        Call it between statements.
        """
        self.catalog.trim_cache(driver_of(connection), most)


def open_database(catalog: Catalog, tables: Tables, *, create: bool) -> Database:
    """Open a database. One that does not exist is created by the first write.

    Args:
        catalog: the location of the database.
        tables: the tables that it must have.
        create: whether the database may be created.

    Raises:
        MissingFileError: the folder of the file does not exist; or the file does not, and `create`
            is false.
        LockTimeoutError: another process had the file open for all of `lock_timeout`.
        DatabaseError: the file is not a DuckDB database, or cannot be opened or created.
    """
    if not catalog.is_missing():
        catalog.repeated(lambda: tables.check(Database(catalog)))
        return Database(catalog, tables=tables)
    if not create and not catalog.is_in_memory:
        raise MissingFileError(
            f"{catalog.display_name} does not exist. Check the path, or open it with create=True."
        )
    if catalog.is_in_memory:
        if create:
            _make(Database(catalog), tables)
        else:
            tables.check(Database(catalog))
        return Database(catalog, tables=tables)
    if not tables.check_names():
        with _empty(tables):  # fails for tables that cannot be created
            pass
    return Database(catalog, tables, tables)


@contextmanager
def _empty(tables: Tables) -> Iterator[Database]:
    """Provide an empty database in memory with the tables."""
    catalog = EmptyCatalog()
    _, release = catalog.connect()  # keeps it
    try:
        _make(database := Database(catalog), tables)
        yield database
    finally:
        release()


def _make(database: Database, tables: Tables) -> None:
    with database.writing(alone=True) as connection:
        tables.create(connection)


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
