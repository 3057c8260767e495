"""Copy a database into a new file, as DuckDB does it: all that is in it, without unused space."""

from __future__ import annotations

import uuid
from contextlib import suppress
from pathlib import Path

import duckdb

from afterimage.storage.engine.attach import NEW_FILE_OPTIONS
from afterimage.storage.engine.instance import quoted
from afterimage.storage.errors import DatabaseError
from afterimage.storage.system.targets import unicode_path

__all__ = ["copy_database"]


def copy_database(connection: duckdb.DuckDBPyConnection, fresh: Path) -> None:
    """Copy the database of a connection, as it is now, into a new file.

    The connection must not be in a transaction.

    Raises:
        DatabaseError: the copy has a log that DuckDB did not write to the file.
    """
    [[database]] = connection.execute("SELECT current_database()").fetchall()
    source = '"' + database.replace('"', '""') + '"'
    copy = f"copy_{uuid.uuid4().hex}"
    # DuckDB closes the file later if another thread has a transaction, and until then opens no
    # other file of that name.
    unnamed = fresh.with_name(copy)
    connection.execute(f"ATTACH {quoted(unicode_path(unnamed))} AS {copy} ({NEW_FILE_OPTIONS})")
    try:
        connection.execute("BEGIN")
        connection.execute(f"COPY FROM DATABASE {source} TO {copy}")
        connection.execute("COMMIT")
        connection.execute(f"FORCE CHECKPOINT {copy}")  # it waits for those who read the catalog
    except duckdb.Error:
        with suppress(duckdb.TransactionException):  # the commit or the checkpoint has failed
            connection.execute("ROLLBACK")
        raise
    finally:
        connection.execute(f"DETACH {copy}")
    log = unnamed.with_name(f"{copy}.wal")
    if log.exists() and log.stat().st_size:
        raise DatabaseError("DuckDB did not write the log of the copy to its file. Try again.")
    unnamed.replace(fresh)
