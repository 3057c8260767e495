"""Pause the cyclic garbage collector while many records are built.

Building 250,000 model objects takes four times as long with the collector enabled, because each
collection visits all of them and finds no garbage. Pauses are counted, so several threads may load
at the same time: the last pause to end enables the collector again if it was enabled before.
"""

from __future__ import annotations

import gc
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from afterimage.storage.system.forks import at_fork

__all__ = ["kept_until_the_end", "paused_collector"]

# If a pause built more objects than this, they are moved to the oldest generation at its end.
# After a smaller pause the collector continues with its normal counts.
_MANY_OBJECTS = 50_000

# The move hides garbage from collections of the young generations, so a full collection is due when
# more than this many objects were moved. Their number must also exceed twice the number of objects
# that survived the last full collection: then all full collections together cost at most a fixed
# share of the building.
_OBJECTS_PER_COLLECTION = 2_000_000
_TIMES_THE_SURVIVORS = 2

# Python 3.12 starts with a few hundred frozen objects. A program that calls `gc.freeze` has more.
_FROZEN_BY_PYTHON = 1_000


class _Pause:
    """The state of all pauses of this process.

    Attributes:
        lock: protects the other attributes. Re-entrant: a finalizer may load records while this
            thread holds the lock.
        depth: number of pauses that are active.
        was_enabled: whether the collector was enabled before the first active pause.
        loads: number of active `kept_until_the_end` blocks.
        built: number of objects moved to the oldest generation since the last full collection.
        survivors: number of objects that survived the last full collection.
    """

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.depth = 0
        self.was_enabled = False
        self.loads = 0
        self.built = 0
        self.survivors = 0

    def claim_collection(self) -> bool:
        """Return whether a full collection is due. If so, the caller must run it."""
        is_due = self.built > max(_OBJECTS_PER_COLLECTION, _TIMES_THE_SURVIVORS * self.survivors)
        if is_due:
            self.built = 0
        return is_due


_pause = _Pause()


@contextmanager
def paused_collector() -> Iterator[None]:
    """Disable the collector of the process during the block, and restore it afterwards.

    Do not wait for anything inside the block: no thread has a collector during that time.

    >>> with paused_collector():
    ...     gc.isenabled()
    False
    >>> gc.isenabled()
    True
    """
    with _pause.lock:
        if _pause.depth == 0:
            _pause.was_enabled = gc.isenabled()
            gc.disable()
        _pause.depth += 1
    is_due = False
    try:
        yield
    finally:
        with _pause.lock:
            _pause.depth = max(0, _pause.depth - 1)  # a child forked inside the block starts at 0
            if _pause.depth == 0 and _pause.was_enabled:
                if gc.get_count()[0] > _MANY_OBJECTS:
                    _make_old()
                    is_due = not _pause.loads and _pause.claim_collection()
                gc.enable()
        if is_due:
            _collect()


@contextmanager
def kept_until_the_end() -> Iterator[None]:
    """Postpone full collections during a block that keeps every object it builds.

    The block contains many pauses. A full collection inside it would find no garbage, and it would
    take longer the more objects the block has built: a load would no longer take time in
    proportion to its records.
    """
    with _pause.lock:
        _pause.loads += 1
        is_enabled = _pause.was_enabled if _pause.depth else gc.isenabled()
        is_due = is_enabled and _pause.claim_collection()
    try:
        if is_due:  # for garbage of earlier blocks; this block has built nothing yet
            _collect()
        yield
    finally:
        with _pause.lock:
            _pause.loads = max(0, _pause.loads - 1)


def _make_old() -> None:
    """Move all objects to the oldest generation without visiting them.

    Otherwise the first collection after the pause would visit every object built in it, which
    costs as much as the pause saved. Does nothing if the program has frozen objects: `unfreeze`
    would unfreeze these too.
    """
    if not _program_has_frozen():
        _pause.built += gc.get_count()[0]
        try:
            gc.freeze()
        finally:
            gc.unfreeze()


def _program_has_frozen() -> bool:
    return gc.get_freeze_count() > _FROZEN_BY_PYTHON


def _collect() -> None:
    """Run a full collection, and count the surviving objects."""
    gc.collect()
    with _pause.lock:
        if not _program_has_frozen():
            try:
                gc.freeze()
                _pause.survivors = gc.get_freeze_count()
            finally:  # also after an interrupt: a frozen object is never collected
                gc.unfreeze()


def _after_fork() -> None:
    """Reset the state in a child: threads that were in a pause do not exist there."""
    global _pause  # noqa: PLW0603  the collector is one per process
    if _pause.depth and _pause.was_enabled:
        gc.enable()
    _pause = _Pause()


at_fork(after_in_child=_after_fork)
