"""The protocol that the generators know a storage by."""

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
    """What the generators need of a storage."""

    @abstractmethod
    def save_conversations(
        self,
        conversations: list[EvaluatedConversationWithContext | ConversationWithContext | BaseModel],
    ) -> None:
        """Save all of them or, where one is refused, none; durable on return."""

    @abstractmethod
    async def asave_conversations(
        self,
        conversations: list[EvaluatedConversationWithContext | ConversationWithContext | BaseModel],
    ) -> None:
        """`save_conversations` in a worker thread."""

    @abstractmethod
    def load_conversations(
        self, limit: int | None = None, offset: int | None = None
    ) -> list[ConversationWithContext]:
        """Conversations in insertion order."""

    @abstractmethod
    def load_documents(self, limit: int | None = None, offset: int | None = None) -> list[Document]:
        """Documents in insertion order."""

    @abstractmethod
    def save_documents(self, documents: list[Document]) -> None:
        """Save all of them or, where one is refused, none; durable on return."""

    @abstractmethod
    async def asave_documents(self, documents: list[Document]) -> None:
        """`save_documents` in a worker thread."""
