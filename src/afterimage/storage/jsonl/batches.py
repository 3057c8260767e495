"""Convert JSON lines to Arrow record batches without building models. Imports use this."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import pyarrow as pa

from afterimage.storage.errors import CorruptRecordError, InvalidRecordError
from afterimage.storage.jsonl.lines import Chunk, Line, parse_exact
from afterimage.storage.records.arrow import rows_of_objects, to_batch
from afterimage.storage.records.fields import CONVERSATIONS, RecordKind
from afterimage.storage.records.validation import is_conversation

__all__ = ["batch_of_lines", "regrouped"]

# A chunk that reaches this size is yielded with fewer lines than wanted.
_MAX_BYTES = 16 * 2**20


def regrouped(chunks: Iterable[Chunk], count: int) -> Iterator[Chunk]:
    """Yield the same lines in chunks of a multiple of `count` lines.

    There are fewer if lines are long, at the end of a source, and before a line that was left out.
    """
    pending: Chunk | None = None
    for chunk in chunks:
        if pending is not None and not _follows(chunk, pending):
            yield pending
            pending = None
        if pending is not None:
            lines = pending.lines + chunk.lines
            pending = pending._replace(lines=lines, ended=chunk.ended, share=chunk.share)
        else:
            pending = chunk
        ready = len(pending.lines) // count * count
        if not ready and sum(map(len, pending.lines)) < _MAX_BYTES:
            continue
        ready = ready or len(pending.lines)
        yield pending.part(0, ready)
        pending = pending.part(ready, count) if ready < len(pending.lines) else None
    if pending is not None:
        yield pending


def _follows(chunk: Chunk, pending: Chunk) -> bool:
    """Return whether a chunk continues another one of the same source."""
    next_number = pending.number + len(pending.lines)
    return chunk.number == next_number and chunk.path == pending.path


def batch_of_lines(
    kind: RecordKind, chunk: Chunk, other: Callable[[Chunk, Line, dict[str, Any]], None]
) -> tuple[pa.RecordBatch, list[bytes]]:
    """Return the records of a chunk as a batch, and the lines with records of other models.

    Args:
        kind: the kind of the records.
        chunk: the lines.
        other: called with the chunk, the line and the JSON object of each record of another model.

    Raises:
        CorruptRecordError: a line is not a JSON object or not a valid record. The error names the
            first such line.
    """
    lines: list[Line] = []
    objects: list[dict[str, Any]] = []
    others: list[bytes] = []
    for line in chunk.records():
        try:
            record = parse_exact(chunk, line)
        except CorruptRecordError:
            _raise_for_first_invalid(kind, chunk, lines, objects)  # an earlier line comes first
            raise
        if kind is CONVERSATIONS and not is_conversation(record):
            other(chunk, line, record)
            others.append(line.text)
        else:
            lines.append(line)
            objects.append(record)
    try:
        return to_batch(kind, rows_of_objects(kind, objects)), others
    except InvalidRecordError as error:
        _raise_for_first_invalid(kind, chunk, lines, objects)
        raise AssertionError("the batch is invalid, but each of its records is valid") from error


def _raise_for_first_invalid(
    kind: RecordKind, chunk: Chunk, lines: Sequence[Line], objects: Sequence[dict[str, Any]]
) -> None:
    for line, record in zip(lines, objects, strict=True):
        try:
            to_batch(kind, rows_of_objects(kind, [record]))
        except InvalidRecordError as error:
            raise chunk.corrupt(line, str(error)) from None
