"""Appends to a JSONL file: durable on return, and whole or not at all.

Call all of this under the file's lock. What a truncated write left at the end of the file is moved
to a side file first, so that the new lines do not become part of it.
"""

from __future__ import annotations

import codecs
import os
from collections.abc import Iterable
from itertools import chain
from pathlib import Path
from typing import IO

from afterimage.storage.errors import StorageError
from afterimage.storage.jsonl.journal import quarantine, saving, take_back
from afterimage.storage.jsonl.lines import is_compressed, is_object
from afterimage.storage.system.atomic_files import sync_folder

__all__ = ["append_lines"]


def append_lines(path: Path, blocks: Iterable[bytes], length: int, codec: str) -> None:
    """Append blocks of whole lines.

    Args:
        path: the file; it is created where it is missing.
        blocks: at least one, each with the line feeds of its lines.
        length: bytes of all blocks together.
        codec: encoding of the file.

    Raises:
        StorageError: the file is compressed, or the system refuses the write.
    """
    if is_compressed(path):
        raise StorageError(f"{path} is compressed and can only be read. Save to a .jsonl file.")
    try:
        created = not path.exists()
        # Unbuffered: a buffer could be written out after the file was truncated back.
        with path.open("ab", buffering=0) as file:
            take_back(path)
            end = _quarantine_torn_tail(path, codec)
            blocks = iter(blocks)
            first = next(blocks)
            if end and _last_byte(path) != b"\n":
                first, length = b"\n" + first, length + 1
            with saving(path, file.fileno(), length, first):
                for block in chain([first], blocks):
                    _write_all(file, block)
    except OSError as error:
        raise StorageError(f"{path} cannot be written: {error.strerror}") from error
    if created:
        sync_folder(path.parent)


def _write_all(file: IO[bytes], block: bytes) -> None:
    """Write a whole block: the system may accept less of it at a time."""
    left = memoryview(block)
    while left:
        left = left[file.write(left) :]


def _quarantine_torn_tail(path: Path, codec: str) -> int:
    """Move a torn last line to a side file; returns where the file ends now."""
    with path.open("r+b") as file:
        size = file.seek(0, os.SEEK_END)
        start, tail = size, b""
        while start and b"\n" not in tail:
            step = min(start, 65536)
            start -= step
            file.seek(start)
            tail = file.read(step) + tail
        tail = tail.rpartition(b"\n")[2]
        if not tail.strip() or is_object(tail.removeprefix(codecs.BOM_UTF8), codec):
            return size
    quarantine(path, size - len(tail), "a torn record, which a truncated write left there")
    return size - len(tail)


def _last_byte(path: Path) -> bytes:
    with path.open("rb") as file:
        file.seek(-1, os.SEEK_END)
        return file.read(1)
