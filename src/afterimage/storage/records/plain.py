"""Records of this package's own classes as plain dicts, if every value has its declared type.

The plain dicts share the field values with the models; nothing is copied. Types are checked for
many records at once, as a check for each message would cost more than writing the message. If one
value of the records does not have exactly its declared type, the result is None: `objects.py` then
converts record by record, and rejects what no load would return.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from itertools import chain, islice
from operator import attrgetter, itemgetter
from typing import Any, Final, NamedTuple

from pydantic import BaseModel

from afterimage.storage import models
from afterimage.storage.records.fields import CONVERSATIONS, CRITERIA, DOCUMENTS, Struct

__all__ = ["MESSAGE_FIELDS", "Plains", "as_plain_dict", "exact_dicts", "is_plain_metadata"]

_fields_of: Callable[[Any], dict[str, Any]] = attrgetter("__dict__")


def _has_only_declared(model: type[BaseModel], struct: Struct) -> bool:
    # A newer `afterimage` may add fields to its classes. Those are stored as extra fields.
    return model.model_fields.keys() <= struct.fields.keys()


_TEXT: Final = {str}
_OPTIONAL_TEXT: Final = {str, type(None)}
_ENTRY: Final = {models.ConversationEntry}
_MESSAGE_TYPES: Final[dict[str, set[Any]]] = {
    "role": {models.Role},
    "content": _TEXT,
    "reasoning_content": _OPTIONAL_TEXT,
}
MESSAGE_FIELDS: Final = tuple(_MESSAGE_TYPES)
_PERSONA: Final = {models.PersonaEntry}
_CONVERSATIONS: Final = {
    model
    for model in (
        models.EvaluatedConversationWithContext,
        models.ConversationWithContext,
        models.Conversation,
    )
    if _has_only_declared(model, CONVERSATIONS.record)
    and models.ConversationEntry.model_fields.keys() == {*MESSAGE_FIELDS}
}
_DOCUMENTS: Final = {
    model
    for model in (models.Document,)
    if _has_only_declared(model, DOCUMENTS.record)
    and models.PersonaEntry.model_fields.keys() == {"descriptions", "metadata"}
}


def as_plain_dict(model: BaseModel) -> dict[str, Any]:
    """Return the fields of a validated record of this package's own classes, types unchecked."""
    plain = model.__dict__.copy()
    if type(model) is models.Document:
        plain["personas"] = [*map(_fields_of, plain["personas"])]
        return plain
    plain["conversations"] = [*map(_fields_of, plain["conversations"])]
    if plain.get("evaluation") is not None:
        evaluation = plain["evaluation"].__dict__.copy()
        for name in CRITERIA:
            evaluation[name] = evaluation[name].__dict__
        plain["evaluation"] = evaluation
    return plain


class Plains(NamedTuple):
    """Records of one kind as plain dicts.

    The dicts are those of the models, so nothing may change them.

    Attributes:
        rows: the fields of each record. Those of a conversation have its messages as models.
        columns: the values of each declared field in the rows, or its default.
        messages: the fields of all messages, in the order of their conversations.
    """

    rows: list[dict[str, Any]]
    columns: dict[str, list[Any]]
    messages: list[dict[str, Any]]

    def metadata(self) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
        """Return the metadata of all records, and that of all personas in them."""
        personas = chain.from_iterable(self.columns.get("personas", ()))
        return self.columns["metadata"], [*map(itemgetter("metadata"), personas)]

    def with_messages(self) -> list[dict[str, Any]]:
        """Return the rows, with the fields of their messages instead of the models."""
        if not self.messages:
            return self.rows
        rows, end = [], 0
        for row in self.rows:
            start, end = end, end + len(row["conversations"])
            rows.append({**row, "conversations": self.messages[start:end]})
        return rows


def exact_dicts(records: Sequence[Any], checked: Iterable[str] = MESSAGE_FIELDS) -> Plains | None:
    """Return the fields of records of one kind as plain dicts.

    None unless all their objects are of this package's classes, with exactly the fields of their
    class and values of exactly the declared types. Values inside metadata are not checked.

    Args:
        records: the models.
        checked: the fields of messages to check. The others must be checked by what the caller does
            with the dicts.
    """
    classes = {*map(type, records)}
    if not classes:
        return None
    try:
        if classes <= _CONVERSATIONS:
            return _exact_conversations(records, checked)
        if classes <= _DOCUMENTS:
            return _exact_documents(records)
    except (AttributeError, KeyError, TypeError):  # an attribute is missing or no iterable
        pass
    return None


def _exact_conversations(records: Sequence[Any], checked: Iterable[str]) -> Plains | None:
    plains = [*map(_fields_of, records)]
    columns = _columns(CONVERSATIONS.record, records, plains)
    if columns is None:
        return None
    lists = columns["conversations"]
    if {*map(type, lists)} != {list} or {*map(type, columns["metadata"])} != {dict}:
        return None
    entries = [*chain.from_iterable(lists)]
    if not {*map(type, entries)} <= _ENTRY:
        return None
    messages = [*map(_fields_of, entries)]
    if not {*map(len, messages)} <= {len(_MESSAGE_TYPES)}:
        return None
    if not all(_types_at(name, messages) <= _MESSAGE_TYPES[name] for name in checked):
        return None
    for name in ("instruction_context", "response_context", "persona"):
        if not {*map(type, columns[name])} <= _OPTIONAL_TEXT:
            return None
    if not {*map(type, columns["final_score"])} <= {float, type(None)}:
        return None
    found = [value for value in columns["evaluation"] if value is not None]
    if found:
        evaluations = _exact_evaluations(found)
        if evaluations is None:
            return None
        remaining = iter(evaluations)
        columns["evaluation"] = [
            None if value is None else next(remaining) for value in columns["evaluation"]
        ]
        plains = [
            plain if value is None else {**plain, "evaluation": value}
            for plain, value in zip(plains, columns["evaluation"], strict=True)
        ]
    return Plains(plains, columns, messages)


