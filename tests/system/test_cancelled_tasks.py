"""A cancelled task: its save ends first, with everything stored or nothing."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from afterimage.storage import Document, InvalidRecordError
from afterimage.storage.system.locks import LockFile
from tests.support.processes import KINDS, opened
from tests.support.records import conversation, conversations


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    kind: str = request.param
    return kind


def _file(kind: str, folder: Path) -> Path:
    return folder / ("talks.jsonl" if kind == "jsonl" else "store.duckdb")


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
