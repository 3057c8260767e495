"""`SQLStorage`: records in a DuckDB database, columnar, behind SQLAlchemy.

The invariants: a save is one transaction; a row's sequence number is greater than that of every row
saved before it; the file is open during calls only.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import replace
from functools import partial
from itertools import chain, islice
from pathlib import Path
from tempfile import SpooledTemporaryFile
from typing import Any

import pyarrow as pa
import sqlalchemy as sa
from pydantic import BaseModel
from pydantic_core import to_json

from afterimage.storage.engine.database import (
    MUCH_KEPT,
    execute,
    fetch_all,
    open_database,
    streamed,
)
from afterimage.storage.errors import (
    CorruptRecordError,
    InvalidQueryError,
    InvalidRecordError,
    shorten,
)
from afterimage.storage.jsonl.batches import batch_of_lines, regrouped
from afterimage.storage.jsonl.checks import importable, sound_chunks
from afterimage.storage.jsonl.lines import Chunk, read_chunks
from afterimage.storage.models import Conversation
from afterimage.storage.query.counts import counted
from afterimage.storage.query.predicates import Source, select_list
from afterimage.storage.query.query import Query, is_text, listed, positive, resolve
from afterimage.storage.query.relations import RecordSource, TableSource
from afterimage.storage.record_storage import Kind, RecordStorage
from afterimage.storage.records.arrow import rows_of, to_batch, to_objects, without_extra
from afterimage.storage.records.fields import CONVERSATIONS, FieldType, RecordTable
from afterimage.storage.records.kinds import RECORD_TABLES
from afterimage.storage.records.objects import (
    check,
    is_conversation,
    list_adapter,
    to_object,
)
from afterimage.storage.records.schema import arrow_type, projected_schema
from afterimage.storage.reports.faults import CorruptRecords
from afterimage.storage.reports.progress import Progress, followed, tell, unseen
from afterimage.storage.reports.verification import Verification
from afterimage.storage.system.gc_pause import paused_collector
from afterimage.storage.system.interrupts import checkpoint, deferred_signals
from afterimage.storage.system.prefetch import prefetched
from afterimage.storage.tables.checks import UNREADABLE, RowFaults, record_object
from afterimage.storage.tables.layout import Layout, StoredTable
from afterimage.storage.tables.select import SMALL_PAGE, scan_table
from afterimage.storage.tables.verify import verify_database

__all__ = ["SQLStorage"]

Batches = Generator[pa.RecordBatch, None, None]

# As many rows as DuckDB works on at a time, and as a row group of ours has.
_BATCH_ROWS = 2048

# So many bytes of records of other models an import holds in memory.
_HELD_IN_MEMORY = 16 * 2**20

# Up to so many bytes, what a caller may keep for long is read at once.
_SMALL_RESULT = 4 * 2**20


class SQLStorage(RecordStorage):
    """Conversations and documents in a DuckDB file, or in memory.

    Between calls the file is not locked, so that the DuckDB CLI, notebooks and generators can take
    turns on it. In the database are the tables of conversations and documents with native nested
    columns, a view `messages` with one row a message, and a table `records` for other models (with
    a table name of your own: `<name>_messages`, `<name>_records`).

    Args:
        url: `duckdb:///file.duckdb` or `duckdb:///:memory:`.
        conversations_table_name: name of the conversations' table.
        documents_table_name: name of the documents' table.
        metadata_fields: metadata keys of conversations that get columns of their own: `<key>`
            holds what `metadata->>'key'` gives and `<key>_type` the type of the value. Filters and
            sorts on them then cost what a column costs. An existing database gets them filled in.
        batch_size: rows of the Arrow record batches in which a save is handed to DuckDB; those of
            large saves have 2,048 at least.
        lock_timeout: seconds to wait while another process has the file open.

    Raises:
        UnsupportedURLError: the URL is of another dialect.
        SchemaMismatchError: a table of that name is there, with other columns.
        MissingFileError: the file's folder does not exist.
        LockTimeoutError: another process held the file throughout.
        DatabaseError: the file is no DuckDB database.

    >>> from afterimage.storage import Conversation
    >>> store = SQLStorage("duckdb:///:memory:", metadata_fields=["domain"])
    >>> talk = [{"role": "user", "content": "To Rome, please."}]
    >>> store.save_conversations([Conversation(conversations=talk, metadata={"domain": "Flights"})])
    >>> with store.engine.connect() as connection:
    ...     connection.exec_driver_sql("SELECT domain, content FROM conversations, messages").all()
    [('Flights', 'To Rome, please.')]
    """

    def __init__(
        self,
        url: str,
        conversations_table_name: str = "conversations",
        documents_table_name: str = "documents",
        metadata_fields: list[str] | None = None,
        batch_size: int = 100,
        *,
        lock_timeout: float = 30,
    ) -> None:
        keys = _metadata_keys(metadata_fields)
        self.batch_size = positive(batch_size, "batch_size")
        self.lock_timeout = lock_timeout
        self._layout = Layout(conversations_table_name, documents_table_name)
        with deferred_signals():
            self._database = open_database(
                url, lock_timeout, partial(self._layout.create, metadata_fields=keys)
            )
            if self._database.is_new:
                return
            with self._database.reading() as connection:
                ready = self._layout.is_ready(connection, keys)
            if not ready:
                with self._database.writing() as connection:
                    self._layout.create(connection, keys)

    @property
    def engine(self) -> sa.Engine:
        """The SQLAlchemy engine, for SQL by hand and for `pandas.read_sql`."""
        return self._database.engine

    def __repr__(self) -> str:
        return f"SQLStorage({self._database.name!r})"

    # -- writing ------------------------------------------------------------------------------

    def _save(self, table: RecordTable, records: Sequence[BaseModel]) -> None:
        declared, others = _by_kind(table, records)
        if not records:
            return
        # The first of them before the file is opened, the rest while DuckDB takes them in.
        batches = self._converted(table, declared)
        first = list(islice(batches, 1))
        with self._database.writing() as connection, paused_collector():
            self._layout.refresh(connection)
            saved_at = _now()
            if first:
                self._insert(connection, self._stored(table), chain(first, batches), saved_at)
            if others:
                self._insert_others(connection, others, saved_at)

    def _converted(
        self, table: RecordTable, records: Sequence[BaseModel]
    ) -> Iterator[pa.RecordBatch]:
        # Batches are made at their size, not sliced to it: DuckDB misreads structs of a slice.
        size = max(self.batch_size, _BATCH_ROWS)
        for start in range(0, len(records), size):
            checkpoint()
            some = records[start : start + size]
            yield to_batch(table, rows_of(table, some, start), start)

    def _insert(
        self,
        connection: sa.Connection,
        stored: StoredTable,
        batches: Iterable[pa.RecordBatch],
        saved_at: dt.datetime,
    ) -> None:
        """Append batches, each with the columns of the declared schema, in their order."""
        columns = [name for name in stored.fields if name not in (stored.sequence, "timestamp")]
        schema = pa.schema(
            [
                pa.field("sequence", pa.int64()),
                *(pa.field(name, arrow_type(stored.fields[name])) for name in columns),
            ]
        )
        numbered = _numbered(batches, schema, _next_in_sequence(connection, stored))
        with streamed(connection, schema, numbered) as incoming:
            values: dict[str, Any] = {
                stored.sequence: incoming.c.sequence,
                "timestamp": sa.literal(saved_at),
                **{name: incoming.c[name] for name in columns},
            }
            if "metadata" in columns:
                values |= stored.metadata_values(values["metadata"], stored.metadata_columns)
            execute(
                connection,
                stored.table.insert().from_select(list(values), sa.select(*values.values())),
            )

    def _insert_others(
        self, connection: sa.Connection, others: Iterable[tuple[str, bytes]], saved_at: dt.datetime
    ) -> None:
        def batches() -> Iterator[pa.RecordBatch]:
            left = iter(others)
            while some := list(islice(left, _BATCH_ROWS)):
                names, texts = zip(*some, strict=True)
                columns = {
                    "model": pa.array(names, pa.large_string()),
                    "record": pa.array(texts, pa.large_string()),
                }
                yield pa.RecordBatch.from_pydict(columns)

        self._insert(connection, self._layout.records, batches(), saved_at)

    def _import(
        self, table: RecordTable, path: Path, corrupt: CorruptRecords, progress: Progress
    ) -> int:
        chunks = read_chunks(path)
        if corrupt.skipped:
            chunks = sound_chunks(chunks, importable(table), corrupt)
        # Batches of whole row groups: of others DuckDB makes smaller ones, and writes them anew.
        chunks = regrouped(chunks, _BATCH_ROWS)
        saved = 0
        saved_at = _now()
        with SpooledTemporaryFile(max_size=_HELD_IN_MEMORY) as others:

            def batches(some: Iterable[Chunk]) -> Iterator[pa.RecordBatch]:
                nonlocal saved
                for chunk in some:
                    with paused_collector():
                        batch, lines = batch_of_lines(table, chunk)
                    others.writelines(line + b"\n" for line in lines)
                    saved += len(batch) + len(lines)
                    tell(progress, len(batch) + len(lines), chunk.share)
                    yield batch

            with self._database.writing() as connection:
                self._layout.refresh(connection)
                # Few statements, as each of them writes out what it still holds of a row group.
                for at, first in enumerate(chunks):
                    if at:
                        self._database.keep_little(connection, 0)
                    some = chain([first], self._until_much_is_written(chunks))
                    self._insert(connection, self._stored(table), batches(some), saved_at)
                if others.tell():
                    others.seek(0)
                    unnamed = (("", line[:-1]) for line in others)
                    self._insert_others(connection, unnamed, saved_at)
        return saved

    def _until_much_is_written(self, chunks: Iterator[Chunk]) -> Iterator[Chunk]:
        """As many chunks as DuckDB may keep in memory what it has written of them."""
        end = self._database.size + MUCH_KEPT
        while self._database.size < end and (chunk := next(chunks, None)) is not None:
            yield chunk

    def _own_files(self) -> list[Path]:
        return [] if self._database.name.startswith(":memory:") else [Path(self._database.name)]

    # -- reading ------------------------------------------------------------------------------

    def _fields(self, table: RecordTable) -> Mapping[str, FieldType]:
        return {**table.record.fields, **table.system}

    def _stored(self, table: RecordTable) -> StoredTable:
        return self._layout.of(table.kind)

    def _count(self, kind: Kind, query: Query, corrupt: CorruptRecords) -> int:
        with self._relation(kind, query, corrupt, unseen) as found:
            return counted(*found)

    @contextmanager
    def _relation(
        self, kind: Kind, query: Query, corrupt: CorruptRecords, progress: Progress
    ) -> Iterator[tuple[sa.Connection, sa.FromClause, Source, Query]]:
        del progress  # a table can be read in parts, by who can then tell how many are read
        query = self._sound(kind, query, corrupt)
        source, table = self._source(kind)
        with self._database.reading() as connection:
            yield connection, table, source, query

    def _objects(
        self, kind: Kind, query: Query, corrupt: CorruptRecords, progress: Progress
    ) -> Generator[list[dict[str, Any]], None, None]:
        query = self._sound(kind, query, corrupt, whole=True)
        for _, batch in self._rows(kind, query):
            try:
                if kind == "records":
                    found = [record_object(text) for text in batch.column(0).to_pylist()]
                else:
                    found = to_objects(RECORD_TABLES[kind], batch)
            except UNREADABLE as error:
                raise self._faults(kind, whole=True).first(query, error) from None
            yield found
            progress(len(found))

    def _models(
        self, table: RecordTable, query: Query, batch_size: int, corrupt: CorruptRecords
    ) -> Iterator[list[Any]]:
        query = self._sound(table.kind, query, corrupt)
        batches = self._projected(table, _declared(table, query))
        # The next range is read meanwhile; what a load gives is all in memory in the end.
        return self._validated(table, query, batches, batch_size, ahead=4)

    def _held_models(
        self, table: RecordTable, query: Query, batch_size: int, corrupt: CorruptRecords
    ) -> Iterator[list[Any]]:
        query = self._sound(table.kind, query, corrupt)
        batches = self._held(table, _declared(table, query))
        return self._validated(table, query, batches, batch_size, ahead=1)

    def _validated(
        self, table: RecordTable, query: Query, batches: Batches, batch_size: int, ahead: int
    ) -> Iterator[list[Any]]:
        """The models of batches with the declared fields of a query's records."""
        validate = list_adapter(table).validate_python
        many = query.limit is None or query.limit > SMALL_PAGE  # for less, a thread costs more
        # Closed here, and not when an error lets go of it, by when the connection may be gone.
        with closing(prefetched(batches, ahead) if many else batches) as found:
            for batch in found:
                for at in range(0, batch.num_rows, batch_size):
                    checkpoint()
                    try:
                        with paused_collector():
                            some = batch.slice(at, batch_size)
                            models = validate(without_extra(table, some, members=True))
                    except ValueError as error:
                        raise self._faults(table.kind, whole=False).first(query, error) from None
                    yield models

    def _sound(
        self, kind: str, query: Query, corrupt: CorruptRecords, *, whole: bool = False
    ) -> Query:
        """The query without the rows that hold no valid record, if they are to be skipped."""
        return self._faults(kind, whole=whole).left_out(query, corrupt)

    def _faults(self, kind: str, *, whole: bool) -> RowFaults:
        stored, rows = self._layout.of(kind), partial(self._rows, kind)
        return RowFaults(self._database.name, stored, rows, whole=whole)

    def _rows(
        self, kind: str, query: Query
    ) -> Generator[tuple[list[int], pa.RecordBatch], None, None]:
        """Whole rows of matching records, and the sequence number of each."""
        source, stored = self._source(kind)
        columns: list[sa.ColumnElement[Any]]
        if kind == "records":
            columns, fields = [stored.c.record], [_RECORD]
        else:
            known = RECORD_TABLES[kind].stored
            refs = [resolve(known, name) for name in known]
            columns, fields = select_list(source, refs), list(projected_schema(refs))
        schema = pa.schema([pa.field("sequence", pa.int64()), *fields])
        for batch in scan_table(
            self._database, source, stored, [source.sequence, *columns], schema, query
        ):
            yield batch.column(0).to_pylist(), batch.select(schema.names[1:])

    def _batches(
        self, table: RecordTable, query: Query, corrupt: CorruptRecords, progress: Progress
    ) -> Batches:
        query = self._sound(table.kind, query, corrupt)
        yield from followed(self._projected(table, query), progress)

    def _held_batches(
        self, table: RecordTable, query: Query, corrupt: CorruptRecords, progress: Progress
    ) -> Batches:
        query = self._sound(table.kind, query, corrupt)
        yield from followed(self._held(table, query), progress)

    def _projected(self, table: RecordTable, query: Query, *, by_hand: bool = False) -> Batches:
        assert query.columns is not None
        source, stored = self._source(table.kind)
        columns = select_list(source, query.columns)
        schema = projected_schema(query.columns)
        return scan_table(self._database, source, stored, columns, schema, query, by_hand=by_hand)

    def _held(self, table: RecordTable, query: Query) -> Batches:
        """What is small is read at once, and the file let go of before the first batch is given.

        For more, the file is opened as a notebook opens it, which so may join in meanwhile.
        """
        found, size = [], 0
        with closing(self._projected(table, query)) as batches:
            for batch in batches:
                found.append(batch)
                size += batch.nbytes
                if size > _SMALL_RESULT:
                    found.clear()
                    break
        if size > _SMALL_RESULT:
            yield from self._projected(table, query, by_hand=True)
        yield from found

    def _verify(self, progress: Progress | None) -> Verification:
        def faults(kind: str, read: Progress) -> Iterator[CorruptRecordError]:
            return self._faults(kind, whole=True).matching(Query(), read)

        return verify_database(self._database, self._layout, faults, progress)

    def _texts(
        self,
        query: Query,
        text: Callable[[Source], Any],
        corrupt: CorruptRecords,
        progress: Progress,
    ) -> Batches:
        query = self._sound("conversations", query, corrupt)
        source, stored = self._source("conversations")
        schema = pa.schema([pa.field("text", pa.large_string())])
        found = scan_table(self._database, source, stored, [text(source)], schema, query)
        return followed(found, progress)

    def _source(self, kind: str) -> tuple[Source, sa.Table]:
        stored = self._layout.of(kind)
        table = stored.table
        if stored.record_table is None:
            return RecordSource(table.c.record, table.c.id), table
        return TableSource(stored.record_table, table, stored.metadata_columns), table


