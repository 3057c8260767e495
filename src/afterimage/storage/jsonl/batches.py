"""Convert JSON lines to Arrow record batches without building models. Imports use this."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import compress
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from afterimage.storage.arrow.arrays import booleans
from afterimage.storage.arrow.batches import rows_of_objects, to_batch
from afterimage.storage.errors import CorruptRecordError, InvalidRecordError
from afterimage.storage.jsonl.lines import Chunk, Line, check_keys, parse_readable
from afterimage.storage.records.fields import (
    CONVERSATIONS,
    FieldType,
    Json,
    List,
    RecordKind,
    Struct,
    Text,
)
from afterimage.storage.records.repeated_keys import ESCAPE, quotation_marks
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
        CorruptRecordError: a line is not a JSON object, repeats a key, or is not a valid record.
            The error names the first such line.
    """
    lines: list[Line] = []
    objects: list[dict[str, Any]] = []
    others: list[bytes] = []
    try:
        for line in chunk.records():
            record = parse_readable(chunk, line)
            if kind is CONVERSATIONS and not is_conversation(record):
                check_keys(chunk, line, record)
                other(chunk, line, record)
                others.append(line.text)
            else:
                lines.append(line)
                objects.append(record)
    except CorruptRecordError:
        _raise_for_first_invalid(kind, chunk, lines, objects)  # an earlier line comes first
        raise
    try:
        rows = rows_of_objects(kind, objects)
        batch = to_batch(kind, rows)
    except InvalidRecordError as error:
        _raise_for_first_invalid(kind, chunk, lines, objects)
        raise AssertionError("the batch is invalid, but each of its records is valid") from error
    # A record with other fields than the declared ones is not in `rows` itself.
    unsure = [row is not record for row, record in zip(rows.declared, objects, strict=True)]
    if not _repeats_no_key(kind, batch, lines, unsure):
        unsure = [True] * len(lines)
    for line, record in compress(zip(lines, objects, strict=True), unsure):
        check_keys(chunk, line, record)
    return batch, others


def _repeats_no_key(
    kind: RecordKind, batch: pa.RecordBatch, lines: Sequence[Line], unsure: Sequence[bool]
) -> bool:
    """Return whether a quick check shows that no line repeats a key; see `repeated_keys.py`.

    The check leaves out the lines that are `unsure`. The others have exactly the declared fields.
    """
    if any(unsure):
        sure = [not each for each in unsure]
        batch, lines = batch.filter(booleans(sure)), [*compress(lines, sure)]
    fields = kind.record.fields
    declared = pa.StructArray.from_arrays(
        [batch.column(name) for name in fields], names=list(fields)
    )
    marks = _quotation_marks(kind.record, declared)
    return marks == sum(quotation_marks(line.text) for line in lines)


def _quotation_marks(field_type: FieldType, array: pa.Array) -> int:
    """Return the number of quotation marks around the strings in values, written as JSON."""
    present: int = len(array) - array.null_count
    match field_type:
        case Text():
            return 2 * present
        case Json():
            if pc.any(pc.match_substring(array, "\\")).as_py():
                array = pc.replace_substring_regex(array, ESCAPE, "")
            counted: int | None = pc.sum(pc.count_substring(array, '"')).as_py()
            return counted or 0
        case List(item_type):
            return _quotation_marks(item_type, array.flatten())
        case Struct(fields):
            children = zip(fields.values(), array.flatten(), strict=True)
            return 2 * len(fields) * present + sum(_quotation_marks(*child) for child in children)
    return 0


def _raise_for_first_invalid(
    kind: RecordKind, chunk: Chunk, lines: Sequence[Line], objects: Sequence[dict[str, Any]]
) -> None:
    for line, record in zip(lines, objects, strict=True):
        check_keys(chunk, line, record)
        try:
            to_batch(kind, rows_of_objects(kind, [record]))
        except InvalidRecordError as error:
            raise chunk.corrupt(line, str(error)) from None
