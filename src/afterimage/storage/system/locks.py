"""Lock files: locks between processes, and the holder of a lock.

DuckDB 2.0 reads the header of a file, which points to its newest state, before it locks the file. A
process that opens a file while another one closes it can therefore see an older state, and
overwrite the other's changes. So processes of this package lock `<name>.lock` while they have the
file open. They also check whether another program, such as the DuckDB CLI, wrote the file while
they opened it.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from filelock import FileLock, Timeout

from afterimage.storage.errors import LockTimeoutError, StorageError
from afterimage.storage.system.interrupts import checkpoint
from afterimage.storage.system.package import LoggedWait
from afterimage.storage.system.side_files import side_file

__all__ = [
    "LockFile",
    "ProcessLock",
    "acquire_file",
    "file_lock",
    "fingerprint",
    "lock_holder",
    "lock_path",
]

# The first and the longest pause between two attempts to get a file's lock.
_POLL_SECONDS: Final = (0.005, 0.05)


class LockFile:
    """The lock of a file between processes: a lock file in the same folder.

    Reading permission is enough: a lock file that another user has made, for example with sudo,
    does not shut out the others.

    Attributes:
        path: the file to lock, not the lock file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = FileLock(lock_path(path), timeout=0, thread_local=False)
        self._read_only: int | None = None

    def acquire(self) -> bool:
        """Acquire the lock; return False if another process holds it.

        Raises:
            StorageError: the lock file cannot be opened.
        """
        try:
            self._lock.acquire(blocking=False)
        except Timeout:
            return False
        except OSError as error:
            try:
                return self._acquire_read_only()
            except OSError:
                raise self._error(error) from error
        return True

    def _acquire_read_only(self) -> bool:
        import fcntl  # noqa: PLC0415  only on POSIX; elsewhere the caller's error is raised

        handle = os.open(self._lock.lock_file, os.O_RDONLY)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(handle)
            return False
        except BaseException:
            os.close(handle)
            raise
        self._read_only = handle
        return True

    def _error(self, error: OSError) -> StorageError:
        return StorageError(
            f"{self.path} cannot be locked: its lock file {self._lock.lock_file} cannot be "
            f"opened ({error.strerror}). Give this user access to the folder and to that file, or "
            "delete that file while no program uses the storage."
        )

    def can_exist(self) -> bool:
        """Return whether a process like this one can have, or make, the lock file."""
        lock = Path(self._lock.lock_file)
        return lock.exists() or os.access(lock.parent, os.W_OK)

    def release(self) -> None:
        """Release the lock."""
        handle, self._read_only = self._read_only, None
        if handle is not None:
            os.close(handle)
        else:
            self._lock.release()


class ProcessLock:
    """The lock of this process on a database file, shared by its threads.

    Call it from one thread at a time.
    """

    def __init__(self, path: Path) -> None:
        self._lock = LockFile(path)
        self._sharers = 0

    @property
    def is_held(self) -> bool:
        """Whether this process holds the lock."""
        return self._sharers > 0

    def acquire(self) -> bool:
        """Acquire or share the lock; return False if another process holds it.

        Raises:
            StorageError: the lock file cannot be opened, although other processes may have it.
        """
        if not self._sharers:
            try:
                if not self._lock.acquire():
                    return False
            except StorageError:
                # In a read-only folder, DuckDB cannot write its log, so nobody can save.
                if self._lock.can_exist():
                    raise
        self._sharers += 1
        return True

    def release(self) -> None:
        """Release one `acquire`."""
        self._sharers -= 1
        if not self._sharers:
            self._lock.release()


@contextmanager
def file_lock(path: Path, timeout: float, *, optional: bool = False) -> Iterator[None]:
    """Hold the lock of a file that several processes append to.

    Args:
        path: the file; its lock file is in the same folder.
        timeout: seconds to wait for another process.
        optional: whether to continue without the lock if the folder is not writable: nobody can
            append there.

    Raises:
        LockTimeoutError: another process held the lock for all of `timeout`.
        StorageError: the lock file cannot be opened, and the lock is not optional.
    """
    lock = LockFile(path)
    try:
        has_lock = acquire_file(lock, timeout)
    except StorageError:
        if not optional:
            raise
        yield
        return
    if not has_lock:
        raise LockTimeoutError.of(path, timeout, lock_holder(lock_path(path)))
    try:
        yield
    finally:
        lock.release()


def acquire_file(lock: LockFile, seconds: float) -> bool:
    """Acquire a file's lock; a signal may end the wait.

    Args:
        lock: the lock.
        seconds: how long to wait while another process holds it.

    Returns:
        Whether it was acquired in time.
    """
    wait = LoggedWait(lock.path)
    pause, longest = _POLL_SECONDS
    while True:
        if lock.acquire():
            wait.ended()
            return True
        checkpoint()
        if wait.seconds >= seconds:
            return False
        wait.goes_on(lambda: lock_holder(lock_path(lock.path)))
        time.sleep(pause)
        pause = min(2 * pause, longest)


def lock_path(path: Path) -> Path:
    """Return the path of the lock file of a file, the same for all names that are links to it."""
    return side_file(path, ".lock")


def fingerprint(path: Path) -> tuple[int, int, int] | None:
    """Return inode, size and modification time, which change with every write; None if no file.

    Uses stat only: closing a descriptor would drop DuckDB's lock on the file.
    """
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_ino, status.st_size, status.st_mtime_ns


def lock_holder(lock: Path) -> str | None:
    """Return the process that holds a lock file; None if the system cannot tell (Linux can)."""
    try:
        inode = f":{lock.stat().st_ino}"
        for entry in Path("/proc/locks").read_text().splitlines():
            words = entry.split()
            if words[1] == "FLOCK" and words[5].endswith(inode):
                name = Path(f"/proc/{words[4]}/comm").read_text().strip()
                return f"process {words[4]} ({name})"
    except (OSError, IndexError):
        return None
    return None
