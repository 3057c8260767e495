"""Open what JSON lines are read from: a file, a pipe, or a stream, plain or compressed.

The invariant: a source is read once, from its first byte to its last, in blocks of bounded size. A
regular file that changes during an import gives what was in it when it was opened, or an error.
"""

from __future__ import annotations

import gzip
import io
import os
import select
import stat
import sys
import tempfile
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Final, Self

from afterimage.storage.errors import InvalidQueryError, MissingFileError, StorageError
from afterimage.storage.jsonl.containers import HEAD_BYTES, compression_of
from afterimage.storage.jsonl.journal import visible, warning_of_killed_save
from afterimage.storage.jsonl.torn import blank
from afterimage.storage.system.file_identity import identity_of
from afterimage.storage.system.interrupts import checkpoint
from afterimage.storage.system.locks import file_lock, lock_path
from afterimage.storage.system.package import warn_caller
from afterimage.storage.system.side_files import side_file
from afterimage.storage.system.targets import check_path, refuse_own_file

__all__ = ["CHUNK_BYTES", "DAMAGE", "LineSource", "OpenSource", "Origin", "refuse_own_source"]

Origin = Path | IO[Any]
"""A path, or a stream of bytes or text, which stays open."""

CHUNK_BYTES: Final = 4 * 2**20
"""Number of bytes that are read at a time."""
# A compressed file is read in smaller pieces: data before damage in the same piece is lost.
_PIECE_BYTES: Final = 2**16
# Bytes of a pipe that are kept in memory before the target is opened; above this, in a file.
_BYTES_IN_MEMORY: Final = 16 * 2**20
_POLL_MILLISECONDS: Final = 50

DAMAGE: Final = (EOFError, OSError, zlib.error)
"""What reading a damaged or unreadable source raises."""


@dataclass(frozen=True)
class OpenSource:
    """A source that is being read.

    Attributes:
        path: its name in messages.
        blocks: its bytes, decompressed. An error comes after all bytes before damage.
        is_compressed: whether it is decompressed.
    """

    path: Path
    blocks: Iterator[bytes]
    is_compressed: bool
    _raw: _Bytes

    def share(self) -> float | None:
        """Return the share that was read, 0 to 1; None if the size is unknown."""
        size = self._raw.size
        return min(1.0, self._raw.count / size) if size else None


@dataclass(frozen=True)
class LineSource:
    """What JSON lines are read from.

    Attributes:
        origin: where they come from.
        size: number of bytes to read; None for all.
        hidden: ranges of bytes of an uncompressed file, as start and end, that are read as blanks.
        lock_timeout: None unless the source is imported. Then a file is read as it is now: without
            a save of another storage that is not complete, which its lock shows.
        spool: folder for a temporary file, which takes what a pipe or a stream gives before the
            first block is returned; None if the blocks are returned at once.
        warn: called with a warning about a save that was killed.
        file: the file at the path `origin`, if it is open already. Who opened it closes it.
    """

    origin: Origin
    size: int | None = None
    hidden: tuple[tuple[int, int], ...] = ()
    lock_timeout: float | None = None
    spool: Path | None = None
    warn: Callable[[str], None] = warn_caller
    file: IO[bytes] | None = None

    @property
    def path(self) -> Path:
        """The name of the source in messages."""
        if isinstance(self.origin, Path):
            return self.origin
        name = getattr(self.origin, "name", None)
        return Path(name if isinstance(name, str) and name else "<stream>")

    def known_size(self) -> int | None:
        """Return the size of the file, compressed or not; None if it is no regular file."""
        try:
            if isinstance(self.origin, Path):
                status = self.origin.stat()
            else:
                status = os.fstat(self.origin.fileno())
        except (AttributeError, OSError, ValueError):
            return None
        return status.st_size if stat.S_ISREG(status.st_mode) else None

    @contextmanager
    def opened(self) -> Iterator[OpenSource]:
        """Open the source.

        Raises:
            MissingFileError: the file does not exist or is a folder.
            StorageError: the file cannot be read.
        """
        path = self.path
        with _raw(self.origin if self.file is None else self.file) as file:
            status = _status(file)
            is_pipe = _is_pipe(file, status)
            if not _is_whole_file(file, status):
                if self.lock_timeout is not None and not isinstance(self.origin, Path):
                    _refuse_part_of_a_save(file, status)
                status = None
            size, hidden = self.size, self.hidden
            if size is None and status is not None and status.st_size:  # in /proc, it is 0
                size = status.st_size
                own_path = path if isinstance(self.origin, Path) else _path_of(file)
                if self.lock_timeout is not None and own_path is not None:
                    size, hidden = _complete_saves(own_path, status, self.lock_timeout, self.warn)
            before = None if self.lock_timeout is None else status
            raw = _Bytes(
                path, file, size, before, is_pipe=is_pipe, is_whole_file=status is not None
            )
            if self.spool is not None and status is None:
                with _spooled(raw, path, self.spool) as spooled:
                    yield _open_blocks(path, spooled)
            else:
                yield _open_blocks(path, raw, hidden)


