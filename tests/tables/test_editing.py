"""Edits of a database: ids, times and declared columns stay right, and no id is used again."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from afterimage.storage import Conversation, Document, SQLStorage


def talks(count: int) -> list[Any]:
    return [Conversation(conversations=[], metadata={"n": n, "k": f"v{n}"}) for n in range(count)]


def rows(store: SQLStorage, columns: str = "id") -> list[Any]:
    with store.engine.connect() as connection:
        text = f"SELECT {columns} FROM conversations ORDER BY id"
        return [tuple(row) for row in connection.exec_driver_sql(text)]


class TestIds:
    @pytest.mark.parametrize("reopened", [False, True])
    def test_the_id_of_a_deleted_row_is_not_used_again(
        self, tmp_path: Path, reopened: bool
    ) -> None:
        store = SQLStorage(tmp_path / "s.duckdb")
        store.save_conversations(talks(3))
        assert store.delete_conversations({"id": 3}) == 1
        if reopened:
            store = SQLStorage(tmp_path / "s.duckdb")
        store.save_conversations(talks(1))
        assert rows(store) == [(1,), (2,), (4,)]
        assert store.delete_conversations([]) == 3
        store.save_conversations(talks(1))
        assert rows(store) == [(5,)]

    def test_nor_in_a_file_that_does_not_store_the_next_number(self, tmp_path: Path) -> None:
        store = SQLStorage(tmp_path / "s.duckdb")
        store.save_conversations(talks(3))
        with store.engine.begin() as connection:
            connection.exec_driver_sql("ALTER TABLE afterimage_schema DROP COLUMN next_number")
        store = SQLStorage(tmp_path / "s.duckdb")
        assert store.delete_conversations({"id": 3}) == 1
        store = SQLStorage(tmp_path / "s.duckdb")
        store.save_conversations(talks(1))
        assert rows(store) == [(1,), (2,), (4,)]

    def test_of_documents_neither(self, tmp_path: Path) -> None:
        store = SQLStorage(tmp_path / "s.duckdb")
        store.save_documents([Document(id="a"), Document(id="b")])
        assert store.delete_documents({"_id": 2}) == 1
        store.save_documents([Document(id="c")])
        assert store.scan_documents(["id"], filters={"_id": 3}).read_all().to_pylist() == [
            {"id": "c"}
        ]


class TestColumns:
    def test_declared_columns_follow_an_update(self, tmp_path: Path) -> None:
        keys = ["k", "late", *(f"key{n}" for n in range(60))]
        store = SQLStorage(tmp_path / "s.duckdb", metadata_fields=keys)
        store.save_conversations(talks(5))
        before = rows(store, "id, timestamp")
        assert store.update_conversations([("metadata.k", "!=", "v0")], {"late": 3, "k": None}) == 4
        assert store.count_conversations({"metadata.late": 3}) == 4
        assert store.count_conversations({"metadata.k": None}) == 4
        assert store.count_conversations({"metadata.k": "v0"}) == 1
        assert rows(store, "id, timestamp") == before
        assert store.verify().ok

    def test_rows_with_one_number_are_told_apart(self, tmp_path: Path) -> None:
        store = SQLStorage(tmp_path / "s.duckdb")
        store.save_conversations(talks(3))
        with store.engine.begin() as connection:
            connection.exec_driver_sql("UPDATE conversations SET id = 1")
        assert store.delete_conversations({"metadata.n": 1}) == 1
        assert store.update_conversations({"metadata.n": 2}, {"n": 7}) == 1
        assert sorted(str(row) for row in rows(store, "metadata->>'n'")) == ["('0',)", "('7',)"]


def test_the_space_of_deleted_rows_comes_back(tmp_path: Path) -> None:
    store = SQLStorage(tmp_path / "s.duckdb")
    words = [{"role": "user", "content": "".join(chr(97 + n * n % 26) for n in range(300))}]
    many: list[Any] = [
        Conversation(conversations=words, metadata={"n": n, "x": f"{n * 7919:x}" * 40})
        for n in range(6000)
    ]
    store.save_conversations(many)
    full = (tmp_path / "s.duckdb").stat().st_size
    store.delete_conversations([])
    store.save_conversations(many[:1])
    assert (tmp_path / "s.duckdb").stat().st_size < full
