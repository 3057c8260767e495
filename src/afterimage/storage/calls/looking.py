"""Show records, in a notebook or as a page of HTML."""

from __future__ import annotations

from html import escape
from pathlib import Path
from typing import Literal, Unpack

from afterimage.storage.calls.shared import Calls
from afterimage.storage.errors import InvalidQueryError, StorageError, counted, shorten, shown
from afterimage.storage.looking.page import page_html
from afterimage.storage.looking.shown import Shown
from afterimage.storage.query.arguments import Choice, Filters, OrderBy
from afterimage.storage.query.read import Read
from afterimage.storage.records.fields import CONVERSATIONS, DOCUMENTS, KINDS, RecordKind
from afterimage.storage.reports.faults import OnError
from afterimage.storage.system.atomic_files import written_file
from afterimage.storage.system.interrupts import signal_safe
from afterimage.storage.system.targets import refuse_own_file, system_path
from afterimage.storage.transfer.remote import to_url

__all__ = ["LookingCalls"]

Readable = Literal["conversations", "documents"]


class LookingCalls(Calls):
    """The methods that show records."""

    @signal_safe
    def show(
        self,
        filters: Filters = None,
        order_by: OrderBy = None,
        limit: int | None = 20,
        offset: int | None = None,
        *,
        kind: Readable = "conversations",
        on_error: OnError = "raise",
        **choice: Unpack[Choice],
    ) -> Shown:
        """Return records as a sequence that a notebook cell shows as HTML.

        Args:
            filters: see the class.
            order_by: see the class.
            limit: see the class.
            offset: see the class.
            kind: "conversations" or "documents".
            on_error: see the class.
            choice: see the class.

        >>> from afterimage.storage import Conversation, SQLStorage
        >>> store = SQLStorage("duckdb:///:memory:")
        >>> talk = [{"role": "user", "content": "To Rome, please."}]
        >>> store.save_conversations([Conversation(conversations=talk)] * 3)
        >>> len(store.show(limit=2))
        2
        """
        chosen = _kind(kind)
        query = self._query(chosen, limit, offset, filters, order_by, choice=choice)
        return Shown(self._load(chosen, query, on_error))

    @signal_safe
    def _repr_html_(self) -> str:
        """Return what a notebook cell shows: the storage, and how many records it has."""
        try:
            counts = {kind.name: self._count(Read(kind)) for kind in KINDS}
        except StorageError as error:
            return f"<p><code>{escape(repr(self))}</code>: {escape(shorten(error))}</p>"
        counts = {name: count for name, count in counts.items() if count or name != "records"}
        found = ", ".join(counted(count, name) for name, count in counts.items())
        return f"<p><code>{escape(repr(self))}</code>: {found}</p>"

    @signal_safe
    @to_url
    def export_html(
        self,
        path: str | Path,
        *,
        kind: Readable = "conversations",
        filters: Filters = None,
        order_by: OrderBy = None,
        limit: int | None = 500,
        offset: int | None = None,
        title: str | None = None,
        on_error: OnError = "raise",
        **choice: Unpack[Choice],
    ) -> int:
        """Write records as one page of HTML, which needs neither a server nor a network.

        The page has a search, menus for roles and for metadata keys with few values, and a dark
        mode. The keys j and k go to the next and the previous record. Nothing in a record is
        executed. The file appears when it is complete.

        Args:
            path: the file, such as `look.html`, or its URL.
            kind: see `show`.
            filters: see the class.
            order_by: see the class.
            limit: see the class. A page of more than some thousand records is slow.
            offset: see the class.
            title: the heading; the name of the storage's file by default.
            on_error: see the class.
            choice: see the class.

        Returns:
            The number of records on the page.
        """
        chosen = _kind(kind)
        target = system_path(path)
        files = self._backend.files()
        refuse_own_file(target, files)
        query = self._query(chosen, limit, offset, filters, order_by, choice=choice)
        records = self._load(chosen, query, on_error)
        name = title or (files[0].name if files else kind)
        text = page_html(records, name).encode("utf-8", "replace")
        with written_file(target) as file:
            if isinstance(file, Path):
                file.write_bytes(text)
            else:
                file.write(text)
        return len(records)


def _kind(name: str) -> RecordKind:
    for kind in (CONVERSATIONS, DOCUMENTS):
        if kind.name == name:
            return kind
    raise InvalidQueryError(f"kind must be 'conversations' or 'documents', not {shown(name, 40)}")
