"""Reading ahead, in a thread, while what was read is being worked on."""

from __future__ import annotations

from collections import deque
from collections.abc import Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from afterimage.storage.system.interrupts import checkpoint, current_operation, serve

__all__ = ["prefetched"]

_Item = TypeVar("_Item")


def prefetched(items: Iterator[_Item], ahead: int = 1) -> Generator[_Item, None, None]:
    """The same items; the next ones are being made while one is used.

    It pays where making them waits for something that frees the interpreter, as DuckDB does. An
    error is raised where the item would have come.

    Args:
        items: made one after the other in one thread.
        ahead: how many are held, at most, beside the one in use.

    >>> list(prefetched(iter("abc"), ahead=2))
    ['a', 'b', 'c']
    """
    end = object()
    with ThreadPoolExecutor(
        1, "afterimage-prefetch", initializer=serve, initargs=(current_operation(),)
    ) as thread:
        following = deque(thread.submit(next, items, end) for _ in range(ahead))
        try:
            while (item := following.popleft().result()) is not end:
                following.append(thread.submit(next, items, end))
                checkpoint()
                yield item  # type: ignore[misc]
        finally:
            # Whoever stops early closes the connection: not before the thread is done with it.
            for left in following:
                if not left.cancel():
                    left.exception()
            close = getattr(items, "close", None)
            if close is not None:
                close()
