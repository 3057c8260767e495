r"""A save into a JSONL file that was killed: taken back whole, its bytes kept aside.

The system may keep part of a long append whose process is killed, and lines of it that are whole
look like records. So a save of several lines first leaves a mark, `<name>.saving`: where it begins,
how long it is and how it starts. The invariant: while the mark stands and the file holds less than
that, no reader sees a byte of the save. A mark that the file does not bear out, as after a power
cut that undid its removal or when others have edited the file, means nothing.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

__all__ = ["quarantine", "saving", "take_back", "visible_size"]

_HEAD_BYTES = 4096


@contextmanager
def saving(path: Path, handle: int, length: int, head: bytes) -> Iterator[None]:
    """Have what is appended inside stay whole, or not at all; call it under the file's lock.

    Args:
        path: the file.
        handle: its descriptor, open to append.
        length: how many bytes will be appended.
        head: the first of them, as many as are at hand.
    """
    mark = _mark(path)
    start = os.fstat(handle).st_size
    # A save of one line needs none: a part of it is no record, or is the record.
    marked = b"\n" in head[:-1] or len(head) < length
    if marked:
        with mark.open("wb") as file:
            file.write(b"%d %d\n" % (start, length) + head[:_HEAD_BYTES])
            file.flush()
            os.fsync(file.fileno())
    try:
        yield
        os.fsync(handle)
    except BaseException:
        os.ftruncate(handle, start)  # where that fails, the mark is left to say the same
        mark.unlink(missing_ok=True)
        raise
    if marked:
        mark.unlink()


def visible_size(path: Path) -> int:
    """How many bytes of the file are there to read: all but those of a save that was killed."""
    start = _unfinished(path)
    return path.stat().st_size if start is None else start


def take_back(path: Path) -> None:
    """Move what a killed save left of itself aside; call it under the file's lock."""
    start = _unfinished(path)
    if start is not None:
        quarantine(path, start, "a save that was killed")
    with suppress(FileNotFoundError):
        _mark(path).unlink()


def quarantine(path: Path, start: int, what: str) -> None:
    """Move a file's bytes from `start` on to `<name>.torn-<start>` beside it, and warn."""
    aside = path.with_name(f"{path.name}.torn-{start}")
    with path.open("r+b") as file:
        file.seek(start)
        tail = file.read()
        with aside.open("ab") as kept:
            kept.write(tail)
            kept.flush()
            os.fsync(kept.fileno())
        file.truncate(start)
        os.fsync(file.fileno())
    warnings.warn(
        f"{path} ended in {what}: {len(tail)} bytes, which are kept in {aside.name}", stacklevel=2
    )


def _mark(path: Path) -> Path:
    return path.with_name(f"{path.name}.saving")


def _unfinished(path: Path) -> int | None:
    """Where a save begins of which the file holds a part only."""
    try:
        words, _, head = _mark(path).read_bytes().partition(b"\n")
        start, length = map(int, words.split())
    except (FileNotFoundError, ValueError):  # none, or cut off before the save began
        return None
    with path.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        if not (head and 0 <= start < size < start + length):
            return None
        before = max(start - 1, 0)  # a save begins a line
        file.seek(before)
        found = file.read(start - before + len(head))
    begins_a_line = start == 0 or b"\n" in (found[:1], head[:1])
    return start if begins_a_line and head.startswith(found[start - before :]) else None
