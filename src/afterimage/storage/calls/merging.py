"""Add the records of another storage, and compare two storages."""

# ruff: noqa: SLF001  a storage reads the backend of another one

from __future__ import annotations

import json
from collections.abc import Callable, Generator
from contextlib import ExitStack, closing
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic_core import to_json

from afterimage.storage.calls.shared import Calls
from afterimage.storage.errors import InvalidQueryError, StorageError
from afterimage.storage.jsonl.lines import Chunk
from afterimage.storage.query.arguments import Filters
from afterimage.storage.query.read import Read
from afterimage.storage.records.fields import (
    CONVERSATIONS,
    DOCUMENTS,
    KINDS,
    OTHERS,
    Kind,
    RecordKind,
    kind_named,
)
from afterimage.storage.reports.differences import Diff
from afterimage.storage.reports.faults import Faults
from afterimage.storage.reports.imports import ImportCount
from afterimage.storage.system.interrupts import signal_safe
from afterimage.storage.system.package import DeferredWarnings

if TYPE_CHECKING:  # importing the JSONL storage must not load Arrow
    import pyarrow as pa

__all__ = ["MergingCalls"]


class MergingCalls(Calls):
    """The methods for two storages, of either sort."""

    @signal_safe
    def import_store(self, other: MergingCalls, *, skip_existing: bool = True) -> ImportCount:
        """Save the records of another storage: conversations, documents and other models.

        All records are saved, or none. A `JSONLStorage` has two files: of each, all records are
        saved, or none, which matters if the process is killed between them. With `skip_existing`,
        the call can then be repeated.

        Args:
            other: a storage of either sort. It is not changed.
            skip_existing: whether to leave out records whose content is in this storage already: a
                conversation with the same messages, a document with the same text, an equal record
                of another model. The call then saves nothing if it is repeated.

        Returns:
            The number of saved records. Its attribute `others` is the number of those that are
            records of other models.

        Raises:
            InvalidQueryError: `other` is no storage, or has the same file as this one.
            CorruptRecordError: a record of `other` is not valid.
            StorageError: `other` was changed meanwhile.

        >>> from afterimage.storage import Conversation, SQLStorage
        >>> one, two = SQLStorage("duckdb:///:memory:"), SQLStorage("duckdb:///:memory:")
        >>> talk = [{"role": "user", "content": "To Rome, please."}]
        >>> one.save_conversations([Conversation(conversations=talk)])
        >>> two.import_store(one), two.import_store(one)
        (1, 0)
        """
        self._check_other(other)
        with DeferredWarnings() as warn, ExitStack() as stack:
            chunks = {
                kind: stack.enter_context(closing(self._new_chunks(other, kind, skip_existing)))
                for kind in KINDS
            }
            read = Read(CONVERSATIONS, faults=Faults("raise"), warn=warn)
            return self._backend.append_chunks(
                [
                    (chain(chunks[CONVERSATIONS], chunks[OTHERS]), read),
                    (chunks[DOCUMENTS], replace(read, kind=DOCUMENTS)),
                ]
            )

    @signal_safe
    def diff(
        self,
        other: MergingCalls,
        *,
        kind: Kind = "conversations",
        filters: Filters = None,
    ) -> Diff:
        """Compare the records of two storages by their `content_hash`, in any order.

        Args:
            other: a storage of either sort.
            kind: "conversations" or "documents".
            filters: if given, only these records of both storages are compared.

        Returns:
            How many records are in both, only in one of them, and changed in their metadata or
            scores, with the records behind each number; see `Diff`.

        Raises:
            InvalidQueryError: an argument is not valid.
            CorruptRecordError: a record is not valid.

        >>> from afterimage.storage import Conversation, SQLStorage
        >>> one, two = SQLStorage("duckdb:///:memory:"), SQLStorage("duckdb:///:memory:")
        >>> talks = [
        ...     Conversation(conversations=[{"role": "user", "content": text}])
        ...     for text in ("To Rome.", "To Oslo.", "To Bern.")
        ... ]
        >>> one.save_conversations(talks[:2])
        >>> two.save_conversations(talks[1:])
        >>> _ = two.update_conversations({"first_role": "user"}, {"checked": True})
        >>> found = one.diff(two)
        >>> found.equal, found.both, found.changed, found.only_here, found.only_there
        (False, 1, 1, 1, 1)
        >>> found.records("only_there")[0].conversations[0].content
        'To Bern.'
        """
        from afterimage.storage.query.compared import compare, content_of  # noqa: PLC0415  heavy

        chosen = kind_named(kind)
        if chosen is OTHERS:
            raise InvalidQueryError("records of other models have no content hash to compare")
        _check_storage(other)
        contents = []
        for store in (self, other):
            query = store._query(chosen, None, None, filters, None)
            with store._backend.relation(Read(chosen, query)) as relation:
                contents.append(content_of(chosen, relation))
        found = compare(*contents)
        places = {
            "only_here": (self, found.only_here),
            "only_there": (other, found.only_there),
            "changed_here": (self, found.changed_here),
            "changed_there": (other, found.changed_there),
        }

        def rows(part: str) -> pa.Table:
            store, at = places[part]
            return store._rows_at(chosen, filters, at)

        def models(part: str) -> list[Any]:
            from afterimage.storage.arrow.models import models_of  # noqa: PLC0415  heavy

            return [each for batch in rows(part).to_batches() for each in models_of(chosen, batch)]

        return Diff(
            here=self._name(),
            there=other._name(),
            kind=chosen.name,
            both=found.both,
            only_here=len(found.only_here),
            only_there=len(found.only_there),
            changed=len(found.changed_here),
            _rows=rows,
            _models=models,
        )

    def _rows_at(self, kind: RecordKind, filters: Filters, places: pa.Array) -> pa.Table:
        """Return the records at places of the insertion order, which ascend."""
        import pyarrow as pa  # noqa: PLC0415  importing the JSONL storage does not load it
        import pyarrow.compute as pc  # noqa: PLC0415  as above

        from afterimage.storage.arrow.schema import arrow_schema  # noqa: PLC0415  as above

        query = self._query(kind, None, None, filters, None, list(kind.stored))
        found, start = [], 0
        if len(places):
            with closing(self._backend.select(Read(kind, query))) as batches:
                for batch in batches:
                    low, high = start, start + len(batch)
                    start = high
                    within = pc.and_(pc.greater_equal(places, low), pc.less(places, high))
                    if chosen := places.filter(within):
                        found.append(batch.take(pc.subtract(chosen, low)))
        return pa.Table.from_batches(found, arrow_schema(kind.stored))

    def _new_chunks(
        self,
        other: MergingCalls,
        kind: RecordKind,
        skip_existing: bool,  # noqa: FBT001  as in the public call
    ) -> Generator[Chunk, None, None]:
        """Return the records of one kind of another storage that are to be saved, as chunks."""
        is_new = self._filter(other, kind) if skip_existing else _all
        source = Read(kind, valid=True)

        def chunks() -> Generator[Chunk, None, None]:
            number = 1
            with closing(other._backend.objects(source)) as batches:
                for objects in batches:
                    new = is_new(objects)
                    lines = [to_json(each, inf_nan_mode="constants") for each in new]
                    name = Path(other._name())
                    if lines:
                        yield Chunk(name, number, 0, lines, "utf-8", of_documents=kind is DOCUMENTS)
                    number += len(lines)
            is_new([], at_end=True)

        return chunks()

    def _filter(self, other: MergingCalls, kind: RecordKind) -> _Filter:
        """Return the function that returns those of the next records that are not here."""
        if kind is OTHERS:
            with closing(self._backend.objects(Read(kind))) as batches:
                here = {_canonical(each) for objects in batches for each in objects}

            def is_new(objects: list[Any], *, at_end: bool = False) -> list[Any]:
                del at_end
                return [each for each in objects if _canonical(each) not in here]

            return is_new
        from afterimage.storage.query.compared import hashes_of  # noqa: PLC0415  heavy

        with self._backend.relation(Read(kind)) as relation:
            known = {*hashes_of(kind, relation)}
        with other._backend.relation(Read(kind)) as relation:
            hashes = hashes_of(kind, relation)
        done = 0

        def is_new_content(objects: list[Any], *, at_end: bool = False) -> list[Any]:
            nonlocal done
            part = hashes[done : done + len(objects)]
            done += len(objects)
            if len(part) < len(objects) or (at_end and done != len(hashes)):
                raise StorageError(
                    f"{other._name()} was changed while it was imported. Import it again; what was "
                    "saved is not saved again."
                )
            return [each for each, hash_ in zip(objects, part, strict=True) if hash_ not in known]

        return is_new_content

    def _check_other(self, other: Any) -> None:
        _check_storage(other)
        own = {path.resolve() for path in self._backend.files()}
        same = [path for path in other._backend.files() if path.resolve() in own]
        if same or other._backend is self._backend:
            name = same[0] if same else "the storage"
            raise InvalidQueryError(f"{name} is this storage's own file. Give another storage.")

    def _name(self) -> str:
        return ", ".join(map(str, self._backend.files())) or ":memory:"


_Filter = Callable[..., list[Any]]


def _all(objects: list[Any], *, at_end: bool = False) -> list[Any]:
    del at_end
    return objects


def _canonical(record: Any) -> str:
    return json.dumps(record, sort_keys=True)


def _check_storage(other: Any) -> None:
    if not isinstance(other, MergingCalls):
        raise InvalidQueryError(f"other must be a storage, not {type(other).__name__}")
