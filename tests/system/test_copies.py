"""Storages in other processes and as copies, and the numbers that they accept."""

from __future__ import annotations

import copy
import math
import multiprocessing
import pickle
from pathlib import Path
from typing import Any

import pytest

from afterimage.storage import InvalidQueryError, JSONLStorage, SQLStorage, StorageError
from tests.support.messages import assert_short
from tests.support.processes import KINDS, opened
from tests.support.records import conversation, firsts

COPIES = {
    "pickle": lambda store: pickle.loads(pickle.dumps(store)),
    "deepcopy": copy.deepcopy,
    "copy": copy.copy,
}


class Named(SQLStorage):
    """A subclass with a constructor of its own."""

    def __init__(self, folder: Path, name: str) -> None:
        super().__init__(f"duckdb:///{folder / name}.duckdb", "talks", "texts")
        self.name = name


class NamedLines(JSONLStorage):
    def __init__(self, folder: Path, name: str) -> None:
        super().__init__(folder / f"{name}.jsonl", folder / f"{name}-texts.jsonl")
        self.name = name


def save_in_another_process(store: Any) -> None:
    store.save_conversations([conversation("theirs")])


class TestCopies:
    @pytest.mark.parametrize("way", COPIES)
    @pytest.mark.parametrize("kind", KINDS)
    def test_a_copy_uses_the_same_files_with_the_same_options(
        self, tmp_path: Path, kind: str, way: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir(tmp_path)
        store = opened(kind, Path(), lock_timeout=7)  # relative paths
        store.save_conversations([conversation("a", {"n": 1})])
        if isinstance(store, SQLStorage):
            store.batch_size = 5
        (tmp_path / "elsewhere").mkdir()
        monkeypatch.chdir(tmp_path / "elsewhere")
        again: Any = COPIES[way](store)
        again.save_conversations([conversation("b")])
        assert firsts(store.load_conversations()) == ["a", "b"]
        assert (again.lock_timeout, repr(again)) == (7, repr(store))
        assert getattr(again, "batch_size", 5) == 5
        assert list(Path().iterdir()) == []

    @pytest.mark.parametrize("way", COPIES)
    @pytest.mark.parametrize("cls", [Named, NamedLines])
    def test_a_copy_of_a_subclass(self, tmp_path: Path, cls: Any, way: str) -> None:
        store = cls(tmp_path, "mine")
        again = COPIES[way](store)
        again.save_conversations([conversation("b")])
        assert (type(again), again.name) == (cls, "mine")
        assert firsts(store.load_conversations()) == ["b"]

    def test_columns_of_metadata_are_found_again(self, tmp_path: Path) -> None:
        store = SQLStorage(f"duckdb:///{tmp_path / 'a.duckdb'}", metadata_fields=["n"])
        again = pickle.loads(pickle.dumps(store))
        again.save_conversations([conversation("a", {"n": 1})])
        assert again.verify().ok
        assert store.count_conversations({"metadata.n": 1}) == 1

    @pytest.mark.parametrize("way", COPIES)
    @pytest.mark.parametrize("name", [":memory:", ":memory:shared"])
    def test_a_database_in_memory_refuses_with_the_reason(self, way: str, name: str) -> None:
        store = SQLStorage(f"duckdb:///{name}")
        with pytest.raises(StorageError, match="in the memory of this process") as caught:
            COPIES[way](store)
        assert_short(caught.value)

    def test_a_file_that_is_gone_is_not_created(self, tmp_path: Path) -> None:
        storage = opened("sql", tmp_path)
        storage.save_conversations([conversation("a")])
        data = pickle.dumps(storage)
        (tmp_path / "store.duckdb").unlink()
        with pytest.raises(StorageError):
            pickle.loads(data)
        assert not (tmp_path / "store.duckdb").exists()

    @pytest.mark.process
    @pytest.mark.parametrize("kind", KINDS)
    def test_a_spawned_process_gets_a_storage_as_argument(self, tmp_path: Path, kind: str) -> None:
        store = opened(kind, tmp_path)
        store.save_conversations([conversation("mine")])
        process = multiprocessing.get_context("spawn").Process(
            target=save_in_another_process, args=[store]
        )
        process.start()
        process.join(60)
        assert process.exitcode == 0
        assert firsts(store.load_conversations()) == ["mine", "theirs"]


_NO_SECONDS = [math.nan, -1, -0.5, -math.inf, None, "30", True, [1], 10**400, 1j]
_NO_BATCH = [0, -1, 1.5, None, "100", True, math.nan]


class TestNumbers:
    @pytest.mark.parametrize("kind", KINDS)
    @pytest.mark.parametrize("value", _NO_SECONDS, ids=lambda value: repr(value)[:10])
    def test_a_timeout_that_is_no_number_of_seconds_is_refused(
        self, tmp_path: Path, kind: str, value: Any
    ) -> None:
        with pytest.raises(InvalidQueryError, match="lock_timeout must be") as caught:
            opened(kind, tmp_path, lock_timeout=value)
        assert_short(caught.value)
        assert list(tmp_path.iterdir()) == []
        store = opened(kind, tmp_path, lock_timeout=3)
        with pytest.raises(InvalidQueryError, match="lock_timeout must be"):
            store.lock_timeout = value
        assert store.lock_timeout == 3

    @pytest.mark.parametrize("kind", KINDS)
    @pytest.mark.parametrize("value", [0, 0.5, 2, math.inf, 10**20])
    def test_others_are_accepted(self, tmp_path: Path, kind: str, value: float) -> None:
        store = opened(kind, tmp_path, lock_timeout=value)
        store.lock_timeout = value
        store.save_conversations([conversation("a")])
        assert firsts(store.load_conversations()) == ["a"]

    @pytest.mark.parametrize("value", _NO_BATCH, ids=repr)
    def test_a_batch_size_that_is_no_number_of_records_is_refused(
        self, tmp_path: Path, value: Any
    ) -> None:
        with pytest.raises(InvalidQueryError, match="batch_size must be"):
            opened("sql", tmp_path, batch_size=value)
        assert list(tmp_path.iterdir()) == []
        store = opened("sql", tmp_path)
        assert isinstance(store, SQLStorage)
        with pytest.raises(InvalidQueryError, match="batch_size must be"):
            store.batch_size = value
        assert store.batch_size == 100

    def test_a_batch_size_that_is_set_later_holds_for_the_next_call(self, tmp_path: Path) -> None:
        store = opened("sql", tmp_path)
        assert isinstance(store, SQLStorage)
        store.save_conversations([conversation("a")] * 10)
        store.batch_size = 4
        assert [len(batch) for batch in store.scan_conversations()] == [4, 4, 2]
        store.batch_size = 100
        assert [len(batch) for batch in store.scan_conversations()] == [10]
