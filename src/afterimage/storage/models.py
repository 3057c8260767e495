"""The record classes: those of the published `afterimage` package if it is installed.

Generators of that package save records through the storages of this package. `isinstance` must
work on both sides, so its classes are re-exported here if they can be imported.
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
    """The author of a message."""

    USER = "user"
    ASSISTANT = "assistant"


class GradeSchema(str, Enum):
    """The overall grade of an evaluated conversation, from best to worst."""

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
    """Messages in chronological order, with free-form metadata.

    >>> Conversation(conversations=[{"role": "user", "content": "Hi"}]).conversations[0].role.value
    'user'
    """

    conversations: list[ConversationEntry]
    metadata: dict[str, Any] = Field(default_factory=dict)


class ConversationWithContext(Conversation):
    """A conversation with the contexts and the persona that it was generated from."""

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
    """A conversation with an optional evaluation. `load_conversations` returns this class."""

    evaluation: EvaluationSchema | None = None
    final_score: float | None = 0.0


class PersonaEntry(BaseModel):
    """Personas generated for a document."""

    descriptions: list[str]
    metadata: dict[str, Any] = Field(default_factory=dict)


class Document(BaseModel):
    """A source text. The default `id` is a new UUID4."""

    id: str = Field(default_factory=lambda: str(uuid.uuid4()))
    text: str | None = None
    personas: list[PersonaEntry] = Field(default_factory=list)
    metadata: dict[str, Any] = Field(default_factory=dict)


if not TYPE_CHECKING:
    try:
        _published = importlib.import_module("afterimage.types")
    except ImportError:  # the published package is not installed: use the classes above
        pass
    else:
        globals().update({_name: getattr(_published, _name) for _name in __all__})
