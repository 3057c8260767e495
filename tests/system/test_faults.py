"""Regression tests: full disks, forks, garbage of the program; each was a bug once."""

from __future__ import annotations

import gc
import multiprocessing
import os
import subprocess
import sys
import textwrap
import weakref
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel, Field, RootModel

from afterimage.storage import (
    Conversation,
    InvalidQueryError,
    InvalidRecordError,
    JSONLStorage,
    MissingFileError,
    SQLStorage,
)


def records(count: int, **metadata: Any) -> list[Any]:
    return [Conversation(conversations=[], metadata={"n": n, **metadata}) for n in range(count)]


@pytest.mark.skipif(os.name != "posix", reason="file size limits are POSIX")
class TestFullDisk:
    @pytest.mark.parametrize("size", [10, 300, 5000])
    def test_a_save_that_fails_is_rolled_back(self, tmp_path: Path, size: int) -> None:
        path = tmp_path / "talks.jsonl"
        script = f"""
            import resource, signal
            from afterimage.storage import Conversation, JSONLStorage, StorageError
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            store = JSONLStorage({str(path)!r}, {str(tmp_path / "texts.jsonl")!r})
            record = Conversation(conversations=[], metadata={{"text": "y" * {size}}})
            store.save_conversations([record])
            room = store.conversations_path.stat().st_size * 5 // 2
            resource.setrlimit(resource.RLIMIT_FSIZE, (room, resource.RLIM_INFINITY))
            try:
                store.save_conversations([record] * 12)
            except StorageError as error:
                print(type(error).__name__)
        """
        done = subprocess.run(
            [sys.executable, "-c", textwrap.dedent(script)],
            env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
            capture_output=True,
            text=True,
            check=False,
        )
        assert (done.stdout, done.stderr) == ("StorageError\n", "")
        store = JSONLStorage(path, tmp_path / "texts.jsonl")
        assert store.count_conversations() == 1
        store.save_conversations(records(1))
        assert len(store.load_conversations()) == 2


class TestGarbageOfTheProgram:
    @pytest.mark.parametrize("url", ["duckdb:///:memory:", None])
    def test_is_collected_during_small_loads_and_saves(
        self, tmp_path: Path, url: str | None
    ) -> None:
        store = SQLStorage(url) if url else JSONLStorage(tmp_path / "a.jsonl", tmp_path / "b.jsonl")
        store.save_conversations(records(3))
        alive: weakref.WeakSet[Any] = weakref.WeakSet()
        for turn in range(200):
            for _ in range(20):
                knot = type("Knot", (), {})()
                knot.itself = knot
                alive.add(knot)
            store.load_conversations(limit=1)
            if turn % 10 == 0:
                store.save_conversations(records(1))
        assert len(alive) < 2000  # of 4000; without a collector, all 4000

    def test_the_collector_is_enabled_again_after_a_rejected_batch(self, tmp_path: Path) -> None:
        store = JSONLStorage(tmp_path / "a.jsonl", tmp_path / "b.jsonl")
        with pytest.raises(InvalidRecordError):
            store.save_conversations(
                [*records(1), Conversation(conversations=[], metadata={"x": "\ud800"})]
            )
        assert gc.isenabled()


def _count(store: JSONLStorage | SQLStorage) -> None:
    assert store.count_conversations({"metadata.n": 1}) == 1
    store.save_conversations(records(1))


@pytest.mark.process
@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
class TestFork:
    @pytest.mark.parametrize("kind", ["jsonl", "sql"])
    def test_a_child_reads_and_writes_the_files_of_its_parent(
        self, tmp_path: Path, kind: str
    ) -> None:
        store: JSONLStorage | SQLStorage = (
            JSONLStorage(tmp_path / "a.jsonl", tmp_path / "b.jsonl")
            if kind == "jsonl"
            else SQLStorage(f"duckdb:///{tmp_path / 'a.duckdb'}")
        )
        store.save_conversations(records(2))
        _count(store)
        child = multiprocessing.get_context("fork").Process(target=_count, args=[store])
        child.start()
        child.join(60)
        assert child.exitcode == 0
        assert store.count_conversations() == 4