def _exact_evaluations(found: Sequence[Any]) -> list[dict[str, Any]] | None:
    """Return evaluations as plain dicts, if all are exact."""
    if {*map(type, found)} != {models.EvaluationSchema}:
        return None
    evaluations = [evaluation.__dict__.copy() for evaluation in found]
    names = [*CRITERIA, "overall_grade"]
    if {*map(tuple, evaluations)} != {tuple(names)}:
        return None
    if _types_at("overall_grade", evaluations) != {models.GradeSchema}:
        return None
    criteria = [evaluation[name] for evaluation in evaluations for name in CRITERIA]
    if {*map(type, criteria)} != {models.EvaluationEntrySchema}:
        return None
    entries = [*map(_fields_of, criteria)]
    if (
        {*map(len, entries)} != {2}
        or _types_at("feedback", entries) != _TEXT
        or _types_at("score", entries) != {float}
    ):
        return None
    step = len(CRITERIA)
    for index, evaluation in enumerate(evaluations):
        own = entries[index * step : (index + 1) * step]
        evaluation.update(zip(CRITERIA, own, strict=True))
    return evaluations


def _exact_documents(records: Sequence[Any]) -> Plains | None:
    plains = [*map(_fields_of, records)]
    columns = _columns(DOCUMENTS.record, records, plains)
    if columns is None:
        return None
    groups = columns["personas"]
    personas = [*chain.from_iterable(groups)]
    if not (
        {*map(type, groups)} == {list}
        and {*map(type, personas)} <= _PERSONA
        and {*map(type, columns["id"])} == _TEXT
        and {*map(type, columns["text"])} <= _OPTIONAL_TEXT
        and {*map(type, columns["metadata"])} == {dict}
    ):
        return None
    plain_personas = [*map(_fields_of, personas)]
    descriptions = [*map(itemgetter("descriptions"), plain_personas)]
    if not (
        {*map(len, plain_personas)} <= {2}
        and {*map(type, descriptions)} <= {list}
        and {*map(type, chain.from_iterable(descriptions))} <= _TEXT
        and _types_at("metadata", plain_personas) <= {dict}
    ):
        return None
    if plain_personas:
        remaining = iter(plain_personas)
        columns["personas"] = [[*islice(remaining, len(own))] for own in groups]
        plains = [
            {**plain, "personas": own}
            for plain, own in zip(plains, columns["personas"], strict=True)
        ]
    return Plains(plains, columns, [])


def _columns(
    struct: Struct, records: Sequence[Any], plains: Sequence[dict[str, Any]]
) -> dict[str, list[Any]] | None:
    """Return the values of each declared field, with its default for classes without the field.

    None unless each record has exactly the fields of its class, which are all declared.

    Raises:
        KeyError: a record of the only class lacks a field.
    """
    classes: set[Any] = {*map(type, records)}
    if len(classes) == 1:
        own = classes.pop().model_fields
        if {*map(len, plains)} != {len(own)}:
            return None
        return {
            name: [*map(itemgetter(name), plains)]
            if name in own
            else [struct.defaults[name]] * len(plains)
            for name in struct.fields
        }
    found: set[Any] = {*zip(map(type, records), map(tuple, plains), strict=True)}
    if not all({*names} == cls.model_fields.keys() for cls, names in found):
        return None
    defaults = struct.defaults
    return {name: [row.get(name, defaults.get(name)) for row in plains] for name in struct.fields}


def _types_at(name: str, plains: Iterable[dict[str, Any]]) -> set[type]:
    return {*map(type, map(itemgetter(name), plains))}


_JSON_TYPES: Final = {str, int, float, bool, type(None), dict, list}
_INTEGER_LIMIT: Final = 2**1000
# Levels of metadata that the quick check goes into.
_QUICK_LEVELS: Final = 20


def is_plain_metadata(dicts: Sequence[dict[str, Any]]) -> bool:
    """Return whether a quick check shows that all metadata is read back equal by every parser.

    True if all keys are strings, all values are of JSON's types, not deeply nested, and no integer
    has more than about 300 digits. Each step checks one level of all metadata.
    """
    lists: list[Any] = []
    for _ in range(_QUICK_LEVELS):
        orders = {*map(tuple, dicts)}
        try:
            "".join(chain.from_iterable(orders))  # the quickest check that all keys are strings
        except TypeError:
            return False
        if len(orders) == 1:  # the values of a key usually have one type
            columns: list[Sequence[Any]] = [*zip(*map(dict.values, dicts), strict=True)]
        else:
            columns = [[*chain.from_iterable(map(dict.values, dicts))]]
        columns.append([*chain.from_iterable(lists)])
        inner: list[Any] = []
        lists = []
        for column in columns:
            types = {*map(type, column)}
            if types - _JSON_TYPES:
                return False
            if int in types:
                integers = _of_type(int, column, types)
                if max(integers) > _INTEGER_LIMIT or min(integers) < -_INTEGER_LIMIT:
                    return False
            if dict in types:
                inner += _of_type(dict, column, types)
            if list in types:
                lists += _of_type(list, column, types)
        if not inner and not lists:
            return True
        dicts = inner
    return False


def _of_type(cls: type, values: Sequence[Any], types: set[type]) -> Sequence[Any]:
    return values if types == {cls} else [value for value in values if type(value) is cls]
