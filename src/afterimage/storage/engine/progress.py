"""How far DuckDB is with a statement, asked of it while it works."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import sqlalchemy as sa

from afterimage.storage.engine.statements import share_done
from afterimage.storage.reports.progress import ShareProgress

__all__ = ["followed_statement"]

_SECONDS = 0.1


@contextmanager
def followed_statement(connection: sa.Connection, progress: ShareProgress | None) -> Iterator[None]:
    """Tell of the one statement that is executed meanwhile, where the engine knows.

    What it says are estimates: in steps of about 100,000 rows of a table, and a statement may end
    long before 1.

    Args:
        connection: not closed before this ends.
        progress: called in a thread; None to leave it.
    """
    if progress is None:
        yield
        return
    ended = threading.Event()
    ask = share_done(connection)

    def follow() -> None:
        reached = 0.0
        while not ended.wait(_SECONDS):
            share = ask()
            if share is not None and share > reached:
                progress.reached(reached := share)

    thread = threading.Thread(target=follow, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
