"""The garbage collector is paused while records are built, and no garbage is left behind."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from afterimage.storage.system import gc_pause
from afterimage.storage.system.gc_pause import kept_until_the_end, paused_collector
from tests.support.factories import LARGE_FACTORIES, Factory, parameters
from tests.support.records import conversations


class Node:
    """An object that refers to itself, so that only the garbage collector can free it."""

    def __init__(self) -> None:
        self.itself = self


@pytest.fixture(params=parameters(LARGE_FACTORIES))
def factory(request: pytest.FixtureRequest) -> Factory:
    chosen: Factory = request.param
    return chosen


@pytest.fixture
def small_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gc_pause, "_pause", gc_pause._Pause())
    monkeypatch.setattr(gc_pause, "_MANY_OBJECTS", 100)
    monkeypatch.setattr(gc_pause, "_OBJECTS_PER_COLLECTION", 1000)


@contextmanager
def counted_walks() -> Iterator[list[int]]:
    """The full collections during a block, in a list that grows."""
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
def test_a_load_does_not_wait_for_collections_of_its_own_records(storage: Any) -> None:
    storage.save_conversations(conversations(*({"n": n} for n in range(4000))))
    gc.collect()
    gc_pause._pause.built = 0
    with counted_walks() as walks:
        first = storage.load_conversations()
    assert not walks
    assert (
        gc_pause._pause.built > 4000
    )  # in pauses that would each have been followed by a collection
    assert len(first) == 4000


@pytest.mark.usefixtures("small_pauses")
def test_a_load_after_many_collects_their_garbage(storage: Any) -> None:
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


@pytest.mark.slow
@pytest.mark.usefixtures("small_pauses")
def test_garbage_of_pauses_is_collected_eventually() -> None:
    alive: weakref.WeakSet[Node] = weakref.WeakSet()
    most = 0
    for _ in range(800):
        alive.add(Node())  # garbage at once, and moved to the oldest generation by the next pause
        build(5000)
        most = max(most, len(alive))
    assert most < 600


@pytest.mark.slow
@pytest.mark.usefixtures("small_pauses")
def test_collections_become_rarer_as_live_objects_grow() -> None:
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
def test_a_finalizer_may_build_records_while_the_lock_is_held() -> None:
    with gc_pause._pause.lock:  # Python's own collections may run here too
        assert len(build(10)) == 10


@pytest.mark.usefixtures("small_pauses")
def test_a_program_that_disabled_the_collector_gets_no_collection(storage: Any) -> None:
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


@pytest.mark.slow
@pytest.mark.usefixtures("small_pauses")
def test_garbage_of_overlapping_loads_is_collected_eventually() -> None:
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
def test_objects_that_the_program_froze_stay_frozen() -> None:
    gc.freeze()
    try:
        build(1000)
        assert gc.get_freeze_count() > 0
        assert gc_pause._pause.built == 0
    finally:
        gc.unfreeze()


def test_a_pause_restores_the_collector() -> None:
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
