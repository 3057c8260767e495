"""How far DuckDB is with a statement, asked of it while it works."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import duckdb

from afterimage.storage.reports.progress import ShareProgress

__all__ = ["PROGRESS_SETTINGS", "followed_statement"]

PROGRESS_SETTINGS = {"enable_progress_bar": "true", "enable_progress_bar_print": "false"}
"""What a connection must be set to before `followed_statement` can ask it."""

_SECONDS = 0.1


@contextmanager
def followed_statement(
    connection: duckdb.DuckDBPyConnection, progress: ShareProgress | None
) -> Iterator[None]:
    """Report the progress of the one statement that is executed meanwhile, where DuckDB knows it.

    What it reports are estimates: in steps of about 100,000 rows of a table, and a statement may
    end long before 1.

    Args:
        connection: with `PROGRESS_SETTINGS`; not closed before this ends.
        progress: called in a thread; None to report nothing.
    """
    if progress is None:
        yield
        return
    ended = threading.Event()

    def follow() -> None:
        reached = 0.0
        while not ended.wait(_SECONDS):
            share = connection.query_progress() / 100  # negative while it is not known
            if share > reached:
                progress.reached(reached := share)

    thread = threading.Thread(target=follow, daemon=True)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
