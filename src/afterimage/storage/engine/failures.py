"""Errors of the servers and files of lakes that another attempt may not meet."""

from __future__ import annotations

import re
from typing import Final

import duckdb
import sqlalchemy as sa

from afterimage.storage.errors import DatabaseError

__all__ = ["ENGINE_ERRORS", "UnknownOutcomeError", "is_passing", "lock_is_taken"]

ENGINE_ERRORS: Final = (duckdb.Error, sa.exc.SQLAlchemyError)
"""Exceptions that statements on a lake raise."""


class UnknownOutcomeError(DatabaseError):
    """A commit may have happened. It is not repeated, because nothing says that it did not."""


# A connection that was lost or refused, a server that stops or starts, and a commit that many other
# commits overtook. A failed ROLLBACK hides the error before it.
_PASSING: Final = re.compile(
    r"server closed the connection|connection to server .* failed|could not connect|"
    r"unable to connect|connection refused|connection reset|broken pipe|starting up|"
    r"shutting down|not yet accepting|terminating connection|connection not open|"
    r"no connection to the server|lost synchronization|connection pointer is NULL|"
    r"SSL connection has been closed|SSL SYSCALL|timeout expired|could not receive data|"
    r"could not send data|insufficient data|unexpected response|another command is already|"
    r"Failed to execute query \"(?:ROLLBACK|COMMIT)|Failed to (?:prepare|fetch|read)[^\n]*COPY|"
    r"too many (?:clients|connections)|remaining connection slots|deadlock detected|"
    r"current transaction is aborted|could not serialize access|maximum retry count",
    re.I | re.S,
)

# Another process has the file of a catalog open.
_TAKEN: Final = re.compile(
    r"Could not set lock|Conflicting lock|being used by another process|"
    r"Unique file handle conflict",
    re.I,
)


def is_passing(error: BaseException) -> bool:
    """Return whether the same statement may succeed soon.

    >>> is_passing(duckdb.IOException("FATAL: the database system is starting up"))
    True
    """
    if isinstance(error, UnknownOutcomeError):
        return False
    return bool(_PASSING.search(str(_original(error))))


def _original(error: BaseException) -> BaseException:
    """Return the engine's own error below one of SQLAlchemy or of this package."""
    if isinstance(error, DatabaseError) and error.__cause__ is not None:
        error = error.__cause__
    return getattr(error, "orig", None) or error


def lock_is_taken(error: BaseException) -> bool:
    """Return whether another process has the file of the catalog open."""
    return bool(_TAKEN.search(str(_original(error))))
