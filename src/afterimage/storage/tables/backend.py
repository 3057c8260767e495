"""`TablesBackend`: what a backend answers, over the tables of a DuckDB database.

The invariants: a save is one transaction; a row's sequence number is greater than that of every row
saved before it; the file is open during calls only.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import replace
from functools import partial
from itertools import chain, islice
from pathlib import Path
from tempfile import SpooledTemporaryFile
from typing import Any

import pyarrow as pa
from pydantic import BaseModel

from afterimage.storage.engine.database import MUCH_CACHED, Database
from afterimage.storage.errors import CorruptRecordError
from afterimage.storage.jsonl.batches import batch_of_lines, regrouped
from afterimage.storage.jsonl.checks import importable, valid_chunks
from afterimage.storage.jsonl.lines import Chunk, read_chunks
from afterimage.storage.query.predicates import select_list
from afterimage.storage.query.query import Query
from afterimage.storage.query.read import Read
from afterimage.storage.query.relations import Relation, Source
from afterimage.storage.records.arrow import to_objects, without_extra
from afterimage.storage.records.fields import (
    CONVERSATIONS,
    OTHERS,
    FieldType,
    RecordKind,
)
from afterimage.storage.records.paths import resolve
from afterimage.storage.records.schema import projected_schema
from afterimage.storage.records.validation import list_adapter
from afterimage.storage.reports.progress import Progress, counting, report
from afterimage.storage.reports.verification import Verification
from afterimage.storage.system.gc_pause import paused_collector
from afterimage.storage.system.prefetch import prefetched
from afterimage.storage.tables.checks import UNREADABLE, RowFaults, record_object
from afterimage.storage.tables.insert import Insert, batches_of_models, split_by_kind
from afterimage.storage.tables.layout import VECTOR_ROWS, Layout, StoredTable
from afterimage.storage.tables.select import SMALL_PAGE, scan_table
from afterimage.storage.tables.verify import verify_database

__all__ = ["TablesBackend"]

Batches = Generator[pa.RecordBatch, None, None]

# An import holds so many bytes of records of other models in memory.
_OTHERS_IN_MEMORY = 16 * 2**20

# A result of up to so many bytes is read at once where the caller may keep the iterator for long.
_SMALL_RESULT = 4 * 2**20


class TablesBackend:
    """Conversations, documents and records of other models, each in a table of their own.

    Attributes:
        mixes_kinds: each kind has a table of its own.

    Args:
        database: where the tables are; it has them.
        layout: the tables.
        batch_rows: records that one record batch holds at most; None for the engine's own size.
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
        return kind.record.fields if kind is OTHERS else {**kind.record.fields, **kind.system}

    def read_weights(self, kinds: Sequence[RecordKind]) -> list[float]:
        # Counting documents and other records costs nothing beside a read of the conversations.
        return [float(kind is CONVERSATIONS) for kind in kinds]

    # -- writing ------------------------------------------------------------------------------

    def append(self, kind: RecordKind, records: Sequence[BaseModel]) -> None:
        if not records:
            return
        declared, others = split_by_kind(kind, records)
        # The first batch is built before the file is opened, the others while DuckDB inserts.
        batches = batches_of_models(kind, declared, self._insert_rows)
        first = list(islice(batches, 1))
        with self.database.writing() as connection, paused_collector():
            self.layout.refresh(connection)
            insert = Insert(self.database, connection)
            if first:
                insert.batches(self.layout.of(kind), chain(first, batches))
            if others:
                insert.others(self.layout.records, others, self._insert_rows)

    def append_file(self, path: Path, read: Read) -> int:
        chunks = read_chunks(path)
        if read.faults.skip:
            chunks = valid_chunks(chunks, importable(read.kind), read.faults)
        # Batches of whole row groups: DuckDB writes smaller ones again later.
        chunks = regrouped(chunks, self._insert_rows)
        saved = 0
        with SpooledTemporaryFile(max_size=_OTHERS_IN_MEMORY) as others:

            def batches(some: Iterable[Chunk]) -> Iterator[pa.RecordBatch]:
                nonlocal saved
                for chunk in some:
                    with paused_collector():
                        batch, lines = batch_of_lines(read.kind, chunk)
                    others.writelines(line + b"\n" for line in lines)
                    saved += len(batch) + len(lines)
                    report(read.progress, len(batch) + len(lines), chunk.share)
                    yield batch

            with self.database.writing() as connection:
                self.layout.refresh(connection)
                insert = Insert(self.database, connection)
                # Few statements: each of them writes out the row group that it has begun.
                for at, first in enumerate(chunks):
                    if at:
                        self.database.trim_cache(connection, 0)
                    some = chain([first], self._until_much_is_written(chunks))
                    insert.batches(self.layout.of(read.kind), batches(some))
                if others.tell():
                    others.seek(0)
                    unnamed = (("", line[:-1]) for line in others)
                    insert.others(self.layout.records, unnamed, self._insert_rows)
        return saved

    @property
    def _insert_rows(self) -> int:
        return self.batch_rows or VECTOR_ROWS

    def _until_much_is_written(self, chunks: Iterator[Chunk]) -> Iterator[Chunk]:
        """As many chunks as DuckDB may keep in memory what it has written of them."""
        size = self.database.catalog.size
        end = size() + MUCH_CACHED
        while size() < end and (chunk := next(chunks, None)) is not None:
            yield chunk

    # -- reading ------------------------------------------------------------------------------

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
            source = stored.source
            batches = self._scan(stored, [text(source)], schema, read.query)
        else:
            batches = self._long_lived(read) if read.long_lived else self._columns(read)
        yield from counting(batches, read.progress)

    def objects(self, read: Read) -> Generator[list[dict[str, Any]], None, None]:
        read = self._valid(read, whole=True)
        kind = read.kind
        for _, batch in self._rows(kind, read.query):
            try:
                if kind is OTHERS:
                    found = [record_object(text) for text in batch.column("record").to_pylist()]
                else:
                    found = to_objects(kind, batch)
            except UNREADABLE as error:
                raise self._faults(kind, whole=True).first(read.query, error) from None
            yield found
            read.progress(len(found))

    def models(self, read: Read, batch_size: int) -> Iterator[list[Any]]:
        read = self._valid(read)
        fields = read.kind.record.fields
        columns = tuple(resolve(fields, name) for name in fields)
        declared = read.over(replace(read.query, columns=columns))
        # Some ranges are read ahead; in the end a load has everything in memory, an iterator not.
        if read.long_lived:
            return self._validated(read, self._long_lived(declared), batch_size, ahead=1)
        return self._validated(read, self._columns(declared), batch_size, ahead=4)

    def _validated(
        self, read: Read, batches: Batches, batch_size: int, ahead: int
    ) -> Iterator[list[Any]]:
        """The models of batches that have the declared fields."""
        kind, query = read.kind, read.query
        validate = list_adapter(kind).validate_python
        many = query.limit is None or query.limit > SMALL_PAGE  # for fewer, a thread costs more
        # Close now: an exception could keep this generator alive longer than its connection.
        with closing(prefetched(batches, ahead) if many else batches) as found:
            for batch in found:
                for at in range(0, batch.num_rows, batch_size):
                    try:
                        with paused_collector():
                            some = batch.slice(at, batch_size)
                            models = validate(without_extra(kind, some, members=True))
                    except ValueError as error:
                        raise self._faults(kind, whole=False).first(query, error) from None
                    yield models

    def verify(self, progress: Progress | None) -> Verification:
        def faults(stored: StoredTable, progress: Progress) -> Iterator[CorruptRecordError]:
            return self._faults(stored.kind, whole=True).matching(Query(), progress)

        return verify_database(self.database, self.layout, faults, progress)

    def _valid(self, read: Read, *, whole: bool = False) -> Read:
        """The read without the rows that hold no valid record, if they are skipped."""
        faults = self._faults(read.kind, whole=whole)
        return read.over(faults.excluded(read.query, read.faults))

    def _faults(self, kind: RecordKind, *, whole: bool) -> RowFaults:
        rows = partial(self._rows, kind)
        return RowFaults(self.database.name, self.layout.of(kind), rows, whole=whole)

    def _rows(
        self, kind: RecordKind, query: Query
    ) -> Generator[tuple[list[int], pa.RecordBatch], None, None]:
        """Whole rows of matching records, with their sequence numbers."""
        stored = self.layout.of(kind)
        names = ["record"] if kind is OTHERS else list(kind.stored)
        refs = [resolve(kind.stored, name) for name in names]
        source = stored.source
        columns = [stored.table.c[name] for name in names]
        schema = pa.schema([pa.field("sequence", pa.int64()), *projected_schema(refs)])
        for batch in self._scan(stored, [source.sequence, *columns], schema, query):
            yield batch.column(0).to_pylist(), batch.select(names)

    def _columns(self, read: Read, *, private: bool = False) -> Batches:
        """The query's columns, with the declared schema."""
        assert read.query.columns is not None
        stored = self.layout.of(read.kind)
        columns = select_list(stored.source, read.query.columns)
        schema = projected_schema(read.query.columns)
        return self._scan(stored, columns, schema, read.query, private=private)

    def _long_lived(self, read: Read) -> Batches:
        """The same for a caller that may keep the iterator.

        A small result is read at once, and the file is closed before the first batch is given. For
        a larger one, the file is opened as a notebook opens it, so that a notebook can open it too.
        """
        found, size = [], 0
        with closing(self._columns(read)) as batches:
            for batch in batches:
                found.append(batch)
                size += batch.nbytes
                if size > _SMALL_RESULT:
                    found.clear()
                    break
        if size > _SMALL_RESULT:
            yield from self._columns(read, private=True)
        yield from found

    def _scan(
        self,
        stored: StoredTable,
        columns: Sequence[Any],
        schema: pa.Schema,
        query: Query,
        *,
        private: bool = False,
    ) -> Batches:
        return scan_table(
            self.database,
            stored,
            columns,
            schema,
            query,
            batch_rows=self.batch_rows,
            private=private,
        )
