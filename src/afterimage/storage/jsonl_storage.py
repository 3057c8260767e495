r"""`JSONLStorage`: conversations and documents as lines of JSON, the interchange format.

The invariants: a line is a record; a save is one append under a lock, of lines that are all
serialised before; whoever reads sees whole saves, as it reads up to where the file ended when no
one was writing. Lines are split on `\\n` bytes and on nothing else.
"""

from __future__ import annotations

import codecs
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from itertools import chain
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from filelock import FileLock, Timeout
from pydantic import BaseModel, ValidationError
from pydantic_core import from_json

from afterimage.storage.atomic_files import sync_folder
from afterimage.storage.collector import paused_collector
from afterimage.storage.errors import (
    CorruptRecordError,
    DatabaseError,
    InvalidQueryError,
    InvalidRecordError,
    LockTimeoutError,
    MissingFileError,
    StorageError,
    shorten,
)
from afterimage.storage.fields import CONVERSATIONS, DOCUMENTS, RecordTable
from afterimage.storage.lines import Chunk, is_compressed, parse, read_chunks
from afterimage.storage.models import Document
from afterimage.storage.query import Query
from afterimage.storage.record_storage import Kind, RecordStorage
from afterimage.storage.records import (
    as_declared,
    is_conversation,
    model_of,
    readable,
    reason,
    to_line,
    to_object,
)
from afterimage.storage.turns import lock_holder
from afterimage.storage.unfinished import saving, set_aside, take_back, visible_size

if TYPE_CHECKING:  # light to import: Arrow and DuckDB are loaded by the calls that need them
    import pyarrow as pa

__all__ = ["JSONLStorage"]


