"""Signals at random moments: each ends the call with its exception, and leaves nothing behind.

A child process uses one storage in every way, again and again. It is stopped at random moments.
Then another process, this one, must be able to write at once, and all saves that have returned must
be there, whole. `AFTERIMAGE_STOPS=200 pytest tests/system/test_stops.py` makes more stops.
"""

from __future__ import annotations

import asyncio
import collections
import io
import itertools
import json
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

from afterimage.storage import Conversation, Document, LockTimeoutError
from afterimage.storage.system.interrupts import deferred_signals
from tests.support.processes import KINDS, child, opened
from tests.support.records import conversation, numbered_batch

STOPS = int(os.environ.get("AFTERIMAGE_STOPS", "40"))
"""Stops of each kind of storage."""

# A stop takes less than a second on a machine that does nothing else.
_SOON = 5
_MANY = 1500
_TEXTS = 300
_FIRST = 4000
_TALK_LINES = 1000
_TEXT_LINES = 3000
_IMPORTED = 10**9

pytestmark = pytest.mark.skipif(os.name != "posix", reason="other systems have no such signals")


class _Use:
    """Every way to use a storage, with what its saves and imports have acknowledged.

    Attributes:
        returned: for each kind, the number of records with each number in `metadata.batch`.
    """

    def __init__(self, kind: str, folder: Path) -> None:
        self.kind, self.folder = kind, folder
        self.storage: Any = opened(kind, folder)
        self.returned: dict[str, collections.Counter[int]] = {
            "conversations": collections.Counter(),
            "documents": collections.Counter(),
        }
        self._last = 0
        self._names = itertools.count()
        # Made before: Python drops a signal's exception where the collector, which runs while
        # models are built, has just called a finalizer.
        self._batches = {size: numbered_batch(0, size) for size in (1, _MANY)}
        self._texts = [Document(text="x" * 500) for _ in range(_TEXTS)]
        self._lines = {
            "conversations": (folder / "talks-more.jsonl").read_bytes(),
            "documents": (folder / "more.jsonl").read_bytes(),
        }

    def _numbered(self, batch: list[Any]) -> list[Any]:
        self._last += 1
        for record in batch:
            record.metadata["batch"] = self._last
        return batch

    def save(self, size: int) -> None:
        self.storage.save_conversations(self._numbered(self._batches[size]))
        self.returned["conversations"][self._last] = size

    def save_texts(self) -> None:
        self.storage.save_documents(self._numbered(self._texts))
        self.returned["documents"][self._last] = _TEXTS

    def add(self, kind: str, source: Any) -> None:
        many = self.storage.import_jsonl(source, kind=kind)
        self.returned[kind][_IMPORTED] += many

    def cancelled(self) -> None:
        async def save_and_cancel() -> None:
            batch = self._numbered(self._batches[_MANY])
            task = asyncio.create_task(self.storage.asave_conversations(batch))
            await asyncio.sleep(random.uniform(0.0, 0.08))
            task.cancel()
            await asyncio.wait([task])
            if not task.cancelled():
                task.result()
                self.returned["conversations"][self._last] = _MANY

        # An event loop may drop the exception of a handler. So it runs in another thread, and the
        # signal is raised when that thread has ended.
        with deferred_signals():
            thread = threading.Thread(target=asyncio.run, args=[save_and_cancel()])
            thread.start()
            thread.join()

    def in_part(self, name: str) -> None:
        with getattr(self.storage, name)(batch_size=50) as records:
            for _ in range(1200):
                next(records)

    def dropped(self) -> None:
        next(self.storage.iter_conversations(batch_size=50))

    def scan_in_part(self) -> None:
        self.storage.scan_conversations(["metadata.at", "conversations"]).read_next_batch()

    def new_folder(self) -> Path:
        return self.folder / f"parts-{next(self._names)}"

    def sql(self) -> None:
        if self.kind == "sql":
            with self.storage.engine.connect() as connection:
                connection.exec_driver_sql("SELECT count(*) FROM messages").all()

    def works(self) -> dict[str, Callable[[], Any]]:
        store, folder = self.storage, self.folder
        newest: dict[str, Any] = {"order_by": [("metadata.at", -1)]}
        talks, texts = "conversations", "documents"
        talk_lines, text_lines = folder / "talks-more.jsonl", folder / "more.jsonl"
        first: dict[str, Any] = {"filters": {"metadata.batch": 0}}
        return {
            "save one": lambda: self.save(1),
            "save many": lambda: self.save(_MANY),
            "save in a task": self.cancelled,
            "save documents": self.save_texts,
            "load": lambda: store.load_conversations(limit=1500),
            "load documents": lambda: store.load_documents(limit=1500),
            "load records": lambda: store.load_records(Conversation, limit=1500),
            "sorted": lambda: store.load_conversations(limit=1500, **newest),
            "filtered": lambda: store.load_conversations(filters={"metadata.at": 3}),
            "page": lambda: store.load_conversations(limit=10, **newest),
            "iterate": lambda: collections.deque(store.iter_conversations(limit=2500), maxlen=0),
            "iterate documents": lambda: collections.deque(
                store.iter_documents(limit=2500), maxlen=0
            ),
            "iterate in part": lambda: self.in_part("iter_conversations"),
            "iterate documents in part": lambda: self.in_part("iter_documents"),
            "begin to iterate": self.dropped,
            "scan": lambda: store.scan_conversations(["metadata.at", "conversations"]).read_all(),
            "scan documents": lambda: store.scan_documents(limit=4000).read_all(),
            "scan sorted": lambda: store.scan_conversations(["metadata.at"], **newest).read_all(),
            "scan in part": self.scan_in_part,
            "count": lambda: store.count_conversations({"metadata.at": 1}),
            "count documents": lambda: store.count_documents({"text": "mine"}),
            "count records": store.count_records,
            "stats": store.stats,
            "verify": store.verify,
            "repair": lambda: store.verify(repair=True),
            "import": lambda: self.add(talks, talk_lines),
            "import documents": lambda: self.add(texts, text_lines),
            "import a stream": lambda: self.add(talks, io.BytesIO(self._lines[talks])),
            "import several": lambda: self.add(texts, [text_lines, io.BytesIO(self._lines[texts])]),
            "export": lambda: store.export_jsonl(folder / "all.jsonl.gz", limit=1000),
            "export documents": lambda: store.export_jsonl(folder / "texts.zst", kind=texts),
            "export format": lambda: store.export_jsonl(folder / "all.jsonl", format="messages"),
            "export Parquet": lambda: store.export_parquet(folder / "all.parquet"),
            "export partitions": lambda: store.export_parquet(
                self.new_folder(),
                partition_by=["metadata.at"],
                limit=60,
                **first,
            ),
            "sql": self.sql,
            "open": lambda: opened(self.kind, folder).count_documents(),
        }


