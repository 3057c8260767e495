"""The cyclic garbage collector, held back while many records are built at once.

Building a quarter of a million model objects takes four times as long with the collector running,
as each of its passes walks all of them and finds nothing. The pause is counted, so that several
threads may load at once: the last one out turns the collector on again, if it was on before.
"""

from __future__ import annotations

import gc
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["kept_until_the_end", "paused_collector"]

# Objects built in a pause from which on its end is worth more than turning the collector on. Below
# that the collector finds its counts as they are, and goes on as if nothing had been.
_MANY_OBJECTS = 50_000

# Objects built in such pauses after which the collector walks everything once, as each pause hides
# what was garbage by then from the quick passes; and so many times those that outlived the walk
# before, so that all walks together cost no more than a share of the building.
_OBJECTS_PER_WALK = 2_000_000
_TIMES_THE_LIVING = 2


class _Pause:
    """How deep threads are in pauses, what to restore after the last, and when a walk is due."""

    def __init__(self) -> None:
        self.lock = threading.RLock()  # a finalizer that runs under it may load records, too
        self.depth = 0
        self.was_enabled = False
        self.loads = 0
        self.built = 0
        self.alive = 0

    def claim_walk(self) -> bool:
        """Whether a walk is due; it is then the caller's to do."""
        is_due = self.built > max(_OBJECTS_PER_WALK, _TIMES_THE_LIVING * self.alive)
        if is_due:
            self.built = 0
        return is_due


_pause = _Pause()


@contextmanager
def paused_collector() -> Iterator[None]:
    """Hold back the collector for the block, in every thread; restored when an error leaves it too.

    Wait for nothing inside: the whole process goes without the collector as long.

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
            _pause.depth = max(0, _pause.depth - 1)  # a child forked within starts at 0
            if _pause.depth == 0 and _pause.was_enabled:
                if gc.get_count()[0] > _MANY_OBJECTS:
                    _make_old()
                    is_due = not _pause.loads and _pause.claim_walk()
                gc.enable()
        if is_due:
            _walk()


@contextmanager
def kept_until_the_end() -> Iterator[None]:
    """A block that keeps all it builds, in many pauses: a walk within it would find nothing.

    Walks of more and more objects would make a load take longer than its share of the records.
    """
    with _pause.lock:
        _pause.loads += 1
        is_enabled = _pause.was_enabled if _pause.depth else gc.isenabled()
        is_due = is_enabled and _pause.claim_walk()
    try:
        if is_due:  # of what earlier ones hid, while what this one builds is not there yet
            _walk()
        yield
    finally:
        with _pause.lock:
            _pause.loads = max(0, _pause.loads - 1)


def _make_old() -> None:
    """Move all objects to the oldest generation, as if they had survived; walks none of them.

    Else the first pass after the pause would walk everything built in it, which costs as much as
    the pause saved. Objects that the program froze itself would thaw, so then nothing is done.
    """
    if gc.get_freeze_count() == 0:
        _pause.built += gc.get_count()[0]
        try:
            gc.freeze()
        finally:
            gc.unfreeze()


def _walk() -> None:
    """Collect what is garbage anywhere, and count what is left."""
    gc.collect()
    with _pause.lock:
        if gc.get_freeze_count() == 0:
            try:
                gc.freeze()
                _pause.alive = gc.get_freeze_count()
            finally:  # after an interrupt, too: what stays frozen is never collected
                gc.unfreeze()


def _after_fork() -> None:
    """The threads that were in a pause are not in the child, and never leave it there."""
    global _pause  # noqa: PLW0603  the collector is one per process
    if _pause.depth and _pause.was_enabled:
        gc.enable()
    _pause = _Pause()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
