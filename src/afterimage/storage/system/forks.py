"""Which files this process had from its parent, open, when it was forked.

DuckDB would take a database that the parent had open for the child's own, with no lock on the file:
what the child saves there, the parent overwrites. So such a file is refused, by this list.
"""

from __future__ import annotations

import os
import stat
from contextlib import suppress
from pathlib import Path

__all__ = ["is_inherited"]

_inherited: set[tuple[int, int]] = set()  # device and number


def is_inherited(path: Path) -> bool:
    """Whether the parent had the file open when this process was forked from it."""
    if not _inherited:
        return False
    found = path.stat()
    return (found.st_dev, found.st_ino) in _inherited


def _after_fork() -> None:
    with suppress(OSError):  # a system without /dev/fd
        for entry in Path("/dev/fd").iterdir():
            with suppress(OSError, ValueError):  # the handle of this very listing
                found = os.fstat(int(entry.name))
                if stat.S_ISREG(found.st_mode):
                    _inherited.add((found.st_dev, found.st_ino))


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
