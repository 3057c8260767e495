"""Signals at random moments: each ends the call with its exception, and leaves nothing behind.

A child process uses one storage in every way, over and over. It is stopped at random moments; then
another process, this one, must be able to write at once, and all saves that have returned must be
there, whole. `AFTERIMAGE_STOPS=200 pytest tests/storage/test_interrupts.py` tries more stops.
"""

from __future__ import annotations

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

from afterimage.storage import Document, LockTimeoutError, verify_jsonl
from afterimage.storage.system.interrupts import Stopped, checkpoint, deferred_signals
from tests.storage.factories import Storage
from tests.storage.processes import KINDS, child, opened
from tests.storage.records import conversation

STOPS = int(os.environ.get("AFTERIMAGE_STOPS", "12"))
"""Stops of each kind of storage and of signal."""

# A stop comes out within a second on a machine that has nothing else to do.
_SOON = 5
_LONG = 1500
_FIRST = 4000

pytestmark = pytest.mark.skipif(os.name != "posix", reason="other systems have no such signals")


def _batch(number: int, size: int) -> list[Any]:
    return [conversation("x" * 1500, {"batch": number, "at": at}) for at in range(size)]


def _works(storage: Any, folder: Path, save: Callable[[int], None]) -> dict[str, Callable[[], Any]]:
    """Every way in which a storage is used."""
    newest = {"order_by": [("metadata.at", -1)]}

    def part_of_an_iteration() -> None:
        records = storage.iter_conversations(batch_size=50)
        for _ in range(1200):
            next(records)

    def sql() -> None:
        if hasattr(storage, "engine"):
            with storage.engine.connect() as connection:
                connection.exec_driver_sql("SELECT 1").all()

    def again() -> None:
        kind = "sql" if hasattr(storage, "engine") else "jsonl"
        opened(kind, folder).count_documents()

    return {
        "save one": lambda: save(1),
        "save many": lambda: save(_LONG),
        "save documents": lambda: storage.save_documents([Document(text="x" * 500)] * 300),
        "load": lambda: storage.load_conversations(limit=1500),
        "sorted": lambda: storage.load_conversations(limit=1500, **newest),
        "filtered": lambda: storage.load_conversations(filters={"metadata.at": 3}),
        "iterate": lambda: collections.deque(storage.iter_conversations(limit=2500), maxlen=0),
        "iterate in part": part_of_an_iteration,
        "scan": lambda: storage.scan_conversations(["metadata.at", "conversations"]).read_all(),
        "scan sorted": lambda: storage.scan_conversations(["metadata.at"], **newest).read_all(),
        "count": lambda: storage.count_conversations({"metadata.at": 1}),
        "stats": storage.stats,
        "verify": storage.verify,
        "import": lambda: storage.import_jsonl(folder / "more.jsonl", kind="documents"),
        "export": lambda: storage.export_jsonl(folder / "all.jsonl.gz", limit=1000),
        "export Parquet": lambda: storage.export_parquet(folder / "all.parquet"),
        "sql": sql,
        "open": again,
    }


def use_until_stopped(
    pipe: Connection,
    orders: Connection,
    kind: str,
    folder: Path,
    seed: int,
    what: str,
    only: str | None,
) -> None:
    """Use a storage until a signal comes; tell what came out, and go on."""
    random.seed(seed)
    storage = opened(kind, folder)
    returned: list[int] = []
    last = [0]

    def save(size: int) -> None:
        last[0] += 1
        storage.save_conversations(_batch(last[0], size))
        returned.append(last[0])

    def on_alarm(number: int, frame: Any) -> None:
        raise TimeoutError("it took too long")

    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGALRM, on_alarm)
    works = _works(storage, folder, save)
    kept: list[BaseException] = []  # with all frames, as a notebook keeps the last one
    while True:
        name = ""
        handlers = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGALRM)
        assert handlers == (signal.default_int_handler, on_alarm)
        try:
            pipe.send("busy")
            while True:
                name = only or random.choice([*works])
                works[name]()
        except BaseException as error:
            told = f"{type(error).__name__}: {error}"
            place = "".join(traceback.format_exception(error)[-6:])
            if what == "kept":
                kept[:] = [error]
        pipe.send((told, name, place, list(returned)))
        if orders.recv() == "end":
            break
    # The same object goes on: none of its calls is broken.
    for name, work in works.items():
        work()
        if what == "kept":
            kept.clear()
    pipe.send("went on")


