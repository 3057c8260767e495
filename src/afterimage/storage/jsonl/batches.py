"""JSON lines to Arrow record batches without building models: the path of every import."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import pyarrow as pa

from afterimage.storage.errors import CorruptRecordError, InvalidRecordError
from afterimage.storage.jsonl.lines import Chunk, Line, parse
from afterimage.storage.records.arrow import rows_of_objects, to_batch
from afterimage.storage.records.fields import CONVERSATIONS, RecordKind
from afterimage.storage.records.validation import is_conversation

__all__ = ["batch_of_lines", "regrouped"]

# Of longer lines than fit, fewer make a chunk.
_MOST_BYTES = 16 * 2**20


def regrouped(chunks: Iterable[Chunk], count: int) -> Iterator[Chunk]:
    """The same lines in chunks of a multiple of `count` of them, as far as memory allows."""
    held: Chunk | None = None
    for chunk in chunks:
        if held is not None:
            lines = held.lines + chunk.lines
            held = held._replace(lines=lines, ended=chunk.ended, share=chunk.share)
        else:
            held = chunk
        whole = len(held.lines) // count * count
        if not whole and sum(map(len, held.lines)) < _MOST_BYTES:
            continue
        whole = whole or len(held.lines)
        yield held.part(0, whole)
        held = held.part(whole, count) if whole < len(held.lines) else None
    if held is not None:
        yield held


def batch_of_lines(kind: RecordKind, chunk: Chunk) -> tuple[pa.RecordBatch, list[bytes]]:
    """The records of a chunk as a batch, and the lines that are records of other models.

    Raises:
        CorruptRecordError: a line is no JSON object, or no valid record; names the first.
    """
    lines: list[Line] = []
    objects: list[dict[str, Any]] = []
    others: list[bytes] = []
    for line in chunk.records():
        try:
            found = parse(chunk, line)
        except CorruptRecordError:
            _raise_for_the_line(kind, chunk, lines, objects)  # if one before it is no record
            raise
        if kind is CONVERSATIONS and not is_conversation(found):
            others.append(line.text)
        else:
            lines.append(line)
            objects.append(found)
    try:
        return to_batch(kind, rows_of_objects(kind, objects)), others
    except InvalidRecordError as error:
        _raise_for_the_line(kind, chunk, lines, objects)
        raise AssertionError("a batch is refused and none of its records is") from error


def _raise_for_the_line(
    kind: RecordKind, chunk: Chunk, lines: Sequence[Line], objects: Sequence[dict[str, Any]]
) -> None:
    for line, found in zip(lines, objects, strict=True):
        try:
            to_batch(kind, rows_of_objects(kind, [found]))
        except InvalidRecordError as error:
            raise chunk.corrupt(line, str(error)) from None
