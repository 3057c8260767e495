r"""`JsonlBackend`: the backend for two JSONL files.

The invariants: A line is a record, and lines are split on `\n` bytes only. A save serializes all
lines first, and then appends them under a lock. A read sees only complete saves: it takes the size
of the file under the lock and reads up to that position.

Importing this module does not load DuckDB, SQLAlchemy or Arrow. The calls that need them do.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, TypeVar

from pydantic import BaseModel

from afterimage.storage.errors import (
    CorruptRecordError,
    DatabaseError,
    InvalidRecordError,
    StorageError,
    shorten,
)
from afterimage.storage.jsonl.append import append_lines
from afterimage.storage.jsonl.checks import (
    importable_chunks,
    loadable,
    loads_all,
    models_of_chunk,
    models_of_lines,
    objects_of_chunk,
    until_damage,
    valid_chunks,
)
from afterimage.storage.jsonl.edit import rewrite
from afterimage.storage.jsonl.edit.serialized import blocks_to_save, encoded
from afterimage.storage.jsonl.index.known_files import KnownFiles
from afterimage.storage.jsonl.index.opened import OpenFile, opened, require_folder
from afterimage.storage.jsonl.index.outline import Outline, is_in_outline
from afterimage.storage.jsonl.journal import Visible, warning_of_killed_save
from afterimage.storage.jsonl.lines import (
    MAX_LINE_BYTES,
    Chunk,
    chunks_of_sources,
    objects_of,
    read_chunks,
)
from afterimage.storage.jsonl.sources import LineSource, Origin, refuse_own_source
from afterimage.storage.jsonl.staging import staged
from afterimage.storage.jsonl.verify import report_killed_save, verify_lines
from afterimage.storage.query.query import IDENTITY, Query
from afterimage.storage.query.read import Read
from afterimage.storage.records.fields import (
    CONVERSATIONS,
    DOCUMENTS,
    FieldType,
    RecordKind,
)
from afterimage.storage.records.metadata_changes import MetadataChange
from afterimage.storage.records.paths import FieldRef
from afterimage.storage.reports.faults import Faults
from afterimage.storage.reports.imports import ImportCount
from afterimage.storage.reports.progress import Progress, after_each, ignore, report, split
from afterimage.storage.reports.verification import Findings, Verification
from afterimage.storage.system.gc_pause import paused_collector
from afterimage.storage.system.interrupts import checkpoint
from afterimage.storage.system.locks import file_lock
from afterimage.storage.system.package import DeferredWarnings, warn_caller

if TYPE_CHECKING:
    import pyarrow as pa

    from afterimage.storage.query.relations import Relation, Source

__all__ = ["JsonlBackend"]

# Lines that become objects in one step: their memory is bounded.
_OBJECT_BATCH = 1024

_Result = TypeVar("_Result")


class JsonlBackend:
    """Conversations and records of other models in one file, documents in another.

    Attributes:
        mixes_kinds: True: records of other models are in the file of the conversations.

    Args:
        paths: the files of "conversations" and of "documents".
        codec: codec name of the files' encoding, which leaves ASCII characters unchanged.
        lock_timeout: seconds to wait for the lock of a file.
        max_line_bytes: maximum length of a line.
    """

    mixes_kinds = True
    batch_rows: int | None = None

    def __init__(
        self,
        paths: dict[str, Path],
        codec: str,
        lock_timeout: float,
        max_line_bytes: int = MAX_LINE_BYTES,
    ) -> None:
        self.paths = paths
        self.codec = codec
        self.lock_timeout = lock_timeout
        self.max_line_bytes = max_line_bytes
        self._known = KnownFiles()

    def files(self) -> list[Path]:
        return list(self.paths.values())

    def fields(self, kind: RecordKind) -> Mapping[str, FieldType]:
        return kind.queried

    def read_weights(self, kinds: Sequence[RecordKind]) -> list[float]:
        return [_size(self._path(kind)) for kind in kinds]

    # -- writing ------------------------------------------------------------------------------

    def append(self, kind: RecordKind, records: Sequence[BaseModel]) -> None:
        with paused_collector():
            blocks = [*blocks_to_save(kind, records, self.codec, self.max_line_bytes)]
        if blocks:
            path = self._path(kind)
            with DeferredWarnings() as warn, self._locked(path):
                append_lines(path, blocks, sum(map(len, blocks)), self.codec, warn)

    def delete(self, read: Read) -> int:
        return self._edited(read, rewrite.removed)

    def update(self, read: Read, change: MetadataChange) -> int:
        return self._edited(read, rewrite.with_metadata(change))

    def compact(self) -> None:
        rewrite.remove_all_left(self.files(), self._locked)

    def delete_repeated(self, read: Read, field: FieldRef, *, last: bool) -> int:
        return self._edited(read, rewrite.removed, field, last=last)

    def _edited(
        self, read: Read, edit: rewrite.Edit, field: FieldRef | None = None, *, last: bool = False
    ) -> int:
        """Edit the matching lines; with a `field`, those whose value another line has, too."""
        from afterimage.storage.jsonl.select import (  # noqa: PLC0415  loads DuckDB and Arrow
            positions_of_lines,
        )

        path = self._path(read.kind)
        require_folder(path)
        if not path.exists():  # a lock would leave a file
            return 0

        def positions() -> list[int]:
            chunks = self._chunks(read.kind, locked=True)
            with self._located(read.kind, locked=True), closing(chunks):
                return positions_of_lines(read.kind, chunks, read.query, field, last=last)

        with DeferredWarnings() as warn, self._locked(path):
            return rewrite.rewrite_lines(
                path,
                positions,
                edit,
                warn,
                codec=self.codec,
                max_line_bytes=self.max_line_bytes,
                of_documents=read.kind is DOCUMENTS,
            )

    def append_sources(self, origins: Sequence[Origin], read: Read) -> ImportCount:
        target = self._path(read.kind)
        for origin in origins:
            refuse_own_source(origin, [target])
        require_folder(target)
        sources = [
            LineSource(origin, lock_timeout=self.lock_timeout, warn=read.warn) for origin in origins
        ]
        limit = min(read.max_line_bytes or self.max_line_bytes, self.max_line_bytes)
        chunks = chunks_of_sources(
            sources, read.faults.handle, limit, of_documents=read.kind is DOCUMENTS
        )
        return self.append_chunks([(chunks, read)])

    def append_chunks(self, parts: Sequence[tuple[Iterator[Chunk], Read]]) -> ImportCount:
        saved = others = 0
        # Read once, without the lock of a target: the source may be a pipe that takes long.
        with ExitStack() as stack:
            ready: list[Any] = []
            for chunks, read in parts:
                target = self._path(read.kind)
                require_folder(target)
                checking, appending = split(read.progress, [9, 1])
                write, staged_blocks = stack.enter_context(staged(target))
                before, ours = saved, read.converted(chunks)
                for chunk, other in importable_chunks(read.kind, ours, read.other, read.faults):
                    lines = chunk.texts()
                    saved += len(lines)
                    others += other
                    write(encoded(lines, self.codec))
                    report(checking, len(lines), chunk.share)
                ready.append((target, saved > before and staged_blocks(), read, appending))
            for target, lines_to_append, read, appending in ready:
                if lines_to_append:
                    length, blocks = lines_to_append
                    with self._locked(target):
                        append_lines(target, blocks, length, self.codec, read.warn)
                report(appending, 0, 1.0)
        return ImportCount(saved, others)

    # -- reading ------------------------------------------------------------------------------

    def repeated(self, read: Callable[[], _Result]) -> _Result:
        return read()

    @contextmanager
    def relation(self, read: Read) -> Iterator[Relation]:
        from afterimage.storage.jsonl.index.relation import (  # noqa: PLC0415  loads DuckDB and Arrow
            relation_of_outline,
        )
        from afterimage.storage.jsonl.select import (  # noqa: PLC0415  loads DuckDB and Arrow
            relation_of_lines,
        )

        fields = read.query.used_fields() if read.is_narrow else [IDENTITY]
        with self._located(read.kind), self._outlined(read, fields) as known:
            if known is not None:
                with relation_of_outline(known[0], read.query) as relation:
                    yield relation
                return
        with (
            self._located(read.kind),
            closing(self._valid_chunks(read)) as chunks,
            relation_of_lines(read.kind, chunks, read.query) as relation,
        ):
            yield relation

    def select(
        self, read: Read, text: Callable[[Source], Any] | None = None
    ) -> Generator[pa.RecordBatch, None, None]:
        from afterimage.storage.arrow.schema import projected_schema  # noqa: PLC0415  loads Arrow
        from afterimage.storage.jsonl.index.relation import (  # noqa: PLC0415  loads DuckDB and Arrow
            select_outline,
        )
        from afterimage.storage.jsonl.select import (  # noqa: PLC0415  loads DuckDB and Arrow
            can_build,
            columns_of_objects,
            select_columns,
            select_lines,
        )

        columns = read.query.columns
        if (
            text is None
            and columns
            and can_build(read.kind, columns)
            and not _needs_engine(read.query)
        ):
            with self._located(read.kind), closing(self.objects(read)) as batches:
                for objects in batches:
                    yield columns_of_objects(read.kind, objects, columns)
            return
        if text is None and columns:
            fields = [*read.query.used_fields(), *columns]
            with self._located(read.kind), self._outlined(read, fields) as known:
                if known is not None:
                    schema = projected_schema(columns)
                    yield from select_outline(known[0], read.query, columns, schema)
                    return
        # A training tool must not get what a load rejects; the engine makes a text of any value.
        valid = self._valid_chunks(read, check=text is not None)
        with self._located(read.kind), closing(valid) as chunks:
            if text is None:
                on_suspect = None if read.faults.skip else partial(self._refuse_corrupt, read.kind)
                yield from select_columns(read.kind, chunks, read.query, on_suspect)
            else:
                yield from select_lines(read.kind, chunks, read.query, whole=False, text=text)

    def objects(self, read: Read) -> Generator[list[dict[str, Any]], None, None]:
        if not _needs_engine(read.query):
            yield from self._in_file_order(read, _OBJECT_BATCH, partial(objects_of_chunk, read))
            return
        with closing(self._lines(read)) as batches:
            for lines in batches:
                with self._located(read.kind), paused_collector():
                    objects = objects_of(lines)
                    if read.valid and not loads_all(read.kind, objects):
                        raise InvalidRecordError("a line is not a valid record")
                yield objects

    def models(self, read: Read, batch_size: int) -> Iterator[list[Any]]:
        if _needs_engine(read.query):
            with closing(self._lines(read)) as batches:
                for lines in batches:
                    for start in range(0, len(lines), batch_size):
                        checkpoint()
                        try:
                            with paused_collector():
                                models = models_of_lines(
                                    read.kind, lines[start : start + batch_size]
                                )
                        except ValueError as error:
                            raise self._find(read.kind, error) from None
                        yield models
            return
        yield from self._in_file_order(read, batch_size, partial(models_of_chunk, read))

    def _in_file_order(
        self, read: Read, batch_size: int, build: Callable[[Chunk, int | None], list[Any]]
    ) -> Generator[list[Any], None, None]:
        """Yield the first records of the file, up to the limit of the query, without the engine.

        Args:
            read: has no filters, order or offset.
            batch_size: maximum number of lines that become records at a time.
            build: returns the records of the lines of a chunk, up to a maximum number.
        """
        left = read.query.limit
        for chunk in until_damage(self._reported(read), read.faults):
            # Build one batch at a time: a read with a limit builds no records beyond it.
            for start in range(0, len(chunk.lines), batch_size):
                if left is not None and left <= 0:
                    return
                checkpoint()
                part = chunk.part(start, batch_size)
                with paused_collector():
                    records = build(part, left)
                if records:
                    yield records
                left = None if left is None else left - len(records)

    def _lines(self, read: Read) -> Generator[list[bytes], None, None]:
        """Yield lists of matching lines, in the order of the query."""
        from afterimage.storage.jsonl.index.relation import (  # noqa: PLC0415  loads DuckDB and Arrow
            places_in_order,
        )
        from afterimage.storage.jsonl.select import (  # noqa: PLC0415  loads DuckDB and Arrow
            as_bytes,
            select_lines,
        )

        with self._located(read.kind), self._outlined(read, read.query.used_fields()) as known:
            if known is not None:
                outline, file = known
                places = places_in_order(outline, read.query)
                for start in range(0, len(places), _OBJECT_BATCH):
                    checkpoint()
                    yield outline.lines(file, places[start : start + _OBJECT_BATCH])
                return
        with self._located(read.kind), closing(self._valid_chunks(read)) as chunks:
            for batch in select_lines(read.kind, chunks, read.query, whole=True):
                yield as_bytes(batch.column(0))

    def _valid_chunks(self, read: Read, *, check: bool = False) -> Generator[Chunk, None, None]:
        """Yield the chunks of the file for the engine, without corrupt lines if these are skipped.

        Otherwise they stay: the engine raises an error for a line that it cannot read. With
        `check`, there is an error for every line that cannot be loaded.
        """
        chunks = self._reported(read)
        if not (read.faults.skip or check):
            return chunks
        return valid_chunks(chunks, loadable(read.kind), read.faults)

    def _reported(self, read: Read) -> Generator[Chunk, None, None]:
        """Yield the chunks of the file, and report each when it has been read."""
        return after_each(
            self._chunks(read.kind, read.faults),
            lambda chunk: report(read.progress, len(chunk.lines), chunk.share),
        )

    def _chunks(
        self,
        kind: RecordKind,
        faults: Faults | None = None,
        on_killed: Callable[[Path, Visible], None] | None = None,
        *,
        locked: bool = False,
    ) -> Generator[Chunk, None, None]:
        """Yield the chunks of the file with all complete saves; none if the file does not exist.

        Args:
            kind: the kind of the file.
            faults: handles lines that are too long; None to raise an error.
            on_killed: called if the file contains a part of a save that was killed; None to warn.
            locked: whether the caller holds the lock of the file.
        """
        with opened(self._path(kind), self.lock_timeout, locked=locked) as found:
            if found is None:
                return
            if found.seen.killed is not None:
                if on_killed is None:
                    warn_caller(warning_of_killed_save(found.path, found.seen))
                else:
                    on_killed(found.path, found.seen)
            yield from self._chunks_of(kind, found, faults)

    def _chunks_of(
        self, kind: RecordKind, found: OpenFile, faults: Faults | None
    ) -> Iterator[Chunk]:
        return read_chunks(
            LineSource(found.path, found.seen.size, tuple(found.seen.hidden), file=found.file),
            self.codec,
            handle=None if faults is None else faults.handle,
            max_line_bytes=self.max_line_bytes,
            of_documents=kind is DOCUMENTS,
        )

    @contextmanager
    def _outlined(
        self, read: Read, fields: Iterable[FieldRef]
    ) -> Iterator[tuple[Outline, IO[bytes]] | None]:
        """Provide the outline of the file, and the file, if the outline has all these fields.

        None if the file itself has to be read.
        """
        path = self._path(read.kind)
        can_answer = read.kind is CONVERSATIONS and self.codec == "utf-8"
        if not (can_answer and all(map(is_in_outline, fields)) and self._known.is_due(path)):
            yield None
            return
        with opened(path, self.lock_timeout) as found:
            outline = found and self._known.outline(
                found, lambda: self._chunks_of(read.kind, found, None)
            )
            if outline is None:
                yield None
            else:
                assert found is not None
                assert found.file is not None
                report(read.progress, len(outline.offsets), 1.0)
                yield outline, found.file

    @contextmanager
    def _located(self, kind: RecordKind, *, locked: bool = False) -> Iterator[None]:
        """Raise an error that names the corrupt line; errors of DuckDB do not name it."""
        try:
            yield
        except (DatabaseError, InvalidRecordError) as error:
            raise self._find(kind, error, locked=locked) from None

    def _refuse_corrupt(self, kind: RecordKind, *, locked: bool = False) -> None:
        """Raise the error for the first line that cannot be loaded, if there is one."""
        with closing(self._chunks(kind, locked=locked)) as chunks:  # the error outlives this call
            for _ in valid_chunks(chunks, loadable(kind), Faults("raise")):
                pass

    def _find(self, kind: RecordKind, original: Exception, *, locked: bool = False) -> Exception:
        """Return the error for the first corrupt line; `original` if no line is corrupt."""
        try:
            self._refuse_corrupt(kind, locked=locked)
        except CorruptRecordError as error:
            return error
        return original if isinstance(original, StorageError) else StorageError(shorten(original))

    def repair(self) -> int:
        """Do nothing: a file has only its records."""
        return 0

    def verify(self, progress: Progress | None) -> Verification:
        findings = Findings(", ".join(map(str, self.files())))
        kinds = (CONVERSATIONS, DOCUMENTS)
        stages = split(progress or ignore, self.read_weights(kinds))
        for kind, stage in zip(kinds, stages, strict=True):
            damage = Faults("skip")
            read = self._chunks(kind, damage, partial(report_killed_save, findings))
            with closing(read) as chunks:
                verify_lines(kind, chunks, findings, stage, damage)
        return findings.report()

    # -- files --------------------------------------------------------------------------------

    def _path(self, kind: RecordKind) -> Path:
        return self.paths[kind.saved_as.name]

    @contextmanager
    def _locked(self, path: Path) -> Iterator[None]:
        """Hold the lock of a file while a save appends to it."""
        require_folder(path)
        with file_lock(path, self.lock_timeout):
            yield


def _size(path: Path) -> int:
    with suppress(OSError):  # reading the file will raise a clear error
        return path.stat().st_size
    return 0


def _needs_engine(query: Query) -> bool:
    """Return whether a query has more than a limit."""
    is_chosen = query.shares or query.only is not None
    return bool(query.where or query.order or query.offset or is_chosen)
