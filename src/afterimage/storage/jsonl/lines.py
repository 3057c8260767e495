r"""JSONL files as lines of bytes, in bounded chunks: plain, gzip or zstd.

Records are split on the byte `\n` and on nothing else, so that U+2028 and its like stay inside
them. Every line keeps its number and its byte offset, for the error that names it.
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
)
from afterimage.storage.system.interrupts import checkpoint

__all__ = [
    "CHUNK_BYTES",
    "Chunk",
    "Line",
    "is_compressed",
    "is_object",
    "objects_of",
    "parse",
    "read_chunks",
]

CHUNK_BYTES = 4 * 2**20
"""About how much of a file is read at a time."""
# A packed file is read in pieces: what is unpacked before damage is met in a piece is lost with it.
_PIECE_BYTES = 2**16


class Line(NamedTuple):
    """A line that is not blank.

    Attributes:
        number: the first line of a file being 1.
        offset: of its first byte in the (unpacked) file.
        text: its bytes, UTF-8, without the line feed.
    """

    number: int
    offset: int
    text: bytes


class Chunk(NamedTuple):
    """Consecutive lines of a file.

    Attributes:
        path: the file.
        number: of the first line.
        offset: of its first byte in the (unpacked) file.
        lines: all lines, blank ones among them, without line feeds.
        encoding: of the lines in the file.
        ended: whether a line feed follows the last line, as it does all others.
        share: how much of the file, packed as it is, was read by then, 0 to 1; None where its size
            is not known.
    """

    path: Path
    number: int
    offset: int
    lines: list[bytes]
    encoding: str
    ended: bool = True
    share: float | None = None

    def records(self) -> Iterator[Line]:
        """The lines that are not blank, as UTF-8.

        Raises:
            CorruptRecordError: one is not of the file's encoding.
        """
        return map(self.read, self.unread())

    def unread(self) -> Iterator[Line]:
        """The lines that are not blank, each with the bytes it has in the file."""
        offset = self.offset
        for number, text in enumerate(self.lines, self.number):
            if text and not text.isspace():
                yield Line(number, offset, text)
            offset += len(text) + 1

    def read(self, line: Line) -> Line:
        """A line of `unread`, as UTF-8.

        Raises:
            CorruptRecordError: it is not of the file's encoding.
        """
        if self.encoding == "utf-8":
            return line
        try:
            return line._replace(text=line.text.decode(self.encoding).encode())
        except UnicodeError as error:
            raise self.corrupt(line, str(error)) from None

    def texts(self) -> list[bytes]:
        """The text of each line that is not blank, as UTF-8."""
        if self.encoding == "utf-8":
            return [text for text in self.lines if text and not text.isspace()]
        return [line.text for line in self.records()]

    def part(self, start: int, count: int) -> Chunk:
        """The chunk of `count` of its lines."""
        offset = self.offset + sum(map(len, self.lines[:start])) + start
        lines = self.lines[start : start + count]
        return self._replace(number=self.number + start, offset=offset, lines=lines)

    def corrupt(self, line: Line, reason: str) -> CorruptRecordError:
        """The error for one of its lines."""
        return CorruptRecordError(self.path, line.number, line.offset, reason)


def parse(chunk: Chunk, line: Line) -> dict[str, Any]:
    """A line as a JSON object.

    Raises:
        CorruptRecordError: it is none.
    """
    try:
        record = from_json(line.text)
    except ValueError as error:
        raise chunk.corrupt(line, str(error)) from None
    if not isinstance(record, dict):
        raise chunk.corrupt(line, f"a JSON object is wanted, found {type(record).__name__}")
    return record


def objects_of(texts: Iterable[str | bytes]) -> list[dict[str, Any]]:
    """Lines as JSON objects, where the engine has found them to be some.

    Raises:
        InvalidRecordError: one is none for us: the engine takes numbers of any size, and keeps
            only the text of what it does not look into.
    """
    try:
        found = [from_json(text) for text in texts]
    except ValueError as error:
        raise InvalidRecordError(shorten(error)) from None
    if not all(isinstance(record, dict) for record in found):
        raise InvalidRecordError("a line is no JSON object")
    return found


def is_object(line: bytes, encoding: str = "utf-8") -> bool:
    """Whether a line is a JSON object as a whole, as what is left of a broken write never is."""
    try:
        return isinstance(from_json(line.decode(encoding)), dict)
    except ValueError:
        return False


def is_compressed(path: Path) -> bool:
    """Whether the name of a file says that its lines are packed."""
    return path.suffix.lower() in (".gz", ".zst")


def read_chunks(path: Path, encoding: str = "utf-8", size: int | None = None) -> Iterator[Chunk]:
    """The lines of a file, in chunks of about 8 MiB or one line, whichever is more.

    Args:
        path: a file of JSON lines; `.gz` and `.zst` are unpacked, several members included.
        encoding: of the lines.
        size: bytes to read, None for all; for a file that others append to meanwhile.

    Raises:
        MissingFileError: there is no such file.
        CorruptRecordError: its packing is damaged; names the first line that cannot be read, after
            all before it were given.
    """
    number, offset = 1, 0
    parts: list[bytes] = []  # of a line whose end is not read yet
    with _opened(path) as (file, position):
        total = path.stat().st_size if size is None else size
        blocks = _unpacked(file) if is_compressed(path) else _plain(file, size)
        try:
            for at, read in enumerate(blocks):
                checkpoint()
                data = read.removeprefix(codecs.BOM_UTF8) if at == 0 else read
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
                path, number, offset, f"cannot be unpacked from here on: {error}"
            ) from None
    last = b"".join(parts)
    if last:
        yield Chunk(path, number, offset, [last], encoding, ended=False, share=1.0)


def _plain(file: IO[bytes], size: int | None) -> Iterator[bytes]:
    """The first `size` bytes of a plain file."""
    left = size
    while data := file.read(CHUNK_BYTES if left is None else min(CHUNK_BYTES, left)):
        left = None if left is None else left - len(data)
        yield data


def _unpacked(file: Any) -> Iterator[bytes]:
    """The bytes of a packed file; where it is damaged, all that come before, and then the error."""
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
    """The bytes of a file, unpacked, and what says how many of it, packed, were read."""
    try:
        if path.suffix.lower() == ".gz":
            with path.open("rb") as raw, gzip.GzipFile(fileobj=raw) as packed:
                yield packed, raw.tell
        elif path.suffix.lower() == ".zst":
            import pyarrow as pa  # noqa: PLC0415  only here: plain JSONL is read without it

            with pa.OSFile(str(path)) as raw, pa.CompressedInputStream(raw, "zstd") as stream:
                yield stream, raw.tell
        else:
            with path.open("rb") as plain:
                yield plain, plain.tell
    except FileNotFoundError:
        raise MissingFileError(f"{path}: no such file. Check the path.") from None
    except IsADirectoryError:
        raise MissingFileError(f"{path} is a folder. Give a file of JSON lines.") from None
    except PermissionError as error:
        raise StorageError(f"{path} cannot be read: {error.strerror}") from error
