"""The database files that connections of this process have open, by path and identity.

DuckDB identifies an open file by its path only. After `mv backup.duckdb a.duckdb`, a new connection
to the path would use the former file. Its changes would be in a file without a name, and lost when
the last connection closes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from afterimage.storage.errors import ReplacedFileError
from afterimage.storage.system.file_identity import FileIdentity, identity_of

__all__ = ["HeldFiles"]


@dataclass
class _Held:
    identity: FileIdentity
    connections: int = 0


class HeldFiles:
    """The files that connections of this package have open, by real path; use it under a lock."""

    def __init__(self) -> None:
        self._held: dict[str, _Held] = {}

    def has(self, real: str) -> bool:
        """Return whether a connection of this package has the file of this path open."""
        return real in self._held

    def has_under_another_name(self, real: str) -> bool:
        """Return whether a connection has the file of this path open through a hard link."""
        identity = identity_of(real)
        return any(held.identity == identity for name, held in self._held.items() if name != real)

    def check(self, path: Path, real: str) -> None:
        """Check that the file at a path is the one that open connections use.

        Raises:
            ReplacedFileError: it is a different file.
        """
        held = self._held.get(real)
        if held is not None and held.identity != identity_of(real):
            raise ReplacedFileError.of(path)

    def hold(self, real: str, identity: FileIdentity) -> Callable[[], None]:
        """Count a connection to a file. Call the returned function when it is closed."""
        held = self._held.setdefault(real, _Held(identity))
        held.connections += 1

        def release() -> None:
            held.connections -= 1
            if not held.connections:
                del self._held[real]

        return release
