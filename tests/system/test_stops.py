"""Signals at random moments: each ends the call with its exception, and leaves nothing behind.

A child process uses one storage in every way, again and again. It is stopped at random moments.
Then another process, this one, must be able to write at once, and all saves that have returned must
be there, whole. `AFTERIMAGE_STOPS=200 pytest tests/system/test_stops.py` makes more stops.
"""

from __future__ import annotations

import asyncio
import collections
import multiprocessing
import os
import random
import signal
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import pytest

from afterimage.storage import Document, LockTimeoutError
from afterimage.storage.system.interrupts import deferred_signals
from tests.support.factories import Storage
from tests.support.processes import KINDS, child, opened
from tests.support.records import conversation, numbered_batch

STOPS = int(os.environ.get("AFTERIMAGE_STOPS", "40"))
"""Stops of each kind of storage."""

# A stop takes less than a second on a machine that does nothing else.
_SOON = 5
_MANY = 1500
_FIRST = 4000

pytestmark = pytest.mark.skipif(os.name != "posix", reason="other systems have no such signals")


def _works(
    storage: Any, folder: Path, save: Callable[[int], None], cancelled: Callable[[], Any]
) -> dict[str, Callable[[], Any]]:
    """Every way to use a storage."""
    newest: dict[str, Any] = {"order_by": [("metadata.at", -1)]}
    documents = [Document(text="x" * 500)] * 300
    kind = "sql" if hasattr(storage, "engine") else "jsonl"

    def part_of_an_iteration() -> None:
        with storage.iter_conversations(batch_size=50) as records:
            for _ in range(1200):
                next(records)

    def part_of_a_scan() -> None:
        storage.scan_conversations(["metadata.at", "conversations"]).read_next_batch()

    def sql() -> None:
        if kind == "sql":
            with storage.engine.connect() as connection:
                connection.exec_driver_sql("SELECT count(*) FROM messages").all()

    return {
        "save one": lambda: save(1),
        "save many": lambda: save(_MANY),
        "save in a task": cancelled,
        "save documents": lambda: storage.save_documents(documents),
        "load": lambda: storage.load_conversations(limit=1500),
        "sorted": lambda: storage.load_conversations(limit=1500, **newest),
        "filtered": lambda: storage.load_conversations(filters={"metadata.at": 3}),
        "page": lambda: storage.load_conversations(limit=10, **newest),
        "iterate": lambda: collections.deque(storage.iter_conversations(limit=2500), maxlen=0),
        "iterate in part": part_of_an_iteration,
        "scan": lambda: storage.scan_conversations(["metadata.at", "conversations"]).read_all(),
        "scan sorted": lambda: storage.scan_conversations(["metadata.at"], **newest).read_all(),
        "scan in part": part_of_a_scan,
        "count": lambda: storage.count_conversations({"metadata.at": 1}),
        "stats": storage.stats,
        "verify": storage.verify,
        "import": lambda: storage.import_jsonl(folder / "more.jsonl", kind="documents"),
        "export": lambda: storage.export_jsonl(folder / "all.jsonl.gz", limit=1000),
        "export format": lambda: storage.export_jsonl(folder / "all.jsonl", format="messages"),
        "export Parquet": lambda: storage.export_parquet(folder / "all.parquet"),
        "sql": sql,
        "open": lambda: opened(kind, folder).count_documents(),
    }


def use_until_stopped(pipe: Connection, orders: Connection, kind: str, folder: Path) -> None:
    """Use a storage until a signal comes; send what came out, and go on."""
    storage = opened(kind, folder)
    returned: list[int] = []
    last = 0
    # Made before: Python drops a signal's exception where the collector, which runs while models
    # are built, has just called a finalizer.
    batches = {size: numbered_batch(0, size) for size in (1, _MANY)}

    def save(size: int) -> None:
        nonlocal last
        last += 1
        for record in batches[size]:
            record.metadata["batch"] = last
        storage.save_conversations(batches[size])
        returned.append(last)

    async def save_and_cancel() -> None:
        nonlocal last
        last += 1
        for record in batches[_MANY]:
            record.metadata["batch"] = last
        task = asyncio.create_task(storage.asave_conversations(batches[_MANY]))
        await asyncio.sleep(random.uniform(0.0, 0.08))
        task.cancel()
        await asyncio.wait([task])
        if not task.cancelled():
            task.result()
            returned.append(last)

    def cancelled() -> None:
        # An event loop may drop the exception of a handler. So it runs in another thread, and the
        # signal is raised when that thread has ended.
        with deferred_signals():
            thread = threading.Thread(target=asyncio.run, args=[save_and_cancel()])
            thread.start()
            thread.join()

    def on_alarm(number: int, frame: Any) -> None:
        raise TimeoutError("it took too long")

    handlers = (signal.default_int_handler, on_alarm)
    signal.signal(signal.SIGINT, handlers[0])
    signal.signal(signal.SIGALRM, handlers[1])
    works = _works(storage, folder, save, cancelled)
    kept: list[BaseException] = []  # with all frames, as a notebook keeps the last one
    while (order := orders.recv()) != "end":
        name = ""
        try:
            pipe.send("busy")
            while True:
                name = random.choice([*works])
                works[name]()
        except BaseException as error:
            kept[:] = [error] if order == "keep" else []
            text = f"{type(error).__name__}: {error}"
            place = "".join(traceback.format_exception(error))
        pipe.send((text, name, place, list(returned)))
        assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGALRM)) == handlers
    # The same object goes on: none of its calls is broken.
    for work in works.values():
        work()
    kept.clear()
    pipe.send("went on")


