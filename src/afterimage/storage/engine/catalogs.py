"""The catalogs of databases in a file and in memory, and the catalog of a URL."""

from __future__ import annotations

import datetime as dt
import errno
import itertools
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any, Final, TypeVar

import duckdb
import sqlalchemy as sa

from afterimage.storage.engine.attach import (
    Opened,
    attach_memory,
    attach_new,
    connect,
    drop_cached_blocks,
    open_memory,
)
from afterimage.storage.engine.catalog import Catalog
from afterimage.storage.engine.copies.compaction import compact_file
from afterimage.storage.engine.copies.lent import lent_copy, lent_file
from afterimage.storage.engine.new_files import NEW_SUFFIX, put_in_place, refuse_other_names
from afterimage.storage.engine.statements import fetch_all
from afterimage.storage.engine.urls import MEMORY, database_name, is_lake, path_without_scheme
from afterimage.storage.errors import (
    DatabaseError,
    InvalidQueryError,
    LockTimeoutError,
    MissingFileError,
    ReplacedFileError,
    StorageError,
)
from afterimage.storage.reports.snapshots import Snapshot
from afterimage.storage.system.atomic_files import temporary_path
from afterimage.storage.system.file_identity import identity_of
from afterimage.storage.system.forks import at_fork
from afterimage.storage.system.interrupts import acquire
from afterimage.storage.system.targets import (
    check_path,
    refuse_pipe,
    refuse_side_file,
    system_path,
    unicode_path,
)

__all__ = ["EmptyCatalog", "FileCatalog", "MemoryCatalog", "NewFileCatalog", "catalog_of"]

# DuckDB 1 does so only on Windows.
_BACKSLASH_SEPARATES: Final = not duckdb.__version__.startswith("1.")

_Result = TypeVar("_Result")


class _LocalCatalog:
    """What a file and the memory have in common.

    New rows are numbered from the highest number in the table.
    """

    column_compression = True
    numbers_rows = False
    compaction: Sequence[Sequence[str]] = ()

    def begin_reading(self, connection: sa.Connection) -> None:
        """Do nothing: the connection can read."""

    def repeated(self, read: Callable[[], _Result]) -> _Result:
        return read()

    @contextmanager
    def transaction(self, connection: sa.Connection) -> Iterator[None]:
        with connection.begin(), self._same_place():
            yield

    @contextmanager
    def appending(
        self, connection: sa.Connection, prepare: Callable[[sa.Connection], None]
    ) -> Iterator[None]:
        with connection.begin(), self._same_place():
            prepare(connection)
            yield

    def append(self, connection: sa.Connection, table: sa.Table, rows: sa.Select[Any]) -> None:
        names = rows.selected_columns.keys()
        connection.execute(table.insert().from_select(names, rows))

    def snapshots(self) -> list[Snapshot]:
        return []

    def tables_made(self, tables: Sequence[str]) -> None:
        """Do nothing: the options are in the statements that make them."""

    def _same_place(self) -> AbstractContextManager[None]:
        """Check at the end of the block that the file is still the one at its beginning."""
        return nullcontext()

    def next_number(self, connection: sa.Connection, sequence: sa.ColumnElement[int]) -> int:
        return int(fetch_all(connection, sa.select(sa.func.max(sequence)))[0][0] or 0) + 1


