"""Turns: what may happen to a lake at the same time, among all processes.

Saves and imports share a turn, so they do not wait for each other. A change of columns excludes
them, as it must not miss a row, and so does an edit of rows, because DuckLake refuses to delete
from a table that has got new rows. A compaction only excludes these, and other compactions.

A turn is an advisory lock of PostgreSQL, which ends with its connection. A catalog in a file is
open in one process only, so a lock of this process is enough.
"""

from __future__ import annotations

import threading
import time
import zlib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from enum import Enum
from typing import Final

import duckdb

from afterimage.storage.engine.failures import is_passing
from afterimage.storage.engine.lake.instance import LakeInstance, retried
from afterimage.storage.errors import DatabaseError, LockTimeoutError, shorten
from afterimage.storage.system.forks import at_fork
from afterimage.storage.system.interrupts import acquire

__all__ = ["Turn", "turn_in_process", "turn_on_server"]


class Turn(Enum):
    """What a transaction does, as the advisory locks that it takes, in this order."""

    APPEND = (("rows", "_shared"),)
    COMPACT = (("edits", ""),)
    EDIT = (("edits", ""), ("rows", ""))


_NUMBERS: Final = {"rows": 1, "edits": 2}

_locks: dict[str, threading.RLock] = {}


@contextmanager
def turn_in_process(name: str, timeout: float) -> Iterator[None]:
    """Exclude other threads of this process that write to the lake of this name.

    Raises:
        LockTimeoutError: another thread wrote for all of `timeout`.
    """
    lock = _locks.setdefault(name, threading.RLock())
    if not acquire(lock, timeout):
        raise LockTimeoutError.of(name, timeout, "a write in another thread of this process")
    try:
        yield
    finally:
        lock.release()


@contextmanager
def turn_on_server(
    instance: LakeInstance, schema: str, turn: Turn, name: str, timeout: float
) -> Iterator[None]:
    """Hold the locks of a turn, on a connection of their own.

    Args:
        instance: the instance of the lake.
        schema: the schema of the catalog.
        turn: what will be done.
        name: name of the lake, for messages.
        timeout: seconds to wait for other processes, or for the server.

    Raises:
        LockTimeoutError: other processes had the turn for all of `timeout`.
        DatabaseError: the server cannot be reached.
    """
    started = time.monotonic()
    with ExitStack() as held:
        cursor = instance.cursor()
        instance.attach_server(timeout)
        held.callback(cursor.close)

        def take() -> None:
            _end(cursor)
            cursor.execute("BEGIN TRANSACTION")
            for lock, suffix in turn.value:
                key = _signed(zlib.crc32(f"afterimage {schema}".encode()))
                call = f"pg_advisory_xact_lock{suffix}({key}, {_NUMBERS[lock]})"
                instance.on_server(cursor, f"SELECT {call}::text")

        def may_pass(error: BaseException) -> bool:
            return _is_taken(error) or is_passing(error)

        try:
            retried(take, started + timeout, is_worth_it=may_pass)
        except duckdb.Error as error:
            _end(cursor)
            if _is_taken(error):
                waited = time.monotonic() - started
                raise LockTimeoutError.of(name, waited, "other writers") from None
            raise DatabaseError(
                f"{name}: the server cannot be reached: {shorten(error, 300)} Nothing was saved."
            ) from None
        held.callback(_end, cursor)
        yield


def _end(cursor: duckdb.DuckDBPyConnection) -> None:
    with suppress(duckdb.Error):  # there is no transaction, or the server has ended it
        cursor.execute("ROLLBACK")


def _is_taken(error: BaseException) -> bool:
    return "lock timeout" in str(error)


def _signed(number: int) -> int:
    return number - 2**32 if number >= 2**31 else number


def _after_fork() -> None:
    """Replace the locks: a thread that held one in the parent does not exist in the child."""
    _locks.clear()


at_fork(after_in_child=_after_fork)