# -- the process that stops it and writes at once ------------------------------------------------


@contextmanager
def _using(kind: str, folder: Path) -> Iterator[tuple[Any, Connection, Connection]]:
    storage = opened(kind, folder)
    storage.save_conversations(numbered_batch(0, _FIRST))
    lines = (f'{{"text":"{"y" * 400}","id":"{at}"}}\n' for at in range(3000))
    (folder / "more.jsonl").write_text("".join(lines))
    theirs, orders = multiprocessing.Pipe(duplex=False)
    with child(use_until_stopped, theirs, kind, folder) as (process, pipe):
        yield process, pipe, orders


def _answer(pipe: Connection, seconds: float, what: str) -> Any:
    if not pipe.poll(seconds):
        pytest.fail(f"{what}: no answer after {seconds} s")
    return pipe.recv()


def _check_saves(storage: Storage, returned: list[int]) -> None:
    found = storage.scan_conversations(["metadata.batch"]).read_all()
    sizes = collections.Counter(map(int, found.column(0).to_pylist()))
    assert sizes.pop(0) == _FIRST
    assert set(sizes) >= set(returned)
    for number, size in sizes.items():
        assert size == 1 if number < 0 else size in (1, _MANY), f"{size} records of {number}"


@pytest.mark.slow
class TestStops:
    @pytest.mark.parametrize("kind", KINDS)
    def test_each_comes_out_as_its_exception_and_another_process_writes_at_once(
        self, kind: str, tmp_path: Path
    ) -> None:
        seed = random.randrange(2**32)
        chance = random.Random(seed)
        returned: list[int] = []
        with _using(kind, tmp_path) as (process, pipe, orders):
            storage = opened(kind, tmp_path, lock_timeout=0.5)
            for stop in range(STOPS):
                orders.send(chance.choice(["keep", "drop"]))
                assert _answer(pipe, 120, f"stop {stop}, seed {seed}") == "busy"
                number, expected = chance.choice(
                    [
                        (signal.SIGINT, "KeyboardInterrupt: "),
                        (signal.SIGALRM, "TimeoutError: it took too long"),
                    ]
                )
                time.sleep(chance.uniform(0.0, 0.5))
                sent = time.monotonic()
                os.kill(process.pid, number)
                text, name, place, returned = _answer(pipe, 60, f"stop {stop}, seed {seed}")
                took = time.monotonic() - sent
                here = f"{name}, stop {stop}, seed {seed}: {took:.2f} s, {place}"
                assert text == expected, here
                assert took < _SOON, here
                try:
                    storage.save_conversations([conversation("", {"batch": -stop - 1, "at": 0})])
                    storage.save_documents([Document(text="mine")])
                except LockTimeoutError as error:
                    pytest.fail(f"{error}: {here}")
                if stop % 8 == 0:
                    _check_saves(storage, returned)
            orders.send("end")
            assert _answer(pipe, 120, f"going on, seed {seed}") == "went on"
            _check_saves(storage, returned)
            report = storage.verify()  # ids are there twice, as the same file is imported again
            assert (report.corrupt.count, report.torn_tails.count) == (0, 0)
            left = [*tmp_path.glob("*.saving"), *tmp_path.glob(".*"), *tmp_path.glob("*.torn-*")]
            assert left == []


_NOTEBOOK = """
import collections, itertools
from pathlib import Path
from tests.support.processes import opened
from tests.support.records import conversation

storage = opened({kind!r}, Path({folder!r}))
batch = [conversation("x" * 1500, {{"batch": 1, "at": at}}) for at in range(1000)]
returned = 0
"""

_CELL = """
for turn in itertools.count():
    storage.save_conversations(batch)
    returned += 1
    storage.load_conversations(limit=1000, order_by=[("metadata.at", -1)])
    collections.deque(storage.iter_conversations(limit=1500), maxlen=0)
    storage.scan_conversations(["metadata.at"]).read_all()
    storage.stats()
"""


def _reply(client: Any, sent: str) -> Any:
    """The answer of a kernel to a cell."""
    while (message := client.get_shell_msg(timeout=60))["parent_header"]["msg_id"] != sent:
        pass
    return message["content"]


class TestNotebooks:
    @pytest.mark.parametrize("kind", KINDS)
    def test_the_stop_button(self, kind: str, tmp_path: Path) -> None:
        pytest.importorskip("ipykernel", reason="the notebooks' requirements are not installed")
        manager = pytest.importorskip("jupyter_client.manager")
        storage = opened(kind, tmp_path, lock_timeout=0.5)
        storage.save_conversations(numbered_batch(0, 1))
        root = str(Path(__file__).parents[2])
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join([root, f"{root}/src"])}
        kernel, client = manager.start_new_kernel(env=environment)
        chance = random.Random(4)
        try:
            cell = _NOTEBOOK.format(kind=kind, folder=str(tmp_path))
            assert _reply(client, client.execute(cell))["status"] == "ok"
            for _ in range(max(4, STOPS // 8)):
                sent = client.execute(_CELL)
                time.sleep(chance.uniform(0.3, 1.0))
                kernel.interrupt_kernel()
                started = time.monotonic()
                reply = _reply(client, sent)
                assert time.monotonic() - started < _SOON
                assert reply.get("ename") == "KeyboardInterrupt", reply
                storage.save_documents([Document(text="mine")])
                storage.save_conversations(numbered_batch(2, 1))
            code = "assert storage.count_conversations({'metadata.batch': 1}) >= 1000 * returned"
            assert _reply(client, client.execute(code))["status"] == "ok"
        finally:
            client.stop_channels()
            kernel.shutdown_kernel(now=True)
