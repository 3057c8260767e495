"""Append to a JSONL file: all lines or none, durable on return.

The caller must hold the file's lock. A truncated write at the end of the file is moved to a side
file first; otherwise the first new line would become part of it.
"""

from __future__ import annotations

import codecs
import os
from collections.abc import Iterable
from itertools import chain
from pathlib import Path

from afterimage.storage.errors import StorageError
from afterimage.storage.jsonl.journal import quarantine, roll_back, saving
from afterimage.storage.jsonl.lines import is_compressed, is_object
from afterimage.storage.system.atomic_files import sync_folder, write_all
from afterimage.storage.system.interrupts import checkpoint

__all__ = ["append_lines"]


def append_lines(path: Path, blocks: Iterable[bytes], length: int, codec: str) -> None:
    """Append blocks of whole lines.

    Args:
        path: the file; it is created if it does not exist.
        blocks: at least one block. Every line ends with a line feed.
        length: total size of the blocks in bytes.
        codec: encoding of the file.

    Raises:
        StorageError: the file is compressed, or the write fails.
    """
    if is_compressed(path):
        raise StorageError(f"{path} is compressed, so it is read-only. Save to a .jsonl file.")
    try:
        created = not path.exists()
        # Unbuffered: a buffer could be flushed after an error has truncated the file.
        with path.open("ab", buffering=0) as file:
            roll_back(path)
            end = _quarantine_torn_tail(path, codec)
            blocks = iter(blocks)
            first = next(blocks)
            if end and _last_byte(path) != b"\n":
                first, length = b"\n" + first, length + 1
            with saving(path, file.fileno(), length, first):
                for block in chain([first], blocks):
                    checkpoint()
                    write_all(file, block)
    except OSError as error:
        raise StorageError(f"{path} cannot be written: {error.strerror}") from error
    if created:
        sync_folder(path.parent)


def _quarantine_torn_tail(path: Path, codec: str) -> int:
    """Move a torn last line to a side file, and return the size of the file after that."""
    with path.open("r+b") as file:
        size = file.seek(0, os.SEEK_END)
        start = size
        parts: list[bytes] = []  # from the end of the file to its beginning
        while start and not (parts and b"\n" in parts[-1]):
            step = min(start, 65536)
            start -= step
            file.seek(start)
            parts.append(file.read(step))
        tail = b"".join(reversed(parts)).rpartition(b"\n")[2]
        if not tail.strip() or is_object(tail.removeprefix(codecs.BOM_UTF8), codec):
            return size
    quarantine(path, size - len(tail), "a torn record, left by a truncated write")
    return size - len(tail)


def _last_byte(path: Path) -> bytes:
    with path.open("rb") as file:
        file.seek(-1, os.SEEK_END)
        return file.read(1)
