"""The base classes of the systems, and their shared functions."""

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
"""Number of small saves, of one conversation each."""

Rows = list[dict[str, Any]]


class Measured:
    """A class whose methods are timed.

    `before(task)` is not timed; it returns the arguments of the task. The task itself is timed.
    Each task runs in its own process, in `folder`, which has the files of earlier tasks.
    """

    def __init__(self, folder: Path, data: Dataset) -> None:
        self.folder = folder
        self.data = data

    def before(self, task: str) -> tuple[Any, ...]:
        """Prepare a task, and return its arguments."""
        del task
        return ()

    def disk_bytes(self) -> int:
        """The bytes of all files of the task."""
        return folder_size(self.folder)


class RecordStore(Measured, ABC):
    """A store of conversations.

    Attributes:
        model: the class of the records; all loaded records are validated with it.
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
        """Open the saved store; a program does this once before many reads."""

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
        """The number of records for each value of the filter's key."""

    @staticmethod
    def rows(models: Iterable[Any]) -> Rows:
        """The models as plain Python values."""
        return [model.model_dump(mode="json") for model in models]

    def validated(self, rows: Rows) -> list[Any]:
        """Plain Python values as models, validated in one call."""
        return self._adapter.validate_python(rows)


def fsync_tree(path: Path) -> None:
    """Sync a file or folder to disk, for libraries that do not do this."""
    for at in (path, *path.rglob("*")):
        handle = os.open(at, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def folder_size(folder: Path) -> int:
    """The bytes of all files in a folder."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
