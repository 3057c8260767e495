"""Show records, in a notebook or as a page of HTML."""

from __future__ import annotations

from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Unpack

from afterimage.storage.calls.shared import Calls
from afterimage.storage.errors import InvalidQueryError, StorageError, counted, shorten, shown
from afterimage.storage.looking.page import page_html
from afterimage.storage.looking.shown import Shown
from afterimage.storage.query.arguments import Choice, Filters, OrderBy, positive
from afterimage.storage.query.read import Read
from afterimage.storage.records.fields import CONVERSATIONS, DOCUMENTS, KINDS, RecordKind
from afterimage.storage.reports.faults import Faults, OnError
from afterimage.storage.system.atomic_files import written_file
from afterimage.storage.system.interrupts import signal_safe
from afterimage.storage.system.targets import refuse_own_file, system_path
from afterimage.storage.transfer.remote import to_url

if TYPE_CHECKING:  # importing the JSONL storage must not load DuckDB
    from afterimage.storage.tables.schema.layout import Layout

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

    @signal_safe
    def facets(
        self,
        filters: Filters = None,
        *,
        kind: Readable = "conversations",
        most_values: int = 12,
        on_error: OnError = "raise",
    ) -> dict[str, dict[Any, int] | None]:
        """Return the values of fields that have few, with the numbers of records that have them.

        The fields are the metadata keys, `messages.role` and `evaluation.overall_grade`.

        Args:
            filters: see the class.
            kind: see `show`.
            most_values: a field with more values has None instead of its values; so has one with
                a value that is long, a list or an object.
            on_error: see the class.

        Returns:
            By field, most frequent first. At most 1,000 fields.

        >>> from afterimage.storage import Conversation, SQLStorage
        >>> store = SQLStorage("duckdb:///:memory:")
        >>> store.save_conversations(
        ...     [Conversation(conversations=[], metadata={"domain": name}) for name in "aba"]
        ... )
        >>> store.facets()
        {'metadata.domain': {'a': 2, 'b': 1}}
        """
        from afterimage.storage.query.figures.facets import (  # noqa: PLC0415  loads DuckDB
            count_values,
        )

        chosen = _kind(kind)
        most = positive(most_values, "most_values")
        query = self._query(chosen, None, None, filters, None)
        read = Read(chosen, query, Faults(on_error))

        def counted_values() -> dict[str, dict[Any, int] | None]:
            with self._backend.relation(read) as relation:
                return count_values(relation, chosen, most)

        found = self._backend.repeated(counted_values)
        read.faults.warn()
        return found

    @signal_safe
    def as_sql(
        self,
        filters: Filters = None,
        order_by: OrderBy = None,
        limit: int | None = None,
        offset: int | None = None,
        *,
        kind: Readable = "conversations",
    ) -> str:
        """Return the SQL statement that selects the same records as a read, to go on in SQL.

        Of a JSON lines file, it is for the tables that the command `sql` makes of it.

        Args:
            filters: see the class.
            order_by: see the class.
            limit: see the class.
            offset: see the class.
            kind: see `show`.

        >>> from afterimage.storage import SQLStorage
        >>> store = SQLStorage("duckdb:///:memory:")
        >>> " ".join(store.as_sql({"persona": "A guide"}).split()[:8])
        "SELECT * FROM conversations WHERE conversations.persona = 'A"
        """
        from afterimage.storage.query.statement_text import (  # noqa: PLC0415  loads DuckDB
            statement_text,
        )

        chosen = _kind(kind)
        query = self._query(chosen, limit, offset, filters, order_by)
        stored = self._layout().of(chosen)
        return statement_text(stored.table, stored.source, query)

    def _layout(self) -> Layout:
        """Return the tables with the records: those that the command `sql` makes of lines."""
        from afterimage.storage.tables.schema.layout import Layout  # noqa: PLC0415  loads DuckDB

        return Layout("conversations", "documents", compress=False)


def _kind(name: str) -> RecordKind:
    for kind in (CONVERSATIONS, DOCUMENTS):
        if kind.name == name:
            return kind
    raise InvalidQueryError(f"kind must be 'conversations' or 'documents', not {shown(name, 40)}")
