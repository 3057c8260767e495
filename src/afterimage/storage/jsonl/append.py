"""Append to a JSONL file: all lines or none, durable on return.

The caller must hold the file's lock. A truncated write at the end of the file is moved to a side
file first; otherwise the first new line would become part of it.
"""

from __future__ import annotations

import codecs
import os
from collections.abc import Callable, Iterable
from itertools import chain
from pathlib import Path
from typing import IO, Final

from afterimage.storage.errors import StorageError
from afterimage.storage.jsonl.journal import quarantine, roll_back, saving
from afterimage.storage.jsonl.lines import is_compressed
from afterimage.storage.jsonl.torn import is_object, is_torn
from afterimage.storage.system.atomic_files import sync_folder
from afterimage.storage.system.interrupts import checkpoint
from afterimage.storage.system.side_files import hard_link_error, has_hard_links, side_file
from afterimage.storage.system.targets import refuse_side_file

__all__ = ["append_lines"]

# Bytes at the start of a file that a save looks at: the file may not be JSON lines.
_HEAD_BYTES: Final = 1024


def append_lines(
    path: Path, blocks: Iterable[bytes], length: int, codec: str, warn: Callable[[str], None]
) -> None:
    """Append blocks of whole lines.

    Args:
        path: the file; it is created if it does not exist.
        blocks: at least one block. Every line ends with a line feed.
        length: total size of the blocks in bytes.
        codec: encoding of the file.
        warn: called with a warning about bytes that were moved to a side file. It must not raise.

    Raises:
        InvalidQueryError: the file is a side file of another one.
        StorageError: the file is compressed, has hard links or is not JSON lines, or the write
            fails.
    """
    if is_compressed(path):
        raise StorageError(f"{path} is compressed, so it is read-only. Save to a .jsonl file.")
    try:
        refuse_side_file(path)
        created = not path.exists()
        # Unbuffered: a buffer could be flushed after an error has truncated the file.
        with path.open("ab", buffering=0) as file:
            if has_hard_links(file.fileno()):
                raise hard_link_error(path)
            roll_back(path, warn)
            end = _quarantine_torn_tail(path, codec, warn)
            blocks = iter(blocks)
            first = next(blocks)
            if end and _last_byte(path) != b"\n":
                first, length = b"\n" + first, length + 1
            with saving(path, file, length, first) as append:
                for block in chain([first], blocks):
                    checkpoint()
                    append(block)
        if created:
            sync_folder(side_file(path, "").parent)
    except StorageError:
        raise
    except OSError as error:
        raise StorageError(f"{path} cannot be written: {error.strerror}") from error


def _quarantine_torn_tail(path: Path, codec: str, warn: Callable[[str], None]) -> int:
    """Move a torn last line to a side file, and return the size of the file after that.

    Raises:
        StorageError: the file does not consist of JSON lines.
    """
    with path.open("r+b") as file:
        head = file.read(_HEAD_BYTES).removeprefix(codecs.BOM_UTF8)
        size = file.seek(0, os.SEEK_END)
        tail = _line_before(file, size)
        start = size - len(tail)
        text = tail if start else tail.removeprefix(codecs.BOM_UTF8)
        is_whole = not text.strip() or is_object(text, codec)
        if not is_whole and not is_torn(text, codec):
            raise _not_lines(path, "last")
        # A file whose first line is damaged is JSON lines if another line is an object.
        if start and not _begins_with_an_object(head):
            last = text if text.strip() and is_whole else _line_before(file, start - 1)
            if not is_object(last, codec):
                raise _not_lines(path, "first")
    if is_whole:
        return size
    quarantine(path, [(start, size)], "a torn record, left by a truncated write", warn)
    return start


def _line_before(file: IO[bytes], end: int) -> bytes:
    """Return the bytes from the last line feed before a position up to the position."""
    start, parts = end, list[bytes]()
    while start:
        step = min(start, 65536)
        start -= step
        file.seek(start)
        _, feed, after = file.read(step).rpartition(b"\n")
        parts.append(after)
        if feed:
            break
    return b"".join(reversed(parts))


def _begins_with_an_object(head: bytes) -> bool:
    """Return whether the first line looks like an object, without parsing it. Blanks may precede.

    Args:
        head: the first bytes of the file.
    """
    line, ended, _ = head.lstrip().partition(b"\n")
    if not line:
        return not head.strip(b"\0 \t\r\n")
    second = line[1:].lstrip()[:1]
    return line[:1] == b"{" and second in (b'"', b"}") and (not ended or line.rstrip()[-1:] == b"}")


def _not_lines(path: Path, which: str) -> StorageError:
    return StorageError(
        f"{path} is not a file of JSON lines: its {which} line is not a JSON object. Save to "
        "another file, or fix this one. Nothing was changed."
    )


def _last_byte(path: Path) -> bytes:
    with path.open("rb") as file:
        file.seek(-1, os.SEEK_END)
        return file.read(1)
