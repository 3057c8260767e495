"""Edits of a lake: each is applied once or not at all, whoever writes, and whatever is lost."""

from __future__ import annotations

import os
import random
import signal
import threading
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import pytest

from afterimage.storage import DatabaseError, InvalidQueryError, SQLStorage
from tests.lake.test_lost_connections import batch, proxy, stored
from tests.support.postgres import Server
from tests.support.processes import child, received
from tests.support.proxy import Loss, Proxy

__all__ = ["proxy"]

MANY = 6


def filled(url: str, **options: Any) -> SQLStorage:
    storage = SQLStorage(url, **options)
    storage.save_conversations([record for n in range(MANY) for record in batch(f"b{n}", 4)])
    return storage


def test_ids_of_deleted_rows_are_not_given_again(file_url: str) -> None:
    storage = filled(file_url, metadata_fields=["batch"])
    assert storage.delete_conversations({"metadata.batch": "b5"}) == 4
    before = storage.scan_conversations(["id"]).read_all().column(0).to_pylist()
    storage.save_conversations(batch("new"))
    ids = storage.scan_conversations(["id"]).read_all().column(0).to_pylist()
    assert ids[:-3] == before
    assert min(ids[-3:]) > MANY * 4
    assert storage.update_conversations({"metadata.batch": "new"}, metadata={"batch": "old"}) == 3
    assert storage.count_conversations({"metadata.batch": "old"}) == 3
    assert storage.scan_conversations(["id"]).read_all().column(0).to_pylist() == ids
    assert storage.verify().ok


def test_an_edit_makes_a_version(file_url: str) -> None:
    storage = filled(file_url)
    version = storage.snapshots()[-1].version
    assert storage.delete_conversations([]) == MANY * 4
    assert storage.count_conversations() == 0
    earlier = SQLStorage(file_url, at=version)
    assert earlier.count_conversations() == MANY * 4
    with pytest.raises(InvalidQueryError, match="only read"):
        earlier.delete_conversations([])


EDITS: dict[str, Callable[[SQLStorage, int], int]] = {
    "delete": lambda storage, n: storage.delete_conversations({"metadata.batch": f"b{n}"}),
    "update": lambda storage, n: storage.update_conversations(
        {"metadata.batch": f"b{n}"}, metadata={"batch": f"c{n}"}
    ),
}


@pytest.mark.slow
@pytest.mark.process
@pytest.mark.parametrize("loss", Loss, ids=lambda loss: loss.name.lower())
@pytest.mark.parametrize("edit", EDITS)
def test_an_edit_is_applied_once_whatever_message_of_it_is_lost(
    server: Server, proxy: Proxy, tmp_path: Path, loss: Loss, edit: str
) -> None:
    direct = server.url(tmp_path / "data")
    through = direct.replace(f":{server.port}/", f":{proxy.port}/")
    reader = SQLStorage(direct)
    rows = [record for n in range(60) for record in batch(f"b{n}", 2)]
    reader.save_conversations(rows)
    writer = SQLStorage(through, lock_timeout=20)
    before = proxy.messages
    assert EDITS[edit](writer, 0) == 2
    messages = proxy.messages - before
    assert messages > 5
    done = 1
    for message in range(0, messages, 2):
        proxy.lose(message, loss)
        assert EDITS[edit](writer, done) == 2
        done += 1
        name = "b" if edit == "delete" else "c"
        assert reader.count_conversations({"metadata.batch": f"b{done - 1}"}) == 0
        if edit == "update":
            assert reader.count_conversations([("metadata.batch", "startswith", name)]) == done * 2
    assert proxy.losses > 3
    kept = 60 - done
    assert len([name for name, _ in stored(reader) if name.startswith("b")]) == kept * 2
    assert reader.verify().ok


@pytest.mark.slow
def test_edits_beside_writers_and_compactions_lose_nothing(server: Server, tmp_path: Path) -> None:
    url = server.url(tmp_path / "data")
    SQLStorage(url).save_conversations(batch("first"))
    stop = threading.Event()
    saved: list[int] = []
    errors: list[BaseException] = []

    def write(number: int) -> None:
        storage = SQLStorage(url, lock_timeout=60)
        count = 0
        try:
            while not stop.is_set():
                storage.save_conversations(batch(f"w{number}", 5))
                count += 5
        except BaseException as error:
            errors.append(error)
        saved.append(count)

    threads = [threading.Thread(target=write, args=[number]) for number in range(2)]
    for thread in threads:
        thread.start()
    editor = SQLStorage(url, lock_timeout=60)
    deleted = updated = 0
    try:
        for turn in range(8):
            updated += editor.update_conversations(
                {"metadata.row": 1}, metadata={"turn": turn, "row": None}
            )
            deleted += editor.delete_conversations({"metadata.row": 2})
            if turn % 3 == 2:
                editor.compact()
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert errors == []
    assert editor.count_conversations() == sum(saved) + 3 - deleted
    assert editor.count_conversations([("metadata.turn", ">=", 0)]) == updated
    assert deleted > 1
    assert editor.verify().ok


def test_an_edit_that_cannot_reach_the_server_says_that_nothing_was_changed(
    own_server: Server, tmp_path: Path
) -> None:
    storage = SQLStorage(own_server.url(tmp_path / "data"), lock_timeout=0.5)
    storage.save_conversations(batch("a"))
    own_server.stop()
    with pytest.raises(DatabaseError) as caught:
        storage.delete_conversations([])
    assert "Nothing was" in str(caught.value)
    own_server.start()
    assert storage.count_conversations() == 3


def edit_for_ever(pipe: Connection, url: str, turn: int) -> None:
    storage = SQLStorage(url, lock_timeout=60)
    while True:
        turn += 1
        storage.update_conversations([], metadata={"turn": turn})
        pipe.send(turn)


@pytest.mark.slow
@pytest.mark.process
def test_an_editor_that_is_killed_leaves_all_of_an_edit_or_nothing(url: str) -> None:
    storage = SQLStorage(url)
    storage.save_conversations(batch("a", 40))
    chance = random.Random(7)
    turn = 0
    for _ in range(20):
        with child(edit_for_ever, url, turn) as (process, pipe):
            first = pipe.recv()
            time.sleep(chance.uniform(0.01, 0.4))
            os.kill(process.pid, signal.SIGKILL)
            process.join()
            acknowledged = [first, *received(pipe)][-1]
        turns = [each.metadata["turn"] for each in storage.load_conversations()]
        assert turns == turns[:1] * 40
        assert turns[0] in (acknowledged, acknowledged + 1)
        turn = turns[0]
    assert storage.verify().ok
