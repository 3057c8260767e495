"""Targets of exports: where the bytes of a path go, and which paths an export may not write.

A symbolic link leads to the file it names. A regular file is replaced as a whole. Pipes, devices
and open descriptors (`/dev/stdout`) are written in place, because replacing them would only hide
them.
"""

from __future__ import annotations

import io
import os
import re
import select
import stat
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any, Final

from afterimage.storage.errors import InvalidQueryError, MissingFileError, StorageError, shown
from afterimage.storage.system.interrupts import checkpoint

__all__ = [
    "check_path",
    "is_in_place",
    "is_side_file_of",
    "is_utf8",
    "opened_in_place",
    "real_target",
    "refuse_own_file",
    "refuse_pipe",
    "refuse_side_file",
    "same_place",
    "system_name",
    "system_path",
    "unicode_path",
]

# Lock files, journals and quarantined bytes of this package, and the log of DuckDB.
_SIDE_FILE: Final = re.compile(r"(?<=.)\.(lock|saving|wal|torn-[0-9]+)$", re.I | re.S)

_POLL_SECONDS: Final = 0.05

# Most systems follow at most 40 links of a path.
_MOST_LINKS: Final = 40


def check_path(path: Path) -> None:
    """Refuse a path that no system call accepts.

    Raises:
        InvalidQueryError: the path contains a NUL character.
    """
    if "\0" in str(path):
        raise InvalidQueryError(f"a path cannot contain a NUL character: {shown(str(path), 80)}")


def system_path(path: str | Path) -> Path:
    """Return a path with the characters that the functions of the system take (`system_name`)."""
    return Path(system_name(os.fspath(path)))


def system_name(name: str) -> str:
    """Return a name with the characters that the functions of the system take.

    In a locale without UTF-8, such as `LC_ALL=C`, Python has other characters for the bytes of a
    name that is not ASCII.
    """
    try:
        os.fsencode(name)
    except UnicodeEncodeError:
        with suppress(UnicodeEncodeError):  # it is not Unicode either
            return os.fsdecode(name.encode("utf-8", "surrogateescape"))
    return name


def unicode_path(path: str | Path) -> str:
    """Return a path as Unicode text, as DuckDB takes it whatever the locale is.

    Raises:
        UnicodeError: its bytes are not UTF-8.
    """
    return os.fsencode(path).decode()


def refuse_pipe(path: Path) -> None:
    """Refuse a pipe or a socket as the file of a storage: opening it waits for another program.

    Raises:
        StorageError: it is one.
        OSError: the path cannot be accessed.
    """
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        return
    if stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode):
        raise StorageError(f"{path} is a pipe, not a file. Give a file; an import reads pipes.")


def is_utf8(path: Path) -> bool:
    """Return whether the characters of a path are its name in UTF-8, as Arrow requires."""
    try:
        str(path).encode()
    except UnicodeEncodeError:
        return False
    return True


def real_target(path: Path) -> Path:
    """Return the path to create or replace: symbolic links are followed, also to a missing file.

    Raises:
        MissingFileError: `path` does not name a file, or its folder does not exist.
        InvalidQueryError: no system call accepts the path.
        OSError: the path cannot be accessed, for example because a name is too long.
    """
    check_path(path)
    if not path.name:
        raise MissingFileError(f"{str(path)!r} does not name a file. Give a path with a file name.")
    real = Path(os.path.realpath(path)) if path.is_symlink() else path
    if not real.parent.is_dir():
        raise MissingFileError(f"{path}: the folder {real.parent} does not exist. Create it first.")
    with suppress(FileNotFoundError):
        real.stat()  # also finds names that are too long, and links that lead to themselves
    return real


def is_in_place(path: Path) -> bool:
    """Return whether a path is written in place: a pipe, a device or a descriptor of this process.

    Raises:
        OSError: the path cannot be accessed.
    """
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        return False
    if stat.S_ISREG(mode):
        return _own_descriptor(path) is not None  # `/dev/stdout` of `command > file`
    return not stat.S_ISDIR(mode)


