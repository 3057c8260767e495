"""Chats: system and tool messages, tool calls, content parts and other keys, kept as they came."""

from __future__ import annotations

import io
import json
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel

from afterimage.storage import (
    ChatConversation,
    ChatEntry,
    ChatRole,
    Conversation,
    ConversationEntry,
    CorruptRecordError,
    EvaluatedConversationWithContext,
    InvalidRecordError,
    PreferencePair,
    Role,
)
from tests.support.plain_python import same
from tests.support.processes import KINDS, opened
from tests.support.strategies import chats, evaluated_conversations

PARTS = [
    {"type": "text", "text": "What is this?"},
    {"type": "image_url", "image_url": {"url": "data:image/png;base64,AA"}},
    {"text": "And this?"},
]
CALL = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": '{"b":1,"a":2}'}}

TALK: dict[str, Any] = {
    "conversations": [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": PARTS},
        {"role": "assistant", "content": None, "tool_calls": [CALL], "weight": 0},
        {"role": "tool", "content": "12 °C", "tool_call_id": "c1", "name": "f"},
        {
            "role": "assistant",
            "content": "Cold.",
            "reasoning_content": "12 is low",
            "refusal": None,
        },
    ],
    "tools": [{"type": "function", "function": {"name": "f", "parameters": {"z": {}, "a": {}}}}],
    "metadata": {"domain": "Weather"},
}


def lines_of(storage: Any) -> list[Any]:
    file = io.BytesIO()
    storage.export_jsonl(file)
    return [*map(json.loads, file.getvalue().splitlines())]


class TestRoundTrips:
    @pytest.mark.parametrize("kind", KINDS)
    @given(records=st.lists(chats | evaluated_conversations, max_size=3))
    def test_every_chat_is_read_back_equal(self, kind: str, records: list[Any]) -> None:
        with TemporaryDirectory() as one, TemporaryDirectory() as another:
            storage, other = opened(kind, Path(one)), opened(kind, Path(another))
            storage.save_conversations(records)
            loaded = storage.load_conversations()
            assert same(loaded, records)
            as_chats = storage.load_records(ChatConversation)
            assert len(as_chats) == len(records)
            assert {*map(type, as_chats)} <= {ChatConversation}
            assert storage.scan_conversations().read_all().num_rows == len(records)
            assert storage.verify().ok
            exported = io.BytesIO()
            storage.export_jsonl(exported)
            exported.seek(0)
            assert other.import_jsonl(exported) == len(records)
            assert same(other.load_conversations(), loaded)
            assert str(lines_of(other)) == str(lines_of(storage))

    def test_a_chat_that_the_usual_class_holds_comes_back_as_that(self, storage: Any) -> None:
        chat = ChatConversation(conversations=[{"role": "user", "content": "Hi"}])
        storage.save_conversations([chat])
        assert type(storage.load_conversations()[0]) is EvaluatedConversationWithContext
        assert storage.load_records(ChatConversation) == [chat]

    def test_a_line_stays_as_it_came(self, storage: Any) -> None:
        storage.import_jsonl(io.StringIO(json.dumps(TALK) + "\n"))
        [line] = lines_of(storage)
        for message, came in zip(line["conversations"], TALK["conversations"], strict=True):
            # The storages add the optional fields that the generators' messages have.
            assert {"reasoning_content": None, **came} == {"reasoning_content": None, **message}
        assert json.dumps(line["tools"]) == json.dumps(TALK["tools"])
        assert json.dumps(line["conversations"][2]["tool_calls"]) == json.dumps([CALL])

    def test_a_pair_of_preferences(self, storage: Any) -> None:
        pair = PreferencePair(
            prompt="Hi",
            chosen={"content": "Hello!", "score": 0.9},
            rejected=[{"role": "assistant", "content": None, "tool_calls": [CALL]}],
        )
        storage.save_conversations([pair])
        assert storage.load_records(PreferencePair) == [pair]
        assert pair.metadata == {"chosen_score": 0.9}
        assert storage.count_conversations() == 0


