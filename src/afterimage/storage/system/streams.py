"""Iterators that a caller keeps: safe from several threads, closed on purpose, useless in a fork.

The invariants: a generator below is entered by one thread at a time; each item is given once; a
process that inherited an iterator from its parent touches neither a file nor the engine through it;
a signal that arrives during a step closes the iterator before the handler's exception is raised.
"""

from __future__ import annotations

import ctypes
import os
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterator
from contextlib import suppress
from typing import Any, Generic, Self, TypeVar

from afterimage.storage.errors import StorageError
from afterimage.storage.system.forks import at_fork
from afterimage.storage.system.interrupts import (
    Operation,
    Stopped,
    acquire,
    checkpoint,
    deferred_signals,
    resend_soon,
    signal_behind,
)

__all__ = ["BatchIterator", "RecordIterator"]

_Item = TypeVar("_Item")


class _Source:
    """A generator behind a lock, of the process that made it.

    Attributes:
        ready: items of the last step that are not given yet, where a step makes several.
    """

    def __init__(self, items: Generator[Any, None, None]) -> None:
        self.ready: deque[Any] = deque()
        self._items = items
        self._lock = threading.RLock()
        self._operation = Operation()
        self._owner = os.getpid()
        self._is_closed = False
        self._is_stepping = False
        _open[id(self)] = self

    def close(self) -> None:
        """Close the generator; a step that runs in another thread ends first."""
        if os.getpid() != self._owner:  # the parent goes on reading
            self._is_closed = True
        else:
            with deferred_signals(self._operation), self._lock:
                self._is_closed = True
                if not self._is_stepping:  # else the step closes it
                    self._close_items()
        self.ready.clear()

    def locked(self, take: Callable[[], Any]) -> Any:
        """What `take` returns under the lock.

        Raises:
            StorageError: this process is a fork of the one that began the iteration, and the
                position in the file is the parent's, too; or a signal to the main thread has ended
                the iteration, and this is another thread.
        """
        if os.getpid() != self._owner:
            raise StorageError(
                f"this iteration was begun in process {self._owner}, and this is a fork of it. "
                "Call the storage again in this process."
            )
        try:
            with deferred_signals(self._operation, self.close):
                acquire(self._lock)
                try:
                    return take()
                finally:
                    self._lock.release()
        except Stopped:
            if threading.current_thread() is threading.main_thread():
                raise
            raise StorageError(
                "this iteration was ended by a signal to the main thread. Call the storage again."
            ) from None

    def step(self) -> Any:
        """The next item; called under the lock."""
        if self._is_closed:
            raise StopIteration
        if self._is_stepping:
            raise StorageError("this iterator was called from inside one of its own steps")
        self._is_stepping = True
        try:
            item = next(self._items)
            checkpoint()
        except BaseException as error:
            self._is_closed = True
            if self._operation.is_stopped and not isinstance(error, StopIteration):
                raise Stopped from None  # whatever error the interrupted engine gives
            raise
        finally:
            self._is_stepping = False
            if self._is_closed:
                self._close_items()
        return item

    def keep_for_good(self) -> None:
        """Never end the generator, which in a fork would use the parent's file or engine."""
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(self._items))
        self.ready.clear()  # the error comes at once, not some records later

    def _close_items(self) -> None:
        _open.pop(id(self), None)
        self._items.close()


# Those that are not closed. No weak references: their callbacks could swallow the exception of a
# signal handler, as finalizers can.
_open: dict[int, _Source] = {}


def _closed_when_dropped(source: _Source) -> Generator[None, None, None]:
    """A generator that closes a source at its own end, and so when nothing refers to it any more.

    The exception of a signal handler can be caught in all of it; one that comes before the first
    step of a `__del__` method is lost.
    """
    try:
        yield
    finally:
        is_closed = False
        while not is_closed:
            try:
                with deferred_signals(resend=True):
                    source.close()
                    is_closed = True
            except BaseException as error:
                number = signal_behind(error)
                if number is None:
                    raise
                resend_soon(number)  # it came between two steps of this block


class _Stream:
    """What the iterators share."""

    def __init__(self, items: Generator[Any, None, None]) -> None:
        self._source = _Source(items)
        self._end = _closed_when_dropped(self._source)
        next(self._end)

    def close(self) -> None:
        """End the iteration, and close the file that is read. It may be called several times."""
        self._source.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


class BatchIterator(_Stream, Generic[_Item]):
    """The items of a generator, for one thread at a time."""

    def __init__(self, items: Generator[_Item, None, None]) -> None:
        super().__init__(items)

    def __iter__(self) -> Iterator[_Item]:
        return self

    def __next__(self) -> _Item:
        item: _Item = self._source.locked(self._source.step)
        return item


class RecordIterator(_Stream, Generic[_Item]):
    """Records one by one, out of batches.

    Several threads may share one: each record is given once. `close()` ends it and closes the file
    that is read; so do the end of a `with` block and the garbage collector.

    >>> batches = (list(part) for part in ("ab", "", "c"))
    >>> with RecordIterator(batches) as records:
    ...     list(records)
    ['a', 'b', 'c']
    """

    def __init__(self, batches: Generator[list[_Item], None, None]) -> None:
        super().__init__(batches)
        self._take = self._source.ready.popleft  # atomic

    def __iter__(self) -> Iterator[_Item]:
        return self

    def __next__(self) -> _Item:
        try:
            record: _Item = self._take()
        except IndexError:
            pass
        else:
            return record
        # Not in the `except` block: whoever keeps an exception of the step would keep this frame.
        record = self._source.locked(self._refill)
        return record

    def _refill(self) -> _Item:
        source = self._source
        while True:
            if source.ready:
                with suppress(IndexError):  # other threads took all
                    record: _Item = self._take()
                    return record
            source.ready.extend(source.step())


def _after_fork() -> None:
    for source in _open.values():
        source.keep_for_good()


at_fork(after_in_child=_after_fork)
