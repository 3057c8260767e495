"""Records become record batches with the declared schema, and come back as they were."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from afterimage.storage import ConversationEntry, EvaluatedConversationWithContext
from afterimage.storage.arrow.batches import batch_of_models, rows_of_objects, to_batch
from afterimage.storage.arrow.models import models_of
from afterimage.storage.arrow.objects import to_objects
from afterimage.storage.arrow.schema import arrow_schema
from afterimage.storage.errors import InvalidRecordError
from afterimage.storage.records.fields import CONVERSATIONS
from tests.support.plain_python import same
from tests.support.strategies import chats, evaluated_conversations


@given(records=st.lists(chats | evaluated_conversations, max_size=4))
def test_models_come_back_equal(records: list[Any]) -> None:
    batch = batch_of_models(CONVERSATIONS, records, range(len(records)))
    assert batch.schema == arrow_schema(CONVERSATIONS.stored)
    assert same(models_of(CONVERSATIONS, batch), records)


def test_objects_keep_their_keys_and_the_parts_of_a_content() -> None:
    parts = [{"type": "text", "text": "a"}, {"type": "image", "url": "b"}]
    record = {
        "conversations": [
            {"role": "user", "content": parts, "reasoning_content": None},
            {"role": "tool", "content": None, "reasoning_content": None, "tool_call_id": "1"},
        ],
        "metadata": {"n": 1},
        "tools": [{"z": 1, "a": 2}],
    }
    batch = to_batch(CONVERSATIONS, rows_of_objects(CONVERSATIONS, [record]))
    [messages] = batch.column("conversations").to_pylist()
    assert [message["content"] for message in messages] == ["a", None]
    assert to_objects(CONVERSATIONS, batch) == [record]


def test_a_batch_of_the_generators_class_has_no_null_content() -> None:
    values: dict[str, Any] = {"role": "user", "content": None, "reasoning_content": None}
    entry = ConversationEntry.model_construct(**values)
    talk = EvaluatedConversationWithContext(conversations=[])
    talk.conversations.append(entry)
    with pytest.raises(InvalidRecordError, match="record 7 of the batch"):
        batch_of_models(CONVERSATIONS, [talk], [7])
