"""`ExportCount`: the result of an export, with the records that the format has no line for."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import NamedTuple, Self

from afterimage.storage.reports.faults import Found, Tally

__all__ = ["ExportCount", "Omissions", "Omitted"]


class Omitted(NamedTuple):
    """A record that an export left out.

    Attributes:
        number: the record's sequence number in a table, or its number among the records of a file.
        reason: why the format has no line for it.
    """

    number: int
    reason: str

    def __str__(self) -> str:
        return f"record {self.number:,}: {self.reason}"


class ExportCount(int):
    """The number of lines that an export wrote, as an integer.

    Attributes:
        omitted: the number of records that the format has no line for, and the first of them.
        reasons: the number of omitted records by reason.
        parts: the number of lines or rows in each part of a split; empty without one.
        dropped: what the lines do not have of their records, such as "tool calls", and the number
            of those records.

    >>> count = ExportCount(5)
    >>> count, bool(count.omitted)
    (5, False)
    """

    omitted: Found[Omitted]
    reasons: Mapping[str, int]
    parts: Mapping[str, int]
    dropped: Mapping[str, int]

    def __new__(
        cls,
        count: int,
        omitted: Found[Omitted] | None = None,
        reasons: Mapping[str, int] | None = None,
        parts: Mapping[str, int] | None = None,
        dropped: Mapping[str, int] | None = None,
    ) -> Self:
        """Return the count of an export that left out records or parts of them."""
        self = super().__new__(cls, count)
        self.omitted = omitted or Found()
        self.reasons = dict(reasons or {})
        self.parts = dict(parts or {})
        self.dropped = dict(dropped or {})
        return self

    @property
    def shares(self) -> dict[str, float]:
        """The share of the lines or rows in each part of a split.

        >>> ExportCount(4, parts={"train": 3, "test": 1}).shares
        {'train': 0.75, 'test': 0.25}
        """
        return {name: count / self if self else 0.0 for name, count in self.parts.items()}


class Omissions:
    """The tally of the records, and of the parts of records, that an export leaves out."""

    def __init__(self) -> None:
        self._first: Tally[Omitted] = Tally()
        self._reasons: Counter[str] = Counter()
        self._dropped: Counter[str] = Counter()

    def add(self, number: int, reason: str, at: str = "") -> None:
        """Count a record; `at` is the place inside it."""
        self._first.add(Omitted(number, f"{at}: {reason}" if at else reason))
        self._reasons[reason] += 1

    def drop(self, names: Iterable[str]) -> None:
        """Count what the line of one record does not have."""
        self._dropped.update(names)

    def of(self, written: int, parts: Mapping[str, int] | None = None) -> ExportCount:
        """Return the result of an export that wrote so many lines, in the parts of a split."""
        reasons, dropped = (
            dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))
            for counts in (self._reasons, self._dropped)
        )
        return ExportCount(written, self._first.found(), reasons, parts, dropped)
