r"""`JSONLStorage`: conversations and documents as lines of JSON, the interchange format.

The invariants: a line is a record; a save is one append under a lock, of lines that are all
serialised before; whoever reads sees whole saves, as it reads up to where the file ended when no
one was writing. Lines are split on `\\n` bytes and on nothing else.
"""

from __future__ import annotations

import codecs
import os
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from datetime import datetime
from itertools import chain
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from filelock import FileLock
from pydantic import BaseModel, ValidationError

from afterimage.storage.backend import refuse_own_file
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
from afterimage.storage.jsonl.checks import (
    importable,
    loadable,
    loaded,
    sound_chunks,
    until_damage,
)
from afterimage.storage.jsonl.journal import saving, set_aside, take_back, visible_size
from afterimage.storage.jsonl.lines import Chunk, is_compressed, is_object, objects_of, read_chunks
from afterimage.storage.models import Document
from afterimage.storage.query.query import Query
from afterimage.storage.record_storage import RecordStorage
from afterimage.storage.records.fields import CONVERSATIONS, DOCUMENTS, RecordTable
from afterimage.storage.records.kinds import RECORD_TABLES, Kind
from afterimage.storage.records.objects import (
    as_declared,
    exact_lines,
    model_of,
    to_line,
    to_object,
)
from afterimage.storage.reports.faults import CorruptRecords
from afterimage.storage.reports.progress import Progress, after_each, parts, tell, unseen
from afterimage.storage.reports.verification import Findings, Verification, verify_lines
from afterimage.storage.system.atomic_files import sync_folder
from afterimage.storage.system.gc_pause import paused_collector
from afterimage.storage.system.interrupts import checkpoint
from afterimage.storage.system.locks import acquire_file, lock_holder, lock_path

if TYPE_CHECKING:  # light to import: Arrow and DuckDB are loaded by the calls that need them
    import pyarrow as pa
    import sqlalchemy as sa

    from afterimage.storage.query.predicates import Source

__all__ = ["JSONLStorage"]

