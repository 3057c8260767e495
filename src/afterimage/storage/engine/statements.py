"""Execute statements through SQLAlchemy and Arrow, and translate the engine's exceptions."""

from __future__ import annotations

import errno
import os
import re
import uuid
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import cache
from typing import Any, Final, NamedTuple, cast

import duckdb
import pyarrow as pa
import sqlalchemy as sa

from afterimage.storage.engine.failures import is_passing
from afterimage.storage.errors import DatabaseError, StorageError, shorten
from afterimage.storage.system.interrupts import checkpoint, current_operation

__all__ = [
    "Prepared",
    "columns_of",
    "compiled",
    "described",
    "driver_of",
    "execute_arrow",
    "existing",
    "fetch_all",
    "give_space_back",
    "is_about_names",
    "is_view",
    "lacks_resources",
    "readable_schema",
    "stream_arrow",
    "streamed",
    "tables_of",
    "translated",
]

# Errors of the operating system that another attempt may not meet.
_SHORTAGES: Final = (errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOSPC)

# A checksum that is wrong, and a file that ends too early.
_DAMAGE: Final = re.compile(
    r"(?:checksum \d+ in block at location|attempted to read \d+ bytes from location) (?P<byte>\d+)"
)

# Rows of a record batch. DuckDB 1.5 allocates memory for all rows that it may have.
_MOST_ROWS: Final = 2**17


def driver_of(connection: sa.Connection) -> duckdb.DuckDBPyConnection:
    """DuckDB's own connection below one of SQLAlchemy."""
    driver: Any = connection.connection.driver_connection
    assert driver is not None
    return cast("duckdb.DuckDBPyConnection", driver)


def existing(connection: sa.Connection, names: Iterable[str]) -> set[str]:
    """Return those of `names` that are tables or views, as of the last commit.

    Each name is looked up in the catalog. A query of a missing table would read a file of that
    name. To list all tables, DuckDB would read the catalog of every attached file, and none of
    these files could be detached during that time.
    """
    quote = connection.dialect.identifier_preparer.quote_identifier
    found = set()
    with _same_database(connection) as other:
        for name in names:
            try:
                other.execute("FROM pragma_table_info(?) LIMIT 0", [quote(name)]).fetchall()
            except duckdb.CatalogException as error:
                if is_passing(error):
                    raise
                continue
            found.add(name)
    return found


def readable_schema(connection: sa.Connection, relation: str) -> pa.Schema | None:
    """Return the Arrow schema of a table or view, as DuckDB exports it; None if it has none.

    A view has none after the table that it reads was dropped or changed.
    """
    statement = sa.select(sa.text("*")).select_from(sa.table(relation)).limit(0)
    try:
        return execute_arrow(connection, statement).schema
    except (duckdb.CatalogException, duckdb.BinderException) as error:
        if is_passing(error):
            raise
        return None


def columns_of(connection: sa.Connection, relation: str) -> list[str]:
    """Return the names of the columns of a table or view, as in the transaction."""
    schema = readable_schema(connection, relation)
    return [] if schema is None else list(schema.names)


def is_view(connection: sa.Connection, relation: str) -> bool:
    """Return whether an existing relation is a view, which no statement can write to."""
    quoted = connection.dialect.identifier_preparer.quote_identifier(relation)
    with _same_database(connection) as other:
        try:
            other.execute(f"SELECT rowid FROM {quoted} LIMIT 0").fetchall()
        except duckdb.BinderException as error:
            if is_passing(error):
                raise
            return True
    return False


def tables_of(connection: sa.Connection) -> dict[str, set[str]]:
    """Return the tables of the database, as of the last commit, with the names of their columns.

    It blocks other calls (see `existing`), so use it only to explain an error.
    """
    listed = "SELECT table_name, list(column_name) FROM duckdb_columns()"
    here = "database_name = current_database() AND schema_name = current_schema()"
    with _same_database(connection) as other:
        found = other.execute(f"{listed} WHERE {here} AND NOT internal GROUP BY ALL").fetchall()
        views = other.execute("SELECT view_name FROM duckdb_views() WHERE NOT internal").fetchall()
    return {name: set(columns) for name, columns in found if (name,) not in views}


def is_about_names(error: DatabaseError) -> bool:
    """Return whether DuckDB did not find a table or a column, or found another type."""
    cause = getattr(error.__cause__, "orig", None) or error.__cause__
    return isinstance(
        cause, duckdb.CatalogException | duckdb.BinderException | duckdb.ConversionException
    )


def give_space_back(driver: duckdb.DuckDBPyConnection) -> None:
    """Remove unused blocks from the end of the file, which a rolled-back transaction has left.

    DuckDB knows these blocks until the file is detached. It shortens a file only in a checkpoint,
    and makes none if nothing has changed. So a table is created and dropped. The space remains in
    the file if another transaction is active.
    """
    name = f"unused_{uuid.uuid4().hex}"
    with suppress(duckdb.Error):
        driver.execute(f"BEGIN; CREATE TABLE {name} (i INT); DROP TABLE {name}; COMMIT; CHECKPOINT")


@contextmanager
def _same_database(connection: sa.Connection) -> Iterator[duckdb.DuckDBPyConnection]:
    """Open a second connection, whose errors do not abort the transaction of the first."""
    driver = driver_of(connection)
    quote = connection.dialect.identifier_preparer.quote_identifier
    [[database]] = driver.execute("SELECT current_database()").fetchall()
    with driver.duplicate() as other:
        other.execute(f"USE {quote(database)}")
        yield other


