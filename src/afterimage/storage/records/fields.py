"""The one table of fields: what a record is made of, declared once.

The Arrow schema (`schema.py`), the conversion both ways (`arrow.py`), the SQL columns
(`tables/layout.py`), the checks of a query (`query/query.py`) and the reading of JSON lines
(`query/relations.py`) all follow from `CONVERSATIONS` and `DOCUMENTS` below. Nothing is ever
inferred from data.

No engine is imported here, so that the JSONL storage stays light to import.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Final

__all__ = [
    "CONVERSATIONS",
    "DOCUMENTS",
    "Double",
    "FieldType",
    "Integer",
    "Json",
    "List",
    "RecordTable",
    "Struct",
    "Text",
    "Timestamp",
]


@dataclass(frozen=True)
class Text:
    """A string; `choices` names the only values allowed, if they are limited."""

    choices: tuple[str, ...] = ()


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
    """Exact JSON text of an object: any value, at any depth, keys in their order."""


@dataclass(frozen=True, eq=False)
class Struct:
    """Named fields, in order.

    Attributes:
        fields: name and type of each.
        defaults: what a record has that lacks the field; fields without one are required.
        nullable: fields that may be null.
    """

    fields: Mapping[str, FieldType]
    defaults: Mapping[str, Any] = field(default_factory=dict)
    nullable: tuple[str, ...] = ()


@dataclass(frozen=True)
class List:
    """Values of one type, in order."""

    of: FieldType


FieldType = Text | Double | Integer | Timestamp | Json | Struct | List


@dataclass(frozen=True, eq=False)
class RecordTable:
    """One kind of record: its declared fields and what the storage keeps beside them.

    Attributes:
        kind: name of the kind, as `export_jsonl(kind=…)` takes it.
        record: the declared fields of a record, in order, with the defaults of the model.
        sequence: column of the insertion sequence in SQL.
    """

    kind: str
    record: Struct
    sequence: str

    @property
    def system(self) -> Mapping[str, FieldType]:
        """Columns that only an SQL storage has."""
        return MappingProxyType({self.sequence: Integer(), "timestamp": Timestamp()})

    @property
    def stored(self) -> Mapping[str, FieldType]:
        """The declared fields and `extra`, which keeps whatever they do not know."""
        return MappingProxyType({**self.record.fields, "extra": Json()})


_ROLE: Final = Text(choices=("user", "assistant"))
_GRADE: Final = Text(choices=("perfect", "good", "needs_improvement", "bad", "not_acceptable"))
_CRITERION: Final = Struct({"feedback": Text(), "score": Double()})

CONVERSATIONS: Final = RecordTable(
    kind="conversations",
    sequence="id",
    record=Struct(
        {
            "conversations": List(
                Struct(
                    {"role": _ROLE, "content": Text(), "reasoning_content": Text()},
                    defaults={"reasoning_content": None},
                    nullable=("reasoning_content",),
                )
            ),
            "metadata": Json(),
            "instruction_context": Text(),
            "response_context": Text(),
            "persona": Text(),
            "evaluation": Struct(
                {
                    "coherence": _CRITERION,
                    "factuality": _CRITERION,
                    "grounding": _CRITERION,
                    "helpfulness": _CRITERION,
                    "relevance": _CRITERION,
                    "overall_grade": _GRADE,
                }
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
    ),
)

DOCUMENTS: Final = RecordTable(
    kind="documents",
    sequence="_id",
    record=Struct(
        {
            "id": Text(),
            "text": Text(),
            "personas": List(
                Struct(
                    {"descriptions": List(Text()), "metadata": Json()}, defaults={"metadata": {}}
                )
            ),
            "metadata": Json(),
        },
        defaults={"text": None, "personas": [], "metadata": {}},
        nullable=("text",),
    ),
)


def dotted_paths(fields: Mapping[str, FieldType], prefix: str = "") -> Iterator[str]:
    """Every path a query may name, structs unfolded: `evaluation`, `evaluation.coherence`, …"""
    for name, kind in fields.items():
        yield prefix + name
        if isinstance(kind, Struct):
            yield from dotted_paths(kind.fields, f"{prefix}{name}.")
