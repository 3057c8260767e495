"""The protocol of the systems, and the little that they share."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, ClassVar

from pydantic import BaseModel, TypeAdapter

from benchmarks.harness.dataset import Dataset

__all__ = ["SMALL_SAVES", "Measured", "RecordStore", "Rows", "folder_size", "fsync_tree"]

SMALL_SAVES = 200
"""Calls of the small saves, one conversation each."""

Rows = list[dict[str, Any]]


class Measured:
    """Something whose methods are timed: `before(task)` is not timed, `task(*what it gave)` is.

    Each task runs in a process of its own, in `folder`, where it finds what earlier tasks left.
    """

    def __init__(self, folder: Path, data: Dataset) -> None:
        self.folder = folder
        self.data = data

    def before(self, task: str) -> tuple[Any, ...]:
        """Get ready for a task; what is returned are its arguments."""
        del task
        return ()

    def disk_bytes(self) -> int:
        """What the task left on the disk."""
        return folder_size(self.folder)


class RecordStore(Measured, ABC):
    """A store of conversations.

    Attributes:
        model: the class of the records; all that are loaded are validated as it.
    """

    model: ClassVar[type[BaseModel]]

    def __init__(self, folder: Path, data: Dataset) -> None:
        super().__init__(folder, data)
        self._adapter: TypeAdapter[list[Any]] = TypeAdapter(list[self.model])  # type: ignore[name-defined]

    def before(self, task: str) -> tuple[Any, ...]:
        if task == "save":
            return (self.ready_models(),)
        self.open()
        return ()

    def ready_models(self) -> list[Any]:
        """All records of the data set, in its order."""
        return [self.model.model_validate_json(line) for line in self.data.lines()]

    def open(self) -> None:
        """Open what `save` left, as a program does once before it reads again and again."""

    @abstractmethod
    def save(self, models: Sequence[Any]) -> None:
        """Save all of them into a new store, durably."""

    @abstractmethod
    def load(self) -> list[Any]:
        """All records as validated models, in their order."""

    @abstractmethod
    def filtered(self) -> list[Any]:
        """The filtered page that the data set asks for, as validated models."""

    @abstractmethod
    def group(self) -> dict[str | None, int]:
        """How many records there are for each value of the filter's key."""

    @staticmethod
    def rows(models: Iterable[Any]) -> Rows:
        """The models as plain values."""
        return [model.model_dump(mode="json") for model in models]

    def validated(self, rows: Rows) -> list[Any]:
        """Plain values as models, the way pydantic has it for many."""
        return self._adapter.validate_python(rows)


def fsync_tree(path: Path) -> None:
    """Have everything at the path written to the disk, for libraries that leave this to us."""
    for at in (path, *path.rglob("*")):
        handle = os.open(at, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def folder_size(folder: Path) -> int:
    """The bytes of all files in a folder."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
