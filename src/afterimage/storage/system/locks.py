"""The turn that a process takes at a database file, and who holds a lock file.

DuckDB 2.0 reads where the newest state of a file begins before it locks the file, and not again
after: whoever opens it while another closes it can have an older state, and write over what that
other one has saved. So our processes lock `<name>.lock` for as long as they have the file open, and
look whether anybody else, as the DuckDB command line, wrote it while they opened it.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Final

from filelock import BaseFileLock, FileLock, Timeout

from afterimage.storage.system.interrupts import checkpoint

__all__ = ["Turn", "acquire_file", "lock_holder", "lock_path", "state_of"]


_POLL_SECONDS: Final = (0.005, 0.05)


class Turn:
    """A process's turn at a file, shared by its threads; to be called by one of them at a time."""

    def __init__(self, path: Path) -> None:
        self._lock = FileLock(lock_path(path), timeout=0, thread_local=False)
        self._sharers = 0

    @property
    def is_taken(self) -> bool:
        """Whether it is this process's turn."""
        return self._sharers > 0

    def take(self) -> bool:
        """Take the turn, or share it; False where another process has it."""
        if not self._sharers:
            try:
                self._lock.acquire(blocking=False)
            except Timeout:
                return False
            except OSError:  # a folder that may not be written: DuckDB's own lock must do
                pass
        self._sharers += 1
        return True

    def give_back(self) -> None:
        """End what `take` began."""
        self._sharers -= 1
        if not self._sharers:
            self._lock.release()


def acquire_file(lock: BaseFileLock, seconds: float) -> bool:
    """Acquire a file's lock; False where others hold it for so long. A signal may end the wait.

    Args:
        lock: the lock.
        seconds: how long to wait; without end if negative.
    """
    end = time.monotonic() + seconds
    pause, longest = _POLL_SECONDS
    while True:
        try:
            lock.acquire(blocking=False)
        except Timeout:
            checkpoint()
            if seconds >= 0 and time.monotonic() >= end:
                return False
            time.sleep(pause)
            pause = min(2 * pause, longest)
        else:
            return True


def lock_path(path: Path) -> Path:
    """The lock file of a file: beside it, with `.lock` after its name."""
    return path.with_name(f"{path.name}.lock")


def state_of(path: Path) -> tuple[int, int, int]:
    """What is another after a write to the file. It is not opened: to close it would unlock it."""
    found = path.stat()
    return found.st_ino, found.st_size, found.st_mtime_ns


def lock_holder(lock: Path) -> str | None:
    """The process that holds a lock file, where the system tells (Linux does)."""
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
