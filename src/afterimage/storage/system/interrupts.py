"""Signals that arrive during a call: their exceptions are raised when the call has released all.

Python runs signal handlers in the main thread, between any two steps of a program. So what a
handler raises, as `KeyboardInterrupt`, can end a `finally` block before its first step, and then a
file stays locked. The invariant: within `deferred_signals`, every handler runs when its signal
arrives, but what it raises is kept, and raised where the block ends.

So that a long call ends soon, a kept exception also interrupts the engine's statements
(`interruptible`) and ends the call at the next `checkpoint`. A handler that raises nothing does
neither. Threads other than the main one run no handlers, and nothing changes for them.
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]
import _thread
import operator
import os
import signal
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from types import FrameType
from typing import Any, Final, Generic, Self, TypeVar

__all__ = [
    "Operation",
    "Stopped",
    "acquire",
    "checkpoint",
    "current_operation",
    "deferred_signals",
    "interruptible",
    "responsive",
    "serve",
]

_Result = TypeVar("_Result")

_POLL_SECONDS: Final = 0.05
_PRESS_SECONDS: Final = 0.02

# Of `_signal`: the functions of `signal` turn every number into an enum, which takes ten times as
# long as all the rest.
_NUMBERS: Final = sorted(map(int, signal.valid_signals()))


class Stopped(BaseException):
    """Ends a call from inside; where the call ends, the exception of a handler replaces it."""


class Operation:
    """What signals stop as a whole: one call, or all steps of one iterator.

    Attributes:
        is_stopped: whether a handler has raised an exception during it.
    """

    __slots__ = ("is_stopped", "statements")

    def __init__(self) -> None:
        self.is_stopped = False
        self.statements: set[interruptible] = set()

    def checkpoint(self) -> None:
        """Raise if the operation is to stop; for threads that work for it.

        Raises:
            Stopped: it is.
        """
        if self.is_stopped:
            raise Stopped


class _Here(threading.local):
    operation: Operation | None = None


class _MainThread:
    """What the handlers of the main thread have to know."""

    def __init__(self) -> None:
        self.is_deferring = False
        self.thread = 0
        self.error: BaseException | None = None
        self.number = 0
        self.operations: list[Operation] = []
        self._pressing: object = None
        self._seen: list[Any] = []
        self._deferred: list[_Deferred] = []

    def install(self) -> bool:
        """Put our handlers in the place of others; False where Python allows no handlers."""
        found = [*map(_signal.getsignal, _NUMBERS)]
        if len(found) != len(self._seen) or not all(map(operator.is_, found, self._seen)):
            self._deferred = [
                # One of ours was left by an exception between two steps of `restore`.
                handler if isinstance(handler, _Deferred) else _Deferred(number, handler)
                for number, handler in zip(_NUMBERS, found, strict=True)
                if callable(handler)
            ]
            self._seen = found
        try:
            for ours in self._deferred:
                _signal.signal(ours.number, ours)
        except ValueError:  # a subinterpreter
            return False
        except BaseException:  # of a handler that is not replaced yet
            self.restore()
            raise
        return True

    def restore(self) -> None:
        """Put the handlers back, but not over one that was set meanwhile."""
        for ours in self._deferred:
            if _signal.getsignal(ours.number) is ours:
                _signal.signal(ours.number, ours.original)

    def stop(self, number: int, error: BaseException) -> None:
        """Keep an exception of a handler, and have the call end."""
        # `KeyboardInterrupt` and its like must not be lost because of a timeout.
        outranks = isinstance(self.error, Exception) and not isinstance(error, Exception)
        if self.error is None or outranks:
            trace = error.__traceback__
            self.error = error.with_traceback(trace.tb_next if trace else None)
            self.number = number
        for operation in self.operations:
            operation.is_stopped = True
        if self._pressing is None and any(each.statements for each in self.operations):
            self._pressing = pressing = object()
            with suppress(RuntimeError):  # no thread can be started any more
                _thread.start_new_thread(self._press, (pressing,))

    def _press(self, pressing: object) -> None:
        """Interrupt the engine until the call has ended: one request is lost between statements.

        In a thread, as the lock may be held by the main one, in which handlers run.
        """
        while self._pressing is pressing:
            with _guard:
                for operation in list(self.operations):
                    for statement in operation.statements:
                        with suppress(Exception):
                            statement.interrupt()
            time.sleep(_PRESS_SECONDS)

    def end(self) -> BaseException | None:
        """End the deferral; what is to be raised now."""
        self._pressing = None
        self.operations.clear()
        self.is_deferring = False  # from here on, handlers may raise at once
        error, self.error = self.error, None
        return error


class _Deferred:
    """A handler that keeps what the original one raises."""

    def __init__(self, number: int, original: Callable[[int, FrameType | None], Any]) -> None:
        self.number = number
        self.original = original

    def __call__(self, number: int, frame: FrameType | None) -> None:
        if not _main.is_deferring:
            self.original(number, frame)
            return
        try:
            self.original(number, frame)
        except Stopped:  # the handler itself made a call, which an earlier signal has ended
            pass
        except BaseException as error:  # noqa: BLE001  it is raised where the call ends
            _main.stop(number, error)


_here = _Here()
_main = _MainThread()
# Held while statements are interrupted, so that no connection is closed meanwhile.
_guard = threading.Lock()


class deferred_signals:  # noqa: N801  used like a function
    """A block that signals end only where nothing is open any more: at its end.

    Inside another one it changes nothing.

    Args:
        operation: what the block is a part of; a new one where it is None.
        undo: is called before an exception is raised, to close what the block would have given.
        later: whether an exception is raised not here but in the main thread, a few milliseconds
            later: for finalizers, whose exceptions Python ignores.

    >>> with deferred_signals():
    ...     checkpoint()
    """

    __slots__ = ("_is_main", "_is_outermost", "_later", "_operation", "_outer", "undo")

    def __init__(
        self,
        operation: Operation | None = None,
        undo: Callable[[], object] | None = None,
        *,
        later: bool = False,
    ) -> None:
        self._operation = operation
        self.undo = undo
        self._later = later

    def __enter__(self) -> Self:
        self._outer = _here.operation
        self._is_main = _thread.get_ident() == threading.main_thread().ident
        self._is_outermost = False
        if not self._is_main:
            if self._operation is not None:
                _here.operation = self._operation
            return self
        if _main.is_deferring:
            if self._operation is not None:
                _here.operation = self._operation
                _main.operations.append(self._operation)
                if _main.error is not None:
                    self._operation.is_stopped = True
            return self
        self._is_outermost = _main.install()
        if self._is_outermost:
            operation = self._operation or Operation()
            _main.operations.append(operation)
            _main.thread = _thread.get_ident()
            _here.operation = operation
            _main.is_deferring = True  # the last step: before it, a handler still raises at once
        return self

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        _here.operation = self._outer
        if not self._is_outermost:
            if self._is_main and self._operation is not None:
                _main.operations.remove(self._operation)
            return
        kept = _main.end()
        if kept is not None and self.undo is not None:
            _main.is_deferring = True
            self.undo()
            kept = _main.end() or kept
        try:
            _main.restore()
        except BaseException:  # of a handler that is back already
            if kept is None and self.undo is not None:
                self.undo()
            raise
        if kept is None:
            return
        if self._later:
            _thread.start_new_thread(_signal_later, (_main.number,))
            return
        raise kept from None


def current_operation() -> Operation | None:
    """The operation that this thread works for, if any."""
    return _here.operation


def serve(operation: Operation | None) -> None:
    """Have this thread, which was started for it, work for an operation."""
    _here.operation = operation


def checkpoint() -> None:
    """End the operation here if a signal is to end it. Call it where that is safe, and often.

    Raises:
        Stopped: it ends.
    """
    operation = _here.operation
    if operation is not None and operation.is_stopped:
        raise Stopped


class interruptible:  # noqa: N801  used like a function
    """A block whose statements a signal may interrupt; the connection is not closed inside it.

    Args:
        interrupt: ends the connection's statement, if one runs. It is called in another thread.
    """

    __slots__ = ("_operation", "interrupt")

    def __init__(self, interrupt: Callable[[], object]) -> None:
        self.interrupt = interrupt

    def __enter__(self) -> None:
        self._operation = _here.operation
        if self._operation is not None:
            self._operation.checkpoint()
            with _guard:
                self._operation.statements.add(self)

    def __exit__(self, kind: object, error: object, trace: object) -> None:
        if self._operation is not None:
            with _guard:
                self._operation.statements.discard(self)
            if kind is None:
                self._operation.checkpoint()


def acquire(lock: Any, seconds: float = float("inf")) -> bool:
    """Acquire a lock of `threading`, as its own method does; a signal may end the wait.

    Raises:
        Stopped: it has.
    """
    if lock.acquire(blocking=False):
        return True
    end = time.monotonic() + seconds
    while (left := end - time.monotonic()) > 0:
        checkpoint()
        if lock.acquire(timeout=min(left, _POLL_SECONDS)):
            return True
    return False


class _Helper(Generic[_Result]):
    """A thread that runs calls for the main one."""

    def __init__(self) -> None:
        self.is_busy = False
        self._call: Callable[[], Any] = checkpoint
        self._operation: Operation | None = None
        self._result: Any = None
        self._error: BaseException | None = None
        self._wake = _thread.allocate_lock()
        self._done = _thread.allocate_lock()
        self._wake.acquire()
        self._done.acquire()
        threading.Thread(target=self._work, name="afterimage-engine", daemon=True).start()

    def run(self, call: Callable[[], _Result]) -> _Result:
        self.is_busy = True
        self._call, self._operation = call, _here.operation
        self._wake.release()
        self._done.acquire()  # handlers run meanwhile
        result, self._result = self._result, None
        error, self._error = self._error, None
        self.is_busy = False
        try:
            if error is not None:
                raise error
        finally:
            del error  # else it would keep this frame, and so itself
        return result  # type: ignore[no-any-return]

    def _work(self) -> None:
        while True:
            self._wake.acquire()
            _here.operation = self._operation
            try:
                self._result = self._call()
            except BaseException as error:  # noqa: BLE001  raised in the main thread
                self._error = error
            self._call, self._operation, _here.operation = checkpoint, None, None
            self._done.release()


_helper: _Helper[Any] | None = None


def responsive(call: Callable[[], _Result]) -> _Result:
    """What a call gives that may return to Python late, as the engine's do.

    While the main thread is in such a call, no handler runs; so the call runs in another thread,
    and the main one waits for it.
    """
    global _helper  # noqa: PLW0603  there is one main thread
    is_main = _main.is_deferring and _thread.get_ident() == _main.thread
    if not is_main or (_helper is not None and _helper.is_busy):
        return call()
    if _helper is None:
        try:
            _helper = _Helper()
        except RuntimeError:  # the interpreter is ending
            return call()
    found: _Result = _helper.run(call)
    return found


def _signal_later(number: int) -> None:
    time.sleep(0.005)
    _thread.interrupt_main(signal.Signals(number))


def _after_fork() -> None:
    global _guard, _helper
    _guard, _helper = threading.Lock(), None
    if _main.is_deferring and _thread.get_ident() != _main.thread:
        _main.end()  # the thread whose call it was is not in the child
        _main.restore()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
