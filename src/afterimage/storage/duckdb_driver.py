"""The one module that touches the DuckDB driver, and that translates its exceptions.

A database file is opened for each call and closed after it, as a process that has a file open for
writing shuts out every other. So the DuckDB CLI, a notebook and a generator take turns, each
waiting for its own no longer than `lock_timeout`. Inside one process all connections to a file
share one database, a notebook's own `duckdb.connect(path)` among them.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import random
import re
import tempfile
import threading
import time
import uuid
import weakref
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any, Final, TypeVar

import duckdb
import duckdb_engine
import pyarrow as pa
import sqlalchemy as sa
from filelock import FileLock
from sqlalchemy.pool import NullPool

from afterimage.storage.errors import (
    DatabaseError,
    LockTimeoutError,
    MissingFileError,
    StorageError,
    UnsupportedURLError,
    shorten,
)
from afterimage.storage.forks import is_inherited
from afterimage.storage.turns import Turn, lock_holder, state_of

__all__ = [
    "Database",
    "execute_arrow",
    "fetch_all",
    "memory_database",
    "open_database",
    "stream_arrow",
    "streamed",
    "translated",
]

# What the oldest DuckDB that we support can open; a newer one writes a newer format by default.
_STORAGE_VERSION: Final = "v1.5.0"

# Text as Zstandard is written in half the time of what DuckDB would choose, and is as small. A save
# of over a megabyte goes to the file in the commit itself, not first to the log and then again.
_WRITE_SETTINGS: Final = {"force_compression": "zstd", "wal_autocheckpoint": "1MB"}
_LOCK_POLL_SECONDS: Final = (0.001, 0.02)

# `md:`, `s3:`, `ducklake:`; one letter is a drive of Windows.
_HAS_SCHEME = re.compile(r"[a-z][a-z0-9+.-]+:", re.I)
_IS_LOCKED = re.compile(r"Could not set lock|Conflicting lock|being used by another process", re.I)
_HOLDER = re.compile(r"held in (?P<program>.+?) \(PID (?P<pid>\d+)\)")


class Database:
    """A DuckDB database: its SQLAlchemy engine, and the lock under which this process writes it.

    Attributes:
        name: the path as given, or `:memory:`; stands in messages.
        engine: opens the database for each connection and closes it after.
        locks: what the threads of this process take turns on.
        lock_timeout: seconds that a write waits for those of other threads.
    """

    def __init__(
        self, name: str, engine: sa.Engine, locks: _Locks, lock_timeout: float = 30
    ) -> None:
        self.name = name
        self.engine = engine
        self.locks = locks
        self.lock_timeout = lock_timeout

    @contextmanager
    def reading(self) -> Iterator[sa.Connection]:
        """A connection that sees one state of the database throughout."""
        with translated(self.name), self.engine.connect() as connection:
            yield connection

    @contextmanager
    def writing(self) -> Iterator[sa.Connection]:
        """A connection whose changes are all committed at the end, or none of them."""
        with self._turn(), translated(self.name), self.engine.connect() as connection:
            for name, value in _WRITE_SETTINGS.items():
                connection.exec_driver_sql(f"SET {name} = '{value}'")
            connection.commit()
            try:
                with connection.begin():
                    yield connection
            finally:
                # A notebook of this process may be on the same database.
                for name in _WRITE_SETTINGS:
                    connection.exec_driver_sql(f"RESET {name}")
                connection.commit()

    @contextmanager
    def _turn(self) -> Iterator[None]:
        seconds = max(0, min(self.lock_timeout, threading.TIMEOUT_MAX))
        if not self.locks.writing.acquire(timeout=seconds):
            raise LockTimeoutError.of(
                self.name, self.lock_timeout, f"a write of another thread of process {os.getpid()}"
            )
        try:
            yield
        finally:
            self.locks.writing.release()


def open_database(url: str, lock_timeout: float) -> Database:
    """The database that `url` names; a file is created where there is none.

    Args:
        url: `duckdb:///file.duckdb` or `duckdb:///:memory:`.
        lock_timeout: seconds to wait while another process holds the file.

    Raises:
        UnsupportedURLError: the URL is of another dialect, or is none.
        MissingFileError: the file's folder does not exist.
        LockTimeoutError: another process held the file throughout.
        DatabaseError: the file is no DuckDB database, or cannot be opened.
    """
    database = _parse_url(url)
    if not database or database.startswith(":memory:"):
        return memory_database(database or ":memory:", lock_timeout)
    path = Path(database).absolute()
    try:
        _create_if_missing(path)
    except PermissionError as error:
        raise DatabaseError(f"{path} cannot be reached: {error.strerror}") from error
    real = path.resolve()
    locks = _locks.setdefault(str(real), _Locks(real))

    def connect() -> duckdb_engine.ConnectionWrapper:
        return _with_large_offsets(_open_file(path, lock_timeout, locks))

    with translated(database):
        engine = sa.create_engine("duckdb://", creator=connect, poolclass=NullPool)
    return Database(str(path), engine, locks, lock_timeout)


def memory_database(name: str = ":memory:", lock_timeout: float = 30) -> Database:
    """A database in memory that lives as long as the returned object."""
    root = duckdb.connect(name)
    _live.add(root)
    owner = os.getpid()

    def connect() -> duckdb_engine.ConnectionWrapper:
        if os.getpid() != owner:
            raise DatabaseError(
                f"{name} is in the memory of process {owner}, and this is a fork of it. "
                "Make a new storage here, or use a file."
            )
        return _with_large_offsets(duckdb_engine.ConnectionWrapper(root.cursor()))

    with translated(name):
        engine = sa.create_engine("duckdb://", creator=connect, poolclass=NullPool)
    # What has no name is nobody else's.
    fresh = _Locks(Path(name))
    locks = fresh if name == ":memory:" else _locks.setdefault(name, fresh)
    return Database(name, engine, locks, lock_timeout)


def fetch_all(connection: sa.Connection, statement: sa.Executable) -> Sequence[sa.Row[Any]]:
    """All rows of a statement; DuckDB 2.0 takes no other one while rows are left to fetch."""
    return connection.execute(statement).all()


def execute_arrow(connection: sa.Connection, statement: sa.Executable) -> pa.Table:
    """The whole result of a statement."""
    return stream_arrow(connection, statement).read_all()


def stream_arrow(
    connection: sa.Connection, statement: sa.Executable, rows: int = 2048
) -> pa.RecordBatchReader:
    """The result of a statement in record batches of about `rows` rows, as DuckDB makes them.

    The connection can run nothing else until the reader is at its end.
    """
    compiled = statement.compile(  # type: ignore[attr-defined]
        dialect=connection.dialect, compile_kwargs={"render_postcompile": True}
    )
    values = compiled.construct_params(escape_names=False)
    parameters = [values[name] for name in compiled.positiontup or ()]
    driver = connection.connection.driver_connection
    assert driver is not None
    # Each version has one call that streams a query with parameters; the other one keeps the whole
    # result in memory first.
    if _duckdb_major() >= 2:
        found = driver.sql(str(compiled), params=parameters or None)
    else:
        found = driver.execute(str(compiled), parameters)
    return found.to_arrow_reader(rows)


@contextmanager
def streamed(
    connection: sa.Connection, schema: pa.Schema, batches: Iterable[pa.RecordBatch]
) -> Iterator[sa.FromClause]:
    """Record batches as a table for one connection, to be read once, while they are being made.

    What goes wrong in making them is raised as it is; DuckDB would only tell its message.
    """
    driver = connection.connection.driver_connection
    assert driver is not None
    name = f"arrow_{uuid.uuid4().hex}"
    failed: list[BaseException] = []

    def watched() -> Iterator[pa.RecordBatch]:
        try:
            yield from batches
        except BaseException as error:
            failed.append(error)
            raise

    driver.register(name, pa.RecordBatchReader.from_batches(schema, watched()))
    try:
        yield sa.table(name, *(sa.column(field) for field in schema.names))
    except Exception:
        if failed:
            raise failed[0] from None
        raise
    else:  # after an error the connection is closed, and the name with it
        driver.unregister(name)


@contextmanager
def translated(where: str) -> Iterator[None]:
    """Turn the exceptions of DuckDB, SQLAlchemy and Arrow into ours; `where` names the database."""
    try:
        yield
    except StorageError:
        raise
    except (duckdb.Error, sa.exc.SQLAlchemyError, pa.ArrowException) as error:
        original = getattr(error, "orig", None) or error
        raise DatabaseError(f"{where}: {shorten(original, 300)}") from error
    except OSError as error:
        if error.errno is not None:
            raise
        # Arrow has OSError for what fails in a stream; the system's own have a number.
        raise DatabaseError(f"{where}: {shorten(error, 300)}") from error


@cache
def _duckdb_major() -> int:
    return int(duckdb.__version__.split(".")[0])


def _parse_url(url: str) -> str:
    try:
        parsed = sa.make_url(url)
    except (sa.exc.ArgumentError, AttributeError):
        raise UnsupportedURLError(
            f"{shorten(repr(url), 80)} is no database URL. Give 'duckdb:///file.duckdb' or "
            "'duckdb:///:memory:'."
        ) from None
    database = parsed.database or ""
    if parsed.get_backend_name() != "duckdb" or _HAS_SCHEME.match(database):
        kind = parsed.get_backend_name() if parsed.get_backend_name() != "duckdb" else database
        raise UnsupportedURLError(
            f"SQLStorage does not serve {shorten(kind, 60)!r} databases. Supported: "
            "'duckdb:///file.duckdb' and 'duckdb:///:memory:'. Save to a DuckDB file, and reach "
            "other databases from there with DuckDB's ATTACH, or through export_parquet."
        )
    if parsed.host or parsed.username or parsed.drivername != "duckdb":
        raise UnsupportedURLError(
            f"{shorten(parsed.render_as_string(), 80)!r} names a server or a driver. Give "
            "'duckdb:///file.duckdb' (three slashes, four for an absolute path)."
        )
    if parsed.query:
        raise UnsupportedURLError(
            f"options in the URL are not supported ({', '.join(parsed.query)}): all connections of "
            "a process to one file must agree on them. Set them in SQL on `engine` instead."
        )
    return database


def _create_if_missing(path: Path) -> None:
    """Create the file in a format that every supported DuckDB opens, whole or not at all."""
    if not path.parent.is_dir():
        raise MissingFileError(
            f"{path}: the folder {path.parent} does not exist. Create it, or give another path."
        )
    if path.exists() and (path.is_dir() or path.stat().st_size > 0):
        return
    fresh = path.with_name(f".{path.name}.{uuid.uuid4().hex}.new")
    try:
        with translated(str(path)):
            duckdb.connect(
                str(fresh), config={"storage_compatibility_version": _STORAGE_VERSION}
            ).close()
        try:
            os.link(fresh, path)
        except FileExistsError:
            _replace_if_empty(fresh, path)
    except OSError as error:
        raise DatabaseError(f"{path} cannot be created: {error.strerror}") from error
    finally:
        fresh.unlink(missing_ok=True)


def _replace_if_empty(fresh: Path, path: Path) -> None:
    """Put a new database in the place of an empty file, as tempfile makes them.

    Under a lock: of two who find the file empty, the second must not undo what the first saved.
    """
    name = hashlib.sha256(str(path.resolve()).encode()).hexdigest()
    with FileLock(Path(tempfile.gettempdir()) / f"afterimage-{name}.lock"):
        if path.is_file() and path.stat().st_size == 0:
            fresh.replace(path)


def _open_file(path: Path, lock_timeout: float, locks: _Locks) -> _Connection:
    started = time.monotonic()
    pause, longest = _LOCK_POLL_SECONDS
    while True:
        refusal = None
        if not path.exists():
            raise MissingFileError(f"{path} is gone since it was opened. Make a new storage.")
        if is_inherited(path):
            raise DatabaseError(
                f"{path} was open in process {os.getppid()} when this one was forked from it, and "
                "what is saved here would be lost. Let iterators, scans and connections end "
                "before the fork, or start processes by 'spawn'."
            )
        try:
            with locks.opening:
                if (connection := _try_to_open(path, locks)) is not None:
                    return connection
        except duckdb.IOException as error:
            if not _IS_LOCKED.search(str(error)):
                raise DatabaseError(f"{path} cannot be opened: {shorten(error, 300)}") from None
            refusal = str(error)
        except duckdb.ConnectionException as error:
            raise DatabaseError(
                f"{path} is open in this process with other settings (read_only?): close that "
                f"connection, or open it as duckdb.connect(path). {shorten(error)}"
            ) from None
        waited = time.monotonic() - started
        if waited >= lock_timeout:
            holder = _holder(refusal) if refusal else lock_holder(locks.turn.lock_path)
            raise LockTimeoutError.of(path, waited, holder)
        time.sleep(pause * random.uniform(0.5, 1.5))
        pause = min(pause * 1.5, longest)


def _try_to_open(path: Path, locks: _Locks) -> _Connection | None:
    """A connection; None where the file is another process's, or was while we opened it."""
    if not os.access(path, os.W_OK):  # nobody's turn: DuckDB shares a file that is only read
        return _Connection(duckdb.connect(str(path), read_only=True), locks, None)
    if not locks.turn.take():
        return None
    try:
        before = state_of(path)
        connection = duckdb.connect(str(path))
        if state_of(path) == before:
            return _Connection(connection, locks, locks.turn)
        connection.close()
    except BaseException:
        locks.turn.give_back()
        raise
    locks.turn.give_back()
    return None


