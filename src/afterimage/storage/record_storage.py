"""`RecordStorage`: the public methods that all storages share, implemented on a backend.

The methods that read or write other files are in `import_export.py`.
"""

from __future__ import annotations

from collections.abc import Generator
from contextlib import closing
from dataclasses import replace
from itertools import chain, islice
from typing import TYPE_CHECKING, Any, TypeVar

from pydantic import BaseModel

from afterimage.storage.base import BaseStorage
from afterimage.storage.errors import InvalidQueryError, shown
from afterimage.storage.import_export import ImportExport
from afterimage.storage.models import (
    Conversation,
    ConversationWithContext,
    Document,
    EvaluatedConversationWithContext,
)
from afterimage.storage.query.arguments import Columns, Filters, OrderBy, positive
from afterimage.storage.query.query import Query
from afterimage.storage.query.read import Read
from afterimage.storage.records.fields import (
    CONVERSATIONS,
    DOCUMENTS,
    OTHERS,
    FieldType,
    Json,
    RecordKind,
)
from afterimage.storage.records.objects import as_records
from afterimage.storage.records.validation import matching
from afterimage.storage.reports.faults import Faults, OnError
from afterimage.storage.reports.progress import Progress, ignore, share_only, split
from afterimage.storage.reports.verification import Verification
from afterimage.storage.system.gc_pause import kept_until_the_end
from afterimage.storage.system.interrupts import checkpoint, in_thread, signal_safe
from afterimage.storage.system.streams import BatchIterator, RecordIterator

if TYPE_CHECKING:  # importing the JSONL storage must not load Arrow
    import pyarrow as pa

    from afterimage.storage.reports.statistics import Statistics

__all__ = ["RecordStorage"]

_Model = TypeVar("_Model", bound=BaseModel)

# Records that one step of a load builds: enough to make its fixed cost negligible, and few enough
# to need little memory.
_LOAD_BATCH = 4096


