"""A file that is replaced while this process has it open: no save goes where nobody finds it."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import duckdb
import pytest

from afterimage.storage import (
    Document,
    JSONLStorage,
    ReplacedFileError,
    SQLStorage,
    StorageError,
)
from tests.support.messages import assert_short
from tests.support.records import conversation, firsts

ROWS = 1500


def sql(path: Path) -> SQLStorage:
    return SQLStorage(f"duckdb:///{path}")


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database of several ranges, so that an iterator at its first record keeps it open."""
    path = tmp_path_factory.mktemp("large") / "large.duckdb"
    sql(path).save_conversations(
        [conversation(f"{at} {os.urandom(6000).hex()}") for at in range(ROWS)]
    )
    return path


@pytest.fixture
def store(tmp_path: Path, large: Path) -> SQLStorage:
    shutil.copy(large, tmp_path / "a.duckdb")
    return sql(tmp_path / "a.duckdb")


@pytest.fixture
def other(tmp_path: Path) -> Path:
    """Another database, which is to take the place of the store's."""
    path = tmp_path / "backup.duckdb"
    sql(path).save_conversations([conversation("backup")])
    return path


@contextmanager
def _iterating(store: SQLStorage, _path: Path) -> Iterator[None]:
    found = store.iter_conversations()
    next(iter(found))
    yield
    del found


@contextmanager
def _scanning(store: SQLStorage, _path: Path) -> Iterator[None]:
    reader = store.scan_conversations()
    reader.read_next_batch()
    yield
    del reader


@contextmanager
def _connected(store: SQLStorage, _path: Path) -> Iterator[None]:
    with store.engine.connect() as connection:
        connection.exec_driver_sql("SELECT count(*) FROM conversations").all()
        yield


@contextmanager
def _connected_otherwise(_store: SQLStorage, path: Path) -> Iterator[None]:
    with duckdb.connect(str(path)) as connection:
        connection.execute("SELECT count(*) FROM conversations").fetchall()
        yield


LIVE = {
    "an iterator": _iterating,
    "a scan": _scanning,
    "a connection": _connected,
    "a notebook's own connection": _connected_otherwise,
}


def _moved_over(path: Path, other: Path) -> None:
    other.replace(path)


def _moved_away_first(path: Path, other: Path) -> None:
    path.rename(path.with_name("former.duckdb"))
    other.rename(path)


def _deleted_and_copied(path: Path, other: Path) -> None:
    path.unlink()
    shutil.copy(other, path)


REPLACED = [_moved_over, _moved_away_first, _deleted_and_copied]


@pytest.fixture(params=LIVE.values(), ids=list(LIVE))
def live(request: pytest.FixtureRequest) -> Any:
    return request.param


@pytest.fixture(params=REPLACED, ids=lambda replace: replace.__name__.strip("_"))
def replace(request: pytest.FixtureRequest) -> Any:
    return request.param


class TestDatabases:
    def test_are_refused_until_all_is_closed(
        self,
        tmp_path: Path,
        store: SQLStorage,
        other: Path,
        live: Callable[..., Any],
        replace: Callable[[Path, Path], None],
    ) -> None:
        path = tmp_path / "a.duckdb"
        with live(store, path):
            replace(path, other)
            for call in (
                lambda: store.save_conversations([conversation("lost?")]),
                lambda: store.save_documents([Document(text="lost?")]),
                store.load_conversations,
                store.count_conversations,
                lambda: list(store.iter_conversations()),
                lambda: store.scan_conversations().read_all(),
                store.verify,
                store.engine.connect,
                lambda: sql(path),
            ):
                with pytest.raises(ReplacedFileError) as caught:
                    call()
                assert_short(caught.value, str(path), "replaced", "Close")
        store.save_conversations([conversation("kept")])
        assert firsts(store.load_conversations()) == ["backup", "kept"]
        assert firsts(sql(path).load_conversations()) == ["backup", "kept"]
        assert store.verify().ok

    def test_go_on_being_read_by_what_was_open(
        self, tmp_path: Path, store: SQLStorage, other: Path
    ) -> None:
        found = iter(store.iter_conversations())
        next(found)
        other.replace(tmp_path / "a.duckdb")
        with pytest.raises(ReplacedFileError, match="replaced"):
            store.save_conversations([conversation("lost?")])
        assert len(list(found)) == ROWS - 1

    def test_that_are_gone_are_said_to_be(self, tmp_path: Path, store: SQLStorage) -> None:
        with _connected(store, tmp_path):
            (tmp_path / "a.duckdb").unlink()
            with pytest.raises(StorageError, match="gone"):
                store.save_conversations([conversation("lost?")])

    def test_behind_a_link_that_now_leads_elsewhere(
        self, tmp_path: Path, store: SQLStorage, other: Path
    ) -> None:
        path = tmp_path / "a.duckdb"
        with _connected(store, path):
            path.unlink()
            path.symlink_to(other)
            store.save_conversations([conversation("kept")])
            assert firsts(store.load_conversations()) == ["backup", "kept"]
        assert firsts(sql(other).load_conversations()) == ["backup", "kept"]

    def test_that_are_replaced_during_a_save_keep_nothing_of_it(
        self, tmp_path: Path, store: SQLStorage, other: Path
    ) -> None:
        path = tmp_path / "a.duckdb"

        def replace_once(_rows: int) -> None:
            if other.exists():
                other.replace(path)

        store.export_jsonl(tmp_path / "all.jsonl")
        with pytest.raises(ReplacedFileError, match="replaced"):
            store.import_jsonl(tmp_path / "all.jsonl", progress=replace_once)
        assert firsts(store.load_conversations()) == ["backup"]
        store.save_conversations([conversation("kept")])
        assert firsts(sql(path).load_conversations()) == ["backup", "kept"]

    def test_are_not_refused_when_only_written(self, tmp_path: Path, store: SQLStorage) -> None:
        with _connected(store, tmp_path):
            store.save_conversations([conversation("kept")])
            assert store.count_conversations() == ROWS + 1

    @pytest.mark.skipif(os.getuid() == 0, reason="root may write every file")
    def test_that_may_only_be_read(self, tmp_path: Path, store: SQLStorage, other: Path) -> None:
        path = tmp_path / "a.duckdb"
        for each in (path, other):
            each.chmod(0o444)
        with _connected(store, path):
            other.replace(path)
            with pytest.raises(ReplacedFileError, match="replaced"):
                store.load_conversations()
        assert firsts(store.load_conversations()) == ["backup"]


class TestLines:
    def test_are_read_on_from_the_former_file_and_saved_to_the_new_one(
        self, tmp_path: Path
    ) -> None:
        path, other = tmp_path / "a.jsonl", tmp_path / "b.jsonl"
        store = JSONLStorage(path, tmp_path / "documents.jsonl")
        names = [f"{at} {'x' * 4000}" for at in range(ROWS)]
        store.save_conversations([conversation(name) for name in names])
        JSONLStorage(other, tmp_path / "d.jsonl").save_conversations([conversation("backup")])
        found = iter(store.iter_conversations())
        first = next(found)
        other.replace(path)
        store.save_conversations([conversation("kept")])
        assert firsts([first, *found]) == names
        assert firsts(store.load_conversations()) == ["backup", "kept"]
        assert store.verify().ok
