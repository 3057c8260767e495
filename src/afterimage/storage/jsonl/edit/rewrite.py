r"""Write a JSONL file again without some lines, or with other ones.

The new file is written beside the old one and then renamed, so that a reader has either of them,
and a process that is killed leaves the old one. The caller holds the lock of the file. A program
that appends to the file without the lock is noticed, and the old file stays.
"""

from __future__ import annotations

import codecs
import json
from bisect import bisect_left
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, suppress
from itertools import accumulate
from pathlib import Path
from typing import Any

from pydantic_core import from_json, to_json

from afterimage.storage.errors import InvalidRecordError, StorageError
from afterimage.storage.jsonl.journal import roll_back
from afterimage.storage.jsonl.lines import Chunk, Line, is_compressed, parse_exact, read_chunks
from afterimage.storage.jsonl.sources import LineSource
from afterimage.storage.records.document_ids import ID_FIRST
from afterimage.storage.records.metadata_changes import MetadataChange, metadata_text
from afterimage.storage.system.atomic_files import replaced, temporary_paths, write_all
from afterimage.storage.system.gc_pause import paused_collector
from afterimage.storage.system.interrupts import checkpoint
from afterimage.storage.system.package import log
from afterimage.storage.system.side_files import hard_link_error, has_hard_links
from afterimage.storage.system.targets import real_target, refuse_side_file

__all__ = ["Edit", "remove_all_left", "removed", "rewrite_lines", "with_metadata"]

_SUFFIX = "editing"

Edit = Callable[[Chunk, Sequence[Line]], Sequence[bytes | None]]
"""Returns the new text of each line, in the encoding of the file; None to remove the line."""


def rewrite_lines(
    path: Path,
    positions: Callable[[], Sequence[int]],
    edit: Edit,
    warn: Callable[[str], None],
    *,
    codec: str,
    max_line_bytes: int,
    of_documents: bool,
) -> int:
    """Write a file again with edited lines; call it under the lock of the file.

    Args:
        path: the file; if it does not exist, nothing happens.
        positions: returns the lines to edit, ascending: numbers from 0 of the lines that are not
            blank. If there are none, nothing is written.
        edit: returns the new lines.
        warn: called with a warning about bytes that were moved to a side file.
        codec: encoding of the file.
        max_line_bytes: maximum length of a line.
        of_documents: whether the lines are documents. One without an id keeps the id that reads
            give it, which depends on the number of its line: it gets that id in the file.

    Returns:
        The number of edited lines.

    Raises:
        CorruptRecordError: a line that is edited is not a record.
        InvalidRecordError: a new line is too long.
        InvalidQueryError: the file is a side file of another one.
        StorageError: the file is compressed or has hard links, another program changed it
            meanwhile, or the disk is full.
    """
    try:
        if not path.exists():
            return 0
        _check_editable(path)
        roll_back(path, warn)
        chosen = positions()
        if not chosen:
            return 0
        _remove_left(path)
        before = path.stat()
        with replaced(path, _SUFFIX) as fresh:
            with fresh.open("r+b", buffering=0) as file:
                if _begins_with_bom(path):
                    file.write(codecs.BOM_UTF8)
                chunks = read_chunks(
                    LineSource(path, before.st_size),
                    codec,
                    max_line_bytes=max_line_bytes,
                    of_documents=of_documents,
                )
                for block in _edited(chunks, chosen, edit, max_line_bytes):
                    checkpoint()
                    write_all(file, block)
            after = path.stat()
            if (after.st_size, after.st_mtime_ns) != (before.st_size, before.st_mtime_ns):
                raise StorageError(
                    f"{path} was changed by another program while it was edited. Nothing was "
                    "changed. Try again."
                )
    except OSError as error:
        if isinstance(error, StorageError):
            raise
        raise StorageError(f"{path} cannot be edited: {error.strerror or error}") from error
    return len(chosen)


def remove_all_left(
    paths: Sequence[Path], locked: Callable[[Path], AbstractContextManager[None]]
) -> None:
    """Remove what killed edits left beside files.

    Args:
        paths: the files.
        locked: holds the lock of a file.
    """
    for path in paths:
        if path.exists() and not is_compressed(path):
            with locked(path):
                _remove_left(path)


def _remove_left(path: Path) -> None:
    for left in temporary_paths(real_target(path), _SUFFIX):
        with suppress(OSError):
            left.unlink()
            log.info("removed %s, left by an edit that was killed", left)


