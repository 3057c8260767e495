"""Check the regular expressions of users, in the syntax of RE2.

RE2 takes a time that is linear in the text for every pattern, so a query never hangs.
"""

from __future__ import annotations

import duckdb

from afterimage.storage.engine.database import scratch_connection
from afterimage.storage.engine.statements import driver_of
from afterimage.storage.errors import shorten

__all__ = ["pattern_fault"]


def pattern_fault(pattern: str) -> str | None:
    """Return why DuckDB rejects a regular expression; None if it is valid.

    >>> pattern_fault("night|day")
    >>> pattern_fault("(night")
    'missing ): (night'
    """
    with scratch_connection() as connection:
        try:
            driver_of(connection).execute("SELECT regexp_matches('', ?)", [pattern]).fetchall()
        except duckdb.Error as error:
            return shorten(str(error).removeprefix("Invalid Input Error: "), 120)
    return None
