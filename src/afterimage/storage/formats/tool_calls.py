"""Tools and tool calls: one shape in records, whatever shape a row has.

In a record, a tool is `{"type": "function", "function": {"name", …}}`, and a call is the same with
`arguments`, JSON text, in `function`. What has no name, such as a tool of another type, stays as
it is. The invariant: no value of a tool or a call is left out.
"""

from __future__ import annotations

from typing import Any

from afterimage.storage.errors import InvalidRecordError, shown
from afterimage.storage.formats.edits import json_text, parsed_json

__all__ = ["flat_call", "flat_tool", "list_of", "record_call", "record_calls", "record_tools"]


def list_of(value: Any, place: str, what: str) -> list[dict[str, Any]]:
    """Return a list of objects that may be given as JSON text; "" is an empty list.

    Raises:
        InvalidRecordError: it is something else.

    >>> list_of('[{"name": "f"}]', "tools", "tools")
    [{'name': 'f'}]
    """
    if isinstance(value, str):
        try:
            value = parsed_json(value) if value.strip() else []
        except ValueError:
            raise InvalidRecordError(f"{place} is text that is not JSON") from None
    if not (isinstance(value, list) and all(isinstance(one, dict) for one in value)):
        raise InvalidRecordError(f"{place} is not a list of {what}: {shown(value, 40)}")
    return value


def record_tools(value: Any, place: str = "tools") -> list[dict[str, Any]]:
    """Return the tools of a row.

    Raises:
        InvalidRecordError: they are not a list of objects, nor its JSON text.

    >>> record_tools('[{"name": "f", "parameters": {}}]')
    [{'type': 'function', 'function': {'name': 'f', 'parameters': {}}}]
    """
    return [
        {"type": "function", "function": tool} if _is_flat(tool) else tool
        for tool in list_of(value, place, "tools")
    ]


def _is_flat(tool: dict[str, Any]) -> bool:
    # `input_schema` is Anthropic's, whose tools are not those of OpenAI without their wrapping.
    return isinstance(tool.get("name"), str) and not tool.keys() & {
        "type",
        "function",
        "input_schema",
    }


def flat_tool(tool: dict[str, Any]) -> dict[str, Any]:
    """Return a tool of a record without its wrapping, if it can be read again.

    >>> flat_tool({"type": "function", "function": {"name": "f"}})
    {'name': 'f'}
    """
    function = tool.get("function")
    if len(tool) == 2 and tool.get("type") == "function" and isinstance(function, dict):
        return function if _is_flat(function) else tool
    return tool


def record_calls(value: Any, place: str) -> list[dict[str, Any]]:
    """Return the tool calls of a message.

    Raises:
        InvalidRecordError: they are not a list of objects, nor its JSON text.
    """
    return [record_call(call) for call in list_of(value, place, "tool calls")]


def record_call(call: dict[str, Any]) -> dict[str, Any]:
    """Return a call as in a record.

    >>> record_call({"name": "f", "arguments": {"n": 1}, "id": "a"})
    {'type': 'function', 'function': {'name': 'f', 'arguments': '{"n": 1}'}, 'id': 'a'}
    """
    function = call.get("function")
    if isinstance(function, dict):
        arguments = function.get("arguments")
        if arguments is None or isinstance(arguments, str):
            return call
        return {**call, "function": {**function, "arguments": json_text(arguments)}}
    if "function" in call or "type" in call or not isinstance(call.get("name"), str):
        return call
    function = {key: call[key] for key in ("name", "arguments") if key in call}
    if "arguments" in function and not isinstance(function["arguments"], str):
        function["arguments"] = json_text(function["arguments"])
    others = {key: value for key, value in call.items() if key not in function}
    return {"type": "function", "function": function, **others}


def flat_call(call: dict[str, Any]) -> dict[str, Any]:
    """Return a call of a record with its name and its arguments as an object.

    Arguments that are not the JSON of an object stay text. A call of another type stays as it is.

    >>> flat_call({"type": "function", "function": {"name": "f", "arguments": '{"n":1}'}})
    {'name': 'f', 'arguments': {'n': 1}}
    """
    function = call.get("function")
    if not (
        isinstance(function, dict)
        and isinstance(function.get("name"), str)
        and function.keys() <= {"name", "arguments"}
        and call.get("type") == "function"
        and not call.keys() & {"name", "arguments"}
    ):
        return call
    flat = {**function}
    if isinstance(flat.get("arguments"), str):
        try:
            arguments = parsed_json(flat["arguments"])
        except ValueError:
            arguments = None
        if isinstance(arguments, dict):
            flat["arguments"] = arguments
    others = {key: value for key, value in call.items() if key not in ("type", "function")}
    return {**flat, **others}
