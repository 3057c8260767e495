"""`Verification`: the report of `verify()`, and the tallies it is made from.

The invariant: the size of the report does not depend on the number of faults.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NamedTuple

from afterimage.storage.records.fields import KINDS
from afterimage.storage.reports.faults import Found, Place, Tally

__all__ = ["Findings", "TornTail", "Verification"]


class TornTail(NamedTuple):
    """The rest of a truncated write at the end of a file: no line feed, no whole record.

    Attributes:
        path: the file.
        line: its number, the first line being 1.
        offset: of its first byte (in the unpacked data).
        size: its bytes.
    """

    path: Path
    line: int
    offset: int
    size: int

    def __str__(self) -> str:
        return f"{self.path.name}, line {self.line} (byte {self.offset}): {self.size:,} bytes"


@dataclass(frozen=True)
class Verification:
    """The records in a file or a database, and the faults found.

    Attributes:
        name: the file or files.
        conversations: valid conversations.
        documents: valid documents.
        records: valid records of other models.
        corrupt: lines or rows without a valid record, damage in a compressed file, and tables that
            the engine cannot read.
        torn_tails: last lines that are a truncated write; the next save moves them to a side file.
        duplicate_ids: ids that several documents share, each with its first place.
        duplicate_numbers: sequence numbers that several rows of a table share.
        stale_columns: rows in which the column of a metadata field and the metadata differ.
    """

    name: str
    conversations: int
    documents: int
    records: int
    corrupt: Found[Place]
    torn_tails: Found[TornTail]
    duplicate_ids: Found[Place]
    duplicate_numbers: Found[Place]
    stale_columns: Found[Place]

    @property
    def ok(self) -> bool:
        """Whether nothing is wrong."""
        return not any(found for _, found in self._findings())

    def __str__(self) -> str:
        """At most a page: the counts, and the first few places of each fault."""
        counts = f"{self.conversations:,} conversations, {self.documents:,} documents"
        lines = [self.name, f"{counts}, {self.records:,} records of other models"]
        for what, found in self._findings():
            lines += [f"{what}: {found.count:,}", str(found)] if found else []
        return "\n".join([*lines, "nothing is wrong"] if self.ok else lines)

    def _findings(self) -> list[tuple[str, Found[Any]]]:
        return [(title, getattr(self, name)) for name, title in _TITLES.items()]


_TITLES: Final = {
    "corrupt": "corrupt",
    "torn_tails": "torn last lines",
    "duplicate_ids": "document ids that stand more than once",
    "duplicate_numbers": "sequence numbers that rows share",
    "stale_columns": "rows whose metadata columns differ from their metadata",
}


class Findings:
    """Collects what a verification finds; `report` gives the `Verification`.

    Attributes:
        name: the file or files.
        counts: valid records, by the name of their kind.
        tallies: the faults, by the field of `Verification` that reports them.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.counts: dict[str, int] = dict.fromkeys((kind.name for kind in KINDS), 0)
        self.tallies: dict[str, Tally[Any]] = {name: Tally() for name in _TITLES}

    def report(self) -> Verification:
        """Everything found so far."""
        found: dict[str, Any] = {name: tally.found() for name, tally in self.tallies.items()}
        counts: dict[str, Any] = dict(self.counts)
        return Verification(self.name, **counts, **found)
