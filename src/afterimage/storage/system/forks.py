"""Forks: what the modules of this package do at one, and which open files a child inherited.

DuckDB takes a database that the parent had open for the child's own, with no lock on the file: the
parent then overwrites what the child saves. So such a file is refused, by this list.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from afterimage.storage.system.file_identity import FileIdentity, identity_of, open_files

__all__ = ["at_fork", "is_inherited"]

_inherited: set[FileIdentity] = set()


def at_fork(**hooks: Callable[[], None]) -> None:
    """Register `before`, `after_in_parent` and `after_in_child`, where the system can fork."""
    if hasattr(os, "register_at_fork"):
        os.register_at_fork(**hooks)


def is_inherited(path: Path) -> bool:
    """Whether the parent had the file open when this process was forked from it."""
    return bool(_inherited) and identity_of(path) in _inherited


def _after_fork() -> None:
    _inherited.update(open_files() or ())


at_fork(after_in_child=_after_fork)
