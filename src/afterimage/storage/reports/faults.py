"""Corrupt records: raised, or skipped, counted and reported when the call ends.

The invariant: nothing is skipped without a `SkippedRecordsWarning`, and the memory for the report
is bounded, however many records are corrupt.
"""

from __future__ import annotations

import warnings
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Generic, Literal, NamedTuple, TypeVar, get_args

from afterimage.storage.errors import CorruptRecordError, InvalidQueryError, shown
from afterimage.storage.system.package import stacklevel_of_caller

__all__ = [
    "FEW",
    "Faults",
    "Found",
    "OnError",
    "Place",
    "SkippedRecords",
    "SkippedRecordsWarning",
    "Tally",
]

OnError = Literal["raise", "skip"]
"""What a call does with a stored record that is not valid: raise, or leave it out and warn."""

_Item = TypeVar("_Item")

# A report names so many places, and counts the rest.
FEW: Final = 5


class Place(NamedTuple):
    """Where something stored is wrong, and what.

    Attributes:
        path: the file.
        table: the table in it; None where the file has lines.
        line: number of the line, the first being 1; in a table, the record's sequence number.
            None where the whole table cannot be read.
        offset: of the line's first byte, in bytes (of the unpacked data); None in a table.
        reason: what is wrong with it.
    """

    path: Path
    table: str | None
    line: int | None
    offset: int | None
    reason: str

    @classmethod
    def of(cls, error: CorruptRecordError) -> Place:
        """The place that an error names."""
        return cls(error.path, error.table, error.line, error.offset, error.reason)

    def __str__(self) -> str:
        if self.table is None:
            return f"{self.path.name}, line {self.line} (byte {self.offset}): {self.reason}"
        row = "" if self.line is None else f", row {self.line}"
        return f"table {self.table!r}{row}: {self.reason}"


@dataclass(frozen=True)
class Found(Generic[_Item]):
    """The result of a search; false where nothing was found.

    Attributes:
        count: number of items found.
        first: the first few of them.
    """

    count: int = 0
    first: tuple[_Item, ...] = ()

    def __bool__(self) -> bool:
        return self.count > 0

    def __str__(self) -> str:
        """A line for each of the first few, and one with the number of the others."""
        lines = [f"  {item}" for item in self.first]
        more = self.count - len(lines)
        return "\n".join([*lines, f"  and {more:,} more"] if more else lines)


class Tally(Generic[_Item]):
    """Counts items and keeps the first few."""

    def __init__(self) -> None:
        self._count = 0
        self._first: list[_Item] = []

    def add(self, item: _Item) -> None:
        """Count one more."""
        self._count += 1
        if len(self._first) < FEW:
            self._first.append(item)

    def add_all(self, found: Found[_Item]) -> None:
        """Add the result of another search."""
        self._count += found.count
        self._first += found.first[: FEW - len(self._first)]

    def found(self) -> Found[_Item]:
        """What has been added so far."""
        return Found(self._count, tuple(self._first))


@dataclass(frozen=True)
class SkippedRecords:
    """What a call with `on_error="skip"` left out.

    Attributes:
        path: the file.
        count: lines or rows left out.
        places: the first few of them.
    """

    path: Path
    count: int
    places: tuple[Place, ...]

    def __str__(self) -> str:
        records = "record" if self.count == 1 else "records"
        return f"{self.path}: skipped {self.count:,} corrupt {records}\n" + str(
            Found(self.count, self.places)
        )


class SkippedRecordsWarning(UserWarning):
    """A call with `on_error="skip"` left something out.

    Attributes:
        report: what, as `SkippedRecords`.
    """

    def __init__(self, report: SkippedRecords) -> None:
        super().__init__(str(report))
        self.report = report

    def __reduce__(self) -> tuple[type[SkippedRecordsWarning], tuple[SkippedRecords]]:
        return type(self), (self.report,)


class Faults:
    """The policy of one call for corrupt records, and the tally of those it skipped.

    Args:
        on_error: "raise" or "skip".

    Raises:
        InvalidQueryError: `on_error` is neither "raise" nor "skip".
    """

    def __init__(self, on_error: OnError = "raise") -> None:
        if on_error not in get_args(OnError):
            raise InvalidQueryError(f"on_error is 'raise' or 'skip', not {shown(on_error, 40)}")
        self.skip = on_error == "skip"
        self._places: Tally[Place] = Tally()

    def handle(self, error: CorruptRecordError) -> None:
        """Count the error if corrupt records are skipped, else raise it."""
        if not self.skip:
            raise error
        self._places.add(Place.of(error))

    def found(self) -> Found[Place]:
        """What has been skipped so far."""
        return self._places.found()

    def without_report(self) -> Faults:
        """The same policy with a tally of its own, for faults that another read reports."""
        return Faults("skip" if self.skip else "raise")

    def warn(self) -> None:
        """Warn the package's caller if anything was skipped."""
        found = self.found()
        if found:
            report = SkippedRecords(found.first[0].path, found.count, found.first)
            warnings.warn(SkippedRecordsWarning(report), stacklevel=stacklevel_of_caller())

    def warn_after(self, items: Iterator[_Item]) -> Generator[_Item, None, None]:
        """The same items; warns after the last one, or when the iterator is closed."""
        try:
            yield from items
        finally:
            self.warn()
