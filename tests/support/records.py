"""Record classes that only the tests have, and short ways to make records."""

from __future__ import annotations

from typing import Any, Generic, TypeVar

from pydantic import BaseModel, ConfigDict

from afterimage.storage import (
    Conversation,
    ConversationEntry,
    ConversationWithContext,
    Document,
    EvaluatedConversationWithContext,
    EvaluationEntrySchema,
    EvaluationSchema,
    GradeSchema,
)

T = TypeVar("T")

CRITERIA = ("coherence", "factuality", "grounding", "helpfulness", "relevance")


class RatedConversation(EvaluatedConversationWithContext):
    """A conversation with fields of its own, one of them required."""

    mood: str
    weights: list[float] = []


class TracedEntry(ConversationEntry):
    """A message with fields of its own."""

    tokens: int
    tool: dict[str, Any] | None = None


class TracedConversation(Conversation):
    conversations: list[TracedEntry]  # type: ignore[assignment]


class OpenConversation(ConversationWithContext):
    """Keeps whatever it is given."""

    model_config = ConfigDict(extra="allow")


class StructuredRow(BaseModel, Generic[T]):
    """What the structured generator of the published package stores, by the same fields."""

    instruction: str
    context: str | None = None
    persona: str | None = None
    output: T
    metadata: dict[str, Any] = {}


class Capital(BaseModel):
    country: str
    inhabitants: int


class Note(BaseModel):
    """Any other model; its `conversations` is no list of messages."""

    title: str
    body: Any = None
    conversations: int | None = None


class Line(BaseModel):
    role: str
    content: str


class Play(BaseModel):
    """Shaped like a conversation, with roles that no conversation has."""

    conversations: list[Line]


class TaggedDocument(Document):
    tags: list[str]


def conversation(
    content: str = "Hi", /, metadata: dict[str, Any] | None = None, **fields: Any
) -> EvaluatedConversationWithContext:
    """A conversation of two messages; its class is the one that loads give back."""
    return EvaluatedConversationWithContext(
        conversations=[
            {"role": "user", "content": content},
            {"role": "assistant", "content": f"{content}!", "reasoning_content": "greet back"},
        ],
        metadata=metadata or {},
        **fields,
    )


def conversations(*metadata: dict[str, Any]) -> list[Any]:
    """One conversation for each metadata, its number being its first message."""
    return [conversation(str(number), each) for number, each in enumerate(metadata)]


def evaluation(score: float = 0.5, grade: str = "good") -> EvaluationSchema:
    """An evaluation in which every field has a value that no other field has."""
    entries = {
        name: EvaluationEntrySchema(feedback=f"on {name}", score=score + place)
        for place, name in enumerate(CRITERIA)
    }
    return EvaluationSchema(**entries, overall_grade=GradeSchema(grade))


def firsts(records: list[Any]) -> list[str]:
    """The first message of each conversation: what `conversations` numbered them by."""
    return [record.conversations[0].content for record in records]


_MESSAGES = [{"role": "user", "content": "\u2028 é 😀"}]
ALL_SORTS = [
    Conversation(conversations=_MESSAGES, metadata={"a": None, "b": {}, "c": []}),
    conversation(metadata={"n": 2**70, "m": -0.0}, evaluation=evaluation(), final_score=None),
    RatedConversation(conversations=[], mood="calm", weights=[1.0, 2.5]),
    TracedConversation(conversations=[TracedEntry(role="user", content="x", tokens=2**64)]),
    OpenConversation(conversations=_MESSAGES, id="mine", extra=[1], conversation={"k": "\x00"}),
    conversation("\n\r\n", {"k.l": "\u0085", "": float("nan")}),
]
"""Records whose round trip through another format is easily lossy."""
