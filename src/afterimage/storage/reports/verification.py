"""`Verification`: the report of `verify()`, and `Findings`, which collects it.

The invariant: the size of the report does not depend on the number of faults.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NamedTuple

from afterimage.storage.errors import counted, visible
from afterimage.storage.records.fields import KINDS
from afterimage.storage.reports.faults import Found, Place, Tally

__all__ = ["Findings", "TornTail", "Verification"]


class TornTail(NamedTuple):
    """A truncated write: at the end of a file, without a line feed and a complete record.

    Or the part of a save that was killed.

    Attributes:
        path: the file.
        line: line number, from 1.
        offset: position of its first byte, in bytes of the decompressed data.
        size: length in bytes.
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
        name: name of the file or files.
        conversations: number of valid conversations.
        documents: number of valid documents.
        records: number of valid records of other models.
        corrupt: lines or rows without a valid record, damage in a compressed file, and tables that
            the engine cannot read.
        torn_tails: last lines that are a truncated write. Reads report such a line as a corrupt
            record; the next save moves it to a side file.
        killed_saves: parts of saves whose process was killed. They are not read, and the next save
            moves them to a side file.
        duplicate_ids: ids that several documents share, each with its first place.
        duplicate_numbers: sequence numbers that several rows of a table share.
        stale_columns: rows in which the column of a metadata field differs from the metadata.
        repaired: number of such rows that were set again first (`verify(repair=True)`).
    """

    name: str
    conversations: int
    documents: int
    records: int
    corrupt: Found[Place]
    torn_tails: Found[TornTail]
    killed_saves: Found[TornTail]
    duplicate_ids: Found[Place]
    duplicate_numbers: Found[Place]
    stale_columns: Found[Place]
    repaired: int = 0

    @property
    def ok(self) -> bool:
        """Whether no fault was found."""
        return not any(found for _, found in self._findings())

    def __str__(self) -> str:
        """Return at most a page: the counts, and the first few places of each kind of fault."""
        counts = [
            counted(self.conversations, "conversations"),
            counted(self.documents, "documents"),
            counted(self.records, "records of other models"),
        ]
        lines = [self.name, ", ".join(counts)]
        if self.repaired:
            lines.append(f"repaired: {counted(self.repaired, 'rows')} with stale metadata columns")
        for title, found in self._findings():
            lines += [f"{title}: {found.count:,}", str(found)] if found else []
        text = "\n".join([*lines, "no faults found"] if self.ok else lines)
        return visible(text, keep="\n")

    def _findings(self) -> list[tuple[str, Found[Any]]]:
        return [(title, getattr(self, name)) for name, title in _TITLES.items()]


_TITLES: Final = {
    "corrupt": "corrupt",
    "torn_tails": "torn last lines",
    "killed_saves": "saves that were killed",
    "duplicate_ids": "duplicate document ids",
    "duplicate_numbers": "duplicate sequence numbers",
    "stale_columns": "rows whose metadata columns differ from their metadata "
    "(verify with repair sets them again)",
}


class Findings:
    """A collector of the results of a verification; `report` returns the `Verification`.

    Attributes:
        name: name of the file or files.
        counts: number of valid records, by the name of their kind.
        tallies: the faults, by the field of `Verification` that reports them.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.counts: dict[str, int] = dict.fromkeys((kind.name for kind in KINDS), 0)
        self.tallies: dict[str, Tally[Any]] = {name: Tally() for name in _TITLES}

    def report(self) -> Verification:
        """Return everything found so far."""
        found: dict[str, Any] = {name: tally.found() for name, tally in self.tallies.items()}
        counts: dict[str, Any] = dict(self.counts)
        return Verification(self.name, **counts, **found)