def refuse_own_source(origin: Origin, own_files: Iterable[Path]) -> None:
    """Refuse to import what is not a source, or is one of the storage's own files.

    Raises:
        InvalidQueryError: it is neither a path nor a readable stream, or one of `own_files`.
    """
    if isinstance(origin, Path):
        check_path(origin)
        if os.path.exists(origin):  # noqa: PTH110  the method raises for a name that is too long
            refuse_own_file(origin, own_files)
        return
    if not callable(getattr(origin, "read", None)):
        raise InvalidQueryError(
            f"a source must be a path or a readable stream, not {type(origin).__name__}"
        )
    can_read = getattr(origin, "readable", None)
    if getattr(origin, "closed", False) is True or (callable(can_read) and not can_read()):
        raise InvalidQueryError("a source is a stream that is closed, or open for writing only")
    status = _status(origin)
    for own in own_files:
        if status is not None and identity_of(own) == (status.st_dev, status.st_ino):
            raise InvalidQueryError(f"{own} is this storage's own file. Give another source.")


class _Bytes:
    """The bytes of a file or a stream, with a look at the first ones.

    Attributes:
        size: number of bytes that it will give; None if unknown.
        count: number of bytes read so far.
        closed: for Arrow, which reads from it.
    """

    closed = False

    def __init__(
        self,
        path: Path,
        file: IO[Any],
        size: int | None,
        before: os.stat_result | None = None,
        *,
        is_pipe: bool = False,
        is_whole_file: bool = False,
    ) -> None:
        self.size = size
        self.count = 0
        self._path = path
        self._file = file
        self._read = getattr(file, "read1", file.read) if is_pipe else file.read
        self._before = before
        self._is_pipe = is_pipe
        self._is_whole_file = is_whole_file
        self._ahead = b""

    def peek(self, count: int) -> bytes:
        """Return the first bytes without taking them; fewer if there are no more."""
        head = self.read(count)
        self.count -= len(head)
        if self._is_whole_file:  # the next read then copies nothing
            self._file.seek(0)
        else:
            self._ahead = head + self._ahead  # `read` keeps what it got beyond `count`
        return head

    def read(self, count: int) -> bytes:
        """Return the next bytes: as many as are asked for, unless the source ends."""
        if self.size is not None:
            count = min(count, self.size - self.count)
        data, self._ahead = self._ahead, b""
        if len(data) < count:
            pieces = [data] if data else []
            left = count - len(data)
            while left > 0 and (piece := self._piece(left)):
                pieces.append(piece)
                left -= len(piece)
            data = pieces[0] if len(pieces) == 1 else b"".join(pieces)
            if left > 0:
                self._check_end(self.count + len(data))
        if len(data) > count:  # encoded text is longer than its characters
            data, self._ahead = data[:count], data[count:]
        self.count += len(data)
        if self.count == self.size:
            self._check_end(self.count)
        return data

    def close(self) -> None:
        """Do nothing: whoever opened the file closes it."""

    def _piece(self, count: int) -> bytes:
        if self._is_pipe:
            _wait(self._file)
        try:
            piece = self._read(count)
        except UnicodeError as error:
            raise StorageError(f"{self._path} cannot be read as text: {error}") from None
        if isinstance(piece, str):
            return piece.encode("utf-8", "surrogatepass")  # a line with a surrogate is corrupt
        if piece is None:
            raise StorageError(f"{self._path} has no data yet. Give a stream that waits for data.")
        if not isinstance(piece, bytes | bytearray | memoryview):
            raise StorageError(
                f"{self._path} gives {type(piece).__name__} instead of bytes or text."
            )
        return bytes(piece)

    def _check_end(self, count: int) -> None:
        """Raise an error if the file was changed, other than by an append."""
        if self._before is None:
            return
        after = os.fstat(self._file.fileno())
        is_same = after.st_mtime_ns == self._before.st_mtime_ns
        is_longer = after.st_size > self._before.st_size
        if (self.size or 0) > count or not (is_same or is_longer):
            raise StorageError(
                f"{self._path} was changed while it was read. Import it again when no program "
                "writes it. Nothing was saved."
            )


