"""The calls that every storage of this package answers, over the few that each must implement.

A storage implements `_save`, `_objects`, `_models`, `_batches`, `_count` and `_import`, each for
one kind of records and one checked `Query`; all public calls follow from those here, so that they
mean the same everywhere.
"""

from __future__ import annotations

import asyncio
from abc import abstractmethod
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar, get_args

from pydantic import BaseModel
from pydantic_core import to_json

from afterimage.storage.atomic_files import written_lines
from afterimage.storage.base import BaseStorage
from afterimage.storage.errors import InvalidQueryError, InvalidRecordError, shorten
from afterimage.storage.fields import CONVERSATIONS, DOCUMENTS, FieldType, Json, RecordTable
from afterimage.storage.models import (
    Conversation,
    ConversationWithContext,
    Document,
    EvaluatedConversationWithContext,
)
from afterimage.storage.query import Columns, Filters, OrderBy, Query, listed, positive
from afterimage.storage.records import matching

if TYPE_CHECKING:  # the JSONL storage alone is not to load it
    import pyarrow as pa

__all__ = ["Kind", "RecordStorage"]

Kind = Literal["conversations", "documents", "records"]
"""Which records: conversations, documents, or those of other models among the conversations."""

_TABLES: Mapping[str, RecordTable] = {"conversations": CONVERSATIONS, "documents": DOCUMENTS}
_Model = TypeVar("_Model", bound=BaseModel)
_Found = TypeVar("_Found")

# Records that one step of a load builds: enough to make its costs vanish, few enough for memory.
_LOAD_BATCH = 4096


