"""`verify(repair=True)` sets metadata columns again that SQL left behind."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from afterimage.storage import SQLStorage
from tests.support.records import conversations


def test_repair_makes_filters_right_again(tmp_path: Path) -> None:
    store = SQLStorage(tmp_path / "a.duckdb", metadata_fields=["domain", "n"])
    store.save_conversations(conversations({"domain": "a", "n": 1}, {"domain": "b", "n": 2}))
    with store.engine.begin() as connection:
        connection.exec_driver_sql("UPDATE conversations SET metadata = '{\"domain\":3}'")
    report = store.verify()
    assert not report.ok
    assert "repair" in str(report)
    assert store.verify(repair=True).ok
    assert store.verify().ok
    assert store.count_conversations({"metadata.domain": 3}) == 2
    assert store.count_conversations({"metadata.n": None}) == 2


def test_repair_of_a_sound_storage_changes_nothing(storage: Any) -> None:
    storage.save_conversations(conversations({"domain": "a"}))
    assert storage.verify(repair=True).ok
    assert len(storage.load_conversations()) == 1


def test_repair_of_a_missing_database_creates_no_file(tmp_path: Path) -> None:
    path = tmp_path / "a.duckdb"
    assert SQLStorage(path).verify(repair=True).ok
    assert not path.exists()
