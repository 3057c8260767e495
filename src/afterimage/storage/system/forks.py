"""Fork hooks, and the files that were open in the parent process at the fork.

A forked child inherits an open database without its file lock, and DuckDB does not notice. The
parent would then overwrite the child's changes. This package refuses to open such a file in the
child; this module keeps the list of these files.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from afterimage.storage.system.file_identity import FileIdentity, identity_of, open_files

__all__ = ["at_fork", "is_inherited"]

_inherited: set[FileIdentity] = set()


def at_fork(**hooks: Callable[[], None]) -> None:
    """Register `before`, `after_in_parent` and `after_in_child` if the system supports fork."""
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(**hooks)


def is_inherited(path: Path) -> bool:
    """Return whether the parent process had the file open when it forked this process."""
    return bool(_inherited) and identity_of(path) in _inherited


def _after_fork() -> None:
    _inherited.update(open_files() or ())


at_fork(after_in_child=_after_fork)
