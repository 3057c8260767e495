"""Write a database file again without unused space.

The new file is made beside the old one, which it then replaces: a process that is killed leaves the
old one. Until then this process has the old file open and locked, so nobody can write to it.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Final

import duckdb

from afterimage.storage.engine.attach import FILE_OPTIONS, releasing, reserved, waited_for
from afterimage.storage.engine.copies.copying import copy_database
from afterimage.storage.engine.instance import Instance, quoted
from afterimage.storage.engine.new_files import refuse_other_names
from afterimage.storage.errors import DatabaseError, ReplacedFileError, StorageError
from afterimage.storage.system.atomic_files import (
    copy_permissions,
    sync,
    sync_folder,
    temporary_path,
    temporary_paths,
)
from afterimage.storage.system.interrupts import interruptible
from afterimage.storage.system.locks import fingerprint
from afterimage.storage.system.targets import unicode_path

__all__ = ["compact_file"]

_SUFFIX: Final = "compacting"

_Alone = tuple[duckdb.DuckDBPyConnection, Callable[[], None], Callable[[], None]]
"""A connection, the function that detaches the file, and the one that ends the reservation."""


def compact_file(path: Path, lock_timeout: float) -> None:
    """Write a database file again, if that makes it smaller.

    Raises:
        LockTimeoutError: another connection had the file open for all of `lock_timeout`.
        StorageError: the file has hard links, another program replaced it, or the disk is full.
            Nothing was changed.
    """
    refuse_other_names(path)
    real = Path(os.path.realpath(path))
    connection, detach, release = waited_for(path, lock_timeout, lambda: _opened_alone(real))
    folder = temporary_path(real, _SUFFIX)
    fresh = folder / real.name
    try:
        _remove_left(real)
        folder.mkdir(0o700)  # nobody else may read the new file before it has its permissions
        with interruptible(connection.interrupt):
            connection.execute("CHECKPOINT")
            before = fingerprint(real)
            counts = _counts(connection)
            copy_database(connection, fresh)
            connection.execute(f"ATTACH {quoted(unicode_path(fresh))} AS copy (READ_ONLY)")
            connection.execute("USE copy")
            if _counts(connection) != counts:
                raise DatabaseError(f"{path} was not copied whole. Nothing was changed.")
            connection.execute("USE memory")
            connection.execute("DETACH copy")
        if fresh.stat().st_size < real.stat().st_size:
            sync(fresh)
            copy_permissions(real.stat(), fresh)
            if os.name != "posix":  # there, a file that is open cannot be replaced
                detach()
            if fingerprint(real) != before:
                raise ReplacedFileError(
                    f"{path} was replaced or changed while it was compacted. Nothing was changed. "
                    "Try again."
                )
            fresh.replace(real)
            sync_folder(real.parent)
    except OSError as error:
        if isinstance(error, StorageError):
            raise
        raise StorageError(f"{path} cannot be compacted: {error.strerror or error}") from error
    finally:
        detach()
        _remove_left(real)
        release()


def _counts(connection: duckdb.DuckDBPyConnection) -> dict[str, int]:
    """Return the number of rows of each table of the database, which nobody else uses."""
    listed = """SELECT '"' || replace(schema_name, '"', '""') || '"."' ||
        replace(table_name, '"', '""') || '"' FROM duckdb_tables()
        WHERE database_name = current_database() AND NOT temporary"""
    names = [name for (name,) in connection.execute(listed).fetchall()]
    counted = (connection.execute(f"SELECT count(*) FROM {name}").fetchall() for name in names)
    return {name: rows[0][0] for name, rows in zip(names, counted, strict=True)}


def _opened_alone(path: Path) -> _Alone | None:
    """Open a file in an instance of its own; None if another connection has it open."""
    release = reserved(path)
    if release is None:
        return None
    try:
        before = fingerprint(path)
        instance = Instance()
        connection = instance.connect(str(path), FILE_OPTIONS)
        is_attached = True

        def detach() -> None:
            nonlocal is_attached
            if is_attached:
                is_attached = False
                instance.release(str(path), connection)

        if fingerprint(path) != before:  # another program wrote it while it was opened
            detach()
            release()
            return None
    except BaseException:
        release()
        raise
    return connection, releasing(detach), release


def _remove_left(path: Path) -> None:
    """Remove new files, also those of processes that were killed; call it under the lock."""
    for left in temporary_paths(path, _SUFFIX):
        shutil.rmtree(left, ignore_errors=True)
