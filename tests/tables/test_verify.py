"""`verify` of a database: manual changes, and damage to the file."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from afterimage.storage import (
    CorruptRecordError,
    DatabaseError,
    Document,
    SkippedRecordsWarning,
    SQLStorage,
)
from tests.conformance.files.test_verify import problems
from tests.support.records import Note, RatedConversation, conversations, firsts

TOO_DEEP = '{"k": ' + "[" * 300 + "]" * 300 + "}"


@pytest.fixture
def store() -> SQLStorage:
    """Three conversations, a record of another model, two documents."""
    store = SQLStorage("duckdb:///:memory:", metadata_fields=["n", "domain"])
    store.save_conversations(conversations({"n": 0}, {"n": 1, "domain": "A"}, {"n": 2.0}))
    store.save_conversations([Note(title="x"), Note(title="y")])
    store.save_documents([Document(id="a"), Document(id="b")])
    return store


def change(store: SQLStorage, statement: str, *values: Any) -> None:
    with store.engine.begin() as connection:
        connection.exec_driver_sql(statement, values)


class TestRowsChangedByHand:
    @pytest.mark.parametrize(
        ("column", "value"),
        [
            ("metadata", "'3'"),
            ("metadata", "'[1]'"),
            ("metadata", "NULL"),
            ("metadata", f"'{TOO_DEEP}'"),
            ("metadata", "'{\"k\": 1,}'"),
            ("conversations", "NULL"),
            ("conversations", "[NULL]"),
            ("conversations", "[{'role': 'critic', 'content': '', 'reasoning_content': NULL}]"),
            ("conversations", "[{'role': NULL, 'content': '', 'reasoning_content': NULL}]"),
        ],
    )
    def test_a_conversation_that_no_longer_validates(
        self, store: SQLStorage, column: str, value: str
    ) -> None:
        change(store, f"UPDATE conversations SET {column} = {value} WHERE id = 2")
        reads: list[Callable[[], Any]] = [
            store.load_conversations,
            lambda: list(store.iter_conversations()),
        ]
        for read in reads:
            with pytest.raises(CorruptRecordError, match="'conversations', row 2") as caught:
                read()
            assert (caught.value.line, caught.value.offset) == (2, None)
        with pytest.warns(SkippedRecordsWarning, match="row 2"):
            assert firsts(store.load_conversations(on_error="skip")) == ["0", "2"]
        report = store.verify()
        assert report.corrupt.count == 1
        assert (report.corrupt.first[0].table, report.corrupt.first[0].line) == ("conversations", 2)
        assert report.conversations == 2

    @pytest.mark.parametrize("value", ["3", '{"children": {"x": {}}}', '{"fields": 3}', TOO_DEEP])
    def test_an_invalid_extra(self, store: SQLStorage, value: str) -> None:
        change(store, "UPDATE conversations SET extra = ? WHERE id = 2", value)
        assert len(store.load_conversations()) == 3  # which do not have it
        assert len(store.load_conversations(on_error="skip")) == 3
        with pytest.raises(CorruptRecordError, match="'conversations', row 2"):
            store.load_records(RatedConversation)
        with pytest.warns(SkippedRecordsWarning, match="row 2"):
            assert store.load_records(RatedConversation, on_error="skip") == []
        assert problems(store.verify()) == {"corrupt": 1}

    @pytest.mark.parametrize("value", ["3", "null", None, TOO_DEEP, "[]"])
    def test_an_invalid_record_of_another_model(
        self, store: SQLStorage, tmp_path: Path, value: str | None
    ) -> None:
        change(store, "UPDATE records SET record = ? WHERE id = 1", value)
        with pytest.raises(CorruptRecordError, match="'records', row 1"):
            store.load_records(Note)
        with pytest.raises(CorruptRecordError, match="'records', row 1"):
            store.export_jsonl(tmp_path / "out.jsonl", kind="records")
        assert not (tmp_path / "out.jsonl").exists()
        with pytest.warns(SkippedRecordsWarning, match="row 1"):
            assert store.load_records(Note, on_error="skip") == [Note(title="y")]
        path = tmp_path / "out.jsonl"
        with pytest.warns(SkippedRecordsWarning, match="row 1"):
            assert store.export_jsonl(path, kind="records", limit=1, on_error="skip") == 1
        report = store.verify()
        assert problems(report) == {"corrupt": 1}
        assert report.records == 1

    def test_metadata_that_differs_from_its_columns(self, store: SQLStorage) -> None:
        change(store, "UPDATE conversations SET domain = 'B' WHERE id = 2")
        change(store, "UPDATE conversations SET n_type = 'string' WHERE id = 3")
        report = store.verify()
        assert problems(report) == {"stale_columns": 2}
        assert sorted(place.line or 0 for place in report.stale_columns.first) == [2, 3]
        assert report.conversations == 3
        change(store, "UPDATE conversations SET metadata = '{}', domain = NULL WHERE id = 2")
        assert "'n'" in str(store.verify())

    def test_duplicate_sequence_numbers(self, store: SQLStorage) -> None:
        change(store, "UPDATE conversations SET id = 3")
        change(store, "UPDATE documents SET _id = 1")
        change(store, "UPDATE records SET id = 1")
        report = store.verify()
        assert problems(report) == {"duplicate_numbers": 3}
        places = {
            (place.table, place.line): place.reason for place in report.duplicate_numbers.first
        }
        assert places == {
            ("conversations", 3): "id 3, 3 times",
            ("documents", 1): "_id 1, 2 times",
            ("records", 1): "id 1, 2 times",
        }

    def test_other_table_names(self) -> None:
        store = SQLStorage("duckdb:///:memory:", "talks", "texts")
        store.save_conversations(conversations({"n": 1}))
        store.save_documents([Document(id="a"), Document(id="a")])
        report = store.verify()
        assert (report.conversations, report.documents) == (1, 2)
        assert report.duplicate_ids.first[0].table == "texts"


class TestDamagedFile:
    def test_data_that_the_engine_cannot_read_is_reported(self, tmp_path: Path) -> None:
        path = tmp_path / "store.duckdb"
        store = SQLStorage(f"duckdb:///{path}")
        store.save_documents([Document(id="a")])
        # Incompressible data fills blocks of the file, which have checksums.
        store.save_conversations(
            conversations(*({"text": f"{n * 2**4000 // 3:x}"} for n in range(1, 2001)))
        )
        data = bytearray(path.read_bytes())
        assert len(data) > 2**18
        for at in range(150_000, len(data), 65_536):  # one byte of most blocks
            data[at] ^= 0xFF
        path.write_bytes(data)
        report = store.verify()
        assert not report.ok
        assert report.corrupt.first[0].line is None
        assert report.corrupt.first[0].table == "conversations"
        assert len(str(report)) < 3000
        with pytest.raises(DatabaseError, match=r"damaged at byte \d+. Restore it from a backup"):
            store.load_conversations()
