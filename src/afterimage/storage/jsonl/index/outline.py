"""Outlines: the lines of a file without their messages, and where the whole lines are.

Most of a line is messages. A query that uses other fields gets the same answer from an outline,
because everything outside the messages is kept as it is in the file: numbers keep their digits.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from typing import IO, Any, Final, NamedTuple

from pydantic_core import from_json

from afterimage.storage.errors import StorageError
from afterimage.storage.jsonl.checks import loads_all
from afterimage.storage.jsonl.lines import Chunk, Line, parse_readable
from afterimage.storage.records.fields import CONVERSATIONS, Double, FieldType, Json, Text
from afterimage.storage.records.paths import FieldRef
from afterimage.storage.records.validation import is_conversation
from afterimage.storage.system.gc_pause import paused_collector

__all__ = ["Outline", "is_in_outline", "outline_of"]

# The most bytes that an outline may have. It is kept as long as its storage.
_MOST_BYTES: Final = 32 * 2**20
# The share of the file that an outline may have. A larger one would not be much faster.
_MOST_SHARE: Final = 0.25

_FIELDS: Final = CONVERSATIONS.record.fields.keys() - {"conversations"}
_MESSAGES_FIRST: Final = b'{"conversations":'


class Outline(NamedTuple):
    """The lines of a file of conversations without their messages.

    Attributes:
        chunks: the lines. Those of other models are whole.
        offsets: position of the first byte of each line that is not blank, in the file.
        lengths: number of its bytes.
        places: the numbers of the lines that are conversations, from 0. Blank lines do not count.
        columns: the Arrow arrays of the values that queries have used, for these lines.
        texts: the Arrow array of the outlines of these lines, once it is used.
    """

    chunks: list[Chunk]
    offsets: array[int]
    lengths: array[int]
    places: array[int]
    columns: dict[FieldRef, Any]
    texts: list[Any]

    def lines(self, file: IO[bytes], positions: Sequence[int]) -> list[bytes]:
        """Return whole lines of the file, by their positions. Blank lines do not count."""
        return [self._line(file, position) for position in positions]

    def _line(self, file: IO[bytes], position: int) -> bytes:
        file.seek(self.offsets[position])
        return file.read(self.lengths[position])


def is_in_outline(field: FieldRef) -> bool:
    """Return whether an outline has the values of a field."""
    is_value = bool(field.keys) if isinstance(field.type, Json) else _is_leaf(field.type)
    return is_value and field.column in _FIELDS and not field.of_message


def _is_leaf(field_type: FieldType) -> bool:
    return isinstance(field_type, Text | Double)


def outline_of(chunks: Iterable[Chunk], file_size: int) -> Outline | None:
    """Return the outline of a file of conversations.

    None if it would be large, or if a line cannot be loaded.
    """
    outline = Outline([], array("q"), array("q"), array("q"), {}, [])
    most = min(_MOST_BYTES, int(file_size * _MOST_SHARE))
    size = 0
    with suppress(StorageError, ValueError):
        for chunk in chunks:
            with paused_collector():
                lines = [*_outlined(chunk, outline)]
            size += sum(map(len, lines))
            if size > most:
                return None
            outline.chunks.append(chunk._replace(number=1, offset=0, lines=lines))
        return outline
    return None


def _outlined(chunk: Chunk, outline: Outline) -> Iterator[bytes]:
    """Yield the outlines of the lines of a chunk, and add where the lines are."""
    lines = [*chunk.records()]
    records = [parse_readable(chunk, line) for line in lines]
    if not loads_all(CONVERSATIONS, [each for each in records if is_conversation(each)]):
        raise ValueError("a line cannot be loaded")
    for line, record in zip(lines, records, strict=True):
        if is_conversation(record):
            outline.places.append(len(outline.offsets))
            yield _without_messages(line, record)
        else:
            yield line.text
        outline.offsets.append(line.offset)
        outline.lengths.append(len(line.text))


def _without_messages(line: Line, record: dict[str, Any]) -> bytes:
    """Return a line with an empty list of messages; the whole line where that is not simple.

    The end of the list is searched from the end of the line. It is the right one if the text behind
    it has the other values of the record.
    """
    text = line.text
    if not text.startswith(_MESSAGES_FIRST):
        return text
    expected = {**record, "conversations": []}
    end = len(text)
    for _ in range(_MOST_LISTS):
        end = text.rfind(b"]", 0, end)
        if end < 0:
            break
        shorter = _MESSAGES_FIRST + b"[" + text[end:]
        with suppress(ValueError):
            if from_json(shorter) == expected:
                return shorter
    return text


# Lists after the messages of a record that are tried as the end of the messages.
_MOST_LISTS: Final = 16
