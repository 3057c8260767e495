"""`Read`: everything a backend must know to answer one call, as one value.

It is made once, in the façade, and handed on whole. This module needs no engine.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from afterimage.storage.query.query import Query
from afterimage.storage.records.fields import RecordKind
from afterimage.storage.reports.faults import Faults
from afterimage.storage.reports.progress import Progress, ignore

__all__ = ["Read"]


@dataclass(frozen=True)
class Read:
    """One read of one kind of records.

    Attributes:
        kind: which records.
        query: filters, order, slice and projection, checked.
        faults: what to do with corrupt records, and those met so far.
        progress: called with the number of records read, and with the share where it takes one.
        long_lived: whether the caller may keep the iterator, so that it must shut nobody out.
    """

    kind: RecordKind
    query: Query = field(default_factory=Query)
    faults: Faults = field(default_factory=Faults)
    progress: Progress = ignore
    long_lived: bool = False

    def over(self, query: Query) -> Read:
        """The same read with another query."""
        return replace(self, query=query)
