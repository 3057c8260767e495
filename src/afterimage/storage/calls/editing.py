"""Delete and update records, and remove repeated ones."""

from __future__ import annotations

from typing import Literal

from afterimage.storage.calls.shared import Calls
from afterimage.storage.errors import InvalidQueryError, shown
from afterimage.storage.query.arguments import Filters
from afterimage.storage.query.read import Read
from afterimage.storage.records.fields import (
    CONVERSATIONS,
    DOCUMENTS,
    OTHERS,
    Kind,
    RecordKind,
    kind_named,
)
from afterimage.storage.records.metadata_changes import Metadata, MetadataChange
from afterimage.storage.records.paths import resolve
from afterimage.storage.system.interrupts import signal_safe

__all__ = ["EditingCalls"]

Keep = Literal["first", "last"]
"""Which of several equal records is kept."""


class EditingCalls(Calls):
    """The methods that delete and change records.

    An edit happens completely or not at all, also if the process is killed. Readers see the records
    as they were before, or as they are after it. In a database it is one transaction. A JSONL file
    is written again beside the old one, which it then replaces.
    """

    @signal_safe
    def delete_conversations(self, filters: Filters) -> int:
        """Delete the matching conversations, all or none.

        Args:
            filters: see the class. `[]` deletes all conversations; None is refused.

        Returns:
            The number of deleted conversations.

        Raises:
            InvalidQueryError: `filters` is None, or see the class.
            CorruptRecordError: a line of the file is not JSON. Nothing was deleted.
            LockTimeoutError: another process held the file for all of `lock_timeout`.
            StorageError: the file is compressed or has hard links, or the disk is full. Nothing
                was deleted.

        >>> from afterimage.storage import Conversation, SQLStorage
        >>> store = SQLStorage("duckdb:///:memory:")
        >>> store.save_conversations(
        ...     [Conversation(conversations=[], metadata={"n": n}) for n in range(5)]
        ... )
        >>> store.delete_conversations([("metadata.n", ">", 2)])
        2
        >>> store.count_conversations()
        3
        """
        return self._delete(CONVERSATIONS, filters)

    @signal_safe
    def delete_documents(self, filters: Filters) -> int:
        """Delete the matching documents, all or none; see `delete_conversations`.

        >>> from afterimage.storage import Document, SQLStorage
        >>> store = SQLStorage("duckdb:///:memory:")
        >>> store.save_documents([Document(id="a"), Document(id="b")])
        >>> store.delete_documents({"id": "a"})
        1
        """
        return self._delete(DOCUMENTS, filters)

    @signal_safe
    def delete_records(self, filters: Filters) -> int:
        """Delete the matching records of other models, all or none; see `delete_conversations`.

        Filters may name any field, as in `count_records`.

        >>> from pydantic import BaseModel
        >>> from afterimage.storage import SQLStorage
        >>> class Note(BaseModel):
        ...     text: str
        >>> store = SQLStorage("duckdb:///:memory:")
        >>> store.save_conversations([Note(text="one"), Note(text="two")])
        >>> store.delete_records({"text": "two"})
        1
        """
        return self._delete(OTHERS, filters)

    @signal_safe
    def update_conversations(self, filters: Filters, metadata: Metadata) -> int:
        """Change the metadata of the matching conversations, all or none.

        Their ids, times, messages and scores stay as they are. The columns of metadata fields
        follow.

        Args:
            filters: see the class. `[]` updates all conversations; None is refused.
            metadata: the keys to set, with their values; None removes a key. Or a function that
                gets the metadata of a conversation as a dict and returns the new metadata. It is
                called while the store is locked, so it must not use the store.

        Returns:
            The number of matching conversations.

        Raises:
            InvalidQueryError: `filters` is None, `metadata` is neither a mapping nor a function,
                or see the class.
            InvalidRecordError: the new metadata cannot be stored. Nothing was changed.
            CorruptRecordError: a stored record is not valid. Nothing was changed.
            LockTimeoutError: see `delete_conversations`.
            StorageError: see `delete_conversations`.

        >>> from afterimage.storage import Conversation, SQLStorage
        >>> store = SQLStorage("duckdb:///:memory:")
        >>> store.save_conversations(
        ...     [Conversation(conversations=[], metadata={"n": n, "draft": True}) for n in range(3)]
        ... )
        >>> store.update_conversations({"metadata.n": 1}, {"topic": "trains", "draft": None})
        1
        >>> store.update_conversations([], lambda metadata: {**metadata, "n": metadata["n"] * 10})
        3
        >>> [talk.metadata for talk in store.load_conversations()][1]
        {'n': 10, 'topic': 'trains'}
        """
        return self._update(CONVERSATIONS, filters, metadata)

    @signal_safe
    def update_documents(self, filters: Filters, metadata: Metadata) -> int:
        """Change the metadata of the matching documents, all or none.

        See `update_conversations`.

        >>> from afterimage.storage import Document, SQLStorage
        >>> store = SQLStorage("duckdb:///:memory:")
        >>> store.save_documents([Document(id="a"), Document(id="b")])
        >>> store.update_documents({"id": "b"}, {"source": "wiki"})
        1
        """
        return self._update(DOCUMENTS, filters, metadata)

    @signal_safe
    def deduplicate(
        self,
        by: str = "content_hash",
        keep: Keep = "first",
        *,
        kind: Kind = "conversations",
        filters: Filters = None,
    ) -> int:
        """Delete the records whose value of a field another record has, too, all or none.

        Records in which the field is null or absent are kept.

        Args:
            by: the field. `content_hash` is equal if the messages are, or the text of documents.
            keep: which of the records with one value is kept, in insertion order: "first" or
                "last".
            kind: the kind of the records.
            filters: if given, only these records are compared, and deleted.

        Returns:
            The number of deleted records.

        Raises:
            InvalidQueryError: an argument is not valid.
            CorruptRecordError: see `delete_conversations`.

        >>> from afterimage.storage import Conversation, SQLStorage
        >>> store = SQLStorage("duckdb:///:memory:")
        >>> talk = [{"role": "user", "content": "To Rome, please."}]
        >>> store.save_conversations(
        ...     [Conversation(conversations=talk, metadata={"n": n}) for n in range(3)]
        ... )
        >>> store.deduplicate(keep="last")
        2
        >>> [talk.metadata for talk in store.load_conversations()]
        [{'n': 2}]
        """
        chosen = kind_named(kind)
        if keep not in ("first", "last"):
            raise InvalidQueryError(f"keep must be 'first' or 'last', not {shown(keep, 40)}")
        query = self._query(chosen, None, None, filters, None)
        field = resolve(self._backend.fields(chosen), by)
        return self._backend.delete_repeated(Read(chosen, query), field, last=keep == "last")

    def _delete(self, kind: RecordKind, filters: Filters) -> int:
        return self._backend.delete(self._edited(kind, filters))

    def _update(self, kind: RecordKind, filters: Filters, metadata: Metadata) -> int:
        return self._backend.update(self._edited(kind, filters), MetadataChange(metadata))

    def _edited(self, kind: RecordKind, filters: Filters) -> Read:
        if filters is None:
            raise InvalidQueryError(
                f"filters is None. Say which {kind.name} are meant; [] means all. Nothing was "
                "changed."
            )
        return Read(kind, self._query(kind, None, None, filters, None))
