"""Identities of files: the same before and after a rename, and different for a replacement.

Uses stat only: closing a descriptor of a database would drop DuckDB's lock on it.
"""

from __future__ import annotations

import os
import stat
from contextlib import suppress
from pathlib import Path

__all__ = ["FileIdentity", "identity_of", "open_files"]

FileIdentity = tuple[int, int]
"""Device and inode of a file; no other file has them while the file is open."""


def identity_of(path: str | Path) -> FileIdentity | None:
    """Return the identity of the file at a path; None if it does not exist."""
    try:
        status = Path(path).stat()
    except OSError:
        return None
    return status.st_dev, status.st_ino


def open_files() -> set[FileIdentity] | None:
    """Return the regular files that this process has open; None if the system cannot list them."""
    identities = set()
    try:
        descriptors = [entry.name for entry in Path("/dev/fd").iterdir()]
    except OSError:
        return None
    for descriptor in descriptors:
        with suppress(OSError, ValueError):  # the descriptor of this listing is closed by now
            status = os.fstat(int(descriptor))
            if stat.S_ISREG(status.st_mode):
                identities.add((status.st_dev, status.st_ino))
    return identities
