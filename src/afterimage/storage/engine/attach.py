"""Database files: attached for a call, and let go of after it.

A process that has a file open shuts out every other, so a file is open during calls only, and the
DuckDB CLI, a notebook and a generator take turns, each waiting no longer than its `lock_timeout`.
All files are attached to one DuckDB instance of this process, as to start one for each call would
cost far more than the call. Where the process has the file open otherwise, as a notebook's own
`duckdb.connect(path)`, that instance is shared instead.
"""

from __future__ import annotations

import ctypes
import hashlib
import itertools
import os
import random
import re
import tempfile
import threading
import time
import uuid
import weakref
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import duckdb
from filelock import FileLock

from afterimage.storage.engine.held_files import HeldFiles
from afterimage.storage.errors import (
    DatabaseError,
    LockTimeoutError,
    MissingFileError,
    ReplacedFileError,
    shorten,
)
from afterimage.storage.system.file_identity import identity_of, open_files
from afterimage.storage.system.forks import is_inherited
from afterimage.storage.system.locks import ProcessLock, fingerprint, lock_holder, lock_path

__all__ = [
    "Opened",
    "Release",
    "attach_new",
    "connect",
    "connect_memory",
    "drop_cached_blocks",
    "open_memory",
    "put_in_place",
]

Release = Callable[[], None]
"""Closes a connection and, where it was the last one, lets go of the file."""

Opened = tuple[duckdb.DuckDBPyConnection, Release]
"""A connection, and what has to be called at its end."""

# Text as Zstandard is written in half the time of what DuckDB would choose, and is as small. A save
# of over a megabyte goes to the file in the commit itself, not first to the log and then again.
# Arrow data comes with 64-bit offsets: over 2 GiB of text in one step, others fail.
_SETTINGS: Final = {
    "force_compression": "zstd",
    "wal_autocheckpoint": "1MB",
    "arrow_large_buffer_size": "true",
}

# A conversation is a wide row, of kilobytes: with so few of them a row group, a save compresses on
# all cores while it goes on, and a small one has little to write again.
_ROW_GROUP: Final = "ROW_GROUP_SIZE 2048"

# What the oldest DuckDB that we support can open; a newer one writes a newer format by default.
# Blocks of a quarter of DuckDB's usual size leave less of the last one of each column empty.
_NEW_FILE: Final = "STORAGE_VERSION 'v1.5.0', BLOCK_SIZE 65536"

# What DuckDB may keep of files when it is told to let go of them.
_LITTLE_MEMORY: Final = "32MB"

_MEMORY_IN_USE: Final = """
    SELECT sum(memory_usage_bytes), current_setting('memory_limit'),
        (FROM duckdb_connection_count()) FROM duckdb_memory()
"""

_LOCK_POLL_SECONDS: Final = (0.001, 0.02)

_IS_LOCKED = re.compile(r"Could not set lock|Conflicting lock|being used by another process", re.I)
_IS_OPEN_HERE = re.compile(r"Unique file handle conflict", re.I)
_HOLDER = re.compile(r"held in (?P<program>.+?) \(PID (?P<pid>\d+)\)")


@dataclass
class _Attached:
    alias: str
    root: duckdb.DuckDBPyConnection
    users: int = 0


# The connections of this process that keep a database, and its turns at files.
_live: weakref.WeakSet[duckdb.DuckDBPyConnection] = weakref.WeakSet()
_turns: dict[str, ProcessLock] = {}


class _Instance:
    """The DuckDB instance that files are attached to; use it under `_lock`."""

    def __init__(self) -> None:
        self._root: duckdb.DuckDBPyConnection | None = None
        self._attached: dict[str, _Attached] = {}
        self._numbers = itertools.count(1)

    def has(self, path: str) -> bool:
        return path in self._attached

    def cursor(self) -> duckdb.DuckDBPyConnection:
        """A connection to no file, of a new instance where a file's damage has ended this one."""
        cursor = _cursor_of(self._running())
        try:
            cursor.execute("SELECT 1").fetchall()
        except duckdb.FatalException:
            self._root = None
            cursor = _cursor_of(self._running())
        return cursor

    def _running(self) -> duckdb.DuckDBPyConnection:
        if self._root is None:
            self._root = duckdb.connect(":memory:")
            for name, value in _SETTINGS.items():
                self._root.execute(f"SET {name} = '{value}'")
            # Where a sort that needs more than memory goes; DuckDB makes it then, and removes it.
            spill = Path(tempfile.gettempdir()) / f"afterimage-{uuid.uuid4().hex}"
            self._root.execute(f"SET temp_directory = {_quoted(spill)}")
            _live.add(self._root)
        return self._root

    def connect(self, path: str, options: str) -> duckdb.DuckDBPyConnection:
        """A connection to a file, which is attached for it unless it is already."""
        held = self._attached.get(path)
        if held is None:
            try:
                held = self._attach(path, options)
            except duckdb.FatalException:
                self._root = None
                held = self._attach(path, options)
            self._attached[path] = held
        cursor = _cursor_of(held.root)
        cursor.execute(f"USE {held.alias}")
        held.users += 1
        return cursor

    def _attach(self, path: str, options: str) -> _Attached:
        held = _Attached(f"file_{next(self._numbers)}", self._running())
        held.root.execute(f"ATTACH {_quoted(path)} AS {held.alias} ({options})")
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
        except duckdb.Error:  # with its last connection an instance closes all its files
            if self._root is held.root:
                self._root = None


