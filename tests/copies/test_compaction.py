"""`compact` on a database file: space is given back, nothing is lost, and nobody is overwritten."""

from __future__ import annotations

import os
import random
import time
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import duckdb
import pytest

from afterimage.storage import (
    Document,
    LockTimeoutError,
    SQLStorage,
    StorageError,
)
from tests.support.processes import LONG, child
from tests.support.records import Line, conversation

KILLS = 30 * LONG


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "talks.duckdb"


def filled(path: Path, count: int = 3000) -> SQLStorage:
    """A storage whose file has much unused space: of `count` records, ten are left."""
    store = SQLStorage(path, metadata_fields=["n"], lock_timeout=0.3)
    noise = random.Random(1)
    store.save_conversations(
        [conversation(noise.randbytes(300).hex(), {"n": n}) for n in range(count)]
    )
    store.save_conversations([Line(role="r", content="c")])
    store.save_documents([Document(id="d", text="x")])
    store.delete_conversations([("metadata.n", ">=", 10)])
    return store


def test_the_file_becomes_smaller_and_keeps_everything(path: Path) -> None:
    store = filled(path)
    with store.engine.begin() as connection:
        connection.exec_driver_sql("CREATE TABLE own AS SELECT 7 AS n")
        connection.exec_driver_sql("CREATE VIEW seen AS SELECT n FROM own")
    path.chmod(0o640)
    columns = ["id", "timestamp", "metadata"]
    rows = store.scan_conversations(columns).read_all()
    before = path.stat().st_size
    store.compact()
    assert path.stat().st_size < before / 2
    assert path.stat().st_mode & 0o777 == 0o640
    assert sorted(each.name for each in path.parent.iterdir()) == [
        "talks.duckdb",
        "talks.duckdb.lock",
    ]
    again = SQLStorage(path, create=False)
    for each in (store, again):
        assert each.scan_conversations(columns).read_all() == rows
        assert each.verify().ok
        assert each.count_conversations({"metadata.n": 3}) == 1
        assert (each.count_records(), each.count_documents()) == (1, 1)
        with each.connect() as connection:
            assert connection.execute("FROM seen").fetchall() == [(7,)]
            assert connection.execute("SELECT count(*) FROM messages").fetchall() == [(20,)]
    again.save_conversations([conversation("new", {"n": -1})])
    # The ids of deleted rows are not used again.
    assert again.count_conversations([("id", ">", 3000)]) == 1
    assert store.count_conversations() == 11


def test_a_file_that_would_not_become_smaller_stays(path: Path) -> None:
    store = filled(path, 10)
    store.compact()
    before = path.stat().st_ino
    store.compact()
    assert path.stat().st_ino == before
    SQLStorage(path.with_name("none.duckdb")).compact()
    assert not path.with_name("none.duckdb").exists()


def test_a_file_that_is_open_in_this_process_is_refused(path: Path) -> None:
    store = filled(path)
    content = path.read_bytes()
    with store.engine.connect(), pytest.raises(LockTimeoutError, match="another connection of"):
        store.compact()
    with duckdb.connect(str(path)), pytest.raises(LockTimeoutError, match="another database"):
        store.compact()
    os.link(path, path.with_name("link.duckdb"))
    with pytest.raises(StorageError, match="hard link"):
        store.compact()
    path.with_name("link.duckdb").unlink()
    assert path.read_bytes() == content
    store.compact()
    assert path.stat().st_size < len(content)


def test_what_a_killed_process_left_is_removed(path: Path) -> None:
    store = filled(path, 10)
    left = path.with_name(".talks.duckdb.0123456789abcdef0123456789abcdef.compacting")
    left.mkdir()
    (left / "talks.duckdb").write_bytes(b"half")
    store.compact()
    assert not left.exists()


def hold(pipe: Connection, path: Path) -> None:
    with duckdb.connect(str(path), read_only=True):
        pipe.send("open")
        time.sleep(60)


@pytest.mark.process
@pytest.mark.slow
def test_a_file_that_another_process_reads_is_refused(path: Path) -> None:
    store = filled(path)
    before = path.stat().st_ino
    with child(hold, path) as (process, pipe):
        assert pipe.recv() == "open"
        with pytest.raises(LockTimeoutError, match=f"process {process.pid}"):
            store.compact()
    assert path.stat().st_ino == before


def compact_many_times(pipe: Connection, path: Path) -> None:
    store = SQLStorage(path, lock_timeout=30)
    for _ in range(6):
        store.save_conversations([conversation("x" * 5000, {"gone": n}) for n in range(2000)])
        store.delete_conversations([("metadata.gone", "!=", None)])
        store.compact()
    pipe.send("done")


@pytest.mark.process
@pytest.mark.slow
def test_other_processes_save_and_read_meanwhile(path: Path) -> None:
    filled(path)
    store = SQLStorage(path)
    saved = 0
    with child(compact_many_times, path) as (_, pipe):
        while not pipe.poll():
            store.save_conversations([conversation("new", {"new": saved})])
            saved += 1
            found = store.load_conversations(filters=[("metadata.new", "!=", None)])
            assert [each.metadata["new"] for each in found] == list(range(saved))
    assert saved
    assert store.count_conversations() == 10 + saved
    assert store.verify().ok


def compact_until_killed(pipe: Connection, path: Path) -> None:
    store = SQLStorage(path)
    pipe.send("ready")
    store.compact()
    pipe.send("done")


@pytest.mark.process
@pytest.mark.slow
@pytest.mark.skipif(os.name != "posix", reason="SIGKILL is POSIX")
def test_a_killed_compaction_loses_nothing(path: Path) -> None:
    def expected(store: Any) -> list[int]:
        return [each.metadata["n"] for each in store.load_conversations()]

    store = filled(path)
    large = path.read_bytes()
    with child(compact_until_killed, path) as (process, pipe):
        pipe.recv()
        started = time.monotonic()
        process.join(60)
    longest = time.monotonic() - started
    small = path.stat().st_size
    moments, outcomes = random.Random(7), set()
    for kill in range(KILLS):
        path.write_bytes(large)
        with child(compact_until_killed, path) as (process, pipe):
            pipe.recv()
            time.sleep(moments.uniform(0, longest))
            process.kill()
            process.join()
        outcomes.add(path.stat().st_size <= 2 * small)
        assert expected(store) == list(range(10)), kill
        assert store.verify().ok
        store.save_conversations([conversation("new", {"n": 10})])
        assert expected(SQLStorage(path)) == list(range(11))
    assert False in outcomes
    store.compact()
    assert {each.name for each in path.parent.iterdir()} == {"talks.duckdb", "talks.duckdb.lock"}
