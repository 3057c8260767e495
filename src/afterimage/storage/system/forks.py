"""Fork hooks, and the files that were open in the parent process at the fork.

A forked child inherits an open database without its file lock, and DuckDB does not notice. The
parent would then overwrite the child's changes. This package refuses to open such a file in the
child; this module keeps the list of these files.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

__all__ = ["at_fork", "is_inherited"]

_inherited: set[tuple[int, int]] = set()  # device and inode


def at_fork(**hooks: Callable[[], None]) -> None:
    """Register `before`, `after_in_parent` and `after_in_child` if the system supports fork."""
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(**hooks)


def is_inherited(path: Path) -> bool:
    """Return whether the parent process had the file open when it forked this process."""
    if not _inherited:
        return False
    status = path.stat()
    return (status.st_dev, status.st_ino) in _inherited


def _after_fork() -> None:
    with suppress(OSError):  # a system without /dev/fd
        for entry in Path("/dev/fd").iterdir():
            with suppress(OSError, ValueError):  # the descriptor of this listing is closed by now
                status = os.fstat(int(entry.name))
                if stat.S_ISREG(status.st_mode):
                    _inherited.add((status.st_dev, status.st_ino))


at_fork(after_in_child=_after_fork)
