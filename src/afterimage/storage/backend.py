"""`Backend`: what a storage asks of the place where its records are.

`RecordStorage` has a backend; the two of this package are `jsonl.backend.JsonlBackend` and
`tables.backend.TablesBackend`. A read arrives as one `Read`, checked. All public calls follow from
these methods, so they mean the same in every storage.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from pydantic import BaseModel

from afterimage.storage.query.read import Read
from afterimage.storage.records.fields import FieldType, RecordKind
from afterimage.storage.reports.progress import Progress
from afterimage.storage.reports.verification import Verification

if TYPE_CHECKING:  # importing the JSONL storage loads neither Arrow nor SQLAlchemy
    import pyarrow as pa

    from afterimage.storage.query.relations import Relation, Source

__all__ = ["Backend"]


class Backend(Protocol):
    """Where records are kept.

    Attributes:
        lock_timeout: seconds to wait for other writers and processes; may be changed at any time.
        batch_rows: the most records of a record batch; None for the backend's own size.
        mixes_kinds: whether records of other models are read together with the conversations, so
            that reads of both meet the same corrupt records.
    """

    lock_timeout: float
    batch_rows: int | None
    mixes_kinds: bool

    def append(self, kind: RecordKind, records: Sequence[BaseModel]) -> None:
        """Save all of the records or none; they are durable on return."""

    def append_file(self, path: Path, read: Read) -> int:
        """Save the records of a JSONL file that is not the backend's own.

        All that `read.faults` does not skip are saved, or none; returns how many.
        """

    def relation(self, read: Read) -> AbstractContextManager[Relation]:
        """The records for one SQL statement that reads them once; see `Relation`."""

    def select(
        self, read: Read, text: Callable[[Source], Any] | None = None
    ) -> Generator[pa.RecordBatch, None, None]:
        """The query's columns of matching records, with the declared schema.

        With `text`, one column instead: what that SQL expression makes of each record.
        """

    def objects(self, read: Read) -> Generator[list[dict[str, Any]], None, None]:
        """Matching records as JSON objects with their extras, in bounded lists."""

    def models(self, read: Read, batch_size: int) -> Iterator[list[Any]]:
        """Matching records as validated models, in lists of at most `batch_size`."""

    def verify(self, progress: Progress | None) -> Verification:
        """Read everything again and report what is wrong; see `RecordStorage.verify`."""

    def fields(self, kind: RecordKind) -> Mapping[str, FieldType]:
        """The fields that filters and sorts may name."""

    def files(self) -> list[Path]:
        """The files that hold the records."""

    def read_weights(self, kinds: Sequence[RecordKind]) -> list[float]:
        """How much work it is to read the records of each kind, in any unit."""
