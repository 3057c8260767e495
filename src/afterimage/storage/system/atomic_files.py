"""Files that appear under their name whole and durable, or not at all."""

from __future__ import annotations

import gzip
import os
import shutil
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from afterimage.storage.errors import InvalidQueryError, MissingFileError, StorageError

__all__ = ["refuse_own_file", "replaced", "sync", "sync_folder", "written_lines"]


@contextmanager
def replaced(path: Path) -> Iterator[Path]:
    """A temporary path beside `path` that takes its place at the end, and is gone on any error.

    What stood at `path` before stays until then. A file or a folder may be made at the temporary
    path; a folder takes the place of another one only if that is empty.

    Raises:
        MissingFileError: the folder of `path` does not exist.
    """
    if not path.name:
        raise MissingFileError(f"{str(path)!r} names no file. Give a path with a file's name.")
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
    """A stream of bytes to `path`, packed as its name says: `.gz`, `.zst`, or not at all."""
    with replaced(path) as fresh:
        if path.suffix.lower() == ".gz":
            # No file name and no time inside: the same records give the same bytes.
            with fresh.open("wb") as file, gzip.GzipFile("", "wb", 6, file, mtime=0) as packed:
                yield packed
        elif path.suffix.lower() == ".zst":
            import pyarrow as pa  # noqa: PLC0415  only here: plain JSONL is written without it

            with pa.output_stream(str(fresh), compression="zstd") as stream:
                yield stream
        else:
            with fresh.open("wb") as plain:
                yield plain


def sync(path: Path) -> None:
    """Have the system write a file, or a folder's entries, to the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def sync_folder(path: Path) -> None:
    """Make a rename or a new file inside a folder durable, where the system can."""
    if os.name == "posix":  # elsewhere a folder cannot be opened, and a rename is durable
        sync(path)


def refuse_own_file(path: Path, own_files: Iterable[Path]) -> None:
    """Refuse a path that is one of a storage's own files, by whatever name.

    Raises:
        InvalidQueryError: it is one.
    """
    for own in own_files:
        try:
            same = path.samefile(own)
        except OSError:  # one of them does not exist
            same = path.absolute() == own
        if same:
            raise InvalidQueryError(f"{path} is this storage's own file. Give another one.")
