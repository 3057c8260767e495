"""Read what a process prints on a terminal."""

from __future__ import annotations

import os

__all__ = ["everything_on"]


def everything_on(terminal: int) -> bytes:
    """Read a terminal until no process has its other end open, and close it."""
    text = b""
    while True:
        try:
            part = os.read(terminal, 65536)
        except OSError:  # Linux: the other end is closed
            break
        if not part:
            break
        text += part
    os.close(terminal)
    return text
