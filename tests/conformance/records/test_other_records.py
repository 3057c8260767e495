"""Both storages: subclasses, extra fields and other models are stored completely."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from afterimage.storage import (
    Conversation,
    Document,
    EvaluatedConversationWithContext,
    InvalidQueryError,
    SkippedRecordsWarning,
    UnknownFieldError,
)
from tests.support.plain_python import same
from tests.support.records import (
    Capital,
    Note,
    OpenConversation,
    RatedConversation,
    StructuredRow,
    TaggedDocument,
    TracedConversation,
    TracedEntry,
    conversation,
    evaluation,
    firsts,
)

MESSAGES = [{"role": "user", "content": "Hi"}]


def capital_row(n: int, **fields: Any) -> StructuredRow[Capital]:
    return StructuredRow[Capital](
        instruction=f"instruction {n}",
        output=Capital(country="Peru", inhabitants=2**63 + n),
        metadata={"n": n},
        **fields,
    )


def test_records_of_other_models_are_counted_by_any_field(storage: Any) -> None:
    notes = [Note(title=title, body=body) for title, body in (("a", 1), ("b", 2), ("b", None))]
    storage.save_conversations([*notes, conversation("no note")])
    assert storage.count_records() == 3
    assert storage.count_records({"title": "b"}) == 2
    assert storage.count_records([("body", ">", 1)]) == 1
    assert storage.count_records({"missing": "x"}) == 0
    with pytest.raises(InvalidQueryError):
        storage.count_records([("title", "like", "b")])


def test_imports_count_what_loads_will_give(storage: Any, tmp_path: Path) -> None:
    talk = json.dumps({"conversations": MESSAGES})
    path = tmp_path / "mixed.jsonl"
    path.write_text(f'{talk}\n{{"title": "a"}}\n{talk}\nbroken\n{{"conversations": 3}}\n')
    with pytest.warns(SkippedRecordsWarning):
        count = storage.import_jsonl([path, path], on_error="skip")
    assert (count, count.of_kind, count.others) == (8, 4, 4)
    assert count.of_kind == storage.count_conversations() == len(storage.load_conversations())
    assert count.others == storage.count_records()
    copy = pickle.loads(pickle.dumps(count))
    assert (copy, copy.others, f"{copy:,}") == (8, 4, "8")
    path.write_text('{"id": "a"}\n')
    documents = storage.import_jsonl(path, kind="documents")
    assert (documents, documents.of_kind, documents.others) == (1, 1, 0)


class TestSubclasses:
    def test_own_fields_are_loaded_as_the_subclass(self, storage: Any) -> None:
        records = [
            RatedConversation(
                conversations=MESSAGES,
                mood="calm",
                weights=[0.5, float("inf")],
                persona="a pilot",
                evaluation=evaluation(),
                metadata={"k": [1]},
            ),
            RatedConversation(conversations=[], mood="\u2028"),
        ]
        storage.save_conversations(records)
        assert same(storage.load_records(RatedConversation), records)

    def test_they_are_conversations_too(self, storage: Any) -> None:
        storage.save_conversations(
            [RatedConversation(conversations=MESSAGES, mood="calm", final_score=0.5)]
        )
        assert storage.load_conversations() == [
            EvaluatedConversationWithContext(conversations=MESSAGES, final_score=0.5)
        ]

    def test_only_records_with_the_fields_are_loaded(self, storage: Any) -> None:
        rated = RatedConversation(conversations=MESSAGES, mood="calm")
        storage.save_conversations([conversation(), rated, conversation()])
        assert storage.load_records(RatedConversation) == [rated]
        assert storage.count_conversations() == 3

    def test_own_fields_of_messages(self, storage: Any) -> None:
        record = TracedConversation(
            conversations=[
                TracedEntry(role="user", content="Hi", tokens=2**64, tool={"b": [1.0], "a": None}),
                TracedEntry(role="assistant", content="Hello", tokens=2),
            ]
        )
        storage.save_conversations([record])
        assert same(storage.load_records(TracedConversation), [record])
        assert firsts(storage.load_conversations()) == ["Hi"]

    def test_own_fields_of_messages_in_a_list_declared_without_them(self, storage: Any) -> None:
        # pydantic keeps such instances, but by default its dump omits their own fields.
        entries = [TracedEntry(role="user", content="Hi", tokens=3)]
        storage.save_conversations([Conversation(conversations=entries)])
        assert storage.load_records(TracedConversation) == [
            TracedConversation(conversations=entries)
        ]

    def test_extra_fields_of_a_model_that_allows_them(self, storage: Any) -> None:
        # Some have the names of table columns.
        record = OpenConversation(
            conversations=MESSAGES,
            mood="calm",
            id="mine",
            timestamp=[1],
            extra={"absent": ["metadata"], "fields": {}},
            nothing=None,
        )
        storage.save_conversations([record])
        assert same(storage.load_records(OpenConversation), [record])
        assert storage.load_conversations() == [
            EvaluatedConversationWithContext(conversations=MESSAGES)
        ]

    def test_own_fields_of_documents_survive_an_export(self, storage: Any, tmp_path: Path) -> None:
        record = TaggedDocument(id="d", tags=["x", "y"])
        storage.save_documents([record])
        assert storage.load_documents() == [Document(id="d")]
        storage.export_jsonl(tmp_path / "out.jsonl", kind="documents")
        [line] = (tmp_path / "out.jsonl").read_text("utf-8").splitlines()
        assert TaggedDocument.model_validate_json(line) == record

    def test_subclass_records_are_filtered_sorted_and_sliced(self, storage: Any) -> None:
        records = [
            RatedConversation(conversations=MESSAGES, mood=f"{n}", metadata={"n": n % 3})
            for n in range(9)
        ]
        storage.save_conversations([conversation(metadata={"n": 1}), *records])
        found = storage.load_records(
            RatedConversation,
            filters=[("metadata.n", ">", 0)],
            order_by=[("metadata.n", -1)],
            limit=3,
            offset=1,
        )
        assert [record.mood for record in found] == ["5", "8", "1"]


class TestOtherModels:
    def test_they_are_loaded_whole_as_their_model(self, storage: Any) -> None:
        rows = [capital_row(1, persona="a pilot"), capital_row(2, context="\u2028")]
        storage.save_conversations(rows)
        assert storage.load_records(StructuredRow[Capital]) == rows

    def test_they_are_invisible_to_conversations(self, storage: Any, tmp_path: Path) -> None:
        storage.save_conversations([capital_row(1), conversation("a"), capital_row(2)])
        assert firsts(storage.load_conversations()) == ["a"]
        assert firsts(list(storage.iter_conversations())) == ["a"]
        assert storage.count_conversations() == 1
        assert storage.count_conversations([("metadata.n", "!=", 7)]) == 1
        assert storage.scan_conversations().read_all().num_rows == 1
        assert storage.export_jsonl(tmp_path / "out.jsonl") == 1
        assert storage.export_parquet(tmp_path / "out.parquet") == 1

    def test_they_do_not_count_in_a_page(self, storage: Any) -> None:
        for n in range(6):
            storage.save_conversations([capital_row(n), conversation(f"{n}")])
        pages = [storage.load_conversations(limit=2, offset=start) for start in (0, 2, 4)]
        assert [firsts(page) for page in pages] == [["0", "1"], ["2", "3"], ["4", "5"]]

    def test_conversations_are_invisible_to_them(self, storage: Any) -> None:
        storage.save_conversations([conversation("a"), capital_row(1)])
        assert storage.load_records(StructuredRow[Capital]) == [capital_row(1)]

    def test_each_model_loads_its_own_records(self, storage: Any) -> None:
        note = Note(title="b", body={"k": [1, None]}, conversations=3)
        storage.save_conversations([capital_row(1), note, Note(title="c"), capital_row(2)])
        assert storage.load_records(Note) == [note, Note(title="c")]
        assert storage.load_records(StructuredRow[Capital]) == [capital_row(1), capital_row(2)]

    def test_only_records_that_validate_are_loaded(self, storage: Any) -> None:
        text = StructuredRow[str](instruction="i", output="just text")
        storage.save_conversations([capital_row(1), text])
        assert storage.load_records(StructuredRow[Capital]) == [capital_row(1)]

    def test_a_model_with_too_few_fields_loads_nothing(self, storage: Any) -> None:
        # The model would lose fields; a record is loaded completely or not at all.
        class Title(BaseModel):
            title: str

        storage.save_conversations([Note(title="b", body=1)])
        assert storage.load_records(Title) == []

    def test_insertion_order_and_slices(self, storage: Any) -> None:
        for n in range(7):
            storage.save_conversations([capital_row(n), conversation(), Note(title="-")])
        load = storage.load_records
        assert [row.metadata["n"] for row in load(StructuredRow[Capital])] == list(range(7))
        page = load(StructuredRow[Capital], limit=3, offset=2)
        assert [row.metadata["n"] for row in page] == [2, 3, 4]
        assert load(StructuredRow[Capital], limit=0) == []

    def test_filters_and_order_on_fields_of_the_model(self, storage: Any) -> None:
        storage.save_conversations([capital_row(n) for n in (2, 0, 1)] + [Note(title="-")])
        load = storage.load_records
        by_instruction = load(StructuredRow[Capital], order_by=[("instruction", "desc")])
        assert [row.metadata["n"] for row in by_instruction] == [2, 1, 0]
        by_metadata = load(StructuredRow[Capital], filters=[("metadata.n", ">=", 1)])
        assert [row.metadata["n"] for row in by_metadata] == [2, 1]

    def test_an_unknown_field_of_the_model(self, storage: Any) -> None:
        storage.save_conversations([capital_row(1)])
        with pytest.raises(UnknownFieldError, match="instruction"):
            storage.load_records(StructuredRow[Capital], filters={"instructions": "x"})

    def test_values_are_exact(self, storage: Any) -> None:
        note = Note(title="\x00 \u2028", body=[2**70, -0.0, float("nan"), {"": 1.0}, "\ufeff"])
        storage.save_conversations([note])
        assert same(storage.load_records(Note), [note])

    def test_an_empty_storage_has_none(self, storage: Any) -> None:
        assert storage.load_records(Note) == []

    def test_they_can_be_moved_between_storages(self, make_storage: Any, tmp_path: Path) -> None:
        source, target = make_storage(), make_storage()
        source.save_conversations([capital_row(1), conversation(), Note(title="b")])
        path = tmp_path / "records.jsonl"
        assert source.export_jsonl(path, kind="records") == 2
        titles = [json.loads(line).get("title") for line in path.read_bytes().split(b"\n")[:-1]]
        assert titles == [None, "b"]
        target.import_jsonl(path)
        assert target.load_records(StructuredRow[Capital]) == [capital_row(1)]
        assert target.load_records(Note) == [Note(title="b")]
        assert target.load_conversations() == []


class Row(BaseModel):
    """A model of a user's own that looks like a conversation."""

    conversations: list[dict[str, Any]]
    metadata: dict[str, Any] = {}
    n: int = 0


def test_a_model_that_looks_like_a_conversation_is_loaded(storage: Any) -> None:
    message = {"role": "user", "content": "Hi", "reasoning_content": None}
    rows = [Row(conversations=[message] * n, n=n) for n in range(3)]
    other = Row(conversations=[{"from": "me"}], n=9)
    storage.save_conversations([*rows[:2], other, rows[2]])
    assert storage.load_records(Row) == [*rows, other]
    assert storage.load_records(Row, filters=[("n", ">", 0)], limit=2, offset=1) == [rows[2], other]
    assert len(storage.load_conversations()) == 3
