"""Copy a database into a new file, as DuckDB does it: all that is in it, without unused space."""

from __future__ import annotations

import uuid
from pathlib import Path

import duckdb

from afterimage.storage.engine.attach import NEW_FILE_OPTIONS
from afterimage.storage.engine.instance import quoted
from afterimage.storage.system.targets import unicode_path

__all__ = ["copy_database"]


def copy_database(connection: duckdb.DuckDBPyConnection, fresh: Path) -> None:
    """Copy the database of a connection, as it is now, into a new file.

    The connection must not be in a transaction.
    """
    [[database]] = connection.execute("SELECT current_database()").fetchall()
    source = '"' + database.replace('"', '""') + '"'
    copy = f"copy_{uuid.uuid4().hex}"
    connection.execute(f"ATTACH {quoted(unicode_path(fresh))} AS {copy} ({NEW_FILE_OPTIONS})")
    try:
        connection.execute("BEGIN")
        connection.execute(f"COPY FROM DATABASE {source} TO {copy}")
        connection.execute("COMMIT")
        connection.execute(f"CHECKPOINT {copy}")
    except duckdb.Error:
        _roll_back(connection)
        raise
    finally:
        connection.execute(f"DETACH {copy}")


def _roll_back(connection: duckdb.DuckDBPyConnection) -> None:
    try:
        connection.execute("ROLLBACK")
    except duckdb.TransactionException:  # the commit or the checkpoint has failed
        return
