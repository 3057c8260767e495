"""Both storages: saved records are returned, and a batch is stored completely or not at all."""

from __future__ import annotations

import datetime as dt
from contextlib import suppress
from typing import Any

import pytest

from afterimage.storage import (
    Conversation,
    ConversationWithContext,
    Document,
    EvaluatedConversationWithContext,
    InvalidRecordError,
    PersonaEntry,
    StorageError,
)
from tests.support.plain_python import same
from tests.support.records import (
    Line,
    Play,
    TracedConversation,
    TracedEntry,
    conversation,
    conversations,
    evaluation,
    firsts,
)


class TestWhatIsSavedComesBack:
    def test_an_empty_storage_has_nothing(self, storage: Any) -> None:
        assert storage.load_conversations() == []
        assert storage.load_documents() == []
        assert storage.count_conversations() == 0
        assert storage.count_documents() == 0
        assert list(storage.iter_conversations()) == []
        assert list(storage.iter_documents()) == []

    def test_every_field_of_a_conversation(self, storage: Any) -> None:
        # Every field has a different value, so that swapped columns are detected.
        record = conversation(
            "first words",
            {"domain": "Flights", "nested": {"list": [1, 1.0, True, None, "x"]}},
            instruction_context="the instruction",
            response_context="the response",
            persona="a pilot",
            evaluation=evaluation(0.25, "needs_improvement"),
            final_score=0.75,
        )
        storage.save_conversations([record])
        [loaded] = storage.load_conversations()
        assert type(loaded) is EvaluatedConversationWithContext
        assert same(loaded, record)

    def test_every_field_of_a_document(self, storage: Any) -> None:
        record = Document(
            id="d-1",
            text="once upon a time",
            personas=[
                PersonaEntry(descriptions=["a pilot", "a nurse"], metadata={"from": "model x"}),
                PersonaEntry(descriptions=[]),
            ],
            metadata={"n_slots": 5},
        )
        storage.save_documents([record])
        [loaded] = storage.load_documents()
        assert type(loaded) is Document
        assert same(loaded, record)

    def test_a_narrower_class_gets_the_defaults(self, storage: Any) -> None:
        messages = [{"role": "user", "content": "Hi"}]
        storage.save_conversations(
            [
                Conversation(conversations=messages),
                ConversationWithContext(conversations=messages, persona="a pilot"),
            ]
        )
        assert storage.load_conversations() == [
            EvaluatedConversationWithContext(conversations=messages),
            EvaluatedConversationWithContext(conversations=messages, persona="a pilot"),
        ]

    def test_a_score_of_none_is_not_the_default_score(self, storage: Any) -> None:
        storage.save_conversations([conversation(final_score=None), conversation()])
        assert [loaded.final_score for loaded in storage.load_conversations()] == [None, 0.0]

    def test_a_conversation_without_messages(self, storage: Any) -> None:
        storage.save_conversations([Conversation(conversations=[])])
        assert storage.load_conversations() == [EvaluatedConversationWithContext(conversations=[])]

    def test_insertion_order_is_kept_over_many_saves(self, storage: Any) -> None:
        for start in range(0, 30, 10):
            storage.save_conversations([conversation(str(n)) for n in range(start, start + 10)])
        assert firsts(storage.load_conversations()) == [str(n) for n in range(30)]

    def test_equal_records_are_stored_separately(self, storage: Any) -> None:
        storage.save_conversations([conversation(), conversation()])
        storage.save_documents([Document(id="same"), Document(id="same")])
        assert storage.count_conversations() == 2
        assert [loaded.id for loaded in storage.load_documents()] == ["same", "same"]

    def test_saving_nothing_stores_nothing(self, storage: Any) -> None:
        storage.save_conversations([])
        storage.save_documents([])
        assert storage.count_conversations() == storage.count_documents() == 0

    def test_a_batch_larger_than_any_internal_one(self, storage: Any) -> None:
        records = conversations(*({"n": n} for n in range(300)))
        storage.save_conversations(records)
        assert storage.load_conversations() == records
        assert list(storage.iter_conversations(batch_size=7)) == records

    def test_a_save_does_not_change_its_records(self, storage: Any) -> None:
        record = conversation(metadata={"when": dt.date(2024, 2, 29)})
        storage.save_conversations([record])
        assert record == conversation(metadata={"when": dt.date(2024, 2, 29)})


