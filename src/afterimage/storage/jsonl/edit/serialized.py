"""Serialize the records of a save as lines."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence

from pydantic import BaseModel
from pydantic_core import from_json

from afterimage.storage.errors import InvalidRecordError
from afterimage.storage.records.fields import RecordKind
from afterimage.storage.records.objects import exact_lines, to_line
from afterimage.storage.system.interrupts import checkpoint

__all__ = ["blocks_to_save", "encoded"]

# Records serialized in one step: few enough for their text to fit in the processor's cache.
_SAVE_BATCH = 256


def blocks_to_save(
    kind: RecordKind, records: Sequence[BaseModel], codec: str, max_line_bytes: int
) -> Iterator[bytes]:
    """Yield blocks of the lines of records, each line with a line feed.

    Args:
        kind: the kind of the records.
        records: the models.
        codec: encoding of the lines.
        max_line_bytes: maximum length of a line.

    Raises:
        InvalidRecordError: a record cannot be stored; the message gives its index in `records`.
    """
    for start in range(0, len(records), _SAVE_BATCH):
        checkpoint()
        block = _block(kind, records[start : start + _SAVE_BATCH], start, codec)
        if len(block) > max_line_bytes:
            _refuse_long_lines(block, start, max_line_bytes)
        yield block


def _refuse_long_lines(block: bytes, start: int, max_line_bytes: int) -> None:
    for index, line in enumerate(block.split(b"\n"), start):
        if len(line) > max_line_bytes:
            raise InvalidRecordError(
                f"record {index} of the batch takes {len(line):,} bytes, more than "
                f"{max_line_bytes:,}, the limit that max_line_bytes sets"
            )


def _block(kind: RecordKind, records: Sequence[BaseModel], start: int, codec: str) -> bytes:
    if codec == "utf-8":
        block = exact_lines(kind, records)
        if block is not None:
            return block
    lines = []
    for index, record in enumerate(records, start):
        try:
            lines.append(to_line(kind, record, codec))
        except InvalidRecordError as error:
            raise InvalidRecordError(f"record {index} of the batch: {error}") from None
    lines.append(b"")
    return b"\n".join(lines)


def encoded(lines: list[bytes], codec: str) -> bytes:
    """Return UTF-8 lines as lines in another encoding, each with a line feed."""
    if codec == "utf-8":
        ended = [line.rstrip() for line in lines]
    else:  # ASCII, which every encoding can write
        ended = [json.dumps(from_json(line)).encode(codec) for line in lines]
    return b"\n".join([*ended, b""])
