"""Conversations that the generators' classes cannot hold, and the class that every load returns.

The invariants: `load_conversations` returns a conversation as `EvaluatedConversationWithContext` if
that class holds all of its messages, and otherwise as `ChatConversation`. Both storages use these
functions, so they agree. A conversation that the first class accepts is never unreadable.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any, Final

from pydantic import BaseModel, ValidationError
from pydantic_core import SchemaValidator

from afterimage.storage.chat import ChatConversation, ChatEntry, PreferencePair
from afterimage.storage.models import ConversationEntry
from afterimage.storage.records.fields import CONVERSATIONS, RecordKind

__all__ = [
    "content_text",
    "declared_chat",
    "is_chat",
    "loaded_object",
    "loaded_text",
    "may_be_chat",
    "strict_reader",
    "without_unset",
]

_OPTIONAL: Final = ("name", "tool_calls", "tool_call_id")
_PLAIN_ROLES: Final = ("user", "assistant")


def is_chat(record: Mapping[str, Any]) -> bool:
    """Return whether a JSON object of a conversation has what only a `ChatConversation` holds.

    >>> is_chat({"conversations": [{"role": "user", "content": "Hi"}]})
    False
    >>> is_chat({"conversations": [{"role": "system", "content": "Be brief."}]})
    True
    """
    messages = record.get("conversations")
    if not isinstance(messages, list):
        return False
    return record.get("tools") is not None or any(map(_is_chat_message, messages))


def _is_chat_message(message: Any) -> bool:
    if not isinstance(message, dict):
        return False
    if message.get("role") not in _PLAIN_ROLES or not isinstance(message.get("content"), str):
        return True
    return any(message.get(name) is not None for name in _OPTIONAL)


def may_be_chat(text: str) -> bool:
    """Return whether JSON text can have a field that only a `ChatConversation` holds.

    A quick check: it may be true for others, too.
    """
    return any(f'"{name}"' in text for name in (*_OPTIONAL, "tools"))


def loaded_object(kind: RecordKind, record: dict[str, Any]) -> BaseModel:
    """Return the model that a load returns for a JSON object.

    Raises:
        ValidationError: the object is not a valid record of `kind`.
    """
    return _loaded(kind, record, lambda model: model.model_validate(record))


def loaded_text(kind: RecordKind, record: dict[str, Any], text: str | bytes) -> BaseModel:
    """Return the model that a load returns for the JSON text of an object.

    Raises:
        ValidationError: the object is not a valid record of `kind`.
    """
    return _loaded(kind, record, lambda model: model.model_validate_json(text))


def _loaded(
    kind: RecordKind, record: dict[str, Any], validate: Callable[[type[BaseModel]], BaseModel]
) -> BaseModel:
    if kind is not CONVERSATIONS or not is_chat(record):
        return validate(kind.model)
    try:
        return validate(ChatConversation)
    except ValidationError as error:
        try:  # a field of the caller's own, such as `tools`, can have another type
            return validate(kind.model)
        except ValidationError:
            raise error from None


@cache
def strict_reader(kind: RecordKind) -> Callable[[str | bytes], Any]:
    """Return a function that converts JSON text to the model that a load returns, the quick way.

    It raises ValueError also for text with fields that the model does not have: use `loaded_text`
    for such text.
    """
    if kind is not CONVERSATIONS:
        return kind.model.__pydantic_validator__.validate_json
    schema = copy.deepcopy(kind.model.__pydantic_core_schema__)
    for model in (kind.model, ConversationEntry):
        _forbid_extra(schema, model)
    try:
        read = SchemaValidator(schema, _use_prebuilt=False).validate_json
    except TypeError:  # an older pydantic has no such option
        read = SchemaValidator(schema).validate_json
    try:
        read(_WITH_EXTRA)
    except ValidationError:
        return read
    # It validates with the model itself after all, which ignores other fields.
    read = kind.model.__pydantic_validator__.validate_json

    def read_plain(text: str | bytes) -> Any:
        if may_be_chat(text if isinstance(text, str) else text.decode()):
            raise ValueError("the fields must be checked one by one")
        return read(text)

    return read_plain


_WITH_EXTRA: Final = (
    '{"conversations":[{"role":"user","content":"","reasoning_content":null,"name":"a"}]}'
)


def _forbid_extra(schema: Any, model: type[BaseModel]) -> None:
    """Make a model's part of a schema of pydantic refuse fields that the model does not have."""
    if isinstance(schema, dict):
        if schema.get("type") == "model" and schema.get("cls") is model:
            schema["schema"]["extra_behavior"] = "forbid"
        for part in schema.values():
            _forbid_extra(part, model)
    elif isinstance(schema, list):
        for part in schema:
            _forbid_extra(part, model)


def content_text(content: str | list[dict[str, Any]] | None) -> str | None:
    r"""Return the text of a content: that of its text parts, joined with line feeds.

    >>> content_text([{"type": "text", "text": "a"}, {"type": "image"}, {"text": "b"}])
    'a\nb'
    >>> content_text([{"type": "image"}])
    """
    if not isinstance(content, list):
        return content
    texts = [part["text"] for part in content if isinstance(part.get("text"), str)]
    return "\n".join(texts) if texts else None


def declared_chat(record: dict[str, Any]) -> dict[str, Any]:
    """Return the declared fields of a chat's JSON object, with the text of every content.

    Raises:
        ValidationError: the object is not a valid `ChatConversation`.
    """
    valid = ChatConversation.model_validate(record)
    plain = {name: valid.__dict__[name] for name in CONVERSATIONS.record.fields}
    plain["conversations"] = [
        {
            "role": message.role,
            "content": content_text(message.content),
            "reasoning_content": message.reasoning_content,
        }
        for message in valid.conversations
    ]
    if valid.evaluation is not None:
        plain["evaluation"] = valid.evaluation.model_dump()
    return plain


def without_unset(record: BaseModel, dumped: dict[str, Any]) -> dict[str, Any]:
    """Return the dump of a chat without the optional fields that nobody has set, in place."""
    groups: dict[str, list[Any]] = {}
    if isinstance(record, ChatConversation):
        groups = {"conversations": record.conversations}
    elif isinstance(record, PreferencePair):
        groups = {name: getattr(record, name) for name in ("prompt", "chosen", "rejected")}
    if groups and dumped.get("tools", 0) is None and "tools" not in record.model_fields_set:
        del dumped["tools"]
    for name, messages in groups.items():
        for message, plain in zip(messages, dumped[name], strict=True):
            for field in _OPTIONAL if isinstance(message, ChatEntry) else ():
                if plain.get(field, 0) is None and field not in message.model_fields_set:
                    del plain[field]
    return dumped