class JSONLStorage(RecordStorage):
    r"""Conversations in one JSONL file, documents in another.

    Files are those of the published `afterimage` package, both ways. When a path is omitted, the
    name is `{conversations|documents}_{timestamp}.jsonl` in the working directory, or in the
    folder that the environment variable AFTERIMAGE_JSONL_DIR names, which is created if missing.
    A path that ends in `.gz` or `.zst` is read, but not written.

    Args:
        conversations_path: file of the conversations, and of other models' records.
        documents_path: file of the documents.
        encoding: of the files; any that has ASCII as it is.
        lock_timeout: seconds to wait for the lock of a file, `<name>.lock` beside it.

    Raises:
        InvalidQueryError: the encoding is unknown, or has ASCII otherwise, as UTF-16 does.

    >>> import tempfile
    >>> from afterimage.storage import Conversation
    >>> folder = Path(tempfile.mkdtemp())
    >>> store = JSONLStorage(folder / "talks.jsonl", folder / "texts.jsonl")
    >>> store.save_conversations([Conversation(conversations=[], metadata={"n": 1})])
    >>> (folder / "talks.jsonl").read_text()
    '{"conversations":[],"metadata":{"n":1}}\n'
    """

    def __init__(
        self,
        conversations_path: str | Path | None = None,
        documents_path: str | Path | None = None,
        encoding: str = "utf-8",
        lock_timeout: int = 30,
    ) -> None:
        self.encoding = encoding
        self.lock_timeout = lock_timeout
        self._codec = _codec(encoding)
        self.conversations_path = _path(conversations_path, "conversations")
        self.documents_path = _path(documents_path, "documents")
        if self.conversations_path == self.documents_path:
            raise InvalidQueryError(
                f"{self.conversations_path} cannot hold both conversations and documents; "
                "give two paths"
            )
        self.conversations_lock_path = _lock_path(self.conversations_path)
        self.documents_lock_path = _lock_path(self.documents_path)

    def __repr__(self) -> str:
        return f"JSONLStorage({str(self.conversations_path)!r}, {str(self.documents_path)!r})"

    # -- writing ------------------------------------------------------------------------------

    def _save(self, table: RecordTable, records: Sequence[BaseModel]) -> None:
        lines = []
        for at, record in enumerate(records):
            try:
                if table is DOCUMENTS and type(record) is not Document:
                    as_declared(DOCUMENTS, to_object(record))
                lines.append(to_line(record, self._codec))
            except InvalidRecordError as error:
                raise InvalidRecordError(f"record {at} of the batch: {error}") from None
        if lines:
            path = self._path(table)
            with self._locked(path):
                block = b"\n".join(lines) + b"\n"
                _append(path, [block], len(block), self._codec)

    def _import(self, table: RecordTable, path: Path) -> int:
        """Two passes, so that memory stays bounded: all lines are read before the first is kept."""
        target = self._path(table)
        if target.exists() and path.exists() and target.samefile(path):
            raise InvalidQueryError(f"{path} is this storage's own file. Import another one.")
        found = size = 0
        for chunk in read_chunks(path):
            texts = _checked(table, chunk)
            found += len(texts)
            size += sum(len(text.rstrip()) + 1 for text in texts)

        def copied() -> Iterator[bytes]:
            for chunk in read_chunks(path):
                yield b"".join(text.rstrip() + b"\n" for text in _checked(table, chunk))

        if found:
            with self._locked(target):
                _append(target, copied(), size, self._codec)
        return found

    # -- reading ------------------------------------------------------------------------------

    def _count(self, kind: Kind, query: Query) -> int:
        from afterimage.storage.line_query import count_lines  # noqa: PLC0415  heavy: DuckDB and Arrow

        path = self._path_of(kind)
        with _located(kind, self._chunks(path)):
            return count_lines(kind, self._chunks(path), query)

    def _objects(self, kind: Kind, query: Query) -> Iterator[list[dict[str, Any]]]:
        for lines in self._lines(kind, query):
            yield [from_json(line) for line in lines]

    def _models(self, table: RecordTable, query: Query, batch_size: int) -> Iterator[list[Any]]:
        path = self._path(table)
        if query.where or query.order or query.offset:
            validate = model_of(table).__pydantic_validator__.validate_json
            for lines in self._lines(table.kind, query):
                for at in range(0, len(lines), batch_size):
                    some = lines[at : at + batch_size]
                    try:
                        with paused_collector():
                            found = [validate(line) for line in some]
                    except ValidationError as error:
                        raise _find(table.kind, self._chunks(path), error) from None
                    yield found
            return
        left = query.limit
        for chunk in self._chunks(path):
            # Models are built a batch at a time, so that a limit builds no more than it gives.
            for at in range(0, len(chunk.lines), batch_size):
                if left is not None and left <= 0:
                    return
                with paused_collector():
                    found = _models_of(table, chunk, at, batch_size, left)
                if found:
                    yield found
                left = None if left is None else left - len(found)

    def _batches(self, table: RecordTable, query: Query) -> Iterator[pa.RecordBatch]:
        from afterimage.storage.line_scan import scan_lines  # noqa: PLC0415  heavy: DuckDB and Arrow

        path = self._path(table)
        with _located(table.kind, self._chunks(path)):
            yield from scan_lines(table, self._chunks(path), query)

    def _lines(self, kind: str, query: Query) -> Iterator[list[bytes]]:
        """Matching lines, in the order of the query."""
        from afterimage.storage.line_query import select_lines  # noqa: PLC0415  heavy: DuckDB and Arrow

        path = self._path_of(kind)
        with _located(kind, self._chunks(path)):
            for batch in select_lines(kind, self._chunks(path), query, whole=True):
                yield [text.encode() for text in batch.column(0).to_pylist()]

    def _chunks(self, path: Path) -> Iterator[Chunk]:
        """The file as it is between two saves; nothing where there is none yet."""
        try:
            _require_folder(path)
            if not path.exists():
                return
            size = None
            if not is_compressed(path):
                with self._locked(path, reading=True):
                    size = visible_size(path)
        except StorageError:
            raise
        except OSError as error:
            raise StorageError(f"{path} cannot be read: {error.strerror}") from error
        yield from read_chunks(path, self._codec, size)

    # -- files --------------------------------------------------------------------------------

    def _own_files(self) -> list[Path]:
        return [self.conversations_path, self.documents_path]

    def _path(self, table: RecordTable) -> Path:
        return self.conversations_path if table is CONVERSATIONS else self.documents_path

    def _path_of(self, kind: str) -> Path:
        return self._path(_table(kind))

    @contextmanager
    def _locked(self, path: Path, *, reading: bool = False) -> Iterator[None]:
        """Hold the lock of a file: a save while it appends, a read only to see where it ends."""
        _require_folder(path)
        lock = FileLock(_lock_path(path), timeout=self.lock_timeout)
        try:
            lock.acquire()
        except Timeout:
            holder = lock_holder(_lock_path(path))
            raise LockTimeoutError.of(path, self.lock_timeout, holder) from None
        except OSError as error:
            if not reading:
                raise StorageError(f"{path} cannot be locked: {error.strerror}") from error
            yield  # a folder that may not be written: nobody appends there
            return
        try:
            yield
        finally:
            lock.release()


def _path(path: str | Path | None, prefix: str) -> Path:
    if path:
        return Path(path).absolute()
    name = f"{prefix}_{datetime.now().astimezone().strftime('%Y%m%d_%H%M%S')}.jsonl"
    folder = os.environ.get("AFTERIMAGE_JSONL_DIR")
    if not folder:
        return Path(name).absolute()
    Path(folder).mkdir(parents=True, exist_ok=True)
    return Path(folder).absolute() / name


def _require_folder(path: Path) -> None:
    try:
        found = path.parent.is_dir()
    except OSError as error:
        raise StorageError(f"{path} cannot be reached: {error.strerror}") from error
    if not found:
        raise MissingFileError(f"{path}: the folder {path.parent} does not exist. Create it.")


def _lock_path(path: Path) -> Path:
    return path.with_suffix(path.suffix + ".lock")