class TestOwnFiles:
    def test_no_export_replaces_the_store(self, tmp_path: Path) -> None:
        lines = JSONLStorage(tmp_path / "a.jsonl", tmp_path / "b.jsonl")
        database = SQLStorage(f"duckdb:///{tmp_path / 'a.duckdb'}")
        for store, own in ((lines, "a.jsonl"), (lines, "b.jsonl"), (database, "a.duckdb")):
            store.save_conversations(records(2))
            for export in (store.export_jsonl, store.export_parquet):
                with pytest.raises(InvalidQueryError, match="own file"):
                    export(tmp_path / own, filters={"metadata.n": 0})
        assert lines.count_conversations() == 4
        assert database.count_conversations() == 2

    def test_no_import_appends_a_file_to_itself(self, tmp_path: Path) -> None:
        store = JSONLStorage(tmp_path / "a.jsonl", tmp_path / "b.jsonl")
        with pytest.raises(MissingFileError):
            store.import_jsonl(tmp_path / "a.jsonl")
        store.save_conversations(records(2))
        (tmp_path / "link.jsonl").symlink_to(tmp_path / "a.jsonl")
        for name in ("a.jsonl", "link.jsonl"):
            with pytest.raises(InvalidQueryError, match="own file"):
                store.import_jsonl(tmp_path / name)
        assert store.count_conversations() == 2

    def test_conversations_and_documents_need_two_files(self, tmp_path: Path) -> None:
        with pytest.raises(InvalidQueryError, match="two paths"):
            JSONLStorage(tmp_path / "a.jsonl", tmp_path / "a.jsonl")

    def test_a_deleted_database_is_not_created_again(self, tmp_path: Path) -> None:
        store = SQLStorage(f"duckdb:///{tmp_path / 'a.duckdb'}")
        store.save_conversations([Conversation(conversations=[])])
        (tmp_path / "a.duckdb").unlink()
        with pytest.raises(MissingFileError, match="is gone"):
            store.count_conversations()
        assert not (tmp_path / "a.duckdb").exists()


class Numbers(RootModel[dict[str, int]]):
    """A model whose JSON has arbitrary keys."""


class Partly(BaseModel):
    seen: int
    unseen: int = Field(exclude=True)


class TestRecordsThatWouldNotComeBack:
    @pytest.mark.parametrize("record", [Numbers({"a": 1}), Partly(seen=1, unseen=2)])
    def test_are_rejected(self, storage: Any, record: BaseModel) -> None:
        with pytest.raises(InvalidRecordError, match="read back"):
            storage.save_conversations([*records(1), record])
        assert storage.count_conversations() == 0


class Named(Conversation):
    domain: str
    extra: int = 0
    id: str = "q"
    timestamp: str = "t"


class TestFieldsNamedLikeColumns:
    @pytest.mark.parametrize("field", ["domain", "extra", "id", "timestamp"])
    def test_belong_to_the_record(self, tmp_path: Path, field: str) -> None:
        lines = JSONLStorage(tmp_path / "a.jsonl", tmp_path / "b.jsonl")
        database = SQLStorage("duckdb:///:memory:", metadata_fields=["domain"])
        values = {"domain": "M", "extra": 3, "id": "i", "timestamp": "z"}
        for store in (lines, database):
            store.save_conversations(
                [
                    Named(conversations=[], metadata={"domain": "other"}, domain="F"),
                    Named(conversations=[], **values),
                ]
            )
            found = store.load_records(Named, filters={field: values[field]})
            assert [record.domain for record in found] == ["M"]
            ordered = store.load_records(Named, order_by=[(field, 1)])
            assert len(ordered) == 2
