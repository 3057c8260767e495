"""ShareGPT turns, as LLaMA-Factory, Axolotl and Unsloth read them.

`{"conversations": [{"from": "human", "value": "…"}, …]}`, with `system` and `tools` (JSON text)
beside it. The invariant: conversations of plain user and assistant messages give exactly the row
that the published package's export writes.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

from afterimage.storage.errors import InvalidRecordError, shown
from afterimage.storage.formats.edits import json_text, parsed_json
from afterimage.storage.formats.messages import after_system, content_of, content_text, in_our_form
from afterimage.storage.formats.shape import Losses, NotRepresentableError
from afterimage.storage.formats.tool_calls import flat_call, flat_tool, record_call, record_tools

__all__ = ["ShareGPT", "turn_of", "turns_of"]

_CALL: Final = "function_call"
# The role of each name of a speaker.
_ROLES: Final = {
    "human": "user",
    "user": "user",
    "gpt": "assistant",
    "assistant": "assistant",
    "chatgpt": "assistant",
    "model": "assistant",
    "bing": "assistant",
    "bard": "assistant",
    _CALL: "assistant",
    "system": "system",
    "developer": "developer",
    "observation": "tool",
    "tool": "tool",
    "function_response": "tool",
    "tool_response": "tool",
}
_NAMES: Final = {
    "system": "system",
    "user": "human",
    "assistant": "gpt",
    "tool": "observation",
}
# Layout "roles": the names are those of the roles.
_ROLE_NAMES: Final = {**_NAMES, "user": "user", "assistant": "assistant", "tool": "tool"}
# Reasoning stands before a call as it stands before an answer.
_THINKING: Final = re.compile(r"(?:\s*<think>.*?</think>\s*)*", re.DOTALL)


def turn_of(turn: Any, place: str) -> dict[str, Any]:
    """Return the message of a turn.

    Raises:
        InvalidRecordError: it is not a turn.

    >>> turn_of({"from": "gpt", "value": "Hello"}, "chosen")
    {'role': 'assistant', 'content': 'Hello'}
    """
    if not (isinstance(turn, dict) and "from" in turn and "value" in turn):
        raise InvalidRecordError(f"{place} is not a turn with from and value: {shown(turn, 40)}")
    speaker, value = turn["from"], turn["value"]
    role = _ROLES.get(speaker) if isinstance(speaker, str) else None
    if role is None:
        raise InvalidRecordError(
            f"{place}.from is {shown(speaker, 40)}; known names: {', '.join(_ROLES)}"
        )
    if speaker != _CALL and len(turn) == 2 and type(value) is str:
        return {"role": role, "content": value}
    message: dict[str, Any] = {"role": role, "content": None}
    if speaker == _CALL:
        message["content"], message["tool_calls"] = _calls_of(value, f"{place}.value")
    else:
        message["content"] = content_of(value, f"{place}.value")
    for key, other in turn.items():
        if key in ("from", "value") or (other is None and key in _NULLABLE):
            continue
        if key in message:
            raise InvalidRecordError(f"{place} has the key {key!r} beside from and value")
        message[key] = other
    return in_our_form(message, place)


_NULLABLE: Final = ("reasoning_content", "name", "tool_calls", "tool_call_id")


def _calls_of(value: Any, place: str) -> tuple[str | None, list[dict[str, Any]]]:
    """Return the thinking and the calls of a `function_call`: JSON text, after thinking if any."""
    text = value if isinstance(value, str) else ""
    thinking = _thinking(text)
    try:
        calls = parsed_json(text[len(thinking) :])
    except ValueError:
        calls = None
    calls = [calls] if isinstance(calls, dict) else calls
    if not (isinstance(calls, list) and calls and all(isinstance(call, dict) for call in calls)):
        raise InvalidRecordError(f"{place} is not the JSON of a function call: {shown(value, 60)}")
    return thinking or None, [*map(record_call, calls)]


def _thinking(text: str) -> str:
    """Return the reasoning at the start of a text, with its tags; it can have several parts."""
    found = _THINKING.match(text)
    return found[0] if found else ""


def turns_of(
    messages: list[dict[str, Any]], losses: Losses, layout: str = "", place: str = "conversations"
) -> list[dict[str, Any]]:
    """Return the turns of messages.

    Turns of one role that follow each other are joined with a line feed, as the tools demand that
    roles alternate. Only turns without other keys are, so nothing is left out.

    Args:
        messages: the messages.
        losses: what has no place.
        layout: "separate" does not join turns; "roles" does not either, and names the speakers
            like the roles.
        place: what to call the messages in an error.

    Raises:
        NotRepresentableError: something has no place.
    """
    names = _ROLE_NAMES if layout == "roles" else _NAMES
    turns: list[dict[str, Any]] = []
    joined: list[str] = []  # the values of the turns that become the last one
    joining = ""  # their role
    for position, message in enumerate(messages):
        role, content = message["role"], message["content"]
        is_plain = len(message) == 2 and type(content) is str and role in names
        if is_plain and role == joining:
            joined.append(content)
            continue
        if len(joined) > 1:
            turns[-1]["value"] = "\n".join(joined)
        joined, joining = [], ""
        if not is_plain:
            turns.append(_turn(message, names, f"{place}.{position}", losses))
            continue
        turns.append({"from": names[role], "value": content})
        if not layout and role in ("user", "assistant"):
            joined, joining = [content], role
    if len(joined) > 1:
        turns[-1]["value"] = "\n".join(joined)
    return turns


def _turn(
    message: dict[str, Any], names: Mapping[str, str], place: str, losses: Losses
) -> dict[str, Any]:
    """Return the turn of a message with more than its role and text."""
    role = message["role"]
    if role == "developer":
        losses.drop("the role developer", "the role developer has no place in sharegpt", place)
        role = "system"
    others = {
        key: value
        for key, value in message.items()
        if key not in ("role", "content", "tool_calls", "from", "value")
    }
    losses.drop_keys(message.keys() & {"from", "value"}, "sharegpt", place)
    if calls := message.get("tool_calls"):
        return {"from": _CALL, "value": _call_value(message, calls, place, losses), **others}
    content = message["content"]
    text = content_text(content)
    if text is None:
        if content is None:
            raise NotRepresentableError("a message without content", place)
        losses.drop("content parts", "content parts have no place in sharegpt", place)
        text = "\n".join(part["text"] for part in content if isinstance(part.get("text"), str))
    return {"from": names[role], "value": text, **others}


def _call_value(
    message: dict[str, Any], calls: list[dict[str, Any]], place: str, losses: Losses
) -> str:
    said = content_text(message["content"]) if message["content"] else ""
    if said is None or said != _thinking(said):
        what = "text beside tool calls"
        losses.drop(what, f"{what} has no place in sharegpt", place)
        said = ""
    flat = [*map(flat_call, calls)]
    return said + json_text(flat[0] if len(flat) == 1 else flat)


class ShareGPT:
    """The conversion of `sharegpt`."""

    name: str = "sharegpt"
    required: tuple[str, ...] = ("conversations",)
    keys: frozenset[str] = frozenset({"conversations", "system", "tools"})
    aliases: Mapping[str, str] = {"conversation": "conversations", "system_prompt": "system"}
    parts: tuple[str, ...] = ("conversations", "tools")
    layouts: tuple[str, ...] = ("separate", "roles")
    has_reasoning: bool = False
    can_write: bool = True

    def record(self, row: dict[str, Any]) -> dict[str, Any]:
        """Return the messages and tools of a row."""
        turns = row["conversations"]
        if not isinstance(turns, list):
            raise InvalidRecordError(f"conversations is not a list of turns: {shown(turns, 40)}")
        messages = [turn_of(turn, f"conversations.{n}") for n, turn in enumerate(turns)]
        if "system" in row:
            messages = after_system(row["system"], messages)
        record = {"conversations": messages}
        if "tools" in row and (tools := record_tools(row["tools"])):
            record["tools"] = tools
        return record

    def row(self, record: dict[str, Any], losses: Losses, layout: str) -> dict[str, Any]:
        """Return the row of a record."""
        turns = turns_of(record["conversations"], losses, layout)
        row: dict[str, Any] = {"conversations": turns}
        if "tools" in record:
            row["tools"] = json_text([*map(flat_tool, record["tools"])])
        return row
