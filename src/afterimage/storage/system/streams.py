"""Iterators that a caller keeps: safe from several threads, closed on purpose, useless in a fork.

The invariants: a generator below is entered by one thread at a time; each item is given once; a
process that inherited an iterator from its parent touches neither a file nor the engine through it.
"""

from __future__ import annotations

import ctypes
import os
import threading
import weakref
from collections import deque
from collections.abc import Generator, Iterator
from types import TracebackType
from typing import Any, Generic, Self, TypeVar

from afterimage.storage.errors import StorageError
from afterimage.storage.system.forks import at_fork

__all__ = ["BatchIterator", "RecordIterator"]

_Item = TypeVar("_Item")

_live: weakref.WeakSet[_Stream] = weakref.WeakSet()


class _Stream:
    """A generator behind a lock, of the process that made it."""

    def __init__(self, items: Generator[Any, None, None]) -> None:
        self._items = items
        self._lock = threading.RLock()
        self._owner = os.getpid()
        self._is_closed = False
        _live.add(self)

    def close(self) -> None:
        """End the iteration, and close the file that is read. It may be called several times."""
        if os.getpid() != self._owner:  # the parent goes on reading
            self._is_closed = True
            return
        with self._lock:
            if not self._is_closed:
                self._is_closed = True
                self._items.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def __del__(self) -> None:
        if hasattr(self, "_is_closed"):
            self.close()

    def _check_process(self) -> None:
        """Refuse in a fork, where the position in the file is the parent's, too.

        Raises:
            StorageError: this process is not the one that began the iteration.
        """
        if os.getpid() != self._owner:
            raise StorageError(
                f"this iteration was begun in process {self._owner}, and this is a fork of it. "
                "Call the storage again in this process."
            )

    def _step(self) -> Any:
        """The next item; called under the lock."""
        if self._is_closed:
            raise StopIteration
        try:
            return next(self._items)
        except BaseException:
            self._is_closed = True  # the generator has ended
            raise


class BatchIterator(_Stream, Generic[_Item]):
    """The items of a generator, for one thread at a time."""

    def __init__(self, items: Generator[_Item, None, None]) -> None:
        super().__init__(items)

    def __iter__(self) -> Iterator[_Item]:
        return self

    def __next__(self) -> _Item:
        self._check_process()
        with self._lock:
            item: _Item = self._step()
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
        self._ready: deque[_Item] = deque()
        self._take = self._ready.popleft  # atomic

    def __iter__(self) -> Iterator[_Item]:
        return self

    def __next__(self) -> _Item:
        try:
            return self._take()
        except IndexError:
            return self._refill()

    def close(self) -> None:
        """End the iteration, and close the file that is read. It may be called several times."""
        super().close()
        self._ready.clear()

    def _refill(self) -> _Item:
        self._check_process()
        with self._lock:
            while True:
                try:
                    return self._take()  # another thread was here first
                except IndexError:
                    self._ready.extend(self._step())


def _after_fork() -> None:
    """Keep what belongs to the parent for good: to end a generator would use its file or engine."""
    for stream in list(_live):
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(stream._items))  # noqa: SLF001
        if isinstance(stream, RecordIterator):
            stream._ready.clear()  # noqa: SLF001  the error comes at once, not some records later


at_fork(after_in_child=_after_fork)
