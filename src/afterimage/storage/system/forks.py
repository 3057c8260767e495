"""Forks: what the modules of this package do at one, and which open files a child inherited.

DuckDB takes a database that the parent had open for the child's own, with no lock on the file: the
parent then overwrites what the child saves. So such a file is refused, by this list.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

__all__ = ["at_fork", "is_inherited"]

_inherited: set[tuple[int, int]] = set()  # device and number


def at_fork(**hooks: Callable[[], None]) -> None:
    """Register `before`, `after_in_parent` and `after_in_child`, where the system can fork."""
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(**hooks)


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


at_fork(after_in_child=_after_fork)
