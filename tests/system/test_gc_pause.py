"""The collector waits while records are built, and loses nothing by it."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from afterimage.storage.system import gc_pause
from afterimage.storage.system.gc_pause import kept_until_the_end, paused_collector
from tests.support.records import conversations


class Node:
    """An object that holds itself, and so is garbage that only the collector finds."""

    def __init__(self) -> None:
        self.itself = self


@pytest.fixture
def small_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gc_pause, "_pause", gc_pause._Pause())
    monkeypatch.setattr(gc_pause, "_MANY_OBJECTS", 100)
    monkeypatch.setattr(gc_pause, "_OBJECTS_PER_COLLECTION", 1000)


@contextmanager
def counted_walks() -> Iterator[list[int]]:
    """The walks of everything in a block; the list grows."""
    walks: list[int] = []

    def see(phase: str, info: dict[str, int]) -> None:
        if phase == "start" and info["generation"] == 2:
            walks.append(1)

    gc.callbacks.append(see)
    try:
        yield walks
    finally:
        gc.callbacks.remove(see)


def build(count: int) -> list[Any]:
    with paused_collector():
        return [[] for _ in range(count)]


@pytest.mark.usefixtures("small_pauses")
def test_no_load_waits_for_a_walk_of_what_it_has_built_so_far(storage: Any) -> None:
    storage.save_conversations(conversations(*({"n": n} for n in range(4000))))
    gc.collect()
    gc_pause._pause.built = 0
    with counted_walks() as walks:
        first = storage.load_conversations()
    assert not walks
    assert gc_pause._pause.built > 4000  # in pauses that would each have been due
    assert len(first) == 4000


@pytest.mark.usefixtures("small_pauses")
def test_a_load_after_many_finds_what_they_hid(storage: Any) -> None:
    storage.save_conversations(conversations({"n": 1}))
    hidden = Node()
    dead = weakref.ref(hidden)
    del hidden
    gc_pause._pause.survivors = 0
    gc_pause._pause.built = 10**9
    with counted_walks() as walks:
        storage.load_conversations()
    assert len(walks) == 1
    assert dead() is None


@pytest.mark.usefixtures("small_pauses")
def test_what_pauses_hide_is_collected_in_the_long_run() -> None:
    alive: weakref.WeakSet[Node] = weakref.WeakSet()
    most = 0
    for _ in range(800):
        alive.add(Node())  # garbage at once, and moved out of sight by the next pause
        build(5000)
        most = max(most, len(alive))
    assert most < 600


@pytest.mark.usefixtures("small_pauses")
def test_walks_grow_rarer_as_what_is_kept_grows() -> None:
    with counted_walks() as walks:
        kept = [build(20_000) for _ in range(500)]
    assert len(walks) < 10
    assert len(kept) == 500


@pytest.mark.usefixtures("small_pauses")
def test_a_finalizer_may_build_records_too() -> None:
    built = []

    class Last:
        def __init__(self) -> None:
            self.itself = self

        def __del__(self) -> None:
            built.append(len(build(10)))

    Last()
    gc_pause._pause.built = 10**9
    build(1000)
    assert built == [10]


@pytest.mark.usefixtures("small_pauses")
def test_a_finalizer_that_runs_within_may_build_records_too() -> None:
    with gc_pause._pause.lock:  # where Python's own passes may come, too
        assert len(build(10)) == 10


@pytest.mark.usefixtures("small_pauses")
def test_a_program_without_a_collector_gets_no_walk(storage: Any) -> None:
    storage.save_conversations(conversations({"n": 1}))
    gc_pause._pause.built = 10**9
    gc.disable()
    try:
        with counted_walks() as walks:
            storage.load_conversations()
            build(1000)
    finally:
        gc.enable()
    assert not walks


@pytest.mark.usefixtures("small_pauses")
def test_loads_that_always_overlap_hide_nothing_for_good() -> None:
    alive: weakref.WeakSet[Node] = weakref.WeakSet()
    most = 0
    last = kept_until_the_end()
    last.__enter__()
    for _ in range(200):
        following = kept_until_the_end()
        following.__enter__()
        alive.add(Node())
        build(20_000)
        last.__exit__(None, None, None)
        last = following
        most = max(most, len(alive))
    last.__exit__(None, None, None)
    assert most < 150


@pytest.mark.usefixtures("small_pauses")
def test_what_the_program_froze_stays_frozen() -> None:
    gc.freeze()
    try:
        build(1000)
        assert gc.get_freeze_count() > 0
        assert gc_pause._pause.built == 0
    finally:
        gc.unfreeze()


def test_a_pause_ends_with_the_collector_as_it_was() -> None:
    with paused_collector(), paused_collector():
        assert not gc.isenabled()
    assert gc.isenabled()
    gc.disable()
    try:
        with paused_collector():
            pass
        assert not gc.isenabled()
    finally:
        gc.enable()
