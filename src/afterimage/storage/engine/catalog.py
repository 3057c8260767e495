"""Catalogs: the places where a database lives. A file, and the memory of this process.

A catalog answers the questions that differ between places: how to connect, who may write, how rows
are numbered, whether columns are compressed. `tables/` asks it and never looks at its class.
"""

from __future__ import annotations

import os
import threading
import uuid
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Protocol

import duckdb
import sqlalchemy as sa

from afterimage.storage.engine.attach import (
    Opened,
    attach_new,
    connect,
    drop_cached_blocks,
    open_memory,
    put_in_place,
)
from afterimage.storage.engine.statements import fetch_all
from afterimage.storage.engine.urls import MEMORY
from afterimage.storage.errors import (
    DatabaseError,
    LockTimeoutError,
    MissingFileError,
    ReplacedFileError,
)
from afterimage.storage.system.file_identity import identity_of
from afterimage.storage.system.forks import at_fork

__all__ = ["Catalog", "FileCatalog", "MemoryCatalog"]


class Catalog(Protocol):
    """A place for a database.

    Attributes:
        display_name: its name in messages; never with a password.
        path: its file; None where it has none.
        lock_timeout: seconds to wait for other writers and processes.
        column_compression: whether a column can be declared with a compression.
    """

    display_name: str
    path: Path | None
    lock_timeout: float
    column_compression: bool

    def connect(self, *, private: bool = False) -> Opened:
        """Open the database.

        Args:
            private: open it as `duckdb.connect` does, so that whatever happens on the connection
                reaches nothing else, and other code of this process can open the file meanwhile.
        """

    def write_turn(self) -> AbstractContextManager[None]:
        """Hold the right to write, so that sequence numbers are given out once.

        Raises:
            LockTimeoutError: another thread held it for all of `lock_timeout`.
        """

    def same_place(self) -> AbstractContextManager[None]:
        """Check at the end of a write that the database is still where it was at its beginning.

        Raises:
            ReplacedFileError: the file was replaced or removed meanwhile.
        """

    def next_number(self, connection: sa.Connection, sequence: sa.ColumnElement[int]) -> int:
        """The first sequence number for new rows of a table; call it in the write turn."""

    def create(self, make: Callable[[bool], None]) -> bool:
        """Create the database if there is none.

        Args:
            make: writes the tables through `connect`. Its argument says whether the database is
                known to be empty. The database appears whole after it, or not at all.

        Returns:
            Whether the tables are those that `make` wrote, so that they need no check.
        """

    def size(self) -> int:
        """Bytes of the database, those of an open transaction included; 0 if not known."""

    def trim_cache(self, driver: duckdb.DuckDBPyConnection, most: int) -> None:
        """Have the engine drop cached blocks where they exceed `most` bytes."""


class _Numbered:
    """Numbers rows by the highest number in the table."""

    column_compression = True

    def next_number(self, connection: sa.Connection, sequence: sa.ColumnElement[int]) -> int:
        return int(fetch_all(connection, sa.select(sa.func.max(sequence)))[0][0] or 0) + 1


