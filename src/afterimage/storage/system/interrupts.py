"""Signals that arrive during a call: their exceptions are raised after the call has cleaned up.

Python runs signal handlers in the main thread, between any two steps of a program. So an exception
of a handler, such as `KeyboardInterrupt`, can skip a `finally` block, and then a file stays locked.
The invariant: within `deferred_signals`, every handler runs when its signal arrives, but an
exception that it raises is kept, and is raised where the block ends.

So that a long call ends soon, a kept exception also interrupts the engine's statements
(`interruptible`), and it ends the call at the next `checkpoint`. A handler that raises nothing does
neither. Only the main thread runs handlers. Calls of other threads are stopped in the same way when
the interpreter ends (`exits`).
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]
import _thread
import asyncio
import contextvars
import operator
import signal
import threading
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from functools import wraps
from itertools import compress
from types import FrameType, TracebackType
from typing import Any, Final, ParamSpec, Self, TypeVar

from afterimage.storage.system.exits import other_calls
from afterimage.storage.system.forks import at_fork

__all__ = [
    "Operation",
    "Stopped",
    "acquire",
    "checkpoint",
    "current_operation",
    "deferred_signals",
    "in_thread",
    "interruptible",
    "resend_soon",
    "signal_behind",
    "signal_safe",
    "work_for",
]

_Parameters = ParamSpec("_Parameters")
_Result = TypeVar("_Result")

_POLL_SECONDS: Final = 0.05
_INTERRUPT_SECONDS: Final = 0.02
_RESEND_SECONDS: Final = 0.005

# The signals whose handlers programs let raise exceptions.
_NAMES: Final = [
    *("SIGINT", "SIGBREAK", "SIGTERM", "SIGHUP", "SIGQUIT", "SIGUSR1", "SIGUSR2"),
    *("SIGALRM", "SIGVTALRM", "SIGPROF", "SIGXCPU", "SIGCHLD"),
]
# With the functions of `_signal`: those of `signal` turn each number into an enum, which takes
# longer than all the rest.
_NUMBERS: Final = [int(getattr(signal, name)) for name in _NAMES if hasattr(signal, name)]


class Stopped(BaseException):
    """Ends a call from inside; at the end of the call the handler's exception replaces it."""


class Operation:
    """What a signal ends as a whole: one call, or all steps of one iterator.

    Attributes:
        is_stopped: whether a handler has raised an exception during it.
        statements: the blocks of it in which a statement of the engine may run.
    """

    __slots__ = ("is_stopped", "statements")

    def __init__(self) -> None:
        self.is_stopped = False
        self.statements: set[interruptible] = set()

    def stop(self) -> None:
        """Make the operation end at its next checkpoint, and interrupt its statements."""
        self.is_stopped = True
        with _guard:
            for statement in list(self.statements):
                with suppress(Exception):
                    statement.interrupt()

    def checkpoint(self) -> None:
        """Raise if the operation is stopped; for threads that work for it.

        Raises:
            Stopped: it is.
        """
        if self.is_stopped:
            raise Stopped


class _Here(threading.local):
    operation: Operation | None = None