class FileCatalog(_LocalCatalog):
    """A database file, attached for each call and detached after it."""

    is_in_memory = False

    def __init__(self, path: Path, lock_timeout: float) -> None:
        self.path: Path | None = path
        self.source: str | Path | None = path
        self._file = path
        self.display_name = str(path)
        self.lock_timeout = lock_timeout

    def connect(self, *, private: bool = False) -> Opened:
        return connect(self._file, self.lock_timeout, alone=private)

    def lent(self) -> Opened:
        return lent_file(self._file, self.lock_timeout)

    def write_turn(
        self, *, appends: bool = False, alone: bool = False
    ) -> AbstractContextManager[None]:
        del appends, alone  # one writer at a time
        return self._write_turn()

    @contextmanager
    def _write_turn(self) -> Iterator[None]:
        refuse_other_names(self._file)
        lock = _writer_locks.setdefault(os.path.realpath(self._file), _WriterLock())
        with lock.held(self.display_name, self.lock_timeout):
            yield

    def _same_place(self) -> AbstractContextManager[None]:
        return self._same_file()

    @contextmanager
    def _same_file(self) -> Iterator[None]:
        before = identity_of(self._file)
        yield
        if identity_of(self._file) != before:
            raise ReplacedFileError(
                f"{self._file} was replaced or removed during a write. Nothing was saved. Call "
                "again: the call then uses the current file."
            )

    def is_missing(self) -> bool:
        path = self._file
        check_path(path)
        try:
            unicode_path(path)
        except UnicodeError:
            raise InvalidQueryError(
                f"{str(path)!a} is not valid UTF-8, and DuckDB opens no such path. Give the "
                "file or folder another name."
            ) from None
        if "\\" in str(path) and os.sep == "/" and _BACKSLASH_SEPARATES:
            raise InvalidQueryError(
                f"{path} contains a backslash, which this version of DuckDB takes for a slash. "
                "Give the file or folder another name."
            )
        try:
            if not path.parent.is_dir():
                raise MissingFileError(
                    f"{path}: the folder {path.parent} does not exist. Create it or give another "
                    "path."
                )
            refuse_pipe(path)
            # `tempfile` creates empty files.
            if path.exists() and not (path.is_file() and path.stat().st_size == 0):
                return False
            refuse_side_file(path)
            real = Path(os.path.realpath(path))
            log = real.with_name(f"{real.name}.wal")
            has_log = log.exists()
        except StorageError:
            raise
        except OSError as error:
            raise DatabaseError(f"{path} cannot be accessed: {error.strerror}") from error
        if has_log:
            raise DatabaseError(
                f"{log} is left of a database that was removed, and DuckDB would apply it to a new "
                f"one. Delete or move it, or put its database back at {path}. Nothing was created."
            )
        if not os.access(real.parent, os.W_OK):
            cause = PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(real.parent))
            raise DatabaseError(
                f"{path} cannot be created: {real.parent} is not writable."
            ) from cause
        return True

    def create(self, make: Callable[[Catalog], None]) -> bool:
        real = Path(os.path.realpath(self._file))  # a link stays a link
        fresh = temporary_path(real, NEW_SUFFIX)
        log = fresh.with_name(f"{fresh.name}.wal")
        try:
            make(NewFileCatalog(fresh, self.display_name))
            if log.exists():  # the file alone would be incomplete
                raise DatabaseError(
                    f"{self._file} cannot be created: DuckDB did not write its log to the file. "
                    "Try again."
                )
            return put_in_place(fresh, real)
        except OSError as error:
            raise DatabaseError(f"{self._file} cannot be created: {error.strerror}") from error
        finally:
            for leftover in (fresh, log):
                leftover.unlink(missing_ok=True)

    def size(self) -> int:
        try:
            return self._file.stat().st_size
        except OSError:  # opening the file will raise a clear error
            return 0

    def rewrite(self) -> None:
        with self._write_turn():
            compact_file(self._file, self.lock_timeout)

    def trim_cache(self, driver: duckdb.DuckDBPyConnection, most: int) -> None:
        drop_cached_blocks(self._file, driver, most)


class NewFileCatalog(FileCatalog):
    """A database file that does not exist yet and that nobody else knows.

    Args:
        path: the file.
        display_name: name of the database that it becomes.
    """

    def __init__(self, path: Path, display_name: str) -> None:
        super().__init__(path, 0)
        self.display_name = display_name

    def connect(self, *, private: bool = False) -> Opened:
        del private
        return attach_new(self._file)

    def write_turn(
        self, *, appends: bool = False, alone: bool = False
    ) -> AbstractContextManager[None]:
        del appends, alone
        return nullcontext()

    def _same_place(self) -> AbstractContextManager[None]:
        return nullcontext()


