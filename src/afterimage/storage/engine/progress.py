"""Report the progress of a running DuckDB statement."""

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
    """Report the progress of the one statement that is executed inside the block.

    The shares are DuckDB's estimates. They change in steps of about 100,000 table rows, and a
    statement may end long before its share reaches 1. Some statements have no estimate.

    Args:
        connection: has `PROGRESS_SETTINGS`; it must stay open until the block ends.
        progress: called in another thread; None for no reports.
    """
    if progress is None:
        yield
        return
    ended = threading.Event()

    def poll() -> None:
        reached = 0.0
        while not ended.wait(_SECONDS):
            share = connection.query_progress() / 100  # negative while it is not known
            if share > reached:
                progress.reached(reached := share)

    thread = threading.Thread(target=poll, daemon=True)
    try:
        thread.start()
    except RuntimeError:  # the interpreter is ending
        yield
        return
    try:
        yield
    finally:
        ended.set()
        thread.join()