class _MainThread:
    """The state of the main thread that its handlers need."""

    def __init__(self) -> None:
        self.is_deferring = False
        self.thread = 0
        self.error: BaseException | None = None
        self.resends = False
        self.to_resend: list[int] = []
        self.operations: list[Operation] = []
        self._interrupting: object = None
        self._seen: list[Any] = []
        self._deferred: list[_Deferred] = []

    def install(self) -> bool:
        """Replace the handlers by ours; False where Python allows no handlers."""
        found = [*map(_signal.getsignal, _NUMBERS)]
        if len(found) != len(self._seen) or not all(map(operator.is_, found, self._seen)):
            self._deferred = [
                # One of ours stays where an exception was raised between two steps of `restore`.
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

    def stop(self, error: BaseException) -> None:
        """Keep an exception of a handler, and make the call end."""
        # A `KeyboardInterrupt` must not be lost because of a timeout.
        outranks = isinstance(self.error, Exception) and not isinstance(error, Exception)
        if self.error is None or outranks:
            # Its frames would keep the interrupted frames, and the files that are open in them.
            self.error = error.with_traceback(None)
            error.__context__ = None
        for operation in self.operations:
            operation.is_stopped = True
        if self._interrupting is None and any(each.statements for each in self.operations):
            self._interrupting = interrupting = object()
            with suppress(RuntimeError):  # no thread can be started any more
                _thread.start_new_thread(self._interrupt, (interrupting,))

    def _interrupt(self, interrupting: object) -> None:
        """Interrupt the engine until the call has ended: between statements, a request is lost.

        In a thread, as the main thread, where handlers run, may hold the lock.
        """
        while self._interrupting is interrupting:
            for operation in list(self.operations):
                operation.stop()
            time.sleep(_INTERRUPT_SECONDS)

    def resend(self) -> None:
        """Send again what arrived in a block whose exceptions are ignored."""
        while self.to_resend:
            resend_soon(self.to_resend.pop(0))

    def end(self) -> BaseException | None:
        """End the deferral; returns the exception to raise now."""
        self._interrupting = None
        self.operations = []
        self.is_deferring = False  # from here on, handlers may raise at once
        error, self.error = self.error, None
        return error


class _Deferred:
    """A handler that keeps the exception of the original one."""

    def __init__(self, number: int, original: Callable[[int, FrameType | None], Any]) -> None:
        self.number = number
        self.original = original

    def __call__(self, number: int, frame: FrameType | None) -> None:
        if not _main.is_deferring:
            self.original(number, frame)
            return
        if _main.resends:
            _main.to_resend.append(number)
            return
        try:
            self.original(number, frame)
        except Stopped:  # the handler itself made a call, which an earlier signal has ended
            pass
        except BaseException as error:  # noqa: BLE001  it is raised at the end of the call
            _main.stop(error)


_here = _Here()
_main = _MainThread()
# Held while statements are interrupted, so that no connection is closed meanwhile. Its own thread
# may take it again where the collector ends an iterator just then.
_guard = threading.RLock()


class deferred_signals:  # noqa: N801  used like a function
    """A block after which the exceptions of signal handlers are raised, not inside it.

    Inside another one it changes nothing.

    Args:
        operation: what the block is a part of; None for an operation of its own.
        undo: called before an exception is raised, to close what the block would have returned.
        resend: whether signals are sent again some milliseconds after the block: for blocks whose
            exceptions are ignored, such as finalizers.

    >>> with deferred_signals():
    ...     checkpoint()
    """

    __slots__ = ("_is_main", "_is_outermost", "_operation", "_outer", "_resend", "undo")

    def __init__(
        self,
        operation: Operation | None = None,
        undo: Callable[[], object] | None = None,
        *,
        resend: bool = False,
    ) -> None:
        self._operation = operation
        self.undo = undo
        self._resend = resend

    def __enter__(self) -> Self:
        self._outer = _here.operation
        self._is_main = _thread.get_ident() == threading.main_thread().ident
        self._is_outermost = False
        if not self._is_main:
            if self._outer is None:
                operation = self._operation or Operation()
                other_calls.begin(operation.stop, is_cleanup=self._resend)
                self._is_outermost = True
                _here.operation = operation
            elif self._operation is not None:
                _here.operation = self._operation
            return self
        if _main.is_deferring:
            if self._operation is not None:
                _here.operation = self._operation
                _main.operations.append(self._operation)
                if _main.error is not None:
                    self._operation.is_stopped = True
            return self
        operation = self._operation or Operation()
        if not _main.install():
            self._is_main = False
        else:
            self._is_outermost = True
            try:
                _here.operation = operation
                _main.operations = [operation]
                _main.thread = _thread.get_ident()
                _main.resends = self._resend
                _main.is_deferring = True  # the last step: until then, handlers raise at once
            except BaseException:
                _here.operation = self._outer
                _main.restore()
                raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        _here.operation = self._outer
        if not self._is_main:
            if self._is_outermost:
                other_calls.end()
                if kind is not None and other_calls.are_over and not self._resend:
                    raise SystemExit from None
            return
        if not self._is_outermost:
            if self._operation is not None:
                _main.operations.remove(self._operation)
            return
        if _main.error is not None:
            _clear_frames(error)
        kept = self._leave()
        if kept is None:
            return
        try:
            raise kept from None
        finally:
            kept.__context__ = None  # the error that ended the block, with all its frames
            del kept

    def _leave(self) -> BaseException | None:
        """End the deferral and put the handlers back; returns the exception to raise."""
        try:
            kept = _main.end()
            _main.resend()
            if kept is not None and self.undo is not None:
                _main.is_deferring = True
                self.undo()
                kept = _main.end() or kept
        except BaseException:  # of a handler, which raises at once by now
            _main.restore()
            _main.resend()
            raise
        try:
            _main.restore()
        except BaseException:  # of a handler that is back already
            _main.restore()
            if kept is None and self.undo is not None:
                self.undo()
            raise
        return kept


def signal_safe(
    function: Callable[_Parameters, _Result],
) -> Callable[_Parameters, _Result]:
    """The function with its calls inside `deferred_signals`."""

    @wraps(function)
    def call(*args: _Parameters.args, **kwargs: _Parameters.kwargs) -> _Result:
        with deferred_signals():
            return function(*args, **kwargs)

    return call


async def in_thread(
    function: Callable[_Parameters, _Result], *args: _Parameters.args, **kwargs: _Parameters.kwargs
) -> _Result:
    """Run a function in a worker thread; if the task is cancelled, end the function first.

    It ends at its next checkpoint, with everything done or nothing. While no thread is free, it has
    not begun, and never does. When the interpreter ends, Python starts no threads any more; the
    function then runs in this one.
    """
    operation = Operation()
    context = contextvars.copy_context()
    turn = threading.Lock()  # of the thread to begin, or of this one to give up

    def call() -> Any:
        if not turn.acquire(blocking=False):
            return None
        with deferred_signals(operation):
            return context.run(function, *args, **kwargs)

    try:
        future = asyncio.get_running_loop().run_in_executor(None, call)
    except RuntimeError:
        return function(*args, **kwargs)
    try:
        return await asyncio.shield(future)
    except asyncio.CancelledError:
        if turn.acquire(blocking=False):
            raise
        while not future.done():
            operation.stop()  # again and again: between two statements, a request is lost
            with suppress(asyncio.CancelledError):
                await asyncio.wait([future], timeout=_INTERRUPT_SECONDS)
        if not future.cancelled():
            future.exception()  # the cancellation is raised, whatever the function did
        raise


def current_operation() -> Operation | None:
    """The operation that this thread works for, if any."""
    return _here.operation


def work_for(operation: Operation | None) -> None:
    """Make this thread, which was started for an operation, a part of it."""
    _here.operation = operation


def checkpoint() -> None:
    """End the operation here if a signal has stopped it. Call it often, where ending is safe.

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
    """Acquire a lock of `threading`, within so many seconds or not; a signal may end the wait.

    Raises:
        Stopped: a signal has ended the wait.
    """
    if lock.acquire(blocking=False):
        return True
    end = time.monotonic() + seconds
    while (left := end - time.monotonic()) > 0:
        checkpoint()
        if lock.acquire(timeout=min(left, _POLL_SECONDS)):
            return True
    return False


def _clear_frames(error: BaseException | None) -> None:
    """Drop what the frames of an error hold, so that whoever keeps a frame keeps no file open."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        traceback.clear_frames(error.__traceback__)
        error = error.__cause__ or error.__context__


def signal_behind(error: BaseException) -> int | None:
    """The signal whose handler has raised an exception, by its traceback; None if none has."""
    codes = {frame.f_code for frame, _ in traceback.walk_tb(error.__traceback__)}
    for number in _NUMBERS:
        handler: Any = _signal.getsignal(number)
        handler = getattr(handler, "original", handler)  # of one of ours
        handler = getattr(handler, "func", handler)  # of a `functools.partial`
        code = getattr(handler, "__code__", None)
        if (code or getattr(type(handler).__call__, "__code__", None)) in codes:
            return number
    # Python's own handler of Ctrl-C is written in C, so no traceback shows it.
    return int(signal.SIGINT) if isinstance(error, KeyboardInterrupt) else None


def resend_soon(number: int) -> None:
    """Send a signal to this process some milliseconds later, to the handler of then, if any."""
    try:
        _thread.start_new_thread(_resend, (number,))
    except RuntimeError:  # no thread can be started any more
        _thread.interrupt_main(signal.Signals(number))


def _resend(number: int) -> None:
    time.sleep(_RESEND_SECONDS)
    if not hasattr(_signal, "pthread_kill"):
        _thread.interrupt_main(signal.Signals(number))
        return
    # Only a real signal wakes a main thread that sleeps. Where the default action is back, it would
    # end the process: the look and the signal are one step of Python, so that nothing is between.
    has_handler = map(callable, map(_signal.getsignal, [number]))
    main = [threading.main_thread().ident]
    with suppress(OSError):
        list(map(_signal.pthread_kill, main, compress([number], has_handler)))


def _after_fork() -> None:
    global _guard  # noqa: PLW0603  a thread that held it is not in the child
    _guard = threading.RLock()
    if _main.is_deferring and _thread.get_ident() != _main.thread:
        _main.end()  # the thread that made the call is not in the child
        _main.restore()


at_fork(after_in_child=_after_fork)
