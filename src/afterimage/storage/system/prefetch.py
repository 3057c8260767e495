"""Prefetch the items of an iterator in a thread, while the caller uses the current one."""

from __future__ import annotations

from collections import deque
from collections.abc import Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from afterimage.storage.system.interrupts import checkpoint, current_operation, work_for

__all__ = ["prefetched"]

_Item = TypeVar("_Item")


def prefetched(items: Iterator[_Item], ahead: int = 1) -> Generator[_Item, None, None]:
    """Yield the same items; the next ones are computed while the caller uses one.

    This helps if computing an item releases the interpreter lock, as DuckDB does. An exception is
    raised in place of its item.

    Args:
        items: the items; all are computed in one thread.
        ahead: maximum number of computed items, in addition to the one in use.

    >>> list(prefetched(iter("abc"), ahead=2))
    ['a', 'b', 'c']
    """
    end = object()
    with ThreadPoolExecutor(
        1, "afterimage-prefetch", initializer=work_for, initargs=(current_operation(),)
    ) as thread:
        following = deque(thread.submit(next, items, end) for _ in range(ahead))
        try:
            while (item := following.popleft().result()) is not end:
                following.append(thread.submit(next, items, end))
                checkpoint()
                yield item  # type: ignore[misc]
        finally:
            # After an early stop the connection is closed: wait until the thread is done with it.
            for future in following:
                if not future.cancel():
                    future.exception()
            close = getattr(items, "close", None)
            if close is not None:
                close()
