"""The calls that every storage of this package answers, over the few that each must implement.

Those that read and write other files come from `import_export.py`; what a storage implements is in
`backend.py`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Generator, Iterable, Mapping
from contextlib import closing
from itertools import chain, islice
from typing import TYPE_CHECKING, Any, TypeVar

from pydantic import BaseModel

from afterimage.storage.errors import InvalidQueryError, InvalidRecordError, shown
from afterimage.storage.import_export import AnyField, ImportExport
from afterimage.storage.models import (
    Conversation,
    ConversationWithContext,
    Document,
    EvaluatedConversationWithContext,
)
from afterimage.storage.query.query import Columns, Filters, OrderBy, Query, positive
from afterimage.storage.records.fields import CONVERSATIONS, DOCUMENTS, FieldType, Json, RecordTable
from afterimage.storage.records.kinds import Kind
from afterimage.storage.records.objects import matching
from afterimage.storage.reports.faults import CorruptRecords, OnError
from afterimage.storage.reports.progress import Progress, only_share, parts, unseen
from afterimage.storage.reports.verification import Verification
from afterimage.storage.system.gc_pause import kept_until_the_end
from afterimage.storage.system.interrupts import checkpoint, deferred_signals
from afterimage.storage.system.streams import BatchIterator, RecordIterator

if TYPE_CHECKING:  # the JSONL storage alone is not to load it
    import pyarrow as pa

    from afterimage.storage.reports.statistics import Statistics

__all__ = ["Kind", "RecordStorage"]

_Model = TypeVar("_Model", bound=BaseModel)

# Records that one step of a load builds: enough to make its costs vanish, few enough for memory.
_LOAD_BATCH = 4096


class RecordStorage(ImportExport):
    """What the storages of this package have in common.

    All reads take the same arguments:

    - `limit`, `offset`: most records to give, and records to leave out before them;
    - `filters`: `{field: value}`, or `[(field, op, value), …]` (ANDed), or a list of such lists
      (ORed), with `==` `=` `!=` `<` `<=` `>` `>=` `in` `not in`;
    - `order_by`: `[(field, direction), …]` with direction 1, -1, "asc" or "desc". Null sorts last
      in either direction; ties, and no order at all, follow insertion order;
    - `on_error`: what to do where something stored is no valid record, as after a write that broke
      off or an edit by hand. "raise" raises `CorruptRecordError` where the call cannot go on (a
      load on every record it is to give; counts, scans and exports only where a line is no JSON).
      "skip" answers as if what a load would refuse were not there, and warns at the end with a
      `SkippedRecordsWarning`: how many were skipped, and where the first are. It checks every
      record, so that a count or a scan then costs about what a load does.

    A field is a top-level field, or a dotted path into a struct or into metadata. All reads raise
    `UnknownFieldError` for a field that is none and `InvalidQueryError` for what has no meaning,
    both before anything is read.
    """

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
        with deferred_signals():
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
        *,
        on_error: OnError = "raise",
    ) -> list[EvaluatedConversationWithContext]:
        """Conversations as validated models.

        Raises:
            InvalidQueryError: see the class.
            CorruptRecordError: something stored is no valid record; names the place. With
                `on_error="skip"` it is left out instead.

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
        """The records of `load_conversations` one by one, `batch_size` of them in memory.

        The iterator may be shared by several threads: each record is given once. A file may stay
        open until it is read to its end, closed (`close()`, or as a context manager) or no longer
        referenced. A process that is forked meanwhile cannot use it and has to call again.

        >>> from afterimage.storage import Conversation, SQLStorage
        >>> store = SQLStorage("duckdb:///:memory:")
        >>> store.save_conversations([Conversation(conversations=[], metadata={"n": 1})] * 3)
        >>> with store.iter_conversations() as records:
        ...     next(records).metadata["n"]
        1
        >>> next(records, None) is None
        True
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
        """Conversations as Arrow record batches, in bounded memory; no model is built.

        Args:
            columns: field paths in the order wanted; a dotted path is a column of that name. What
                lies inside metadata comes as text: strings as they are, other values as JSON.
                None gives all declared fields and `extra`.
            filters: as everywhere.
            order_by: as everywhere.
            limit: as everywhere.
            offset: as everywhere.
            on_error: as everywhere; the warning comes when the reader is at its end.
            progress: called with how many records more were read, of JSON lines with how many
                lines, whether they match or not; a `ShareProgress` is then also told how much of
                the file that was.

        Returns:
            A reader of the declared schema; anything that takes an Arrow stream reads it. Where
            there is more to read than some megabytes, a database file stays open, and so locked
            for other processes, until the reader is read to its end or let go of (`del reader`;
            its own `close()` does not reach that far).

        >>> from afterimage.storage import Conversation, SQLStorage
        >>> store = SQLStorage("duckdb:///:memory:")
        >>> store.save_conversations([Conversation(conversations=[], metadata={"a": {"b": 1}})])
        >>> store.scan_conversations(columns=["metadata.a.b", "persona"]).read_all().to_pylist()
        [{'metadata.a.b': '1', 'persona': None}]
        """
        return self._scan(
            CONVERSATIONS, columns, limit, offset, filters, order_by, on_error, progress
        )

    def count_conversations(self, filters: Filters = None, *, on_error: OnError = "raise") -> int:
        """How many conversations match."""
        query = self._query(CONVERSATIONS, None, None, filters, None)
        return self._counted("conversations", query, on_error)

    # -- documents ----------------------------------------------------------------------------

    def save_documents(self, documents: list[Document]) -> None:
        """Save documents in the order given: all or, where one is refused, none.

        Raises:
            InvalidRecordError: a record is no document, or has no form in JSON.
            LockTimeoutError: another process held the file for all of `lock_timeout`.
        """
        with deferred_signals():
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
        *,
        on_error: OnError = "raise",
    ) -> list[Document]:
        """Documents as validated models; see `load_conversations`."""
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
        """The records of `load_documents` one by one; see `iter_conversations`."""
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
        """Documents as Arrow record batches; see `scan_conversations`."""
        return self._scan(DOCUMENTS, columns, limit, offset, filters, order_by, on_error, progress)

    def count_documents(self, filters: Filters = None, *, on_error: OnError = "raise") -> int:
        """How many documents match."""
        query = self._query(DOCUMENTS, None, None, filters, None)
        return self._counted("documents", query, on_error)

    # -- records of any model -----------------------------------------------------------------

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
            raise InvalidQueryError(f"a model is a pydantic class, not {shown(model, 60)}")
        own: dict[str, FieldType] = {name: Json() for name in model.model_fields}
        kind: Kind = "records"
        if issubclass(model, Conversation):
            # The model's own fields come before columns of the storage of the same name.
            kind = "conversations"
            own = {**self._fields(CONVERSATIONS), **own, **CONVERSATIONS.record.fields}
        query = Query.of(own, limit=limit, offset=offset, filters=filters, order_by=order_by)
        match = matching(model)
        corrupt = CorruptRecords(on_error)

        def found() -> Generator[_Model, None, None]:
            with closing(self._objects(kind, query.without_slice(), corrupt, unseen)) as batches:
                for objects in batches:
                    for record in map(match, objects):
                        checkpoint()  # for each, as a model may have slow validators
                        if record is not None:
                            yield record

        with deferred_signals(), closing(found()) as records:
            page = list(islice(islice(records, query.offset, None), query.limit))
        corrupt.warn()
        return page

    def count_records(self, filters: Filters = None, *, on_error: OnError = "raise") -> int:
        """How many records of other models match; filters may name any field.

        >>> from afterimage.storage import SQLStorage
        >>> class Note(BaseModel):
        ...     text: str
        >>> store = SQLStorage("duckdb:///:memory:")
        >>> store.save_conversations([Note(text="one"), Note(text="two")])
        >>> store.count_records({"text": "two"})
        1
        """
        return self._counted("records", Query.of(AnyField(), filters=filters), on_error)

    # -- all at once --------------------------------------------------------------------------

    def stats(
        self,
        filters: Filters = None,
        *,
        top_keys: int = 20,
        progress: Progress | None = None,
        on_error: OnError = "raise",
    ) -> Statistics:
        """What is in here: counts, lengths, scores, metadata keys, duplicates; see `Statistics`.

        The engine works it out in one pass over the conversations. It keeps no contents, but some
        numbers of each conversation and message.

        Args:
            filters: which conversations it is about. Documents and records of other models are
                always counted whole.
            top_keys: how many metadata keys to tell of.
            progress: called now and then with how many conversations, or lines of a JSONL file,
                were read since the last call. A database is then read in parts, which takes a
                little longer.
            on_error: as everywhere.

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
        from afterimage.storage.query.counts import counted  # noqa: PLC0415  heavy
        from afterimage.storage.query.statistics import conversation_statistics  # noqa: PLC0415  heavy

        query = self._query(CONVERSATIONS, None, None, filters, None)
        positive(top_keys, "top_keys")
        kinds: tuple[Kind, ...] = ("documents", "records", "conversations")
        first, second, last = parts(progress or unseen, self._weights(kinds))
        corrupt = CorruptRecords(on_error)
        with deferred_signals():
            with self._relation("documents", Query(), corrupt, only_share(first)) as found:
                documents = counted(*found)
            with self._relation("records", Query(), corrupt, only_share(second)) as found:
                records = counted(*found)
            with self._relation("conversations", query, corrupt, last) as found:
                statistics = conversation_statistics(
                    *found,
                    documents=documents,
                    records=records,
                    top_keys=top_keys,
                    progress=last if progress else None,
                )
        corrupt.warn()
        return statistics

    # -- what is stored -----------------------------------------------------------------------

    def verify(self, *, progress: Progress | None = None) -> Verification:
        """Read again all that is stored, in bounded memory, and report what is wrong with it.

        Nothing is changed. Printed, the report is a page; `report.ok` says that nothing is wrong.

        Args:
            progress: called now and then with how many records, or lines of a JSONL file, were read
                since the last call.

        Raises:
            LockTimeoutError: another process held the file for all of `lock_timeout`.

        >>> from afterimage.storage import Document, SQLStorage
        >>> store = SQLStorage("duckdb:///:memory:")
        >>> store.save_documents([Document(id="a"), Document(id="a")])
        >>> report = store.verify()
        >>> report.ok, report.documents, report.duplicate_ids.count
        (False, 2, 1)
        """
        with deferred_signals():
            return self._verify(progress)

    # -- what the above share -----------------------------------------------------------------

    def _load(self, table: RecordTable, query: Query, on_error: OnError) -> list[Any]:
        corrupt = CorruptRecords(on_error)
        with deferred_signals(), kept_until_the_end():
            found = list(chain.from_iterable(self._models(table, query, _LOAD_BATCH, corrupt)))
        corrupt.warn()
        return found

    def _counted(self, kind: Kind, query: Query, on_error: OnError) -> int:
        corrupt = CorruptRecords(on_error)
        with deferred_signals():
            counted = self._count(kind, query, corrupt)
        corrupt.warn()
        return counted

    def _iterate(
        self, table: RecordTable, query: Query, batch_size: int, on_error: OnError
    ) -> RecordIterator[Any]:
        corrupt = CorruptRecords(on_error)
        size = positive(batch_size, "batch_size")
        batches = self._held_models(table, query, size, corrupt)
        return RecordIterator(corrupt.watched(batches))

    def _scan(
        self,
        table: RecordTable,
        columns: Columns,
        limit: int | None,
        offset: int | None,
        filters: Filters,
        order_by: OrderBy,
        on_error: OnError,
        progress: Progress | None,
    ) -> pa.RecordBatchReader:
        import pyarrow as pa  # noqa: PLC0415  heavy: not with the JSONL storage

        from afterimage.storage.records.schema import projected_schema  # noqa: PLC0415

        names = list(table.stored) if columns is None else columns
        query = self._query(table, limit, offset, filters, order_by, names)
        assert query.columns is not None
        corrupt = CorruptRecords(on_error)
        return pa.RecordBatchReader.from_batches(
            projected_schema(query.columns),
            BatchIterator(
                corrupt.watched(self._held_batches(table, query, corrupt, progress or unseen))
            ),
        )


def _listed(records: Any) -> list[BaseModel]:
    if isinstance(records, BaseModel | str | Mapping) or not isinstance(records, Iterable):
        raise InvalidRecordError(
            f"give a list of records, not one {type(records).__name__}: [record]"
        )
    return list(records)
