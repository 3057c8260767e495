"""A file with several names: one lock for all of them, or a clear error."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import pytest

from afterimage.storage import (
    Document,
    JSONLStorage,
    LockTimeoutError,
    SQLStorage,
    StorageError,
)
from tests.support.messages import assert_short
from tests.support.processes import KINDS, child, opened
from tests.support.records import conversation, firsts

pytestmark = pytest.mark.skipif(os.name != "posix", reason="links need no permission on POSIX")

_NAMES = {"jsonl": ["talks.jsonl", "texts.jsonl"], "sql": ["store.duckdb"]}

Link = Callable[[Path, Path], None]


def _symbolic(folder: Path, there: Path) -> None:
    for names in _NAMES.values():
        for name in names:
            (there / name).symlink_to(folder / name)


def _through_a_link(folder: Path, there: Path) -> None:
    for names in _NAMES.values():
        for name in names:
            (there / f"between {name}").symlink_to(folder / name)
            (there / name).symlink_to(Path(f"between {name}"))


def _folder(folder: Path, there: Path) -> None:
    there.rmdir()
    there.symlink_to(folder)


@pytest.fixture(params=[_symbolic, _through_a_link, _folder], ids=lambda link: link.__name__[1:])
def there(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A folder in which the files of a storage have other names; they may not exist yet."""
    folder, there = tmp_path / "here", tmp_path / "there"
    folder.mkdir()
    there.mkdir()
    request.param(folder, there)
    return there


def hold(pipe: Connection, kind: str, folder: Path) -> None:
    """Hold what a save holds, until killed."""
    storage: Any = opened(kind, folder)
    if kind == "jsonl":
        with storage._backend._locked(storage.conversations_path):
            pipe.send("held")
            time.sleep(300)
    with storage._backend.database.writing():
        pipe.send("held")
        time.sleep(300)


class TestSymbolicLinks:
    @pytest.mark.process
    @pytest.mark.parametrize("kind", KINDS)
    def test_all_names_of_a_file_have_one_lock(
        self, tmp_path: Path, there: Path, kind: str
    ) -> None:
        for one, another in [(tmp_path / "here", there), (there, tmp_path / "here")]:
            opened(kind, tmp_path / "here").save_conversations([conversation("a")])
            storage = opened(kind, another, lock_timeout=0.2)
            with child(hold, kind, one) as (process, pipe):
                assert pipe.recv() == "held"
                with pytest.raises(LockTimeoutError, match=f"process {process.pid}"):
                    storage.save_conversations([conversation("b")])
                with pytest.raises(LockTimeoutError, match=f"process {process.pid}"):
                    storage.load_conversations()
        assert firsts(opened(kind, there).load_conversations()) == ["a", "a"]

    def test_the_lock_is_next_to_the_file(self, tmp_path: Path, there: Path) -> None:
        storage = opened("jsonl", there)
        assert isinstance(storage, JSONLStorage)
        lock = tmp_path / "here" / "talks.jsonl.lock"
        storage.save_conversations([conversation("a")])
        assert lock.samefile(storage.conversations_lock_path)
        assert (tmp_path / "here" / "talks.jsonl").is_file()

    def test_a_killed_save_is_hidden_under_every_name(self, tmp_path: Path, there: Path) -> None:
        storage = opened("jsonl", tmp_path / "here")
        storage.save_conversations([conversation("a")])
        path = tmp_path / "here" / "talks.jsonl"
        line = path.read_bytes()
        path.with_name("talks.jsonl.saving").write_bytes(b"%d %d\n" % (len(line), 900) + line * 2)
        path.write_bytes(line * 2)
        linked = opened("jsonl", there)
        with pytest.warns(UserWarning, match="a save that was killed"):
            assert linked.count_conversations() == 1
        with pytest.warns(UserWarning, match="a save that was killed"):
            linked.save_conversations([conversation("b")])
        assert firsts(storage.load_conversations()) == ["a", "b"]
        assert len([*path.parent.glob("*.torn-*")]) == 1


@pytest.mark.parametrize("kind", KINDS)
class TestHardLinks:
    def test_saves_are_refused_and_reads_work(self, tmp_path: Path, kind: str) -> None:
        storage = opened(kind, tmp_path)
        storage.save_conversations([conversation("a")])
        storage.save_documents([Document(text="d")])
        more = tmp_path / "more.jsonl"
        more.write_text('{"conversations": []}\n')
        there = tmp_path / "there"
        there.mkdir()
        for name in _NAMES[kind]:
            os.link(tmp_path / name, there / name)
        before = {path: path.read_bytes() for path in there.iterdir()}
        for each in (storage, opened(kind, there)):
            calls: list[tuple[Callable[..., Any], Any]] = [
                (each.save_conversations, [conversation("b")]),
                (each.save_documents, [Document(text="e")]),
                (each.import_jsonl, more),
            ]
            for call, argument in calls:
                with pytest.raises(StorageError, match="more than one name") as caught:
                    call(argument)
                assert_short(caught.value)
            assert firsts(each.load_conversations()) == ["a"]
            assert each.count_documents() == 1
            assert each.verify().ok
        assert {path: path.read_bytes() for path in before} == before
        for path in before:
            path.unlink()
        storage.save_conversations([conversation("b")])
        assert firsts(storage.load_conversations()) == ["a", "b"]


class TestDatabasesWithHardLinks:
    def test_one_process_does_not_open_a_file_under_two_names(self, tmp_path: Path) -> None:
        storage = opened("sql", tmp_path)
        storage.save_conversations([conversation("a" * 2000)] * 9000)
        with storage.iter_conversations(batch_size=1) as records:
            next(records)
            os.link(tmp_path / "store.duckdb", tmp_path / "other.duckdb")
            with pytest.raises(StorageError, match="under another name"):
                SQLStorage(f"duckdb:///{tmp_path / 'other.duckdb'}").count_conversations()
        with SQLStorage(f"duckdb:///{tmp_path / 'other.duckdb'}").engine.connect() as connection:
            query = "SELECT count(*) FROM conversations"
            assert connection.exec_driver_sql(query).scalar() == 9000

    def test_a_link_that_a_killed_creation_has_left_is_removed(self, tmp_path: Path) -> None:
        storage = opened("sql", tmp_path)
        left = tmp_path / f".store.duckdb.{'0' * 32}.new"
        storage.save_conversations([conversation("a")])
        os.link(tmp_path / "store.duckdb", left)
        storage.save_conversations([conversation("b")])
        assert not left.exists()
        assert firsts(storage.load_conversations()) == ["a", "b"]
