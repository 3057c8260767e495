"""Warn the package's caller, of which the line is found in the call stack."""

from __future__ import annotations

import inspect
import os
import warnings
from contextlib import suppress
from pathlib import Path
from typing import Final, Self

__all__ = ["DeferredWarnings", "stacklevel_of_caller", "warn_caller"]

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
    """Issue a warning that points at the user's own line."""
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
