"""Iterators that are kept: several threads, `close`, `with`, the collector, forks."""

from __future__ import annotations

import gc
import multiprocessing
import threading
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Any

import pytest

from afterimage.storage import Document
from tests.support.factories import Storage
from tests.support.processes import KINDS, opened
from tests.support.records import conversation

_RECORDS = 6000


def _filled(kind: str, folder: Path) -> Storage:
    """More records than are read at once, so that the file stays open."""
    storage = opened(kind, folder)
    storage.save_conversations(
        [conversation("x" * 1000, {"n": at}) for at in range(_RECORDS)],
    )
    storage.save_documents([Document(id=str(at), text="x" * 1000) for at in range(_RECORDS)])
    return storage


@pytest.fixture(scope="module", params=KINDS)
def filled(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Storage:
    return _filled(request.param, tmp_path_factory.mktemp(request.param))


_ITERATORS: dict[str, Callable[[Any], Any]] = {
    "conversations": lambda storage: storage.iter_conversations(batch_size=100),
    "documents": lambda storage: storage.iter_documents(batch_size=100),
    "sorted": lambda storage: storage.iter_conversations(
        order_by=[("metadata.n", 1)], batch_size=100
    ),
}


def _key(record: Any) -> int:
    return int(record.id) if isinstance(record, Document) else record.metadata["n"]


def _in_threads(work: Callable[[], None], count: int = 4) -> None:
    threads = [threading.Thread(target=work) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive()


def _can_save(storage: Storage) -> bool:
    """Whether another process can, without waiting for long."""
    context = multiprocessing.get_context("spawn")
    with context.Pool(1) as pool:
        return pool.apply(_save_one, (_place(storage),))


def _place(storage: Any) -> tuple[str, Path]:
    if hasattr(storage, "conversations_path"):
        return "jsonl", storage.conversations_path.parent
    return "sql", Path(storage._backend.database.name).parent


def _save_one(place: tuple[str, Path]) -> bool:
    opened(*place, lock_timeout=2).save_documents([])
    opened(*place, lock_timeout=2).save_conversations([conversation("y", {"n": -1})])
    return True


class TestThreads:
    @pytest.mark.parametrize("which", _ITERATORS)
    def test_each_record_is_given_once_whatever_thread_asks(
        self, filled: Storage, which: str
    ) -> None:
        records = _ITERATORS[which](filled)
        found: list[int] = []

        def read() -> None:
            found.extend(map(_key, records))

        _in_threads(read)
        assert sorted(found) == list(range(_RECORDS))

    @pytest.mark.parametrize("scan", ["scan_conversations", "scan_documents"])
    def test_each_batch_of_a_scan_is_given_once(self, filled: Storage, scan: str) -> None:
        reader = getattr(filled, scan)()
        sizes: list[int] = []

        def read() -> None:
            while True:
                try:
                    sizes.append(reader.read_next_batch().num_rows)
                except StopIteration:
                    return

        _in_threads(read)
        assert sum(sizes) == _RECORDS

    def test_one_thread_closes_what_others_read(self, filled: Storage) -> None:
        records = filled.iter_conversations(batch_size=10)
        started = threading.Event()

        def read() -> None:
            for _ in records:
                started.set()

        def close() -> None:
            started.wait(30)
            records.close()

        threads = [threading.Thread(target=each) for each in (read, read, read, close)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
            assert not thread.is_alive()
        assert list(records) == []


class TestClosing:
    def test_a_closed_iterator_is_at_its_end(self, filled: Storage) -> None:
        records = filled.iter_conversations(batch_size=100)
        next(records)
        records.close()
        records.close()
        with pytest.raises(StopIteration):
            next(records)

    def test_one_that_was_not_begun_is_closed_too(self, filled: Storage) -> None:
        records = filled.iter_documents()
        records.close()
        assert list(records) == []

    def test_it_goes_on_being_at_its_end(self, filled: Storage) -> None:
        records = filled.iter_documents(limit=3)
        assert len(list(records)) == 3
        assert list(records) == []

    @pytest.mark.process
    @pytest.mark.parametrize("how", ["close", "with", "del"])
    def test_the_file_is_free_for_other_processes(self, tmp_path: Path, how: str) -> None:
        storage = _filled("sql", tmp_path)
        records = storage.iter_conversations(batch_size=10)
        next(records)
        if how == "close":
            records.close()
        elif how == "with":
            with records:
                next(records)
        else:
            del records
            gc.collect()
        assert _can_save(storage)

    def test_leaving_a_block_by_an_error_closes(self, filled: Storage) -> None:
        with pytest.raises(ValueError, match="mine"), filled.iter_conversations() as records:
            raise ValueError("mine")
        assert list(records) == []

    def test_what_an_iterator_skipped_is_reported_when_it_is_closed(self, tmp_path: Path) -> None:
        storage = opened("jsonl", tmp_path)
        storage.save_conversations([conversation("a", {})])
        with (tmp_path / "talks.jsonl").open("a") as file:
            file.write("{}}\n")
        storage.save_conversations([conversation("b", {})])
        records = storage.iter_conversations(on_error="skip", batch_size=2)
        next(records)
        next(records)
        with pytest.warns(UserWarning, match="skipped 1 corrupt record"):
            records.close()


def _forked(work: Callable[[], Any]) -> str | None:
    context = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe(duplex=False)

    def run() -> None:
        try:
            theirs.send(work())
        except BaseException as error:
            theirs.send(f"{type(error).__name__}: {error}")

    process = context.Process(target=run)
    process.start()
    try:
        assert ours.poll(30), "the child hangs"
        told: str | None = ours.recv()
    finally:
        process.join(10)
        process.kill()
        process.join()
    return told


@pytest.mark.skipif(
    "fork" not in multiprocessing.get_all_start_methods(), reason="this system has no fork"
)
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
class TestForks:
    @pytest.mark.parametrize("which", _ITERATORS)
    def test_a_child_gets_a_clear_error_and_the_parent_goes_on(
        self, filled: Storage, which: str
    ) -> None:
        records = _ITERATORS[which](filled)
        found = [_key(record) for record in islice(records, 150)]

        def read() -> None:
            for _ in records:
                pass

        told = _forked(read)
        assert told is not None
        assert told.startswith("StorageError: this iteration was begun in process")
        assert "Call the storage again" in told
        found += [_key(record) for record in records]
        assert found == list(range(_RECORDS))

    @pytest.mark.parametrize("how", ["close", "collect"])
    def test_a_child_that_drops_it_touches_nothing_of_the_parent(
        self, filled: Storage, how: str
    ) -> None:
        held = [filled.iter_conversations(batch_size=100)]
        found = [next(held[0]).metadata["n"] for _ in range(150)]

        def drop() -> None:
            if how == "close":
                held[0].close()
            held.clear()
            gc.collect()

        assert _forked(drop) is None
        found += [record.metadata["n"] for record in held[0]]
        assert found == list(range(_RECORDS))

    @pytest.mark.parametrize("scan", ["scan_conversations", "scan_documents"])
    def test_a_scan_is_refused_in_a_child_too(self, filled: Storage, scan: str) -> None:
        reader = getattr(filled, scan)()
        rows = reader.read_next_batch().num_rows

        def read() -> None:
            while True:
                reader.read_next_batch()

        told = _forked(read)
        assert told is not None
        assert "this iteration was begun in process" in told
        assert rows + reader.read_all().num_rows == _RECORDS

    def test_a_new_call_in_the_child_works(self, tmp_path: Path) -> None:
        storage = _filled("jsonl", tmp_path)
        records = storage.iter_conversations(batch_size=100)
        next(records)

        def read() -> str:
            return str(sum(1 for _ in storage.iter_conversations()))

        assert _forked(read) == str(_RECORDS)
        assert sum(1 for _ in records) == _RECORDS - 1
