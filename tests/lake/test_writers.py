"""Many processes write to one lake: nothing is lost, stored in part or stored twice."""

from __future__ import annotations

import os
import random
import signal
import time
from collections import Counter
from contextlib import ExitStack
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import pytest

from afterimage.storage import SQLStorage
from tests.lake.test_lost_connections import batch
from tests.support.processes import child, received, told_by
from tests.support.records import conversations


def save_for(pipe: Connection, url: str, name: str, seconds: float, rows: int) -> None:
    """Save batches for some seconds; send the name of each whose save has returned."""
    storage = SQLStorage(url, lock_timeout=60)
    end = time.monotonic() + seconds
    number = 0
    while time.monotonic() < end:
        storage.save_conversations(batch(f"{name}-{number}", rows))
        pipe.send(f"{name}-{number}")
        number += 1


def open_and_save(pipe: Connection, url: str, name: str) -> None:
    """Wait until told by a file, then open the lake for the first time, and save."""
    start = Path(name)
    while not start.exists():
        time.sleep(0.005)
    storage = SQLStorage(url, metadata_fields=["row"])
    storage.save_conversations(batch(str(os.getpid())))
    pipe.send(str(os.getpid()))


def add_fields(pipe: Connection, url: str, keys: list[str]) -> None:
    """Give one metadata key after another columns of its own, while others save."""
    for key in keys:
        time.sleep(0.3)
        SQLStorage(url, metadata_fields=[key], lock_timeout=60)


def assert_whole(storage: SQLStorage, saved: list[str], rows: int) -> list[str]:
    """Assert that each saved batch is there once and in order; return the names of all batches."""
    found: dict[str, list[int]] = {}
    for each in storage.load_conversations():
        found.setdefault(each.metadata["batch"], []).append(each.metadata["row"])
    assert {name: each for name, each in found.items() if each != list(range(rows))} == {}
    assert set(saved) <= set(found)
    return list(found)


def ids(storage: SQLStorage) -> list[int]:
    with storage.engine.connect() as connection:
        found = connection.exec_driver_sql("SELECT id FROM conversations").all()
    return [row[0] for row in found]


@pytest.mark.process
def test_processes_that_open_a_new_lake_at_once_all_use_the_same_one(
    url: str, tmp_path: Path
) -> None:
    start = tmp_path / "start"
    with ExitStack() as stack:
        running = [stack.enter_context(child(open_and_save, url, str(start))) for _ in range(8)]
        start.touch()
        saved = [name for process, pipe in running for name in told_by(process, pipe)]
    assert len(saved) == 8
    storage = SQLStorage(url)
    assert sorted(assert_whole(storage, saved, 3)) == sorted(saved)
    assert storage.verify().ok


@pytest.mark.process
def test_four_writers_lose_nothing(url: str) -> None:
    with ExitStack() as stack:
        running = [
            stack.enter_context(child(save_for, url, str(number), 3.0, 60)) for number in range(4)
        ]
        saved = [name for process, pipe in running for name in told_by(process, pipe)]
    storage = SQLStorage(url)
    assert sorted(assert_whole(storage, saved, 60)) == sorted(saved)
    numbers = ids(storage)
    assert len(set(numbers)) == len(numbers) == 60 * len(saved)


@pytest.mark.process
def test_columns_that_are_added_while_others_save_miss_no_row(url: str) -> None:
    SQLStorage(url).save_conversations(batch("first"))
    with ExitStack() as stack:
        running = [
            stack.enter_context(child(save_for, url, str(number), 3.0, 3)) for number in range(2)
        ]
        adding = stack.enter_context(child(add_fields, url, ["batch", "row", "other"]))
        saved = [name for process, pipe in running for name in told_by(process, pipe)]
        assert told_by(*adding) == []
    storage = SQLStorage(url)
    assert sorted(assert_whole(storage, ["first", *saved], 3)) == sorted(["first", *saved])
    assert storage.verify().ok  # the columns have the values of the metadata in every row


@pytest.mark.slow
def test_killed_writers_leave_whole_batches_only(url: str) -> None:
    rng = random.Random(7)
    saved: list[str] = []
    killed = 0
    end = time.monotonic() + 15
    with ExitStack() as stack:
        running: list[Any] = []
        while time.monotonic() < end or running:
            while len(running) < 4 and time.monotonic() < end:
                name = f"{len(saved)}-{killed}-{len(running)}-{rng.random()}"
                running.append(stack.enter_context(child(save_for, url, name, 15.0, 60)))
            time.sleep(rng.uniform(0.2, 1.5))
            process, pipe = running.pop(0)
            os.kill(process.pid, signal.SIGKILL)
            process.join()
            killed += 1
            saved += received(pipe)
    storage = SQLStorage(url, lock_timeout=60)
    names = assert_whole(storage, saved, 60)
    assert killed > 5
    assert 0 <= len(names) - len(saved) <= killed  # saved, and killed before the answer


def test_numbers_rise_and_are_never_given_again(url: str) -> None:
    storage = SQLStorage(url)
    seen: list[int] = []
    for number in range(3):
        storage.save_conversations(batch(str(number)))
        newest = sorted(set(ids(storage)) - set(seen))
        assert not seen or newest[0] > max(seen)
        seen += newest
        with storage.engine.begin() as connection:
            connection.exec_driver_sql(
                f"DELETE FROM conversations_rows WHERE rowid + 1 = {newest[-1]}"
            )
    assert Counter(seen).most_common(1)[0][1] == 1


@pytest.mark.parametrize("lake", ["url", "file_url"])
def test_the_rows_of_a_large_save_keep_their_order(
    lake: str, request: pytest.FixtureRequest
) -> None:
    storage = SQLStorage(request.getfixturevalue(lake))
    storage.save_conversations(conversations(*({"row": row} for row in range(10_000))))
    assert [each.metadata["row"] for each in storage.load_conversations()] == list(range(10_000))
    assert sorted(ids(storage)) == list(range(1, 10_001))
