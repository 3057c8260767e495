"""Atomic files: a file appears under its name complete and durable, or not at all."""

from __future__ import annotations

import errno
import gzip
import os
import shutil
import tempfile
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, Final

from afterimage.storage.errors import InvalidQueryError, MissingFileError, StorageError

__all__ = [
    "refuse_own_file",
    "replaced",
    "sync",
    "sync_folder",
    "temporary_name",
    "write_all",
    "written_lines",
]

# Errors of file systems that cannot sync a folder, and of a folder without reading permission.
_NOT_SUPPORTED: Final = {
    *(errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EBADF),
    *(errno.EACCES, errno.EPERM),
}


@contextmanager
def replaced(path: Path) -> Iterator[Path]:
    """Provide a temporary path that is renamed to `path` at the end, or deleted after an error.

    An existing file at `path` stays unchanged until then. The caller creates a file or a folder at
    the temporary path. A folder can replace another folder only if that one is empty.

    Raises:
        MissingFileError: `path` does not name a file, or its folder does not exist.
        StorageError: the file cannot be written.
    """
    if not path.name:
        raise MissingFileError(f"{str(path)!r} does not name a file. Give a path with a file name.")
    if not path.parent.is_dir():
        raise MissingFileError(f"{path}: the folder {path.parent} does not exist. Create it first.")
    fresh = path.with_name(f".{path.name}.{uuid.uuid4().hex}.tmp")
    try:
        yield fresh
        if fresh.is_dir():
            for file in fresh.rglob("*"):
                sync(file)
        sync(fresh)
        fresh.replace(path)
        sync_folder(path.parent)
    except StorageError:
        raise
    except OSError as error:
        raise StorageError(f"{path} cannot be written: {error.strerror or error}") from error
    finally:
        if fresh.is_dir():
            shutil.rmtree(fresh, ignore_errors=True)
        else:
            fresh.unlink(missing_ok=True)


@contextmanager
def written_lines(path: Path) -> Iterator[IO[bytes] | Any]:
    """Open a binary stream that replaces `path`; a name with `.gz` or `.zst` is compressed."""
    with replaced(path) as fresh:
        if path.suffix.lower() == ".gz":
            # The header has no file name and no time, so equal records give equal bytes.
            with fresh.open("wb") as file, gzip.GzipFile("", "wb", 6, file, mtime=0) as compressed:
                yield compressed
        elif path.suffix.lower() == ".zst":
            import pyarrow as pa  # noqa: PLC0415  uncompressed JSONL must not load Arrow

            with pa.output_stream(str(fresh), compression="zstd") as stream:
                yield stream
        else:
            with fresh.open("wb") as uncompressed:
                yield uncompressed


def sync(path: Path) -> None:
    """Flush a file, or the entries of a folder, to the disk (fsync)."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def sync_folder(path: Path) -> None:
    """Make a rename or a new file in a folder durable, if the system supports it."""
    if os.name == "posix":  # on Windows a folder cannot be opened, and a rename is durable
        try:
            sync(path)
        except OSError as error:
            if error.errno not in _NOT_SUPPORTED:
                raise


def temporary_name() -> Path | None:
    """Return a new path in the folder for temporary files; None if this system has no such folder.

    Nothing is created there.
    """
    try:
        return Path(tempfile.gettempdir()) / f"afterimage-{uuid.uuid4().hex}"
    except FileNotFoundError:
        return None


def refuse_own_file(path: Path, own_files: Iterable[Path]) -> None:
    """Refuse a path that is one of the storage's own files, also under another name.

    Raises:
        InvalidQueryError: `path` is one of `own_files`.
    """
    for own in own_files:
        try:
            same = path.samefile(own)
        except OSError:  # one of the two files does not exist
            same = path.absolute() == own
        if same:
            raise InvalidQueryError(f"{path} is this storage's own file. Give another path.")


def write_all(file: IO[bytes], data: bytes | memoryview) -> None:
    """Write all of the data to an unbuffered file: one `write` may write only a part of it."""
    rest = memoryview(data)
    while rest:
        rest = rest[file.write(rest) :]