def _open_blocks(path: Path, raw: _Bytes, hidden: Sequence[tuple[int, int]] = ()) -> OpenSource:
    head = raw.peek(HEAD_BYTES)
    match compression_of(head, path.suffix) if head else None:
        case "gzip":
            stream: Any = gzip.GzipFile(fileobj=raw, mode="rb")  # type: ignore[call-overload]
        case "zstd":
            import pyarrow as pa  # noqa: PLC0415  uncompressed JSONL must not load Arrow

            file = pa.PythonFile(raw, mode="r")
            stream = pa.CompressedInputStream(file, "zstd")
        case "xz":
            stream = _Xz(raw)
        case _:
            blocks = _without(hidden, _plain(raw)) if hidden else _plain(raw)
            return OpenSource(path, blocks, is_compressed=False, _raw=raw)
    return OpenSource(path, _decompressed(stream), is_compressed=True, _raw=raw)


class _Xz:
    """Decompresses data of xz, in one or several streams. Damage is an `EOFError`."""

    def __init__(self, raw: _Bytes) -> None:
        import lzma  # noqa: PLC0415  not every Python has it

        self._error = lzma.LZMAError
        self._file = lzma.LZMAFile(raw)  # type: ignore[arg-type]  # noqa: SIM115

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def read1(self, count: int) -> bytes:
        try:
            return self._file.read1(count)
        except self._error as error:
            raise EOFError(str(error)) from None


def _plain(raw: _Bytes) -> Iterator[bytes]:
    while data := raw.read(CHUNK_BYTES):
        yield data


def _without(hidden: Sequence[tuple[int, int]], blocks: Iterable[bytes]) -> Iterator[bytes]:
    """Yield the blocks of a file with blanks in place of the hidden ranges."""
    at = 0
    for block in blocks:
        shown = bytearray(block)
        for start, end in hidden:
            part = slice(max(start - at, 0), max(end - at, 0))
            shown[part] = blank(shown[part])
        yield bytes(shown)
        at += len(block)


