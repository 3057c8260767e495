"""Both storages: asynchronous saves and saves from several threads."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import Any

import pytest

from afterimage.storage import (
    Document,
    InvalidRecordError,
)
from tests.support.records import conversation, firsts


class TestAsyncSaves:
    def test_records_are_there_after_the_await(self, storage: Any) -> None:
        async def save() -> int:
            await storage.asave_conversations([conversation("a")])
            await storage.asave_documents([Document(id="d")])
            count: int = storage.count_conversations()
            return count

        assert asyncio.run(save()) == 1
        assert firsts(storage.load_conversations()) == ["a"]
        assert [loaded.id for loaded in storage.load_documents()] == ["d"]

    def test_they_run_the_overridden_sync_method_in_a_worker_thread(
        self, make_storage: Callable[..., Any]
    ) -> None:
        threads: list[int] = []

        class Stamping:
            def save_conversations(self, records: list[Any]) -> None:
                threads.append(threading.get_ident())
                for record in records:
                    record.metadata["stamped"] = True
                super().save_conversations(records)  # type: ignore[misc]

            def save_documents(self, records: list[Any]) -> None:
                threads.append(threading.get_ident())
                super().save_documents(records)  # type: ignore[misc]

        storage = make_storage(Stamping)
        asyncio.run(storage.asave_conversations([conversation()]))
        asyncio.run(storage.asave_documents([Document()]))
        assert [loaded.metadata for loaded in storage.load_conversations()] == [{"stamped": True}]
        assert storage.count_documents() == 1
        assert len(threads) == 2
        assert threading.get_ident() not in threads

    def test_many_at_once(self, storage: Any) -> None:
        async def save_all() -> None:
            await asyncio.gather(
                *(storage.asave_conversations([conversation(f"{n}")] * 2) for n in range(20))
            )

        asyncio.run(save_all())
        loaded = firsts(storage.load_conversations())
        assert sorted(loaded[::2], key=int) == [str(n) for n in range(20)]
        assert loaded[::2] == loaded[1::2]  # no batch was torn apart by another

    def test_an_error_reaches_the_caller(self, storage: Any) -> None:
        with pytest.raises(InvalidRecordError):
            asyncio.run(storage.asave_conversations([conversation("\ud800")]))
        assert storage.count_conversations() == 0


class TestThreads:
    def test_saves_from_several_threads_are_all_kept_in_their_order(self, storage: Any) -> None:
        failures: list[BaseException] = []

        def save(thread: int) -> None:
            try:
                for batch in range(5):
                    storage.save_conversations(
                        [conversation(f"{thread} {batch}"), conversation(f"{thread} {batch}")]
                    )
                    storage.load_conversations(limit=3)
            except BaseException as error:
                failures.append(error)

        threads = [threading.Thread(target=save, args=[n]) for n in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert failures == []
        loaded = firsts(storage.load_conversations())
        assert len(loaded) == 40
        assert loaded[::2] == loaded[1::2]
        for number in range(4):
            own = [each for each in loaded[::2] if each.startswith(f"{number} ")]
            assert own == [f"{number} {batch}" for batch in range(5)]
