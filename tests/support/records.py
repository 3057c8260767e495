"""Record classes of the tests, and helpers that make records."""

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
    """A conversation with its own fields, one of them required."""

    mood: str
    weights: list[float] = []


class TracedEntry(ConversationEntry):
    """A message with its own fields."""

    tokens: int
    tool: dict[str, Any] | None = None


class TracedConversation(Conversation):
    conversations: list[TracedEntry]  # type: ignore[assignment]


class OpenConversation(ConversationWithContext):
    """A conversation that accepts any extra field."""

    model_config = ConfigDict(extra="allow")


class StructuredRow(BaseModel, Generic[T]):
    """A record with the fields that the structured generator of the published package stores."""

    instruction: str
    context: str | None = None
    persona: str | None = None
    output: T
    metadata: dict[str, Any] = {}


class Capital(BaseModel):
    country: str
    inhabitants: int


class Note(BaseModel):
    """Another model; its `conversations` is not a list of messages."""

    title: str
    body: Any = None
    conversations: int | None = None


class Line(BaseModel):
    role: str
    content: str


class Play(BaseModel):
    """A model with the shape of a conversation and other roles."""

    conversations: list[Line]


class TaggedDocument(Document):
    tags: list[str]


def conversation(
    content: str = "Hi", /, metadata: dict[str, Any] | None = None, **fields: Any
) -> EvaluatedConversationWithContext:
    """A conversation of two messages, of the class that loads return."""
    return EvaluatedConversationWithContext(
        conversations=[
            {"role": "user", "content": content},
            {"role": "assistant", "content": f"{content}!", "reasoning_content": "greet back"},
        ],
        metadata=metadata or {},
        **fields,
    )


def conversations(*metadata: dict[str, Any]) -> list[Any]:
    """One conversation per metadata; its number is its first message."""
    return [conversation(str(number), each) for number, each in enumerate(metadata)]


def numbered_batch(number: int, size: int) -> list[Any]:
    """Conversations of more than a kilobyte, with the number of their batch and their index."""
    return [conversation("x" * 1500, {"batch": number, "at": index}) for index in range(size)]


def evaluation(score: float = 0.5, grade: str = "good") -> EvaluationSchema:
    """An evaluation with a different value in every field."""
    entries = {
        name: EvaluationEntrySchema(feedback=f"on {name}", score=score + place)
        for place, name in enumerate(CRITERIA)
    }
    return EvaluationSchema(**entries, overall_grade=GradeSchema(grade))


def firsts(records: list[Any]) -> list[str]:
    """The first message of each conversation, which is the number from `conversations`."""
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
"""Records that a round trip through another format can easily damage."""
