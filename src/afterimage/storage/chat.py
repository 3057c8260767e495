"""The record classes of chats as they are kept today, beside those of the generators.

They extend the classes of `models.py`. So `isinstance` holds, and code for those classes goes on
working: `ChatRole.USER == Role.USER`, and both have the same hash.
"""

from __future__ import annotations

from enum import Enum
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, model_validator

from afterimage.storage.models import ConversationEntry, EvaluatedConversationWithContext

__all__ = ["ChatConversation", "ChatEntry", "ChatRole", "PreferencePair"]


class ChatRole(str, Enum):
    """The author of a chat message."""

    SYSTEM = "system"
    DEVELOPER = "developer"
    USER = "user"
    ASSISTANT = "assistant"
    TOOL = "tool"


class ChatEntry(ConversationEntry):
    """One message of a chat. Other keys, such as `weight` or `refusal`, are kept as they came.

    Attributes:
        content: the text; a list of content parts; or None, as beside tool calls.
        name: the name of the author, or of the tool.
        tool_calls: the calls of an assistant, in the form of OpenAI.
        tool_call_id: the call that the message of a tool answers.

    >>> ChatEntry(role="tool", content="12 °C", tool_call_id="call_1").role.value
    'tool'
    """

    model_config = ConfigDict(extra="allow")

    role: ChatRole  # type: ignore[assignment]
    content: str | list[dict[str, Any]] | None = None  # type: ignore[assignment]
    name: str | None = None
    tool_calls: list[dict[str, Any]] | None = None
    tool_call_id: str | None = None


class ChatConversation(EvaluatedConversationWithContext):
    """A conversation whose messages can be of any role, with tool calls and content parts.

    Attributes:
        conversations: the messages, in chronological order.
        tools: the definitions of the tools that the assistant could call.

    >>> ChatConversation(conversations=[{"role": "system", "content": "Be brief."}]).tools
    """

    model_config = ConfigDict(extra="allow")

    conversations: list[ChatEntry]  # type: ignore[assignment]
    tools: list[dict[str, Any]] | None = None


class PreferencePair(BaseModel):
    """Two continuations of a prompt, of which the first is preferred.

    A pair of the published generator, with a text as `prompt` and scores, can be read too: its text
    becomes a message of the user, and its scores go to `metadata`.

    Attributes:
        prompt: the messages before both continuations.
        chosen: the messages of the preferred continuation.
        rejected: the messages of the other one.
        tools: the definitions of the tools that the assistant could call.
        metadata: values of any keys.

    >>> pair = PreferencePair(prompt="Hi", chosen="Hello!", rejected="What?")
    >>> [message.role.value for message in [*pair.prompt, *pair.chosen]]
    ['user', 'assistant']
    """

    prompt: list[ChatEntry]
    chosen: list[ChatEntry]
    rejected: list[ChatEntry]
    tools: list[dict[str, Any]] | None = None
    metadata: dict[str, Any] = Field(default_factory=dict)

    @model_validator(mode="before")
    @classmethod
    def _with_messages(cls, values: Any) -> Any:
        if not isinstance(values, dict):
            return values
        values, scores = dict(values), {}
        for name, role in (("prompt", "user"), ("chosen", "assistant"), ("rejected", "assistant")):
            side = values.get(name)
            if isinstance(side, dict) and "content" in side and "role" not in side:
                if "score" in side:
                    scores[f"{name}_score"] = side["score"]
                side = side["content"]
            if isinstance(side, str):
                values[name] = [{"role": role, "content": side}]
        if scores:
            values["metadata"] = {**scores, **(values.get("metadata") or {})}
        return values
