"""Load and count records of any model."""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import closing
from dataclasses import replace
from itertools import compress, islice
from typing import Any, TypeVar, Unpack, get_args, get_origin

from pydantic import BaseModel

from afterimage.storage.calls.shared import Calls
from afterimage.storage.errors import InvalidQueryError, shown
from afterimage.storage.models import Conversation
from afterimage.storage.query.arguments import Choice, Filters, OrderBy
from afterimage.storage.query.query import Query
from afterimage.storage.query.read import Read
from afterimage.storage.records.fields import CONVERSATIONS, OTHERS, FieldType, Json
from afterimage.storage.records.validation import matching
from afterimage.storage.reports.faults import Faults, OnError
from afterimage.storage.system.interrupts import checkpoint, signal_safe

__all__ = ["RecordCalls"]

_Model = TypeVar("_Model", bound=BaseModel)


class RecordCalls(Calls):
    """The methods for records of any model."""

    @signal_safe
    def load_records(
        self,
        model: type[_Model],
        limit: int | None = None,
        offset: int | None = None,
        filters: Filters = None,
        order_by: OrderBy = None,
        *,
        on_error: OnError = "raise",
        **choice: Unpack[Choice],
    ) -> list[_Model]:
        """Return the saved records that match `model`, as instances of it.

        A record matches if all its keys are fields of the model and it validates. If `model` is a
        subclass of `Conversation`, the conversations are searched, with the fields that the
        subclass adds; for any other model, the records that are not conversations. A model that has
        a field `conversations` of its own finds both: first the conversations, then the others.
        Filters and sort keys may name the model's own fields and paths inside them.

        >>> from afterimage.storage import SQLStorage
        >>> class Note(BaseModel):
        ...     text: str
        >>> store = SQLStorage("duckdb:///:memory:")
        >>> store.save_conversations([Note(text="one"), Note(text="two")])
        >>> store.load_records(Note, filters=[("text", ">", "one")])
        [Note(text='two')]
        >>> store.load_conversations()
        []
        """
        if not (isinstance(model, type) and issubclass(model, BaseModel)):
            raise InvalidQueryError(f"model must be a pydantic class, not {shown(model, 60)}")
        own: dict[str, FieldType] = {name: Json() for name in model.model_fields}
        fields = {OTHERS: own}
        if issubclass(model, Conversation) or _may_have_messages(model):
            # The model's own fields take precedence over storage columns with the same name.
            declared = CONVERSATIONS.record.fields
            typed = {**self._backend.fields(CONVERSATIONS), **own, **declared}
            fields = {CONVERSATIONS: typed} | fields
        if issubclass(model, Conversation):
            del fields[OTHERS]
        queries = {
            kind: Query.of(
                known,
                limit=limit,
                offset=offset,
                filters=filters,
                order_by=order_by,
                choice=choice,
            )
            for kind, known in fields.items()
        }
        query = next(iter(queries.values()))
        match = matching(model)
        faults = Faults(on_error)

        def found() -> Generator[_Model, None, None]:
            for kind, wanted in queries.items():
                # A corrupt conversation is no record of another model.
                is_other = kind is CONVERSATIONS and OTHERS in queries
                own = Faults("skip").without_report() if is_other else faults
                read = Read(kind, wanted.without_slice(), own)
                if wanted.is_chosen:
                    read = self._chosen(self._matching(read, match))
                with closing(self._backend.objects(read)) as batches:
                    for objects in batches:
                        for record in map(match, objects):
                            checkpoint()  # at each record, as a model may have slow validators
                            if record is not None:
                                yield record

        with closing(found()) as records:
            page = list(islice(islice(records, query.offset, None), query.limit))
        faults.warn()
        return page

    def _matching(self, read: Read, match: Callable[[Any], BaseModel | None]) -> Read:
        """Return the read of only the rows that match a model."""
        from afterimage.storage.query.predicates import (  # noqa: PLC0415  loads DuckDB
            chosen_numbers,
        )

        every = replace(read, query=Query(where=read.query.where))
        every = replace(every, faults=read.faults.without_report())
        with closing(self._backend.objects(every)) as batches:
            matches = [match(record) is not None for objects in batches for record in objects]
        every = replace(every, faults=read.faults.without_report())
        with self._backend.relation(every) as relation:
            numbers = chosen_numbers(relation, Query())
        # Rows that were saved between the two reads come last.
        return read.over(replace(read.query, only=tuple(compress(numbers, matches))))

    @signal_safe
    def count_records(
        self,
        filters: Filters = None,
        *,
        on_error: OnError = "raise",
        **choice: Unpack[Choice],
    ) -> int:
        """Return the number of matching records of other models; filters may name any field.

        >>> from afterimage.storage import SQLStorage
        >>> class Note(BaseModel):
        ...     text: str
        >>> store = SQLStorage("duckdb:///:memory:")
        >>> store.save_conversations([Note(text="one"), Note(text="two")])
        >>> store.count_records({"text": "two"})
        1
        """
        query = self._query(OTHERS, None, None, filters, None, choice=choice)
        return self._count(Read(OTHERS, query, Faults(on_error)))


def _may_have_messages(model: type[BaseModel]) -> bool:
    """Return whether a model has a list `conversations` in JSON."""
    for name, field in model.model_fields.items():
        if (field.alias or name) == "conversations":
            types = (field.annotation, *get_args(field.annotation))
            return any(each is Any or (get_origin(each) or each) is list for each in types)
    return False
