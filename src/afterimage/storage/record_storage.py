"""`RecordStorage`: the calls that every storage of this package answers, over its backend.

The calls that read or write other files are in `import_export.py`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from itertools import chain, islice
from typing import TYPE_CHECKING, Any, TypeVar

from pydantic import BaseModel

from afterimage.storage.base import BaseStorage
from afterimage.storage.errors import InvalidQueryError, InvalidRecordError, shown
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
from afterimage.storage.records.validation import matching
from afterimage.storage.reports.faults import Faults, OnError
from afterimage.storage.reports.progress import Progress, ignore, share_only, split
from afterimage.storage.reports.verification import Verification
from afterimage.storage.system.gc_pause import kept_until_the_end
from afterimage.storage.system.streams import BatchIterator, RecordIterator

if TYPE_CHECKING:  # importing the JSONL storage does not load Arrow
    import pyarrow as pa

    from afterimage.storage.reports.statistics import Statistics

__all__ = ["RecordStorage"]

_Model = TypeVar("_Model", bound=BaseModel)

# Records that one step of a load builds: enough for its fixed costs to vanish, few enough for
# memory.
_LOAD_BATCH = 4096


class RecordStorage(ImportExport, BaseStorage):
    """The public calls of a storage; a backend answers them.

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
        self._backend.append(CONVERSATIONS, _as_records(conversations))

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
        open until the iterator is at its end, is closed (`close()`, or the end of a `with` block)
        or is no longer referenced. In a forked process it raises a `StorageError`; call again
        there.

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
        return self._count(Read(CONVERSATIONS, query, Faults(on_error)))

    # -- documents ----------------------------------------------------------------------------

    def save_documents(self, documents: list[Document]) -> None:
        """Save documents in the order given: all or, where one is refused, none.

        Raises:
            InvalidRecordError: a record is no document, or has no form in JSON.
            LockTimeoutError: another process held the file for all of `lock_timeout`.
        """
        self._backend.append(DOCUMENTS, _as_records(documents))

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
        return self._count(Read(DOCUMENTS, query, Faults(on_error)))

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
        kind = OTHERS
        if issubclass(model, Conversation):
            # The model's own fields come before columns of the storage of the same name.
            kind = CONVERSATIONS
            own = {**self._backend.fields(kind), **own, **kind.record.fields}
        query = Query.of(own, limit=limit, offset=offset, filters=filters, order_by=order_by)
        match = matching(model)
        read = Read(kind, query.without_slice(), Faults(on_error))
        found = (
            record
            for objects in self._backend.objects(read)
            for record in map(match, objects)
            if record is not None
        )
        page = list(islice(islice(found, query.offset, None), query.limit))
        read.faults.warn()
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
        query = self._query(OTHERS, None, None, filters, None)
        return self._count(Read(OTHERS, query, Faults(on_error)))

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
            top_keys: number of metadata keys to list.
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
        from afterimage.storage.query.predicates import count_rows  # noqa: PLC0415  loads DuckDB
        from afterimage.storage.query.statistics import (  # noqa: PLC0415  loads DuckDB
            conversation_statistics,
        )

        query = self._query(CONVERSATIONS, None, None, filters, None)
        positive(top_keys, "top_keys")
        weights = self._backend.read_weights([DOCUMENTS, OTHERS, CONVERSATIONS])
        first, second, last = split(progress or ignore, weights)
        faults = Faults(on_error)
        with self._backend.relation(Read(DOCUMENTS, Query(), faults, share_only(first))) as found:
            documents = count_rows(found)
        # Where both kinds are read together, the read of the conversations reports the faults.
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
        return self._backend.verify(progress)

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

        from afterimage.storage.records.schema import projected_schema  # noqa: PLC0415  as above

        names = list(kind.stored) if columns is None else columns
        query = self._query(kind, limit, offset, filters, order_by, names)
        assert query.columns is not None
        read = Read(kind, query, Faults(on_error), progress or ignore, long_lived=True)
        return pa.RecordBatchReader.from_batches(
            projected_schema(query.columns),
            BatchIterator(read.faults.warn_after(self._backend.select(read))),
        )


def _as_records(records: Any) -> list[BaseModel]:
    if isinstance(records, BaseModel | str | Mapping) or not isinstance(records, Iterable):
        raise InvalidRecordError(
            f"give a list of records, not one {type(records).__name__}: [record]"
        )
    return list(records)