class Prepared(NamedTuple):
    """A statement as text.

    Attributes:
        text: the SQL text.
        values: the values of its parameters, by position.
    """

    text: str
    values: tuple[Any, ...]


def compiled(connection: sa.Connection, statement: sa.Executable) -> Prepared:
    """Return a statement as text, in the dialect of a connection."""
    made = statement.compile(  # type: ignore[attr-defined]
        dialect=connection.dialect, compile_kwargs={"render_postcompile": True}
    )
    values = made.construct_params(escape_names=False)
    return Prepared(str(made), tuple(values[name] for name in made.positiontup or ()))


def fetch_all(
    connection: sa.Connection, statement: sa.Executable | Prepared
) -> Sequence[sa.Row[Any]]:
    """Return all rows of a statement. DuckDB 2.0 runs no other one while rows are unfetched."""
    checkpoint()
    if isinstance(statement, Prepared):
        return connection.exec_driver_sql(*statement).all()
    return connection.execute(statement).all()


def execute_arrow(connection: sa.Connection, statement: sa.Executable | Prepared) -> pa.Table:
    """Return the whole result of a statement as an Arrow table."""
    reader = stream_arrow(connection, statement)
    schema, batches = reader.schema, []
    try:
        for batch in reader:  # not `read_all`, during which no signal handler can run
            checkpoint()
            batches.append(batch)
    finally:
        del reader  # DuckDB refuses a rollback while the frame of an error refers to it
    return pa.Table.from_batches(batches, schema)


def stream_arrow(
    connection: sa.Connection, statement: sa.Executable | Prepared, rows: int = 2048
) -> pa.RecordBatchReader:
    """Return the result of a statement as a stream of record batches of about `rows` rows.

    The connection cannot execute another statement until the stream is read to its end.
    """
    prepared = statement if isinstance(statement, Prepared) else compiled(connection, statement)
    text, parameters = prepared.text, list(prepared.values)
    driver = driver_of(connection)
    checkpoint()
    # In each version only one of these calls streams a query with parameters. The other one
    # materializes the whole result in memory first.
    result: Any
    if _duckdb_major() >= 2:
        result = driver.sql(text, params=parameters or None)
    else:
        result = driver.execute(text, parameters)
    return result.to_arrow_reader(min(rows, _MOST_ROWS))


@contextmanager
def streamed(
    connection: sa.Connection, schema: pa.Schema, batches: Iterable[pa.RecordBatch]
) -> Iterator[sa.FromClause]:
    """Register a stream of record batches as a table of one connection.

    One statement can read the table, once; it pulls the batches. An exception of `batches` is
    raised unchanged. DuckDB would replace it with an error that has only its message.
    """
    driver = driver_of(connection)
    name = f"arrow_{uuid.uuid4().hex}"
    errors: list[BaseException] = []
    operation = current_operation()  # DuckDB reads the batches in threads of its own

    def recording_errors() -> Iterator[pa.RecordBatch]:
        try:
            for batch in batches:
                if operation is not None:
                    operation.checkpoint()
                yield batch
        except BaseException as error:
            errors.append(error)
            raise

    driver.register(name, pa.RecordBatchReader.from_batches(schema, recording_errors()))
    try:
        yield sa.table(name, *(sa.column(field) for field in schema.names))
    except Exception:
        if errors:
            raise errors.pop() from None  # `pop` avoids a reference cycle with this frame
        raise
    else:  # after an error the caller closes the connection, which removes the name
        driver.unregister(name)


def described(error: BaseException) -> str:
    """Return the message of an error of DuckDB, with what to do if the file is damaged."""
    text = shorten(error, 300)
    damage = _DAMAGE.search(text)
    if damage is None:
        return text
    return (
        f"the file is damaged at byte {damage['byte']}. Restore it from a backup, or export what "
        f"can still be read: other tables, or single --columns. DuckDB says: {shorten(text, 120)}"
    )


@contextmanager
def translated(where: str) -> Iterator[None]:
    """Raise exceptions of DuckDB, SQLAlchemy and Arrow as `DatabaseError`.

    Args:
        where: name of the database, for the message.
    """
    try:
        yield
    except StorageError:
        raise
    # DuckDB may truncate a message inside a UTF-8 character. The driver then cannot decode it.
    except (duckdb.Error, sa.exc.SQLAlchemyError, pa.ArrowException, UnicodeDecodeError) as error:
        original = getattr(error, "orig", None) or error
        raise DatabaseError(f"{where}: {described(original)}") from error
    except OSError as error:
        if error.errno is not None:
            raise
        # Arrow raises OSError without errno for failures in a stream.
        raise DatabaseError(f"{where}: {shorten(error, 300)}") from error


def lacks_resources(error: DatabaseError) -> bool:
    """Return whether the engine lacked memory, disk space or file handles: the data is no cause."""
    cause: BaseException | None = error
    while cause is not None:
        original = getattr(cause, "orig", None) or cause
        if isinstance(original, duckdb.OutOfMemoryException | MemoryError):
            return True
        if isinstance(original, duckdb.IOException) and any(
            os.strerror(code) in str(original) for code in _SHORTAGES
        ):
            return True
        cause = cause.__cause__ or cause.__context__
    return False


@cache
def _duckdb_major() -> int:
    return int(duckdb.__version__.split(".")[0])
