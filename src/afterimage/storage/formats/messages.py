"""Chat messages as of OpenAI and Hugging Face: `{"messages": [{"role", "content", …}]}`.

`Messages` is what TRL and chat templates read, `Oumi` the same also without an answer, and
`OpenAI` what the fine-tuning API accepts. The functions here read messages for other formats too.
The invariant: a message in our form is read as itself.
"""

from __future__ import annotations

from collections.abc import Mapping
from operator import itemgetter
from typing import Any, ClassVar, Final

from afterimage.storage.errors import InvalidRecordError, shown
from afterimage.storage.formats.shape import Losses, NotRepresentableError
from afterimage.storage.formats.tool_calls import record_call, record_calls, record_tools

__all__ = ["ROLES", "Messages", "OpenAI", "Oumi", "call_id", "content_text", "messages_of"]

ROLES: Final = ("system", "developer", "user", "assistant", "tool")

_PLAIN_ROLES: Final = frozenset(ROLES)
_TEXTS: Final = ("reasoning_content", "name", "tool_call_id")
# Keys of our form that may be null instead of absent.
_OPTIONAL: Final = frozenset({*_TEXTS, "tool_calls"})
# Other names of `reasoning_content`: gpt-oss and Anthropic, OpenRouter.
_REASONING: Final = ("thinking", "reasoning")
_OPENAI_KEYS: Final = frozenset(
    {"role", "content", "name", "tool_calls", "tool_call_id", "weight", "refusal", "audio"}
)


def messages_of(value: Any, place: str) -> list[dict[str, Any]]:
    """Return the messages of a row in our form.

    Args:
        value: the messages. They are not changed; those already in our form are returned.
        place: what to call them in an error.

    Raises:
        InvalidRecordError: they are not messages.

    >>> messages_of([{"role": "function", "name": "f", "content": "1"}], "messages")
    [{'role': 'tool', 'content': '1', 'name': 'f'}]
    """
    if not isinstance(value, list):
        raise InvalidRecordError(f"{place} is not a list of messages: {shown(value, 40)}")
    if _are_plain(value):
        return value
    found = []
    for position, item in enumerate(value):
        if (
            type(item) is dict
            and len(item) == 2
            and type(item.get("content")) is str
            and type(item.get("role")) is str
            and item["role"] in _PLAIN_ROLES
        ):
            found.append(item)
        else:
            found.append(_message(item, f"{place}.{position}"))
    return found


def _are_plain(items: list[Any]) -> bool:
    """Return whether all messages have a role and a text, and nothing else."""
    if {*map(type, items)} != {dict} or {*map(len, items)} != {2}:
        return False
    try:
        roles = {*map(itemgetter("role"), items)}
        contents = {*map(type, map(itemgetter("content"), items))}
    except (KeyError, TypeError):  # a role may be an object
        return False
    return roles <= _PLAIN_ROLES and contents == {str}


def _message(item: Any, place: str) -> dict[str, Any]:
    if not isinstance(item, dict):
        raise InvalidRecordError(f"{place} is not a message: {shown(item, 40)}")
    role = item.get("role")
    if not (isinstance(role, str) and (role in _PLAIN_ROLES or role == "function")):
        said = f"is {shown(role, 40)}" if "role" in item else "is missing"
        raise InvalidRecordError(f"{place}.role {said}; known roles: {', '.join(ROLES)}, function")
    message = {
        "role": "tool" if role == "function" else role,
        "content": content_of(item.get("content"), f"{place}.content"),
    }
    for key, value in item.items():
        if key not in message and (value is not None or key not in _OPTIONAL):
            message[key] = value
    return in_our_form(message, place)


def content_of(value: Any, place: str) -> str | list[dict[str, Any]] | None:
    """Return the content of a message: text, a list of content parts, or None.

    Raises:
        InvalidRecordError: it is something else.
    """
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, list) and all(isinstance(part, dict) for part in value):
        return value
    raise InvalidRecordError(
        f"{place} is {shown(value, 40)}; it must be text, a list of content parts, or null"
    )


def in_our_form(message: dict[str, Any], place: str) -> dict[str, Any]:
    """Return a message whose role and content are in our form with its other keys in it.

    Raises:
        InvalidRecordError: a key has a value of another type.
    """
    if "reasoning_content" not in message:
        for key in _REASONING:
            if isinstance(message.get(key), str):
                message["reasoning_content"] = message.pop(key)
                break
    for key in _TEXTS:
        if not isinstance(message.get(key, ""), str):
            raise InvalidRecordError(f"{place}.{key} is {shown(message[key], 40)}; it must be text")
    if "tool_calls" in message:
        message["tool_calls"] = record_calls(message["tool_calls"], f"{place}.tool_calls")
        if not message["tool_calls"]:
            del message["tool_calls"]
    if "tool_calls" not in message and isinstance(message.get("function_call"), dict):
        message["tool_calls"] = [record_call(message.pop("function_call"))]
    return message


