"""What a storage implements: a few calls, each for one kind of records and one checked `Query`.

All public calls follow from these, so that they mean the same everywhere (`import_export.py`,
`record_storage.py`).
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel

from afterimage.storage.base import BaseStorage
from afterimage.storage.errors import InvalidQueryError
from afterimage.storage.query.query import Columns, Filters, OrderBy, Query
from afterimage.storage.records.fields import FieldType, RecordTable
from afterimage.storage.records.kinds import Kind
from afterimage.storage.reports.faults import CorruptRecords
from afterimage.storage.reports.progress import Progress
from afterimage.storage.reports.verification import Verification

if TYPE_CHECKING:  # the JSONL storage alone is not to load it
    import pyarrow as pa
    import sqlalchemy as sa

    from afterimage.storage.query.predicates import Source

__all__ = ["Backend", "refuse_own_file"]


class Backend(BaseStorage):
    """The calls of a storage that differ from one to another, and the query they take.

    `progress` is told of records as they are read and, where all of a file is read for them
    whatever the query is, how much of it was.
    """

    @abstractmethod
    def _save(self, table: RecordTable, records: Sequence[BaseModel]) -> None:
        """Save all of them or none."""

    @abstractmethod
    def _objects(
        self, kind: Kind, query: Query, corrupt: CorruptRecords, progress: Progress
    ) -> Generator[list[dict[str, Any]], None, None]:
        """Matching records as JSON objects, extras included, in bounded lists."""

    @abstractmethod
    def _models(
        self, table: RecordTable, query: Query, batch_size: int, corrupt: CorruptRecords
    ) -> Iterator[list[Any]]:
        """Matching records as validated models, in lists of at most `batch_size`."""

    @abstractmethod
    def _batches(
        self, table: RecordTable, query: Query, corrupt: CorruptRecords, progress: Progress
    ) -> Generator[pa.RecordBatch, None, None]:
        """The query's columns of matching records, with the declared schema."""

    @abstractmethod
    def _texts(
        self,
        query: Query,
        text: Callable[[Source], Any],
        corrupt: CorruptRecords,
        progress: Progress,
    ) -> Generator[pa.RecordBatch, None, None]:
        """What `text` makes of each matching conversation in SQL: one column of strings."""

    @abstractmethod
    def _count(self, kind: Kind, query: Query, corrupt: CorruptRecords) -> int:
        """How many records match."""

    @abstractmethod
    def _relation(
        self, kind: Kind, query: Query, corrupt: CorruptRecords, progress: Progress
    ) -> AbstractContextManager[tuple[sa.Connection, sa.FromClause, Source, Query]]:
        """The records for one SQL statement that reads them once, and where the fields are.

        The query given back leaves out what is to be skipped. `progress` is told of what can be
        read only once, such as a stream of lines.
        """

    @abstractmethod
    def _import(
        self, table: RecordTable, path: Path, corrupt: CorruptRecords, progress: Progress
    ) -> int:
        """Save the records of a JSONL file, all that are not skipped or none; how many."""

    @abstractmethod
    def _verify(self, progress: Progress | None) -> Verification:
        """What `verify` gives."""

    @abstractmethod
    def _own_files(self) -> list[Path]:
        """The files that hold this storage's records."""

    # Iterators that a caller may keep for long; a storage that would shut others out meanwhile
    # overrides these two.

    def _held_models(
        self, table: RecordTable, query: Query, batch_size: int, corrupt: CorruptRecords
    ) -> Iterator[list[Any]]:
        return self._models(table, query, batch_size, corrupt)

    def _held_batches(
        self, table: RecordTable, query: Query, corrupt: CorruptRecords, progress: Progress
    ) -> Generator[pa.RecordBatch, None, None]:
        return self._batches(table, query, corrupt, progress)

    def _weights(self, kinds: Sequence[str]) -> list[float]:
        """How much work it is to read the records of each kind, or to count others, in any unit."""
        return [float(kind == "conversations") for kind in kinds]

    def _fields(self, table: RecordTable) -> Mapping[str, FieldType]:
        """The fields that filters and sorts may name."""
        return table.record.fields

    def _query(
        self,
        table: RecordTable,
        limit: int | None,
        offset: int | None,
        filters: Filters,
        order_by: OrderBy,
        columns: Columns = None,
    ) -> Query:
        """What a call is about, checked before anything is read."""
        fields = self._fields(table)
        return Query.of(
            fields,
            limit=limit,
            offset=offset,
            filters=filters,
            order_by=order_by,
            columns=columns,
            projectable={**fields, **table.stored},
        )


def refuse_own_file(path: Path, own_files: Iterable[Path]) -> None:
    """Refuse a path that is one of a storage's own files, by whatever name.

    Raises:
        InvalidQueryError: it is one.
    """
    for own in own_files:
        try:
            same = path.samefile(own)
        except OSError:  # one of them is not there
            same = path.absolute() == own
        if same:
            raise InvalidQueryError(f"{path} is this storage's own file. Give another one.")