class TestClasses:
    @pytest.mark.parametrize(
        ("message", "is_chat"),
        [
            ({"role": "user", "content": "a"}, False),
            ({"role": "assistant", "content": "a", "reasoning_content": "b"}, False),
            ({"role": "assistant", "content": "a", "weight": 1}, False),
            ({"role": "assistant", "content": "a", "tool_calls": None}, False),
            ({"role": "assistant", "content": "a", "tool_calls": [CALL]}, True),
            ({"role": "user", "content": "a", "name": "Ada"}, True),
            ({"role": "user", "content": [{"type": "text", "text": "a"}]}, True),
            ({"role": "assistant", "content": None}, True),
            *(({"role": role, "content": "a"}, True) for role in ("system", "developer", "tool")),
        ],
    )
    def test_a_chat_is_what_the_usual_class_cannot_hold(
        self, storage: Any, message: Any, is_chat: bool
    ) -> None:
        talk = {"conversations": [message]}
        storage.import_jsonl(io.StringIO(json.dumps(talk) + "\n"))
        wanted = ChatConversation if is_chat else EvaluatedConversationWithContext
        filtered = {"filters": [("persona", "==", None)]}
        for options in ({}, filtered, {"order_by": [("persona", 1)], "limit": 3}):
            [loaded] = storage.load_conversations(**options)
            assert type(loaded) is wanted
        assert type(next(storage.iter_conversations())) is wanted

    def test_tools_of_a_conversation_without_calls(self, storage: Any) -> None:
        talk = {"conversations": [{"role": "user", "content": "a"}], "tools": TALK["tools"]}
        storage.import_jsonl(io.StringIO(json.dumps(talk) + "\n"))
        assert storage.load_conversations()[0].tools == TALK["tools"]

    def test_a_field_of_the_callers_own_that_is_called_tools(self, storage: Any) -> None:
        class WithHammer(Conversation):
            tools: str

        record = WithHammer(conversations=[], tools="hammer")
        storage.save_conversations([record])
        assert type(storage.load_conversations()[0]) is EvaluatedConversationWithContext
        assert storage.load_records(WithHammer) == [record]

    def test_they_extend_the_generators_classes(self) -> None:
        assert ChatRole.USER == Role.USER  # type: ignore[comparison-overlap]
        assert hash(ChatRole.USER) == hash(Role.USER)
        assert {Role.USER: 1}[ChatRole.USER] == 1  # type: ignore[index]
        assert isinstance(ChatEntry(role="tool"), ConversationEntry)
        assert issubclass(ChatConversation, EvaluatedConversationWithContext)


class TestWhatNoLoadWouldTake:
    @pytest.mark.parametrize(
        ("place", "value", "named"),
        [
            ("role", "critic", "role"),
            ("content", {"text": "a"}, "content"),
            ("content", ["a"], "content"),
            ("name", 5, "name"),
            ("tool_calls", {}, "tool_calls"),
            ("tool_call_id", 5, "tool_call_id"),
        ],
    )
    def test_is_refused_by_imports_and_loads(
        self, storage: Any, place: str, value: Any, named: str
    ) -> None:
        message = {"role": "tool", "content": "a", place: value}
        line = json.dumps({"conversations": [message]}) + "\n"
        with pytest.raises(CorruptRecordError, match=rf"conversations\.0\.{named}"):
            storage.import_jsonl(io.StringIO(line))
        assert storage.count_conversations() == 0

    def test_a_message_of_the_usual_class_with_another_role(self, storage: Any) -> None:
        talk = EvaluatedConversationWithContext(conversations=[{"role": "user", "content": "a"}])
        for name, value in [("role", ChatRole.SYSTEM), ("role", "tool"), ("content", None)]:
            talk.conversations[0].__dict__.update(role=Role.USER, content="a")
            talk.conversations[0].__dict__[name] = value
            with pytest.raises(InvalidRecordError, match="record 0 of the batch"):
                storage.save_conversations([talk])
        assert storage.count_conversations() == 0


class TestQueries:
    def test_text_of_parts_in_scans_and_statistics(self, storage: Any) -> None:
        storage.import_jsonl(io.StringIO(json.dumps(TALK) + "\n"))
        [messages] = storage.scan_conversations(["conversations"]).read_all()[0].to_pylist()
        assert [message["content"] for message in messages] == [
            "Be brief.",
            "What is this?\nAnd this?",
            None,
            "12 °C",
            "Cold.",
        ]
        stats = storage.stats()
        assert {role: each.max for role, each in stats.characters.items()} == {
            "system": 9,
            "user": 23,
            "assistant": 5,
            "tool": 5,
        }
        assert stats.empty_contents == 0

    @settings(max_examples=max(1, settings().max_examples // 3))
    @given(records=st.lists(chats | evaluated_conversations, max_size=4))
    def test_both_storages_agree(self, records: list[BaseModel]) -> None:
        columns = ["conversations", "extra", "metadata"]
        with TemporaryDirectory() as folder:
            found = []
            for kind in KINDS:
                storage: Any = opened(kind, Path(folder))
                storage.save_conversations(records)
                scanned = storage.scan_conversations(columns).read_all().to_pylist()
                found.append((str(storage.stats()), str(scanned)))
        assert found[0] == found[1]


def test_extra_keys_of_messages_are_kept_beside_roles_alone(storage: Any) -> None:
    talk = ChatConversation(
        conversations=[{"role": "system", "content": "Be brief.", "weight": None}]
    )
    storage.save_conversations([talk])
    [loaded] = storage.load_conversations()
    assert loaded == talk
    assert loaded.conversations[0].model_extra == {"weight": None}


def test_statistics_count_messages_without_content(storage: Any) -> None:
    storage.save_conversations(
        [
            ChatConversation(
                conversations=[
                    {"role": "user", "content": "Find it."},
                    {"role": "assistant", "content": None, "tool_calls": [{"id": "1"}]},
                ]
            )
        ]
    )
    assert storage.stats().messages == 2
