"""Side files: the lock of a file, the journal of a save, bytes that a save moved out of a file.

The invariant: they are next to the file itself, so that all its names lead to the same side files.
Only symbolic links need this: a folder is the same under each of its names. A hard link is another
name that does not lead to the file's folder, so `has_hard_links` tells callers to refuse it.
"""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from typing import IO, Literal

from afterimage.storage.errors import StorageError
from afterimage.storage.system.atomic_files import copy_permissions

__all__ = ["hard_link_error", "has_hard_links", "open_side_file", "side_file"]


def side_file(path: Path, suffix: str) -> Path:
    """Return the path of a side file: the name of the file, with a suffix added."""
    if os.path.islink(path):  # noqa: PTH114  it is false if the folder cannot be accessed
        path = Path(os.path.realpath(path))
    return path.with_name(f"{path.name}{suffix}")


def open_side_file(side: Path, path: Path, mode: Literal["wb", "ab"]) -> IO[bytes]:
    """Open a side file of `path` for writing, unbuffered. A new one gets the mode and owner of it.

    It holds data of the file, so nobody else may read it.
    """
    is_new = not side.exists()
    file = open(side, mode, buffering=0, opener=_open_private)  # noqa: SIM115
    if is_new:
        with suppress(OSError):  # the file system has no modes
            copy_permissions(path.stat(), side)
    return file


def _open_private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def has_hard_links(file: Path | int) -> bool:
    """Return whether a file, or the file of a descriptor, has more than one name in the system."""
    try:
        return os.stat(file).st_nlink > 1  # noqa: PTH116  of a descriptor too
    except OSError:  # it does not exist
        return False


def hard_link_error(path: Path) -> StorageError:
    """Return the error for a file that must not be written because it has hard links."""
    return StorageError(
        f"{path} has more than one name (hard links), and programs that use another name cannot "
        "see its lock. Nothing was saved. Save to a copy of the file, or remove the other names."
    )