class RecordStorage(BaseStorage):
    """What the storages of this package have in common.

    All reads take the same arguments:

    - `limit`, `offset`: most records to give, and records to leave out before them;
    - `filters`: `{field: value}`, or `[(field, op, value), …]` (ANDed), or a list of such lists
      (ORed), with `==` `=` `!=` `<` `<=` `>` `>=` `in` `not in`;
    - `order_by`: `[(field, direction), …]` with direction 1, -1, "asc" or "desc". Null sorts last
      in either direction; ties, and no order at all, follow insertion order.

    A field is a top-level field, or a dotted path into a struct or into metadata. All reads raise
    `UnknownFieldError` for a field that is none and `InvalidQueryError` for what has no meaning,
    both before anything is read.
    """

    # -- what a storage implements ------------------------------------------------------------

    @abstractmethod
    def _save(self, table: RecordTable, records: Sequence[BaseModel]) -> None:
        """Save all of them or none."""

    @abstractmethod
    def _objects(self, kind: Kind, query: Query) -> Iterator[list[dict[str, Any]]]:
        """Matching records as JSON objects, extras included, in bounded lists."""

    @abstractmethod
    def _models(self, table: RecordTable, query: Query, batch_size: int) -> Iterator[list[Any]]:
        """Matching records as validated models, in lists of at most `batch_size`."""

    @abstractmethod
    def _batches(self, table: RecordTable, query: Query) -> Iterator[pa.RecordBatch]:
        """The query's columns of matching records, with the declared schema."""

    @abstractmethod
    def _count(self, kind: Kind, query: Query) -> int:
        """How many records match."""

    @abstractmethod
    def _import(self, table: RecordTable, path: Path) -> int:
        """Save all records of a JSONL file or none; how many."""

    @abstractmethod
    def _own_files(self) -> list[Path]:
        """The files that hold this storage's records."""

    def _refuse_own_file(self, path: Path) -> None:
        for own in self._own_files():
            if path.absolute() == own or (path.exists() and own.exists() and path.samefile(own)):
                raise InvalidQueryError(f"{path} is this storage's own file. Give another one.")

    def _fields(self, table: RecordTable) -> Mapping[str, FieldType]:
        """The fields that filters and sorts may name."""
        return table.record.fields

    # -- conversations ------------------------------------------------------------------------

    def save_conversations(
        self,
        conversations: list[EvaluatedConversationWithContext | ConversationWithContext | BaseModel],
    ) -> None:
        """Save conversations, and records of other models, in the order given.

        All are saved or, where one is refused, none; on return they are on the disk. A subclass's
        own fields are kept, at any depth. A record of another model is kept whole for
        `load_records`.

        Raises:
            InvalidRecordError: a record has no form in JSON, or could not be read back.
            LockTimeoutError: another process held the file for all of `lock_timeout`.
        """
        self._save(CONVERSATIONS, _listed(conversations))

    async def asave_conversations(
        self,
        conversations: list[EvaluatedConversationWithContext | ConversationWithContext | BaseModel],
    ) -> None:
        """`save_conversations` in a worker thread; a subclass that overrides it is honoured."""
        await asyncio.to_thread(self.save_conversations, conversations)

    def load_conversations(  # type: ignore[override]  # lists are invariant; both are documented
        self,
        limit: int | None = None,
        offset: int | None = None,
        filters: Filters = None,
        order_by: OrderBy = None,
    ) -> list[EvaluatedConversationWithContext]:
        """Conversations as validated models.

        Raises:
            InvalidQueryError: see the class.
            CorruptRecordError: something stored is no valid record; names the place.

        >>> from afterimage.storage import Conversation, SQLStorage
        >>> store = SQLStorage("duckdb:///:memory:")
        >>> store.save_conversations(
        ...     [Conversation(conversations=[], metadata={"turn": turn}) for turn in range(5)]
        ... )
        >>> newest = store.load_conversations(
        ...     limit=2, filters=[("metadata.turn", "<", 4)], order_by=[("metadata.turn", -1)]
        ... )
        >>> [conversation.metadata["turn"] for conversation in newest]
        [3, 2]
        """
        query = self._query(CONVERSATIONS, limit, offset, filters, order_by)
        return self._load(CONVERSATIONS, query)

    def iter_conversations(
        self,
        limit: int | None = None,
        offset: int | None = None,
        filters: Filters = None,
        order_by: OrderBy = None,
        *,
        batch_size: int = 1024,
    ) -> Iterator[EvaluatedConversationWithContext]:
        """The records of `load_conversations` one by one, `batch_size` of them in memory."""
        query = self._query(CONVERSATIONS, limit, offset, filters, order_by)
        return self._iterate(CONVERSATIONS, query, batch_size)

    def scan_conversations(
        self,
        columns: Columns = None,
        filters: Filters = None,
        order_by: OrderBy = None,
        limit: int | None = None,
        offset: int | None = None,
    ) -> pa.RecordBatchReader:
        """Conversations as Arrow record batches, in bounded memory; no model is built.

        Args:
            columns: field paths in the order wanted; a dotted path is a column of that name. What
                lies inside metadata comes as text: strings as they are, other values as JSON.
                None gives all declared fields and `extra`.
            filters: as everywhere.
            order_by: as everywhere.
            limit: as everywhere.
            offset: as everywhere.

        Returns:
            A reader of the declared schema; anything that takes an Arrow stream reads it. A
            database file stays open, and so locked for other processes, until the reader is read
            to its end or let go of (`del reader`; its own `close()` does not reach that far).

        >>> from afterimage.storage import Conversation, SQLStorage
        >>> store = SQLStorage("duckdb:///:memory:")
        >>> store.save_conversations([Conversation(conversations=[], metadata={"a": {"b": 1}})])
        >>> store.scan_conversations(columns=["metadata.a.b", "persona"]).read_all().to_pylist()
        [{'metadata.a.b': '1', 'persona': None}]
        """
        return self._scan(CONVERSATIONS, columns, limit, offset, filters, order_by)

    def count_conversations(self, filters: Filters = None) -> int:
        """How many conversations match."""
        return self._count("conversations", self._query(CONVERSATIONS, None, None, filters, None))

    # -- documents ----------------------------------------------------------------------------

    def save_documents(self, documents: list[Document]) -> None:
        """Save documents in the order given: all or, where one is refused, none.

        Raises:
            InvalidRecordError: a record is no document, or has no form in JSON.
            LockTimeoutError: another process held the file for all of `lock_timeout`.
        """
        self._save(DOCUMENTS, _listed(documents))

    async def asave_documents(self, documents: list[Document]) -> None:
        """`save_documents` in a worker thread; a subclass that overrides it is honoured."""
        await asyncio.to_thread(self.save_documents, documents)

    def load_documents(
        self,
        limit: int | None = None,
        offset: int | None = None,
        filters: Filters = None,
        order_by: OrderBy = None,
    ) -> list[Document]:
        """Documents as validated models; see `load_conversations`."""
        return self._load(DOCUMENTS, self._query(DOCUMENTS, limit, offset, filters, order_by))

    def iter_documents(
        self,
        limit: int | None = None,
        offset: int | None = None,
        filters: Filters = None,
        order_by: OrderBy = None,
        *,
        batch_size: int = 1024,
    ) -> Iterator[Document]:
        """The records of `load_documents` one by one, `batch_size` of them in memory."""
        query = self._query(DOCUMENTS, limit, offset, filters, order_by)
        return self._iterate(DOCUMENTS, query, batch_size)

    def scan_documents(
        self,
        columns: Columns = None,
        filters: Filters = None,
        order_by: OrderBy = None,
        limit: int | None = None,
        offset: int | None = None,
    ) -> pa.RecordBatchReader:
        """Documents as Arrow record batches; see `scan_conversations`."""
        return self._scan(DOCUMENTS, columns, limit, offset, filters, order_by)

    def count_documents(self, filters: Filters = None) -> int:
        """How many documents match."""
        return self._count("documents", self._query(DOCUMENTS, None, None, filters, None))

    # -- records of any model -----------------------------------------------------------------

    def load_records(
        self,
        model: type[_Model],
        limit: int | None = None,
        offset: int | None = None,
        filters: Filters = None,
        order_by: OrderBy = None,
    ) -> list[_Model]:
        """Saved records as `model`: those whose keys are all fields of it and that validate as it.

        For a subclass of `Conversation` these are conversations, with the subclass's own fields;
        for any other model, the records that are no conversations. Filters and sorts may name the
        model's own fields and what lies inside them.

        >>> from afterimage.storage import SQLStorage
        >>> class Note(BaseModel):
        ...     text: str
        >>> store = SQLStorage("duckdb:///:memory:")
        >>> store.save_conversations([Note(text="one"), Note(text="two")])
        >>> store.load_records(Note, filters=[("text", ">", "one")])
        [Note(text='two')]
        >>> store.load_conversations()
        []
        """
        if not (isinstance(model, type) and issubclass(model, BaseModel)):
            raise InvalidQueryError(f"a model is a pydantic class, not {shorten(repr(model), 60)}")
        own: dict[str, FieldType] = {name: Json() for name in model.model_fields}
        kind: Kind = "records"
        if issubclass(model, Conversation):
            # The model's own fields come before columns of the storage of the same name.
            kind = "conversations"
            own = {**self._fields(CONVERSATIONS), **own, **CONVERSATIONS.record.fields}
        query = Query.of(own, limit=limit, offset=offset, filters=filters, order_by=order_by)
        match = matching(model)
        found = (
            record
            for objects in self._objects(kind, query.without_slice())
            for record in map(match, objects)
            if record is not None
        )
        return list(islice(islice(found, query.offset, None), query.limit))

    # -- files --------------------------------------------------------------------------------

    def import_jsonl(self, path: str | Path, *, kind: Kind = "conversations") -> int:
        """Save every record of a JSONL file, in its order: all of them, or none.

        Args:
            path: a `.jsonl` file, or one packed as `.jsonl.gz` or `.jsonl.zst`.
            kind: what its lines are; "conversations" takes records of other models, too.

        Returns:
            How many records were saved.

        Raises:
            CorruptRecordError: a line is no valid record; names it.
            MissingFileError: there is no such file.
        """
        if kind == "records":
            kind = "conversations"
        return self._import(_TABLES[_checked(kind)], Path(path))

    def export_jsonl(
        self,
        path: str | Path,
        *,
        kind: Kind = "conversations",
        filters: Filters = None,
        order_by: OrderBy = None,
        limit: int | None = None,
        offset: int | None = None,
    ) -> int:
        """Write matching records to a JSONL file, a record a line, whole as they were saved.

        The file appears when it is complete; whatever was there before stays until then.

        Args:
            path: `.jsonl`, or `.jsonl.gz` or `.jsonl.zst` to have it packed.
            kind: "conversations", "documents", or "records" for those of other models.
            filters: as everywhere; of "records", any field.
            order_by: as everywhere.
            limit: as everywhere.
            offset: as everywhere.

        Returns:
            How many records were written.
        """
        if _checked(kind) == "records":
            query = Query.of(
                _AnyField(), limit=limit, offset=offset, filters=filters, order_by=order_by
            )
        else:
            query = self._query(_TABLES[kind], limit, offset, filters, order_by)
        written = 0
        self._refuse_own_file(Path(path))
        with written_lines(Path(path)) as file, _closed_after(self._objects(kind, query)) as found:
            for objects in found:
                file.write(b"".join(chain.from_iterable((to_json(o), b"\n") for o in objects)))
                written += len(objects)
        return written

    def export_parquet(
        self,
        path: str | Path,
        *,
        kind: Kind = "conversations",
        columns: Columns = None,
        filters: Filters = None,
        order_by: OrderBy = None,
        limit: int | None = None,
        offset: int | None = None,
        partition_by: Columns = None,
        compression: str = "zstd",
        row_group_bytes: int = 64 * 2**20,
    ) -> int:
        """Write matching records to Parquet, streaming.

        The file or folder appears when it is complete.

        Args:
            path: the file or, with `partition_by`, a new folder.
            kind: "conversations" or "documents".
            columns: as in a scan.
            filters: as everywhere.
            order_by: as everywhere.
            limit: as everywhere.
            offset: as everywhere.
            partition_by: fields whose values make Hive folders, `metadata.domain=Flights/…`.
            compression: "zstd", "snappy", "gzip", "lz4", "brotli" or "none".
            row_group_bytes: about how many bytes of Arrow data make a row group.

        Returns:
            How many records were written.
        """
        from afterimage.storage.parquet import write_parquet  # noqa: PLC0415  heavy

        if _checked(kind) == "records":
            raise InvalidQueryError(
                "records of other models have no declared columns; export_jsonl writes them"
            )
        table = _TABLES[kind]
        names = list(table.stored if columns is None else listed(columns, "columns"))
        partitions = list(listed(partition_by, "partition_by"))
        names += [name for name in partitions if name not in names]
        self._refuse_own_file(Path(path))
        query = self._query(table, limit, offset, filters, order_by, names)
        with _closed_after(self._batches(table, query)) as batches:
            return write_parquet(
                Path(path),
                table,
                query,
                batches,
                partition_by=partitions,
                compression=compression,
                row_group_bytes=row_group_bytes,
            )

    # -- what the above share -----------------------------------------------------------------

    def _query(
        self,
        table: RecordTable,
        limit: int | None,
        offset: int | None,
        filters: Filters,
        order_by: OrderBy,
        columns: Columns = None,
    ) -> Query:
        fields = self._fields(table)
        return Query.of(
            fields,
            limit=limit,
            offset=offset,
            filters=filters,
            order_by=order_by,
            columns=columns,
            projectable={**fields, **table.stored},
        )

    def _load(self, table: RecordTable, query: Query) -> list[Any]:
        return list(chain.from_iterable(self._models(table, query, _LOAD_BATCH)))

    def _iterate(self, table: RecordTable, query: Query, batch_size: int) -> Iterator[Any]:
        return chain.from_iterable(self._models(table, query, positive(batch_size, "batch_size")))

    def _scan(
        self,
        table: RecordTable,
        columns: Columns,
        limit: int | None,
        offset: int | None,
        filters: Filters,
        order_by: OrderBy,
    ) -> pa.RecordBatchReader:
        import pyarrow as pa  # noqa: PLC0415  heavy: not with the JSONL storage

        from afterimage.storage.schema import projected_schema  # noqa: PLC0415

        names = list(table.stored) if columns is None else columns
        query = self._query(table, limit, offset, filters, order_by, names)
        assert query.columns is not None
        return pa.RecordBatchReader.from_batches(
            projected_schema(query.columns), self._batches(table, query)
        )


class _AnyField(Mapping[str, FieldType]):
    """Fields of records whose model is not known: any name, any value."""

    def __getitem__(self, name: str) -> FieldType:
        return Json()

    def __iter__(self) -> Iterator[str]:
        return iter(())

    def __len__(self) -> int:
        return 0


@contextmanager
def _closed_after(found: Iterator[_Found]) -> Iterator[Iterator[_Found]]:
    """Let go of the storage's files even where an error, which is kept, keeps the iterator."""
    try:
        yield found
    finally:
        if isinstance(found, Generator):
            found.close()


def _checked(kind: str) -> str:
    if kind not in get_args(Kind):
        raise InvalidQueryError(
            f"unknown kind {shorten(repr(kind), 40)}; use {', '.join(map(repr, get_args(Kind)))}"
        )
    return kind


def _listed(records: Any) -> list[BaseModel]:
    if isinstance(records, BaseModel | str | Mapping) or not isinstance(records, Iterable):
        raise InvalidRecordError(
            f"give a list of records, not one {type(records).__name__}: [record]"
        )
    return list(records)
