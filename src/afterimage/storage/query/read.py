"""`Read`: all parameters of one read, as one value.

`RecordStorage` creates it once per call and passes it to the backend. This module does not import
the engine.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

from afterimage.storage.query.query import Query
from afterimage.storage.records.fields import RecordKind
from afterimage.storage.reports.faults import Faults
from afterimage.storage.reports.progress import Progress, ignore
from afterimage.storage.system.package import warn_caller

__all__ = ["Read"]


def _accept(*_: object) -> None:
    """Accept every record of another model."""


@dataclass(frozen=True)
class Read:
    """One read of records of one kind.

    Attributes:
        kind: the kind of the records.
        query: the checked filters, order, slice and projection.
        faults: the policy for corrupt records, and the tally of those skipped so far.
        progress: called with the number of records read; a `ShareProgress` also gets the share.
        max_line_bytes: maximum length of a line of an import; None for the default.
        long_lived: whether the caller may keep the iterator for a long time. The read must then
            not block other users of the file.
        warn: called with the warnings of an import.
        other: called with the chunk, the line and the JSON object of each record of another model
            that is imported.
        converted: returns chunks of lines of an import with records in place of the rows of another
            format.
        valid: whether a record that a load rejects is an error, also where the read could go on.
        is_narrow: whether a relation is read for the fields only that the query names.
    """

    kind: RecordKind
    query: Query = field(default_factory=Query)
    faults: Faults = field(default_factory=Faults)
    progress: Progress = ignore
    max_line_bytes: int | None = None
    long_lived: bool = False
    warn: Callable[[str], None] = warn_caller
    other: Callable[[Any, Any, dict[str, Any]], None] = _accept
    converted: Callable[[Iterator[Any]], Iterator[Any]] = iter
    valid: bool = False
    is_narrow: bool = False

    def over(self, query: Query) -> Read:
        """Return the same read with another query."""
        return replace(self, query=query)
