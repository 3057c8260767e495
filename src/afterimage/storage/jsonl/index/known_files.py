"""Remember the outlines of files, as long as the files do not change.

An outline costs as much as two or three queries, so it is made only for a file that is queried
again and again.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Final

from afterimage.storage.jsonl.index.opened import OpenFile
from afterimage.storage.jsonl.index.outline import Outline, outline_of
from afterimage.storage.jsonl.lines import Chunk

__all__ = ["KnownFiles"]

# Queries of an unchanged file that are answered from the file itself.
_FIRST_QUERIES: Final = 2

# A file system may give two changes in a short time the same time stamps. So a file is remembered
# only if it has not changed for this long.
_SETTLED_NANOSECONDS: Final = 2 * 10**9

_Fingerprint = tuple[int, ...]


class _State:
    """What is known of a file.

    Attributes:
        fingerprint: identifies its content.
        queries: number of queries of this content that were answered from the file.
        is_made: whether it was tried to make an outline.
        outline: None if it was not made, or cannot be.
    """

    def __init__(self, fingerprint: _Fingerprint) -> None:
        self.fingerprint = fingerprint
        self.queries = 0
        self.is_made = False
        self.outline: Outline | None = None


class KnownFiles:
    """The outlines of the files of a storage."""

    def __init__(self) -> None:
        self._states: dict[Path, _State] = {}

    def is_due(self, path: Path) -> bool:
        """Count a query of a file; return whether an outline is to answer it.

        This costs one look at the file, which is not opened.
        """
        try:
            status = path.stat()
        except OSError:  # the read of the file says what is wrong
            return False
        fingerprint = _fingerprint(status)
        state = self._states.get(path)
        if state is None or state.fingerprint != fingerprint:
            state = self._states[path] = _State(fingerprint)
        if state.queries < _FIRST_QUERIES:
            state.queries += 1
            return False
        return state.outline is not None if state.is_made else _is_settled(status)

    def outline(self, opened: OpenFile, chunks: Callable[[], Iterable[Chunk]]) -> Outline | None:
        """Return the outline of a file that is due; None if the file itself is to be read.

        Args:
            opened: the file.
            chunks: returns its lines.
        """
        if opened.file is None or opened.seen.hidden or opened.seen.killed:
            return None
        descriptor = opened.file.fileno()
        state = self._states.get(opened.path)
        if state is None or state.fingerprint != _fingerprint(os.fstat(descriptor)):
            return None
        if not state.is_made:
            state.is_made = True
            outline = outline_of(chunks(), opened.seen.size or 0)
            # The file may have changed while it was read.
            if state.fingerprint == _fingerprint(os.fstat(descriptor)):
                state.outline = outline
        return state.outline


def _fingerprint(status: os.stat_result) -> _Fingerprint:
    # No program can set the time of the last change of the inode.
    times = status.st_mtime_ns, status.st_ctime_ns
    return status.st_dev, status.st_ino, status.st_size, *times


def _is_settled(status: os.stat_result) -> bool:
    latest = max(status.st_mtime_ns, status.st_ctime_ns)
    return time.time_ns() - latest > _SETTLED_NANOSECONDS
