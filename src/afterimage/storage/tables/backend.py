"""`TablesBackend`: the backend for the tables of a DuckDB database.

The invariants: A save is one transaction. A row's sequence number is greater than those of all rows
saved before it. The file is open only during calls.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import replace
from functools import partial
from itertools import chain, islice
from pathlib import Path
from tempfile import SpooledTemporaryFile
from typing import Any, TypeVar

import pyarrow as pa
from pydantic import BaseModel

from afterimage.storage.arrow.batches import has_valid_values
from afterimage.storage.arrow.models import models_of
from afterimage.storage.arrow.objects import to_objects
from afterimage.storage.arrow.schema import projected_schema
from afterimage.storage.engine.database import MUCH_CACHED, Database
from afterimage.storage.engine.statements import lacks_resources
from afterimage.storage.errors import CorruptRecordError, DatabaseError
from afterimage.storage.jsonl.batches import batch_of_lines, regrouped
from afterimage.storage.jsonl.checks import importable, valid_chunks
from afterimage.storage.jsonl.lines import MAX_LINE_BYTES, Chunk, chunks_of_sources
from afterimage.storage.jsonl.sources import LineSource, Origin, refuse_own_source
from afterimage.storage.query.predicates import select_list
from afterimage.storage.query.query import Query
from afterimage.storage.query.read import Read
from afterimage.storage.query.relations import Relation, Source
from afterimage.storage.records.fields import (
    CONVERSATIONS,
    DOCUMENTS,
    OTHERS,
    FieldType,
    RecordKind,
)
from afterimage.storage.records.metadata_changes import MetadataChange
from afterimage.storage.records.paths import FieldRef, resolve
from afterimage.storage.reports.imports import ImportCount
from afterimage.storage.reports.progress import Progress, counting, report
from afterimage.storage.reports.verification import Verification
from afterimage.storage.system.atomic_files import temporary_name
from afterimage.storage.system.gc_pause import paused_collector
from afterimage.storage.system.interrupts import checkpoint
from afterimage.storage.system.package import log
from afterimage.storage.system.prefetch import prefetched
from afterimage.storage.tables.checks import (
    UNREADABLE,
    RowFaults,
    checked_text,
    record_object,
)
from afterimage.storage.tables.editing import Editing
from afterimage.storage.tables.insert import Insert, batches_of_models, split_by_kind
from afterimage.storage.tables.schema.layout import VECTOR_ROWS, Layout, StoredTable
from afterimage.storage.tables.select import SMALL_PAGE, count_unnumbered, scan_table
from afterimage.storage.tables.verify import repair_columns, verify_database

__all__ = ["TablesBackend"]

_Result = TypeVar("_Result")

Batches = Generator[pa.RecordBatch, None, None]

# Bytes of records of other models that an import holds in memory; above this, in a file.
_OTHERS_IN_MEMORY = 16 * 2**20

# Results up to this size are read completely if the caller may keep the iterator for a long time:
# starting a private instance of the engine takes as long as reading them.
_SMALL_RESULT = 32 * 2**20

# The columns that most of a file consists of.
_WIDE = frozenset({"conversations", "text", "record"})


class TablesBackend:
    """Conversations, documents and records of other models, in one table each.

    Attributes:
        mixes_kinds: False: each kind has its own table.

    Args:
        database: the database; it already has the tables.
        layout: the tables.
        batch_rows: maximum number of rows of a record batch; None for the engine's own size.
    """

    mixes_kinds = False

    def __init__(self, database: Database, layout: Layout, batch_rows: int | None) -> None:
        self.database = database
        self.layout = layout
        self.batch_rows = batch_rows

    @property
    def lock_timeout(self) -> float:
        return self.database.catalog.lock_timeout

    @lock_timeout.setter
    def lock_timeout(self, seconds: float) -> None:
        self.database.catalog.lock_timeout = seconds

    def files(self) -> list[Path]:
        path = self.database.catalog.path
        return [] if path is None else [path]

    def fields(self, kind: RecordKind) -> Mapping[str, FieldType]:
        return kind.queried if kind is OTHERS else {**kind.queried, **kind.system}

    def read_weights(self, kinds: Sequence[RecordKind]) -> list[float]:
        # The time to count documents and other records is negligible.
        return [float(kind is CONVERSATIONS) for kind in kinds]

    # -- writing ------------------------------------------------------------------------------

    def append(self, kind: RecordKind, records: Sequence[BaseModel]) -> None:
        if not records:
            return
        declared, indexes, others = split_by_kind(kind, records)
        # Build the first batch before the file is opened, and the others while DuckDB inserts.
        batches = batches_of_models(kind, declared, indexes, self._insert_rows)
        first = list(islice(batches, 1))
        with self.database.appending(self.layout.prepare) as connection, paused_collector():
            insert = Insert(self.database, self.layout, connection)
            if first:
                insert.batches(self.layout.of(kind), chain(first, batches))
            if others:
                insert.others(self.layout.records, others, self._insert_rows)

    def append_sources(self, origins: Sequence[Origin], read: Read) -> ImportCount:
        path = self.database.catalog.path
        for origin in origins:
            refuse_own_source(origin, self.files())
        sources = [
            LineSource(
                origin,
                lock_timeout=self.lock_timeout,
                warn=read.warn,
                # The database is not open, and so not locked, while a pipe is read.
                spool=None if path is None else path.parent,
            )
            for origin in origins
        ]
        limit = read.max_line_bytes or MAX_LINE_BYTES
        chunks = chunks_of_sources(
            sources, read.faults.handle, limit, of_documents=read.kind is DOCUMENTS
        )
        return self.append_chunks([(chunks, read)])

    def append_chunks(self, parts: Sequence[tuple[Iterator[Chunk], Read]]) -> ImportCount:
        path = self.database.catalog.path
        ready = [(self._ready(chunks, read), read) for chunks, read in parts]
        saved = other = 0
        folder = temporary_name() or path or Path.cwd() / "unnamed"
        with SpooledTemporaryFile(max_size=_OTHERS_IN_MEMORY, dir=str(folder.parent)) as others:

            def batches(group: Iterable[Chunk], read: Read) -> Iterator[pa.RecordBatch]:
                nonlocal saved, other
                for chunk in group:
                    with paused_collector():
                        batch, lines = batch_of_lines(read.kind, chunk, read.other)
                    others.writelines(line + b"\n" for line in lines)
                    saved += len(batch) + len(lines)
                    other += len(lines)
                    report(read.progress, len(batch) + len(lines), chunk.share)
                    yield batch

            with self.database.appending(self.layout.prepare) as connection:
                insert = Insert(self.database, self.layout, connection)
                for chunks, read in ready:
                    # Use few statements: at its end, each of them writes an incomplete row group.
                    for index, first in enumerate(chunks):
                        if index:
                            self.database.trim_cache(connection, 0)
                        group = chain([first], self._until_cache_is_full(chunks))
                        insert.batches(self.layout.of(read.kind), batches(group, read))
                if others.tell():
                    others.seek(0)
                    unnamed = (("", line[:-1]) for line in others)
                    insert.others(self.layout.records, unnamed, self._insert_rows)
        return ImportCount(saved, other)

    def _ready(self, chunks: Iterator[Chunk], read: Read) -> Iterator[Chunk]:
        """Return the chunks to save, without the lines that are skipped."""
        chunks = read.converted(chunks)
        if read.faults.skip:
            chunks = valid_chunks(chunks, importable(read.kind), read.faults)
        # Batches of whole row groups: DuckDB would rewrite smaller row groups later.
        chunks = regrouped(chunks, self._insert_rows)
        # The first chunk comes before the database is opened: a source that cannot be read fails.
        return chain([*islice(chunks, 1)], chunks)

    def delete(self, read: Read) -> int:
        return self._edited(read.kind, lambda editing: editing.delete(read.query))

    def delete_repeated(self, read: Read, field: FieldRef, *, last: bool) -> int:
        return self._edited(read.kind, lambda editing: editing.delete(read.query, field, last=last))

    def update(self, read: Read, change: MetadataChange) -> int:
        return self._edited(read.kind, lambda editing: editing.update(read.query, change))

    def compact(self) -> None:
        self.database.compact()

    def _edited(self, kind: RecordKind, edit: Callable[[Editing], int]) -> int:
        """Edit the table of a kind in one transaction; return the number of edited rows."""

        def attempt() -> int:
            with self.database.writing(alone=True) as connection:
                self.layout.refresh(connection, to_write=True)
                stored = self.layout.of(kind)
                return edit(Editing(self.database, self.layout, connection, stored))

        return self.database.catalog.repeated(attempt)

    @property
    def _insert_rows(self) -> int:
        return self.batch_rows or VECTOR_ROWS

    def _until_cache_is_full(self, chunks: Iterator[Chunk]) -> Iterator[Chunk]:
        """Yield chunks until the blocks written for them exceed the cache limit.

        DuckDB keeps written blocks in its cache.
        """
        size = self.database.catalog.size
        end = size() + MUCH_CACHED
        while size() < end and (chunk := next(chunks, None)) is not None:
            yield chunk

    # -- reading ------------------------------------------------------------------------------

    def repeated(self, read: Callable[[], _Result]) -> _Result:
        return self.database.catalog.repeated(read)

    @contextmanager
    def relation(self, read: Read) -> Iterator[Relation]:
        query = self._valid(read).query
        stored = self.layout.of(read.kind)
        with self.database.reading() as connection:
            yield Relation(connection, stored.table, stored.source, query)

    def select(self, read: Read, text: Callable[[Source], Any] | None = None) -> Batches:
        read = self._valid(read)
        if text is not None:
            stored = self.layout.of(read.kind)
            schema = pa.schema([pa.field("text", pa.large_string())])
            line = checked_text(stored, text(stored.source))
            batches = self._located(read, self._scan(stored, [line], schema, read.query))
        else:
            columns = self._long_lived(read) if read.long_lived else self._columns(read)
            batches = self._checked(read, columns)
        yield from counting(batches, read.progress)

    def _located(self, read: Read, batches: Batches) -> Batches:
        """Yield the same batches; an error of the engine becomes the one for the first bad row."""
        try:
            yield from batches
        except DatabaseError as error:
            if not lacks_resources(error):
                self._refuse_corrupt(read)
            raise

    def _checked(self, read: Read, batches: Batches) -> Batches:
        """Yield the same batches; raise an error for a value that a load rejects."""
        checks = True
        with closing(batches) as source:
            for batch in source:
                if checks and not has_valid_values(read.kind, batch):
                    self._refuse_corrupt(read)
                    checks = False
                yield batch

    def _refuse_corrupt(self, read: Read) -> None:
        """Raise the error for the first matching row that cannot be loaded, if there is one."""
        error = next(self._faults(read.kind, whole=False).matching(read.query), None)
        if error is not None:
            raise error

    def objects(self, read: Read) -> Generator[list[dict[str, Any]], None, None]:
        read = self._valid(read, whole=True)
        kind = read.kind
        for _, batch in self._rows(kind, read.query):
            if read.valid and not has_valid_values(kind, batch):
                self._refuse_corrupt(read)
            try:
                if kind is OTHERS:
                    objects = [record_object(text) for text in batch.column("record").to_pylist()]
                else:
                    objects = to_objects(kind, batch)
            except UNREADABLE as error:
                raise self._faults(kind, whole=True).first(read.query, error) from None
            yield objects
            read.progress(len(objects))

    def models(self, read: Read, batch_size: int) -> Iterator[list[Any]]:
        read = self._valid(read)
        fields = read.kind.stored
        columns = tuple(resolve(fields, name) for name in fields)
        declared = read.over(replace(read.query, columns=columns))
        # A load keeps all records in memory anyway, so it may prefetch more than an iterator.
        if read.long_lived:
            return self._validated(read, self._long_lived(declared), batch_size, ahead=1)
        return self._validated(read, self._columns(declared), batch_size, ahead=4)

    def _validated(
        self, read: Read, batches: Batches, batch_size: int, ahead: int
    ) -> Iterator[list[Any]]:
        """Yield the validated models of batches with the declared fields."""
        kind, query = read.kind, read.query
        # For a small page, starting a thread takes longer than it saves.
        use_thread = query.limit is None or query.limit > SMALL_PAGE
        # Close now: an exception could keep this generator alive longer than its connection.
        with closing(prefetched(batches, ahead) if use_thread else batches) as source:
            for batch in source:
                for start in range(0, batch.num_rows, batch_size):
                    checkpoint()
                    try:
                        with paused_collector():
                            models = models_of(kind, batch.slice(start, batch_size))
                    except UNREADABLE as error:
                        raise self._faults(kind, whole=False).first(query, error) from None
                    yield models

    def repair(self) -> int:
        if not self.database.exists():
            return 0
        with self.database.writing(alone=True) as connection:
            self.layout.refresh(connection)
            repaired = repair_columns(connection, self.layout.conversations)
        if repaired:
            log.info("%s: rows whose columns were set again: %d", self.database.name, repaired)
        return repaired

    def verify(self, progress: Progress | None) -> Verification:
        def faults(stored: StoredTable, progress: Progress) -> Iterator[CorruptRecordError]:
            return self._faults(stored.kind, whole=True).matching(Query(numbered=True), progress)

        return verify_database(self.database, self.layout, faults, progress)

    def _valid(self, read: Read, *, whole: bool = False) -> Read:
        """Return the read without the corrupt rows, if they are skipped."""
        faults = self._faults(read.kind, whole=whole)
        return read.over(faults.excluded(read.query, read.faults))

    def _faults(self, kind: RecordKind, *, whole: bool) -> RowFaults:
        rows = partial(self._rows, kind)
        stored = self.layout.of(kind)
        unnumbered = partial(count_unnumbered, self.database, stored)
        return RowFaults(self.database.name, stored, rows, unnumbered, whole=whole)

    def _rows(
        self, kind: RecordKind, query: Query
    ) -> Generator[tuple[list[int], pa.RecordBatch], None, None]:
        """Yield the sequence numbers and all columns of the matching records, in batches."""
        stored = self.layout.of(kind)
        names = ["record"] if kind is OTHERS else list(kind.stored)
        refs = [resolve(kind.stored, name) for name in names]
        source = stored.source
        columns = [stored.table.c[name] for name in names]
        schema = pa.schema([pa.field("sequence", pa.int64()), *projected_schema(refs)])
        for batch in self._scan(stored, [source.sequence, *columns], schema, query):
            yield batch.column(0).to_pylist(), batch.select(names)

    def _columns(self, read: Read, *, private: bool = False) -> Batches:
        """Yield the query's columns of the matching records, with the declared schema."""
        assert read.query.columns is not None
        stored = self.layout.of(read.kind)
        columns = select_list(stored.source, read.query.columns)
        schema = projected_schema(read.query.columns)
        return self._scan(stored, columns, schema, read.query, private=private, is_projection=True)

    def _long_lived(self, read: Read) -> Batches:
        """Yield the same batches to a caller that may keep the iterator for a long time.

        A small result is read completely, and the file is closed before the first batch is yielded.
        For a larger result, the file is opened with a private connection. Other code of this
        process, such as a notebook, can then open the file with `duckdb.connect`.
        """
        small_result, is_large = [], self._is_surely_large(read.query)
        if not is_large:
            size = 0
            with closing(self._columns(read)) as batches:
                for batch in batches:
                    small_result.append(batch)
                    size += batch.nbytes
                    if is_large := size > _SMALL_RESULT:
                        small_result.clear()
                        break
        if is_large:
            yield from self._columns(read, private=True)
        yield from small_result

    def _is_surely_large(self, query: Query) -> bool:
        """Return whether a result is surely not small, so that it need not be read to know it."""
        if query.where or query.limit is not None or query.offset:
            return False
        columns = {field.column for field in query.columns or ()}
        # Records take more memory than in the file, which is compressed.
        return not columns.isdisjoint(_WIDE) and self.database.catalog.size() > _SMALL_RESULT

    def _scan(
        self,
        stored: StoredTable,
        columns: Sequence[Any],
        schema: pa.Schema,
        query: Query,
        *,
        private: bool = False,
        is_projection: bool = False,
    ) -> Batches:
        def first() -> tuple[list[pa.RecordBatch], Batches]:
            batches = scan_table(
                self.database,
                stored,
                columns,
                schema,
                query,
                batch_rows=self.batch_rows,
                private=private,
                is_projection=is_projection,
            )
            return list(islice(batches, 1)), batches

        def scanned() -> Batches:
            batch, rest = self.database.catalog.repeated(first)
            with closing(rest):
                yield from batch
                yield from rest

        return scanned()
