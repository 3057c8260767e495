"""New database files: each appears under its name complete, and then has this name only.

A lock and a log belong to one name of a database. So a database with hard links is only read.
"""

from __future__ import annotations

import os
import time
from contextlib import suppress
from pathlib import Path
from typing import Final

from afterimage.storage.errors import DatabaseError
from afterimage.storage.system.atomic_files import copy_permissions, temporary_paths
from afterimage.storage.system.locks import LockFile, acquire_file
from afterimage.storage.system.side_files import hard_link_error, has_hard_links

__all__ = ["NEW_SUFFIX", "has_other_names", "put_in_place", "refuse_other_names"]

NEW_SUFFIX: Final = "new"
"""The end of the name of a database that is being created."""

_POLL_SECONDS: Final = 0.01


def put_in_place(fresh: Path, path: Path) -> bool:
    """Link a new, complete database file to its name, unless another process was faster.

    Returns:
        Whether the file has the name now.
    """
    try:
        os.link(fresh, path)
    except OSError:  # the name is taken, or the file system has no hard links
        return _replace_if_empty(fresh, Path(os.path.realpath(path)))
    return True


def _replace_if_empty(fresh: Path, path: Path) -> bool:
    """Put a new database in the place of an empty file, as tempfile makes them, or of none.

    Under a lock: of two who find the file empty, the second must not undo what the first saved.
    """
    lock = LockFile(path)
    while not acquire_file(lock, 0):
        if not _is_empty(path):
            return False
        time.sleep(_POLL_SECONDS)
    try:
        if _is_empty(path):
            if path.exists():
                copy_permissions(path.stat(), fresh)
            fresh.replace(path)
            return True
    finally:
        lock.release()
    return False


def _is_empty(path: Path) -> bool:
    return not path.exists() or (path.is_file() and path.stat().st_size == 0)


def refuse_other_names(path: Path) -> None:
    """Refuse to write a database that has hard links: its lock and its log belong to one name.

    Raises:
        DatabaseError: it has.
    """
    if has_other_names(path):
        raise DatabaseError(str(hard_link_error(path)))


def has_other_names(path: Path) -> bool:
    """Return whether a database has hard links, without those that its creation has left."""
    if not has_hard_links(path):
        return False
    real = Path(os.path.realpath(path))
    for fresh in temporary_paths(real, NEW_SUFFIX):
        with suppress(OSError):
            if fresh.samefile(real):
                fresh.unlink()
    return has_hard_links(real)
