"""Every error this package raises, under one root: `StorageError`.

Each class mixes in the builtin that callers of a plain Python API would expect, so
``except ValueError`` and ``except StorageError`` both work. Messages say what is wrong, where,
and what to do, and stay a few lines long whatever the size of the data.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from pathlib import Path

__all__ = [
    "CorruptRecordError",
    "DatabaseError",
    "InvalidQueryError",
    "InvalidRecordError",
    "LockTimeoutError",
    "MissingFileError",
    "ReplacedFileError",
    "SchemaMismatchError",
    "StorageError",
    "UnknownFieldError",
    "UnsupportedURLError",
    "shorten",
    "shown",
]


def shorten(text: object, limit: int = 160) -> str:
    """`text` on one line of at most `limit` characters, for use inside an error message."""
    line = " ".join(str(text).split())
    return line if len(line) <= limit else line[: limit - 1] + "…"


def shown(value: object, limit: int) -> str:
    """`repr(value)` for use inside an error message; its type where it has none."""
    try:
        return shorten(repr(value), limit)
    except Exception:  # noqa: BLE001  whatever it is: of an integer of 4,301 digits, ValueError
        return f"<{type(value).__name__}>"


class StorageError(Exception):
    """Root of every error raised by `afterimage.storage`."""


class InvalidQueryError(StorageError, ValueError):
    """A filter, sort order, limit, offset or projection that has no meaning."""


class UnknownFieldError(InvalidQueryError):
    """A field that the records do not have; names the nearest ones that they do."""

    @classmethod
    def of(cls, field: str, known: Iterable[str], *, what: str = "field") -> UnknownFieldError:
        """The error for `field`, with up to three nearest names out of `known`."""
        names = list(known)
        near = difflib.get_close_matches(field, names, n=3, cutoff=0.5)
        hint = f"Did you mean {' or '.join(near)}?" if near else f"Known: {', '.join(names)}."
        return cls(f"unknown {what} {shorten(field, 80)!r}. {shorten(hint, 400)}")


class InvalidRecordError(StorageError, ValueError):
    """A record that cannot be stored; nothing of its batch was."""


class CorruptRecordError(StorageError, ValueError):
    """Something stored that cannot be read as the record it should be.

    Attributes:
        path: the file.
        line: number of the line, the first being 1; in a table, the record's sequence number.
        offset: position of the line's first byte, in bytes (of the unpacked data where the file
            is compressed); None in a table.
        reason: what is wrong with it.
    """

    def __init__(
        self, path: str | Path, line: int, offset: int | None, reason: str, table: str | None = None
    ) -> None:
        self.path = Path(path)
        self.line = line
        self.offset = offset
        self.reason = shorten(reason)
        self.table = table
        where = f"line {line} (byte {offset})" if table is None else f"table {table!r}, row {line}"
        super().__init__(
            f"{path}, {where}: {self.reason}. Mend or remove it there; nothing was changed."
        )

    def __reduce__(self) -> tuple[type[CorruptRecordError], tuple[object, ...]]:
        return type(self), (str(self.path), self.line, self.offset, self.reason, self.table)


class LockTimeoutError(StorageError, TimeoutError):
    """The file stayed locked by somebody else for longer than `lock_timeout`."""

    @classmethod
    def of(cls, path: str | Path, waited: float, holder: str | None) -> LockTimeoutError:
        """The error for `path`, locked by `holder` (None: not known) after `waited` seconds."""
        by = holder or "another process (not known which)"
        return cls(
            f"{path} is locked by {by}; gave up after {waited:.1f} s. "
            "Close it there or raise lock_timeout."
        )


class MissingFileError(StorageError, FileNotFoundError):
    """A file or folder that must exist and does not."""


class UnsupportedURLError(StorageError, ValueError):
    """A database URL this package does not serve."""


class SchemaMismatchError(StorageError, ValueError):
    """A table of that name is there already, with other columns than ours."""


class DatabaseError(StorageError, RuntimeError):
    """The engine refused or failed; the message carries its first line."""


class ReplacedFileError(DatabaseError):
    """A database file was replaced while this process had it open; nothing was saved."""

    @classmethod
    def of(cls, path: str | Path) -> ReplacedFileError:
        """The error for the file at `path`, while connections hold the former one."""
        return cls(
            f"{path} was replaced while this process had it open. An iterator, a scan or a "
            "connection still uses the former file, and a save would be lost with that file. "
            "Close what is still open, then call again: the call then uses the new file."
        )
