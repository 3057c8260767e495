"""Attach database files for a call, and detach them after it.

A process that has a file open blocks all other processes. So a file is open only during calls: the
DuckDB CLI, a notebook and a generator can use it in turn, and each waits for at most its
`lock_timeout`. All files are attached to one DuckDB instance of this process, because starting an
instance for each call would take far longer than the call. If other code of the process has the
file open, such as a notebook with `duckdb.connect(path)`, its instance is shared instead.
"""

from __future__ import annotations

import ctypes
import os
import random
import re
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Final, TypeVar

import duckdb

from afterimage.storage.engine.held_files import HeldFiles
from afterimage.storage.engine.instance import (
    NO_PYTHON_VARIABLES,
    Instance,
    connected,
    live,
)
from afterimage.storage.engine.new_files import has_other_names
from afterimage.storage.engine.statements import described
from afterimage.storage.errors import (
    DatabaseError,
    LockTimeoutError,
    MissingFileError,
    ReplacedFileError,
    shorten,
)
from afterimage.storage.system.exits import end_calls_first
from afterimage.storage.system.file_identity import identity_of, open_files
from afterimage.storage.system.forks import at_fork, is_inherited
from afterimage.storage.system.interrupts import acquire, checkpoint
from afterimage.storage.system.locks import (
    ProcessLock,
    fingerprint,
    lock_holder,
    lock_path,
)
from afterimage.storage.system.package import LoggedWait
from afterimage.storage.system.targets import unicode_path

__all__ = [
    "FILE_OPTIONS",
    "NEW_FILE_OPTIONS",
    "Connection",
    "Opened",
    "Release",
    "attach_memory",
    "attach_new",
    "connect",
    "connect_memory",
    "drop_cached_blocks",
    "open_memory",
    "releasing",
    "reserved",
    "waited_for",
]

_Result = TypeVar("_Result")

Connection = duckdb.DuckDBPyConnection

Release = Callable[[], None]
"""Closes a connection, and detaches the file if it was the last connection to it."""

Opened = tuple[duckdb.DuckDBPyConnection, Release]
"""A connection, and the function that closes it."""

# A conversation is a wide row of some kilobytes. With small row groups, a save compresses on all
# cores while it runs, and a small save rewrites little data.
FILE_OPTIONS: Final = "ROW_GROUP_SIZE 2048"

# The format that the oldest supported DuckDB can open; newer ones write a newer format by default.
# Blocks of a quarter of DuckDB's default size waste less space in the last block of each column.
NEW_FILE_OPTIONS: Final = f"STORAGE_VERSION 'v1.5.0', BLOCK_SIZE 65536, {FILE_OPTIONS}"

# The memory limit that makes DuckDB drop cached blocks of files.
_LITTLE_MEMORY: Final = "32MB"

_MEMORY_IN_USE: Final = """
    SELECT sum(memory_usage_bytes), current_setting('memory_limit'),
        (FROM duckdb_connection_count()) FROM duckdb_memory()
"""

_LOCK_POLL_SECONDS: Final = (0.001, 0.02)

_IS_LOCKED = re.compile(r"Could not set lock|Conflicting lock|being used by another process", re.I)
_IS_OPEN_HERE = re.compile(r"Unique file handle conflict", re.I)
_HOLDER = re.compile(r"held in (?P<program>.+?) \(PID (?P<pid>\d+)\)")


# The locks of this process on files, and the files that one call has for itself.
_turns: dict[str, ProcessLock] = {}
_reserved: set[str] = set()


_instance = Instance()
_held_files = HeldFiles()
# Serializes opening and closing: DuckDB returns a database that another thread is still opening,
# and opens a file again that another thread has not finished closing.
# Re-entrant: garbage collection may close a stream while this thread holds the lock.
_lock = threading.RLock()

end_calls_first()


def _after_fork() -> None:
    """Keep the parent's connections and locks forever, and start with a new state.

    Closing an instance waits for its threads, which do not exist in the child: it would crash.
    Releasing a lock would release the parent's lock. So the child never frees these objects, not
    even at the end of the interpreter.
    """
    global _instance, _held_files, _lock
    for kept in [*live, *_turns.values()]:
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(kept))
    _turns.clear()
    _reserved.clear()
    _instance, _held_files, _lock = Instance(), HeldFiles(), threading.RLock()


_forking = threading.local()


def _before_fork() -> None:
    _forking.has_lock = _lock.acquire(timeout=10)


def _after_fork_in_parent() -> None:
    if _forking.has_lock:
        _lock.release()


# No other thread may be inside DuckDB's table of open files during a fork: the lock of that table
# would stay locked in the child.
at_fork(before=_before_fork, after_in_parent=_after_fork_in_parent, after_in_child=_after_fork)