class MemoryCatalog(_LocalCatalog):
    """A database in the memory of this process. It exists as long as this object.

    Args:
        name: `:memory:`, or `:memory:NAME` for a database that all catalogs of that name share.
        lock_timeout: seconds to wait for another thread that writes.
    """

    path: Path | None = None
    is_in_memory = True
    source: str | Path | None = None

    def __init__(self, name: str, lock_timeout: float) -> None:
        self.display_name = name
        self.lock_timeout = lock_timeout
        self._root = open_memory(name)
        self._owner = os.getpid()
        # A database without a name cannot be opened by another catalog.
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
                f"{self.display_name} is in the memory of process {self._owner}, and this process "
                "is a fork of it. Create a new storage here, or use a file."
            )
        cursor = self._root.cursor()
        return cursor, cursor.close

    def lent(self) -> Opened:
        connection, release = self.connect()
        try:
            return lent_copy(connection)
        finally:
            release()

    @contextmanager
    def write_turn(self, *, appends: bool = False, alone: bool = False) -> Iterator[None]:
        del appends, alone  # one writer at a time
        with self._lock.held(self.display_name, self.lock_timeout):
            yield

    def is_missing(self) -> bool:
        return not self._is_shared  # another catalog may have created the tables of a shared one

    def create(self, make: Callable[[Catalog], None]) -> bool:
        make(self)
        return True

    def size(self) -> int:
        return 0

    def rewrite(self) -> None:
        """Do nothing: memory is used again."""

    def trim_cache(self, driver: duckdb.DuckDBPyConnection, most: int) -> None:
        """Do nothing: the database itself is in memory."""


class EmptyCatalog(MemoryCatalog):
    """An empty database in memory, for reads of a file that does not exist.

    It exists until its last connection is closed.
    """

    def __init__(self) -> None:
        self.path: Path | None = None
        self.display_name = f"{MEMORY}empty_{next(_empty_numbers)}"
        self.lock_timeout = 0
        self._lock = _WriterLock()

    def connect(self, *, private: bool = False) -> Opened:
        del private
        return attach_memory(self.display_name)


_empty_numbers = itertools.count(1)


class _WriterLock:
    """The lock that a thread of this process holds while it writes to one database."""

    def __init__(self) -> None:
        self._lock = threading.RLock()

    @contextmanager
    def held(self, name: str, timeout: float) -> Iterator[None]:
        if not acquire(self._lock, timeout):
            holder = f"a write in another thread of process {os.getpid()}"
            raise LockTimeoutError.of(name, timeout, holder)
        try:
            yield
        finally:
            self._lock.release()

    def renew(self) -> None:
        self._lock = threading.RLock()


_writer_locks: dict[str, _WriterLock] = {}


def _after_fork() -> None:
    """Replace the locks: a thread that held one in the parent does not exist in the child."""
    for lock in _writer_locks.values():
        lock.renew()


at_fork(after_in_child=_after_fork)


def catalog_of(
    url: str | os.PathLike[str], lock_timeout: float, at: int | dt.datetime | None = None
) -> Catalog:
    """Return the catalog of the database that `url` names. No file is opened or created.

    Args:
        url: `duckdb:///file.duckdb` or `duckdb:///:memory:`; or the path of a file; or the URL of a
            lake. A string is a path if the file exists or its name ends in `.duckdb`, `.ddb` or
            `.db`.
        lock_timeout: seconds to wait while another process has the file open.
        at: the version or the time of a lake to read; None for the newest version.

    Raises:
        UnsupportedURLError: it is not a database URL, or names another kind of database.
        InvalidQueryError: `at` is given, and it is no lake.
    """
    if isinstance(url, str) and is_lake(url):
        from afterimage.storage.engine.lake.catalog import LakeCatalog  # noqa: PLC0415  rarely used

        return LakeCatalog(url, lock_timeout, at)
    if at is not None:
        raise InvalidQueryError("only lakes have versions: omit `at`, or give the URL of a lake.")
    if isinstance(url, os.PathLike):
        return FileCatalog(system_path(Path(url)).absolute(), lock_timeout)
    path = path_without_scheme(url)
    if path is not None:
        return FileCatalog(system_path(path).absolute(), lock_timeout)
    name = MEMORY if url == MEMORY else database_name(url)
    if name.startswith(MEMORY):
        return MemoryCatalog(name, lock_timeout)
    return FileCatalog(system_path(name).absolute(), lock_timeout)
