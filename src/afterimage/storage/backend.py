"""`Backend`: the protocol between `RecordStorage` and the files or tables that hold the records.

A `RecordStorage` has one backend: `jsonl.backend.JsonlBackend` or `tables.backend.TablesBackend`.
Each read is passed to it as one checked `Read`. All public methods of a storage are built on these
methods, so they behave the same in every storage.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Protocol, TypeVar

from pydantic import BaseModel

from afterimage.storage.query.read import Read
from afterimage.storage.records.fields import FieldType, RecordKind
from afterimage.storage.records.metadata_changes import MetadataChange
from afterimage.storage.records.paths import FieldRef
from afterimage.storage.reports.imports import ImportCount
from afterimage.storage.reports.progress import Progress
from afterimage.storage.reports.verification import Verification

if TYPE_CHECKING:  # importing the JSONL storage must not load Arrow or SQLAlchemy
    import pyarrow as pa

    from afterimage.storage.query.relations import Relation, Source

__all__ = ["Backend"]


_Result = TypeVar("_Result")


class Backend(Protocol):
    """Reads and writes the records of one storage.

    Attributes:
        lock_timeout: seconds to wait for other writers and processes; may be changed at any time.
        batch_rows: maximum number of rows of a record batch; None for the backend's default.
        mixes_kinds: whether conversations and records of other models share a file. If they do, a
            read of either kind finds the same corrupt records.
    """

    lock_timeout: float
    batch_rows: int | None
    mixes_kinds: bool

    def append(self, kind: RecordKind, records: Sequence[BaseModel]) -> None:
        """Save all records or none. They are durable on return."""

    def append_sources(self, origins: Sequence[Path | IO[Any]], read: Read) -> ImportCount:
        """Save the records of JSON lines that do not belong to the backend.

        All records of all sources that `read.faults` does not skip are saved, or none. Each source
        is read once.

        Returns:
            The number of saved records, and how many of them are of other models.
        """

    def append_chunks(self, parts: Sequence[tuple[Iterator[Any], Read]]) -> ImportCount:
        """Save the records of chunks of JSON lines, as `append_sources` does.

        Args:
            parts: chunks, and the read that says of which kind they are. All records of all parts
                are saved, or none. In JSONL files, the records of each file are; nothing is saved
                before all chunks are read.
        """

    def delete(self, read: Read) -> int:
        """Delete the matching records, all or none; return their number."""

    def update(self, read: Read, change: MetadataChange) -> int:
        """Change the metadata of the matching records, all or none; return their number."""

    def delete_repeated(self, read: Read, field: FieldRef, *, last: bool) -> int:
        """Delete the matching records whose value of a field another one has; return their number.

        The first record of each value is kept; with `last`, the last one.
        """

    def compact(self) -> None:
        """Make the files as small as their records are."""

    def repeated(self, read: Callable[[], _Result]) -> _Result:
        """Return what a function returns; call it again if a connection to a server is lost."""

    def relation(self, read: Read) -> AbstractContextManager[Relation]:
        """Open the records for one SQL statement, which reads them once; see `Relation`."""

    def select(
        self, read: Read, text: Callable[[Source], Any] | None = None
    ) -> Generator[pa.RecordBatch, None, None]:
        """Yield the matching records as record batches with the query's columns.

        Args:
            read: the query.
            text: if given, the batches have one column instead: the value of the SQL expression
                that this function returns.
        """

    def objects(self, read: Read) -> Generator[list[dict[str, Any]], None, None]:
        """Yield matching records as JSON objects, with extra fields, in lists of bounded size."""

    def models(self, read: Read, batch_size: int) -> Iterator[list[Any]]:
        """Return an iterator over matching records as models, in lists of up to `batch_size`."""

    def repair(self) -> int:
        """Set again what is computed from the records and differs; return how many rows it was."""

    def verify(self, progress: Progress | None) -> Verification:
        """Read all records again and report all faults; see `RecordStorage.verify`."""

    def fields(self, kind: RecordKind) -> Mapping[str, FieldType]:
        """Return the fields that filters and sort keys may name."""

    def files(self) -> list[Path]:
        """Return the files that hold the records."""

    def read_weights(self, kinds: Sequence[RecordKind]) -> list[float]:
        """Return the estimated work to read the records of each kind, in any unit."""