@contextmanager
def _using(
    kind: str, folder: Path, what: str, seed: int, only: str | None
) -> Iterator[tuple[Any, Connection, Connection]]:
    storage = opened(kind, folder)
    storage.save_conversations(_batch(0, _FIRST))
    lines = (f'{{"text":"{"y" * 400}","id":"{at}"}}\n' for at in range(3000))
    (folder / "more.jsonl").write_text("".join(lines))
    theirs, orders = multiprocessing.Pipe(duplex=False)
    with child(use_until_stopped, theirs, kind, folder, seed, what, only) as (process, pipe):
        yield process, pipe, orders


def _answer(pipe: Connection, seconds: float, name: str) -> Any:
    if not pipe.poll(seconds):
        pytest.fail(f"{name}: no answer after {seconds} s")
    return pipe.recv()


def _check_saves(storage: Storage, returned: list[int]) -> None:
    found = storage.scan_conversations(["metadata.batch"]).read_all()
    sizes = collections.Counter(found.column(0).to_pylist())
    assert sizes.pop("0") == _FIRST
    assert {int(name) for name in sizes if int(name) >= 0} >= set(returned)
    for name, size in sizes.items():
        assert int(name) < 0 or size in (1, _LONG), f"{size} records of batch {name}"


def _stop_at_random(
    kind: str, folder: Path, what: str, stops: int = STOPS, only: str | None = None
) -> None:
    seed = random.randrange(2**32)
    chance = random.Random(seed)
    expected = "TimeoutError: it took too long" if what == "alarm" else "KeyboardInterrupt: "
    number = signal.SIGALRM if what == "alarm" else signal.SIGINT
    returned: list[int] = []
    with _using(kind, folder, what, seed, only) as (process, pipe, orders):
        storage = opened(kind, folder, lock_timeout=0.2)
        for stop in range(stops):
            assert _answer(pipe, 120, "begin") == "busy"
            time.sleep(chance.uniform(0.05, 1.5))
            sent = time.monotonic()
            os.kill(process.pid, number)
            told, name, place, returned = _answer(pipe, 60, f"stop {stop}, seed {seed}")
            took = time.monotonic() - sent
            assert told == expected, f"{name}, stop {stop}, seed {seed}: {place}"
            assert took < _SOON, f"{name}, stop {stop}, seed {seed}: {took:.1f} s"
            try:
                storage.save_conversations([conversation("mine", {"batch": -stop - 1, "at": 0})])
                storage.save_documents([Document(text="mine")])
            except LockTimeoutError as error:
                pytest.fail(f"{name}, stop {stop}, seed {seed}: {error}\n{place}")
            if stop % 8 == 0:
                _check_saves(storage, returned)
            orders.send("go on" if stop < stops - 1 else "end")
        assert _answer(pipe, 120, "going on") == "went on"
        _check_saves(storage, returned)
        assert storage.verify().ok or kind == "sql"
        left = [*folder.glob("*.saving"), *folder.glob(".*"), *folder.glob("*.torn-*")]
        assert left == []


@pytest.mark.parametrize("kind", KINDS)
class TestStops:
    @pytest.mark.parametrize("what", ["dropped", "kept", "alarm"])
    def test_each_comes_out_as_its_exception_and_frees_the_file(
        self, kind: str, what: str, tmp_path: Path
    ) -> None:
        _stop_at_random(kind, tmp_path, what)
