"""The SQLAlchemy dialect for this package's own statements, DuckDB types by name, and lambdas."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import duckdb
import duckdb_engine
import sqlalchemy as sa
from sqlalchemy.dialects.postgresql.base import PGIdentifierPreparer
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.pool import NullPool

from afterimage.storage.engine.attach import Opened, Release
from afterimage.storage.system.interrupts import checkpoint, deferred_signals, interruptible

__all__ = ["OWN_URL", "PUBLIC_URL", "Lambda", "SqlType", "any_item", "engine_over"]

_DRIVER: Final = "afterimage"
OWN_URL: Final = f"duckdb+{_DRIVER}://"
"""URL of the dialect for statements of this package."""
PUBLIC_URL: Final = "duckdb://"
"""URL of the dialect for the users' SQL: the one of duckdb-engine."""
_ROWS_OF_A_PART: Final = 50_000


class SqlType(sa.types.UserDefinedType[Any]):
    """A DuckDB type by name. Values are passed to and from the driver unchanged.

    >>> str(sa.cast(sa.column("n"), SqlType("HUGEINT")))
    'CAST(n AS HUGEINT)'
    """

    cache_ok = True

    def __init__(self, name: str) -> None:
        self.name = name

    def get_col_spec(self, **_: Any) -> str:
        return self.name


class Lambda(sa.ColumnElement[Any]):
    """DuckDB's `lambda name: body`; the body can have bound values."""

    inherit_cache = False

    def __init__(self, name: str, body: sa.ColumnElement[Any]) -> None:
        self.name = name
        self.body = body


@compiles(Lambda)
def _lambda(element: Lambda, compiler: Any, **options: Any) -> str:
    return f"lambda {element.name}: {compiler.process(element.body, **options)}"


def any_item(
    items: sa.ColumnElement[Any], name: str, condition: sa.ColumnElement[bool]
) -> sa.ColumnElement[bool]:
    """Return whether a condition on the item `name` holds for an item of a list.

    NULL if the list is NULL.
    """
    each = sa.func.list_transform(items, Lambda(name, condition))
    return sa.func.list_contains(each, sa.true())


def engine_over(url: str, connect: Callable[[], Opened]) -> sa.Engine:
    """Return an SQLAlchemy engine whose connections each open the database and close it again."""

    def connected() -> _Connection:
        with deferred_signals() as signals:
            connection = _Connection(*connect())
            signals.undo = connection.close
        return connection

    return sa.create_engine(url, creator=connected, poolclass=NullPool)


class _Preparer(duckdb_engine.DuckDBIdentifierPreparer):
    """An identifier preparer that quotes every name, which saves a query for DuckDB's keywords."""

    def __init__(self, dialect: sa.Dialect, **options: Any) -> None:
        PGIdentifierPreparer.__init__(self, dialect, **options)

    def _requires_quotes(self, value: str) -> bool:
        del value
        return True


class _Dialect(duckdb_engine.Dialect):
    preparer = _Preparer
    supports_statement_cache = True


sa.dialects.registry.register(f"duckdb.{_DRIVER}", __name__, _Dialect.__name__)


class _Connection(duckdb_engine.ConnectionWrapper):
    """A connection whose `close` also detaches the file if no other connection uses it."""

    def __init__(self, connection: duckdb.DuckDBPyConnection, release: Release) -> None:
        super().__init__(connection)
        self._driver = connection
        self._release: Release | None = release

    def cursor(self) -> _Cursor:
        return _Cursor(self._driver, self)

    def close(self) -> None:
        with deferred_signals(resend=True):  # SQLAlchemy would only log an exception
            release, self._release = self._release, None
            if release is not None:
                release()


class _Cursor(duckdb_engine.CursorWrapper):
    """A cursor whose statements a signal can end.

    By itself, DuckDB would first go on with what its threads do, and then raise another exception.
    """

    def __init__(self, driver: duckdb.DuckDBPyConnection, connection: _Connection) -> None:
        super().__init__(driver, connection)
        self._driver = driver

    def execute(self, *arguments: Any) -> None:
        with deferred_signals(), interruptible(self._driver.interrupt):
            super().execute(*arguments)

    def executemany(self, *arguments: Any) -> None:
        with deferred_signals(), interruptible(self._driver.interrupt):
            super().executemany(*arguments)

    def fetchall(self) -> list[Any]:
        with deferred_signals(), interruptible(self._driver.interrupt):
            # In parts: while DuckDB makes the rows of one, nothing can end it.
            rows = part = self._driver.fetchmany(_ROWS_OF_A_PART)
            while len(part) == _ROWS_OF_A_PART:
                checkpoint()
                part = self._driver.fetchmany(_ROWS_OF_A_PART)
                rows += part
            return rows
