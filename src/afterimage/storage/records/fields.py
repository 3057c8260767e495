"""The record kinds and their declared fields.

`CONVERSATIONS`, `DOCUMENTS` and `OTHERS` are the single definition of the fields. The Arrow schema,
the SQL columns, the conversions in both directions, the checks of a query and the columns of JSONL
files are derived from them. Nothing is inferred from data.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import Enum
from types import MappingProxyType
from typing import Any, Final, Literal

from pydantic import BaseModel

from afterimage.storage.chat import ChatRole
from afterimage.storage.errors import InvalidQueryError, shown
from afterimage.storage.models import (
    Document,
    EvaluatedConversationWithContext,
    GradeSchema,
    Role,
)

__all__ = [
    "CONVERSATIONS",
    "CRITERIA",
    "DOCUMENTS",
    "KINDS",
    "OTHERS",
    "AnyField",
    "Double",
    "FieldType",
    "Integer",
    "Json",
    "Kind",
    "List",
    "RecordKind",
    "Struct",
    "Text",
    "Timestamp",
    "dotted_paths",
    "kind_named",
]

Kind = Literal["conversations", "documents", "records"]
"""Name of a record kind. "records" are records of other models, saved with the conversations."""


@dataclass(frozen=True)
class Text:
    """A string. If `enum` is given, only the values of its members are allowed."""

    enum: type[Enum] | None = None

    @property
    def choices(self) -> tuple[str, ...]:
        """The allowed values; () if any string is allowed."""
        return tuple(member.value for member in self.enum) if self.enum else ()


@dataclass(frozen=True)
class Double:
    """A 64-bit float."""


@dataclass(frozen=True)
class Integer:
    """A signed 64-bit integer."""


@dataclass(frozen=True)
class Timestamp:
    """A point in time, UTC, in microseconds."""


@dataclass(frozen=True)
class Json:
    """The exact JSON text of an object: any values at any depth, keys in their order."""


@dataclass(frozen=True, eq=False)
class Struct:
    """Named fields, in order.

    Attributes:
        fields: name and type of each field.
        defaults: the value of a field that a record lacks; fields without a default are required.
        nullable: names of the fields that may be null.
    """

    fields: Mapping[str, FieldType]
    defaults: Mapping[str, Any] = field(default_factory=dict)
    nullable: tuple[str, ...] = ()


@dataclass(frozen=True)
class List:
    """Values of one type, in order."""

    of: FieldType


FieldType = Text | Double | Integer | Timestamp | Json | Struct | List


class AnyField(Mapping[str, "FieldType"]):
    """The fields of records of an unknown model: every name is a field of type `Json`."""

    def __getitem__(self, name: str) -> FieldType:
        return Json()

    def __iter__(self) -> Iterator[str]:
        return iter(())

    def __len__(self) -> int:
        return 0


@dataclass(frozen=True, eq=False)
class RecordKind:
    """One kind of record.

    Attributes:
        name: the value of `export_jsonl(kind=…)` for this kind.
        model: the class of loaded records.
        record: the declared fields of a record, in order, with the defaults of the model.
        exact: the same fields, with only the values that `model` accepts.
        stored: the stored columns: the declared fields, and `extra` for all other fields.
        sequence: name of the SQL column with the insertion sequence number.
        computed: the fields that follow from the declared ones; see `query/computed.py`.
    """

    name: Kind
    model: type[BaseModel]
    record: Struct
    exact: Struct
    stored: Mapping[str, FieldType]
    sequence: str
    computed: Mapping[str, FieldType] = field(default_factory=dict)

    @property
    def queried(self) -> Mapping[str, FieldType]:
        """The fields that every storage has for filters, sort keys and columns."""
        return {**self.record.fields, **self.computed} if self.computed else self.record.fields

    @property
    def system(self) -> Mapping[str, FieldType]:
        """Columns that only an SQL storage has."""
        return MappingProxyType({self.sequence: Integer(), "timestamp": Timestamp()})

    @property
    def saved_as(self) -> RecordKind:
        """The kind that this kind is saved, imported and filed with; usually itself."""
        return CONVERSATIONS if self is OTHERS else self


CRITERIA: Final = ("coherence", "factuality", "grounding", "helpfulness", "relevance")
"""The criteria of an evaluation, in the order of its fields."""

# A message of a chat. Its content is the text of its parts, or null; see `records/chat.py`.
_CHAT_MESSAGE: Final = Struct(
    {"role": Text(ChatRole), "content": Text(), "reasoning_content": Text()},
    defaults={"content": None, "reasoning_content": None},
    nullable=("content", "reasoning_content"),
)
_MESSAGE: Final = Struct(
    {"role": Text(Role), "content": Text(), "reasoning_content": Text()},
    defaults={"reasoning_content": None},
    nullable=("reasoning_content",),
)
_CRITERION: Final = Struct({"feedback": Text(), "score": Double()})
_PERSONA: Final = Struct({"descriptions": List(Text()), "metadata": Json()}, {"metadata": {}})

_CONVERSATION: Final = Struct(
    {
        "conversations": List(_CHAT_MESSAGE),
        "metadata": Json(),
        "instruction_context": Text(),
        "response_context": Text(),
        "persona": Text(),
        "evaluation": Struct(
            {**dict.fromkeys(CRITERIA, _CRITERION), "overall_grade": Text(GradeSchema)}
        ),
        "final_score": Double(),
    },
    defaults={
        "metadata": {},
        "instruction_context": None,
        "response_context": None,
        "persona": None,
        "evaluation": None,
        "final_score": 0.0,
    },
    nullable=(
        "instruction_context",
        "response_context",
        "persona",
        "evaluation",
        "final_score",
    ),
)
_GENERATED: Final = Struct(
    {**_CONVERSATION.fields, "conversations": List(_MESSAGE)},
    defaults=_CONVERSATION.defaults,
    nullable=_CONVERSATION.nullable,
)
_DOCUMENT: Final = Struct(
    {"id": Text(), "text": Text(), "personas": List(_PERSONA), "metadata": Json()},
    defaults={"text": None, "personas": [], "metadata": {}},
    nullable=("text",),
)

CONVERSATIONS: Final = RecordKind(
    name="conversations",
    model=EvaluatedConversationWithContext,
    record=_CONVERSATION,
    exact=_GENERATED,
    stored=MappingProxyType({**_CONVERSATION.fields, "extra": Json()}),
    sequence="id",
    computed=MappingProxyType(
        {
            "content_hash": Text(),
            "message_count": Integer(),
            "first_role": Text(),
            "last_role": Text(),
            "character_count": Integer(),
        }
    ),
)
DOCUMENTS: Final = RecordKind(
    name="documents",
    model=Document,
    record=_DOCUMENT,
    exact=_DOCUMENT,
    stored=MappingProxyType({**_DOCUMENT.fields, "extra": Json()}),
    sequence="_id",  # a document has an `id` of its own
    computed=MappingProxyType({"content_hash": Text(), "character_count": Integer()}),
)
_ANY: Final = Struct(AnyField())
OTHERS: Final = RecordKind(
    name="records",
    model=BaseModel,
    record=_ANY,
    exact=_ANY,
    stored=MappingProxyType({"model": Text(), "record": Json()}),
    sequence="id",
)

KINDS: Final = (CONVERSATIONS, DOCUMENTS, OTHERS)


def kind_named(name: str) -> RecordKind:
    """Return the record kind with that name.

    Raises:
        InvalidQueryError: no kind has that name.

    >>> kind_named("documents").sequence
    '_id'
    """
    for kind in KINDS:
        if kind.name == name:
            return kind
    known = ", ".join(repr(kind.name) for kind in KINDS)
    raise InvalidQueryError(f"unknown kind {shown(name, 40)}; use {known}")


def dotted_paths(fields: Mapping[str, FieldType], prefix: str = "") -> Iterator[str]:
    """Yield every path that a query can name, including paths into structs.

    >>> list(dotted_paths({"id": Text(), "score": Struct({"value": Double()})}))
    ['id', 'score', 'score.value']
    """
    for name, kind in fields.items():
        yield prefix + name
        if isinstance(kind, Struct):
            yield from dotted_paths(kind.fields, f"{prefix}{name}.")
