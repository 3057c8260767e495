r"""Split JSON lines into chunks of lines of bounded size.

Lines are split only on the byte `\n`. Other line separators, such as U+2028, stay inside a record.
Every line has its number and its byte offset, for error messages.
"""

from __future__ import annotations

import codecs
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from itertools import chain
from pathlib import Path
from typing import Any, Final, NamedTuple

from pydantic_core import from_json, to_json

from afterimage.storage.errors import (
    CorruptRecordError,
    InvalidRecordError,
    StorageError,
    shorten,
    shown,
)
from afterimage.storage.jsonl.containers import (
    ArrayError,
    is_array,
    lines_of_array,
    refuse_other_formats,
)
from afterimage.storage.jsonl.sources import DAMAGE, LineSource
from afterimage.storage.jsonl.torn import is_torn
from afterimage.storage.records.document_ids import ID_FIRST, with_id
from afterimage.storage.records.repeated_keys import repeated_key_of
from afterimage.storage.records.validation import readable
from afterimage.storage.system.interrupts import checkpoint

__all__ = [
    "MAX_LINE_BYTES",
    "Chunk",
    "Line",
    "check_keys",
    "chunks_of_sources",
    "is_compressed",
    "objects_of",
    "parse",
    "parse_exact",
    "parse_readable",
    "read_chunks",
]

MAX_LINE_BYTES: Final = 2**30
"""The default limit on the length of a line: reading a line takes a few times its length."""


class Line(NamedTuple):
    """A line that is not blank.

    Attributes:
        number: line number in the file, from 1.
        offset: position of the first byte in the (decompressed) file.
        text: the bytes of the line, without the line feed.
    """

    number: int
    offset: int
    text: bytes


class Chunk(NamedTuple):
    """Consecutive lines of a file.

    Attributes:
        path: the file.
        number: number of the first line.
        offset: position of the first byte of the first line in the (decompressed) file.
        lines: all lines, including blank ones, without line feeds.
        encoding: encoding of the lines in the file.
        ended: whether a line feed follows the last line.
        share: share of the (compressed) file that has been read, 0 to 1; None if its size is
            unknown.
        of_documents: whether the lines are documents. Those without an id get one when they are
            read, and `lines` keeps them as they are in the file.
        objects: the JSON objects that stand for the lines, if they were read in another format or
            from Arrow; None for a line that was left out. They are readable and repeat no key.
            `lines` then only shows where they were.
    """

    path: Path
    number: int
    offset: int
    lines: list[bytes]
    encoding: str
    ended: bool = True
    share: float | None = None
    of_documents: bool = False
    objects: list[dict[str, Any] | None] | None = None

    def records(self) -> Iterator[Line]:
        """Return the lines that are not blank, as UTF-8.

        Raises:
            CorruptRecordError: a line cannot be decoded with the file's encoding.
        """
        return map(self.read, self.unread())

    def unread(self) -> Iterator[Line]:
        """Yield the lines that are not blank, in the encoding of the file."""
        offset = self.offset
        for index, text in enumerate(self.lines):
            if self.objects is None:
                is_there = text and not text.isspace()
            else:
                is_there = self.objects[index] is not None
            if is_there:
                yield Line(self.number + index, offset, text)
            offset += len(text) + 1

    def read(self, line: Line) -> Line:
        """Return a line of `unread` as UTF-8, and a document with an id.

        Raises:
            CorruptRecordError: the line cannot be decoded with the file's encoding.
        """
        if self.objects is not None:
            return line
        if self.encoding != "utf-8":
            try:
                line = line._replace(text=line.text.decode(self.encoding).encode())
            except UnicodeError as error:
                raise self.corrupt(line, str(error)) from None
        if self.of_documents and not line.text.startswith(ID_FIRST):
            return line._replace(text=with_id(line.text, line.number))
        return line

    def texts(self) -> list[bytes]:
        """Return the texts of the lines that are not blank, as UTF-8; documents have an id."""
        if self.objects is not None:
            present = (each for each in self.objects if each is not None)
            return [to_json(each, inf_nan_mode="constants") for each in present]
        if self.encoding == "utf-8":
            texts = [text for text in self.lines if text and not text.isspace()]
            if not self.of_documents or all(text.startswith(ID_FIRST) for text in texts):
                return texts
        return [line.text for line in self.records()]

    def part(self, start: int, count: int) -> Chunk:
        """Return a chunk of up to `count` of the lines, from index `start`."""
        offset = self.offset + sum(map(len, self.lines[:start])) + start
        part = slice(start, start + count)
        return self._replace(
            number=self.number + start,
            offset=offset,
            lines=self.lines[part],
            objects=None if self.objects is None else self.objects[part],
        )

    def without(self, lines: Collection[Line]) -> Chunk:
        """Return the chunk without some of its lines. Other lines keep their numbers and offsets.

        Readers skip blank lines, so blanks of the same length are in their place.
        """
        texts = list(self.lines)
        objects = None if self.objects is None else list(self.objects)
        for line in lines:
            index = line.number - self.number
            texts[index] = b" " * len(texts[index])
            if objects is not None:
                objects[index] = None
        return self._replace(lines=texts, objects=objects)

    def corrupt(self, line: Line, reason: str) -> CorruptRecordError:
        """Return the error for a line of this chunk."""
        if not self.ended and is_torn(line.text):
            reason = f"a torn line, whose end was never written ({reason})"
        return CorruptRecordError(self.path, line.number, line.offset, reason)


