"""Find the package's caller in the call stack."""

from __future__ import annotations

import inspect
import os
from pathlib import Path
from typing import Final

__all__ = ["stacklevel_of_caller"]

_PACKAGE: Final = str(Path(__file__).resolve().parents[1])


def stacklevel_of_caller() -> int:
    """Return the `stacklevel` of the first frame outside this package.

    `warnings.warn(…, stacklevel=stacklevel_of_caller())` then points at the user's own line.
    """
    frame, level = inspect.currentframe(), 0
    while frame is not None and frame.f_code.co_filename.startswith(_PACKAGE + os.sep):
        frame, level = frame.f_back, level + 1
    return level