def _check_editable(path: Path) -> None:
    """Refuse a file that cannot be written again.

    Raises:
        InvalidQueryError: the file is a side file of another one.
        StorageError: the file is compressed, or has hard links.
    """
    if is_compressed(path):
        raise StorageError(f"{path} is compressed, so it is read-only. Edit a .jsonl file.")
    refuse_side_file(path)
    with path.open("rb") as file:
        if has_hard_links(file.fileno()):
            raise hard_link_error(path)


def _begins_with_bom(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(3) == codecs.BOM_UTF8


def _edited(
    chunks: Iterator[Chunk], positions: Sequence[int], edit: Edit, limit: int
) -> Iterator[bytes]:
    """Yield the bytes of the new file."""
    start = done = 0
    for chunk in chunks:
        with paused_collector():
            present = [at for at, text in enumerate(chunk.lines) if text and not text.isspace()]
            end = bisect_left(positions, start + len(present), done)
            chosen = [present[position - start] for position in positions[done:end]]
            lines = _edited_lines(chunk, present, chosen, edit, limit)
        kept = [text for text in lines if text is not None]
        if kept and chunk.ended:
            kept.append(b"")
        yield b"\n".join(kept)
        start, done = start + len(present), end


def _edited_lines(
    chunk: Chunk, present: Sequence[int], chosen: Sequence[int], edit: Edit, limit: int
) -> list[bytes | None]:
    """Return the new lines of a chunk; None for one that is removed.

    Args:
        chunk: the chunk.
        present: the indexes of the lines that are not blank, ascending.
        chosen: those of the lines to edit, ascending.
        edit: see `rewrite_lines`.
        limit: maximum length of a line.
    """
    texts = chunk.lines
    lines: list[bytes | None] = [*texts]
    if chunk.of_documents:
        for at in present:
            if not texts[at].startswith(ID_FIRST):
                lines[at] = _with_own_id(chunk, Line(chunk.number + at, chunk.offset, texts[at]))
    if not chosen:
        return lines
    offsets = [*accumulate((len(text) + 1 for text in texts), initial=chunk.offset)]
    edited = [Line(chunk.number + at, offsets[at], texts[at]) for at in chosen]
    for line, text in zip(edited, edit(chunk, edited), strict=True):
        if text is not None and len(text) > limit:
            raise InvalidRecordError(
                f"line {line.number} of {chunk.path} would take {len(text):,} bytes, more "
                f"than {limit:,}, the limit that max_line_bytes sets. Nothing was changed."
            )
        lines[line.number - chunk.number] = text
    return lines


def _with_own_id(chunk: Chunk, line: Line) -> bytes:
    text = chunk.read(line).text
    return _encoded(text, chunk) if text != line.text else text


def _encoded(text: bytes, chunk: Chunk) -> bytes:
    """Return UTF-8 text in the encoding of a file, as saves do: as ASCII, which all can write."""
    if chunk.encoding == "utf-8":
        return text
    return json.dumps(from_json(text)).encode(chunk.encoding)


def with_metadata(change: MetadataChange) -> Edit:
    """Return the edit that changes the metadata of lines."""

    def edit(chunk: Chunk, lines: Sequence[Line]) -> list[bytes]:
        read = [chunk.read(line) for line in lines]
        records = [parse_exact(chunk, line) for line in read]
        old = [_metadata_of(chunk, *each) for each in zip(read, records, strict=True)]
        texts = [metadata_text(metadata) for metadata in old]
        new = change(old)
        edited = []
        for line, record, before, metadata in zip(read, records, texts, new, strict=True):
            record["metadata"] = metadata
            edited.append(_encoded(_line_with(line.text, record, before), chunk))
        return edited

    return edit


def _metadata_of(chunk: Chunk, line: Line, record: dict[str, Any]) -> dict[str, Any]:
    metadata = record.setdefault("metadata", {})
    if not isinstance(metadata, dict):
        raise chunk.corrupt(line, f"metadata is not an object but {type(metadata).__name__}")
    return metadata


def _line_with(text: bytes, record: dict[str, Any], before: bytes) -> bytes:
    """Return a line with the new metadata of `record`; all else keeps its bytes if possible.

    Args:
        text: the line.
        record: the new record.
        before: the old metadata, as saves write it.
    """
    new = metadata_text(record["metadata"])
    for colon in (b":", b": "):
        old = b'"metadata"' + colon + before
        if text.count(old) == 1:
            spliced = text.replace(old, b'"metadata"' + colon + new)
            if from_json(spliced) == record:
                return spliced
    line = to_json(record, inf_nan_mode="constants")
    return line + b"\r" if text.endswith(b"\r") else line


def removed(chunk: Chunk, lines: Sequence[Line]) -> list[None]:
    """Remove lines; this is an `Edit`."""
    del chunk
    return [None] * len(lines)
