"""A store is moved into a lake and back: nothing is lost or stored twice, also after kills."""

from __future__ import annotations

import time
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import pytest

from afterimage.storage import Document, JSONLStorage, SQLStorage
from tests.lake.test_lost_connections import batch
from tests.support.postgres import Server
from tests.support.processes import child
from tests.support.records import Line


@pytest.fixture(params=["jsonl", "file"])
def source(request: pytest.FixtureRequest, tmp_path: Path) -> Any:
    return opened(request.param, tmp_path)


ROWS = 20_000


def opened(sort: str, folder: Path) -> Any:
    if sort == "jsonl":
        return JSONLStorage(folder / "talks.jsonl", folder / "texts.jsonl")
    return SQLStorage(folder / "talks.duckdb")


def fill(storage: Any, rows: int, repeated: int) -> None:
    """Save records of all kinds, and the first of them again."""
    storage.save_conversations(batch("a", rows))
    storage.save_conversations(batch("a", repeated))
    storage.save_conversations([Line(role="r", content="c")])
    storage.save_documents([Document(id=str(n), text=str(n % 7)) for n in range(20)])


def assert_equal(one: Any, other: Any) -> None:
    assert one.load_conversations() == other.load_conversations()
    assert one.load_documents() == other.load_documents()
    assert one.count_records() == other.count_records() == 1
    assert one.diff(other).equal
    assert one.diff(other, kind="documents").equal


def test_all_records_come_into_a_lake_and_back(source: Any, url: str, tmp_path: Path) -> None:
    fill(source, 30, repeated=2)
    lake = SQLStorage(url, metadata_fields=["row"])
    assert lake.import_store(source) == 30 + 2 + 1 + 20
    assert_equal(lake, source)
    assert lake.import_store(source) == 0
    assert (lake.verify().ok, lake.verify().conversations) == (True, 32)
    for sort in ("jsonl", "file"):
        (tmp_path / "back").mkdir(exist_ok=True)
        back = opened(sort, tmp_path / "back")
        assert back.import_store(lake) == 53
        assert_equal(back, source)
        assert back.import_store(lake) == 0


def move(pipe: Connection, url: str, sort: str, folder: str) -> None:
    """Import a store into a lake, and tell when it begins and ends."""
    source, lake = opened(sort, Path(folder)), SQLStorage(url)
    lake.count_conversations()
    pipe.send("begins")
    pipe.send(int(lake.import_store(source)))


@pytest.mark.slow
@pytest.mark.process
@pytest.mark.parametrize("sort", ["jsonl", "file"])
def test_a_move_that_is_killed_is_repeated_without_a_record_twice(
    sort: str, url: str, server: Server, tmp_path: Path
) -> None:
    source = opened(sort, tmp_path)
    fill(source, ROWS, repeated=0)
    lake = SQLStorage(url)
    lake.save_conversations(batch("a", 5))  # the lake has some of the records already
    took: float | None = None
    kills = 0
    for share in (0.1, 0.3, 0.5, 0.7, 0.9, 0.95, 1.0):
        with child(move, url, sort, str(tmp_path)) as (process, pipe):
            assert pipe.recv() == "begins"
            if took is None:  # measures how long one takes, in another lake
                started = time.monotonic()
                SQLStorage(server.url(tmp_path / "measure")).import_store(source)
                took = time.monotonic() - started
            else:
                pipe.poll(took * share)
            process.kill()
            process.join()
            kills += 1
        # Everything of the move is there, or nothing.
        assert lake.count_conversations() in (5, ROWS)
        assert lake.count_documents() in (0, 20)
    lake.import_store(source)
    assert lake.import_store(source) == 0
    assert kills == 7
    assert lake.diff(source).equal
    assert lake.diff(source, kind="documents").equal
    assert (lake.count_conversations(), lake.count_records()) == (ROWS, 1)
    assert lake.verify().ok