def use_until_stopped(pipe: Connection, orders: Connection, kind: str, folder: Path) -> None:
    """Use a storage until a signal comes; send what came out, and go on."""

    def on_alarm(number: int, frame: Any) -> None:
        raise TimeoutError("it took too long")

    handlers = (signal.default_int_handler, on_alarm)
    signal.signal(signal.SIGINT, handlers[0])
    signal.signal(signal.SIGALRM, handlers[1])
    use = _Use(kind, folder)
    works = use.works()
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
        pipe.send((text, name, place, use.returned))
        assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGALRM)) == handlers
    # The same object goes on: none of its calls is broken.
    for work in works.values():
        work()
    kept.clear()
    pipe.send(("went on", use.returned))


# -- the process that stops it and writes at once ------------------------------------------------


@contextmanager
def _using(kind: str, folder: Path) -> Iterator[tuple[Any, Connection, Connection]]:
    storage = opened(kind, folder)
    storage.save_conversations(numbered_batch(0, _FIRST))
    storage.save_documents([Document(metadata={"batch": 0}) for _ in range(_FIRST)])
    for name, line, many in [
        ("talks-more.jsonl", {"conversations": [], "metadata": {"batch": _IMPORTED}}, _TALK_LINES),
        ("more.jsonl", {"text": "y" * 400, "metadata": {"batch": _IMPORTED}}, _TEXT_LINES),
    ]:
        (folder / name).write_text(f"{json.dumps(line)}\n" * many)
    theirs, orders = multiprocessing.Pipe(duplex=False)
    with child(use_until_stopped, theirs, kind, folder) as (process, pipe):
        yield process, pipe, orders


def _answer(pipe: Connection, seconds: float, what: str) -> Any:
    if not pipe.poll(seconds):
        pytest.fail(f"{what}: no answer after {seconds} s")
    return pipe.recv()


def _check_saves(storage: Any, returned: dict[str, collections.Counter[int]]) -> None:
    """What was acknowledged is there once; of what was not, there is all or nothing."""
    whole = {"conversations": {1, _MANY}, "documents": {_TEXTS}}
    imported = {"conversations": _TALK_LINES, "documents": _TEXT_LINES}
    for kind, acknowledged in returned.items():
        scan = getattr(storage, f"scan_{kind}")
        found = collections.Counter(map(int, scan(["metadata.batch"]).read_all()[0].to_pylist()))
        assert found.pop(0) == _FIRST
        assert found[_IMPORTED] >= acknowledged[_IMPORTED]
        assert found.pop(_IMPORTED, 0) % imported[kind] == 0
        for number, size in acknowledged.items():
            assert number == _IMPORTED or found[number] == size, (kind, number)
        for number, size in found.items():
            assert size == 1 if number < 0 else size in whole[kind], (kind, number)


@pytest.mark.slow
class TestStops:
    @pytest.mark.parametrize("kind", KINDS)
    def test_each_comes_out_as_its_exception_and_another_process_writes_at_once(
        self, kind: str, tmp_path: Path
    ) -> None:
        seed = random.randrange(2**32)
        chance = random.Random(seed)
        returned: Any = {}
        times = []
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
                times.append(took := time.monotonic() - sent)
                here = f"{name}, stop {stop}, seed {seed}: {took:.2f} s, {place}"
                assert text == expected, here
                assert took < _SOON, here
                try:
                    storage.save_conversations([conversation("", {"batch": -stop - 1, "at": 0})])
                    storage.save_documents([Document(text="mine", metadata={"batch": -stop - 1})])
                except LockTimeoutError as error:
                    pytest.fail(f"{error}: {here}")
                if stop % 8 == 0:
                    _check_saves(storage, returned)
            orders.send("end")
            said, returned = _answer(pipe, 120, f"going on, seed {seed}")
            assert said == "went on"
            _check_saves(storage, returned)
            report = storage.verify()  # ids are there twice, as the same file is imported again
            assert (report.corrupt.count, report.torn_tails.count) == (0, 0)
            left = [*tmp_path.glob("*.saving"), *tmp_path.glob(".*"), *tmp_path.glob("*.torn-*")]
            assert left == []
        times.sort()
        print(f"{STOPS} stops: median {times[STOPS // 2]:.3f} s, longest {times[-1]:.2f} s")  # noqa: T201
        assert times[STOPS * 9 // 10] < 1  # the others where another program took the processor


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
