"""Read-only connections for a caller to keep: to a copy, so that no writer waits for their end.

A file that this process does not have open is copied byte by byte, under its lock. Otherwise
closing the descriptor of the copy would drop DuckDB's lock on the file, so DuckDB makes the copy.
On POSIX, the copy has no name any more once it is open, and a killed process leaves none.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Literal

import duckdb

from afterimage.storage.engine.attach import (
    Opened,
    Release,
    connect,
    releasing,
    reserved,
    waited_for,
)
from afterimage.storage.engine.copies.copying import copy_database
from afterimage.storage.engine.instance import NO_PYTHON_VARIABLES, connected, live, quoted
from afterimage.storage.errors import StorageError
from afterimage.storage.system.atomic_files import (
    temporary_name,
    temporary_path,
    temporary_paths,
    write_all,
)
from afterimage.storage.system.file_identity import identity_of, open_files
from afterimage.storage.system.interrupts import checkpoint
from afterimage.storage.system.targets import unicode_path

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

__all__ = ["lent_copy", "lent_file", "new_copy", "open_copy"]

_SUFFIX = "copy"
_PART = 64 * 2**20

_Reserved = tuple[IO[bytes], Release]


def lent_file(path: Path, lock_timeout: float) -> Opened:
    """Open a read-only connection to a copy of a database file.

    Raises:
        MissingFileError: the file does not exist.
        LockTimeoutError: another process held the file for all of `lock_timeout`.
        StorageError: there is no space for the copy.
    """
    real = Path(os.path.realpath(path))
    found: _Reserved | Literal[False] = waited_for(path, lock_timeout, lambda: _reserved_file(real))
    if found:
        file, release = found
        try:
            for remains in temporary_paths(real, _SUFFIX):  # of a process that was killed
                shutil.rmtree(remains, ignore_errors=True)
            with new_copy(real) as copy:
                with copy.open("xb", buffering=0) as target:
                    _copy_bytes(file, target)
                return open_copy(copy)
        finally:
            file.close()
            release()
    connection, release = connect(path, lock_timeout)
    try:
        return lent_copy(connection, real)
    finally:
        release()


def lent_copy(connection: duckdb.DuckDBPyConnection, path: Path | None = None) -> Opened:
    """Open a read-only connection to a copy that DuckDB makes of the database of a connection.

    Args:
        connection: a connection that is in no transaction.
        path: see `new_copy`.
    """
    with new_copy(path) as copy:
        copy_database(connection, copy)
        return open_copy(copy)


def _has_space(path: Path) -> bool:
    """Return whether a copy of a file can be beside it."""
    if not os.access(path.parent, os.W_OK):
        return False
    try:
        return shutil.disk_usage(path.parent).free > path.stat().st_size
    except OSError:  # there is no such file yet
        return True


@contextmanager
def new_copy(path: Path | None = None) -> Iterator[Path]:
    """Provide the path of a copy in a hidden folder of its own, for `open_copy`.

    The folder is removed after an error.

    Args:
        path: the path whose name the copy gets, and beside which it is, if possible: some file
            systems let a copy share the blocks of the file. If None, it is a temporary file.
    """
    temporary = temporary_name() or Path.cwd() / "copy"
    if path is None:
        path = temporary.with_name("memory.duckdb")
    folder = temporary_path(path, _SUFFIX) if _has_space(path) else temporary
    try:
        folder.mkdir(0o700)
        yield folder / path.name
    except OSError as error:
        shutil.rmtree(folder, ignore_errors=True)
        if isinstance(error, StorageError):
            raise
        raise StorageError(f"{path} cannot be copied: {error.strerror or error}") from error
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise


def open_copy(copy: Path) -> Opened:
    """Open a copy of `new_copy` read-only; its folder is removed at once or at the end."""
    connection = connected(str(copy), read_only=True)
    live.add(connection)
    spill = temporary_name() or ""  # without a folder, DuckDB needs enough memory
    connection.execute(f"SET temp_directory = {quoted(unicode_path(spill))}")
    connection.execute(f"SET GLOBAL {NO_PYTHON_VARIABLES}")
    shutil.rmtree(copy.parent, ignore_errors=True)

    def close() -> None:
        connection.close()
        for left in (copy.parent, Path(spill)):
            if left != Path():
                shutil.rmtree(left, ignore_errors=True)

    return connection, releasing(close)


def _reserved_file(path: Path) -> _Reserved | Literal[False] | None:
    """Open a file whose bytes can be copied, and shut out those who would write it.

    Returns:
        None if it is in use, and False if DuckDB must make the copy.
    """
    here = open_files()
    log = path.with_name(f"{path.name}.wal")
    if fcntl is None or here is None or identity_of(path) in here or log.exists():
        return False
    release = reserved(path)
    if release is None:
        return None
    file = path.open("rb", buffering=0)
    try:
        fcntl.lockf(file, fcntl.LOCK_SH | fcntl.LOCK_NB)  # as DuckDB does, also in other programs
        if not log.exists():
            return file, release
    except BlockingIOError:
        pass
    except OSError:  # the file system has no locks
        file.close()
        release()
        return False
    file.close()
    release()
    return None


def _copy_bytes(source: IO[bytes], target: IO[bytes]) -> None:
    """Copy a file; some file systems let the copy share the blocks of the file."""
    with suppress(OSError, AttributeError):  # the system cannot; go on where it stopped
        while os.copy_file_range(source.fileno(), target.fileno(), _PART):
            checkpoint()
    while block := source.read(_PART):
        checkpoint()
        write_all(target, block)
