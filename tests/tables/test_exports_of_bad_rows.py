"""Exports and scans write no row that a load rejects, for example one edited with SQL."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from afterimage.storage import (
    CorruptRecordError,
    PersonaEntry,
    SkippedRecordsWarning,
    SQLStorage,
)
from afterimage.storage.models import Document
from tests.support.records import conversation, evaluation

BAD = {
    "role": "conversations = [{'role': 'narrator', 'content': 'x', 'reasoning_content': NULL}]",
    "message": "conversations = [NULL]",
    "conversations": "conversations = NULL",
    "metadata": "metadata = '[]'",
    "no metadata": "metadata = NULL",
    "grade": "evaluation = struct_update(evaluation, overall_grade := 'x')",
    "criterion": "evaluation = struct_update(evaluation, coherence := NULL)",
}
EXPORTS: dict[str, Callable[[Any, Path], Any]] = {
    "jsonl": lambda store, path: store.export_jsonl(path),
    "messages": lambda store, path: store.export_jsonl(path, format="messages"),
    "sharegpt": lambda store, path: store.export_jsonl(path, format="sharegpt"),
    "sorted": lambda store, path: store.export_jsonl(path, order_by=[("final_score", 1)]),
    "parquet": lambda store, path: store.export_parquet(path),
}


@pytest.fixture
def store() -> SQLStorage:
    store = SQLStorage("duckdb:///:memory:")
    store.save_conversations([conversation(evaluation=evaluation()) for _ in range(3)])
    return store


@pytest.mark.parametrize("name", BAD)
def test_an_export_rejects_what_a_load_rejects(store: Any, tmp_path: Path, name: str) -> None:
    with store.engine.begin() as connection:
        connection.exec_driver_sql(f"UPDATE conversations SET {BAD[name]} WHERE id = 2")
    with pytest.raises(CorruptRecordError, match="2"):
        store.load_conversations()
    out = tmp_path / "out"
    for export in EXPORTS.values():
        with pytest.raises(CorruptRecordError, match="row 2"):
            export(store, out)
        assert not out.exists()
    with pytest.raises(CorruptRecordError, match="row 2"):
        store.scan_conversations().read_all()
    with pytest.warns(SkippedRecordsWarning):
        assert store.export_jsonl(out, on_error="skip") == 2


def test_rows_that_differ_from_saved_ones_and_load_are_exported(store: Any, tmp_path: Path) -> None:
    with store.engine.begin() as connection:
        connection.exec_driver_sql("UPDATE conversations SET metadata = ' {\"n\": 1}' WHERE id = 2")
    assert store.load_conversations()[1].metadata == {"n": 1}
    for export in EXPORTS.values():
        assert export(store, tmp_path / "out") == 3
    assert store.scan_conversations().read_all().num_rows == 3


@pytest.mark.parametrize("bad", ["id = NULL", "metadata = '[]'", "personas = NULL"])
def test_documents(tmp_path: Path, bad: str) -> None:
    store: Any = SQLStorage("duckdb:///:memory:")
    persona = PersonaEntry(descriptions=["x"])
    store.save_documents([Document(id=str(n), personas=[persona]) for n in range(3)])
    with store.engine.begin() as connection:
        connection.exec_driver_sql(f"UPDATE documents SET {bad} WHERE _id = 2")
    calls: list[Callable[[], Any]] = [
        store.load_documents,
        lambda: store.export_jsonl(tmp_path / "out", kind="documents"),
        lambda: store.export_parquet(tmp_path / "out", kind="documents"),
        lambda: store.scan_documents().read_all(),
    ]
    for call in calls:
        with pytest.raises(CorruptRecordError):
            call()
