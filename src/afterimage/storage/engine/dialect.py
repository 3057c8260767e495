"""The SQLAlchemy dialect for this package's own statements, and DuckDB types by name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import duckdb
import duckdb_engine
import sqlalchemy as sa
from sqlalchemy.dialects.postgresql.base import PGIdentifierPreparer
from sqlalchemy.pool import NullPool

from afterimage.storage.engine.attach import Opened, Release

__all__ = ["OWN_URL", "PUBLIC_URL", "SqlType", "engine_over"]

_DRIVER: Final = "afterimage"
OWN_URL: Final = f"duckdb+{_DRIVER}://"
"""URL of the dialect for statements of this package."""
PUBLIC_URL: Final = "duckdb://"
"""URL of the dialect for the users' SQL: the one of duckdb-engine."""


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


def engine_over(url: str, connect: Callable[[], Opened]) -> sa.Engine:
    """Return an SQLAlchemy engine whose connections each open the database and close it again."""
    return sa.create_engine(url, creator=lambda: _Connection(*connect()), poolclass=NullPool)


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
        self._release = release

    def close(self) -> None:
        self._release()
