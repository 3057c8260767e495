"""Corrupt records are raised, or skipped, counted and reported when the call ends.

The invariant: no record is skipped without a `SkippedRecordsWarning`, and the memory for the report
is bounded, however many records are corrupt.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Generic, Literal, NamedTuple, TypeVar, get_args

from afterimage.storage.errors import CorruptRecordError, InvalidQueryError, shown, visible
from afterimage.storage.system.package import warn_caller

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
"""What a call does when it reads a corrupt record: raise an error, or skip the record and warn."""

_Item = TypeVar("_Item")

# Maximum number of items that a report lists. The rest are only counted.
FEW: Final = 5


class Place(NamedTuple):
    """The location and the description of a fault in the stored data.

    Attributes:
        path: the file.
        table: the table in the database file; None for a JSONL file.
        line: line number, from 1; in a table, the record's sequence number. None if the whole
            table cannot be read.
        offset: position of the line's first byte, in bytes of the decompressed data; None in a
            table.
        reason: description of the fault.
    """

    path: Path
    table: str | None
    line: int | None
    offset: int | None
    reason: str

    @classmethod
    def of(cls, error: CorruptRecordError) -> Place:
        """Return the place that an error names."""
        line = error.line or None  # 0: a row without a number
        return cls(error.path, error.table, line, error.offset, error.reason)

    def __str__(self) -> str:
        if self.table is None:
            return f"{self.path.name}, line {self.line} (byte {self.offset}): {self.reason}"
        row = "" if self.line is None else f", row {self.line}"
        return f"table {self.table!r}{row}: {self.reason}"


@dataclass(frozen=True)
class Found(Generic[_Item]):
    """The result of a search. It is false if nothing was found.

    Attributes:
        count: number of items found.
        first: the first few items.
    """

    count: int = 0
    first: tuple[_Item, ...] = ()

    def __bool__(self) -> bool:
        return self.count > 0

    def __str__(self) -> str:
        """Return one line for each of the first few items, and one with the number of others."""
        lines = [f"  {item}" for item in self.first]
        more = self.count - len(lines)
        return "\n".join([*lines, f"  and {more:,} more"] if more else lines)


class Tally(Generic[_Item]):
    """A counter that also keeps the first few items."""

    def __init__(self) -> None:
        self._count = 0
        self._first: list[_Item] = []

    def add(self, item: _Item) -> None:
        """Count one more item."""
        self._count += 1
        if len(self._first) < FEW:
            self._first.append(item)

    def add_all(self, found: Found[_Item]) -> None:
        """Add the result of another search."""
        self._count += found.count
        self._first += found.first[: FEW - len(self._first)]

    def found(self) -> Found[_Item]:
        """Return the items added so far."""
        return Found(self._count, tuple(self._first))


@dataclass(frozen=True)
class SkippedRecords:
    """The corrupt records that a call with `on_error="skip"` skipped.

    Attributes:
        path: the file.
        count: number of skipped lines or rows.
        places: the places of the first few.
    """

    path: Path
    count: int
    places: tuple[Place, ...]

    def __str__(self) -> str:
        records = "record" if self.count == 1 else "records"
        head = f"{self.path}: skipped {self.count:,} corrupt {records}"
        return visible(f"{head}\n{Found(self.count, self.places)}", keep="\n")


class SkippedRecordsWarning(UserWarning):
    """A call with `on_error="skip"` skipped corrupt records.

    Attributes:
        report: the number and places of the skipped records.
    """

    def __init__(self, report: SkippedRecords) -> None:
        super().__init__(str(report))
        self.report = report

    def __reduce__(self) -> tuple[type[SkippedRecordsWarning], tuple[SkippedRecords]]:
        return type(self), (self.report,)


class Faults:
    """The policy of one call for corrupt records, and the tally of the records it skipped.

    Args:
        on_error: "raise" or "skip".

    Raises:
        InvalidQueryError: `on_error` is neither "raise" nor "skip".
    """

    def __init__(self, on_error: OnError = "raise") -> None:
        if on_error not in get_args(OnError):
            raise InvalidQueryError(
                f"on_error must be 'raise' or 'skip', not {shown(on_error, 40)}"
            )
        self.skip = on_error == "skip"
        self._places: dict[Path, Tally[Place]] = {}

    def handle(self, error: CorruptRecordError) -> None:
        """Count the error if the policy is "skip"; otherwise raise it."""
        if not self.skip:
            raise error
        self._places.setdefault(error.path, Tally()).add(Place.of(error))

    def found(self) -> Found[Place]:
        """Return the places skipped so far."""
        tally: Tally[Place] = Tally()
        for places in self._places.values():
            tally.add_all(places.found())
        return tally.found()

    def without_report(self) -> Faults:
        """Return the same policy with a separate tally, for faults that another read reports."""
        return Faults("skip" if self.skip else "raise")

    def warn(self) -> None:
        """Issue a `SkippedRecordsWarning` to the package's caller for each file with faults."""
        for path, places in self._places.items():
            found = places.found()
            report = SkippedRecords(path, found.count, found.first)
            warn_caller(SkippedRecordsWarning(report))

    def warn_after(self, items: Iterator[_Item]) -> Generator[_Item, None, None]:
        """Yield the same items; warn after the last one, or when the iterator is closed."""
        try:
            yield from items
        finally:
            self.warn()
