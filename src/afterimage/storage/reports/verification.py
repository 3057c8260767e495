"""What `verify` reports, and how JSON lines are verified.

The invariant: everything is read again and nothing is changed; what is kept meanwhile is the
report, whose size does not depend on how much is wrong.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from afterimage.storage.errors import CorruptRecordError
from afterimage.storage.jsonl.checks import importable, until_damage
from afterimage.storage.jsonl.lines import Chunk, is_object, read_chunks
from afterimage.storage.records.fields import DOCUMENTS, RecordTable
from afterimage.storage.records.kinds import RECORD_TABLES, Kind, check_kind
from afterimage.storage.records.objects import is_conversation
from afterimage.storage.reports.faults import CorruptRecords, Found, Place, Tally
from afterimage.storage.reports.progress import Progress, tell, unseen
from afterimage.storage.system.gc_pause import paused_collector
from afterimage.storage.system.interrupts import deferred_signals

__all__ = ["Findings", "TornTail", "Verification", "verify_jsonl", "verify_lines"]


class TornTail(NamedTuple):
    """What a write that broke off left at the end of a file: no line feed, no whole record.

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
    """What a file or a database holds, and what is wrong with it.

    Attributes:
        name: the file or files.
        conversations: sound conversations.
        documents: sound documents.
        records: sound records of other models.
        corrupt: lines or rows that hold no valid record, the damage of a packed file, and tables
            that the engine cannot read.
        torn_tails: last lines that a write broke off; the next save there keeps them aside.
        duplicate_ids: documents' ids that stand more than once, each with its first place.
        duplicate_numbers: sequence numbers that rows of a table share, which order them then.
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
        """A page at most: what is there, and the first few places of each thing that is wrong."""
        counts = f"{self.conversations:,} conversations, {self.documents:,} documents"
        lines = [self.name, f"{counts}, {self.records:,} records of other models"]
        for what, found in self._findings():
            lines += [f"{what}: {found.count:,}", str(found)] if found else []
        return "\n".join([*lines, "nothing is wrong"] if self.ok else lines)

    def _findings(self) -> list[tuple[str, Found[Place] | Found[TornTail]]]:
        return [
            ("corrupt", self.corrupt),
            ("torn last lines", self.torn_tails),
            ("document ids that stand more than once", self.duplicate_ids),
            ("sequence numbers that rows share", self.duplicate_numbers),
            ("rows whose metadata columns differ from their metadata", self.stale_columns),
        ]


class Findings:
    """A `Verification` in the making."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.counts = {"conversations": 0, "documents": 0, "records": 0}
        self.corrupt: Tally[Place] = Tally()
        self.torn_tails: Tally[TornTail] = Tally()
        self.duplicate_ids: Tally[Place] = Tally()
        self.duplicate_numbers: Tally[Place] = Tally()
        self.stale_columns: Tally[Place] = Tally()

    def report(self) -> Verification:
        """What was found so far."""
        return Verification(
            self.name,
            **self.counts,
            corrupt=self.corrupt.found(),
            torn_tails=self.torn_tails.found(),
            duplicate_ids=self.duplicate_ids.found(),
            duplicate_numbers=self.duplicate_numbers.found(),
            stale_columns=self.stale_columns.found(),
        )


def verify_jsonl(
    path: str | Path, kind: Kind = "conversations", *, progress: Progress | None = None
) -> Verification:
    r"""Read a whole JSONL file, in bounded memory, and report what is wrong with it.

    A line is sound if `import_jsonl` would take it. Nothing is changed.

    Args:
        path: a `.jsonl` file, or one packed as `.jsonl.gz` or `.jsonl.zst`.
        kind: what its lines are; "conversations", or "records", takes records of any model.
        progress: called now and then with how many lines were read since the last call.

    Raises:
        MissingFileError: there is no such file.
        InvalidQueryError: the kind is unknown.

    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "talks.jsonl"
    >>> _ = path.write_text('{"conversations": []}\n{"conversations": 3}\n{"conversa')
    >>> report = verify_jsonl(path)
    >>> report.conversations, report.records, report.ok
    (1, 1, False)
    >>> print(report.torn_tails)
      talks.jsonl, line 3 (byte 43): 10 bytes
    """
    check_kind(kind)
    findings = Findings(str(path))
    with deferred_signals():
        verify_lines(RECORD_TABLES[kind], read_chunks(Path(path)), findings, progress or unseen)
    return findings.report()


def verify_lines(
    table: RecordTable, chunks: Iterable[Chunk], findings: Findings, progress: Progress
) -> None:
    """Add what is found in a file of one kind of records."""
    damage = CorruptRecords("skip")
    sound = _sound_lines(table, until_damage(chunks, damage), findings, progress)
    if table is DOCUMENTS:
        from afterimage.storage.query.duplicates import repeated_ids  # noqa: PLC0415  heavy: DuckDB

        findings.duplicate_ids.take(repeated_ids(sound))
    else:
        for _ in sound:
            pass
    findings.corrupt.take(damage.found())


def _sound_lines(
    table: RecordTable, chunks: Iterable[Chunk], findings: Findings, progress: Progress
) -> Iterator[list[tuple[str, Path, int, int]]]:
    """Count the lines of each chunk; gives the ids in it, each with the place of its line."""
    check = importable(table)
    for chunk in chunks:
        ids: list[tuple[str, Path, int, int]] = []
        with paused_collector():
            for line in chunk.unread():
                try:
                    record = check(chunk, chunk.read(line))
                except CorruptRecordError as error:
                    if chunk.ended or is_object(line.text, chunk.encoding):
                        findings.corrupt.add(Place.of(error))
                    else:
                        size = len(line.text)
                        findings.torn_tails.add(
                            TornTail(chunk.path, line.number, line.offset, size)
                        )
                    continue
                if table is DOCUMENTS:
                    kind = "documents"
                    if "id" in record:  # else each load gives it a new one
                        ids.append((record["id"], chunk.path, line.number, line.offset))
                else:
                    kind = "conversations" if is_conversation(record) else "records"
                findings.counts[kind] += 1
        yield ids
        tell(progress, len(chunk.lines), chunk.share)
