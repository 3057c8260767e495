"""The formats that there are: by their name, and by the keys of rows.

The invariant: rows that could be of two formats are refused, not guessed.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from types import MappingProxyType
from typing import Any, Final

from afterimage.storage.errors import InvalidQueryError, InvalidRecordError, shorten, shown
from afterimage.storage.formats.agent_trace import AgentTrace
from afterimage.storage.formats.alpaca import Alpaca, LlamaFactory
from afterimage.storage.formats.columns import renamed
from afterimage.storage.formats.gemini import Gemini
from afterimage.storage.formats.messages import Messages, OpenAI, Oumi
from afterimage.storage.formats.pairs import DPO, Preference, PromptCompletion
from afterimage.storage.formats.shape import (
    AS_IT_IS,
    Conversion,
    Format,
    Losses,
    Shape,
    WriteOptions,
)
from afterimage.storage.formats.sharegpt import ShareGPT

__all__ = ["PAIRS", "READABLE", "WRITABLE", "Native", "detect", "looks_foreign", "shape_named"]

_NO_FIELDS: Final[Mapping[str, str]] = MappingProxyType({})


class Native:
    """The shape of our own records: a row is the record."""

    def __init__(self, name: str) -> None:
        self._name = name

    @property
    def name(self) -> str:
        """The name that users give."""
        return self._name

    @property
    def keys(self) -> Collection[str]:
        """The keys that a row must have: none, as records of other models are records too."""
        return ()

    def read(self, row: dict[str, Any], fields: Mapping[str, str] = _NO_FIELDS) -> dict[str, Any]:
        """Return the row. See `Shape`."""
        return renamed(row, fields, {})

    def write(
        self,
        record: dict[str, Any],
        options: WriteOptions = AS_IT_IS,
        losses: Losses | None = None,
    ) -> list[dict[str, Any]]:
        """Return the record. See `Shape`."""
        del losses  # nothing is left out
        for name in ("system_prompt", "reasoning", "trim", "columns"):
            if getattr(options, name):
                raise InvalidQueryError(
                    f"format {self.name!r} is the whole record and does not support {name}"
                )
        return [record]


_CONVERSIONS: Final[tuple[Conversion, ...]] = (
    Messages(),
    OpenAI(),
    Oumi(),
    ShareGPT(),
    Alpaca(),
    LlamaFactory(),
    PromptCompletion(),
    Preference(),
    DPO(),
    Gemini(),
    AgentTrace(),
)
_SHAPES: Final[dict[str, Shape]] = {
    "native": Native("native"),
    "raw": Native("raw"),
    **{conversion.name: Format(conversion) for conversion in _CONVERSIONS},
}
READABLE: Final[tuple[str, ...]] = tuple(_SHAPES)
"""Names of the formats that can be read."""
WRITABLE: Final[tuple[str, ...]] = (
    "native",
    "raw",
    *(conversion.name for conversion in _CONVERSIONS if conversion.can_write),
)
"""Names of the formats that can be written."""
PAIRS: Final = frozenset(each.name for each in _CONVERSIONS if "chosen" in each.parts)
"""Names of the formats of preference pairs."""


def shape_named(name: object) -> Shape:
    """Return the format of a name.

    Raises:
        InvalidQueryError: there is no such format; the message has the names there are.

    >>> shape_named("sharegpt").keys
    ('conversations',)
    """
    shape = _SHAPES.get(name) if isinstance(name, str) else None
    if shape is None:
        raise InvalidQueryError(
            f"unknown format {shown(name, 40)}; use {', '.join(map(repr, READABLE))}"
        )
    return shape


def detect(rows: Iterable[dict[str, Any]], fields: Mapping[str, str] = _NO_FIELDS) -> Shape:
    """Return the format of rows by their keys.

    Args:
        rows: the first rows of a file; a few are enough.
        fields: names of keys, and the names that formats have for them.

    Raises:
        InvalidRecordError: the first row has no known format, or another row has another one.

    >>> detect([{"instruction": "Add 1 and 1.", "input": "", "output": "2"}]).name
    'alpaca'
    """
    first: str | None = None
    for number, row in enumerate(rows, 1):
        name = _name_of(renamed(row, fields, {})) if isinstance(row, dict) else None
        if first is None:
            if name is None:
                raise InvalidRecordError(_unknown(row))
            first = name
        elif name is not None and name != first:
            raise InvalidRecordError(
                f"record 1 looks like format {first!r}, and record {number} like {name!r}; "
                "name the format"
            )
    if first is None:
        raise InvalidRecordError("there are no records whose format could be recognised")
    return shape_named(first)


def _unknown(row: Any) -> str:
    if not isinstance(row, dict):
        return f"the first record is {shown(row, 40)}; records must be objects"
    keys = shorten(", ".join(map(repr, row)), 200) or "none"
    if row.keys() >= {"role", "content"}:
        return f"the first record is one message (keys {keys}); use format 'rows' with group_by"
    return (
        f"the format of the first record is not known by its keys ({keys}); name it "
        f"({', '.join(map(repr, READABLE))}), and the keys with fields"
    )


_RECORD_KEYS: Final = frozenset(
    {
        "conversations",
        "metadata",
        "tools",
        "instruction_context",
        "response_context",
        "persona",
        "evaluation",
        "final_score",
    }
)
# Keys of the generator's own record with an instruction and an output.
_GENERATED: Final = frozenset({"instruction", "context", "output", "metadata"})


def _name_of(row: Mapping[str, Any]) -> str | None:
    """Return the name of the format of a row, by its keys and by what its messages look like."""
    has = row.keys().__ge__
    if has({"chosen", "rejected"}) or has({"preferred_output", "non_preferred_output"}):
        return "preference"
    if has({"prompt", "completion"}):
        return "prompt-completion"
    if (name := looks_foreign(row)) or row.get("messages") == []:
        return name or "messages"
    if isinstance(row.get("conversations"), list):
        is_ours = "metadata" in row or row.keys() <= _RECORD_KEYS
        return "native" if is_ours else "messages"
    if has({"task", "turns"}):
        return "agent-trace"
    if has(_GENERATED):
        return "native"
    return "alpaca" if has({"instruction", "output"}) else None


def _items(row: Mapping[str, Any], key: str, inner: str) -> bool:
    """Return whether the row has a list whose first item is an object with a key."""
    value = row.get(key)
    return isinstance(value, list) and bool(value) and _has(value[0], inner)


def _has(value: Any, key: str) -> bool:
    return isinstance(value, dict) and key in value


def looks_foreign(record: Mapping[str, Any]) -> str | None:
    """Return the format of a record that is a conversation and not in our form; else None.

    >>> looks_foreign({"messages": [{"role": "user", "content": "Hi"}]})
    'messages'
    >>> looks_foreign({"conversations": [{"role": "user", "content": "Hi"}]}) is None
    True
    """
    if _items(record, "messages", "role") or _items(record, "conversation", "role"):
        return "messages"
    if _items(record, "conversations", "from") or _items(record, "conversation", "from"):
        return "sharegpt"
    return "gemini" if _items(record, "contents", "parts") else None