def connect(
    path: Path,
    lock_timeout: float,
    *,
    alone: bool = False,
    read_only_settings: Mapping[str, str] | None = None,
) -> Opened:
    """Open a database file; wait while another process holds it.

    Args:
        path: the file, which exists.
        lock_timeout: seconds to wait.
        alone: whether to start a separate instance, as `duckdb.connect(path)` does. Settings and
            statements on the connection then do not affect other connections.
        read_only_settings: if given, the file is opened read-only by a separate instance with these
            settings, which no other connection of this process shares.

    Raises:
        MissingFileError: the file does not exist.
        LockTimeoutError: another process held the file for all of `lock_timeout`.
        ReplacedFileError: the file was replaced, and open connections use the former file.
        DatabaseError: the file is not a DuckDB database, or cannot be opened.
    """
    return waited_for(
        path, lock_timeout, lambda: _open(path, alone=alone, locked=read_only_settings)
    )


def waited_for(path: Path, lock_timeout: float, opened: Callable[[], _Result | None]) -> _Result:
    """Return what a function returns that opens a database file; wait while the file is in use.

    Args:
        path: the file, which exists.
        lock_timeout: seconds to wait.
        opened: returns None if the file is in use; it is then called again.

    Raises:
        StorageError: see `connect`.
    """
    wait = LoggedWait(path)
    pause, longest = _LOCK_POLL_SECONDS
    while True:
        if not path.exists():
            raise MissingFileError(f"{path} is gone since it was opened. Make a new storage.")
        if is_inherited(path):
            raise DatabaseError(
                f"{path} was open in process {os.getppid()} when this one was forked from it, and "
                "what is saved here would be lost. Let iterators, scans and connections end "
                "before the fork, or start processes by 'spawn'."
            )
        refusal = None
        try:
            acquire(lock := _lock)
            try:
                if (result := opened()) is not None:
                    wait.ended()
                    return result
            finally:
                lock.release()
        except duckdb.ConnectionException as error:
            raise DatabaseError(
                f"{path} is open in this process with other settings (read_only?): close that "
                f"connection, or open it as duckdb.connect(path). {shorten(error)}"
            ) from None
        except duckdb.Error as error:
            refusal = str(error)
            if not (_IS_LOCKED.search(refusal) or _IS_OPEN_HERE.search(refusal)):
                raise DatabaseError(f"{path} cannot be opened: {described(error)}") from None
        checkpoint()
        holder = partial(_holder, path, refusal)
        waited = wait.seconds
        if waited >= lock_timeout:
            raise LockTimeoutError.of(path, waited, holder())
        wait.goes_on(holder)
        time.sleep(pause * random.uniform(0.5, 1.5))
        pause = min(pause * 1.5, longest)


def reserved(path: Path) -> Release | None:
    """Shut out all other connections of this package to a file until the function is called.

    Call it within `waited_for`.

    Returns:
        None if this process or another one has the file open.
    """
    real = os.path.realpath(path)
    turn = _turns.setdefault(real, ProcessLock(Path(real)))
    if turn.is_held or real in _reserved or _held_files.has(real) or not turn.acquire():
        return None
    _reserved.add(real)

    def release() -> None:
        _reserved.discard(real)
        turn.release()

    return releasing(release)


def connect_memory() -> Opened:
    """Return a connection to no file, for queries over registered Arrow data."""
    with _lock:
        cursor = _instance.cursor()
    return cursor, cursor.close


def open_memory(name: str) -> duckdb.DuckDBPyConnection:
    """Return a connection to a database in memory, in a separate instance."""
    with _lock:
        root = connected(name)
    live.add(root)
    root.execute("SET arrow_large_buffer_size = true")
    root.execute(f"SET GLOBAL {NO_PYTHON_VARIABLES}")
    return root


def attach_memory(name: str) -> Opened:
    """Return a connection to a database in memory, in the instance that files are attached to.

    It exists until its last connection is closed. This is quicker than a separate instance.

    Args:
        name: `:memory:` and a name of the database.
    """
    with _lock:
        cursor, release = _attached(name, FILE_OPTIONS)
    return cursor, releasing(release)


def attach_new(path: Path) -> Opened:
    """Create a database file in a format that every supported DuckDB version can open."""
    with _lock:
        cursor, release = _attached(os.path.realpath(path), NEW_FILE_OPTIONS)
    return cursor, releasing(release)


