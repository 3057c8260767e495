"""What the package tells its caller: warnings, and messages of the logger `afterimage.storage`.

A warning points at the caller's own line, which is found in the call stack. The log also has every
warning, as Python shows a repeated one only once. The package adds no handler that writes.
"""

from __future__ import annotations

import inspect
import logging
import os
import time
import warnings
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Final, Self

__all__ = ["DeferredWarnings", "LoggedWait", "log", "stacklevel_of_caller", "warn_caller"]

log: Final = logging.getLogger("afterimage.storage")
"""The log of the package."""
log.addHandler(logging.NullHandler())  # without one, Python prints warnings to stderr

# A wait is logged if it takes longer.
_LONG_WAIT_SECONDS: Final = 1.0

_PACKAGE: Final = str(Path(__file__).resolve().parents[1])


def stacklevel_of_caller() -> int:
    """Return the `stacklevel` of the first frame outside this package.

    `warnings.warn(…, stacklevel=stacklevel_of_caller())` then points at the user's own line.
    """
    frame, level = inspect.currentframe(), 0
    while frame is not None and frame.f_code.co_filename.startswith(_PACKAGE + os.sep):
        frame, level = frame.f_back, level + 1
    return level


def warn_caller(message: str | Warning) -> None:
    """Issue a warning that points at the user's own line, and log it."""
    log.warning("%s", message)
    warnings.warn(message, stacklevel=stacklevel_of_caller())


class DeferredWarnings:
    """The warnings of a block that writes. They are issued when the block has ended.

    A filter can turn a warning into an error. At the end, that error cannot prevent the write. It
    does not replace an error of the block.
    """

    def __init__(self) -> None:
        self._messages: list[str] = []

    def __call__(self, message: str) -> None:
        """Issue this warning at the end."""
        self._messages.append(message)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        for message in self._messages:
            if kind is None:
                warn_caller(message)
            else:
                with suppress(Warning):
                    warn_caller(message)


class LoggedWait:
    """A wait for the lock of a file. The log tells that it is long, and that it has ended."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._started = time.monotonic()
        self._is_logged = False

    @property
    def seconds(self) -> float:
        """Seconds since the start."""
        return time.monotonic() - self._started

    def goes_on(self, holder: Callable[[], str | None]) -> None:
        """Log the wait once it is long.

        Args:
            holder: returns the process that holds the lock; None if that is unknown.
        """
        if not self._is_logged and self.seconds >= _LONG_WAIT_SECONDS:
            self._is_logged = True
            by = holder() or "another process"
            log.info("%s is locked by %s; waiting", self._path, by)

    def ended(self) -> None:
        """Log the end of a wait that was logged."""
        if self._is_logged:
            log.info("%s is no longer locked; waited %.1f s", self._path, self.seconds)
