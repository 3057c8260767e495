"""Open a JSONL file for reading, with the complete saves that are in it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import IO, NamedTuple

from afterimage.storage.errors import MissingFileError, StorageError
from afterimage.storage.jsonl.journal import Visible, visible
from afterimage.storage.jsonl.lines import is_compressed
from afterimage.storage.system.locks import file_lock
from afterimage.storage.system.targets import refuse_pipe

__all__ = ["OpenFile", "opened", "require_folder"]


class OpenFile(NamedTuple):
    """A file that is being read.

    Attributes:
        path: the file.
        seen: what to read of it.
        file: the open file; None if it is compressed.
    """

    path: Path
    seen: Visible
    file: IO[bytes] | None


@contextmanager
def opened(path: Path, lock_timeout: float, *, locked: bool = False) -> Iterator[OpenFile | None]:
    """Open a file, and close it at the end; None if it does not exist.

    Args:
        path: the file.
        lock_timeout: seconds to wait for its lock.
        locked: whether the caller holds the lock.
    """
    seen, file = Visible(None, []), None
    try:
        require_folder(path)
        exists = path.exists()
        if exists and not is_compressed(path):
            lock = file_lock(path, lock_timeout, optional=True)
            with nullcontext() if locked else lock:
                seen = visible(path)
                file = path.open("rb")  # an edit after this replaces the file
    except StorageError:
        raise
    except OSError as error:
        raise StorageError(f"{path} cannot be read: {error.strerror}") from error
    with file or nullcontext():
        yield OpenFile(path, seen, file) if exists else None


def require_folder(path: Path) -> None:
    """Refuse a path whose folder does not exist, and one that is not a file."""
    try:
        exists = path.parent.is_dir()
        refuse_pipe(path)
    except OSError as error:
        raise StorageError(f"{path} cannot be accessed: {error.strerror}") from error
    if not exists:
        raise MissingFileError(f"{path}: the folder {path.parent} does not exist. Create it.")