def parse(chunk: Chunk, line: Line) -> dict[str, Any]:
    """Return a line as a JSON object.

    Raises:
        CorruptRecordError: the line is not a JSON object.
    """
    if chunk.objects is not None:
        known = chunk.objects[line.number - chunk.number]
        assert known is not None  # `unread` gives no line that was left out
        return known
    try:
        record = from_json(line.text)
    except ValueError as error:
        raise chunk.corrupt(line, str(error)) from None
    if not isinstance(record, dict):
        raise chunk.corrupt(line, f"not a JSON object but {type(record).__name__}")
    return record


def parse_exact(chunk: Chunk, line: Line) -> dict[str, Any]:
    """Return a line as a JSON object, if every program that reads it gets the same object.

    Raises:
        CorruptRecordError: the line is not a JSON object, is nested too deep, or repeats a key.
    """
    record = parse_readable(chunk, line)
    check_keys(chunk, line, record)
    return record


def parse_readable(chunk: Chunk, line: Line) -> dict[str, Any]:
    """Return a line as a JSON object, if every parser used here can read it.

    Raises:
        CorruptRecordError: the line is not a JSON object, or is nested too deep.
    """
    record = parse(chunk, line)
    if chunk.objects is not None:  # whoever made the object has checked it
        return record
    try:
        readable(line.text)
    except ValueError as error:
        raise chunk.corrupt(line, str(error)) from None
    return record


def check_keys(chunk: Chunk, line: Line, record: dict[str, Any]) -> None:
    """Raise CorruptRecordError if a line, which is parsed as `record`, repeats a key."""
    if chunk.objects is None and (key := repeated_key_of(line.text, record)) is not None:
        raise chunk.corrupt(line, f"the key {shown(key, 60)} is repeated")


def objects_of(texts: Iterable[str | bytes]) -> list[dict[str, Any]]:
    """Return lines that the engine accepted as JSON objects.

    Raises:
        InvalidRecordError: a line is not a JSON object for the parser used here. DuckDB is more
            lenient: it accepts numbers of any size, and does not check values that it does not
            extract.
    """
    try:
        objects = [from_json(text) for text in texts]
    except ValueError as error:
        raise InvalidRecordError(shorten(error)) from None
    if not all(isinstance(record, dict) for record in objects):
        raise InvalidRecordError("a line is not a JSON object")
    return objects


def is_compressed(path: Path) -> bool:
    """Return whether the name of a file has the suffix of a compressed file."""
    return path.suffix.lower() in (".gz", ".zst", ".xz")


def read_chunks(
    source: Path | LineSource,
    encoding: str = "utf-8",
    *,
    handle: Callable[[CorruptRecordError], object] | None = None,
    max_line_bytes: int = MAX_LINE_BYTES,
    of_documents: bool = False,
    arrays: bool = False,
) -> Iterator[Chunk]:
    """Yield the lines of a source in chunks of about 4 MiB, or of one line if that is longer.

    Args:
        source: JSON lines. Compressed data is decompressed, also if it consists of several
            concatenated members.
        encoding: encoding of the lines.
        handle: called with the error of a line that is too long, which is then left out; None to
            raise the error.
        max_line_bytes: maximum length of a line.
        of_documents: whether the lines are documents.
        arrays: whether the source may be a JSON array. Its elements are then the lines.

    Raises:
        MissingFileError: the file does not exist or is a folder.
        StorageError: the source cannot be read.
        UnsupportedFileError: the source has another format.
        CorruptRecordError: the compressed data is damaged. The error names the first line that
            cannot be read, and is raised after all lines before it were yielded.
    """
    source = LineSource(source) if isinstance(source, Path) else source
    with source.opened() as opened:
        empty = Chunk(opened.path, 1, 0, [], encoding, of_documents=of_documents)
        lines = _Lines(empty, max_line_bytes, handle or _raised)
        try:
            for index, read in enumerate(opened.blocks):
                checkpoint()
                block = read
                if index == 0:
                    block = read.removeprefix(codecs.BOM_UTF8)
                    if arrays and is_array(block):
                        rest = lines_of_array(chain([block], opened.blocks))
                        for part in rest:
                            checkpoint()
                            yield from lines.of(part, opened.share())
                        return
                    refuse_other_formats(opened.path, block)
                    lines.offset += len(read) - len(block)
                yield from lines.of(block, opened.share())
        except DAMAGE as error:
            errno = getattr(error, "errno", None)  # damage to the data has none
            if errno is not None or not opened.is_compressed:
                raise StorageError(f"{opened.path} cannot be read: {error}") from error
            raise CorruptRecordError(
                opened.path,
                lines.number,
                lines.offset,
                f"cannot be decompressed from here on: {error}",
            ) from None
        except ArrayError as error:
            raise CorruptRecordError(opened.path, lines.number, lines.offset, str(error)) from None
    yield from lines.last()