def nested(levels: int) -> Any:
    value: Any = 0
    for _ in range(levels):
        value = [value]
    return value


BAD_METADATA: dict[str, Any] = {
    "lone surrogate": {"k": "\ud800"},
    "lone surrogate in a key": {"\udfff": 1},
    "lone surrogate deep inside": {"k": [{"l": "x\ud800"}]},
    "bytes that are no UTF-8": {"k": b"\xff"},
    "an object of no JSON type": {"k": object()},
    "nested too deep": {"k": nested(1000)},
    "integer that no reader takes": {"k": [10**4300]},
}


class TestABatchIsStoredWholeOrNotAtAll:
    def test_one_bad_record(self, storage: Any, subtests: pytest.Subtests) -> None:
        before = [conversation("before")]
        storage.save_conversations(before)
        good = [conversation(str(n)) for n in range(5)]
        for name, bad in BAD_METADATA.items():
            with subtests.test(name):
                with pytest.raises(InvalidRecordError) as caught:
                    storage.save_conversations([*good, conversation(metadata=bad), *good])
                assert len(str(caught.value).splitlines()) < 10
                assert storage.load_conversations() == before
        storage.save_conversations(good)
        assert storage.load_conversations() == [*before, *good]

    def test_one_bad_document(self, storage: Any, subtests: pytest.Subtests) -> None:
        for name, bad in BAD_METADATA.items():
            with subtests.test(name), pytest.raises(InvalidRecordError):
                storage.save_documents([Document(), Document(metadata=bad), Document()])
        with pytest.raises(InvalidRecordError):
            storage.save_documents([Document(text="lone \ud800 surrogate")])
        assert storage.load_documents() == []

    def test_surrogate_in_a_message(self, storage: Any) -> None:
        with pytest.raises(InvalidRecordError):
            storage.save_conversations([conversation("good"), conversation("bad \udc00")])
        assert storage.load_conversations() == []

    def test_metadata_nested_as_deep_as_allowed(self, storage: Any) -> None:
        record = conversation(metadata={"k": nested(180)})
        storage.save_conversations([record])
        assert same(storage.load_conversations(), [record])

    def test_extra_fields_of_a_message_are_loaded_at_any_depth_or_rejected(
        self, storage: Any, subtests: pytest.Subtests
    ) -> None:
        saved = []
        for depth in range(185, 200):
            entry = TracedEntry(role="user", content="x", tokens=1, tool={"k": nested(depth)})
            with subtests.test(depth=depth):
                with suppress(InvalidRecordError):
                    storage.save_conversations([TracedConversation(conversations=[entry])])
                    saved.append(depth)
                found = storage.load_records(TracedConversation)
                assert len(found) == len(saved)
                assert storage.verify().ok
        assert 185 in saved
        assert 199 not in saved

    def test_integers_as_long_as_allowed(self, storage: Any) -> None:
        # pydantic before 2.14.4 counts the sign as a digit.
        record = conversation(metadata={"k": 10**4299, "n": -(10**4298)})
        storage.save_conversations([record])
        assert storage.load_conversations() == [record]

    def test_a_conversation_of_another_shape_is_rejected(self, storage: Any) -> None:
        # Its list looks like messages, but no load could validate it, so it is rejected.
        record = Play(conversations=[Line(role="narrator", content="Once")])
        with pytest.raises(InvalidRecordError) as caught:
            storage.save_conversations([conversation(), record])
        assert len(str(caught.value).splitlines()) < 10
        assert storage.load_conversations() == []

    def test_anything_but_a_model_is_rejected(self, storage: Any) -> None:
        rejected: list[Any] = [{"conversations": []}, "text", None, 3]
        for bad in rejected:
            with pytest.raises((StorageError, TypeError)):
                storage.save_conversations([conversation(), bad])
        assert storage.load_conversations() == []

    def test_a_message_of_thousands_of_bad_records_stays_short(self, storage: Any) -> None:
        with pytest.raises(InvalidRecordError) as caught:
            storage.save_conversations([conversation("bad \ud800 " + "long " * 1000)] * 2000)
        assert len(str(caught.value)) < 2000
