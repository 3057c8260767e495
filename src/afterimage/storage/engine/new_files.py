"""New database files: each appears under its name complete, and then has this name only.

A lock and a log belong to one name of a database. So a database with hard links is only read.
"""

from __future__ import annotations

import glob
import hashlib
import os
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Final

from filelock import FileLock

from afterimage.storage.errors import DatabaseError
from afterimage.storage.system.locks import acquire_file
from afterimage.storage.system.side_files import hard_link_error, has_hard_links

__all__ = ["NEW_SUFFIX", "has_other_names", "put_in_place", "refuse_other_names"]

NEW_SUFFIX: Final = "new"
"""The end of the name of a database that is being created."""


def put_in_place(fresh: Path, path: Path) -> bool:
    """Link a new, complete database file to its name, unless another process was faster.

    Returns:
        Whether the file has the name now.
    """
    try:
        os.link(fresh, path)
    except FileExistsError:
        return _replace_if_empty(fresh, path)
    return True


def _replace_if_empty(fresh: Path, path: Path) -> bool:
    """Put a new database in the place of an empty file, as tempfile makes them.

    Under a lock: of two who find the file empty, the second must not undo what the first saved.
    """
    name = hashlib.sha256(str(path.resolve()).encode()).hexdigest()
    lock = FileLock(Path(tempfile.gettempdir()) / f"afterimage-{name}.lock")
    acquire_file(lock, -1)
    try:
        if path.is_file() and path.stat().st_size == 0:
            fresh.replace(path)
            return True
    finally:
        lock.release()
    return False


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
    for fresh in real.parent.glob(f".{glob.escape(real.name[:50])}.*.{NEW_SUFFIX}"):
        with suppress(OSError):
            if fresh.samefile(real):
                fresh.unlink()
    return has_hard_links(real)
