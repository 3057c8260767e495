r"""Saves to a JSONL file that are killed: their bytes are hidden, then moved to a side file.

If a process is killed during a long append, a part of the append can stay in the file, and its
complete lines look like records. Other programs may append their own lines after it. So a save of
several lines keeps a journal, `<name>.saving`. It consists of two parts:

- the mark: the start of the save, its length, and its first bytes. It is synced before the save.
- the progress: the ranges of the file that the save has written so far, and a copy of the bytes
  that it writes next. It is not synced, because it survives the end of the process.

The invariant: while the journal exists and the save is incomplete, no reader sees a byte that the
save wrote, and every other byte of the file stays where it is.

After a power failure, the progress may be older than the file. Then the mark alone decides, as it
does for journals of versions without the progress: the save ends where the file ends. A journal
that does not match the file is ignored. This happens if a power failure undid the removal of the
journal, or if another program edited the file.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import IO, Final, NamedTuple

from afterimage.storage.jsonl.torn import blank, is_object
from afterimage.storage.system.atomic_files import write_all
from afterimage.storage.system.side_files import open_side_file, side_file

__all__ = ["Visible", "quarantine", "roll_back", "saving", "visible", "warning_of_killed_save"]

_HEAD_BYTES: Final = 4096
# The progress begins here in the journal, behind the longest mark.
_PROGRESS_AT: Final = 2 * _HEAD_BYTES
# Number of bytes that are written in one step, and so also copied into the journal. With smaller
# steps, large saves are slower.
_STEP_BYTES: Final = 2**20
# Number of bytes that are moved or erased in one step.
_COPY_BYTES: Final = 2**20

Range = tuple[int, int]
"""The first byte of a part of a file, and the end of the part."""


class Visible(NamedTuple):
    """What a reader may read of a file.

    Attributes:
        size: the number of bytes to read; None for all.
        hidden: ranges within these bytes that belong to a save that was killed.
        killed: the first byte of that save and its number of bytes in the file; None if no save
            was killed.
    """

    size: int | None
    hidden: list[Range]
    killed: tuple[int, int] | None = None


@contextmanager
def saving(
    path: Path, file: IO[bytes], length: int, head: bytes
) -> Iterator[Callable[[bytes], None]]:
    """Make an append atomic and durable; call it under the file's lock.

    Args:
        path: the file.
        file: the file, open for appending, unbuffered.
        length: number of bytes that will be appended.
        head: the first of these bytes, as many as are available.

    Yields:
        The function that appends bytes.
    """
    save = _Save(path, file)
    # A save of one line needs no journal: a part of it is not a record, or is the whole record.
    if b"\n" in head[:-1] or len(head) < length:
        save.begin_journal(path, length, head)
    try:
        yield save.append
        os.fsync(file.fileno())
    except BaseException:
        # If this fails, the journal stays and hides the save.
        _erase(path, file, save.written())
        save.end_journal()
        raise
    save.end_journal()


class _Save:
    """The ranges that a save has written, and its journal, if it has one."""

    def __init__(self, path: Path, file: IO[bytes]) -> None:
        self._file = file
        self._start = file.seek(0, os.SEEK_END)
        self._at = self._start  # where the step begins that is being written
        self._ranges: list[Range] = []
        self._path = side_file(path, ".saving")
        self._journal: IO[bytes] | None = None

    def begin_journal(self, path: Path, length: int, head: bytes) -> None:
        self._journal = open_side_file(self._path, path, "wb")
        try:
            mark = b"%d %d\n" % (self._start, length) + head[:_HEAD_BYTES]
            write_all(self._journal, mark)
            os.fsync(self._journal.fileno())
        except BaseException:
            self.end_journal()
            raise

    def append(self, data: bytes) -> None:
        if self._journal is None:
            write_all(self._file, data)
            return
        view = memoryview(data)  # its slices are no copies
        for at in range(0, len(data), _STEP_BYTES):
            step = view[at : at + _STEP_BYTES]
            self._at = self._file.seek(0, os.SEEK_END)
            ranges = b" ".join(b"%d %d" % each for each in self._ranges)
            progress = b"%s %d %d %s\n" % (_boot(), self._at, len(step), ranges)
            self._journal.seek(_PROGRESS_AT)
            write_all(self._journal, progress)
            write_all(self._journal, step)
            write_all(self._file, step)
            end = self._file.tell()  # of these bytes, whatever others have appended
            self._ranges = _joined([*self._ranges, (end - len(step), end)])
            self._at = end

    def written(self) -> list[Range]:
        """Return what is in the file, also after a write that has failed."""
        return _joined([*self._ranges, (self._at, max(self._at, self._file.tell()))])

    def end_journal(self) -> None:
        if self._journal is not None:
            self._journal.close()
            self._path.unlink(missing_ok=True)


def visible(path: Path) -> Visible:
    """Return what to read of a file: everything except a save that was killed."""
    ranges = _remnant(path)
    size = path.stat().st_size
    if not ranges:
        return Visible(size, [])
    killed = ranges[0][0], sum(end - start for start, end in ranges)
    if ranges[-1][1] == size:
        size = ranges.pop()[0]
    return Visible(size, ranges, killed)


def warning_of_killed_save(path: Path, seen: Visible) -> str:
    """Return the warning that a reader leaves out a save that was killed."""
    assert seen.killed is not None
    start, size = seen.killed
    return (
        f"{path} contains {size} bytes of a save that was killed. They are not read. The next save "
        f"moves them to {side_file(path, f'.torn-{start}').name}."
    )


def roll_back(path: Path, warn: Callable[[str], None]) -> None:
    """Move the bytes of a killed save to a side file; call it under the file's lock."""
    ranges = _remnant(path)
    if ranges:
        quarantine(path, ranges, "a save that was killed", warn)
    with suppress(FileNotFoundError):
        side_file(path, ".saving").unlink()


