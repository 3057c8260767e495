"""The record classes, or those of the published `afterimage` package where it is installed.

`isinstance` must hold on both sides when a generator of that package writes through our storages,
so its own classes are re-exported where they can be imported.
"""

from __future__ import annotations

import importlib
import uuid
from enum import Enum
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, Field

__all__ = [
    "Conversation",
    "ConversationEntry",
    "ConversationWithContext",
    "Document",
    "EvaluatedConversationWithContext",
    "EvaluationEntrySchema",
    "EvaluationSchema",
    "GradeSchema",
    "PersonaEntry",
    "Role",
]


class Role(str, Enum):
    """Who speaks."""

    USER = "user"
    ASSISTANT = "assistant"


class GradeSchema(str, Enum):
    """Overall grade of an evaluated conversation, best first."""

    PERFECT = "perfect"
    GOOD = "good"
    NEEDS_IMPROVEMENT = "needs_improvement"
    BAD = "bad"
    NOT_ACCEPTABLE = "not_acceptable"


class ConversationEntry(BaseModel):
    """One message of a conversation."""

    role: Role
    content: str
    reasoning_content: str | None = None


class Conversation(BaseModel):
    """Messages in the order they were said, and free metadata.

    >>> Conversation(conversations=[{"role": "user", "content": "Hi"}]).conversations[0].role.value
    'user'
    """

    conversations: list[ConversationEntry]
    metadata: dict[str, Any] = Field(default_factory=dict)


class ConversationWithContext(Conversation):
    """A conversation with the contexts and the persona it was generated from."""

    instruction_context: str | None = None
    response_context: str | None = None
    persona: str | None = None


class EvaluationEntrySchema(BaseModel):
    """One criterion of an evaluation."""

    feedback: str
    score: float


class EvaluationSchema(BaseModel):
    """A judge's evaluation of one conversation."""

    coherence: EvaluationEntrySchema
    factuality: EvaluationEntrySchema
    grounding: EvaluationEntrySchema
    helpfulness: EvaluationEntrySchema
    relevance: EvaluationEntrySchema
    overall_grade: GradeSchema


class EvaluatedConversationWithContext(ConversationWithContext):
    """A conversation with its evaluation, where there is one: what `load_conversations` gives."""

    evaluation: EvaluationSchema | None = None
    final_score: float | None = 0.0


class PersonaEntry(BaseModel):
    """Personas generated for a document."""

    descriptions: list[str]
    metadata: dict[str, Any] = Field(default_factory=dict)


class Document(BaseModel):
    """A source text; `id` is a new UUID4 unless given."""

    id: str = Field(default_factory=lambda: str(uuid.uuid4()))
    text: str | None = None
    personas: list[PersonaEntry] = Field(default_factory=list)
    metadata: dict[str, Any] = Field(default_factory=dict)


if not TYPE_CHECKING:
    try:
        _published = importlib.import_module("afterimage.types")
    except ImportError:  # the published package is not installed: ours it is
        pass
    else:
        globals().update({_name: getattr(_published, _name) for _name in __all__})
