"""The fields of records of our own classes as plain dicts, without copying what is in them.

An object of a subclass may have fields of its own, or write its fields in its own way; such a
record has no view here, and must be dumped. Many records are looked at together, as to ask each of
a million messages for its class would cost more than to write it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from itertools import chain, islice
from operator import attrgetter, itemgetter
from typing import Any

from pydantic import BaseModel

from afterimage.storage import models
from afterimage.storage.records.fields import CONVERSATIONS, Struct

__all__ = ["exact_view", "exact_views", "has_members", "is_shallow"]

_ENTRY = {models.ConversationEntry}
_PERSONA = {models.PersonaEntry}
_ROLE = {models.Role}
_fields_of: Callable[[Any], dict[str, Any]] = attrgetter("__dict__")


def _has_only_declared(model: type[BaseModel], struct: Struct) -> bool:
    # A newer `afterimage` may add fields to its classes: those are then kept as extras.
    return model.model_fields.keys() <= struct.fields.keys()


_CONVERSATIONS = {
    model
    for model in (
        models.EvaluatedConversationWithContext,
        models.ConversationWithContext,
        models.Conversation,
    )
    if _has_only_declared(model, CONVERSATIONS.record)
    and models.ConversationEntry.model_fields.keys() == {"role", "content", "reasoning_content"}
}


def exact_view(model: BaseModel) -> dict[str, Any] | None:
    """The fields of a model; None unless all its objects are of our classes."""
    if type(model) is models.Document:
        view = model.__dict__.copy()
        personas = view.get("personas", ())
        if not {*map(type, personas)} <= _PERSONA:
            return None
        view["personas"] = [*map(_fields_of, personas)]
        return view
    views = exact_views([model])
    return views[0] if views is not None else None


def exact_views(records: Sequence[Any]) -> list[dict[str, Any]] | None:
    """The fields of conversations; None unless all their objects are of our classes."""
    if not {*map(type, records)} <= _CONVERSATIONS:
        return None
    views = [record.__dict__.copy() for record in records]
    talks = [view.get("conversations", ()) for view in views]
    entries = [*chain.from_iterable(talks)]
    if not {*map(type, entries)} <= _ENTRY:
        return None
    parts = map(_fields_of, entries)
    for view, talk in zip(views, talks, strict=True):
        view["conversations"] = [*islice(parts, len(talk))]
        if view.get("evaluation") is not None:
            evaluation = _exact_evaluation(view["evaluation"])
            if evaluation is None:
                return None
            view["evaluation"] = evaluation
    return views


def _exact_evaluation(evaluation: Any) -> dict[str, Any] | None:
    if type(evaluation) is not models.EvaluationSchema:
        return None
    view = evaluation.__dict__.copy()
    for name, part in view.items():
        if name != "overall_grade":
            if type(part) is not models.EvaluationEntrySchema:
                return None
            view[name] = part.__dict__
    return view


def has_members(views: Iterable[dict[str, Any]]) -> bool:
    """Whether roles and grades, which the serializer takes as they come, are of their enums."""
    entries = chain.from_iterable([view.get("conversations", ()) for view in views])
    if not {*map(type, map(itemgetter("role"), entries))} <= _ROLE:
        return False
    evaluations = [view["evaluation"] for view in views if view.get("evaluation") is not None]
    return all(type(found["overall_grade"]) is models.GradeSchema for found in evaluations)


_PLAIN = {str, float, bool, type(None)}
_INTEGER_LIMIT = 2**1000


def is_shallow(views: Iterable[dict[str, Any]]) -> bool:
    """Whether it is soon seen that any reader of JSON can read their metadata.

    No value in it is nested more than once, and no integer has over some hundred digits.
    """
    parts = [*views, *chain.from_iterable([view.get("personas", ()) for view in views])]
    values = [*chain.from_iterable([part["metadata"].values() for part in parts])]
    kinds = {*map(type, values)}
    if list in kinds:
        kinds.remove(list)
        within = [*chain.from_iterable([value for value in values if type(value) is list])]
        kinds |= {*map(type, within)}
        values += within
    if int in kinds:
        kinds.remove(int)
        whole = [value for value in values if type(value) is int]
        if max(whole) > _INTEGER_LIMIT or min(whole) < -_INTEGER_LIMIT:
            return False
    return kinds <= _PLAIN
