"""A write that broke off: the next save keeps the torn bytes aside and loses nothing."""

from __future__ import annotations

import multiprocessing
import warnings
from pathlib import Path

import pytest
from filelock import FileLock

from afterimage.storage import Conversation, CorruptRecordError, JSONLStorage, LockTimeoutError


def record(text: str) -> Conversation:
    return Conversation(conversations=[], metadata={"text": text})


def texts(store: JSONLStorage) -> list[str]:
    return [found.metadata["text"] for found in store.load_conversations()]


@pytest.fixture
def store(tmp_path: Path) -> JSONLStorage:
    return JSONLStorage(tmp_path / "talks.jsonl", tmp_path / "texts.jsonl")


class TestTornLastLine:
    def test_cut_at_every_byte_of_the_last_record(self, store: JSONLStorage) -> None:
        path = store.conversations_path
        store.save_conversations([record("one"), record("zwei é 🚂")])
        whole = path.read_bytes()
        start = whole.index(b"\n") + 1
        for cut in range(start + 1, len(whole) - 1):
            path.write_bytes(whole[:cut])
            with pytest.warns(UserWarning, match="torn record"):
                store.save_conversations([record("three")])
            aside = path.with_name(f"{path.name}.torn-{start}")
            assert texts(store) == ["one", "three"]
            assert aside.read_bytes() == whole[start:cut]
            aside.unlink()

    def test_a_whole_last_line_without_its_line_feed_is_kept(self, store: JSONLStorage) -> None:
        store.save_conversations([record("one")])
        path = store.conversations_path
        path.write_bytes(path.read_bytes().removesuffix(b"\n"))
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            store.save_conversations([record("two")])
        assert texts(store) == ["one", "two"]

    def test_until_then_a_load_says_where_it_is(self, store: JSONLStorage) -> None:
        store.save_conversations([record("one")])
        path = store.conversations_path
        size = path.stat().st_size
        path.write_bytes(path.read_bytes() + b'{"conversations": [')
        with pytest.raises(CorruptRecordError) as caught:
            store.load_conversations()
        assert (caught.value.line, caught.value.offset) == (2, size)


def hold(path: Path, held: object, done: object) -> None:
    with FileLock(path):
        held.set()  # type: ignore[attr-defined]
        done.wait(30)  # type: ignore[attr-defined]


class TestLocks:
    def test_a_save_gives_up_in_time_and_names_the_holder(self, tmp_path: Path) -> None:
        store = JSONLStorage(tmp_path / "talks.jsonl", tmp_path / "texts.jsonl", lock_timeout=1)
        spawn = multiprocessing.get_context("spawn")
        held, done = spawn.Event(), spawn.Event()
        holder = spawn.Process(target=hold, args=[store.conversations_lock_path, held, done])
        holder.start()
        try:
            assert held.wait(30)
            with pytest.raises(LockTimeoutError, match=rf"process {holder.pid}\b"):
                store.save_conversations([record("one")])
        finally:
            done.set()
            holder.join()
        store.save_conversations([record("one")])
        assert texts(store) == ["one"]
