"""Gemini's contents, as Gemini and Vertex AI train on them.

`{"contents": [{"role": "user" | "model", "parts": […]}]}`, with `systemInstruction` and `tools`. A
part is text, a call or a result of a function, or something else. The invariant: results that
follow each other are in one content, as the service demands for parallel calls.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from afterimage.storage.errors import InvalidRecordError, shown
from afterimage.storage.formats.edits import json_text, parsed_json
from afterimage.storage.formats.messages import content_text
from afterimage.storage.formats.shape import Losses, NotRepresentableError
from afterimage.storage.formats.tool_calls import flat_call, flat_tool, list_of, record_tools

__all__ = ["Gemini"]

_ROLES: Final = {
    "user": "user",
    "model": "assistant",
    "assistant": "assistant",
    "function": "user",
    "tool": "user",
    "system": "system",
}
# The names of the REST interface, and those of the Python library.
_SNAKE: Final = {
    "systemInstruction": "system_instruction",
    "functionCall": "function_call",
    "functionResponse": "function_response",
    "functionDeclarations": "function_declarations",
}
# The key of a result that is not an object.
_RESULT: Final = "result"


def _get(holder: Mapping[str, Any], name: str) -> Any:
    value = holder.get(name)
    return value if value is not None else holder.get(_SNAKE[name])


class Gemini:
    """The conversion of `gemini`. Layout "snake" has the names of the Python library."""

    name: str = "gemini"
    required: tuple[str, ...] = ("contents",)
    keys: frozenset[str] = frozenset(
        {"contents", "systemInstruction", "system_instruction", "tools"}
    )
    aliases: Mapping[str, str] = {}
    parts: tuple[str, ...] = ("conversations", "tools")
    layouts: tuple[str, ...] = ("snake",)
    has_reasoning: bool = True
    can_write: bool = True

    def record(self, row: dict[str, Any]) -> dict[str, Any]:
        """Return the messages and tools of a row."""
        contents = row["contents"]
        if not isinstance(contents, list):
            raise InvalidRecordError(f"contents is not a list: {shown(contents, 40)}")
        messages: list[dict[str, Any]] = []
        system = _get(row, "systemInstruction")
        if isinstance(system, str):
            messages.append({"role": "system", "content": system})
        elif system is not None:
            given = {"role": "system", **system} if isinstance(system, dict) else system
            if isinstance(given, dict) and given["role"] != "system":  # it has no meaning here
                given = {**given, "role": "system"}
            messages += _messages_of(given, "systemInstruction")
        for position, content in enumerate(contents):
            messages += _messages_of(content, f"contents.{position}")
        record: dict[str, Any] = {"conversations": messages}
        if "tools" in row and (tools := _record_tools(row["tools"])):
            record["tools"] = tools
        return record

    def row(self, record: dict[str, Any], losses: Losses, layout: str) -> dict[str, Any]:
        """Return the row of a record."""
        writer = _Writer(_SNAKE if layout == "snake" else {name: name for name in _SNAKE}, losses)
        return writer.row(record)


def _messages_of(content: Any, place: str) -> list[dict[str, Any]]:
    """Return the messages of a content: its results, and the rest."""
    if not (isinstance(content, dict) and isinstance(content.get("parts"), list)):
        raise InvalidRecordError(f"{place} has no list of parts: {shown(content, 40)}")
    role = _ROLES.get(str(content.get("role", "user")))
    if role is None:
        raise InvalidRecordError(
            f"{place}.role is {shown(content['role'], 40)}; known roles: {', '.join(_ROLES)}"
        )
    if (text := _only_text(content)) is not None:
        return [{"role": role, "content": text}]
    message: dict[str, Any] = {"role": role, "content": None}
    for key, value in content.items():
        if key not in ("role", "parts"):
            if key in (*message, "tool_calls", "tool_call_id", "reasoning_content"):
                raise InvalidRecordError(f"{place} has the key {key!r} beside role and parts")
            message[key] = value
    parts = _Parts(content["parts"], place, may_think=role == "assistant")
    if parts.thought is not None:
        message["reasoning_content"] = parts.thought
    if parts.calls:
        message["tool_calls"] = parts.calls
    if len(parts.said) == 1 and content_text(parts.said) is not None:
        message["content"] = parts.said[0]["text"]
    elif parts.said:
        message["content"] = parts.said
    if parts.results and not (parts.said or parts.calls or parts.thought is not None):
        # There is no message of its own; the last result has the other keys of the content.
        others = {key: value for key, value in message.items() if key not in ("role", "content")}
        return [*parts.results[:-1], {**others, **parts.results[-1]}]
    return [*parts.results, message]


def _only_text(content: dict[str, Any]) -> str | None:
    """Return the text of a content that is nothing else, as most are."""
    if len(content) != 2 or len(content["parts"]) != 1 or "role" not in content:
        return None
    (part,) = content["parts"]
    text = part.get("text") if isinstance(part, dict) and len(part) == 1 else None
    return text if isinstance(text, str) else None


class _Parts:
    """The parts of a content, by what they are. A thought is one that comes first of its kind."""

    def __init__(self, parts: list[Any], place: str, *, may_think: bool) -> None:
        self.thought: str | None = None
        self.said: list[dict[str, Any]] = []
        self.calls: list[dict[str, Any]] = []
        self.results: list[dict[str, Any]] = []
        for position, part in enumerate(parts):
            if not isinstance(part, dict):
                raise InvalidRecordError(
                    f"{place}.parts.{position} is not an object: {shown(part, 40)}"
                )
            if isinstance(call := _get(part, "functionCall"), dict):
                self.calls.append(_record_call(part, call))
            elif isinstance(result := _get(part, "functionResponse"), dict):
                self.results.append(_record_result(result))
            elif may_think and self.thought is None and _is_thought(part):
                self.thought = part["text"]
            elif part.keys() == {"text"} and isinstance(part["text"], str):
                self.said.append({"type": "text", "text": part["text"]})
            else:
                self.said.append(part)


def _is_thought(part: Mapping[str, Any]) -> bool:
    return (
        part.keys() == {"text", "thought"}
        and part["thought"] is True
        and isinstance(part["text"], str)
    )


def _record_call(part: Mapping[str, Any], call: Mapping[str, Any]) -> dict[str, Any]:
    function = {"name": call.get("name")}
    if call.get("args") is not None:
        function["arguments"] = json_text(call["args"])
    others = {key: value for key, value in call.items() if key not in ("name", "args")}
    beside = {key: part[key] for key in part if key not in ("functionCall", "function_call")}
    return {"type": "function", "function": function, **others, **beside}


def _record_result(result: Mapping[str, Any]) -> dict[str, Any]:
    response = result.get("response")
    is_text = isinstance(response, dict) and response.keys() == {_RESULT}
    text = response[_RESULT] if is_text and isinstance(response, dict) else None
    message = {
        "role": "tool",
        "content": text if isinstance(text, str) else json_text(response),
    }
    if isinstance(result.get("name"), str):
        message["name"] = result["name"]
    if isinstance(result.get("id"), str):
        message["tool_call_id"] = result["id"]
    return message


def _record_tools(value: Any) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    for tool in list_of(value, "tools", "tools"):
        declared = _get(tool, "functionDeclarations")
        if declared is None:
            found.append(tool)
        else:
            found += record_tools(declared, "tools.functionDeclarations")
    return found


class _Writer:
    """Writes one record.

    Args:
        names: the names of keys.
        losses: what has no place.
    """

    def __init__(self, names: Mapping[str, str], losses: Losses) -> None:
        self._names = names
        self._losses = losses
        self._called: dict[str, str] = {}  # the name of each call by its id

    def row(self, record: dict[str, Any]) -> dict[str, Any]:
        row: dict[str, Any] = {"contents": []}
        results: list[dict[str, Any]] = []
        for position, message in enumerate(record["conversations"]):
            place = f"conversations.{position}"
            if message["role"] == "tool":
                if not results:
                    row["contents"].append({"role": "user", "parts": results})
                results.append(self._result(message, place))
                continue
            results = []
            if message["role"] in ("system", "developer"):
                self._add_system(row, message, position, place)
            else:
                row["contents"].append(self._content(message, place))
        if not row["contents"]:
            raise NotRepresentableError("no messages")
        if "tools" in record:
            row["tools"] = self._tools(record["tools"])
        return row

    def _no_place(self, name: str, what: str, place: str) -> None:
        """Refuse what has no place, unless it may be left out."""
        self._losses.drop(name, f"{what} no place in gemini", place)

    def _add_system(
        self, row: dict[str, Any], message: dict[str, Any], position: int, place: str
    ) -> None:
        if message["role"] == "developer":
            self._no_place("the role developer", "the role developer has", place)
        if position:
            self._no_place("system messages", "a system message after others has", place)
            return
        if "tool_calls" in message:
            self._no_place("tool calls", "tool calls of a system message have", place)
        row[self._names["systemInstruction"]] = {
            "role": "system",
            "parts": self._parts(message["content"], place),
            **_others(message),
        }

    def _content(self, message: dict[str, Any], place: str) -> dict[str, Any]:
        parts: list[dict[str, Any]] = []
        if "reasoning_content" in message:
            parts.append({"text": message["reasoning_content"], "thought": True})
        parts += self._parts(message["content"], place)
        for call in message.get("tool_calls", ()):
            parts += self._call(call, place)
        if not parts:
            raise NotRepresentableError("a message without content", place)
        if "parts" in message:
            self._losses.drop_keys(["parts"], "gemini", place)
        role = "model" if message["role"] == "assistant" else message["role"]
        return {"role": role, "parts": parts, **_others(message)}

    def _parts(self, content: Any, place: str) -> list[dict[str, Any]]:
        if content is None:
            return []
        if isinstance(content, str):
            return [{"text": content}]
        parts = []
        for part in content:
            if content_text([part]) is not None:
                parts.append({"text": part["text"]})
            elif "type" not in part:  # one of Gemini's own
                parts.append(part)
            else:
                what = f"a content part of type {shown(part['type'], 40)} has"
                self._no_place("content parts", what, place)
        return parts

    def _call(self, call: dict[str, Any], place: str) -> list[dict[str, Any]]:
        flat = flat_call(call)
        arguments = flat.get("arguments")
        if flat is call or not (arguments is None or isinstance(arguments, dict)):
            what = "a call whose arguments are not an object has"
            self._no_place("tool calls", what, place)
            return []
        made = {"name": flat["name"]}
        if arguments is not None:
            made["args"] = arguments
        if "id" in flat:
            made["id"] = flat["id"]
            self._called[str(flat["id"])] = flat["name"]
        others = {k: v for k, v in flat.items() if k not in ("name", "arguments", "id")}
        return [{self._names["functionCall"]: made, **others}]

    def _result(self, message: dict[str, Any], place: str) -> dict[str, Any]:
        known = message.get("tool_call_id")
        name = message.get("name") or self._called.get(str(known))
        if name is None:
            raise NotRepresentableError("a tool result without the name of its tool", place)
        text = content_text(message["content"])
        if text is None:
            raise NotRepresentableError("a tool result that is not text", place)
        others = message.keys() - {"role", "content", "name", "tool_call_id"}
        self._losses.drop_keys(others, "gemini", place)
        result: dict[str, Any] = {"name": name, "response": _response(text)}
        if known is not None:
            result["id"] = known
        return {self._names["functionResponse"]: result}

    def _tools(self, tools: list[dict[str, Any]]) -> list[dict[str, Any]]:
        functions = [flat for tool in tools if (flat := flat_tool(tool)) is not tool]
        others = [tool for tool in tools if flat_tool(tool) is tool]
        if any("type" in tool for tool in others):
            self._no_place("tools", "a tool that is not a function has", "tools")
            others = [tool for tool in others if "type" not in tool]
        declared = [{self._names["functionDeclarations"]: functions}] if functions else []
        return [*declared, *others]


def _others(message: Mapping[str, Any]) -> dict[str, Any]:
    known = ("role", "content", "reasoning_content", "tool_calls", "parts")
    return {key: value for key, value in message.items() if key not in known}


def _response(text: str) -> dict[str, Any]:
    """Return a result as an object, from which `_record_result` makes the same text."""
    try:
        value = parsed_json(text)
    except ValueError:
        value = None
    is_object = isinstance(value, dict) and not (
        value.keys() == {_RESULT} and isinstance(value[_RESULT], str)
    )
    return value if is_object else {_RESULT: text}
