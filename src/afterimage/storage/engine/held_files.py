"""Which files the connections of this process hold, by device and number.

DuckDB knows an open file by its path only. Where the path was given to another file meanwhile, as
`mv backup.duckdb a.duckdb` does, a new connection would join the former file: what it saves is in
no file that has a name, and is lost when the last connection ends.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from afterimage.storage.errors import DatabaseError

__all__ = ["FileIdentity", "HeldFiles", "ReplacedFileError", "identity_of", "is_open_here"]

FileIdentity = tuple[int, int]
"""The device of a file and its number there; no other file has them while the file is open."""


class ReplacedFileError(DatabaseError):
    """A file was replaced while this process had it open: its data is whole, but not reached."""

    @classmethod
    def of(cls, path: Path) -> ReplacedFileError:
        """The error for the file at `path`."""
        return cls(
            f"{path} was replaced while it was open in this process: an iterator, a scan or a "
            "connection still has the former file, and what is saved now would be lost with it. "
            "Close those that are still open, then call again: it works on the file that is there "
            "now."
        )


@dataclass
class _Held:
    identity: FileIdentity
    users: int = 0


class HeldFiles:
    """The files that connections of ours hold, each by its real path; to be used under a lock."""

    def __init__(self) -> None:
        self._held: dict[str, _Held] = {}

    def has(self, real: str) -> bool:
        """Whether a connection of ours holds the file that had this path."""
        return real in self._held

    def check(self, path: Path, real: str) -> None:
        """See that the file at a path is the one that connections hold by that path.

        Raises:
            ReplacedFileError: it is another one.
        """
        held = self._held.get(real)
        if held is not None and held.identity != identity_of(real):
            raise ReplacedFileError.of(path)

    def hold(self, real: str, identity: FileIdentity) -> Callable[[], None]:
        """Note a connection to a file; call what is returned when the connection is closed."""
        held = self._held.setdefault(real, _Held(identity))
        held.users += 1

        def release() -> None:
            held.users -= 1
            if not held.users:
                del self._held[real]

        return release


def identity_of(path: str | Path) -> FileIdentity | None:
    """Which file is at a path; None where there is none."""
    try:
        found = Path(path).stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino


def is_open_here(identity: FileIdentity) -> bool:
    """Whether this process has the file open; True where the system does not tell."""
    try:
        numbers = [entry.name for entry in Path("/dev/fd").iterdir()]
    except OSError:
        return True
    for number in numbers:
        with suppress(OSError, ValueError):  # the handle of this very listing
            found = os.fstat(int(number))
            if stat.S_ISREG(found.st_mode) and (found.st_dev, found.st_ino) == identity:
                return True
    return False
