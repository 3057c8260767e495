"""One message a row: rows that follow each other and name the same conversation become one.

The memory is that of one conversation and a chunk, and of the names of all conversations.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from afterimage.storage.errors import (
    CorruptRecordError,
    InvalidRecordError,
    UnsupportedFileError,
    shown,
)
from afterimage.storage.formats.columns import renamed
from afterimage.storage.formats.rows import conversation_of, group_of
from afterimage.storage.jsonl.lines import Chunk, parse_exact
from afterimage.storage.reports.faults import Faults

__all__ = ["grouped_chunks"]


def grouped_chunks(
    chunks: Iterator[Chunk],
    group_by: str,
    order_by: str,
    fields: Mapping[str, str],
    faults: Faults,
) -> Iterator[Chunk]:
    """Yield chunks with a row of the format `messages` at the first line of each conversation.

    Args:
        chunks: rows with one message each.
        group_by: the key that names the conversation.
        order_by: the key by which messages are sorted; rows without it keep their order.
        fields: names of keys in the rows, and their names in messages.
        faults: the policy for rows that cannot be read. The conversations beside such a row are
            left out and reported too, as it could be one of their messages.

    Raises:
        UnsupportedFileError: rows of one conversation do not follow each other.
        CorruptRecordError: a row is no message of a conversation, and faults are raised.
    """
    closed: set[Any] = set()
    open_: Chunk | None = None  # the lines of the conversation whose end has not been seen
    rows: list[dict[str, Any]] = []
    is_whole = True
    has_gap = False  # whether the line before is a row that cannot be read
    group: Any = None
    for chunk in chunks:
        if open_ is not None and open_.path != chunk.path:
            yield _ended(open_, rows, group_by, order_by, faults, is_whole=is_whole and not has_gap)
            closed, open_, rows, is_whole, has_gap = set(), None, [], True, False
        before = len(open_.lines) if open_ is not None else 0
        start = 0  # index of the first line of the open conversation
        lines = [*(open_.lines if open_ is not None else ()), *chunk.lines]
        head = chunk if open_ is None else open_
        whole = chunk._replace(number=head.number, offset=head.offset, lines=lines, objects=None)
        objects: list[dict[str, Any] | None] = [None] * len(lines)
        for unread in chunk.unread():
            index = before + unread.number - chunk.number
            try:
                row = renamed(parse_exact(chunk, chunk.read(unread)), fields, {})
            except (CorruptRecordError, InvalidRecordError) as error:
                is_place = isinstance(error, CorruptRecordError)
                faults.handle(error if is_place else chunk.corrupt(unread, str(error)))  # type: ignore[arg-type]
                has_gap = True
                continue
            try:
                found = group_of(row, group_by)
            except InvalidRecordError as error:
                faults.handle(chunk.corrupt(unread, str(error)))
                continue
            is_whole = is_whole and not has_gap
            if rows and found != group:
                _put(objects, whole, start, rows, group_by, order_by, faults, is_whole=is_whole)
                closed.add(group)
                rows, is_whole = [], not has_gap
            has_gap = False
            if not rows:
                if found in closed:
                    raise UnsupportedFileError(
                        f"{chunk.path}, row {unread.number}: rows of {group_by} "
                        f"{shown(row[group_by], 40)} do not follow each other. Sort the rows by "
                        f"{group_by} first, for example with ORDER BY. No record was saved."
                    )
                start, group = index, found
            rows.append(row)
        end = start if rows else len(lines)
        if end:
            yield whole._replace(lines=lines[:end], objects=objects[:end])
        open_ = whole.part(end, len(lines)) if rows else None
    if open_ is not None:
        yield _ended(open_, rows, group_by, order_by, faults, is_whole=is_whole and not has_gap)


def _ended(
    chunk: Chunk,
    rows: list[dict[str, Any]],
    group_by: str,
    order_by: str,
    faults: Faults,
    *,
    is_whole: bool,
) -> Chunk:
    objects: list[dict[str, Any] | None] = [None] * len(chunk.lines)
    _put(objects, chunk, 0, rows, group_by, order_by, faults, is_whole=is_whole)
    return chunk._replace(objects=objects)


def _put(
    objects: list[dict[str, Any] | None],
    chunk: Chunk,
    index: int,
    rows: list[dict[str, Any]],
    group_by: str,
    order_by: str,
    faults: Faults,
    *,
    is_whole: bool,
) -> None:
    reason = "a row of this conversation, or beside it, cannot be read"
    if is_whole:
        try:
            objects[index] = conversation_of(rows, group_by, order_by)
        except InvalidRecordError as error:
            reason = str(error)
        else:
            return
    faults.handle(CorruptRecordError(chunk.path, chunk.number + index, None, reason))