def chunks_of_sources(
    sources: Sequence[LineSource],
    handle: Callable[[CorruptRecordError], object],
    max_line_bytes: int,
    *,
    of_documents: bool,
) -> Iterator[Chunk]:
    """Yield the chunks of several sources; `share` is the share of all of them."""
    sizes = [source.known_size() for source in sources]
    total = sum(size or 0 for size in sizes)
    done = 0
    for source, size in zip(sources, sizes, strict=True):
        chunks = read_chunks(
            source,
            handle=handle,
            max_line_bytes=max_line_bytes,
            of_documents=of_documents,
            arrays=True,
        )
        for chunk in chunks:
            share = None
            if len(sources) == 1:
                share = chunk.share
            elif size is not None and total and chunk.share is not None:
                share = min(1.0, (done + chunk.share * size) / total)
            yield chunk._replace(share=share)
        done += size or 0


class _Lines:
    """Splits blocks of bytes into chunks of lines.

    Args:
        empty: a chunk without lines, with the values that all chunks have.
        limit: maximum length of a line.
        handle: called with the error of a line that is too long.

    Attributes:
        number: number of the next line.
        offset: position of its first byte.
    """

    def __init__(
        self, empty: Chunk, limit: int, handle: Callable[[CorruptRecordError], object]
    ) -> None:
        self.number = 1
        self.offset = 0
        self._empty = empty
        self._limit = limit
        self._handle = handle
        self._parts: list[bytes] = []  # the beginning of a line whose end has not been read
        self._length = 0  # of that beginning; parts of a line that is too long are not kept

    def of(self, block: bytes, share: float | None) -> Iterator[Chunk]:
        """Yield the lines that end in a block."""
        lines = block.split(b"\n")
        tail = lines.pop()
        if lines:
            self._add(lines[0])
            if self._length > self._limit:
                self._leave_out()
                del lines[0]
            else:
                lines[0] = b"".join(self._parts)  # copies nothing if the line is in one block
            self._parts, self._length = [], 0
        if lines:
            size = sum(map(len, lines)) + len(lines)
            if size > self._limit:
                self._blank_long(lines)
            yield self._empty._replace(
                number=self.number, offset=self.offset, lines=lines, share=share
            )
            self.number += len(lines)
            self.offset += size
        self._add(tail)

    def last(self) -> Iterator[Chunk]:
        """Yield the last line, if no line feed follows it."""
        if self._length > self._limit:
            self._leave_out()
        elif self._length:
            lines = [b"".join(self._parts)]
            yield self._empty._replace(
                number=self.number, offset=self.offset, lines=lines, ended=False, share=1.0
            )

    def _add(self, part: bytes) -> None:
        self._length += len(part)
        if self._length > self._limit:
            self._parts.clear()
        else:
            self._parts.append(part)

    def _leave_out(self) -> None:
        self._handle(self._too_long(self.number, self.offset))
        self.number += 1
        self.offset += self._length + 1

    def _blank_long(self, lines: list[bytes]) -> None:
        offset = self.offset
        for index, line in enumerate(lines):
            if len(line) > self._limit:
                self._handle(self._too_long(self.number + index, offset))
                lines[index] = b" " * len(line)
            offset += len(line) + 1

    def _too_long(self, number: int, offset: int) -> CorruptRecordError:
        return CorruptRecordError(
            self._empty.path,
            number,
            offset,
            f"longer than {self._limit:,} bytes, the limit that max_line_bytes sets",
        )


def _raised(error: CorruptRecordError) -> None:
    raise error
