"""`BaseStorage`: the protocol that the generators of the `afterimage` package use."""

from __future__ import annotations

from abc import abstractmethod
from typing import Protocol

from pydantic import BaseModel

from afterimage.storage.models import (
    ConversationWithContext,
    Document,
    EvaluatedConversationWithContext,
)

__all__ = ["BaseStorage"]


class BaseStorage(Protocol):
    """The methods of a storage that the generators call."""

    @abstractmethod
    def save_conversations(
        self,
        conversations: list[EvaluatedConversationWithContext | ConversationWithContext | BaseModel],
    ) -> None:
        """Save all conversations, or none if one is refused. They are durable on return."""

    @abstractmethod
    async def asave_conversations(
        self,
        conversations: list[EvaluatedConversationWithContext | ConversationWithContext | BaseModel],
    ) -> None:
        """Run `save_conversations` in a worker thread."""

    @abstractmethod
    def load_conversations(
        self, limit: int | None = None, offset: int | None = None
    ) -> list[ConversationWithContext]:
        """Return conversations in insertion order."""

    @abstractmethod
    def load_documents(self, limit: int | None = None, offset: int | None = None) -> list[Document]:
        """Return documents in insertion order."""

    @abstractmethod
    def save_documents(self, documents: list[Document]) -> None:
        """Save all documents, or none if one is refused. They are durable on return."""

    @abstractmethod
    async def asave_documents(self, documents: list[Document]) -> None:
        """Run `save_documents` in a worker thread."""
