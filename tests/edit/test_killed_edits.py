"""An edit that is killed happened completely or not at all, and readers see nothing in between."""

from __future__ import annotations

import os
import random
import time
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import pytest

from tests.support.processes import KINDS, LONG, child, opened
from tests.support.records import conversation

pytestmark = [
    pytest.mark.process,
    pytest.mark.skipif(os.name != "posix", reason="SIGKILL is POSIX"),
]

COUNT = 3000
KILLS = 30 * LONG


def edit_until_killed(pipe: Connection, kind: str, folder: Path, edit: str) -> None:
    store = opened(kind, folder)
    pipe.send("ready")
    if edit == "update":
        store.update_conversations([], lambda metadata: {**metadata, "v": metadata["v"] + 1})
    elif edit == "delete":
        store.delete_conversations([("metadata.n", ">=", COUNT // 2)])
    else:
        store.deduplicate("metadata.half")
    pipe.send("done")


def edit_many_times(pipe: Connection, kind: str, folder: Path) -> None:
    store = opened(kind, folder)
    for _ in range(12):
        store.update_conversations([], lambda metadata: {**metadata, "v": metadata["v"] + 1})
    pipe.send("done")


def fill(kind: str, folder: Path) -> Any:
    store = opened(kind, folder)
    store.delete_conversations([])
    store.save_conversations(
        [conversation("words " * 20, {"n": n, "v": 0, "half": n // 2}) for n in range(COUNT)]
    )
    return store


@pytest.mark.slow
@pytest.mark.parametrize("edit", ["update", "delete", "deduplicate"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_killed_edit_happened_completely_or_not_at_all(
    kind: str, edit: str, tmp_path: Path
) -> None:
    store = fill(kind, tmp_path)
    started = time.monotonic()
    with child(edit_until_killed, kind, tmp_path, edit) as (process, pipe):
        pipe.recv()
        started = time.monotonic()
        process.join(60)
    longest = time.monotonic() - started
    moments = random.Random(7)
    outcomes = set()
    for _ in range(KILLS):
        store = fill(kind, tmp_path)
        with child(edit_until_killed, kind, tmp_path, edit) as (process, pipe):
            pipe.recv()
            time.sleep(moments.uniform(0, longest))
            process.kill()
            process.join()
        found = store.load_conversations()
        if edit == "update":
            assert len(found) == COUNT
            [version] = {each.metadata["v"] for each in found}
            outcomes.add(version == 1)
        else:
            assert len(found) in (COUNT, COUNT // 2)
            outcomes.add(len(found) < COUNT)
        assert store.verify().ok
        store.save_conversations([conversation("after", {"n": -1, "v": 0})])
    assert False in outcomes


@pytest.mark.parametrize("kind", KINDS)
def test_readers_and_other_writers_meanwhile(kind: str, tmp_path: Path) -> None:
    store = fill(kind, tmp_path)
    saved = 0
    with child(edit_many_times, kind, tmp_path) as (_, pipe):
        while not pipe.poll():
            found = [
                each.metadata["v"]
                for each in store.load_conversations(filters=[("metadata.n", ">=", 0)])
            ]
            assert len(found) == COUNT
            assert len(set(found)) == 1
            store.save_conversations([conversation("new", {"n": -1, "v": 0})])
            saved += 1
    assert saved
    assert store.count_conversations([("metadata.n", "==", -1)]) == saved
    assert store.count_conversations() == COUNT + saved
    assert store.count_conversations([("metadata.v", "==", 12)]) >= COUNT
