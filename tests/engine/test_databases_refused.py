"""SQLStorage rejects databases that it cannot use with a short error, and does not change them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import duckdb
import pytest

from afterimage.storage import (
    DatabaseError,
    Document,
    InvalidQueryError,
    InvalidRecordError,
    MissingFileError,
    SchemaMismatchError,
    SQLStorage,
    StorageError,
    UnsupportedURLError,
)
from tests.support.messages import assert_short
from tests.support.records import conversation


def use(url: str | Path, **arguments: Any) -> None:
    """Open and use the storage: either the constructor or the first call may raise."""
    storage = SQLStorage(url, **arguments)
    storage.save_conversations([conversation()])
    storage.save_documents([Document()])


@pytest.mark.parametrize("name", ["n" * 248 + ".duckdb", "n" * 300])
def test_a_name_that_is_too_long(tmp_path: Path, name: str) -> None:
    with pytest.raises(StorageError, match="too long"):
        use(f"duckdb:///{tmp_path / name}")
    assert [*tmp_path.iterdir()] == []


@pytest.mark.skipif(duckdb.__version__.startswith("1."), reason="DuckDB 1 opens such a file")
def test_a_backslash_does_not_lead_to_another_file(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    for call in (use, lambda url: SQLStorage(url).load_conversations()):
        with pytest.raises(InvalidQueryError, match="backslash"):
            call(f"duckdb:///{tmp_path}/a\\b.duckdb")
    assert [*(tmp_path / "a").iterdir()] == []


class TestUrls:
    @pytest.mark.parametrize(
        "url",
        [
            "sqlite:///store.db",
            "postgresql://me:secret@127.0.0.1/db",
            "postgresql+asyncpg://127.0.0.1/db",
            "mysql://127.0.0.1/db",
            "nonsense",
            "",
            "://",
            "duckdb:/store.duckdb",
            "duckdb:store.duckdb",
            "store.jsonl",
            "store.duckdb?access_mode=read_only",
        ],
    )
    def test_others_are_rejected_and_the_error_names_the_supported_ones(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, url: str
    ) -> None:
        monkeypatch.chdir(tmp_path)
        with pytest.raises(UnsupportedURLError) as caught:
            SQLStorage(url)
        assert_short(caught.value, "duckdb:///")
        assert "secret" not in str(caught.value)
        assert isinstance(caught.value, ValueError)
        assert list(tmp_path.iterdir()) == []


class TestPaths:
    @pytest.mark.parametrize("name", ["talks.duckdb", "talks.ddb", "./a b.DB", "é.db"])
    def test_a_string_with_the_ending_of_a_database_is_a_path(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
    ) -> None:
        monkeypatch.chdir(tmp_path)
        use(name)
        assert (tmp_path / name).is_file()
        for again in (f"duckdb:///{name}", Path(name), str(tmp_path / name)):
            assert SQLStorage(again).count_conversations() == 1

    def test_a_string_that_names_an_existing_database_is_a_path(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir(tmp_path)
        use(Path("talks"))
        assert SQLStorage("talks").count_conversations() == 1

    def test_memory_needs_no_url(self) -> None:
        use(":memory:")

    @pytest.mark.parametrize("as_path", [str, Path])
    def test_a_file_that_is_no_database_is_refused(self, tmp_path: Path, as_path: Any) -> None:
        for name in ("notes.db", "talks.jsonl"):
            path = tmp_path / name
            path.write_text('{"conversations":[]}\n' * 1000)
            with pytest.raises(StorageError) as caught:
                use(as_path(path))
            assert_short(caught.value, name)


class TestFiles:
    def test_a_file_that_is_not_a_database(self, tmp_path: Path) -> None:
        path = tmp_path / "notes.txt"
        path.write_text("only notes, thousands of them\n" * 1000)
        with pytest.raises(StorageError) as caught:
            use(f"duckdb:///{path}")
        assert_short(caught.value, "notes.txt")
        assert path.read_text() == "only notes, thousands of them\n" * 1000

    def test_a_folder(self, tmp_path: Path) -> None:
        with pytest.raises(StorageError) as caught:
            use(f"duckdb:///{tmp_path}")
        assert_short(caught.value, tmp_path.name)

    def test_a_missing_folder(self, tmp_path: Path) -> None:
        with pytest.raises(MissingFileError) as caught:
            use(f"duckdb:///{tmp_path / 'missing' / 'store.duckdb'}")
        assert_short(caught.value, "missing")
        assert list(tmp_path.iterdir()) == []


class TestTablesOfOthers:
    @pytest.mark.parametrize("name", ["conversations", "documents"])
    @pytest.mark.parametrize(
        "table",
        [
            "TABLE {} (id INTEGER, title VARCHAR)",
            "TABLE {} (conversations VARCHAR, metadata VARCHAR)",
            "VIEW {} AS SELECT 1 AS one",
        ],
    )
    def test_they_are_rejected_and_unchanged(self, tmp_path: Path, name: str, table: str) -> None:
        path = tmp_path / "store.duckdb"
        with duckdb.connect(str(path)) as connection:
            connection.execute("CREATE " + table.format(name))
        with pytest.raises(SchemaMismatchError) as caught:
            use(f"duckdb:///{path}")
        assert_short(caught.value, name)
        with duckdb.connect(str(path)) as connection:
            created = connection.execute("SELECT sql FROM duckdb_tables() WHERE NOT internal")
            assert all(name in sql for (sql,) in created.fetchall())

    def test_other_tables_in_the_file_are_ignored(self, tmp_path: Path) -> None:
        path = tmp_path / "store.duckdb"
        with duckdb.connect(str(path)) as connection:
            connection.execute("CREATE TABLE mine (id INTEGER)")
        use(f"duckdb:///{path}")
        with duckdb.connect(str(path)) as connection:
            assert connection.execute("SELECT count(*) FROM mine").fetchall() == [(0,)]

    def test_a_view_of_the_user_is_not_replaced(self, tmp_path: Path) -> None:
        path = tmp_path / "store.duckdb"
        with duckdb.connect(str(path)) as connection:
            connection.execute("CREATE VIEW messages AS SELECT 'mine' AS whose")
        with pytest.raises(SchemaMismatchError, match="messages"):
            use(f"duckdb:///{path}")
        with duckdb.connect(str(path)) as connection:
            assert connection.execute("FROM messages").fetchall() == [("mine",)]


class TestWrites:
    def test_a_failed_save_of_many_small_batches_stores_nothing(self, tmp_path: Path) -> None:
        url = f"duckdb:///{tmp_path / 'store.duckdb'}"
        storage = SQLStorage(url, batch_size=2)
        good = [conversation(str(n)) for n in range(9)]
        with pytest.raises(InvalidRecordError):
            storage.save_conversations([*good, conversation("\ud800")])
        assert storage.count_conversations() == 0
        assert storage.scan_conversations(["id"]).read_all().num_rows == 0

    def test_a_table_that_was_dropped(self, tmp_path: Path) -> None:
        path = tmp_path / "store.duckdb"
        storage = SQLStorage(f"duckdb:///{path}")
        storage.save_conversations([conversation()])
        with duckdb.connect(str(path)) as connection:
            connection.execute("DROP VIEW messages; DROP TABLE conversations")
        with pytest.raises(DatabaseError) as caught:
            storage.load_conversations()
        assert_short(caught.value, "conversations")