class RecordStorage(ImportExport, BaseStorage):
    """The public methods of a storage, implemented on a backend.

    All reads take the same arguments:

    - `limit`, `offset`: the maximum number of records to return, and the number of records to skip
      at the start.
    - `filters`: `{field: value}`, or `[(field, op, value), …]` (ANDed), or a list of such lists
      (ORed), with the operators `==` `=` `!=` `<` `<=` `>` `>=` `in` `not in`.
    - `order_by`: `[(field, direction), …]` with direction 1, -1, "asc" or "desc". Null is sorted
      last in both directions. Ties are in insertion order, and so are all records without
      `order_by`.
    - `on_error`: what to do with corrupt records, for example after a truncated write or an edit by
      hand. "raise" raises `CorruptRecordError`: loads, exports and scans reject the same records.
      If a scan or a Parquet export has only some columns, it checks only their values; counts
      fail only for a line that is not JSON. "skip" ignores all records that a load would reject,
      and issues a `SkippedRecordsWarning` at the end with their number and the places of the first
      ones. It validates every record, so a count or a scan then takes about as long as a load.

    A field is a top-level field, or a dotted path into a struct or into metadata. All reads raise
    `UnknownFieldError` for a field that does not exist, and `InvalidQueryError` for an argument
    that is not valid, before any data is read.
    """

    # -- conversations ------------------------------------------------------------------------

    @signal_safe
    def save_conversations(
        self,
        conversations: list[EvaluatedConversationWithContext | ConversationWithContext | BaseModel],
    ) -> None:
        """Save conversations and records of other models, in their order.

        All records are saved, or none if one is refused. They are on the disk on return. Fields
        that a subclass adds are kept, at any depth. A record of another model is kept for
        `load_records`.

        Raises:
            InvalidRecordError: a record cannot be written as JSON, would not be read back equal, or
                is a document. The message names its index and, where possible, the field.
            LockTimeoutError: another process held the file for all of `lock_timeout`.
        """
        self._backend.append(CONVERSATIONS, as_records(CONVERSATIONS, conversations))

    async def asave_conversations(
        self,
        conversations: list[EvaluatedConversationWithContext | ConversationWithContext | BaseModel],
    ) -> None:
        """Run `save_conversations`, or a subclass's override of it, in a worker thread.

        If the task is cancelled, the save ends first: all records are saved, or none. Before you
        save them again, look for them, for example by a metadata key of your own.
        """
        await in_thread(self.save_conversations, conversations)

    @signal_safe
    def load_conversations(  # type: ignore[override]  # lists are invariant; both are documented
        self,
        limit: int | None = None,
        offset: int | None = None,
        filters: Filters = None,
        order_by: OrderBy = None,
        *,
        on_error: OnError = "raise",
    ) -> list[EvaluatedConversationWithContext]:
        """Return conversations as validated models.

        Raises:
            InvalidQueryError: see the class.
            CorruptRecordError: a stored record is not valid; the message names its place. With
                `on_error="skip"` the record is skipped instead.

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
        return self._load(CONVERSATIONS, query, on_error)

    def iter_conversations(
        self,
        limit: int | None = None,
        offset: int | None = None,
        filters: Filters = None,
        order_by: OrderBy = None,
        *,
        batch_size: int = 1024,
        on_error: OnError = "raise",
    ) -> RecordIterator[EvaluatedConversationWithContext]:
        """Return an iterator over the records of `load_conversations`.

        It has `batch_size` records in memory at a time. Several threads may share the iterator:
        each record is returned once. A file may stay open until the iterator is at its end, is
        closed (`close()`, or the end of a `with` block) or is no longer referenced. In a forked
        process it raises a `StorageError`; call the method again there.

        >>> from afterimage.storage import Conversation, SQLStorage
        >>> store = SQLStorage("duckdb:///:memory:")
        >>> store.save_conversations([Conversation(conversations=[], metadata={"n": 1})] * 3)
        >>> with store.iter_conversations() as records:
        ...     next(records).metadata["n"]
        1
        >>> list(records)
        []
        """
        query = self._query(CONVERSATIONS, limit, offset, filters, order_by)
        return self._iterate(CONVERSATIONS, query, batch_size, on_error)

    def scan_conversations(
        self,
        columns: Columns = None,
        filters: Filters = None,
        order_by: OrderBy = None,
        limit: int | None = None,
        offset: int | None = None,
        *,
        on_error: OnError = "raise",
        progress: Progress | None = None,
    ) -> pa.RecordBatchReader:
        """Return conversations as a stream of Arrow record batches; no models are built.

        The memory that the stream needs is bounded.

        Args:
            columns: field paths, in the order of the result; the path is the name of its column.
                Values inside metadata are returned as text: strings unchanged, other values as
                JSON. None returns all declared fields and `extra`.
            filters: see the class.
            order_by: see the class.
            limit: see the class.
            offset: see the class.
            on_error: see the class; the warning is issued at the end of the stream.
            progress: called with the number of records read since the last call; for a JSONL file,
                with the number of lines read, matching or not. A `ShareProgress` then also gets the
                share of the file that was read.

        Returns:
            A reader with the declared schema, which every consumer of Arrow streams can read. If
            the result is larger than some megabytes, a database file stays open, and so locked for
            other processes, until the reader is read to its end or deleted (`del reader`). The
            `close()` of the reader does not close the file.

        >>> from afterimage.storage import Conversation, SQLStorage
        >>> store = SQLStorage("duckdb:///:memory:")
        >>> store.save_conversations([Conversation(conversations=[], metadata={"a": {"b": 1}})])
        >>> store.scan_conversations(columns=["metadata.a.b", "persona"]).read_all().to_pylist()
        [{'metadata.a.b': '1', 'persona': None}]
        """
        return self._scan(
            CONVERSATIONS, columns, limit, offset, filters, order_by, on_error, progress
        )

    @signal_safe
    def count_conversations(self, filters: Filters = None, *, on_error: OnError = "raise") -> int:
        """Return the number of matching conversations."""
        query = self._query(CONVERSATIONS, None, None, filters, None)
        return self._count(Read(CONVERSATIONS, query, Faults(on_error)))

    # -- documents ----------------------------------------------------------------------------

    @signal_safe
    def save_documents(self, documents: list[Document]) -> None:
        """Save documents in their order: all of them, or none if one is refused.

        Raises:
            InvalidRecordError: a record is not a document, cannot be written as JSON, or would not
                be read back equal. The message names its index and, where possible, the field.
            LockTimeoutError: another process held the file for all of `lock_timeout`.
        """
        self._backend.append(DOCUMENTS, as_records(DOCUMENTS, documents))

    async def asave_documents(self, documents: list[Document]) -> None:
        """Run `save_documents` in a worker thread; see `asave_conversations`."""
        await in_thread(self.save_documents, documents)

    @signal_safe
    def load_documents(
        self,
        limit: int | None = None,
        offset: int | None = None,
        filters: Filters = None,
        order_by: OrderBy = None,
        *,
        on_error: OnError = "raise",
    ) -> list[Document]:
        """Return documents as validated models; see `load_conversations`."""
        query = self._query(DOCUMENTS, limit, offset, filters, order_by)
        return self._load(DOCUMENTS, query, on_error)

    def iter_documents(
        self,
        limit: int | None = None,
        offset: int | None = None,
        filters: Filters = None,
        order_by: OrderBy = None,
        *,
        batch_size: int = 1024,
        on_error: OnError = "raise",
    ) -> RecordIterator[Document]:
        """Return an iterator over the records of `load_documents`; see `iter_conversations`."""
        query = self._query(DOCUMENTS, limit, offset, filters, order_by)
        return self._iterate(DOCUMENTS, query, batch_size, on_error)

    def scan_documents(
        self,
        columns: Columns = None,
        filters: Filters = None,
        order_by: OrderBy = None,
        limit: int | None = None,
        offset: int | None = None,
        *,
        on_error: OnError = "raise",
        progress: Progress | None = None,
    ) -> pa.RecordBatchReader:
        """Return documents as a stream of Arrow record batches; see `scan_conversations`."""
        return self._scan(DOCUMENTS, columns, limit, offset, filters, order_by, on_error, progress)

    @signal_safe
    def count_documents(self, filters: Filters = None, *, on_error: OnError = "raise") -> int:
        """Return the number of matching documents."""
        query = self._query(DOCUMENTS, None, None, filters, None)
        return self._count(Read(DOCUMENTS, query, Faults(on_error)))

    # -- records of any model -----------------------------------------------------------------

    @signal_safe
    def load_records(
        self,
        model: type[_Model],
        limit: int | None = None,
        offset: int | None = None,
        filters: Filters = None,
        order_by: OrderBy = None,
        *,
        on_error: OnError = "raise",
    ) -> list[_Model]:
        """Return the saved records that match `model`, as instances of it.

        A record matches if all its keys are fields of the model and it validates. If `model` is a
        subclass of `Conversation`, the conversations are searched, with the fields that the
        subclass adds; for any other model, the records that are not conversations. Filters and sort
        keys may name the model's own fields and paths inside them.

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
            raise InvalidQueryError(f"model must be a pydantic class, not {shown(model, 60)}")
        own: dict[str, FieldType] = {name: Json() for name in model.model_fields}
        kind = OTHERS
        if issubclass(model, Conversation):
            # The model's own fields take precedence over storage columns with the same name.
            kind = CONVERSATIONS
            own = {**self._backend.fields(kind), **own, **kind.record.fields}
        query = Query.of(own, limit=limit, offset=offset, filters=filters, order_by=order_by)
        match = matching(model)
        read = Read(kind, query.without_slice(), Faults(on_error))

        def found() -> Generator[_Model, None, None]:
            with closing(self._backend.objects(read)) as batches:
                for objects in batches:
                    for record in map(match, objects):
                        checkpoint()  # at each record, as a model may have slow validators
                        if record is not None:
                            yield record

        with closing(found()) as records:
            page = list(islice(islice(records, query.offset, None), query.limit))
        read.faults.warn()
        return page

    @signal_safe
    def count_records(self, filters: Filters = None, *, on_error: OnError = "raise") -> int:
        """Return the number of matching records of other models; filters may name any field.

        >>> from afterimage.storage import SQLStorage
        >>> class Note(BaseModel):
        ...     text: str
        >>> store = SQLStorage("duckdb:///:memory:")
        >>> store.save_conversations([Note(text="one"), Note(text="two")])
        >>> store.count_records({"text": "two"})
        1
        """
        query = self._query(OTHERS, None, None, filters, None)
        return self._count(Read(OTHERS, query, Faults(on_error)))

    # -- all at once --------------------------------------------------------------------------

    @signal_safe
    def stats(
        self,
        filters: Filters = None,
        *,
        top_keys: int = 20,
        progress: Progress | None = None,
        on_error: OnError = "raise",
    ) -> Statistics:
        """Return counts, lengths, scores, metadata keys and duplicates; see `Statistics`.

        The engine reads the conversations once. It keeps some numbers of each conversation and
        message in memory, but no contents.

        Args:
            filters: select the conversations. Documents and records of other models are not
                filtered.
            top_keys: number of metadata keys to list.
            progress: called repeatedly with the number of conversations, or of lines of a JSONL
                file, read since the last call. A database is then read in parts, which takes a
                little longer.
            on_error: see the class.

        >>> from afterimage.storage import Conversation, SQLStorage
        >>> store = SQLStorage("duckdb:///:memory:")
        >>> talk = [{"role": "user", "content": "To Rome, please."}]
        >>> store.save_conversations([Conversation(conversations=talk, metadata={"day": 3})] * 2)
        >>> found = store.stats()
        >>> found.messages, found.characters["user"].median, found.duplicates
        (2, 16.0, 1)
        >>> found.metadata_keys
        (MetadataKey(key='day', rows=2, values=1),)
        """
        from afterimage.storage.query.predicates import count_rows  # noqa: PLC0415  loads DuckDB
        from afterimage.storage.query.statistics import (  # noqa: PLC0415  loads DuckDB
            conversation_statistics,
        )

        query = self._query(CONVERSATIONS, None, None, filters, None)
        top_keys = positive(top_keys, "top_keys")
        weights = self._backend.read_weights([DOCUMENTS, OTHERS, CONVERSATIONS])
        first, second, last = split(progress or ignore, weights)
        faults = Faults(on_error)
        with self._backend.relation(Read(DOCUMENTS, Query(), faults, share_only(first))) as found:
            documents = count_rows(found)
        # If a file has both kinds, the read of the conversations reports the faults.
        others = faults.without_report() if self._backend.mixes_kinds else faults
        with self._backend.relation(Read(OTHERS, Query(), others, share_only(second))) as found:
            records = count_rows(found)
        with self._backend.relation(Read(CONVERSATIONS, query, faults, last)) as found:
            statistics = conversation_statistics(
                found,
                documents=documents,
                records=records,
                top_keys=top_keys,
                progress=last if progress else None,
            )
        faults.warn()
        return statistics

    # -- what is stored -----------------------------------------------------------------------

    @signal_safe
    def verify(self, *, progress: Progress | None = None, repair: bool = False) -> Verification:
        """Read all stored records again, in bounded memory, and report all faults.

        No record is changed. `print` shows the report as a page; `report.ok` is true if there is no
        fault.

        Args:
            progress: called repeatedly with the number of records, or of lines of a JSONL file,
                read since the last call.
            repair: whether to set the columns of metadata fields again first, where they differ
                from the metadata. The report is about the repaired state.

        Raises:
            LockTimeoutError: another process held the file for all of `lock_timeout`.

        >>> from afterimage.storage import Document, SQLStorage
        >>> store = SQLStorage("duckdb:///:memory:")
        >>> store.save_documents([Document(id="a"), Document(id="a")])
        >>> report = store.verify()
        >>> report.ok, report.documents, report.duplicate_ids.count
        (False, 2, 1)
        """
        repaired = self._backend.repair() if repair else 0
        return replace(self._backend.verify(progress), repaired=repaired)

    # -- shared by the above ------------------------------------------------------------------

    def _load(self, kind: RecordKind, query: Query, on_error: OnError) -> list[Any]:
        read = Read(kind, query, Faults(on_error))
        with kept_until_the_end():
            found = list(chain.from_iterable(self._backend.models(read, _LOAD_BATCH)))
        read.faults.warn()
        return found

    def _count(self, read: Read) -> int:
        from afterimage.storage.query.predicates import count_rows  # noqa: PLC0415  loads DuckDB

        with self._backend.relation(read) as relation:
            count = count_rows(relation)
        read.faults.warn()
        return count

    def _iterate(
        self, kind: RecordKind, query: Query, batch_size: int, on_error: OnError
    ) -> RecordIterator[Any]:
        read = Read(kind, query, Faults(on_error), long_lived=True)
        batches = self._backend.models(read, positive(batch_size, "batch_size"))
        return RecordIterator(read.faults.warn_after(batches))

    def _scan(
        self,
        kind: RecordKind,
        columns: Columns,
        limit: int | None,
        offset: int | None,
        filters: Filters,
        order_by: OrderBy,
        on_error: OnError,
        progress: Progress | None,
    ) -> pa.RecordBatchReader:
        import pyarrow as pa  # noqa: PLC0415  importing the JSONL storage does not load it

        from afterimage.storage.arrow.schema import projected_schema  # noqa: PLC0415  as above

        names = list(kind.stored) if columns is None else columns
        query = self._query(kind, limit, offset, filters, order_by, names)
        assert query.columns is not None
        read = Read(kind, query, Faults(on_error), progress or ignore, long_lived=True)
        return pa.RecordBatchReader.from_batches(
            projected_schema(query.columns),
            BatchIterator(read.faults.warn_after(self._backend.select(read))),
        )
