"""The DuckDB instance that database files are attached to, and the connections of this process."""

from __future__ import annotations

import itertools
import weakref
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import duckdb

from afterimage.storage.engine.urls import MEMORY
from afterimage.storage.system.atomic_files import temporary_name
from afterimage.storage.system.targets import unicode_path

__all__ = ["NO_PYTHON_VARIABLES", "Instance", "connected", "cursor_of", "live", "quoted"]

# Zstandard text is written in half the time of DuckDB's own choice of compression, and is as small.
# A commit of more than a megabyte is checkpointed immediately instead of first written to the log.
# Arrow data has 64-bit offsets: 32-bit offsets fail for more than 2 GiB of text in one batch.
_SETTINGS: Final = {
    "force_compression": "zstd",
    "wal_autocheckpoint": "1MB",
    "arrow_large_buffer_size": "true",
}

# A table with the name of a Python variable is not the variable.
NO_PYTHON_VARIABLES: Final = "python_enable_replacements = false"

live: weakref.WeakSet[duckdb.DuckDBPyConnection] = weakref.WeakSet()
"""The connections of this process that keep a database open."""


@dataclass
class _Attached:
    alias: str
    root: duckdb.DuckDBPyConnection
    users: int = 0


class Instance:
    """The DuckDB instance that files are attached to; use it under a lock."""

    def __init__(self) -> None:
        self._root: duckdb.DuckDBPyConnection | None = None
        self._attached: dict[str, _Attached] = {}
        self._numbers = itertools.count(1)

    def has(self, path: str) -> bool:
        return path in self._attached

    def cursor(self) -> duckdb.DuckDBPyConnection:
        """Return a connection to no file; start a new instance if a damaged file ended this one."""
        cursor = cursor_of(self._running())
        try:
            cursor.execute("SELECT 1").fetchall()
        except duckdb.FatalException:
            self._root = None
            cursor = cursor_of(self._running())
        return cursor

    def _running(self) -> duckdb.DuckDBPyConnection:
        if self._root is None:
            self._root = connected(MEMORY)
            for name, value in _SETTINGS.items():
                self._root.execute(f"SET {name} = '{value}'")
            self._root.execute(f"SET GLOBAL {NO_PYTHON_VARIABLES}")
            # Sorts that exceed the memory spill into this folder; DuckDB creates and removes it.
            spill = temporary_name() or ""  # without a folder, DuckDB needs enough memory
            self._root.execute(f"SET temp_directory = {quoted(unicode_path(spill))}")
            live.add(self._root)
        return self._root

    def connect(self, path: str, options: str) -> duckdb.DuckDBPyConnection:
        """Return a connection to a file; attach the file if it is not attached yet."""
        held = self._attached.get(path)
        if held is None:
            try:
                held = self._attach(path, options)
            except duckdb.FatalException:
                self._root = None
                held = self._attach(path, options)
            self._attached[path] = held
        cursor = cursor_of(held.root)
        cursor.execute(f"USE {held.alias}")
        held.users += 1
        return cursor

    def _attach(self, path: str, options: str) -> _Attached:
        held = _Attached(f"file_{next(self._numbers)}", self._running())
        name = MEMORY if path.startswith(MEMORY) else path  # the path of a file is absolute
        held.root.execute(f"ATTACH {quoted(unicode_path(name))} AS {held.alias} ({options})")
        return held

    def release(self, path: str, cursor: duckdb.DuckDBPyConnection) -> None:
        cursor.close()
        held = self._attached[path]
        held.users -= 1
        if held.users:
            return
        del self._attached[path]
        try:
            held.root.execute(f"DETACH {held.alias}")
        except duckdb.Error:  # drop the instance: it closes all its files with its last connection
            if self._root is held.root:
                self._root = None


def cursor_of(root: duckdb.DuckDBPyConnection) -> duckdb.DuckDBPyConnection:
    """Return another connection to the instance of a connection."""
    cursor = root.cursor()
    live.add(cursor)
    return cursor


def connected(name: str, *, read_only: bool = False) -> duckdb.DuckDBPyConnection:
    """Open an instance whose statements print no progress bar.

    DuckDB prints one on the standard output of a program without a main file, such as `python -c`.
    """
    connection = duckdb.connect(unicode_path(name), read_only=read_only)
    with suppress(duckdb.InvalidInputException):  # in a notebook without ipywidgets, it is off
        connection.execute("SET enable_progress_bar = false")
    return connection


def quoted(value: str | Path) -> str:
    """Return a value as an SQL string, for statements in which DuckDB 1.5 accepts no parameters."""
    return "'" + str(value).replace("'", "''") + "'"
