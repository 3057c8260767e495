"""Which lines of a file hold no valid record, and the file as it is without them.

A corrupt line is replaced by blanks of its length, which every reader passes over: so all other
lines keep their numbers and offsets, and nothing that reads lines needs to know of it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

from pydantic import ValidationError

from afterimage.storage.errors import CorruptRecordError, InvalidRecordError
from afterimage.storage.jsonl.lines import Chunk, Line, parse
from afterimage.storage.records.fields import CONVERSATIONS, DOCUMENTS, RecordTable
from afterimage.storage.records.kinds import RECORD_TABLES
from afterimage.storage.records.objects import (
    as_declared,
    is_conversation,
    model_of,
    readable,
    reason,
)
from afterimage.storage.reports.faults import CorruptRecords
from afterimage.storage.system.gc_pause import paused_collector

__all__ = ["importable", "loadable", "loaded", "sound_chunks", "until_damage"]


def loaded(table: RecordTable, chunk: Chunk, line: Line) -> Any | None:
    """The model of a line of a chunk; None where it is a record of another model.

    Raises:
        CorruptRecordError: it is no valid record.
    """
    record = parse(chunk, line)
    if table is CONVERSATIONS and not is_conversation(record):
        return None
    try:
        return model_of(table).__pydantic_validator__.validate_json(line.text)
    except ValidationError as error:
        raise chunk.corrupt(line, reason(error)) from None


def loadable(kind: str) -> Callable[[Chunk, Line], object]:
    """A function that raises for a line that no load of this kind gives."""
    if kind == "records":
        return parse
    table = RECORD_TABLES[kind]
    return lambda chunk, line: loaded(table, chunk, line)


def importable(table: RecordTable) -> Callable[[Chunk, Line], dict[str, Any]]:
    """A function that raises for a line that no import takes, and gives its object else."""

    def check(chunk: Chunk, line: Line) -> dict[str, Any]:
        record = parse(chunk, line)
        if table is DOCUMENTS or is_conversation(record):
            try:
                readable(line.text)
                as_declared(table, record)
            except (InvalidRecordError, ValueError) as error:
                raise chunk.corrupt(line, str(error)) from None
        return record

    return check


def sound_chunks(
    chunks: Iterable[Chunk], check: Callable[[Chunk, Line], object], corrupt: CorruptRecords
) -> Iterator[Chunk]:
    """The chunks with blanks for the lines that `check` refuses.

    Raises:
        CorruptRecordError: a line is refused, and not to be skipped.
    """
    for chunk in until_damage(chunks, corrupt):
        lines = list(chunk.lines)
        with paused_collector():
            for line in chunk.unread():
                try:
                    check(chunk, chunk.read(line))
                except CorruptRecordError as error:
                    corrupt.met(error)
                    lines[line.number - chunk.number] = b" " * len(line.text)
        yield chunk._replace(lines=lines)


def until_damage(chunks: Iterable[Chunk], corrupt: CorruptRecords) -> Iterator[Chunk]:
    """The chunks of a packed file, up to where it cannot be unpacked if that is to be skipped."""
    try:
        yield from chunks
    except CorruptRecordError as error:
        corrupt.met(error)
