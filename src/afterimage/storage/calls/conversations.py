"""Save, load, iterate, scan and count conversations."""

from __future__ import annotations

from typing import TYPE_CHECKING, Unpack

from pydantic import BaseModel

from afterimage.storage.calls.shared import Calls
from afterimage.storage.models import ConversationWithContext, EvaluatedConversationWithContext
from afterimage.storage.query.arguments import Choice, Columns, Filters, OrderBy, Types
from afterimage.storage.query.read import Read
from afterimage.storage.records.fields import CONVERSATIONS
from afterimage.storage.records.objects import as_records
from afterimage.storage.reports.faults import Faults, OnError
from afterimage.storage.reports.progress import Progress
from afterimage.storage.system.interrupts import in_thread, signal_safe
from afterimage.storage.system.streams import RecordIterator

if TYPE_CHECKING:  # importing the JSONL storage must not load Arrow
    import pyarrow as pa

__all__ = ["ConversationCalls"]


class ConversationCalls(Calls):
    """The methods for conversations."""

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
    def load_conversations(
        self,
        limit: int | None = None,
        offset: int | None = None,
        filters: Filters = None,
        order_by: OrderBy = None,
        *,
        on_error: OnError = "raise",
        **choice: Unpack[Choice],
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
        query = self._query(CONVERSATIONS, limit, offset, filters, order_by, choice=choice)
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
        **choice: Unpack[Choice],
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
        query = self._query(CONVERSATIONS, limit, offset, filters, order_by, choice=choice)
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
        progress: Progress | bool | None = None,
        types: Types = None,
        **choice: Unpack[Choice],
    ) -> pa.RecordBatchReader:
        """Return conversations as a stream of Arrow record batches; no models are built.

        The memory that the stream needs is bounded.

        Args:
            columns: field paths, in the order of the result; the path is the name of its column.
                Values inside metadata are returned as text: strings unchanged, other values as
                JSON, unless `types` declares them. None returns all declared fields and `extra`.
            filters: see the class.
            order_by: see the class.
            limit: see the class.
            offset: see the class.
            on_error: see the class; the warning is issued at the end of the stream.
            progress: called with the number of records read since the last call; for a JSONL file,
                with the number of lines read, matching or not. A `ShareProgress` then also gets the
                share of the file that was read.
            types: the types of columns with values inside metadata, as names of Arrow types or as
                types: booleans, integers, "float", "double", strings, dates and timestamps, such as
                {"metadata.n": "int64", "metadata.at": "timestamp[us, UTC]"}. Null and
                absent values are null.
            **choice: see the class.

        Returns:
            A reader with the declared schema, which every consumer of Arrow streams can read. If
            the result is larger than some megabytes, a database file stays open, and so locked for
            other processes, until the reader is read to its end or deleted (`del reader`). The
            `close()` of the reader does not close the file.

        Raises:
            InvalidQueryError: see the class; or, during the read, a value does not fit its type in
                `types`. The message gives the position of the record in the result.

        >>> from afterimage.storage import Conversation, SQLStorage
        >>> store = SQLStorage("duckdb:///:memory:")
        >>> store.save_conversations([Conversation(conversations=[], metadata={"a": {"b": 1}})])
        >>> store.scan_conversations(columns=["metadata.a.b", "persona"]).read_all().to_pylist()
        [{'metadata.a.b': '1', 'persona': None}]
        >>> scan = store.scan_conversations(["metadata.a.b"], types={"metadata.a.b": "int64"})
        >>> scan.read_all().to_pylist()
        [{'metadata.a.b': 1}]
        """
        return self._scan(
            CONVERSATIONS,
            columns,
            limit,
            offset,
            filters,
            order_by,
            on_error,
            progress,
            types,
            choice,
        )

    @signal_safe
    def count_conversations(
        self,
        filters: Filters = None,
        *,
        on_error: OnError = "raise",
        **choice: Unpack[Choice],
    ) -> int:
        """Return the number of matching conversations."""
        query = self._query(CONVERSATIONS, None, None, filters, None, choice=choice)
        return self._count(Read(CONVERSATIONS, query, Faults(on_error)))
