"""Rows of another format become records of ours while they are imported.

A row that cannot be converted is an error that names its place, or it is skipped and reported, as
any other line of an import.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from afterimage.storage.errors import (
    CorruptRecordError,
    InvalidQueryError,
    InvalidRecordError,
    UnsupportedFileError,
    shown,
)
from afterimage.storage.formats.registry import Native, detect, looks_foreign, shape_named
from afterimage.storage.formats.shape import Shape
from afterimage.storage.jsonl.lines import Chunk, Line, parse, parse_exact
from afterimage.storage.records.validation import check_nesting
from afterimage.storage.reports.faults import Faults
from afterimage.storage.system.gc_pause import paused_collector
from afterimage.storage.transfer.grouping import grouped_chunks

__all__ = ["AUTO", "ROWS", "Incoming", "refuse_foreign"]

ROWS: Final = "rows"
"""The name of the format with one message a row."""
AUTO: Final = "auto"
"""The name that stands for the format that the keys of the first rows of each source show."""

# Rows of which the format must be known.
_SEEN_ROWS: Final = 20


class Incoming:
    """Converts chunks of rows to chunks of records.

    Args:
        name: the format, "auto", or "rows" for one message a row.
        fields: names of keys in the rows, and the names that the format has for them.
        faults: the policy for rows that cannot be converted.
        group_by: for "rows", the key that names the conversation.
        order_by: for "rows", the key by which messages are sorted; None for `position`.

    Attributes:
        shape: the format; with "auto", that of the last source, None before its first rows.

    Raises:
        InvalidQueryError: there is no such format, an option is not for it, or `fields` does not
            map names to names.
    """

    def __init__(
        self,
        name: str,
        fields: Mapping[str, str] | None,
        faults: Faults,
        group_by: str | None = None,
        order_by: str | None = None,
    ) -> None:
        self._fields = _checked(fields)
        self._faults = faults
        self._is_auto = name == AUTO
        self._group_by = group_by
        self._order_by = "position" if order_by is None else order_by
        if (name == ROWS) != isinstance(group_by, str) or (group_by is None and order_by):
            raise InvalidQueryError(
                f"format {ROWS!r} requires group_by, the key that names the conversation; other "
                "formats have neither group_by nor order_by"
            )
        is_rows = name == ROWS
        self.shape: Shape | None = (
            None if self._is_auto else shape_named("messages" if is_rows else name)
        )

    def converted(self, chunks: Iterator[Chunk]) -> Iterator[Chunk]:
        """Yield the chunks with records in place of rows, line by line.

        Raises:
            CorruptRecordError: a row cannot be converted, and faults are raised.
            UnsupportedFileError: the format is not known by the first rows.
        """
        path: Path | None = None
        if self._group_by is not None:
            chunks = grouped_chunks(
                chunks, self._group_by, self._order_by, self._fields, self._faults
            )
            self._fields = {}
        for chunk in chunks:
            if self._is_auto and chunk.path != path:
                path, self.shape = chunk.path, self._detected(chunk)
            assert self.shape is not None
            if isinstance(self.shape, Native) and not self._fields:
                yield chunk
            else:
                yield self._records(chunk, self.shape)

    def _detected(self, chunk: Chunk) -> Shape:
        rows: list[dict[str, Any]] = []
        for line in chunk.unread():
            if len(rows) == _SEEN_ROWS:
                break
            try:
                rows.append(parse(chunk, chunk.read(line)))
            except CorruptRecordError:  # it is raised or skipped when it is converted
                continue
        # Records of other models, which have no format, can be among conversations of our own.
        known = [row for row in rows if _is_known(row, self._fields)]
        try:
            return detect(known or rows, self._fields)
        except InvalidRecordError as error:
            raise UnsupportedFileError(f"{chunk.path}: {error}. No record was saved.") from None

    def _records(self, chunk: Chunk, shape: Shape) -> Chunk:
        objects: list[dict[str, Any] | None] = [None] * len(chunk.lines)
        with paused_collector():
            for unread in chunk.unread():
                try:
                    record = self._record(chunk, chunk.read(unread), shape)
                except CorruptRecordError as error:
                    self._faults.handle(error)
                else:
                    objects[unread.number - chunk.number] = record
        return chunk._replace(objects=objects)

    def _record(self, chunk: Chunk, line: Line, shape: Shape) -> dict[str, Any]:
        row = parse_exact(chunk, line)
        try:
            record = shape.read(row, self._fields)
            check_nesting(record, line.text)
        except ValueError as error:
            raise chunk.corrupt(line, str(error)) from None
        return record


def _is_known(row: dict[str, Any], fields: Mapping[str, str]) -> bool:
    try:
        detect([row], fields)
    except InvalidRecordError:
        return False
    return True


def refuse_foreign(chunk: Chunk, line: Line, record: dict[str, Any]) -> None:
    """Refuse a record of another model that is a conversation in another format.

    Raises:
        UnsupportedFileError: it is one; the message names the format.
    """
    if (name := looks_foreign(record)) is not None:
        raise UnsupportedFileError(
            f"{chunk.path}, line {line.number}: this is a conversation in the format {name!r}. "
            f"Import the file with format={name!r}; or, to keep its records as records of another "
            "model, with kind='records'. No record was saved."
        )


def _checked(fields: Mapping[str, str] | None) -> Mapping[str, str]:
    if fields is None:
        return {}
    if not isinstance(fields, Mapping) or not all(
        isinstance(name, str) for pair in fields.items() for name in pair
    ):
        raise InvalidQueryError(f"fields must map names to names, not {shown(fields, 60)}")
    return fields
