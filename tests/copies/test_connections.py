"""`connect` on a database file: others go on, and neither a lock nor a copy is left."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import duckdb
import pytest

from afterimage.storage import (
    LockTimeoutError,
    MissingFileError,
    SQLStorage,
)
from tests.support.processes import child
from tests.support.records import conversation

COUNT = "SELECT count(*) FROM conversations"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "talks.duckdb"


@pytest.fixture
def store(path: Path) -> SQLStorage:
    store = SQLStorage(path, lock_timeout=0.3)
    store.save_conversations([conversation("a")])
    return store


def counted(store: SQLStorage) -> Any:
    with store.connect() as connection:
        return connection.execute(COUNT).fetchall()[0][0]


def left(folder: Path) -> set[str]:
    return {each.name for each in folder.iterdir()}


def test_nothing_is_left(store: SQLStorage, path: Path) -> None:
    with store.connect() as connection:
        assert connection.execute("SELECT current_database()").fetchall() == [("talks",)]
        if os.name == "posix":
            assert left(path.parent) == {"talks.duckdb", "talks.duckdb.lock"}
    assert left(path.parent) == {"talks.duckdb", "talks.duckdb.lock"}
    duckdb.connect(str(path)).close()


def test_a_file_that_this_process_has_open(store: SQLStorage, path: Path) -> None:
    with store.iter_conversations(batch_size=1) as records:
        next(records)
        assert counted(store) == 1
    with duckdb.connect(str(path)) as mine:
        assert counted(store) == 1
        mine.execute("CREATE TABLE own AS SELECT 1 AS n")
        with store.connect() as connection:
            assert connection.execute("FROM own").fetchall() == [(1,)]
        # The lock of this connection is still there.
        command = f"import duckdb; duckdb.connect({str(path)!r})"
        done = subprocess.run([sys.executable, "-c", command], capture_output=True, check=False)
        assert b"lock" in done.stderr
    with store.engine.connect() as connection:
        assert connection.exec_driver_sql(COUNT).scalar_one() == 1
        assert counted(store) == 1
        store.save_conversations([conversation("b")])
    assert counted(store) == 2


def save(pipe: Any, path: Path) -> None:
    SQLStorage(path, lock_timeout=5).save_conversations([conversation("b")])
    pipe.send("saved")


def hold(pipe: Any, path: Path) -> None:
    with duckdb.connect(str(path)) as connection:
        connection.execute("CREATE TABLE own (n INT)")
        pipe.send("open")
        time.sleep(60)


@pytest.mark.process
def test_another_process_saves_during_the_block(store: SQLStorage, path: Path) -> None:
    with store.connect() as connection, child(save, path) as (_, pipe):
        assert pipe.recv() == "saved"
        assert connection.execute(COUNT).fetchall() == [(1,)]
    assert counted(store) == 2


@pytest.mark.process
def test_a_file_that_another_process_writes_is_waited_for(store: SQLStorage, path: Path) -> None:
    with child(hold, path) as (process, pipe):
        assert pipe.recv() == "open"
        with pytest.raises(LockTimeoutError):
            counted(store)
        process.kill()
        process.join()
        # Its log is applied first.
        with store.connect() as connection:
            assert connection.execute("FROM own").fetchall() == []
    assert left(path.parent) == {"talks.duckdb", "talks.duckdb.lock"}


def test_what_a_killed_process_left_is_removed(store: SQLStorage, path: Path) -> None:
    remains = path.with_name(".talks.duckdb.0123456789abcdef0123456789abcdef.copy")
    remains.mkdir()
    (remains / "talks.duckdb").write_bytes(b"half")
    assert counted(store) == 1
    assert not remains.exists()


def test_a_missing_file_stays_missing(path: Path) -> None:
    store = SQLStorage(path)
    assert counted(store) == 0
    assert not path.exists()
    store.save_conversations([conversation("a")])
    path.unlink()
    with pytest.raises(MissingFileError):
        counted(store)


@pytest.mark.skipif(os.name != "posix", reason="permissions are POSIX")
def test_a_file_in_a_folder_that_is_only_read(store: SQLStorage, path: Path) -> None:
    path.parent.chmod(0o500)
    try:
        assert counted(store) == 1
    finally:
        path.parent.chmod(0o700)


def save_for(pipe: Any, path: Path, seconds: float) -> None:
    store, saved, end = SQLStorage(path), 0, time.monotonic() + seconds
    while time.monotonic() < end:
        store.save_conversations([conversation("of another process")])
        saved += 1
    pipe.send(saved)


@pytest.mark.process
@pytest.mark.slow
def test_connections_saves_and_compactions_at_the_same_time(path: Path) -> None:
    store = SQLStorage(path)
    store.save_conversations([conversation("first")])
    end = time.monotonic() + 6

    def save() -> int:
        saved = 0
        while time.monotonic() < end:
            SQLStorage(path).save_conversations([conversation("of a thread")])
            saved += 1
        return saved

    def connect() -> int:
        found = 0
        while time.monotonic() < end:
            now = counted(store)
            assert now >= found
            found = now
        return 0

    def compact() -> int:
        while time.monotonic() < end:
            store.compact()
            time.sleep(0.2)
        return 0

    with child(save_for, path, 6) as (_, pipe), ThreadPoolExecutor(4) as threads:
        running = [threads.submit(each) for each in (save, connect, connect, compact)]
        saved = sum(each.result() for each in running) + pipe.recv()
    assert store.count_conversations() == saved + 1
    assert store.verify().ok
    assert left(path.parent) == {"talks.duckdb", "talks.duckdb.lock"}
