"""The end of the interpreter: calls that daemon threads are still making end first.

When the interpreter ends, Python ends each daemon thread where it next runs Python code. If that is
inside a call of DuckDB or Arrow, the process is aborted, because C++ code cannot be left that way.
So `atexit` stops the calls of other threads before. A call that is stopped, or begun later in such
a thread, raises `SystemExit`, which ends the thread without a message. The main thread may go on
using storages, for example in `atexit` functions.
"""

from __future__ import annotations

import _thread
import atexit
import threading
import time
from collections.abc import Callable
from typing import Final

from afterimage.storage.system.forks import at_fork

__all__ = ["OtherCalls", "end_calls_first", "other_calls"]

# A call ends at its next checkpoint, within milliseconds, unless it waits for another program.
_LONGEST_SECONDS: Final = 3.0
_PAUSE_SECONDS: Final = 0.005
# Between two steps of a scan, a thread may be inside Arrow, which no call counts.
_QUIET_PAUSES: Final = 5


class OtherCalls:
    """The calls that threads other than the main one are making."""

    def __init__(self) -> None:
        self.are_over = False
        self._stops: dict[int, Callable[[], None]] = {}

    def begin(self, stop: Callable[[], None], *, is_cleanup: bool = False) -> None:
        """Count a call of this thread; `stop` makes it end soon.

        Args:
            stop: called in the main thread.
            is_cleanup: whether the call only closes something; it is then allowed at any time.

        Raises:
            SystemExit: the interpreter is ending.
        """
        self._stops[_thread.get_ident()] = stop
        if self.are_over and not is_cleanup:
            self.end()
            raise SystemExit

    def end(self) -> None:
        """Count a call of this thread as ended."""
        self._stops.pop(_thread.get_ident(), None)

    def forget(self) -> None:
        """Count no call any more."""
        self._stops.clear()

    def stop_all(self) -> None:
        """Stop all calls, and wait until they have ended; not for ever."""
        self.are_over = True
        if threading.active_count() == 1 and not self._stops:
            return
        quiet, end = 0, time.monotonic() + _LONGEST_SECONDS
        while quiet < _QUIET_PAUSES and time.monotonic() < end:
            stops = list(self._stops.values())
            for stop in stops:
                stop()
            quiet = 0 if stops else quiet + 1
            time.sleep(_PAUSE_SECONDS)


other_calls = OtherCalls()


def _after_fork() -> None:
    """Forget the calls of threads that are not in the child."""
    other_calls.forget()


def end_calls_first() -> None:
    """Stop calls before the `atexit` functions run that are registered by now.

    DuckDB registers one, which interrupts all statements.
    """
    atexit.unregister(other_calls.stop_all)
    atexit.register(other_calls.stop_all)


end_calls_first()
at_fork(after_in_child=_after_fork)
