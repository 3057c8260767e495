"""A database that does not exist is created by the first write, and by no read."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import duckdb
import pytest

from afterimage.storage import (
    DatabaseError,
    Document,
    JSONLStorage,
    MissingFileError,
    SchemaMismatchError,
    SQLStorage,
    StorageError,
)
from tests.support.factories import FACTORIES, Factory
from tests.support.records import Capital, conversations

READS: dict[str, Callable[[Any, Path], Any]] = {
    "load": lambda store, _: store.load_conversations(),
    "page": lambda store, _: store.load_documents(5, 2, {"metadata.n": 1}, [("id", "desc")]),
    "records": lambda store, _: list(store.load_records(Capital)),
    "iterate": lambda store, _: list(store.iter_conversations()),
    "scan": lambda store, _: store.scan_conversations(["metadata.n"]).read_all().to_pylist(),
    "count": lambda store, _: store.count_documents(),
    "count by a filter": lambda store, _: store.count_conversations({"metadata.n": 1}),
    "stats": lambda store, _: store.stats().conversations,
    "verify": lambda store, _: store.verify().conversations,
    "export": lambda store, out: store.export_jsonl(out / "out.jsonl"),
    "export Parquet": lambda store, out: store.export_parquet(out / "out.parquet"),
    "save nothing": lambda store, _: store.save_conversations([]),
}


@pytest.fixture(params=[each for each in FACTORIES if "memory" not in each.name][:4])
def factory(request: pytest.FixtureRequest) -> Factory:
    chosen: Factory = request.param
    return chosen


@pytest.mark.parametrize("read", READS)
def test_a_read_of_a_missing_store_finds_nothing_and_leaves_no_file(
    factory: Factory, tmp_path: Path, read: str
) -> None:
    folder, out = tmp_path / "store", tmp_path / "out"
    folder.mkdir()
    out.mkdir()
    store = factory.open(folder)
    assert not READS[read](store, out)
    assert list(folder.iterdir()) == []
    store.save_documents([Document(id="a")])
    assert [each.id for each in store.load_documents()] == ["a"]


def url(folder: Path, name: str = "store.duckdb") -> str:
    return f"duckdb:///{folder / name}"


class TestCreation:
    def test_the_first_save_creates_the_database(self, tmp_path: Path) -> None:
        store = SQLStorage(url(tmp_path), metadata_fields=["n"])
        assert store.load_conversations(filters={"metadata.n": 1}) == []
        store.save_conversations(conversations({"n": 1}))
        with duckdb.connect(str(tmp_path / "store.duckdb")) as connection:
            assert connection.execute("SELECT n FROM conversations").fetchall() == [("1",)]

    def test_a_connection_of_the_engine_creates_the_database(self, tmp_path: Path) -> None:
        store = SQLStorage(url(tmp_path))
        with store.engine.connect() as connection:
            assert connection.exec_driver_sql("FROM messages").all() == []
        assert (tmp_path / "store.duckdb").exists()

    def test_an_import_creates_the_database(self, tmp_path: Path) -> None:
        JSONLStorage(tmp_path / "a.jsonl").save_conversations(conversations({"n": 1}))
        store = SQLStorage(url(tmp_path))
        assert store.import_jsonl(tmp_path / "a.jsonl") == 1
        assert SQLStorage(url(tmp_path)).count_conversations() == 1

    def test_a_database_that_another_storage_created_is_used(self, tmp_path: Path) -> None:
        first, second = SQLStorage(url(tmp_path)), SQLStorage(url(tmp_path), metadata_fields=["n"])
        first.save_conversations(conversations({"n": 1}))
        assert second.count_conversations({"metadata.n": 1}) == 1
        second.save_conversations(conversations({"n": 1}))
        assert first.count_conversations({"metadata.n": 1}) == 2
        assert first.verify().ok

    def test_a_database_of_others_at_that_path_is_refused(self, tmp_path: Path) -> None:
        store = SQLStorage(url(tmp_path))
        with duckdb.connect(str(tmp_path / "store.duckdb")) as connection:
            connection.execute("CREATE TABLE conversations (mine INTEGER)")
        for call in (store.load_conversations, lambda: store.save_documents([Document()])):
            with pytest.raises(SchemaMismatchError, match="conversations"):
                call()

    def test_threads_that_save_first_lose_nothing(self, tmp_path: Path) -> None:
        store = SQLStorage(url(tmp_path))
        threads = [
            threading.Thread(target=store.save_conversations, args=[conversations({"n": n})])
            for n in range(8)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        found = store.scan_conversations(["id", "metadata.n"]).read_all().to_pydict()
        assert found["id"] == list(range(1, 9))
        assert sorted(map(int, found["metadata.n"])) == list(range(8))
        assert [each.suffix for each in sorted(tmp_path.iterdir())] == [".duckdb", ".lock"]

    def test_a_link_to_no_file_creates_the_file(self, tmp_path: Path) -> None:
        (tmp_path / "link.duckdb").symlink_to("real.duckdb")
        SQLStorage(url(tmp_path, "link.duckdb")).save_documents([Document(id="a")])
        assert (tmp_path / "link.duckdb").is_symlink()
        assert SQLStorage(url(tmp_path, "real.duckdb")).count_documents() == 1

    def test_a_path_is_taken_as_it_is(self, tmp_path: Path) -> None:
        SQLStorage(tmp_path / "a?b#%20.duckdb").save_documents([Document(id="a")])
        assert (tmp_path / "a?b#%20.duckdb").exists()


class TestRefused:
    def test_a_missing_database_that_may_not_be_created(self, tmp_path: Path) -> None:
        with pytest.raises(MissingFileError, match=r"store\.duckdb does not exist"):
            SQLStorage(url(tmp_path), create=False)

    def test_metadata_fields_that_cannot_get_columns(self, tmp_path: Path) -> None:
        with pytest.raises(SchemaMismatchError):
            SQLStorage(url(tmp_path), metadata_fields=["ab", "AB", "Ab"])

    @pytest.mark.parametrize("empty", [False, True])
    def test_the_log_of_a_database_that_was_removed(self, tmp_path: Path, empty: bool) -> None:
        (tmp_path / "store.duckdb.wal").write_bytes(b"a log")
        if empty:
            (tmp_path / "store.duckdb").touch()
        with pytest.raises(DatabaseError, match=r"store\.duckdb\.wal is left of") as caught:
            SQLStorage(url(tmp_path))
        assert len(str(caught.value)) < 400
        assert (tmp_path / "store.duckdb").exists() == empty
        (tmp_path / "store.duckdb.wal").unlink()
        SQLStorage(url(tmp_path)).save_documents([Document()])

    def test_a_log_that_appeared_before_the_first_save(self, tmp_path: Path) -> None:
        store = SQLStorage(url(tmp_path))
        (tmp_path / "store.duckdb.wal").write_bytes(b"a log")
        with pytest.raises(DatabaseError, match=r"store\.duckdb\.wal is left of"):
            store.save_documents([Document()])
        assert not (tmp_path / "store.duckdb").exists()

    @pytest.mark.parametrize("name", ["a\0b.duckdb", "\udcff.duckdb", "x" * 300])
    def test_paths_that_no_database_can_have(self, tmp_path: Path, name: str) -> None:
        for target in (url(tmp_path, name), tmp_path / name):
            with pytest.raises(StorageError) as caught:
                SQLStorage(target).save_documents([Document()])
            assert len(str(caught.value)) < 800
        assert list(tmp_path.iterdir()) == []
