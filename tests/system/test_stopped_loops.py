"""Event loops that are stopped at random moments: by Ctrl-C, or by a timeout around their tasks.

A child process saves in several tasks at once. After each stop, another process, this one, must be
able to write at once, and all saves that have returned must be there, once each and whole.
`AFTERIMAGE_STOPS=200 pytest tests/system/test_stopped_loops.py` makes more stops.
"""

from __future__ import annotations

import asyncio
import collections
import itertools
import multiprocessing
import os
import random
import signal
import time
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import pytest

from afterimage.storage import Document
from tests.support.processes import KINDS, child, opened
from tests.support.records import conversation, numbered_batch

STOPS = int(os.environ.get("AFTERIMAGE_STOPS", "40"))
"""Stops of each kind of storage."""

# A stop takes less than a second on a machine that does nothing else.
_SOON = 5
_SIZES = {"conversations": 700, "documents": 300}

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(os.name != "posix", reason="other systems have no such signals"),
]

_Saved = dict[str, collections.Counter[int]]


def save_until_stopped(pipe: Connection, orders: Connection, kind: str, folder: Path) -> None:
    """Save in four tasks until a stop comes; send what came out, and go on."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    storage: Any = opened(kind, folder)
    returned: _Saved = {name: collections.Counter() for name in _SIZES}
    numbers = itertools.count(1)

    async def save(name: str, batch: list[Any]) -> None:
        while True:
            number = next(numbers)
            for record in batch:
                record.metadata["batch"] = number
            await getattr(storage, f"asave_{name}")(batch)
            returned[name][number] = len(batch)

    async def save_all(seconds: float | None) -> None:
        async with asyncio.timeout(seconds), asyncio.TaskGroup() as group:
            for name, size in _SIZES.items():
                group.create_task(save(name, _batch(name, size)))
                group.create_task(save(name, _batch(name, size)))

    while (order := orders.recv()) != "end":
        seconds = None if order == "signal" else random.uniform(0.0, 0.3)
        try:
            pipe.send("busy")
            started = time.monotonic()
            asyncio.run(save_all(seconds))
        except BaseException as error:
            text = f"{type(error).__name__}: {error}"
        took = None if seconds is None else time.monotonic() - started - seconds
        pipe.send((text, took, returned))
    for name in _SIZES:  # the same object goes on
        asyncio.run(getattr(storage, f"asave_{name}")(_batch(name, 1)))
    pipe.send("went on")


def _batch(name: str, size: int) -> list[Any]:
    if name == "conversations":
        return numbered_batch(-1, size)
    return [Document(text="x" * 500, metadata={"batch": -1}) for _ in range(size)]


def _check_saves(storage: Any, returned: _Saved) -> None:
    for name, size in _SIZES.items():
        table = getattr(storage, f"scan_{name}")(["metadata.batch"]).read_all()
        found = collections.Counter(map(int, table[0].to_pylist()))
        del found[-1]  # of this process
        assert set(found.values()) <= {size}
        assert set(returned[name]) <= set(found)


def _answer(pipe: Connection, what: str) -> Any:
    if not pipe.poll(60):
        pytest.fail(f"{what}: no answer")
    return pipe.recv()


@pytest.mark.parametrize("kind", KINDS)
def test_each_stop_ends_all_saves_and_another_process_writes_at_once(
    kind: str, tmp_path: Path
) -> None:
    seed = random.randrange(2**32)
    chance = random.Random(seed)
    times = []
    storage = opened(kind, tmp_path, lock_timeout=0.5)
    theirs, orders = multiprocessing.Pipe(duplex=False)
    with child(save_until_stopped, theirs, kind, tmp_path) as (process, pipe):
        for stop in range(STOPS):
            here = f"stop {stop}, seed {seed}"
            orders.send(order := chance.choice(["signal", "timeout"]))
            assert _answer(pipe, here) == "busy"
            sent = time.monotonic()
            if order == "signal":
                time.sleep(chance.uniform(0.0, 0.3))
                sent = time.monotonic()
                os.kill(process.pid, signal.SIGINT)
            text, took, returned = _answer(pipe, here)
            assert text == ("KeyboardInterrupt: " if order == "signal" else "TimeoutError: "), here
            times.append(took or time.monotonic() - sent)
            assert times[-1] < _SOON, here
            storage.save_conversations([conversation(metadata={"batch": -1})])
            storage.save_documents([Document(metadata={"batch": -1})])
            if stop % 8 == 0:
                _check_saves(storage, returned)
        orders.send("end")
        assert _answer(pipe, f"going on, seed {seed}") == "went on"
        _check_saves(storage, returned)
        assert storage.count_conversations({"metadata.batch": -1}) == STOPS + 1
        assert storage.count_documents({"metadata.batch": -1}) == STOPS + 1
        report = storage.verify()  # ids are there twice, as the same documents are saved again
        assert (report.corrupt.count, report.torn_tails.count) == (0, 0)
    times.sort()
    print(f"{STOPS} stops: median {times[STOPS // 2]:.3f} s, longest {times[-1]:.2f} s")  # noqa: T201
    assert times[STOPS * 9 // 10] < 1  # the others where another program took the processor
