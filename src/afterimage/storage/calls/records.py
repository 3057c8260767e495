"""Load and count records of any model."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import closing
from itertools import islice
from typing import TypeVar

from pydantic import BaseModel

from afterimage.storage.calls.shared import Calls
from afterimage.storage.errors import InvalidQueryError, shown
from afterimage.storage.models import Conversation
from afterimage.storage.query.arguments import Filters, OrderBy
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
        if issubclass(model, Conversation) or "conversations" in _names_of(model):
            # The model's own fields take precedence over storage columns with the same name.
            declared = CONVERSATIONS.record.fields
            typed = {**self._backend.fields(CONVERSATIONS), **own, **declared}
            fields = {CONVERSATIONS: typed} | fields
        if issubclass(model, Conversation):
            del fields[OTHERS]
        queries = {
            kind: Query.of(known, limit=limit, offset=offset, filters=filters, order_by=order_by)
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

    @signal_safe
    def count_records(self, filters: Filters = None, *, on_error: OnError = "raise") -> int:
        """Return the number of matching records of other models; filters may name any field.

        >>> from afterimage.storage import SQLStorage
        >>> class Note(BaseModel):
        ...     text: str
        >>> store = SQLStorage("duckdb:///:memory:")
        >>> store.save_conversations([Note(text="one"), Note(text="two")])
        >>> store.count_records({"text": "two"})
        1
        """
        query = self._query(OTHERS, None, None, filters, None)
        return self._count(Read(OTHERS, query, Faults(on_error)))


def _names_of(model: type[BaseModel]) -> set[str]:
    """Return the names of a model's fields in JSON."""
    return {field.alias or name for name, field in model.model_fields.items()}