_RECORD = pa.field("record", pa.large_string())


def _declared(table: RecordTable, query: Query) -> Query:
    fields = table.record.fields
    return replace(query, columns=tuple(resolve(fields, name) for name in fields))


def _next_in_sequence(connection: sa.Connection, stored: StoredTable) -> int:
    column = stored.table.c[stored.sequence]
    return int(fetch_all(connection, sa.select(sa.func.max(column)))[0][0] or 0) + 1


def _numbered(
    batches: Iterable[pa.RecordBatch], schema: pa.Schema, first: int
) -> Iterator[pa.RecordBatch]:
    """The batches with the sequence before their columns, counting from `first`."""
    for batch in batches:
        numbers = pa.array(range(first, first + len(batch)), pa.int64())
        yield pa.RecordBatch.from_arrays([numbers, *batch.columns], schema=schema)
        first += len(batch)


def _by_kind(
    table: RecordTable, records: Sequence[BaseModel]
) -> tuple[Sequence[BaseModel], list[tuple[str, bytes]]]:
    """The records for `table`, and those of other models as class name and JSON text."""
    if table is not CONVERSATIONS or all(isinstance(record, Conversation) for record in records):
        return records, []
    declared: list[BaseModel] = []
    others: list[tuple[str, bytes]] = []
    for at, record in enumerate(records):
        if isinstance(record, Conversation):
            declared.append(record)
            continue
        checkpoint()
        try:
            found = check(to_object(record), type(record))
        except InvalidRecordError as error:
            raise InvalidRecordError(f"record {at} of the batch: {error}") from None
        if is_conversation(found):
            declared.append(record)
        else:
            others.append((type(record).__name__, to_json(found)))
    return declared, others


def _metadata_keys(metadata_fields: Sequence[str] | None) -> list[str]:
    keys = list(listed(metadata_fields, "metadata_fields"))
    if not all(isinstance(key, str) and is_text(key) for key in keys):
        raise InvalidQueryError(
            f"metadata_fields is a list of metadata keys, not {shorten(ascii(metadata_fields), 80)}"
        )
    return list(dict.fromkeys(keys))


def _now() -> dt.datetime:
    """The time of a save: UTC, without a zone, as the column has it."""
    return dt.datetime.now(dt.UTC).replace(tzinfo=None)