class FileCatalog(_Numbered):
    """A database file, attached for each call and detached after it."""

    def __init__(self, path: Path, lock_timeout: float) -> None:
        self.path: Path | None = path
        self._file = path
        self.display_name = str(path)
        self.lock_timeout = lock_timeout
        self._fresh: Path | None = None

    def connect(self, *, private: bool = False) -> Opened:
        if self._fresh is not None:
            return attach_new(self._fresh)
        return connect(self._file, self.lock_timeout, alone=private)

    @contextmanager
    def write_turn(self) -> Iterator[None]:
        lock = _writer_locks.setdefault(os.path.realpath(self._file), _WriterLock())
        with lock.held(self.display_name, self.lock_timeout):
            yield

    @contextmanager
    def same_place(self) -> Iterator[None]:
        before = identity_of(self._file)
        yield
        if self._fresh is None and identity_of(self._file) != before:
            raise ReplacedFileError(
                f"{self._file} was replaced or removed during a write. Nothing was saved. Call "
                "again: the call then uses the file that is there."
            )

    def create(self, make: Callable[[bool], None]) -> bool:
        if not self._is_missing():
            return False
        fresh = self._file.with_name(f".{self._file.name}.{uuid.uuid4().hex}.new")
        log = fresh.with_name(f"{fresh.name}.wal")
        self._fresh = fresh
        try:
            make(True)  # noqa: FBT003  a callback
            if log.exists():  # then the file alone is not all of it
                raise DatabaseError(
                    f"{self._file} cannot be created: DuckDB still has its log. Try again."
                )
            return put_in_place(fresh, self._file)
        except OSError as error:
            raise DatabaseError(f"{self._file} cannot be created: {error.strerror}") from error
        finally:
            self._fresh = None
            for left in (fresh, log):
                left.unlink(missing_ok=True)

    def _is_missing(self) -> bool:
        """Whether there is no database yet: no file, or an empty one as tempfile makes them."""
        try:
            if not self._file.parent.is_dir():
                raise MissingFileError(
                    f"{self._file}: the folder {self._file.parent} does not exist. Create it, or "
                    "give another path."
                )
            return not self._file.exists() or (self._file.is_file() and self.size() == 0)
        except PermissionError as error:
            raise DatabaseError(f"{self._file} cannot be reached: {error.strerror}") from error

    def size(self) -> int:
        try:
            return self._file.stat().st_size
        except OSError:  # opening it raises a clear error
            return 0

    def trim_cache(self, driver: duckdb.DuckDBPyConnection, most: int) -> None:
        drop_cached_blocks(self._file, driver, most)


class MemoryCatalog(_Numbered):
    """A database in the memory of this process; it lives as long as this object.

    Args:
        name: `:memory:`, or `:memory:NAME` for one that all catalogs of that name share.
        lock_timeout: seconds to wait for another thread that writes.
    """

    path: Path | None = None

    def __init__(self, name: str, lock_timeout: float) -> None:
        self.display_name = name
        self.lock_timeout = lock_timeout
        self._root = open_memory(name)
        self._owner = os.getpid()
        # Nobody else can reach a memory without a name.
        self._lock = (
            _writer_locks.setdefault(name, _WriterLock()) if self._is_shared else (_WriterLock())
        )

    @property
    def _is_shared(self) -> bool:
        return self.display_name != MEMORY

    def connect(self, *, private: bool = False) -> Opened:
        del private  # nothing else can open it
        if os.getpid() != self._owner:
            raise DatabaseError(
                f"{self.display_name} is in the memory of process {self._owner}, and this is a "
                "fork of it. Make a new storage here, or use a file."
            )
        cursor = self._root.cursor()
        return cursor, cursor.close

    @contextmanager
    def write_turn(self) -> Iterator[None]:
        with self._lock.held(self.display_name, self.lock_timeout):
            yield

    def same_place(self) -> AbstractContextManager[None]:
        return nullcontext()

    def create(self, make: Callable[[bool], None]) -> bool:
        make(not self._is_shared)
        return True

    def size(self) -> int:
        return 0

    def trim_cache(self, driver: duckdb.DuckDBPyConnection, most: int) -> None:
        """Nothing: the memory is the database."""


class _WriterLock:
    """The lock that the threads of this process hold to write one database."""

    def __init__(self) -> None:
        self._lock = threading.RLock()

    @contextmanager
    def held(self, name: str, timeout: float) -> Iterator[None]:
        if not self._lock.acquire(timeout=max(0, min(timeout, threading.TIMEOUT_MAX))):
            holder = f"a write of another thread of process {os.getpid()}"
            raise LockTimeoutError.of(name, timeout, holder)
        try:
            yield
        finally:
            self._lock.release()

    def renew(self) -> None:
        self._lock = threading.RLock()


_writer_locks: dict[str, _WriterLock] = {}


def _after_fork() -> None:
    """Renew the locks: a thread that held one in the parent is not in the child."""
    for lock in _writer_locks.values():
        lock.renew()


at_fork(after_in_child=_after_fork)
