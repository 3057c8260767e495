"""Reading one step ahead, in a thread, while what was read is being worked on."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from concurrent.futures import CancelledError, ThreadPoolExecutor
from contextlib import suppress
from typing import TypeVar

__all__ = ["prefetched"]

_Item = TypeVar("_Item")


def prefetched(items: Iterator[_Item]) -> Generator[_Item, None, None]:
    """The same items; the next is being made while the last is used.

    It pays where making one waits for something that frees the interpreter, as DuckDB does. At most
    one item is held beside the one in use. An error is raised where the item would have come.

    >>> list(prefetched(iter("abc")))
    ['a', 'b', 'c']
    """
    end = object()
    with ThreadPoolExecutor(1, thread_name_prefix="afterimage-prefetch") as thread:
        following = thread.submit(next, items, end)
        try:
            while (item := following.result()) is not end:
                following = thread.submit(next, items, end)
                yield item  # type: ignore[misc]
        finally:
            # Whoever stops early closes the connection: not before the thread is done with it.
            with suppress(CancelledError):
                following.exception()
            close = getattr(items, "close", None)
            if close is not None:
                close()
