"""A file that another process locks: a bounded wait, an error that names it, and no lock left."""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import duckdb
import pytest
from filelock import FileLock

from afterimage.storage import (
    Conversation,
    DatabaseError,
    InvalidQueryError,
    JSONLStorage,
    LockTimeoutError,
    SQLStorage,
)
from afterimage.storage.engine import attach
from tests.support.processes import KINDS, child, opened, told_by
from tests.support.records import conversation, conversations, firsts

# More records and bytes than an iterator reads ahead, so that it still has the file open.
MANY = 8000
LONG = "a" * 3000


def hold(pipe: Connection, kind: str, folder: Path) -> None:
    """Lock the file of a storage as another program would, until killed."""
    if kind == "jsonl":
        lock = FileLock(folder / "talks.jsonl.lock")
        lock.acquire()
    else:
        connection = duckdb.connect(str(folder / "store.duckdb"))
        connection.execute("BEGIN; CREATE TABLE half_done AS SELECT 1 AS one")
    pipe.send("held")
    time.sleep(300)


def hold_by_reading(pipe: Connection, kind: str, folder: Path) -> None:
    """Keep a database open with an unfinished iterator."""
    records = opened(kind, folder).iter_conversations(batch_size=1)
    next(records)
    pipe.send("held")
    time.sleep(300)


@contextmanager
def waiting_for(what: str) -> Iterator[pytest.ExceptionInfo[LockTimeoutError]]:
    """Make a call that waits for one second and then raises."""
    start = time.monotonic()
    with pytest.raises(LockTimeoutError) as caught:
        yield caught
    assert 0.9 < time.monotonic() - start < 10
    assert what in str(caught.value)
    assert len(str(caught.value).splitlines()) < 10


