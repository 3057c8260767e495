"""Atomic files: a file appears under its name complete and durable, or not at all.

Pipes and devices are the exception: they are written in place.
"""

from __future__ import annotations

import errno
import glob
import gzip
import os
import shutil
import stat
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO, Any, Final

from afterimage.storage.errors import InvalidQueryError, StorageError
from afterimage.storage.system.targets import (
    check_path,
    is_in_place,
    opened_in_place,
    real_target,
)

__all__ = [
    "copy_permissions",
    "replaced",
    "sync",
    "sync_folder",
    "temporary_name",
    "temporary_path",
    "temporary_paths",
    "write_all",
    "written_file",
    "written_lines",
]

# Errors of file systems that cannot sync a folder, and of a folder without reading permission.
_NOT_SUPPORTED: Final = {
    *(errno.EINVAL, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EBADF),
    *(errno.EACCES, errno.EPERM),
}


@contextmanager
def replaced(path: Path, suffix: str = "tmp") -> Iterator[Path]:
    """Provide a temporary path that is renamed to `path` at the end, or deleted after an error.

    An existing file at `path` stays unchanged until then; the new one gets its permissions and its
    owner. If `path` is a symbolic link, the file that it names is replaced. The caller creates a
    file or a folder at the temporary path, or writes the empty file that is already there. A folder
    can replace another folder only if that one is empty.

    Args:
        path: the file or the folder.
        suffix: the end of the temporary name.

    Raises:
        MissingFileError: `path` does not name a file, or its folder does not exist.
        StorageError: the file cannot be written.
    """
    fresh: Path | None = None
    try:
        target = real_target(path)
        former = target.stat() if target.is_file() else None
        fresh = temporary_path(target, suffix)
        if former is not None:  # nobody else may read the new file before it has the permissions
            os.close(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
        yield fresh
        if fresh.is_dir():
            for file in fresh.rglob("*"):
                sync(file)
        sync(fresh)
        if former is not None:
            copy_permissions(former, fresh)
        fresh.replace(target)
        sync_folder(target.parent)
    except StorageError:
        raise
    except OSError as error:
        raise StorageError(f"{path} cannot be written: {error.strerror or error}") from error
    finally:
        if fresh is not None and fresh.is_dir():
            shutil.rmtree(fresh, ignore_errors=True)
        elif fresh is not None:
            fresh.unlink(missing_ok=True)


@contextmanager
def written_file(path: Path) -> Iterator[Path | IO[bytes]]:
    """Provide what to write for `path`: a temporary path, or a stream to a pipe or a device.

    Raises:
        MissingFileError: `path` does not name a file, or its folder does not exist.
        StorageError: the file cannot be written, or is a folder.
    """
    check_path(path)
    try:
        in_place, is_folder = is_in_place(path), path.is_dir()
    except OSError as error:
        raise StorageError(f"{path} cannot be written: {error.strerror or error}") from error
    if is_folder:
        raise InvalidQueryError(f"{path} is a folder. Give a file.")
    if not in_place:
        with replaced(path) as fresh:
            yield fresh
        return
    try:
        with opened_in_place(path) as stream:
            yield stream
    except StorageError:
        raise
    except OSError as error:
        raise StorageError(f"{path} cannot be written: {error.strerror or error}") from error


@contextmanager
def written_lines(path: Path) -> Iterator[IO[bytes] | Any]:
    """Open a binary stream to `path`; a name with `.gz` or `.zst` is compressed.

    A file is replaced at the end; a pipe or a device is written in place.
    """
    with written_file(path) as target, ExitStack() as stack:
        if isinstance(target, Path):
            file: IO[bytes] = stack.enter_context(target.open("wb"))
        else:
            file = target
        if path.suffix.lower() == ".gz":
            # The header has no file name and no time, so equal records give equal bytes.
            yield stack.enter_context(gzip.GzipFile("", "wb", 6, file, mtime=0))
        elif path.suffix.lower() == ".zst":
            import pyarrow as pa  # noqa: PLC0415  uncompressed JSONL must not load Arrow

            yield stack.enter_context(pa.CompressedOutputStream(file, "zstd"))
        else:
            yield file


def temporary_path(path: Path, suffix: str) -> Path:
    """Return a new hidden name beside `path`, which is not too long if the name of `path` is not.

    >>> temporary_path(Path("talks.jsonl"), "tmp").name[:13]
    '.talks.jsonl.'
    """
    return path.with_name(f".{path.name[:50]}.{uuid.uuid4().hex}.{suffix}")


def temporary_paths(path: Path, suffix: str) -> Iterator[Path]:
    """Yield the existing files that `temporary_path` has named; a process was killed over them."""
    return path.parent.glob(f".{glob.escape(path.name[:50])}.*.{suffix}")


def copy_permissions(former: os.stat_result, path: Path) -> None:
    """Give a file the mode and the owner of another file, as far as allowed."""
    mode = stat.S_IMODE(former.st_mode)
    if os.name == "posix":
        current = path.stat()
        if (current.st_uid, current.st_gid) != (former.st_uid, former.st_gid):
            try:
                os.chown(path, former.st_uid, former.st_gid)
            except PermissionError:
                try:
                    os.chown(path, -1, former.st_gid)
                except PermissionError:  # the group is another one now, and may do what others may
                    mode = (mode & 0o707) | (mode & 0o007) << 3
    path.chmod(mode)


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


def write_all(file: IO[bytes], data: bytes | memoryview) -> None:
    """Write all of the data to an unbuffered file: one `write` may write only a part of it."""
    rest = memoryview(data)
    while rest:
        rest = rest[file.write(rest) :]
