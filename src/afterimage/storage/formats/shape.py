"""What a format is: it reads rows as records, and writes records as rows.

`Format` does what all formats have in common, around a `Conversion` that knows the format's own
keys. The invariant: `write(read(row), WriteOptions(columns=("metadata.*",), reasoning="field"))`
is `[row]`, except for the order of keys and for null instead of an absent key.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType
from typing import Any, Final, Literal, Protocol

from afterimage.storage.errors import (
    InvalidQueryError,
    InvalidRecordError,
    StorageError,
    shorten,
    shown,
)
from afterimage.storage.formats.columns import SOURCE_FORMAT, add_columns, other_keys, renamed
from afterimage.storage.formats.edits import applied, difference, json_text

__all__ = [
    "AS_IT_IS",
    "Conversion",
    "Format",
    "Losses",
    "NotRepresentableError",
    "Shape",
    "WriteOptions",
    "message_kind",
]

_NO_FIELDS: Final[Mapping[str, str]] = MappingProxyType({})
_INSTRUCTIONS: Final = frozenset({"system", "developer"})
_OPTIONAL: Final = frozenset({"reasoning_content", "name", "tool_calls", "tool_call_id"})


class NotRepresentableError(StorageError, ValueError):
    """A record that a format has no place for, or only for a part of it.

    Attributes:
        reason: why, the same text for all records with this reason.
        place: the message, such as "messages.3"; "" for the whole record.
        is_loss: whether the format has no place for a part of the record that could be left out.
            Otherwise there is no row for the record.
    """

    def __init__(self, reason: str, place: str = "", *, is_loss: bool = False) -> None:
        self.is_loss = is_loss
        self.reason = reason
        self.place = place
        super().__init__(f"{place}: {reason}" if place else reason)

    def __reduce__(self) -> tuple[Callable[..., NotRepresentableError], tuple[str, str]]:
        return partial(type(self), is_loss=self.is_loss), (self.reason, self.place)


class Losses:
    """What a format has no place for in one record: an error, or left out and named.

    Args:
        allowed: whether to leave it out.

    Attributes:
        allowed: the same.
        names: what was left out, such as "tool calls".

    >>> losses = Losses(allowed=True)
    >>> losses.drop("names", "key 'name' of a message has no place in alpaca", "conversations.0")
    >>> losses.names
    {'names'}
    """

    def __init__(self, *, allowed: bool) -> None:
        self.allowed = allowed
        self.names: set[str] = set()

    def drop(self, name: str, reason: str, place: str = "") -> None:
        """Leave something out.

        Raises:
            NotRepresentableError: that is not allowed.
        """
        if not self.allowed:
            raise NotRepresentableError(reason, place, is_loss=True)
        self.names.add(name)

    def drop_keys(self, keys: Collection[str], format_name: str, place: str) -> None:
        """Leave keys of a message out.

        Raises:
            NotRepresentableError: that is not allowed.
        """
        for key in sorted(keys):
            name = _KEY_NAMES.get(key, "other keys of messages")
            self.drop(name, f"key {key!r} of a message has no place in {format_name}", place)


_KEY_NAMES: Final = {
    "name": "names",
    "reasoning_content": "reasoning",
    "tool_call_id": "ids of tool calls",
    "tool_calls": "tool calls",
}


def message_kind(message: Mapping[str, Any]) -> str:
    """Return what a message that is left out is counted as.

    >>> message_kind({"role": "tool", "content": "5"})
    'tool results'
    """
    if message.get("tool_calls"):
        return "tool calls"
    if message["role"] == "tool":
        return "tool results"
    if message["role"] in _INSTRUCTIONS:
        return "system messages"
    if not message["content"]:
        return "messages without content"
    return "content parts" if isinstance(message["content"], list) else "other turns"


@dataclass(frozen=True)
class WriteOptions:
    """How records are written.

    Attributes:
        system_prompt: the content of a system message before conversations that have none.
        reasoning: where the reasoning of a message goes: "field" is `reasoning_content`, "think"
            is `<think>` tags before the content; None leaves it out.
        lossy: whether to leave out what the format has no place for.
        trim: whether to end each conversation at its last assistant message.
        columns: fields that are added under their last name, such as "metadata.domain"; every key
            of the metadata with "metadata.*".
    """

    system_prompt: str | None = None
    reasoning: Literal["field", "think"] | None = None
    lossy: bool = False
    trim: bool = False
    columns: tuple[str, ...] = ()


AS_IT_IS: Final = WriteOptions()


class Shape(Protocol):
    """A format, as imports and exports see it."""

    @property
    def name(self) -> str:
        """The name that users give."""

    @property
    def keys(self) -> Collection[str]:
        """The keys that a row must have."""

    def read(self, row: dict[str, Any], fields: Mapping[str, str] = ...) -> dict[str, Any]:
        """Return the record of a row, which may share values with it.

        Args:
            row: a JSON object.
            fields: names of keys, and the names that the format has for them.

        Raises:
            InvalidRecordError: the row has not the format; the message names the place.
        """

    def write(
        self, record: dict[str, Any], options: WriteOptions = ..., losses: Losses | None = None
    ) -> list[dict[str, Any]]:
        """Return the rows of a record, which may share values with it.

        Args:
            record: the record.
            options: how it is written.
            losses: gets the names of what was left out.

        Raises:
            NotRepresentableError: the format has no place for the record.
            InvalidQueryError: the format does not support an option.
        """


class Conversion(Protocol):
    """What is particular to a format: its own keys.

    Attributes:
        name: the name that users give.
        required: the keys that every row has.
        keys: all the keys that the format names.
        aliases: other names of keys that are known without `fields`.
        parts: the fields of a record that the keys hold.
        layouts: ways to write the same record; "" is the usual one, and is not listed.
        has_reasoning: whether messages have a field for reasoning.
        can_write: whether records can be written.
    """

    name: str
    required: tuple[str, ...]
    keys: frozenset[str]
    aliases: Mapping[str, str]
    parts: tuple[str, ...]
    layouts: tuple[str, ...]
    has_reasoning: bool
    can_write: bool

    def record(self, row: dict[str, Any]) -> dict[str, Any]:
        """Return the fields `parts` of the record. `row` has only keys in `keys`, none null."""

    def row(self, record: dict[str, Any], losses: Losses, layout: str) -> dict[str, Any]:
        """Return the row for the fields `parts` of a record, whose messages are not empty."""


class Format:
    """A `Shape` from a `Conversion`.

    >>> from afterimage.storage.formats.sharegpt import ShareGPT
    >>> shape = Format(ShareGPT())
    >>> record = shape.read({"conversations": [{"from": "user", "value": "Hi"}], "id": 7})
    >>> record["conversations"]
    [{'role': 'user', 'content': 'Hi'}]
    >>> record["metadata"]
    {'id': 7, 'source_format': {'name': 'sharegpt', 'layout': 'roles'}}
    >>> shape.write(record, WriteOptions(columns=("metadata.*",)))
    [{'conversations': [{'from': 'user', 'value': 'Hi'}], 'id': 7}]
    """

    def __init__(self, conversion: Conversion) -> None:
        self.conversion = conversion

    def __repr__(self) -> str:
        return f"Format({self.name!r})"

    @property
    def name(self) -> str:
        """The name that users give."""
        return self.conversion.name

    @property
    def keys(self) -> tuple[str, ...]:
        """The keys that a row must have."""
        return self.conversion.required

    def read(self, row: dict[str, Any], fields: Mapping[str, str] = _NO_FIELDS) -> dict[str, Any]:
        """Return the record of a row. See `Shape`."""
        if not isinstance(row, dict):
            raise InvalidRecordError(f"a record must be an object, not {shown(row, 40)}")
        conversion = self.conversion
        row = renamed(row, fields, conversion.aliases)
        own = {
            key: value for key, value in row.items() if key in conversion.keys and value is not None
        }
        for key in conversion.required:
            if key not in own:
                raise InvalidRecordError(
                    f"no key {key!r}, which format {self.name!r} needs; "
                    f"its keys are {shorten(', '.join(map(repr, row)), 200)}"
                )
        metadata, nested = other_keys(row, conversion.keys)
        record = conversion.record(own)
        note = self._note(own, record)
        if nested is not None:
            note = {"name": self.name, **note, "metadata": nested}
        if note:
            metadata[SOURCE_FORMAT] = note
        record["metadata"] = metadata
        return record

    def _note(self, own: dict[str, Any], record: dict[str, Any]) -> dict[str, Any]:
        """Return what is needed to write the keys `own` for their record; {} if nothing is."""
        conversion = self.conversion
        if not conversion.can_write:
            return {}
        if record.get("conversations") == []:
            return {}
        rows: dict[str, dict[str, Any]] = {}
        for layout in ("", *conversion.layouts):
            try:
                rows[layout] = conversion.row(record, Losses(allowed=True), layout)
            except NotRepresentableError:
                continue
            if rows[layout] == own:
                return _head(self.name, layout) if layout else {}
        edits = {layout: difference(made, own) for layout, made in rows.items()}
        for layout, made in rows.items():
            # They differ only in nulls, such as that of a content beside tool calls.
            if not edits[layout] and self._reads_as(made, record):
                return _head(self.name, layout) if layout else {}
        notes = [{**_head(self.name, layout), **each} for layout, each in edits.items()]
        note = min(notes, key=_size, default={})
        if note and self._as_read(record, note) is None:  # a null that is more than an absent key
            layout = note.get("layout", "")
            note = {**_head(self.name, layout), **difference(rows[layout], own, nulls=True)}
        return note

    def _reads_as(self, row: dict[str, Any], record: dict[str, Any]) -> bool:
        try:
            return self.conversion.record(row) == record
        except InvalidRecordError:
            return False

    def write(
        self,
        record: dict[str, Any],
        options: WriteOptions = AS_IT_IS,
        losses: Losses | None = None,
    ) -> list[dict[str, Any]]:
        """Return the rows of a record. See `Shape`."""
        losses = losses or Losses(allowed=options.lossy)
        conversion = self.conversion
        if not conversion.can_write:
            raise InvalidQueryError(f"format {self.name!r} can be read and not written")
        if options.reasoning == "field" and not conversion.has_reasoning:
            raise InvalidQueryError(
                f"format {self.name!r} has no field for reasoning; use reasoning='think'"
            )
        said = _said(record, conversion.parts, options, self.name, losses)
        metadata = record.get("metadata")
        note = metadata.get(SOURCE_FORMAT) if isinstance(metadata, dict) else None
        if not (isinstance(note, dict) and note.get("name") == self.name):
            note = None
        row = self._as_read(said, note) if note else None
        if row is None:
            row = conversion.row(said, losses, "")
        if options.columns:
            nested = note.get("metadata") if note else None
            add_columns(row, record, options.columns, conversion.keys, nested)
        return [row]

    def _as_read(self, said: dict[str, Any], note: dict[str, Any]) -> dict[str, Any] | None:
        """Return the row as the note describes it, if that row says the same as the record."""
        try:
            made = self.conversion.row(said, Losses(allowed=True), note.get("layout", ""))
            row = applied(made, note)
            same = self.conversion.record(row) == said
        except (AttributeError, LookupError, TypeError, ValueError):  # the record was edited
            return None
        return row if same else None


def _head(name: str, layout: str) -> dict[str, Any]:
    return {"name": name, "layout": layout} if layout else {"name": name}


def _size(note: dict[str, Any]) -> int:
    return len(json_text(note))


def _said(
    record: dict[str, Any],
    parts: tuple[str, ...],
    options: WriteOptions,
    name: str,
    losses: Losses,
) -> dict[str, Any]:
    """Return the fields `parts` of a record, as the options have them."""
    lists = [part for part in parts if part in ("conversations", "prompt", "chosen", "rejected")]
    said: dict[str, Any] = {}
    for part in parts:
        value = record.get(part)
        if part in lists:
            if not isinstance(value, list):
                raise NotRepresentableError(f"{_kind(record)} has no place in {name}")
            said[part] = value
        elif value:
            said[part] = value
    first = lists[0]
    messages = said[first]
    if first == "conversations":
        if not messages:
            raise NotRepresentableError("no messages")
        if options.trim and not (messages := _trimmed(messages)):
            raise NotRepresentableError("no answer")
    if options.system_prompt and not any(one["role"] in _INSTRUCTIONS for one in messages):
        messages = [{"role": "system", "content": options.system_prompt}, *messages]
    said[first] = messages
    for part in lists:
        said[part] = _with_reasoning(said[part], options.reasoning, losses)
    return said


def _kind(record: dict[str, Any]) -> str:
    if "conversations" in record:
        return "a conversation"
    return "a preference pair" if "chosen" in record else "a record of another model"


def _trimmed(messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
    end = len(messages)
    while end and messages[end - 1]["role"] != "assistant":
        end -= 1
    return messages[:end]


def _with_reasoning(
    messages: list[dict[str, Any]], reasoning: Literal["field", "think"] | None, losses: Losses
) -> list[dict[str, Any]]:
    return [
        message if len(message) == 2 else _without_nulls(message, reasoning, losses)
        for message in messages
    ]


def _without_nulls(
    message: dict[str, Any], reasoning: Literal["field", "think"] | None, losses: Losses
) -> dict[str, Any]:
    found = {
        key: value for key, value in message.items() if value is not None or key not in _OPTIONAL
    }
    if reasoning != "field" and "reasoning_content" in found:
        thought = found.pop("reasoning_content")
        if reasoning is None:
            losses.names.add("reasoning")  # the option says so
        else:
            found["content"] = _after_thinking(thought, found.get("content"))
    return found


def _after_thinking(thought: str, content: Any) -> Any:
    tags = f"<think>\n{thought}\n</think>\n\n"
    if isinstance(content, list):
        return [{"type": "text", "text": tags}, *content]
    return tags + (content or "")
