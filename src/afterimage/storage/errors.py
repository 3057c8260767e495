"""The errors that this package raises. All are subclasses of `StorageError`.

Each class also inherits from the builtin exception that a plain Python API would raise, so
``except ValueError`` and ``except StorageError`` both work. Messages say what is wrong, where, and
what to do. They are at most a few lines long, whatever the size of the data.
"""

from __future__ import annotations

import difflib
import re
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
    "UnsupportedFileError",
    "UnsupportedURLError",
    "counted",
    "shorten",
    "shown",
    "visible",
]

# Control characters, those that change the direction or the order of the text around them, and
# surrogates, which no terminal can print.
_CONTROLS = re.compile(
    r"[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]"
)


def visible(text: str, keep: str = "") -> str:
    r"""Return `text` with escape sequences instead of characters that control a terminal.

    Args:
        text: any text, from data for example.
        keep: control characters that stay.

    >>> print(visible("\x1b[31mred\x9b\u202e"))
    \x1b[31mred\x9b\u202e
    """
    if text.isascii() and text.isprintable():
        return text
    return _CONTROLS.sub(lambda found: found[0] if found[0] in keep else _escaped(found[0]), text)


def _escaped(character: str) -> str:
    code = ord(character)
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"


def shorten(text: object, limit: int = 160) -> str:
    """Return `text` on one line of at most `limit` characters, for use in an error message.

    Characters that control a terminal are escaped.
    """
    whole = str(text)
    beginning = whole[: 10 * limit]  # the rest of a long text costs nothing
    line = visible(" ".join(beginning.split()))
    is_complete = len(line) <= limit and len(beginning) == len(whole)
    return line if is_complete else line[: limit - 1] + "…"


def shown(value: object, limit: int) -> str:
    """Return `repr(value)` for use in an error message; the name of its type if `repr` fails."""
    try:
        return shorten(repr(value), limit)
    except Exception:  # noqa: BLE001  any; an int of 4,301 digits raises ValueError
        return f"<{type(value).__name__}>"


def counted(count: int, plural: str) -> str:
    """Return a number with its noun, whose first word is a plural with `s`.

    >>> counted(1, "records of other models"), counted(2_000, "documents")
    ('1 record of other models', '2,000 documents')
    """
    first, space, rest = plural.partition(" ")
    return f"{count:,} {first.removesuffix('s') if count == 1 else first}{space}{rest}"


# The parser calls every text "line 1", and counts bytes from 1.
_PARSER_PLACE = re.compile(r" at line 1 column (\d+)")


def _byte(place: re.Match[str]) -> str:
    return f" at byte {max(0, int(place[1]) - 1)} of its text"


class StorageError(Exception):
    """Base class of all errors raised by `afterimage.storage`."""

    def __str__(self) -> str:
        # Paths, names and the engine's messages can contain anything.
        return visible(super().__str__(), keep="\n\t")


class InvalidQueryError(StorageError, ValueError):
    """A filter, sort order, limit, offset, projection or other argument is not valid."""


# The field whose keys users often name without it.
_METADATA = "metadata"


class UnknownFieldError(InvalidQueryError):
    """A field that the records do not have. The message suggests similar names."""

    @classmethod
    def of(cls, field: str, known: Iterable[str], *, what: str = "field") -> UnknownFieldError:
        """Return the error for `field`, with up to three similar names out of `known`."""
        names = list(known)
        near = difflib.get_close_matches(field, names, n=3, cutoff=0.5)
        if _METADATA in names and not difflib.get_close_matches(field, names, cutoff=0.8):
            first, dot, rest = field.partition(".")
            is_misspelt = dot and difflib.get_close_matches(first, [_METADATA], cutoff=0.7)
            in_metadata = f"{_METADATA}.{shorten(rest if is_misspelt else field, 80)}"
            near = [in_metadata] if is_misspelt else [*near, in_metadata]
        hint = f"Did you mean {' or '.join(near)}?" if near else f"Known: {', '.join(names)}."
        return cls(f"unknown {what} {shorten(field, 80)!r}. {shorten(hint, 400)}")


class InvalidRecordError(StorageError, ValueError):
    """A record that cannot be stored. No record of its batch was stored."""


class CorruptRecordError(StorageError, ValueError):
    """A stored line or row that is not a valid record.

    Attributes:
        path: the file.
        line: line number, from 1; in a table, the record's sequence number.
        offset: position of the line's first byte, in bytes (of the decompressed data if the file
            is compressed); None in a table.
        reason: description of the fault.
        table: the table in the database file; None for a JSONL file.
    """

    def __init__(
        self, path: str | Path, line: int, offset: int | None, reason: str, table: str | None = None
    ) -> None:
        self.path = Path(path)
        self.line = line
        self.offset = offset
        self.reason = shorten(_PARSER_PLACE.sub(_byte, str(reason)))
        self.table = table
        where = f"line {line} (byte {offset})" if table is None else f"table {table!r}, row {line}"
        super().__init__(
            f"{path}, {where}: {self.reason}. Fix or delete that record; no data was changed."
        )

    def __reduce__(self) -> tuple[type[CorruptRecordError], tuple[object, ...]]:
        return type(self), (str(self.path), self.line, self.offset, self.reason, self.table)


class LockTimeoutError(StorageError, TimeoutError):
    """Another thread or process held the lock of the file for longer than `lock_timeout`."""

    @classmethod
    def of(cls, path: str | Path, waited: float, holder: str | None) -> LockTimeoutError:
        """Return the error for `path`, locked by `holder` (None: unknown) for `waited` seconds."""
        by = holder or "another process (its id is unknown)"
        return cls(
            f"{path} is locked by {by}; gave up after {waited:.1f} s. "
            "Close it there or raise lock_timeout."
        )


class MissingFileError(StorageError, FileNotFoundError):
    """A file or folder that must exist and does not."""


class UnsupportedFileError(StorageError, ValueError):
    """A file that does not contain JSON lines."""

    @classmethod
    def of(cls, path: str | Path, what: str, remedy: str) -> UnsupportedFileError:
        """Return the error for the file at `path`, which is `what`; `remedy` says what to do."""
        return cls(f"{path} is {what}, not JSON lines. {remedy}.")


class UnsupportedURLError(StorageError, ValueError):
    """A database URL that this package does not support."""


class SchemaMismatchError(StorageError, ValueError):
    """A table with the required name already exists, with different columns."""


class DatabaseError(StorageError, RuntimeError):
    """The database engine reported an error. The message contains the engine's message."""


class ReplacedFileError(DatabaseError):
    """A database file was replaced while this process had it open. Nothing was saved."""

    @classmethod
    def of(cls, path: str | Path) -> ReplacedFileError:
        """Return the error for the file at `path`; open connections use the replaced file."""
        return cls(
            f"{path} was replaced while this process had it open. An iterator, a scan or a "
            "connection still uses the former file, and a save would be lost with that file. "
            "Close what is still open, then call again: the call then uses the new file."
        )
