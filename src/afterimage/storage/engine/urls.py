"""Database URLs: `duckdb:///file.duckdb` and `duckdb:///:memory:`, and paths in their place."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Final

import sqlalchemy as sa

from afterimage.storage.errors import UnsupportedURLError, shorten

__all__ = ["DATABASE_SUFFIXES", "MEMORY", "database_name", "is_lake", "path_without_scheme"]

DATABASE_SUFFIXES: Final = (".duckdb", ".ddb", ".db")
"""Endings of names of database files."""

MEMORY = ":memory:"
"""Name of a database in memory. With a suffix, several storages can share the database."""

# `md:`, `s3:`, `ducklake:`. A single letter is a Windows drive.
_HAS_SCHEME = re.compile(r"[a-z][a-z0-9+.-]+:", re.I)


def path_without_scheme(text: str) -> Path | None:
    """Return a string as the path of a database file; None if it is not a path but a URL.

    Only an existing file, or a name that ends as those of databases do, is a path: any other string
    may be a misspelt URL.

    >>> path_without_scheme("talks.duckdb").name, path_without_scheme("duckdb:/talks.duckdb")
    ('talks.duckdb', None)
    """
    if not isinstance(text, str) or "://" in text or _HAS_SCHEME.match(text):
        return None
    is_named = text.lower().endswith(DATABASE_SUFFIXES)
    return Path(text) if is_named or os.path.isfile(text) else None  # noqa: PTH113  also with NUL


_IS_LAKE = re.compile(r"ducklake(\+[a-z0-9]*)?:", re.I)


def is_lake(url: str) -> bool:
    """Return whether a URL names a lake.

    >>> is_lake("ducklake:///lake.ducklake"), is_lake("duckdb:///talks.duckdb")
    (True, False)
    """
    return isinstance(url, str) and _IS_LAKE.match(url) is not None


def database_name(url: str) -> str:
    """Return the path of the database file, or the name of the database in memory.

    Raises:
        UnsupportedURLError: it is not a database URL, or names another kind of database.

    >>> database_name("duckdb:///talks.duckdb"), database_name("duckdb://")
    ('talks.duckdb', ':memory:')
    """
    try:
        parsed = sa.make_url(url)
    except (sa.exc.ArgumentError, AttributeError):
        raise UnsupportedURLError(
            f"{shorten(repr(url), 80)} is neither a database URL nor a DuckDB file. Give "
            "'duckdb:///file.duckdb', 'duckdb:///:memory:' or the path of a file that ends in "
            ".duckdb."
        ) from None
    database = parsed.database or ""
    if parsed.get_backend_name() != "duckdb" or _HAS_SCHEME.match(database):
        kind = parsed.get_backend_name() if parsed.get_backend_name() != "duckdb" else database
        raise UnsupportedURLError(
            f"SQLStorage does not support {shorten(kind, 60)!r} databases. Supported: "
            "'duckdb:///file.duckdb' and 'duckdb:///:memory:'. Save to a DuckDB file, and copy "
            "the data to other databases with DuckDB's ATTACH or with export_parquet."
        )
    if parsed.host or parsed.username or parsed.drivername != "duckdb":
        raise UnsupportedURLError(
            f"{shorten(parsed.render_as_string(), 80)!r} names a server or a driver. Give "
            "'duckdb:///file.duckdb' (three slashes, four for an absolute path)."
        )
    if not parsed.query and isinstance(url, str) and "?" in url:
        raise UnsupportedURLError(
            f"{shorten(url, 80)!r} has a query part that is not understood. If the '?' is a part "
            "of the file name, give a Path instead of a URL."
        )
    if parsed.query:
        raise UnsupportedURLError(
            f"options in the URL are not supported ({', '.join(parsed.query)}): all connections of "
            "a process to one file share them. Set them with SQL on `engine` instead."
        )
    return database or MEMORY
