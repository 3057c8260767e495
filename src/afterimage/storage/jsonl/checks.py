"""Find the corrupt lines of a file, and remove them from its chunks.

A corrupt line is replaced with blanks of the same length, because readers skip blank lines. All
other lines keep their numbers and offsets.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

from pydantic import ValidationError

from afterimage.storage.errors import CorruptRecordError, InvalidRecordError
from afterimage.storage.jsonl.lines import Chunk, Line, parse, parse_exact
from afterimage.storage.records.chat import loaded_text
from afterimage.storage.records.fields import CONVERSATIONS, DOCUMENTS, OTHERS, RecordKind
from afterimage.storage.records.validation import as_declared, is_conversation, reason
from afterimage.storage.reports.faults import Faults
from afterimage.storage.system.gc_pause import paused_collector

__all__ = ["importable", "loadable", "loaded", "until_damage", "valid_chunks"]


def loaded(kind: RecordKind, chunk: Chunk, line: Line) -> Any | None:
    """Return the model of a line; None if the line is a record of another model.

    Raises:
        CorruptRecordError: the line is not a valid record.
    """
    record = parse(chunk, line)
    if kind is CONVERSATIONS and not is_conversation(record):
        return None
    try:
        return loaded_text(kind, record, line.text)
    except ValidationError as error:
        raise chunk.corrupt(line, reason(error)) from None


def loadable(kind: RecordKind) -> Callable[[Chunk, Line], object]:
    """Return a function that raises `CorruptRecordError` for a line that cannot be loaded."""
    if kind is OTHERS:
        return parse
    return lambda chunk, line: loaded(kind, chunk, line)


def importable(kind: RecordKind) -> Callable[[Chunk, Line], dict[str, Any]]:
    """Return a function that returns the JSON object of a line.

    It raises `CorruptRecordError` for a line that cannot be imported.
    """

    def check(chunk: Chunk, line: Line) -> dict[str, Any]:
        record = parse_exact(chunk, line)
        if kind is DOCUMENTS or is_conversation(record):
            try:
                as_declared(kind, record)
            except InvalidRecordError as error:
                raise chunk.corrupt(line, str(error)) from None
        return record

    return check


def valid_chunks(
    chunks: Iterable[Chunk], check: Callable[[Chunk, Line], object], faults: Faults
) -> Iterator[Chunk]:
    """Yield the chunks with blanks instead of the lines that fail `check`.

    Raises:
        CorruptRecordError: a line fails `check`, and `faults` does not skip corrupt records.
    """
    for chunk in until_damage(chunks, faults):
        lines = list(chunk.lines)
        with paused_collector():
            for line in chunk.unread():
                try:
                    check(chunk, chunk.read(line))
                except CorruptRecordError as error:
                    faults.handle(error)
                    lines[line.number - chunk.number] = b" " * len(line.text)
        yield chunk._replace(lines=lines)


def until_damage(chunks: Iterable[Chunk], faults: Faults) -> Iterator[Chunk]:
    """Yield the chunks; stop at damage in a compressed file if `faults` skips corrupt records."""
    try:
        yield from chunks
    except CorruptRecordError as error:
        faults.handle(error)
