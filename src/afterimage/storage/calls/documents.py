"""Save, load, iterate, scan and count documents."""

from __future__ import annotations

from typing import TYPE_CHECKING, Unpack

from afterimage.storage.calls.shared import Calls
from afterimage.storage.models import Document
from afterimage.storage.query.arguments import Choice, Columns, Filters, OrderBy, Types
from afterimage.storage.query.read import Read
from afterimage.storage.records.fields import DOCUMENTS
from afterimage.storage.records.objects import as_records
from afterimage.storage.reports.faults import Faults, OnError
from afterimage.storage.reports.progress import Progress
from afterimage.storage.system.interrupts import in_thread, signal_safe
from afterimage.storage.system.streams import RecordIterator

if TYPE_CHECKING:  # importing the JSONL storage must not load Arrow
    import pyarrow as pa

__all__ = ["DocumentCalls"]


class DocumentCalls(Calls):
    """The methods for documents."""

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
        **choice: Unpack[Choice],
    ) -> list[Document]:
        """Return documents as validated models; see `load_conversations`."""
        query = self._query(DOCUMENTS, limit, offset, filters, order_by, choice=choice)
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
        **choice: Unpack[Choice],
    ) -> RecordIterator[Document]:
        """Return an iterator over the records of `load_documents`; see `iter_conversations`."""
        query = self._query(DOCUMENTS, limit, offset, filters, order_by, choice=choice)
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
        progress: Progress | bool | None = None,
        types: Types = None,
        **choice: Unpack[Choice],
    ) -> pa.RecordBatchReader:
        """Return documents as a stream of Arrow record batches; see `scan_conversations`."""
        return self._scan(
            DOCUMENTS,
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
    def count_documents(
        self,
        filters: Filters = None,
        *,
        on_error: OnError = "raise",
        **choice: Unpack[Choice],
    ) -> int:
        """Return the number of matching documents."""
        query = self._query(DOCUMENTS, None, None, filters, None, choice=choice)
        return self._count(Read(DOCUMENTS, query, Faults(on_error)))
