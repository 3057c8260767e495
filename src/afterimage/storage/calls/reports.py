"""Statistics and verification of all stored records."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

from afterimage.storage.calls.shared import Calls
from afterimage.storage.errors import InvalidQueryError, shown
from afterimage.storage.query.arguments import Filters, positive
from afterimage.storage.query.query import Query
from afterimage.storage.query.read import Read
from afterimage.storage.records.fields import CONVERSATIONS, DOCUMENTS, OTHERS
from afterimage.storage.reports.faults import Faults, OnError
from afterimage.storage.reports.progress import Progress, following, ignore, share_only, split
from afterimage.storage.reports.verification import Verification
from afterimage.storage.system.interrupts import signal_safe

if TYPE_CHECKING:  # importing the JSONL storage must not load the engine
    from afterimage.storage.reports.statistics import Statistics

__all__ = ["ReportCalls"]


class ReportCalls(Calls):
    """The methods that report on all records."""

    @signal_safe
    def stats(
        self,
        filters: Filters = None,
        *,
        top_keys: int = 20,
        longer_than: int | None = None,
        tokens: Callable[[str], int] | None = None,
        progress: Progress | bool | None = None,
        on_error: OnError = "raise",
    ) -> Statistics:
        """Return counts, lengths, scores, metadata keys and duplicates; see `Statistics`.

        The engine reads the conversations once. It keeps some numbers of each conversation and
        message in memory, but no contents.

        Args:
            filters: select the conversations. Documents and records of other models are not
                filtered.
            top_keys: number of metadata keys to list.
            longer_than: count the conversations whose contents have together more characters than
                this, or more tokens if `tokens` is given.
            tokens: returns the number of tokens of a text; for example
                `lambda text: len(encoding.encode(text))` with an encoding of `tiktoken`. It is
                called once for each content that is not empty, in another thread, but never twice
                at a time. Its exceptions end the call.
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
        >>> found.without_answer, store.stats(tokens=lambda text: len(text.split())).total_tokens
        (2, 6)
        >>> found.metadata_keys
        (MetadataKey(key='day', rows=2, values=1),)
        """
        from afterimage.storage.query.figures.statistics import (  # noqa: PLC0415  loads DuckDB
            conversation_statistics,
        )
        from afterimage.storage.query.predicates import count_rows  # noqa: PLC0415  loads DuckDB

        query = self._query(CONVERSATIONS, None, None, filters, None)
        top_keys = positive(top_keys, "top_keys")
        if longer_than is not None:
            longer_than = positive(longer_than, "longer_than")
        if not (tokens is None or callable(tokens)):
            raise InvalidQueryError(
                f"tokens must be a function from a text to a number, not {shown(tokens, 40)}"
            )
        weights = self._backend.read_weights([DOCUMENTS, OTHERS, CONVERSATIONS])
        follow = following(progress) if progress else None
        first, second, last = split(follow or ignore, weights)
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
                longer_than=longer_than,
                tokens=tokens,
                progress=last if follow else None,
            )
        faults.warn()
        return statistics

    @signal_safe
    def verify(
        self, *, progress: Progress | bool | None = None, repair: bool = False
    ) -> Verification:
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
        return replace(
            self._backend.verify(following(progress) if progress else None), repaired=repaired
        )
