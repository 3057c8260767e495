"""Records that are written together get the same JSON lines as each record alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

from afterimage.storage import Conversation, ConversationEntry, InvalidRecordError, JSONLStorage
from afterimage.storage.records.fields import CONVERSATIONS
from afterimage.storage.records.objects import exact_lines, to_line
from tests.support.records import TracedConversation
from tests.support.strategies import conversations

# The separator between two records in the text of many, as a string and as an object in a record.
_BETWEEN = '},{"conversations":'
_TALK = [{"role": "user", "content": _BETWEEN}, {"role": "assistant", "content": "},{"}]


def _said(content: str, **metadata: object) -> Conversation:
    talk = [{"role": "user", "content": content}]
    return Conversation.model_validate({"conversations": talk, "metadata": metadata})


def _other_order() -> Conversation:
    record = _said("first its metadata")
    fields = record.__dict__
    fields["conversations"] = fields.pop("conversations")
    return record


@given(st.lists(conversations, min_size=1, max_size=6))
def test_lines_of_many_are_the_lines_of_each(records: list[BaseModel]) -> None:
    together = exact_lines(CONVERSATIONS, records)
    if together is not None:
        assert together == b"".join(to_line(CONVERSATIONS, record) + b"\n" for record in records)


@pytest.mark.parametrize(
    "tricky",
    [
        _said(_BETWEEN),
        _said('{"'),
        _said("},{", note='},{"conversations":[]'),
        _said("x", parts=[{"a": 1}, {"conversations": []}]),
        _said("x", **{'},{"conversations"': "},{"}),
        _said("x", inner={"deep": [{"conversations": _TALK}]}),
        _said("x", score=float("nan"), whole=10**400),
        _other_order(),
        Conversation(conversations=[], metadata={}),
        TracedConversation(conversations=[]),
    ],
    ids=lambda record: repr(record)[:60],
)
@pytest.mark.parametrize("place", [0, 1, 2])
def test_no_record_is_taken_for_two_or_two_for_one(
    tmp_path: Path, tricky: Conversation, place: int
) -> None:
    records: list[BaseModel] = [_said("one"), _said("two")]
    records.insert(place, tricky)
    store = JSONLStorage(tmp_path / "c.jsonl", tmp_path / "d.jsonl")
    store.save_conversations(records)
    written = store.conversations_path.read_bytes()
    assert written == b"".join(to_line(CONVERSATIONS, record) + b"\n" for record in records)


def test_many_plain_records_are_written_together() -> None:
    records = [_said(_BETWEEN, domain="Flights", n=3, intents=["a"]), _said("two")] * 300
    assert exact_lines(CONVERSATIONS, records) is not None


def test_an_invalid_role_among_many_is_rejected_and_nothing_is_written(tmp_path: Path) -> None:
    no_role: Any = "narrator"
    wrong = ConversationEntry.model_construct(role=no_role, content="x")
    records = [_said(str(at)) for at in range(600)]
    records[400] = Conversation.model_construct(conversations=[wrong], metadata={})
    store = JSONLStorage(tmp_path / "c.jsonl", tmp_path / "d.jsonl")
    with pytest.raises(InvalidRecordError, match="record 400 of the batch"):
        store.save_conversations(list(records))
    assert not store.conversations_path.exists()
