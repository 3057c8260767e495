"""The cyclic garbage collector, held back while many records are built at once.

Building a quarter of a million model objects takes four times as long with the collector running,
as each of its passes walks all of them and finds nothing. The pause is counted, so that several
threads may load at once: the last one out turns the collector on again, if it was on before.
"""

from __future__ import annotations

import gc
import threading
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["paused_collector"]

_lock = threading.Lock()
_depth = 0
_was_enabled = False


@contextmanager
def paused_collector() -> Iterator[None]:
    """Hold back the collector for the block, in every thread; restored when an error leaves it too.

    >>> with paused_collector():
    ...     gc.isenabled()
    False
    >>> gc.isenabled()
    True
    """
    global _depth, _was_enabled  # noqa: PLW0603  the collector is one per process
    with _lock:
        if _depth == 0:
            _was_enabled = gc.isenabled()
            gc.disable()
        _depth += 1
    try:
        yield
    finally:
        with _lock:
            _depth -= 1
            if _depth == 0 and _was_enabled:
                _make_old()
                gc.enable()


def _make_old() -> None:
    """Move all objects to the oldest generation, as if they had survived; walks none of them.

    Else the first pass after the pause would walk everything built in it, which costs as much as
    the pause saved. Objects that the program froze itself would thaw, so then nothing is done.
    """
    if gc.get_freeze_count() == 0:
        gc.freeze()
        gc.unfreeze()
