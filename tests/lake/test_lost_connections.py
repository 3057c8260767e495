"""Connections to PostgreSQL that are lost: a save is in the lake once, or the call says not."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from afterimage.storage import DatabaseError, SQLStorage
from tests.support.postgres import Server
from tests.support.proxy import Loss, Proxy
from tests.support.records import conversations


@pytest.fixture
def proxy(server: Server) -> Iterator[Proxy]:
    proxy = Proxy(server.port)
    yield proxy
    proxy.close()


def batch(name: str, rows: int = 3) -> list[Any]:
    return conversations(*({"batch": name, "row": row} for row in range(rows)))


def stored(storage: SQLStorage) -> list[tuple[str, int]]:
    return [(each.metadata["batch"], each.metadata["row"]) for each in storage.load_conversations()]


@pytest.mark.process
@pytest.mark.parametrize("loss", Loss, ids=lambda loss: loss.name.lower())
def test_a_save_is_stored_once_whatever_message_of_it_is_lost(
    server: Server, proxy: Proxy, tmp_path: Path, loss: Loss
) -> None:
    direct = server.url(tmp_path / "data")
    through = direct.replace(f":{server.port}/", f":{proxy.port}/")
    writer = SQLStorage(through, lock_timeout=20)
    writer.save_conversations(batch("first"))
    before = proxy.messages
    writer.save_conversations(batch("second"))
    messages = proxy.messages - before
    assert messages > 5
    names = ["first", "second"]
    for message in range(messages):
        proxy.lose(message, loss)
        names.append(f"loss at {message}")
        writer.save_conversations(batch(names[-1]))
    assert proxy.losses >= messages - 1  # a save may need fewer messages than the first did
    rows = stored(SQLStorage(direct))
    assert rows == [(name, row) for name in names for row in range(3)]


@pytest.mark.process
@pytest.mark.parametrize("loss", [Loss.DURING, Loss.AFTER], ids=lambda loss: loss.name.lower())
def test_a_new_storage_opens_whatever_message_is_lost(
    server: Server, proxy: Proxy, tmp_path: Path, loss: Loss
) -> None:
    direct = server.url(tmp_path / "data")
    SQLStorage(direct).save_conversations(batch("a"))
    through = direct.replace(f":{server.port}/", f":{proxy.port}/")
    for message in range(0, 40, 3):
        proxy.lose(message, loss)
        assert SQLStorage(through, lock_timeout=20).count_conversations() == 3


@pytest.mark.process
@pytest.mark.parametrize("loss", [Loss.DURING, Loss.AFTER], ids=lambda loss: loss.name.lower())
def test_new_columns_are_filled_once_if_the_answer_to_the_commit_is_lost(
    server: Server, proxy: Proxy, tmp_path: Path, loss: Loss
) -> None:
    direct = server.url(tmp_path / "data")
    through = direct.replace(f":{server.port}/", f":{proxy.port}/")
    SQLStorage(direct).save_conversations(batch("a"))
    for number in range(3):
        proxy.lose_commit(loss)
        SQLStorage(through, metadata_fields=["batch", f"key{number}"], lock_timeout=20)
        assert len(SQLStorage(direct, create=False).load_conversations()) == 3
    assert proxy.losses == 3
    assert SQLStorage(direct).verify().ok


def test_a_save_that_cannot_reach_the_server_says_so_after_lock_timeout(
    own_server: Server, tmp_path: Path
) -> None:
    storage = SQLStorage(own_server.url(tmp_path / "data"), lock_timeout=0.5)
    storage.save_conversations(batch("a"))
    own_server.stop()
    started = time.monotonic()
    with pytest.raises(DatabaseError) as caught:
        storage.save_conversations(batch("b"))
    assert 0.4 < time.monotonic() - started < 5
    assert "Nothing was saved" in str(caught.value)
    assert "s3cret" not in str(caught.value)
    own_server.start()
    storage.save_conversations(batch("c"))
    assert Counter(name for name, _ in stored(storage)) == {"a": 3, "c": 3}


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["fast", "immediate"])
def test_writers_survive_restarts_of_the_server(
    own_server: Server, tmp_path: Path, mode: str
) -> None:
    url = own_server.url(tmp_path / "data")
    SQLStorage(url).save_conversations(batch("first"))
    end = time.monotonic() + 12
    saved: list[str] = ["first"]
    errors: list[BaseException] = []

    def write(number: int) -> None:
        storage = SQLStorage(url, lock_timeout=60)
        try:
            for name in _names(number, end):
                storage.save_conversations(batch(name))
                saved.append(name)
                storage.count_conversations()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=write, args=[number]) for number in range(4)]
    for thread in threads:
        thread.start()
    while time.monotonic() < end - 3:
        time.sleep(2)
        own_server.stop(mode)
        own_server.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert Counter(stored(SQLStorage(url))) == Counter(
        (name, row) for name in saved for row in range(3)
    )


def _names(number: int, end: float) -> Iterator[str]:
    count = 0
    while time.monotonic() < end:
        yield f"{number}-{count}"
        count += 1