def _codec(encoding: str) -> str:
    """The canonical name of an encoding that leaves ASCII, and so the line feed, as it is."""
    try:
        found = codecs.lookup(encoding).name
        if "\n{}".encode(found) != b"\n{}" and found != "utf-8-sig":
            raise InvalidQueryError(
                f"encoding {encoding!r} writes line feeds otherwise than ASCII; use 'utf-8'"
            )
    except (LookupError, TypeError):
        raise InvalidQueryError(f"unknown encoding {encoding!r}; use 'utf-8'") from None
    return "utf-8" if found in ("ascii", "utf-8-sig") else found


def _table(kind: str) -> RecordTable:
    return DOCUMENTS if kind == "documents" else CONVERSATIONS


def _append(path: Path, blocks: Iterable[bytes], length: int, codec: str) -> None:
    """Append blocks of lines, `length` bytes, durably and all of them; call it under the lock."""
    if is_compressed(path):
        raise StorageError(f"{path} is packed and can only be read. Save to a .jsonl file.")
    try:
        created = not path.exists()
        # Unbuffered: what a buffer still holds would be written again while taking a save back.
        with path.open("ab", buffering=0) as file:
            take_back(path)
            end = _mend_tail(path, codec)
            blocks = iter(blocks)
            first = next(blocks)
            if end and _last_byte(path) != b"\n":
                first, length = b"\n" + first, length + 1
            with saving(path, file.fileno(), length, first):
                for block in chain([first], blocks):
                    _write(file, block)
    except OSError as error:
        raise StorageError(f"{path} cannot be written: {error.strerror}") from error
    if created:
        sync_folder(path.parent)


def _write(file: IO[bytes], block: bytes) -> None:
    """All of a block: the system may take less of it at a time."""
    left = memoryview(block)
    while left:
        left = left[file.write(left) :]


def _mend_tail(path: Path, codec: str) -> int:
    """Put a torn last line aside, so that what is appended does not become part of it.

    Returns:
        Where the file ends now.
    """
    with path.open("r+b") as file:
        size = file.seek(0, os.SEEK_END)
        start, tail = size, b""
        while start and b"\n" not in tail:
            step = min(start, 65536)
            start -= step
            file.seek(start)
            tail = file.read(step) + tail
        tail = tail.rpartition(b"\n")[2]
        if not tail or _is_record(tail.removeprefix(codecs.BOM_UTF8), codec):
            return size
    set_aside(path, size - len(tail), "a torn record, which a write that broke off left there")
    return size - len(tail)


def _last_byte(path: Path) -> bytes:
    with path.open("rb") as file:
        file.seek(-1, os.SEEK_END)
        return file.read(1)


def _is_record(line: bytes, codec: str) -> bool:
    try:
        return isinstance(from_json(line.decode(codec)), dict)
    except ValueError:
        return False


def _models_of(
    table: RecordTable, chunk: Chunk, start: int, count: int, limit: int | None
) -> list[Any]:
    """The models of `count` lines of a chunk, at most `limit` of them; other records left out."""
    some = chunk.part(start, count)
    validate = model_of(table).__pydantic_validator__.validate_json
    texts = some.texts()
    try:
        return [validate(text) for text in texts[:limit]]
    except ValidationError:
        pass
    models: list[Any] = []
    for line in some.records():
        if limit is not None and len(models) >= limit:
            break
        record = parse(some, line)
        if table is CONVERSATIONS and not is_conversation(record):
            continue
        try:
            models.append(validate(line.text))
        except ValidationError as error:
            raise some.corrupt(line, reason(error)) from None
    return models


def _checked(table: RecordTable, chunk: Chunk) -> list[bytes]:
    """The lines of a chunk.

    Raises:
        CorruptRecordError: one is no record of the table.
    """
    for line in chunk.records():
        record = parse(chunk, line)
        if table is DOCUMENTS or is_conversation(record):
            try:
                readable(line.text)
                as_declared(table, record)
            except (InvalidRecordError, ValueError) as error:
                raise chunk.corrupt(line, str(error)) from None
    return chunk.texts()


@contextmanager
def _located(kind: str, chunks: Iterator[Chunk]) -> Iterator[None]:
    """Name the line that DuckDB refuses; it says only what is wrong with it."""
    try:
        yield
    except (DatabaseError, InvalidRecordError) as error:
        raise _find(kind, chunks, error) from None


def _find(kind: str, chunks: Iterator[Chunk], refusal: Exception) -> Exception:
    """The error for the first line that is no valid record."""
    table = _table(kind)
    try:
        for chunk in chunks:
            for line in chunk.records():
                record = parse(chunk, line)
                if kind != "records" and (table is DOCUMENTS or is_conversation(record)):
                    try:
                        model_of(table).model_validate(record)
                    except ValidationError as error:
                        return chunk.corrupt(line, reason(error))
    except CorruptRecordError as error:
        return error
    if isinstance(refusal, StorageError):
        return refusal
    return StorageError(shorten(refusal))