def quarantine(path: Path, ranges: list[Range], what: str, warn: Callable[[str], None]) -> None:
    """Move ranges of a file to the side file `<name>.torn-<start>`, and warn.

    Lines of other programs after a range stay where they are; the range then becomes blanks.
    """
    aside = side_file(path, f".torn-{ranges[0][0]}")
    size = 0
    with path.open("r+b", buffering=0) as file:
        with open_side_file(aside, path, "ab") as kept:
            for start, end in ranges:
                for at in range(start, end, _COPY_BYTES):
                    file.seek(at)
                    write_all(kept, data := file.read(min(_COPY_BYTES, end - at)))
                    size += len(data)
            os.fsync(kept.fileno())
        is_last = file.seek(0, os.SEEK_END) == ranges[-1][1]
        _erase(path, file, ranges)
        os.fsync(file.fileno())
    warn(
        f"{path} {'ended in' if is_last else 'contained'} {what}. "
        f"Its {size} bytes were moved to {aside.name}."
    )


def _erase(path: Path, file: IO[bytes], ranges: list[Range]) -> None:
    """Remove ranges at the end of a file, and make blanks of others.

    From the end to the beginning, so that the journal matches the rest if this process is killed.
    """
    for start, end in reversed(ranges):
        if os.fstat(file.fileno()).st_size <= end:
            os.ftruncate(file.fileno(), start)
            continue
        with path.open("r+b", buffering=0) as edited:  # `file` may only append
            for at in reversed(range(start, end, _COPY_BYTES)):
                edited.seek(at)
                data = edited.read(min(_COPY_BYTES, end - at))
                edited.seek(at)
                write_all(edited, blank(data))
            os.fsync(edited.fileno())


def _joined(ranges: list[Range]) -> list[Range]:
    """Return ranges without empty ones, each as long as possible."""
    joined: list[Range] = []
    for start, end in ranges:
        if joined and joined[-1][1] == start:
            joined[-1] = joined[-1][0], end
        elif start < end:
            joined.append((start, end))
    return joined


def _remnant(path: Path) -> list[Range]:
    """Return what a save that was killed has written into a file; [] if there is none."""
    try:
        journal = side_file(path, ".saving").read_bytes()
        words, _, head = journal[:_PROGRESS_AT].rstrip(b"\0").partition(b"\n")
        start, length = map(int, words.split())
    except (FileNotFoundError, ValueError):  # no journal, or truncated before the save began
        return []
    with path.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        ranges = _written(file, journal[_PROGRESS_AT:])
        if ranges is None:
            ranges = [(start, size)] if 0 <= start < size < start + length else []
        elif sum(end - first for first, end in ranges) == length:  # complete
            return []
        if not (ranges and head and ranges[-1][1] <= size):
            return []
        start, end = ranges[0]
        before = max(start - 1, 0)  # a save begins at the start of a line
        file.seek(before)
        data = file.read(start - before + min(len(head), end - start))
    begins_a_line = start == 0 or b"\n" in (data[:1], head[:1])
    return ranges if begins_a_line and head.startswith(data[start - before :]) else []


def _written(file: IO[bytes], progress: bytes) -> list[Range] | None:
    """Return the ranges that a save has written, by its progress; None if that cannot tell."""
    words, _, step = progress.partition(b"\n")
    boot, *numbers = words.split() or [b""]
    try:
        at, length, *bounds = map(int, numbers)
    except ValueError:
        return None
    if boot != _boot() or len(step) < length:
        return None
    ranges = list(zip(bounds[::2], bounds[1::2], strict=True))
    return _joined([*ranges, (at, at + _own_bytes(file, at, step[:length]))])


def _own_bytes(file: IO[bytes], at: int, step: bytes) -> int:
    """Return how many bytes of a step are in a file; lines of other programs may follow."""
    file.seek(at)
    found = file.read(len(step))
    same = _length_of_same(found, step)
    if same == len(found) or found[same] == ord("\n"):
        return same
    # Lines of another program may begin as the save would have gone on.
    start = found.rfind(b"\n", 0, same) + 1
    file.seek(at + start)
    line = file.readline()
    brackets = (at for at in range(same - start + 1) if line[at : at + 1] == b"{")
    begin = next((at for at in brackets if is_object(line[at:], "latin-1")), same - start)
    return start + begin


def _length_of_same(one: bytes, other: bytes) -> int:
    """Return how many of the first bytes are the same."""
    low, high = 0, min(len(one), len(other))
    while low < high:
        middle = (low + high + 1) // 2
        if one[:middle] == other[:middle]:
            low = middle
        else:
            high = middle - 1
    return low


@cache
def _boot() -> bytes:
    """Return an id of the time since the system was started; "-" if the system has none."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_bytes().strip() or b"-"
    except OSError:
        return b"-"
