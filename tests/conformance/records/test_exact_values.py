"""Both storages: metadata and text come back exactly, in value, type and order."""

from __future__ import annotations

import datetime as dt
import uuid
from enum import Enum
from pathlib import Path
from typing import Any

from afterimage.storage import (
    Document,
    PersonaEntry,
)
from tests.support.plain_python import same
from tests.support.records import conversation, conversations

EXACT: list[Any] = [
    None, {}, [], "", 0, False, 1, 1.0, True, -0.0, 0.1, 1e16, 5e-324, 2**53 + 1, 2**63,
    -(2**63) - 1, 123456789012345678901234567890, float("nan"), float("inf"),
    float("-inf"), [{}], [[]], {"": None}, {"a": {"b": []}}, {"b": 1, "a": 2},
    "\u2028 \u2029 \u0085 \x0b \x0c \x1c \r\n", "\x00", "a\x00b", "\ufeff", "😀", '"\\/',
    "e\u0301", "\\u0041", "\uffff\U0010ffff",
]  # fmt: skip
"""Values that careless conversion would change."""


class Colour(Enum):
    RED = "red"


class TestMetadataIsExact:
    def test_any_value_at_any_depth(self, storage: Any) -> None:
        records = [
            conversation(metadata={"value": value, "in": [value, {"deep": value}]})
            for value in EXACT
        ]
        storage.save_conversations(records)
        loaded = storage.load_conversations()
        assert [v for v, a, b in zip(EXACT, loaded, records, strict=True) if not same(a, b)] == []

    def test_any_value_in_documents(self, storage: Any) -> None:
        records = [
            Document(
                metadata={"value": value},
                personas=[PersonaEntry(descriptions=[], metadata={"value": [value]})],
            )
            for value in EXACT
        ]
        storage.save_documents(records)
        loaded = storage.load_documents()
        assert [v for v, a, b in zip(EXACT, loaded, records, strict=True) if not same(a, b)] == []

    def test_absent_null_and_empty_stay_apart(self, storage: Any) -> None:
        records = conversations({}, {"a": None}, {"a": {}}, {"a": []}, {"a": ""}, {"b": None})
        storage.save_conversations(records)
        assert same(storage.load_conversations(), records)

    def test_strings_in_every_text_field(self, storage: Any) -> None:
        text = 'line\nbreak \r\n \u2028 \u0085 \x00 \ufeff 😀 "\\'
        record = conversation(
            text,
            {text: text},
            persona=text,
            instruction_context=text,
            response_context=text,
        )
        document = Document(id=text, text=text, personas=[PersonaEntry(descriptions=[text])])
        storage.save_conversations([record, record])
        storage.save_documents([document, document])
        assert storage.load_conversations() == [record, record]
        assert storage.load_documents() == [document, document]

    def test_many_distinct_keys(self, storage: Any) -> None:
        records = conversations(*({f"key {n}": n, f"own {n % 7}": str(n)} for n in range(300)))
        storage.save_conversations(records)
        assert same(storage.load_conversations(), records)

    def test_values_json_has_no_word_for_are_as_pydantic_writes_them(self, storage: Any) -> None:
        identity = uuid.UUID(int=7)
        moment = dt.datetime(2024, 2, 29, 12, 30, tzinfo=dt.UTC)
        path = Path("a/b")
        metadata = {
            "moment": moment,
            "day": moment.date(),
            "identity": identity,
            "path": path,
            "bytes": b"abc",
            "colour": Colour.RED,
            "pair": (1, 2),
            "keys": {1: "one"},
        }
        storage.save_conversations([conversation(metadata=metadata)])
        storage.save_documents([Document(metadata=metadata)])
        written = {
            "moment": "2024-02-29T12:30:00Z",
            "day": "2024-02-29",
            "identity": str(identity),
            "path": "a/b",
            "bytes": "abc",
            "colour": "red",
            "pair": [1, 2],
            "keys": {"1": "one"},
        }
        [loaded] = storage.load_conversations()
        assert same(loaded.metadata, written)
        [document] = storage.load_documents()
        assert same(document.metadata, written)