@contextmanager
def opened_in_place(path: Path) -> Iterator[IO[bytes]]:
    """Open a path of `is_in_place` for writing. What is written cannot be taken back.

    Waits until a pipe has a reader. A signal may end this wait, and waits for a slow reader.
    """
    own = _own_descriptor(path)
    handle = os.dup(own) if own is not None else _opened(path)
    with io.BufferedWriter(_InPlace(handle)) as stream:
        yield stream


class _InPlace(io.RawIOBase):
    """An unbuffered stream to a descriptor that may not be seekable."""

    def __init__(self, handle: int) -> None:
        self._handle = handle
        self._position = 0
        mode = os.fstat(handle).st_mode
        self._can_block = stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode)

    def writable(self) -> bool:
        return True

    def fileno(self) -> int:
        return self._handle

    def tell(self) -> int:
        return self._position

    def write(self, data: Any) -> int:
        view = memoryview(data).cast("B")
        if self._can_block and hasattr(select, "poll"):
            self._wait()
            view = view[: select.PIPE_BUF]  # a pipe that is ready takes this many bytes at once
        written = os.write(self._handle, view)
        self._position += written
        return written

    def _wait(self) -> None:
        poll = select.poll()
        poll.register(self._handle, select.POLLOUT)
        while not poll.poll(1000 * _POLL_SECONDS):
            checkpoint()

    def close(self) -> None:
        if not self.closed:
            super().close()
            os.close(self._handle)


def _opened(path: Path) -> int:
    if not path.is_fifo():
        return os.open(path, os.O_WRONLY)
    while True:
        try:
            handle = os.open(path, os.O_WRONLY | os.O_NONBLOCK)
        except OSError:  # nobody reads the pipe yet
            if not path.is_fifo():
                raise
            checkpoint()
            time.sleep(_POLL_SECONDS)
        else:
            os.set_blocking(handle, True)
            return handle


def _own_descriptor(path: Path) -> int | None:
    """Return the descriptor of this process that a path such as `/dev/stdout` leads to."""
    for _ in range(_MOST_LINKS):
        folder = os.path.realpath(path.parent)
        if folder in (f"/proc/{os.getpid()}/fd", "/dev/fd") and path.name.isdigit():
            return int(path.name)
        try:
            path = Path(folder, path.readlink())
        except OSError:  # not a link
            return None
    return None


def same_place(path: Path, other: Path) -> bool:
    """Return whether two paths name one file, by links too, whether or not it exists."""
    try:
        if path.samefile(other):
            return True
    except OSError:  # one of the two files does not exist
        pass
    return os.path.realpath(path) == os.path.realpath(other)


def is_side_file_of(path: Path, owner: Path) -> bool:
    """Return whether a path names a side file of `owner`, such as its lock file."""
    base = _base_of(path)
    return base is not None and same_place(base, owner)


def refuse_side_file(path: Path) -> None:
    """Refuse to write a path that is the side file of an existing file.

    Raises:
        InvalidQueryError: it is, also under the name of a link.
    """
    if path.suffix.casefold().startswith((".lock", ".saving", ".wal", ".torn-")) or (
        path.is_symlink()
    ):
        base = _base_of(path)
        if base is not None and base.exists():
            raise _is_side_file(path, base)


def refuse_own_file(path: Path, own_files: Iterable[Path]) -> None:
    """Refuse a path that is one of the storage's own files, or a side file, by links too.

    Raises:
        InvalidQueryError: `path` is one of `own_files`, or a side file of one of them or of another
            existing file.
    """
    check_path(path)
    try:
        for own in own_files:
            if same_place(path, own):
                raise InvalidQueryError(f"{path} is this storage's own file. Give another path.")
            if is_side_file_of(path, own):
                raise _is_side_file(path, own)
        refuse_side_file(path)
    except OSError as error:
        raise StorageError(f"{path} cannot be accessed: {error.strerror or error}") from error


def _is_side_file(path: Path, owner: Path) -> InvalidQueryError:
    return InvalidQueryError(
        f"{path} is a side file of {owner.name}, which a save would overwrite or remove. Give "
        "another path."
    )


def _base_of(path: Path) -> Path | None:
    """Return the file that a side file belongs to; None if it is not named like a side file."""
    real = Path(os.path.realpath(path))
    found = _SIDE_FILE.search(real.name)
    return real.with_name(real.name[: found.start()]) if found else None
