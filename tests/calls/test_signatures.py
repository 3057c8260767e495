"""All public calls of one kind take the same arguments, in the same order."""

from __future__ import annotations

import inspect
from typing import Any

import pytest

from afterimage.storage.calls.conversations import ConversationCalls
from afterimage.storage.calls.documents import DocumentCalls
from afterimage.storage.calls.shared import Calls
from afterimage.storage.record_storage import RecordStorage

CALLS = [name for name in vars(ConversationCalls) if not name.startswith("_")]


def arguments(cls: type, name: str) -> list[tuple[str, Any]]:
    parameters = inspect.signature(getattr(cls, name)).parameters.values()
    return [(each.name, each.default) for each in parameters]


@pytest.mark.parametrize("name", [name for name in CALLS if "save" not in name])
def test_documents_are_read_like_conversations(name: str) -> None:
    other = name.replace("conversations", "documents")
    assert arguments(DocumentCalls, other) == arguments(ConversationCalls, name)


def test_no_two_classes_have_a_call_of_the_same_name() -> None:
    classes = [cls for cls in RecordStorage.__mro__ if issubclass(cls, Calls) and cls is not Calls]
    names = [name for cls in classes for name in vars(cls) if not name.startswith("__")]
    assert len(names) == len(set(names))
    assert not [name for name in vars(RecordStorage) if not name.startswith("_")]


def test_calls_raise_the_exceptions_of_signals_at_their_end() -> None:
    for name in CALLS:
        call = getattr(ConversationCalls, name)
        if "save" in name or name.startswith(("load", "count")):
            assert hasattr(call, "__wrapped__") or inspect.iscoroutinefunction(call), name