def _with_large_offsets(connection: _Wrapper) -> _Wrapper:
    """Have Arrow data come with 64-bit offsets: over 2 GiB of text in one step, others fail."""
    try:
        connection.execute("SET arrow_large_buffer_size = true")
    except BaseException:
        connection.close()
        raise
    return connection


def _holder(message: str) -> str | None:
    found = _HOLDER.search(message)
    return f"process {found['pid']} ({found['program']})" if found else None


class _Locks:
    """What the threads of this process take turns on, for one database.

    Attributes:
        writing: for a write, so that sequence numbers are given out once.
        opening: to open and to close, as DuckDB hands out a database that another thread is still
            opening, and opens a file anew that another thread has not finished closing.
        held_for_fork: whether a fork that is going on has taken `opening`.
        turn: what processes take turns on; of a file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.turn = Turn(path)
        self.writing = threading.RLock()
        self.opening = threading.Lock()
        self.held_for_fork = False


_Wrapper = TypeVar("_Wrapper", bound=duckdb_engine.ConnectionWrapper)
_locks: dict[str, _Locks] = {}

# The connections of this process that keep a database.
_live: weakref.WeakSet[duckdb.DuckDBPyConnection] = weakref.WeakSet()


def _before_fork() -> None:
    """Let no thread be in DuckDB's table of open databases: its lock would stay held in a child."""
    for locks in list(_locks.values()):
        locks.held_for_fork = locks.opening.acquire(timeout=10)