def content_text(content: Any) -> str | None:
    r"""Return content that is text, or consists of text parts only; else None.

    Text parts are joined with line feeds.

    >>> content_text([{"type": "text", "text": "a"}, {"type": "text", "text": "b"}])
    'a\nb'
    """
    if isinstance(content, str):
        return content
    if not isinstance(content, list) or not content:
        return None
    texts = [
        part["text"] if part.get("type") == "text" and len(part) == 2 else None
        for part in content
        if "text" in part
    ]
    if len(texts) != len(content) or not all(isinstance(text, str) for text in texts):
        return None
    return "\n".join(map(str, texts))


def call_id(number: int) -> str:
    """Return the id of a tool call that has none: nine letters and digits, as Mistral requires.

    >>> call_id(3)
    'call00003'
    """
    return f"call{number:05d}"


class Messages:
    """The conversion of `messages`.

    A row may also have `tools` (a list, or its JSON text), the older `functions`, and its system
    message as `system`. Rows need an answer to be written.
    """

    name: str = "messages"
    required: tuple[str, ...] = ("messages",)
    keys: frozenset[str] = frozenset({"messages", "tools", "functions", "system"})
    aliases: Mapping[str, str] = {
        "conversation": "messages",
        "conversations": "messages",
        "system_prompt": "system",
    }
    parts: tuple[str, ...] = ("conversations", "tools")
    layouts: tuple[str, ...] = ()
    has_reasoning: bool = True
    can_write: bool = True

    needs_answer: ClassVar[bool] = True

    def record(self, row: dict[str, Any]) -> dict[str, Any]:
        """Return the messages and tools of a row."""
        messages = messages_of(row["messages"], "messages")
        if "system" in row:
            messages = after_system(row["system"], messages)
        record = {"conversations": messages}
        if "functions" in row and "tools" in row:
            raise InvalidRecordError("the record has both tools and functions; give one of them")
        for key in ("tools", "functions"):
            if key in row and (tools := record_tools(row[key], key)):
                record["tools"] = tools
        return record

    def row(self, record: dict[str, Any], losses: Losses, layout: str) -> dict[str, Any]:
        """Return the row of a record."""
        del losses, layout  # nothing is left out, and there is one layout
        messages = record["conversations"]
        if self.needs_answer and not any(one["role"] == "assistant" for one in messages):
            raise NotRepresentableError("no answer")
        row = {"messages": messages}
        if "tools" in record:
            row["tools"] = record["tools"]
        return row


def after_system(system: Any, messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return messages after a system message that the row has beside them; "" is none.

    Raises:
        InvalidRecordError: `system` is not text.
    """
    if not isinstance(system, str):
        raise InvalidRecordError(f"system is {shown(system, 40)}; it must be text")
    return [{"role": "system", "content": system}, *messages] if system else messages


class Oumi(Messages):
    """The conversion of `oumi`: `messages`, also without an answer."""

    name: str = "oumi"
    needs_answer: ClassVar[bool] = False


class OpenAI(Messages):
    """The conversion of `openai`: `messages` as the fine-tuning API accepts them.

    The last message is an answer, arguments are text, every tool call has an id and every tool
    result names one, and messages have no other keys than the API knows.
    """

    name: str = "openai"
    has_reasoning: bool = False

    def row(self, record: dict[str, Any], losses: Losses, layout: str) -> dict[str, Any]:
        """Return the row of a record."""
        row = super().row(record, losses, layout)
        if row["messages"][-1]["role"] != "assistant":
            raise NotRepresentableError(f"ends with the {row['messages'][-1]['role']}")
        calls = _CallIds()
        row["messages"] = [
            message
            if len(message) == 2 and message["role"] != "tool"
            else _accepted(message, calls, f"messages.{position}", losses)
            for position, message in enumerate(row["messages"])
        ]
        return row


class _CallIds:
    """Gives ids to the calls of one conversation, and to their results in the same order."""

    def __init__(self) -> None:
        self._number = 0
        self._open: dict[str, None] = {}

    def call(self, call: dict[str, Any]) -> dict[str, Any]:
        if not call.get("id"):
            call = {"id": call_id(self._number), "type": "function", **call}
        self._number += 1
        self._open[str(call["id"])] = None
        return call

    def result(self, message: dict[str, Any], place: str) -> dict[str, Any]:
        known = message.get("tool_call_id")
        if known is None:
            known = next(iter(self._open), None)
            if known is None:
                raise NotRepresentableError("a tool result without a call", place)
            message = {**message, "tool_call_id": known}
        self._open.pop(known, None)
        return message


def _accepted(
    message: dict[str, Any], calls: _CallIds, place: str, losses: Losses
) -> dict[str, Any]:
    """Return a message as the fine-tuning API accepts it."""
    if others := message.keys() - _OPENAI_KEYS:
        losses.drop_keys(others, "openai", place)
        message = {key: value for key, value in message.items() if key in _OPENAI_KEYS}
    if "tool_calls" in message:
        message = {**message, "tool_calls": [*map(calls.call, message["tool_calls"])]}
    elif message["role"] == "tool":
        message = calls.result(message, place)
    if message["content"] is None and not message.keys() & {"tool_calls", "refusal", "audio"}:
        raise NotRepresentableError("a message without content", place)
    return message