@pytest.mark.process
class TestOtherProcesses:
    @pytest.mark.parametrize(
        ("kind", "holding"), [("jsonl", hold), ("sql", hold), ("sql", hold_by_reading)]
    )
    def test_the_wait_is_bounded_and_a_killed_holder_leaves_no_lock(
        self, tmp_path: Path, kind: str, holding: Any
    ) -> None:
        storage = opened(kind, tmp_path, lock_timeout=1)
        storage.save_conversations([conversation(LONG)] * MANY)
        with child(holding, kind, tmp_path) as (process, pipe):
            assert pipe.recv() == "held"
            with waiting_for(f"process {process.pid}"):
                storage.save_conversations([conversation("b")])
            with waiting_for(f"process {process.pid}"):
                storage.load_conversations()
        storage.save_conversations([conversation("c")])
        assert firsts(storage.load_conversations()) == [LONG] * MANY + ["c"]

    @pytest.mark.parametrize("kind", KINDS)
    def test_a_timeout_that_is_set_later_holds_for_the_next_call(
        self, tmp_path: Path, kind: str
    ) -> None:
        storage = opened(kind, tmp_path, lock_timeout=300)
        storage.save_conversations([conversation("a")])
        with child(hold, kind, tmp_path) as (process, pipe):
            assert pipe.recv() == "held"
            storage.lock_timeout = 1
            for call in (
                lambda: storage.save_conversations([conversation("b")]),
                storage.load_conversations,
                storage.count_conversations,
                lambda: list(storage.iter_conversations()),
            ):
                with waiting_for(f"process {process.pid}"):
                    call()
        assert firsts(storage.load_conversations()) == ["a"]

    def test_a_failed_export_releases_the_database(self, tmp_path: Path) -> None:
        storage = opened("sql", tmp_path)
        values = [*map(str, range(2999)), "too long for the name of a folder " * 10]
        storage.save_conversations(conversations(*({"v": value} for value in values)))
        with pytest.raises(InvalidQueryError, match="folder") as kept:
            storage.export_parquet(tmp_path / "out", partition_by=["metadata.v"])
        command = [sys.executable, "-c", "import duckdb, sys; duckdb.connect(sys.argv[1])"]
        subprocess.run([*command, str(tmp_path / "store.duckdb")], check=True)
        assert kept.value.__traceback__ is not None

    def test_a_write_during_opening_is_not_overwritten(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        # DuckDB 2.0 may have read the state before that write, so the file is opened again.
        storage = opened("sql", tmp_path)
        storage.save_conversations([conversation("a")])
        code = (
            "import duckdb, sys\n"
            "with duckdb.connect(sys.argv[1]) as connection:\n"
            "    connection.execute('CREATE TABLE theirs AS SELECT 1 AS one')\n"
        )
        opens = []
        opened_file = attach._opened

        def late(path: Any, *options: Any, **more: Any) -> Any:
            opens.append(path)
            if len(opens) == 1:
                subprocess.run([sys.executable, "-c", code, path], check=True)
            return opened_file(path, *options, **more)

        monkeypatch.setattr(attach, "_opened", late)
        storage.save_conversations([conversation("b")])
        assert len(opens) == 2
        assert firsts(storage.load_conversations()) == ["a", "b"]


class TestThreadsOfOneProcess:
    """The blocking call is a real import whose progress callback waits."""

    @pytest.fixture
    def blocked(self, tmp_path: Path) -> Iterator[SQLStorage]:
        storage = opened("sql", tmp_path, lock_timeout=1)
        assert isinstance(storage, SQLStorage)
        storage.save_conversations([])
        path = tmp_path / "source.jsonl"
        path.write_bytes(conversation("imported").model_dump_json().encode())
        is_inside, may_end = threading.Event(), threading.Event()

        def wait(_: int) -> None:
            is_inside.set()
            may_end.wait(60)

        importing = threading.Thread(
            target=storage.import_jsonl, args=[path], kwargs={"progress": wait}
        )
        importing.start()
        assert is_inside.wait(60)
        yield storage
        may_end.set()
        importing.join()
        storage.save_conversations([conversation("after")])
        assert firsts(storage.load_conversations()) == ["imported", "after"]

    def test_a_save_waits_at_most_lock_timeout(self, blocked: SQLStorage) -> None:
        with waiting_for(f"another thread of process {os.getpid()}"):
            blocked.save_conversations([conversation("b")])
        assert blocked.load_conversations() == []  # reads do not wait

    def test_a_save_of_another_storage_waits_at_most_lock_timeout(
        self, blocked: SQLStorage, tmp_path: Path
    ) -> None:
        another = opened("sql", tmp_path, lock_timeout=1)
        with waiting_for("store.duckdb"):
            another.save_conversations([conversation("b")])

    def test_lines(self, tmp_path: Path) -> None:
        storage = opened("jsonl", tmp_path, lock_timeout=1)
        assert isinstance(storage, JSONLStorage)
        with FileLock(storage.conversations_lock_path), waiting_for(f"process {os.getpid()}"):
            storage.save_conversations([conversation("b")])
        storage.save_conversations([conversation("a")])
        assert firsts(storage.load_conversations()) == ["a"]

    def test_databases_in_memory_do_not_wait_for_each_other(self, blocked: SQLStorage) -> None:
        memory = SQLStorage("duckdb:///:memory:", lock_timeout=0)
        memory.save_conversations([conversation("a")])
        with memory._backend.database.writing():
            taken: list[int] = []

            def save() -> None:
                another = SQLStorage("duckdb:///:memory:", lock_timeout=0)
                another.save_conversations([conversation("a")])
                taken.append(another.count_conversations())

            thread = threading.Thread(target=save)
            thread.start()
            thread.join()
        assert taken == [1]


def fork_while_reading(pipe: Connection, folder: Path) -> None:
    """Fork while an iterator has the database open; a save of the child must not be lost."""
    storage = opened("sql", folder)
    records = storage.iter_conversations(batch_size=1)
    next(records)
    answers, answer = multiprocessing.Pipe(duplex=False)

    def in_the_child() -> None:
        try:
            storage.save_conversations([conversation("of the child")])
            answer.send("saved")
        except DatabaseError as error:
            answer.send(str(error))

    process = multiprocessing.get_context("fork").Process(target=in_the_child)
    process.start()
    process.join()
    pipe.send((process.exitcode, answers.recv()))
    storage.save_conversations([conversation("of the parent")])
    pipe.send(len(list(records)))


def fork_with_databases(pipe: Connection, folder: Path) -> None:
    """Fork with databases in use; the child releases them although their threads are gone."""
    import gc

    memory = SQLStorage("duckdb:///:memory:")
    memory.save_conversations([Conversation(conversations=[])] * 3000)
    lines = opened("jsonl", folder)
    iterator = lines.iter_conversations(filters={"metadata.n": None}, batch_size=1)
    next(iterator)
    codes = []
    for _ in range(5):
        pid = os.fork()
        if not pid:
            del memory, iterator
            gc.collect()
            lines.save_conversations([conversation("of a child")])
            os._exit(0)
        codes.append(os.waitpid(pid, 0)[1])
    pipe.send(codes)
    pipe.send(memory.count_conversations())


@pytest.mark.process
@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
class TestForks:
    def test_a_child_of_a_parent_with_an_open_database_gets_an_error(self, tmp_path: Path) -> None:
        storage = opened("sql", tmp_path)
        storage.save_conversations([conversation(LONG)] * MANY)
        with child(fork_while_reading, tmp_path) as (process, pipe):
            (code, answer), left = told_by(process, pipe)
        assert (code, left) == (0, MANY - 1)
        assert "forked" in answer
        assert firsts(storage.load_conversations()) == [LONG] * MANY + ["of the parent"]

    def test_a_child_may_release_objects_that_its_parent_uses(self, tmp_path: Path) -> None:
        opened("jsonl", tmp_path).save_conversations([conversation("a")] * 3)
        with child(fork_with_databases, tmp_path) as (process, pipe):
            assert told_by(process, pipe) == [[0] * 5, 3000]
        assert opened("jsonl", tmp_path).count_conversations() == 8
