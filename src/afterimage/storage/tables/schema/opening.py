"""Open the tables of a database: create, check, upgrade or repair them."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass

import sqlalchemy as sa

from afterimage.storage.engine.database import Database
from afterimage.storage.errors import DatabaseError, SchemaMismatchError
from afterimage.storage.system.package import log
from afterimage.storage.tables.schema.layout import Layout

__all__ = ["StorageTables"]


@dataclass(frozen=True)
class StorageTables:
    """The tables of one storage, as the engine opens them.

    Attributes:
        layout: the tables.
        metadata_fields: metadata keys of conversations that must have their own columns.
        may_create: whether missing tables and columns may be created in an existing database.
    """

    layout: Layout
    metadata_fields: Sequence[str]
    may_create: bool

    def create(self, connection: sa.Connection) -> None:
        """Create the tables in an empty database.

        Raises:
            SchemaMismatchError: a metadata key cannot get a column.
        """
        self.layout.create(connection, self.metadata_fields, is_new=True)

    def check_names(self) -> bool:
        """Check the names without a database; return whether the tables can surely be created.

        Raises:
            SchemaMismatchError: a metadata key cannot get a column.
        """
        names = [*(table.name for table in self.layout.all), *self.metadata_fields]
        if not all(name.isascii() and name.isidentifier() for name in names):
            return False
        self.layout.name_columns(self.metadata_fields)
        return True

    def check(self, database: Database) -> None:
        """Check the tables of an existing database; create or upgrade them if that is allowed.

        Raises:
            SchemaMismatchError: a table has other columns, or was written by a newer version; or
                tables are missing and may not be created.
        """
        with database.reading() as connection:
            ready = self.layout.is_ready(connection, self.metadata_fields)
        if ready:
            if self.may_create and (self.layout.lost_columns or self.layout.has_old_view):
                # The database may be read-only.
                with suppress(DatabaseError):
                    with database.writing(alone=True) as connection:
                        self.layout.create(connection, self.metadata_fields)
                    log.info("%s: updated its view of messages and its columns", database.name)
            return
        if not self.may_create:
            raise SchemaMismatchError(
                f"the DuckDB database {database.name} has no storage tables named "
                f"{self.layout.conversations.name!r} and {self.layout.documents.name!r}. Give the "
                "names of existing tables, or open it with create=True to create them."
            )
        with database.writing(alone=True) as connection:
            has_new = self.layout.create(connection, self.metadata_fields)
        if has_new:
            database.catalog.tables_made(self.layout.stored_names)

    def explain(self, database: Database) -> None:
        """Check the tables after a statement failed: they may have been changed with SQL.

        Raises:
            DatabaseError: they were.
        """
        try:
            with database.reading() as connection:
                self.layout.check(connection)
        except SchemaMismatchError as error:
            raise DatabaseError(f"{database.name}: {error}") from error
        if self.layout.lost_columns:
            raise DatabaseError(
                f"{database.name}: columns of metadata fields were dropped, renamed or changed "
                "with SQL. Nothing was saved. Open the storage again: it then works without "
                "these columns."
            )
