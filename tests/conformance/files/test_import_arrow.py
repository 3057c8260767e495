"""Arrow streams and Parquet files come in as records, from this package and from others."""

from __future__ import annotations

import io
import tempfile
from pathlib import Path
from typing import Any

import pandas as pd  # type: ignore[import-untyped]
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from afterimage.storage import (
    ChatConversation,
    ConversationWithContext,
    CorruptRecordError,
    Document,
    InvalidQueryError,
    MissingFileError,
    SQLStorage,
    UnsupportedFileError,
)
from tests.conformance.records.test_round_trips import fresh_storage
from tests.support import strategies
from tests.support.plain_python import same
from tests.support.records import Note, StructuredRow

ALPACA = [
    {"instruction": "Add 1 and 1.", "input": "", "output": "2", "lang": "en"},
    {"instruction": "Name a bird.", "input": "", "output": "An owl.", "lang": None},
]


def check_own_records(name: str, records: list[Any], documents: list[Document]) -> None:
    """Check that what a storage writes as columns comes back equal, by a scan and by a file."""
    with tempfile.TemporaryDirectory() as path, fresh_storage(name) as store:
        folder = Path(path)
        store.save_conversations(records)
        store.save_documents(documents)
        with fresh_storage(name) as by_scan, fresh_storage(name) as by_file:
            by_scan.import_arrow(store.scan_conversations())
            by_scan.import_arrow(store.scan_documents(), kind="documents")
            store.export_parquet(folder / "c.parquet")
            store.export_parquet(folder / "d.parquet", kind="documents")
            by_file.import_parquet(folder / "c.parquet")
            by_file.import_parquet(folder / "d.parquet", kind="documents")
            # Columns do not have records of other models; lines do.
            lines = io.BytesIO()
            store.export_jsonl(lines, kind="records")
            by_file.import_jsonl(io.BytesIO(lines.getvalue()), kind="records")
            for other in (by_scan, by_file):
                assert same(other.load_conversations(), store.load_conversations())
                assert same(other.load_documents(), store.load_documents())
                chats = other.load_records(ChatConversation), store.load_records(ChatConversation)
                assert same(*chats)
            for model in (Note, StructuredRow[dict[str, Any]]):
                assert same(by_file.load_records(model), store.load_records(model))
            assert by_file.count_records() == store.count_records()


_records = st.lists(
    strategies.chats
    | strategies.evaluated_conversations
    | strategies.conversations
    | strategies.others,
    max_size=4,
)
_documents = st.lists(strategies.documents, max_size=3, unique_by=lambda each: each.id)


class TestOwnRecords:
    @given(records=_records, documents=_documents)
    @settings(max_examples=5)
    def test_scans_and_parquet_come_back_equal(
        self, records: list[Any], documents: list[Document]
    ) -> None:
        check_own_records("sql-memory", records, documents)

    @pytest.mark.slow
    @pytest.mark.parametrize("name", ["jsonl", "sql-file"])
    @given(records=_records, documents=_documents)
    def test_they_do_for_arbitrary_records(
        self, name: str, records: list[Any], documents: list[Document]
    ) -> None:
        check_own_records(name, records, documents)

    def test_some_columns_and_a_partitioned_folder(self, storage: Any, tmp_path: Path) -> None:
        talks = [
            ConversationWithContext(conversations=[], persona=name) for name in ("a", "b", None)
        ]
        storage.save_conversations(talks)
        other = SQLStorage("duckdb:///:memory:")
        assert other.import_arrow(storage.scan_conversations(["persona", "conversations"])) == 3
        storage.export_parquet(tmp_path / "parts", partition_by=["persona"])
        assert other.import_parquet(tmp_path / "parts") == 3
        found = [talk.persona for talk in other.load_conversations()]
        assert found[:3] == ["a", "b", None]
        assert sorted(found[3:], key=str) == [None, "a", "b"]


class TestOtherFormats:
    @pytest.mark.parametrize("make", [pa.Table.from_pylist, pd.DataFrame, pl.DataFrame])
    def test_a_data_frame(self, storage: Any, make: Any) -> None:
        count = storage.import_arrow(make(ALPACA), format="auto")
        assert (count, count.format) == (2, "alpaca")
        first, second = storage.load_conversations()
        assert [said.content for said in first.conversations] == ["Add 1 and 1.", "2"]
        assert first.metadata["lang"] == "en"
        assert second.metadata.get("lang") is None

    def test_a_null_in_a_struct_is_an_absent_key(self, storage: Any) -> None:
        call = {"id": "1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
        messages = [
            {"role": "user", "content": "Hi"},
            {"role": "assistant", "content": None, "tool_calls": [call]},
            {"role": "tool", "content": "3", "tool_call_id": "1"},
        ]
        storage.import_arrow(pa.Table.from_pylist([{"messages": messages}]), format="messages")
        [talk] = storage.load_records(ChatConversation)
        assert [said.tool_calls for said in talk.conversations] == [None, [call], None]
        assert "tool_calls" not in talk.conversations[0].model_fields_set

    def test_a_folder_of_parquet_files(self, storage: Any, tmp_path: Path) -> None:
        for lang, row in zip(("en", "de"), ALPACA, strict=True):
            folder = tmp_path / "set" / f"split={lang}"
            folder.mkdir(parents=True)
            pq.write_table(pa.Table.from_pylist([row]), folder / "part-0.parquet")
        assert storage.import_parquet(tmp_path / "set", format="auto") == 2
        found = {talk.metadata["split"] for talk in storage.load_conversations()}
        assert found == {"en", "de"}


class TestWhatIsRefused:
    def test_columns_of_another_format(self, storage: Any) -> None:
        with pytest.raises(UnsupportedFileError, match=r"no column conversations.*name it"):
            storage.import_arrow(pa.Table.from_pylist(ALPACA))

    def test_what_is_no_arrow_stream(self, storage: Any) -> None:
        with pytest.raises(InvalidQueryError, match="not list"):
            storage.import_arrow([1, 2])

    def test_files_that_are_missing_or_of_another_kind(self, storage: Any, tmp_path: Path) -> None:
        (tmp_path / "x.parquet").write_text("no")
        (tmp_path / "empty").mkdir()
        for name, error in [
            ("x.parquet", UnsupportedFileError),
            ("empty", MissingFileError),
            ("none.parquet", MissingFileError),
        ]:
            with pytest.raises(error):
                storage.import_parquet(tmp_path / name)

    def test_one_bad_row_refuses_all(self, storage: Any) -> None:
        rows = [*ALPACA, {"instruction": "x", "input": "", "output": None, "lang": None}]
        with pytest.raises(CorruptRecordError, match="output") as raised:
            storage.import_arrow(pa.Table.from_pylist(rows), format="alpaca")
        assert raised.value.line == 3
        assert storage.count_conversations() == 0
        with pytest.warns(UserWarning, match="skipped 1"):
            count = storage.import_arrow(
                pa.Table.from_pylist(rows), format="alpaca", on_error="skip"
            )
        assert count == 2
