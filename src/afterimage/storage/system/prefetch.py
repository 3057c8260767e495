"""Prefetch the items of an iterator in a thread, while the caller uses the current one."""

from __future__ import annotations

from collections import deque
from collections.abc import Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import Any, TypeVar

from afterimage.storage.system.interrupts import checkpoint, current_operation, work_for

__all__ = ["prefetched"]

_Item = TypeVar("_Item")


def prefetched(items: Iterator[_Item], ahead: int = 1) -> Generator[_Item, None, None]:
    """Yield the same items; the next ones are computed while the caller uses one.

    This helps if computing an item releases the interpreter lock, as DuckDB does. An exception is
    raised in place of its item. When the interpreter ends, Python starts no threads any more; the
    items are then computed in the caller's thread.

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
        following: deque[Future[Any]] = deque()

        def compute_next() -> None:
            try:
                future = thread.submit(next, items, end)
            except RuntimeError:
                wait(following)  # the thread may still compute items that are due before
                future = _computed(items, end)
            following.append(future)

        for _ in range(ahead):
            compute_next()
        try:
            while (item := following.popleft().result()) is not end:
                compute_next()
                checkpoint()
                yield item
        finally:
            # After an early stop the connection is closed: wait until the thread is done with it.
            for future in following:
                if not future.cancel():
                    future.exception()
            close = getattr(items, "close", None)
            if close is not None:
                close()


def _computed(items: Iterator[Any], end: object) -> Future[Any]:
    future: Future[Any] = Future()
    try:
        future.set_result(next(items, end))
    except BaseException as error:  # noqa: BLE001  raised in place of the item
        future.set_exception(error)
    return future
