"""Verify JSONL files: every line is read and checked. The files are not changed."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from afterimage.storage.errors import CorruptRecordError
from afterimage.storage.jsonl.checks import importable, until_damage
from afterimage.storage.jsonl.journal import Visible, visible
from afterimage.storage.jsonl.lines import MAX_LINE_BYTES, Chunk, is_compressed, read_chunks
from afterimage.storage.jsonl.sources import CHUNK_BYTES, LineSource
from afterimage.storage.jsonl.torn import is_torn
from afterimage.storage.query.arguments import seconds
from afterimage.storage.records.fields import DOCUMENTS, Kind, RecordKind, kind_named
from afterimage.storage.records.validation import is_conversation
from afterimage.storage.reports.faults import Faults, Place
from afterimage.storage.reports.progress import Progress, following, report
from afterimage.storage.reports.verification import Findings, TornTail, Verification
from afterimage.storage.system.gc_pause import paused_collector
from afterimage.storage.system.interrupts import signal_safe
from afterimage.storage.system.locks import file_lock
from afterimage.storage.system.side_files import side_file
from afterimage.storage.system.targets import system_path

__all__ = ["report_killed_save", "verify_jsonl", "verify_lines"]


@signal_safe
def verify_jsonl(
    path: str | Path,
    kind: Kind = "conversations",
    *,
    progress: Progress | bool | None = None,
    max_line_bytes: int = MAX_LINE_BYTES,
    lock_timeout: float = 30,
) -> Verification:
    r"""Read a whole JSONL file, in bounded memory, and report its faults.

    A line is valid if `import_jsonl` accepts it. The file is not changed.

    Args:
        path: a `.jsonl` file, or a compressed `.jsonl.gz` or `.jsonl.zst` file.
        kind: the kind of the lines. "conversations" and "records" accept records of any model.
        progress: called repeatedly with the number of lines read since the last call.
        max_line_bytes: a longer line is corrupt.
        lock_timeout: seconds to wait for a save to the file.

    Raises:
        MissingFileError: the file does not exist.
        UnsupportedFileError: the file has another format than JSON lines.
        InvalidQueryError: the kind is unknown.
        LockTimeoutError: a save to the file took longer than `lock_timeout`.

    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "talks.jsonl"
    >>> _ = path.write_text('{"conversations": []}\n{"conversations": 3}\n{"conversa')
    >>> report = verify_jsonl(path)
    >>> report.conversations, report.records, report.ok
    (1, 1, False)
    >>> print(report.torn_tails)
      talks.jsonl, line 3 (byte 43): 10 bytes
    """
    findings = Findings(str(path))
    damage = Faults("skip")
    source = _source(system_path(path), findings, seconds(lock_timeout, "lock_timeout"))
    saved_as = kind_named(kind).saved_as
    chunks = read_chunks(
        source,
        handle=damage.handle,
        max_line_bytes=max_line_bytes,
        of_documents=saved_as is DOCUMENTS,
    )
    verify_lines(saved_as, chunks, findings, following(progress), damage)
    return findings.report()


def _source(path: Path, findings: Findings, lock_timeout: float) -> LineSource:
    if is_compressed(path) or not side_file(path, ".saving").exists():
        return LineSource(path)
    with file_lock(path, lock_timeout, optional=True):  # a save may be running
        seen = visible(path)
    if seen.killed is not None:
        report_killed_save(findings, path, seen)
    return LineSource(path, seen.size, tuple(seen.hidden))


def report_killed_save(findings: Findings, path: Path, seen: Visible) -> None:
    """Add a save that was killed to the findings."""
    assert seen.killed is not None
    start, size = seen.killed
    line = 1
    with path.open("rb") as file:
        while file.tell() < start:
            line += file.read(min(CHUNK_BYTES, start - file.tell())).count(b"\n")
    findings.tallies["killed_saves"].add(TornTail(path, line, start, size))


def verify_lines(
    kind: RecordKind,
    chunks: Iterable[Chunk],
    findings: Findings,
    progress: Progress,
    damage: Faults,
) -> None:
    """Check the lines of a file, and add the counts and faults to `findings`.

    Args:
        kind: the kind of the lines.
        chunks: the file.
        findings: the results.
        progress: called with the number of lines.
        damage: skips damage; `chunks` report lines that are too long to it.
    """
    ids = _check_lines(kind, until_damage(chunks, damage), findings, progress)
    if kind is DOCUMENTS:
        from afterimage.storage.query.figures.duplicates import (  # noqa: PLC0415  loads DuckDB
            repeated_ids,
        )

        findings.tallies["duplicate_ids"].add_all(repeated_ids(ids))
    else:
        for _ in ids:
            pass
    findings.tallies["corrupt"].add_all(damage.found())


def _check_lines(
    kind: RecordKind, chunks: Iterable[Chunk], findings: Findings, progress: Progress
) -> Iterator[list[tuple[str, Path, int, int]]]:
    """Check and count the lines of each chunk; yield its document ids with their places."""
    check = importable(kind)
    for chunk in chunks:
        ids: list[tuple[str, Path, int, int]] = []
        with paused_collector():
            for line in chunk.unread():
                try:
                    record = check(chunk, chunk.read(line))
                except CorruptRecordError as error:
                    if chunk.ended or not is_torn(line.text, chunk.encoding):
                        findings.tallies["corrupt"].add(Place.of(error))
                    else:
                        tail = TornTail(chunk.path, line.number, line.offset, len(line.text))
                        findings.tallies["torn_tails"].add(tail)
                    continue
                if kind is DOCUMENTS:
                    name: Kind = "documents"
                    ids.append((record["id"], chunk.path, line.number, line.offset))
                else:
                    name = "conversations" if is_conversation(record) else "records"
                findings.counts[name] += 1
        yield ids
        report(progress, len(chunk.lines), chunk.share)
