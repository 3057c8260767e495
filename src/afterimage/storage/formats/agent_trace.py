"""Trajectories of the generator's agents, as messages. They are read and not written.

An `AgentTrajectory` has a `task`, `turns` and a `final_answer`. A turn is a thought, and perhaps a
call of a tool with its observation.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from afterimage.storage.errors import InvalidQueryError, InvalidRecordError, shown
from afterimage.storage.formats.edits import json_text
from afterimage.storage.formats.messages import call_id
from afterimage.storage.formats.shape import Losses

__all__ = ["AgentTrace"]


class AgentTrace:
    """The conversion of `agent-trace`.

    >>> turn = {"agent_thought": "Look it up.",
    ...         "tool_call": {"app": "bank", "action": "balance", "parameters": {"id": 1}},
    ...         "observation": {"observation": {"eur": 5}, "status": "success"}}
    >>> row = {"task": "How much?", "turns": [turn], "final_answer": "5 euros."}
    >>> for message in AgentTrace().record(row)["conversations"]:
    ...     print(message["role"], message["content"])
    user How much?
    assistant None
    tool {"eur": 5}
    assistant 5 euros.
    """

    name: str = "agent-trace"
    required: tuple[str, ...] = ("task", "turns")
    keys: frozenset[str] = frozenset({"task", "turns", "final_answer"})
    aliases: Mapping[str, str] = {}
    parts: tuple[str, ...] = ("conversations",)
    layouts: tuple[str, ...] = ()
    has_reasoning: bool = True
    can_write: bool = False

    def record(self, row: dict[str, Any]) -> dict[str, Any]:
        """Return the messages of a trajectory."""
        turns = row["turns"]
        if not isinstance(turns, list):
            raise InvalidRecordError(f"turns is not a list: {shown(turns, 40)}")
        messages: list[dict[str, Any]] = [{"role": "user", "content": _text(row, "task", "task")}]
        for position, turn in enumerate(turns):
            messages += _messages_of(turn, position, f"turns.{position}")
        if "final_answer" in row:
            answer = _text(row, "final_answer", "final_answer")
            last = messages[-1]
            if len(messages) > 1 and last["role"] == "assistant" and "tool_calls" not in last:
                # The last turn is the thought that led to the answer.
                messages.pop()
                thought = last["content"]
            else:
                thought = ""
            messages.append(_thinking(thought if thought != answer else "", answer))
        return {"conversations": messages}

    def row(self, record: dict[str, Any], losses: Losses, layout: str) -> dict[str, Any]:
        """Refuse: a conversation has no trajectory."""
        del record, losses, layout
        raise InvalidQueryError(f"format {self.name!r} can be read and not written")


def _text(holder: Mapping[str, Any], key: str, place: str) -> str:
    value = holder.get(key)
    if not isinstance(value, str):
        raise InvalidRecordError(f"{place} is {shown(value, 40)}; it must be text")
    return value


def _thinking(thought: str, content: str | None) -> dict[str, Any]:
    message: dict[str, Any] = {"role": "assistant", "content": content}
    if thought:
        message["reasoning_content"] = thought
    return message


def _messages_of(turn: Any, position: int, place: str) -> list[dict[str, Any]]:
    if not isinstance(turn, dict):
        raise InvalidRecordError(f"{place} is not a turn: {shown(turn, 40)}")
    thought = _text(turn, "agent_thought", f"{place}.agent_thought")
    call = turn.get("tool_call")
    if call is None:
        return [{"role": "assistant", "content": thought}]
    if not (isinstance(call, dict) and isinstance(call.get("action"), str)):
        raise InvalidRecordError(f"{place}.tool_call has no action: {shown(call, 40)}")
    # Names of functions have no dots. The generator's own exporters write them like this.
    name = "__".join(str(call[key]) for key in ("app", "action") if call.get(key))
    message = _thinking(thought, None)
    message["tool_calls"] = [
        {
            "id": call_id(position),
            "type": "function",
            "function": {"name": name, "arguments": json_text(call.get("parameters") or {})},
        }
    ]
    seen = turn.get("observation")
    if seen is None:
        return [message]
    if not (isinstance(seen, dict) and "observation" in seen):
        raise InvalidRecordError(f"{place}.observation has no observation: {shown(seen, 40)}")
    result = seen["observation"]
    others = {key: value for key, value in seen.items() if key != "observation"}
    return [
        message,
        {
            "role": "tool",
            "content": result if isinstance(result, str) else json_text(result),
            "name": name,
            "tool_call_id": call_id(position),
            **others,
        },
    ]
