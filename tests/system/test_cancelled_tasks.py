"""A cancelled task: its save ends first, with everything stored or nothing."""

from __future__ import annotations

import asyncio
import multiprocessing
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import pytest

from afterimage.storage import Document, InvalidRecordError
from afterimage.storage.system.locks import LockFile
from tests.support.processes import KINDS, child, opened, told_by
from tests.support.records import conversation, conversations, firsts


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    kind: str = request.param
    return kind


def _file(kind: str, folder: Path) -> Path:
    return folder / ("talks.jsonl" if kind == "jsonl" else "store.duckdb")


def hold_the_lock(pipe: Connection, orders: Connection, path: Path) -> None:
    lock = LockFile(path)
    assert lock.acquire()
    pipe.send("held")
    orders.recv()
    lock.release()


class TestCancelledSaves:
    def test_at_any_moment_a_save_has_ended_when_the_cancellation_is_raised(
        self, kind: str, tmp_path: Path
    ) -> None:
        store = opened(kind, tmp_path)
        batch: list[Any] = conversations(*({"n": n} for n in range(3000)))

        async def run() -> list[int]:
            found = []
            for step in range(8):
                try:
                    async with asyncio.timeout(0.015 * step):
                        await store.asave_conversations(batch)
                except TimeoutError:
                    pass
                found.append(store.count_conversations())
            await asyncio.sleep(0.2)
            assert store.count_conversations() == found[-1]
            return found

        found = asyncio.run(run())
        assert {count % 3000 for count in found} == {0}
        assert store.verify().ok

    def test_a_save_that_waits_for_a_lock_stores_nothing(self, kind: str, tmp_path: Path) -> None:
        store = opened(kind, tmp_path)
        store.save_conversations([conversation("a")])
        lock = LockFile(_file(kind, tmp_path))

        async def run() -> float:
            started = time.monotonic()
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.1):
                    await store.asave_conversations([conversation("b")])
            return time.monotonic() - started

        assert lock.acquire()
        assert asyncio.run(run()) < 5  # not the 30 s of `lock_timeout`
        lock.release()
        assert store.count_conversations() == 1
        store.save_conversations([conversation("b")])

    def test_a_save_that_waits_for_a_thread_never_begins(self, kind: str, tmp_path: Path) -> None:
        store = opened(kind, tmp_path)
        store.save_conversations([conversation("a")])
        lock = LockFile(_file(kind, tmp_path))

        async def run() -> float:
            asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(1))
            first = asyncio.create_task(store.asave_conversations([conversation("b")]))
            await asyncio.sleep(0.05)
            started = time.monotonic()
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.05):
                    await store.asave_conversations([conversation("c")])
            took = time.monotonic() - started
            lock.release()
            await first
            return took

        assert lock.acquire()
        assert asyncio.run(run()) < 5  # not the 30 s of `lock_timeout` of the save before it
        assert firsts(store.load_conversations()) == ["a", "b"]

    def test_a_group_of_tasks_of_which_one_fails(self, kind: str, tmp_path: Path) -> None:
        store = opened(kind, tmp_path)

        async def fail(seconds: float) -> None:
            await asyncio.sleep(seconds)
            raise LookupError

        async def run(turn: int) -> None:
            talks: list[Any] = conversations(*({"turn": turn} for _ in range(900)))
            texts = [Document(metadata={"turn": turn}) for _ in range(900)]
            with pytest.raises(ExceptionGroup, match="unhandled"):  # noqa: PT012
                async with asyncio.TaskGroup() as group:
                    for at in range(0, 900, 300):
                        group.create_task(store.asave_conversations(talks[at : at + 300]))
                        group.create_task(store.asave_documents(texts[at : at + 300]))
                    group.create_task(fail(0.01 * turn))
            found = (store.count_conversations(), store.count_documents())
            await asyncio.sleep(0.02)
            assert (store.count_conversations(), store.count_documents()) == found
            assert [count % 300 for count in found] == [0, 0]

        for turn in range(6):
            asyncio.run(run(turn))
        assert store.verify().ok

    def test_saves_that_are_tried_again_are_stored_once(self, kind: str, tmp_path: Path) -> None:
        store = opened(kind, tmp_path)

        async def save(number: int) -> None:
            batch: list[Any] = conversations(*({"save": number} for _ in range(400)))
            seconds = 0.001
            while not store.count_conversations({"metadata.save": number}):
                seconds *= 1.7
                with suppress(TimeoutError):
                    async with asyncio.timeout(seconds):
                        await store.asave_conversations(batch)

        for number in range(4):
            asyncio.run(save(number))
        found = [store.count_conversations({"metadata.save": number}) for number in range(4)]
        assert found == [400] * 4

    @pytest.mark.process
    def test_saves_that_wait_for_another_process(self, kind: str, tmp_path: Path) -> None:
        store = opened(kind, tmp_path)
        store.save_conversations([conversation("a")])
        theirs, orders = multiprocessing.Pipe(duplex=False)

        async def run() -> float:
            started = time.monotonic()
            with pytest.raises(TimeoutError):  # noqa: PT012
                async with asyncio.timeout(0.1), asyncio.TaskGroup() as group:
                    for text in "bcdefghijklmnop":
                        group.create_task(store.asave_conversations([conversation(text)]))
            return time.monotonic() - started

        with child(hold_the_lock, theirs, _file(kind, tmp_path)) as (process, pipe):
            assert pipe.recv() == "held"
            assert asyncio.run(run()) < 5
            orders.send("release")
            assert told_by(process, pipe) == []
        assert firsts(store.load_conversations()) == ["a"]
        asyncio.run(store.asave_conversations([conversation("q")]))
        assert firsts(store.load_conversations()) == ["a", "q"]

    def test_cancelled_twice(self, kind: str, tmp_path: Path) -> None:
        store = opened(kind, tmp_path)

        async def run() -> None:
            task = asyncio.create_task(store.asave_documents([Document(text="x" * 900)] * 9000))
            await asyncio.sleep(0.02)
            task.cancel()
            await asyncio.sleep(0)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert store.count_documents() in (0, 9000)

        asyncio.run(run())

    def test_results_and_errors_are_those_of_the_save(self, kind: str, tmp_path: Path) -> None:
        store = opened(kind, tmp_path)
        asyncio.run(store.asave_conversations([conversation("a")]))
        with pytest.raises(InvalidRecordError):
            asyncio.run(store.asave_conversations([conversation("a", {"x": "\ud800"})]))
        assert store.count_conversations() == 1

    @pytest.mark.process
    def test_in_an_atexit_function_a_save_works(self, kind: str, tmp_path: Path) -> None:
        code = (
            "import asyncio, atexit, sys\n"
            "from pathlib import Path\n"
            "from tests.support.processes import opened\n"
            "from tests.support.records import conversation\n"
            "store = opened(sys.argv[1], Path(sys.argv[2]))\n"
            "save = store.asave_conversations\n"
            "atexit.register(lambda: asyncio.run(save([conversation('a')])))\n"
        )
        done = subprocess.run(
            [sys.executable, "-c", code, kind, str(tmp_path)],
            capture_output=True,
            text=True,
            check=False,
            env={"PYTHONPATH": ":".join(sys.path)},
        )
        assert (done.returncode, done.stderr) == (0, "")
        assert opened(kind, tmp_path).count_conversations() == 1
