"""The SQLAlchemy dialect of this package's own statements, and DuckDB types by name."""

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
"""For statements of this package."""
PUBLIC_URL: Final = "duckdb://"
"""For SQL that users write; it is duckdb-engine's own dialect."""


class SqlType(sa.types.UserDefinedType[Any]):
    """A type by its name in DuckDB; values pass as they are.

    >>> str(sa.cast(sa.column("n"), SqlType("HUGEINT")))
    'CAST(n AS HUGEINT)'
    """

    cache_ok = True

    def __init__(self, name: str) -> None:
        self.name = name

    def get_col_spec(self, **_: Any) -> str:
        return self.name


def engine_over(url: str, connect: Callable[[], Opened]) -> sa.Engine:
    """An SQLAlchemy engine that opens the database for each connection and closes it after."""
    return sa.create_engine(url, creator=lambda: _Connection(*connect()), poolclass=NullPool)


class _Preparer(duckdb_engine.DuckDBIdentifierPreparer):
    """Quotes every name, so that DuckDB need not be asked for its keywords first."""

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
    """A connection whose `close` also detaches the file, where it was the last one."""

    def __init__(self, connection: duckdb.DuckDBPyConnection, release: Release) -> None:
        super().__init__(connection)
        self._release = release

    def close(self) -> None:
        self._release()