# Records written as JSON in one step: few enough that their text stays in the processor's cache.
_SAVE_BATCH = 256


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
        self.conversations_lock_path = lock_path(self.conversations_path)
        self.documents_lock_path = lock_path(self.documents_path)

    def __repr__(self) -> str:
        return f"JSONLStorage({str(self.conversations_path)!r}, {str(self.documents_path)!r})"

    # -- writing ------------------------------------------------------------------------------

    def _save(self, table: RecordTable, records: Sequence[BaseModel]) -> None:
        with paused_collector():
            blocks = [
                self._lines_to_save(table, records[start : start + _SAVE_BATCH], start)
                for start in range(0, len(records), _SAVE_BATCH)
            ]
        if blocks:
            path = self._path(table)
            with self._locked(path):
                _append(path, blocks, sum(map(len, blocks)), self._codec)

    def _lines_to_save(self, table: RecordTable, records: Sequence[BaseModel], start: int) -> bytes:
        """The lines of records; `start` is the place of the first among all that are saved."""
        checkpoint()
        if table is CONVERSATIONS and self._codec == "utf-8":
            block = exact_lines(records)
            if block is not None:
                return block
        lines = []
        for at, record in enumerate(records, start):
            try:
                if table is DOCUMENTS and type(record) is not Document:
                    as_declared(DOCUMENTS, to_object(record))
                lines.append(to_line(record, self._codec))
            except InvalidRecordError as error:
                raise InvalidRecordError(f"record {at} of the batch: {error}") from None
        lines.append(b"")
        return b"\n".join(lines)

    def _import(
        self, table: RecordTable, path: Path, corrupt: CorruptRecords, progress: Progress
    ) -> int:
        """Two passes, so that memory stays bounded: all lines are read before the first is kept."""
        target = self._path(table)
        if target.exists():
            refuse_own_file(path, [target])
        check = importable(table)
        found = size = 0
        checking, copying = parts(progress, [1, 1])
        for chunk in sound_chunks(read_chunks(path), check, corrupt):
            lines = chunk.texts()
            found += len(lines)
            size += sum(len(line.rstrip()) + 1 for line in lines)
            tell(checking, len(lines) // 2, chunk.share)  # half of the work

        def copied() -> Iterator[bytes]:
            again = CorruptRecords("skip" if corrupt.skipped else "raise")  # counted already
            for chunk in sound_chunks(read_chunks(path), check, again):
                lines = chunk.texts()
                yield b"".join(text.rstrip() + b"\n" for text in lines)
                tell(copying, len(lines) - len(lines) // 2, chunk.share)

        if found:
            with self._locked(target):
                _append(target, copied(), size, self._codec)
        return found

    # -- reading ------------------------------------------------------------------------------

    def _count(self, kind: Kind, query: Query, corrupt: CorruptRecords) -> int:
        from afterimage.storage.jsonl.select import count_lines  # noqa: PLC0415  heavy: DuckDB and Arrow

        with self._located(kind):
            return count_lines(kind, self._sound_chunks(kind, corrupt, unseen), query)

    @contextmanager
    def _relation(
        self, kind: Kind, query: Query, corrupt: CorruptRecords, progress: Progress
    ) -> Iterator[tuple[sa.Connection, sa.FromClause, Source, Query]]:
        from afterimage.storage.jsonl.select import relation_of_lines  # noqa: PLC0415  heavy

        if kind == "records" and corrupt.skipped:
            # They are in the file of the conversations, which tells of its corrupt lines.
            corrupt = CorruptRecords("skip")
        chunks = self._sound_chunks(kind, corrupt, progress)
        with self._located(kind), relation_of_lines(kind, chunks) as found:
            yield *found, query

    def _objects(
        self, kind: Kind, query: Query, corrupt: CorruptRecords, progress: Progress
    ) -> Generator[list[dict[str, Any]], None, None]:
        with closing(self._lines(kind, query, corrupt, progress)) as batches:
            for lines in batches:
                with self._located(kind):
                    found = objects_of(lines)
                yield found

    def _models(
        self, table: RecordTable, query: Query, batch_size: int, corrupt: CorruptRecords
    ) -> Iterator[list[Any]]:
        if query.where or query.order or query.offset:
            validate = model_of(table).__pydantic_validator__.validate_json
            with closing(self._lines(table.kind, query, corrupt, unseen)) as batches:
                for lines in batches:
                    for at in range(0, len(lines), batch_size):
                        checkpoint()
                        some = lines[at : at + batch_size]
                        try:
                            with paused_collector():
                                found = [validate(line) for line in some]
                        except ValidationError as error:
                            raise self._find(table.kind, error) from None
                        yield found
            return
        left = query.limit
        for chunk in until_damage(self._chunks(table.kind), corrupt):
            # Models are built a batch at a time, so that a limit builds no more than it gives.
            for at in range(0, len(chunk.lines), batch_size):
                if left is not None and left <= 0:
                    return
                with paused_collector():
                    found = _models_of(table, chunk.part(at, batch_size), left, corrupt)
                if found:
                    yield found
                left = None if left is None else left - len(found)

    def _batches(
        self, table: RecordTable, query: Query, corrupt: CorruptRecords, progress: Progress
    ) -> Generator[pa.RecordBatch, None, None]:
        from afterimage.storage.jsonl.scan import scan_lines  # noqa: PLC0415  heavy: DuckDB and Arrow

        with self._located(table.kind):
            chunks = self._sound_chunks(table.kind, corrupt, progress)
            yield from scan_lines(table, chunks, query)

    def _texts(
        self,
        query: Query,
        text: Callable[[Source], Any],
        corrupt: CorruptRecords,
        progress: Progress,
    ) -> Generator[pa.RecordBatch, None, None]:
        from afterimage.storage.jsonl.select import select_lines  # noqa: PLC0415  heavy: DuckDB and Arrow

        with self._located("conversations"):
            chunks = self._sound_chunks("conversations", corrupt, progress)
            yield from select_lines("conversations", chunks, query, whole=False, text=text)

    def _lines(
        self, kind: str, query: Query, corrupt: CorruptRecords, progress: Progress
    ) -> Generator[list[bytes], None, None]:
        """Matching lines, in the order of the query."""
        from afterimage.storage.jsonl.select import select_lines  # noqa: PLC0415  heavy: DuckDB and Arrow

        chunks = self._sound_chunks(kind, corrupt, progress)
        with self._located(kind):
            for batch in select_lines(kind, chunks, query, whole=True):
                yield [text.encode() for text in batch.column(0).to_pylist()]

    def _sound_chunks(
        self, kind: str, corrupt: CorruptRecords, progress: Progress
    ) -> Iterator[Chunk]:
        """The file for the engine, which would fail on a corrupt line, so without it to skip it."""
        chunks = after_each(
            self._chunks(kind), lambda chunk: tell(progress, len(chunk.lines), chunk.share)
        )
        return sound_chunks(chunks, loadable(kind), corrupt) if corrupt.skipped else chunks

    def _chunks(self, kind: str) -> Generator[Chunk, None, None]:
        """The file as it is between two saves; nothing where there is none yet."""
        path = self._path_of(kind)
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

    @contextmanager
    def _located(self, kind: str) -> Iterator[None]:
        """Name the line that DuckDB refuses; it says only what is wrong with it."""
        try:
            yield
        except (DatabaseError, InvalidRecordError) as error:
            raise self._find(kind, error) from None

    def _find(self, kind: str, refusal: Exception) -> Exception:
        """The error for the first line that no load gives."""
        try:
            for _ in sound_chunks(self._chunks(kind), loadable(kind), CorruptRecords("raise")):
                pass
        except CorruptRecordError as error:
            return error
        return refusal if isinstance(refusal, StorageError) else StorageError(shorten(refusal))

    def _verify(self, progress: Progress | None) -> Verification:
        findings = Findings(f"{self.conversations_path}, {self.documents_path}")
        tables = (CONVERSATIONS, DOCUMENTS)
        followed = parts(progress or unseen, self._weights([table.kind for table in tables]))
        for table, part in zip(tables, followed, strict=True):
            verify_lines(table, self._chunks(table.kind), findings, part)
        return findings.report()

    # -- files --------------------------------------------------------------------------------

    def _weights(self, kinds: Sequence[str]) -> list[float]:
        return [_size(self._path_of(kind)) for kind in kinds]

    def _own_files(self) -> list[Path]:
        return [self.conversations_path, self.documents_path]

    def _path(self, table: RecordTable) -> Path:
        return self.conversations_path if table is CONVERSATIONS else self.documents_path

    def _path_of(self, kind: str) -> Path:
        return self._path(RECORD_TABLES[kind])

    @contextmanager
    def _locked(self, path: Path, *, reading: bool = False) -> Iterator[None]:
        """Hold the lock of a file: a save while it appends, a read only to see where it ends."""
        _require_folder(path)
        lock = FileLock(lock_path(path))
        try:
            has_lock = acquire_file(lock, self.lock_timeout)
        except OSError as error:
            if not reading:
                raise StorageError(f"{path} cannot be locked: {error.strerror}") from error
            yield  # a folder that may not be written: nobody appends there
            return
        if not has_lock:
            raise LockTimeoutError.of(path, self.lock_timeout, lock_holder(lock_path(path)))
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


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:  # whoever reads it tells what is wrong
        return 0


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
                    checkpoint()
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
        if not tail.strip() or is_object(tail.removeprefix(codecs.BOM_UTF8), codec):
            return size
    set_aside(path, size - len(tail), "a torn record, which a write that broke off left there")
    return size - len(tail)


def _last_byte(path: Path) -> bytes:
    with path.open("rb") as file:
        file.seek(-1, os.SEEK_END)
        return file.read(1)


def _models_of(
    table: RecordTable, chunk: Chunk, limit: int | None, corrupt: CorruptRecords
) -> list[Any]:
    """The models of a chunk's lines, at most `limit` of them; other records left out."""
    validate = model_of(table).__pydantic_validator__.validate_json
    with suppress(ValidationError, CorruptRecordError):
        return [validate(text) for text in chunk.texts()[:limit]]
    models: list[Any] = []
    for line in chunk.unread():
        if limit is not None and len(models) >= limit:
            break
        try:
            model = loaded(table, chunk, chunk.read(line))
        except CorruptRecordError as error:
            corrupt.met(error)
        else:
            models += [model] if model is not None else []
    return models