def _cursor_of(root: duckdb.DuckDBPyConnection) -> duckdb.DuckDBPyConnection:
    cursor = root.cursor()
    _live.add(cursor)
    return cursor


_instance = _Instance()
_held_files = HeldFiles()
# DuckDB hands out a database that another thread is still opening, and opens a file anew that
# another thread has not finished closing.
# Taken again by its own thread where the collector ends a stream just then.
_lock = threading.RLock()


def _after_fork() -> None:
    """What DuckDB's threads and the parent's hold in the parent stays held here, for good.

    To end an instance waits for its threads, which are not in the child: it would crash. To end a
    turn would end the parent's. So the child keeps them, beyond the end of the interpreter too.
    """
    global _instance, _held_files, _lock
    for kept in [*_live, *_turns.values()]:
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(kept))
    _turns.clear()
    _instance, _held_files, _lock = _Instance(), HeldFiles(), threading.RLock()


_forking = threading.local()


def _before_fork() -> None:
    _forking.has_lock = _lock.acquire(timeout=10)


def _after_fork_in_parent() -> None:
    if _forking.has_lock:
        _lock.release()


if hasattr(os, "register_at_fork"):
    # No thread is to be in DuckDB's own table of open files then: its lock would stay held, too.
    os.register_at_fork(
        before=_before_fork, after_in_parent=_after_fork_in_parent, after_in_child=_after_fork
    )


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
        alone: whether to start an instance for it, as `duckdb.connect(path)` does, so that what
            somebody does with the connection reaches nothing else.
        read_only_settings: if given, the file is opened read-only by an instance of its own with
            these settings, which nothing else in this process shares.

    Raises:
        MissingFileError: there is no such file.
        LockTimeoutError: another process held the file throughout.
        ReplacedFileError: the file was replaced, and connections hold the former one.
        DatabaseError: it is no DuckDB database, or cannot be opened.
    """
    started = time.monotonic()
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
            with _lock:
                if (opened := _open(path, alone=alone, locked=read_only_settings)) is not None:
                    return opened
        except duckdb.ConnectionException as error:
            raise DatabaseError(
                f"{path} is open in this process with other settings (read_only?): close that "
                f"connection, or open it as duckdb.connect(path). {shorten(error)}"
            ) from None
        except duckdb.Error as error:
            refusal = str(error)
            if not (_IS_LOCKED.search(refusal) or _IS_OPEN_HERE.search(refusal)):
                raise DatabaseError(f"{path} cannot be opened: {shorten(error, 300)}") from None
        waited = time.monotonic() - started
        if waited >= lock_timeout:
            real = Path(os.path.realpath(path))
            holder = _holder(refusal) if refusal else lock_holder(lock_path(real))
            raise LockTimeoutError.of(path, waited, holder)
        time.sleep(pause * random.uniform(0.5, 1.5))
        pause = min(pause * 1.5, longest)


def connect_memory() -> Opened:
    """A connection to no file, for queries over what is handed to it."""
    with _lock:
        cursor = _instance.cursor()
    return cursor, cursor.close


def open_memory(name: str) -> duckdb.DuckDBPyConnection:
    """A database in memory, of an instance of its own."""
    with _lock:
        root = duckdb.connect(name)
    _live.add(root)
    root.execute("SET arrow_large_buffer_size = true")
    return root


def attach_new(path: Path) -> Opened:
    """Create a database file in a format that every supported DuckDB opens."""
    with _lock:
        cursor, release = _attached(os.path.realpath(path), f"{_NEW_FILE}, {_ROW_GROUP}")
    return cursor, _releasing(release)


def drop_cached_blocks(path: Path, connection: duckdb.DuckDBPyConnection, most: int) -> None:
    """Have DuckDB let go of the blocks of files that it keeps, where they are over `most` bytes.

    It keeps all that it reads or writes until it is at its limit of memory, four fifths of the
    machine's. The limit is lowered for a moment in which no statement runs: nothing is done where
    anybody else is connected, who might need more. Call it between the statements of `connection`.
    """
    # By another connection: a SET fails where more is in use, and with it a transaction would.
    with _lock, connection.duplicate() as other:
        [[kept, limit, connected]] = other.execute(_MEMORY_IN_USE).fetchall()
        # With `other`, and what keeps the instance that is our own.
        ours = 2 + _instance.has(os.path.realpath(path))
        if kept <= most or connected > ours:
            return
        try:
            with suppress(duckdb.Error):
                other.execute(f"SET memory_limit = '{_LITTLE_MEMORY}'")
        finally:
            # As it was: in DuckDB 1.5, RESET may leave it low. It is shown in tenths, rounded down.
            number, unit = limit.split()
            other.execute(f"SET memory_limit = '{float(number) + 0.05:.2f} {unit}'")


def put_in_place(fresh: Path, path: Path) -> bool:
    """Give a new database its name, unless somebody was faster; it is whole when it appears.

    Returns:
        Whether it has the name now.
    """
    try:
        os.link(fresh, path)
    except FileExistsError:
        return _replace_if_empty(fresh, path)
    return True


def _open(path: Path, *, alone: bool, locked: Mapping[str, str] | None) -> Opened | None:
    """A connection; None if the file was in use, written or replaced by others meanwhile."""
    real = os.path.realpath(path)
    _held_files.check(path, real)
    if not os.access(path, os.W_OK):  # nobody's turn: DuckDB shares a file that is only read
        opened = _opened(path, real, "READ_ONLY", alone=alone, locked=locked)
        return opened and (opened[0], _releasing(opened[1]))
    turn = _turns.setdefault(real, ProcessLock(Path(real)))
    is_first = not turn.is_held
    if not turn.acquire():
        return None
    opened = None
    try:
        before = fingerprint(path)
        opened = _opened(path, real, _ROW_GROUP, alone=alone, locked=locked)
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

    return connection, _releasing(release_all)


def _opened(
    path: Path, real: str, options: str, *, alone: bool, locked: Mapping[str, str] | None
) -> Opened | None:
    """A connection to the file that is at a path; to be closed under `_lock`.

    None if there is no file, or if it was replaced meanwhile.
    """
    is_first = not _held_files.has(real)
    identity = identity_of(real)
    if identity is None:
        return None
    connection, close, is_own = _joined(real, options, alone=alone, locked=locked)
    if identity_of(real) != identity:
        close()
        return None
    # DuckDB joins by path the instance of other code in this process. Which file that instance has
    # open, only the system knows.
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
    """A connection by whatever instance has the file, or may; and whether that is our own."""
    if locked is not None:
        connection = duckdb.connect(real, read_only=True, config=dict(locked))
        _live.add(connection)
        return connection, connection.close, False
    if _instance.has(real) or not alone:
        try:
            return *_attached(real, options), True
        except duckdb.Error as error:
            if not _IS_OPEN_HERE.search(str(error)):
                raise
    connection = duckdb.connect(real, read_only=options == "READ_ONLY")
    _live.add(connection)
    return connection, connection.close, False


def _attached(real: str, options: str) -> Opened:
    instance = _instance
    cursor = instance.connect(real, options)
    return cursor, lambda: instance.release(real, cursor)


def _releasing(close: Release) -> Release:
    owner = os.getpid()

    def release() -> None:
        if os.getpid() == owner:  # in a fork, to close it would write into the parent's file
            with _lock:
                close()

    return release


def _replace_if_empty(fresh: Path, path: Path) -> bool:
    """Put a new database in the place of an empty file, as tempfile makes them.

    Under a lock: of two who find the file empty, the second must not undo what the first saved.
    """
    name = hashlib.sha256(str(path.resolve()).encode()).hexdigest()
    with FileLock(Path(tempfile.gettempdir()) / f"afterimage-{name}.lock"):
        if path.is_file() and path.stat().st_size == 0:
            fresh.replace(path)
            return True
    return False


def _holder(message: str) -> str | None:
    if _IS_OPEN_HERE.search(message):  # by an ATTACH of its own, which nothing else can join
        return f"another database of process {os.getpid()}"
    found = _HOLDER.search(message)
    return f"process {found['pid']} ({found['program']})" if found else None


def _quoted(path: str | Path) -> str:
    """A path as a string of SQL: DuckDB 1.5 takes no parameter here."""
    return "'" + str(path).replace("'", "''") + "'"
