r"""Roll back a save to a JSONL file whose process was killed; its bytes move to a side file.

If a process is killed during a long append, a part of the append can stay in the file, and its
complete lines look like records. A save of several lines therefore first writes a journal,
`<name>.saving`, with its start position, its length and its first bytes. The invariant: while the
journal exists and the file ends before the end of the save, no reader sees a byte of the save. A
journal that does not match the file is ignored. This happens if a power failure undid the removal
of the journal, or if another program edited the file.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from afterimage.storage.system.side_files import side_file

__all__ = ["quarantine", "roll_back", "saving", "visible_size"]

_HEAD_BYTES = 4096


@contextmanager
def saving(path: Path, handle: int, length: int, head: bytes) -> Iterator[None]:
    """Make the append inside the block atomic and durable; call it under the file's lock.

    Args:
        path: the file.
        handle: file descriptor of the file, open for appending.
        length: number of bytes that will be appended.
        head: the first of these bytes, as many as are available.
    """
    journal = _journal(path)
    start = os.fstat(handle).st_size
    # A save of one line needs no journal: a part of it is not a record, or is the whole record.
    has_journal = b"\n" in head[:-1] or len(head) < length
    if has_journal:
        with journal.open("wb") as file:
            file.write(b"%d %d\n" % (start, length) + head[:_HEAD_BYTES])
            file.flush()
            os.fsync(file.fileno())
    try:
        yield
        os.fsync(handle)
    except BaseException:
        os.ftruncate(handle, start)  # if this fails, the journal stays and hides the save
        journal.unlink(missing_ok=True)
        raise
    if has_journal:
        journal.unlink()


def visible_size(path: Path) -> int:
    """Return the number of bytes to read: the size of the file without a save that was killed."""
    start = _unfinished(path)
    return path.stat().st_size if start is None else start


def roll_back(path: Path) -> None:
    """Move the bytes of a killed save to a side file; call it under the file's lock."""
    start = _unfinished(path)
    if start is not None:
        quarantine(path, start, "a save that was killed")
    with suppress(FileNotFoundError):
        _journal(path).unlink()


def quarantine(path: Path, start: int, what: str) -> None:
    """Move a file's bytes from `start` to the side file `<name>.torn-<start>`, and warn."""
    aside = side_file(path, f".torn-{start}")
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
        f"{path} ended in {what}. Its {len(tail)} bytes were moved to {aside.name}.",
        stacklevel=2,
    )


def _journal(path: Path) -> Path:
    return side_file(path, ".saving")


def _unfinished(path: Path) -> int | None:
    """Return the start position of an incomplete save; None if there is none."""
    try:
        words, _, head = _journal(path).read_bytes().partition(b"\n")
        start, length = map(int, words.split())
    except (FileNotFoundError, ValueError):  # no journal, or truncated before the save began
        return None
    with path.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        if not (head and 0 <= start < size < start + length):
            return None
        before = max(start - 1, 0)  # a save begins at the start of a line
        file.seek(before)
        data = file.read(start - before + len(head))
    begins_a_line = start == 0 or b"\n" in (data[:1], head[:1])
    return start if begins_a_line and head.startswith(data[start - before :]) else None