def _decompressed(file: Any) -> Iterator[bytes]:
    """Yield the bytes of a compressed file; raise an error after all bytes before damage."""
    damage: Exception | None = None
    with file:
        while damage is None:
            pieces: list[bytes] = []
            try:
                for _ in range(CHUNK_BYTES // _PIECE_BYTES):
                    piece = file.read1(_PIECE_BYTES)
                    if not piece:
                        break
                    pieces.append(piece)
            except DAMAGE as error:
                damage = error
            if pieces:
                yield b"".join(pieces)
            elif damage is None:
                return
    raise damage


@contextmanager
def _raw(origin: Origin) -> Iterator[IO[Any]]:
    """Open a path; a stream is already open, and stays open."""
    if not isinstance(origin, Path):
        yield origin
        return
    try:
        file = _open_file(origin)
    except FileNotFoundError:
        raise MissingFileError(f"{origin} does not exist. Check the path.") from None
    except IsADirectoryError:
        raise MissingFileError(f"{origin} is a folder. Give a file of JSON lines.") from None
    except OSError as error:
        raise StorageError(f"{origin} cannot be read: {error.strerror or error}") from error
    with file:
        yield file


def _open_file(path: Path) -> IO[bytes]:
    if sys.platform != "linux" or not stat.S_ISFIFO(path.stat().st_mode):
        return path.open("rb")
    # Opening a pipe waits for its writer, and no signal ends that. So wait in `_wait`.
    file = open(os.open(path, os.O_RDONLY | os.O_NONBLOCK), "rb", buffering=0)  # noqa: PTH123, SIM115
    try:
        _wait(file)
        os.set_blocking(file.fileno(), True)
    except BaseException:
        file.close()
        raise
    return file


def _status(stream: IO[Any]) -> os.stat_result | None:
    """Return the status of the file behind a stream; None if there is none.

    A stream that decompresses has another size than its file, so it counts as having none.
    """
    raw = getattr(stream, "buffer", stream)
    while isinstance(raw, io.BufferedReader):  # one can have another one inside
        raw = raw.raw
    try:
        return os.fstat(raw.fileno()) if isinstance(raw, io.FileIO) else None
    except (OSError, ValueError):
        return None


def _is_whole_file(stream: IO[Any], status: os.stat_result | None) -> bool:
    """Return whether a stream gives the bytes of a regular file from the first one on."""
    try:
        return (
            status is not None
            and stat.S_ISREG(status.st_mode)
            and isinstance(stream.read(0), bytes)
            and stream.tell() == 0
        )
    except (OSError, ValueError):
        return False


def _path_of(stream: IO[Any]) -> Path | None:
    """Return the path of the file that a stream reads; None if it is unknown."""
    try:
        status = os.fstat(stream.fileno())
        for name in (getattr(stream, "name", None), f"/proc/self/fd/{stream.fileno()}"):
            if isinstance(name, str) and identity_of(name) == (status.st_dev, status.st_ino):
                return Path(os.path.realpath(name))
    except (AttributeError, OSError, ValueError):
        pass
    return None


def _refuse_part_of_a_save(stream: IO[Any], status: os.stat_result | None) -> None:
    """Refuse text, or the rest of a file, while a save to the file is not complete.

    Raises:
        StorageError: another storage is saving to the file, or was killed while it did.
    """
    if status is None or not stat.S_ISREG(status.st_mode):
        return
    path = _path_of(stream)
    if path is not None and side_file(path, ".saving").exists():
        raise StorageError(
            f"{path} has a save that is not complete. Give its path, so that this save is left out."
        )


def _is_pipe(stream: IO[Any], status: os.stat_result | None) -> bool:
    """Return whether a stream is a pipe or a terminal whose data can be waited for."""
    return (
        status is not None
        and hasattr(select, "poll")
        and not isinstance(stream, io.TextIOBase)
        and (stat.S_ISFIFO(status.st_mode) or stat.S_ISCHR(status.st_mode))
    )


def _wait(file: IO[Any]) -> None:
    """Wait until a pipe has data or is closed; a signal may end the wait."""
    poll = select.poll()
    poll.register(file, select.POLLIN)
    while not poll.poll(_POLL_MILLISECONDS):
        checkpoint()


def _complete_saves(
    path: Path, opened: os.stat_result, lock_timeout: float, warn: Callable[[str], None]
) -> tuple[int, tuple[tuple[int, int], ...]]:
    """Return how many bytes of a file to read, and the ranges in them that are no complete save."""
    size = opened.st_size
    # No lock file at this point: no storage had begun to save when the size was taken.
    if lock_path(path).exists():
        with file_lock(path, lock_timeout, optional=True):
            now, seen = path.stat(), visible(path)
        if (now.st_dev, now.st_ino) != (opened.st_dev, opened.st_ino):
            return size, ()  # an edit has replaced the file: the open one is as it was before
        size = now.st_size
    else:
        seen = visible(path)
    if seen.killed is not None:
        warn(warning_of_killed_save(path, seen))
    return size if seen.size is None else min(size, seen.size), tuple(seen.hidden)


@contextmanager
def _spooled(raw: _Bytes, path: Path, folder: Path) -> Iterator[_Bytes]:
    """Read everything, and provide it again."""
    with tempfile.SpooledTemporaryFile(max_size=_BYTES_IN_MEMORY, dir=str(folder)) as file:
        for data in _plain(raw):
            checkpoint()
            try:
                file.write(data)
            except OSError as error:
                raise StorageError(
                    f"{path} cannot be copied to a temporary file in {folder}: "
                    f"{error.strerror or error}"
                ) from error
        size = file.tell()
        file.seek(0)
        yield _Bytes(path, file, size)
