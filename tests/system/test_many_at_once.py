"""Eight writers and four readers on one file: every record once, no error, no partial batch.

They are processes (spawned, or forked from one that has used the storage before), threads, or
tasks of one event loop.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import pytest

from tests.support.factories import Storage
from tests.support.processes import KINDS, LONG, broken_batches, child, opened, told_by
from tests.support.records import conversation

pytestmark = [pytest.mark.process, pytest.mark.slow]

WRITERS, READERS = 8, 4
RECORDS = 5


def batch(writer: int, number: int, size: int = 20) -> list[Any]:
    return [
        conversation("x" * size, {"batch": f"{writer} {number}", "at": at, "of": RECORDS})
        for at in range(RECORDS)
    ]


def write(storage: Storage, writer: int, batches: int) -> None:
    for number in range(batches):
        storage.save_conversations(batch(writer, number))


def read(storage: Storage, over: Callable[[], bool]) -> int:
    """Read until the writers end; each read has complete batches, and no fewer than before."""
    seen = reads = 0
    while not over():
        if reads % 2:
            metadata = [record.metadata for record in storage.load_conversations()]
        else:
            columns = ["metadata.batch", "metadata.at", "metadata.of"]
            metadata = [
                {"batch": b, "at": int(at), "of": int(of)}
                for b, at, of in zip(
                    *storage.scan_conversations(columns).read_all().to_pydict().values(),
                    strict=True,
                )
            ]
        assert broken_batches(metadata) == []
        assert len(metadata) >= seen
        seen = len(metadata)
        reads += 1
        time.sleep(0.05)  # a reader without a pause would block all others
    return reads


def run_together(writers: Sequence[Any], readers: Sequence[Any], over: Any) -> None:
    """Run processes or threads to their end; the readers stop after the writers."""
    for each in [*readers, *writers]:
        each.start()
    for writer in writers:
        writer.join()
    over.set()
    for reader in readers:
        reader.join()


def assert_all_there(storage: Storage, batches: int) -> None:
    metadata = [record.metadata for record in storage.load_conversations()]
    assert broken_batches(metadata) == []
    found = [each["batch"] for each in metadata if each["at"] == 0]
    assert sorted(found) == sorted(f"{w} {n}" for w in range(WRITERS) for n in range(batches))
    for writer in range(WRITERS):  # each writer's batches are in order
        own = [each for each in found if each.startswith(f"{writer} ")]
        assert own == [f"{writer} {number}" for number in range(batches)]


# -- processes ----------------------------------------------------------------------------------


def writing_process(kind: str, folder: Path, writer: int, batches: int, failures: Any) -> None:
    try:
        write(opened(kind, folder), writer, batches)
    except BaseException:
        failures.put(traceback.format_exc())


def reading_process(kind: str, folder: Path, over: Any, failures: Any) -> None:
    try:
        read(opened(kind, folder), over.is_set)
    except BaseException:
        failures.put(traceback.format_exc())


def crowd(pipe: Connection, method: str, kind: str, folder: Path, batches: int) -> None:
    """Start all processes with `method`, and return their errors."""
    context: Any = multiprocessing.get_context(method)
    over, failures = context.Event(), context.SimpleQueue()
    storage = opened(kind, folder)
    storage.save_documents([])
    assert storage.count_conversations() == 0  # the fork happens after the first use
    writers = [
        context.Process(target=writing_process, args=[kind, folder, writer, batches, failures])
        for writer in range(WRITERS)
    ]
    readers = [
        context.Process(target=reading_process, args=[kind, folder, over, failures])
        for _ in range(READERS)
    ]
    run_together(writers, readers, over)
    pipe.send([process.exitcode for process in [*readers, *writers]])
    while not failures.empty():
        pipe.send(failures.get())


@pytest.mark.parametrize("kind", KINDS)
class TestProcesses:
    @pytest.mark.parametrize(
        ("method", "batches"), [("fork", 12), pytest.param("spawn", 4, marks=pytest.mark.slow)]
    )
    def test_every_record_is_stored_once_and_no_batch_is_split(
        self, tmp_path: Path, kind: str, method: str, batches: int
    ) -> None:
        if method not in multiprocessing.get_all_start_methods():
            pytest.skip(f"this system has no {method}")
        batches *= LONG
        with child(crowd, method, kind, tmp_path, batches) as (process, pipe):
            assert told_by(process, pipe, 120 * LONG) == [[0] * (WRITERS + READERS)]
        assert_all_there(opened(kind, tmp_path), batches)


# -- threads and tasks --------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
class TestOneProcess:
    def test_threads(self, tmp_path: Path, kind: str) -> None:
        storage = opened(kind, tmp_path)
        batches = 12 * LONG
        over = threading.Event()
        failures: list[str] = []

        def run(work: Callable[..., Any], *arguments: Any) -> None:
            try:
                # Half of them have their own storage.
                own = storage if threading.get_native_id() % 2 else opened(kind, tmp_path)
                work(own, *arguments)
            except BaseException:
                failures.append(traceback.format_exc())

        readers = [threading.Thread(target=run, args=[read, over.is_set]) for _ in range(READERS)]
        writers = [threading.Thread(target=run, args=[write, w, batches]) for w in range(WRITERS)]
        run_together(writers, readers, over)
        assert failures == []
        assert_all_there(storage, batches)

    def test_tasks_of_an_event_loop(self, tmp_path: Path, kind: str) -> None:
        storage = opened(kind, tmp_path)
        batches = 6 * LONG

        async def save(writer: int) -> None:
            for number in range(batches):
                await storage.asave_conversations(batch(writer, number))

        async def run() -> list[int]:
            over = threading.Event()
            readers = [
                asyncio.ensure_future(asyncio.to_thread(read, storage, over.is_set))
                for _ in range(READERS)
            ]
            await asyncio.gather(*(save(writer) for writer in range(WRITERS)))
            over.set()
            return await asyncio.gather(*readers)

        assert min(asyncio.run(run())) > 0
        assert_all_there(storage, batches)


# -- large records ------------------------------------------------------------------------------


def write_large(pipe: Connection, kind: str, folder: Path, writer: int, batches: int) -> None:
    storage = opened(kind, folder)
    for number in range(batches):
        storage.save_conversations(
            [conversation("é" * 150_000, {"batch": f"{writer} {number}", "at": 0, "of": 1})]
        )
    pipe.send("done")


@pytest.mark.parametrize(
    ("kind", "batches"), [("jsonl", 50), pytest.param("sql", 5, marks=pytest.mark.slow)]
)
def test_eight_processes_append_large_records(tmp_path: Path, kind: str, batches: int) -> None:
    from contextlib import ExitStack

    with ExitStack() as stack:
        writers = [
            stack.enter_context(child(write_large, kind, tmp_path, writer, batches))
            for writer in range(WRITERS)
        ]
        for _, pipe in writers:
            assert pipe.recv() == "done"
    storage = opened(kind, tmp_path)
    if kind == "jsonl":
        assert (tmp_path / "talks.jsonl").stat().st_size > WRITERS * batches * 300_000
    found = []
    for record in storage.iter_conversations(batch_size=10):
        assert record.conversations[0].content == "é" * 150_000
        found.append(record.metadata["batch"])
    assert sorted(found) == sorted(f"{w} {n}" for w in range(WRITERS) for n in range(batches))
