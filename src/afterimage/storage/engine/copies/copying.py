"""Copy a database into a new file, as DuckDB does it: all that is in it, without unused space."""

from __future__ import annotations

import uuid
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
    """
    [[database]] = connection.execute("SELECT current_database()").fetchall()
    source = '"' + database.replace('"', '""') + '"'
    copy = f"copy_{uuid.uuid4().hex}"
    connection.execute(f"ATTACH {quoted(unicode_path(fresh))} AS {copy} ({NEW_FILE_OPTIONS})")
    try:
        connection.execute("BEGIN")
        connection.execute(f"COPY FROM DATABASE {source} TO {copy}")
        _check_counts(connection, database, source, copy)
        connection.execute("COMMIT")
        connection.execute(f"CHECKPOINT {copy}")
    except (duckdb.Error, DatabaseError):
        _roll_back(connection)
        raise
    finally:
        connection.execute(f"DETACH {copy}")


def _roll_back(connection: duckdb.DuckDBPyConnection) -> None:
    try:
        connection.execute("ROLLBACK")
    except duckdb.TransactionException:  # the commit or the checkpoint has failed
        return


def _check_counts(
    connection: duckdb.DuckDBPyConnection, database: str, source: str, copy: str
) -> None:
    """Check that a copy has as many rows in each table as the database.

    Raises:
        DatabaseError: a table has another number of rows.
    """
    tables = """SELECT '"' || replace(schema_name, '"', '""') || '"."' ||
        replace(table_name, '"', '""') || '"' FROM duckdb_tables() WHERE database_name = ?"""
    for (table,) in connection.execute(tables, [database]).fetchall():
        counts = [
            connection.execute(f"SELECT count(*) FROM {name}.{table}").fetchall()
            for name in (source, copy)
        ]
        if counts[0] != counts[1]:
            raise DatabaseError(
                f"the table {table} was not copied completely. Nothing was changed."
            )
