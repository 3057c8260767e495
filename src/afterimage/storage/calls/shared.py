"""`Calls`: the backend of a storage, and what its public methods share."""

from __future__ import annotations

from dataclasses import replace
from itertools import chain
from typing import TYPE_CHECKING, Any, Self

from afterimage.storage.backend import Backend
from afterimage.storage.query.arguments import Choice, Columns, Filters, OrderBy, Types, positive
from afterimage.storage.query.arguments import seconds as checked_seconds
from afterimage.storage.query.query import Query
from afterimage.storage.query.read import Read
from afterimage.storage.records.fields import RecordKind
from afterimage.storage.reports.faults import Faults, OnError
from afterimage.storage.reports.progress import Followed, following, ignore
from afterimage.storage.system.gc_pause import kept_until_the_end
from afterimage.storage.system.streams import BatchIterator, RecordIterator

if TYPE_CHECKING:  # importing the JSONL storage must not load Arrow
    import pyarrow as pa

    from afterimage.storage.arrow.declared import DeclaredTypes

__all__ = ["Calls"]

# Records that one step of a load builds: enough to make its fixed cost negligible, and few enough
# to need little memory.
_LOAD_BATCH = 4096


class Calls:
    """The base of the classes of public methods.

    Args:
        backend: reads and writes the records of the storage.
    """

    def __init__(self, backend: Backend) -> None:
        self._backend = backend

    def __enter__(self) -> Self:
        """Return the storage. Files are open only during calls, so the end of a block closes none.

        >>> from afterimage.storage import SQLStorage
        >>> with SQLStorage(":memory:") as store:
        ...     store.count_conversations()
        0
        """
        return self

    def __exit__(self, *_error: object) -> None:
        """Do nothing."""

    @property
    def lock_timeout(self) -> float:
        """Seconds to wait for other writers and processes; may be changed at any time."""
        return self._backend.lock_timeout

    @lock_timeout.setter
    def lock_timeout(self, seconds: float) -> None:
        self._backend.lock_timeout = checked_seconds(seconds, "lock_timeout")

    def _query(
        self,
        kind: RecordKind,
        limit: int | None,
        offset: int | None,
        filters: Filters,
        order_by: OrderBy,
        columns: Columns = None,
        choice: Choice | None = None,
    ) -> Query:
        """Return the checked query of a call."""
        fields = self._backend.fields(kind)
        projectable = None if columns is None else {**fields, **kind.stored}
        return Query.of(
            fields,
            limit=limit,
            offset=offset,
            filters=filters,
            order_by=order_by,
            columns=columns,
            projectable=projectable,
            choice=choice,
        )

    def _chosen(self, read: Read) -> Read:
        """Return the read of those rows that `distinct` and `sample` choose, if it has them."""
        query = read.query
        if not query.is_chosen:
            return read
        from afterimage.storage.query.predicates import (  # noqa: PLC0415  loads DuckDB
            chosen_numbers,
        )

        # The second read reports the corrupt records, and its progress.
        matching = Query(where=query.where, only=query.only)
        first = replace(
            read,
            query=matching,
            faults=read.faults.without_report(),
            progress=ignore,
            is_narrow=False,
        )
        with self._backend.relation(first) as relation:
            numbers = chosen_numbers(relation, query)
        return read.over(replace(query, distinct=None, sample=None, only=numbers))

    def _load(self, kind: RecordKind, query: Query, on_error: OnError) -> list[Any]:
        read = self._chosen(Read(kind, query, Faults(on_error)))
        with kept_until_the_end():
            found = list(chain.from_iterable(self._backend.models(read, _LOAD_BATCH)))
        read.faults.warn()
        return found

    def _count(self, read: Read) -> int:
        from afterimage.storage.query.predicates import count_rows  # noqa: PLC0415  loads DuckDB

        def counted() -> int:
            chosen = replace(self._chosen(read), is_narrow=True)
            with self._backend.relation(chosen) as relation:
                return count_rows(relation)

        count = self._backend.repeated(counted)
        read.faults.warn()
        return count

    def _iterate(
        self, kind: RecordKind, query: Query, batch_size: int, on_error: OnError
    ) -> RecordIterator[Any]:
        read = self._chosen(Read(kind, query, Faults(on_error), long_lived=True))
        batches = self._backend.models(read, positive(batch_size, "batch_size"))
        return RecordIterator(read.faults.warn_after(batches))

    def _scan(
        self,
        kind: RecordKind,
        columns: Columns,
        limit: int | None,
        offset: int | None,
        filters: Filters,
        order_by: OrderBy,
        on_error: OnError,
        progress: Followed,
        types: Types,
        choice: Choice,
    ) -> pa.RecordBatchReader:
        import pyarrow as pa  # noqa: PLC0415  importing the JSONL storage does not load it

        from afterimage.storage.arrow.schema import projected_schema  # noqa: PLC0415  as above

        names = list(kind.stored) if columns is None else columns
        query = self._query(kind, limit, offset, filters, order_by, names, choice)
        query, declared = self._declared(query, types)
        assert query.columns is not None
        read = self._chosen(
            Read(kind, query, Faults(on_error), following(progress), long_lived=True)
        )
        batches = self._backend.select(read)
        schema = projected_schema(query.columns)
        if declared is not None:
            schema, batches = declared.schema(schema), declared.batches(batches)
        return pa.RecordBatchReader.from_batches(
            schema, BatchIterator(read.faults.warn_after(batches))
        )

    def _declared(self, query: Query, types: Types) -> tuple[Query, DeclaredTypes | None]:
        """Return a query that reads what the declared types need, and what converts its batches."""
        if types is None:
            return query, None
        from afterimage.storage.arrow.declared import DeclaredTypes  # noqa: PLC0415  loads Arrow

        assert query.columns is not None
        declared = DeclaredTypes.of(types, query.columns)
        return replace(query, columns=declared.columns(query.columns)), declared