def drop_cached_blocks(path: Path, connection: duckdb.DuckDBPyConnection, most: int) -> None:
    """Make DuckDB drop cached blocks of files if they exceed `most` bytes.

    DuckDB caches all blocks that it reads or writes up to its memory limit, four fifths of the
    machine's memory. This function lowers the limit for a moment, while no statement runs. It does
    nothing if there are other connections, which might need more memory. Call it between statements
    of `connection`.
    """
    # Use another connection: SET fails if more memory is in use, which would abort a transaction.
    with _lock, connection.duplicate() as other:
        [[kept, limit, connected]] = other.execute(_MEMORY_IN_USE).fetchall()
        # `connection`, `other`, and the root connection of this package's own instance.
        own = 2 + _instance.has(os.path.realpath(path))
        if kept <= most or connected > own:
            return
        try:
            with suppress(duckdb.Error):
                other.execute(f"SET memory_limit = '{_LITTLE_MEMORY}'")
        finally:
            # Set the former limit: RESET may leave it low in DuckDB 1.5. The limit is displayed
            # rounded down to tenths.
            number, unit = limit.split()
            other.execute(f"SET memory_limit = '{float(number) + 0.05:.2f} {unit}'")


def _open(path: Path, *, alone: bool, locked: Mapping[str, str] | None) -> Opened | None:
    """Return a connection; None if the file is in use, or was written or replaced meanwhile."""
    real = os.path.realpath(path)
    if real in _reserved:
        return None
    _held_files.check(path, real)
    has_links = has_other_names(path)
    if has_links and _held_files.has_under_another_name(real):
        # DuckDB would open the file twice, and closing it once would end the other's lock.
        raise DatabaseError(f"{path} is open in this process under another name. Use that name.")
    # No lock is needed: several processes can read the file.
    if has_links or not os.access(path, os.W_OK):
        opened = _opened(path, real, "READ_ONLY", alone=alone, locked=locked)
        return opened and (opened[0], releasing(opened[1]))
    turn = _turns.setdefault(real, ProcessLock(Path(real)))
    is_first = not turn.is_held
    if not turn.acquire():
        return None
    opened = None
    try:
        before = fingerprint(path)
        opened = _opened(path, real, FILE_OPTIONS, alone=alone, locked=locked)
        if opened is not None and is_first and fingerprint(path) != before:
            (_, release), opened = opened, None
            release()
    finally:
        if opened is None:
            turn.release()
    if opened is None:
        return None
    connection, release = opened

    def release_all() -> None:
        release()
        turn.release()

    return connection, releasing(release_all)


def _opened(
    path: Path, real: str, options: str, *, alone: bool, locked: Mapping[str, str] | None
) -> Opened | None:
    """Return a connection to the file at a path; close it under `_lock`.

    Returns None if there is no file, or if it was replaced meanwhile.
    """
    is_first = not _held_files.has(real)
    identity = identity_of(real)
    if identity is None:
        return None
    connection, close, is_own = _joined(real, options, alone=alone, locked=locked)
    if identity_of(real) != identity:
        close()
        return None
    # `duckdb.connect` shares the instance of other code in this process that has opened this path.
    # Only the operating system knows which file that instance has open.
    if is_first and not is_own and identity not in (open_files() or {identity}):
        close()
        raise ReplacedFileError.of(path)
    end = _held_files.hold(real, identity)

    def release() -> None:
        try:
            close()
        finally:
            end()

    return connection, release


def _joined(
    real: str, options: str, *, alone: bool, locked: Mapping[str, str] | None
) -> tuple[duckdb.DuckDBPyConnection, Release, bool]:
    """Return a connection of the right instance, and whether it is this package's own instance."""
    if locked is not None:
        connection = duckdb.connect(unicode_path(real), read_only=True, config=dict(locked))
        live.add(connection)
        return connection, connection.close, False
    if _instance.has(real) or not alone:
        try:
            return *_attached(real, options), True
        except duckdb.Error as error:
            if not _IS_OPEN_HERE.search(str(error)):
                raise
    connection = connected(real, read_only=options == "READ_ONLY")
    live.add(connection)
    # Of this connection only: other code of the process may share the instance.
    connection.execute(f"SET SESSION {NO_PYTHON_VARIABLES}")
    return connection, connection.close, False


def _attached(real: str, options: str) -> Opened:
    instance = _instance
    cursor = instance.connect(real, options)
    return cursor, lambda: instance.release(real, cursor)


def releasing(close: Release) -> Release:
    """Return a function that closes under the lock of opening and closing, and not in a fork."""
    owner = os.getpid()

    def release() -> None:
        if os.getpid() == owner:  # in a forked child, closing would write to the parent's file
            with _lock:
                close()

    return release


def _holder(path: Path, message: str | None) -> str | None:
    real = os.path.realpath(path)
    if message is None:
        if _held_files.has(real) or real in _reserved:
            return f"another connection of process {os.getpid()}"
        return lock_holder(lock_path(Path(real)))
    if _IS_OPEN_HERE.search(message):  # other code attached the file; it cannot be shared
        return f"another database of process {os.getpid()}"
    found = _HOLDER.search(message)
    return f"process {found['pid']} ({found['program']})" if found else None
