r"""Read JSONL files, plain or compressed with gzip or zstd, as chunks of lines of bounded size.

Lines are split only on the byte `\n`. Other line separators, such as U+2028, stay inside a record.
Every line has its number and its byte offset, for error messages.
"""

from __future__ import annotations

import codecs
import gzip
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, NamedTuple

from pydantic_core import from_json

from afterimage.storage.errors import (
    CorruptRecordError,
    InvalidRecordError,
    MissingFileError,
    StorageError,
    shorten,
    shown,
)
from afterimage.storage.records.validation import readable, repeated_key
from afterimage.storage.system.interrupts import checkpoint

__all__ = [
    "CHUNK_BYTES",
    "Chunk",
    "Line",
    "is_compressed",
    "is_object",
    "objects_of",
    "parse",
    "parse_exact",
    "read_chunks",
]

CHUNK_BYTES = 4 * 2**20
"""Number of bytes that are read at a time."""
# A compressed file is read in smaller pieces: data before damage in the same piece is lost.
_PIECE_BYTES = 2**16


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
    """

    path: Path
    number: int
    offset: int
    lines: list[bytes]
    encoding: str
    ended: bool = True
    share: float | None = None

    def records(self) -> Iterator[Line]:
        """Return the lines that are not blank, as UTF-8.

        Raises:
            CorruptRecordError: a line cannot be decoded with the file's encoding.
        """
        return map(self.read, self.unread())

    def unread(self) -> Iterator[Line]:
        """Yield the lines that are not blank, in the encoding of the file."""
        offset = self.offset
        for number, text in enumerate(self.lines, self.number):
            if text and not text.isspace():
                yield Line(number, offset, text)
            offset += len(text) + 1

    def read(self, line: Line) -> Line:
        """Return a line of `unread` as UTF-8.

        Raises:
            CorruptRecordError: the line cannot be decoded with the file's encoding.
        """
        if self.encoding == "utf-8":
            return line
        try:
            return line._replace(text=line.text.decode(self.encoding).encode())
        except UnicodeError as error:
            raise self.corrupt(line, str(error)) from None

    def texts(self) -> list[bytes]:
        """Return the texts of the lines that are not blank, as UTF-8."""
        if self.encoding == "utf-8":
            return [text for text in self.lines if text and not text.isspace()]
        return [line.text for line in self.records()]

    def part(self, start: int, count: int) -> Chunk:
        """Return a chunk of up to `count` of the lines, from index `start`."""
        offset = self.offset + sum(map(len, self.lines[:start])) + start
        lines = self.lines[start : start + count]
        return self._replace(number=self.number + start, offset=offset, lines=lines)

    def corrupt(self, line: Line, reason: str) -> CorruptRecordError:
        """Return the error for a line of this chunk."""
        return CorruptRecordError(self.path, line.number, line.offset, reason)


def parse(chunk: Chunk, line: Line) -> dict[str, Any]:
    """Return a line as a JSON object.

    Raises:
        CorruptRecordError: the line is not a JSON object.
    """
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
    record = parse(chunk, line)
    try:
        readable(line.text)
    except ValueError as error:
        raise chunk.corrupt(line, str(error)) from None
    if (key := repeated_key(line.text)) is not None:
        raise chunk.corrupt(line, f"the key {shown(key, 60)} is repeated")
    return record


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


def is_object(line: bytes, encoding: str = "utf-8") -> bool:
    """Return whether a line is a complete JSON object; a truncated write never is."""
    try:
        return isinstance(from_json(line.decode(encoding)), dict)
    except ValueError:
        return False


def is_compressed(path: Path) -> bool:
    """Return whether the name of a file has the suffix of a compressed file."""
    return path.suffix.lower() in (".gz", ".zst")


def read_chunks(path: Path, encoding: str = "utf-8", size: int | None = None) -> Iterator[Chunk]:
    """Yield the lines of a file in chunks of about 4 MiB, or of one line if that is longer.

    Args:
        path: a file of JSON lines. `.gz` and `.zst` files are decompressed, also if they consist
            of several concatenated members.
        encoding: encoding of the lines.
        size: number of bytes to read, None for all; for a file that others may append to.

    Raises:
        MissingFileError: the file does not exist or is a folder.
        StorageError: the file cannot be read.
        CorruptRecordError: the compressed data is damaged. The error names the first line that
            cannot be read, and is raised after all lines before it were yielded.
    """
    number, offset = 1, 0
    parts: list[bytes] = []  # the beginning of a line whose end has not been read
    with _opened(path) as (file, position):
        total = path.stat().st_size if size is None else size
        blocks = _decompressed(file) if is_compressed(path) else _uncompressed(file, size)
        try:
            for index, read in enumerate(blocks):
                checkpoint()
                data = read.removeprefix(codecs.BOM_UTF8) if index == 0 else read
                offset += len(read) - len(data)
                block, feed, tail = data.rpartition(b"\n")
                if feed:
                    lines = b"".join([*parts, block]).split(b"\n")
                    share = min(1.0, position() / total) if total else None  # a pipe has no size
                    yield Chunk(path, number, offset, lines, encoding, share=share)
                    number += len(lines)
                    offset += sum(map(len, lines)) + len(lines)
                    parts = []
                parts.append(tail)
        except (EOFError, OSError, zlib.error) as error:
            if not is_compressed(path):
                raise StorageError(f"{path} cannot be read: {error}") from error
            raise CorruptRecordError(
                path, number, offset, f"cannot be decompressed from here on: {error}"
            ) from None
    last = b"".join(parts)
    if last:
        yield Chunk(path, number, offset, [last], encoding, ended=False, share=1.0)


def _uncompressed(file: IO[bytes], size: int | None) -> Iterator[bytes]:
    """Yield the first `size` bytes of an uncompressed file in blocks."""
    left = size
    while data := file.read(CHUNK_BYTES if left is None else min(CHUNK_BYTES, left)):
        left = None if left is None else left - len(data)
        yield data


def _decompressed(file: Any) -> Iterator[bytes]:
    """Yield the bytes of a compressed file; raise an error after all bytes before damage."""
    damage: Exception | None = None
    while damage is None:
        pieces: list[bytes] = []
        try:
            for _ in range(CHUNK_BYTES // _PIECE_BYTES):
                piece = file.read1(_PIECE_BYTES)
                if not piece:
                    break
                pieces.append(piece)
        except (EOFError, OSError, zlib.error) as error:
            damage = error
        if pieces:
            yield b"".join(pieces)
        elif damage is None:
            return
    raise damage


@contextmanager
def _opened(path: Path) -> Iterator[tuple[IO[bytes] | Any, Callable[[], int]]]:
    """Open a file; provide the decompressed stream and a function for the position in the file."""
    try:
        if path.suffix.lower() == ".gz":
            with path.open("rb") as raw, gzip.GzipFile(fileobj=raw) as decompressed:
                yield decompressed, raw.tell
        elif path.suffix.lower() == ".zst":
            import pyarrow as pa  # noqa: PLC0415  uncompressed JSONL must not load Arrow

            with pa.OSFile(str(path)) as raw, pa.CompressedInputStream(raw, "zstd") as stream:
                yield stream, raw.tell
        else:
            with path.open("rb") as plain:
                yield plain, plain.tell
    except FileNotFoundError:
        raise MissingFileError(f"{path} does not exist. Check the path.") from None
    except IsADirectoryError:
        raise MissingFileError(f"{path} is a folder. Give a file of JSON lines.") from None
    except PermissionError as error:
        raise StorageError(f"{path} cannot be read: {error.strerror}") from error
