"""What all curators share: the tasks, and the facts that they use."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

__all__ = ["CHANGES", "CHANGING", "DELETED", "PHRASE", "SHARE", "UPDATED", "Curator", "synced"]

PHRASE = "night"
"""The text that is searched in all messages, in any case of its letters."""
DELETED = 1
UPDATED = 10
"""Per cent of the conversations; `metadata.part` is from 0 to 99."""
CHANGES = {"topic": "checked"}
"""The metadata keys that an update sets."""
SHARE = 0.9
"""The share of the first part of a split."""
CHANGING = ("dedupe", "delete", "update")
"""The tasks that change a store; each call gets a new copy of it."""


class Curator:
    """One system with its stores, each in a folder of its own.

    Args:
        folder: has a folder for each store: `base`, `repeated` and `changed`.

    A task that a system does not have is not defined by its class. Each returns what is compared:
    a number of conversations, or for `diff` how many are in both, only in the first store, only in
    the second one, and changed. Writes are on the disk when a task returns.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def make(self, name: str, lines: Path) -> None:
        """Make a store of a JSONL file."""
        raise NotImplementedError

    def open(self, name: str) -> Any:
        """Open a store; this is not measured."""
        raise NotImplementedError

    def at(self, name: str) -> Path:
        """The folder of a store."""
        path = self.folder / name
        path.mkdir(parents=True, exist_ok=True)
        return path


def synced(path: Path) -> None:
    """Flush a file, or all files of a folder, to the disk."""
    for file in [path] if path.is_file() else [each for each in path.rglob("*") if each.is_file()]:
        handle = os.open(file, os.O_RDONLY)
        os.fsync(handle)
        os.close(handle)