def _after_fork_in_parent() -> None:
    for locks in list(_locks.values()):
        if locks.held_for_fork:
            locks.held_for_fork = False
            locks.opening.release()


def _after_fork_in_child() -> None:
    """A thread that held a lock in the parent is not in the child, and would never release it.

    Nor are DuckDB's own threads in the child, and to end a database waits for them: a child that
    gives up one of its parent's crashes. So it keeps them, beyond the end of the interpreter too;
    and the turns, as to give up one of those would end the parent's.
    """
    for kept in [*_live, *(locks.turn for locks in _locks.values())]:
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(kept))
    for locks in _locks.values():
        locks.__init__(locks.path)  # type: ignore[misc]


if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=_before_fork,
        after_in_parent=_after_fork_in_parent,
        after_in_child=_after_fork_in_child,
    )


class _Connection(duckdb_engine.ConnectionWrapper):
    """A connection to a file that is closed under the same lock as others are opened under."""

    def __init__(
        self, connection: duckdb.DuckDBPyConnection, locks: _Locks, turn: Turn | None
    ) -> None:
        super().__init__(connection)
        _live.add(connection)
        self._locks = locks
        self._turn = turn
        self._owner = os.getpid()

    def close(self) -> None:
        if os.getpid() != self._owner:  # in a fork, to close it would write into the parent's file
            return
        with self._locks.opening:
            super().close()
            if self._turn is not None:
                self._turn.give_back()
                self._turn = None
