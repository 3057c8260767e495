"""Statements through SQLAlchemy and Arrow, and the engine's exceptions translated into ours."""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from typing import Any

import duckdb
import pyarrow as pa
import sqlalchemy as sa

from afterimage.storage.errors import DatabaseError, StorageError, shorten

__all__ = [
    "execute_arrow",
    "existing",
    "fetch_all",
    "stream_arrow",
    "streamed",
    "translated",
]


def existing(connection: sa.Connection, names: Iterable[str]) -> set[str]:
    """Those of `names` that are tables or views, as of the last commit.

    Each is tried on its own: to list them, DuckDB would look into every file that is attached, and
    none of those could be let go of meanwhile.
    """
    driver = connection.connection.driver_connection
    assert driver is not None
    quote = connection.dialect.identifier_preparer.quote_identifier
    [[database]] = driver.execute("SELECT current_database()").fetchall()
    found = set()
    with driver.duplicate() as other:  # where one is missing, its transaction is over
        other.execute(f"USE {quote(database)}")
        for name in names:
            try:
                other.execute(f"SELECT * FROM {quote(name)} LIMIT 0").fetchall()
            except duckdb.CatalogException:
                continue
            found.add(name)
    return found


def fetch_all(connection: sa.Connection, statement: sa.Executable) -> Sequence[sa.Row[Any]]:
    """All rows of a statement; DuckDB 2.0 takes no other one while rows are left to fetch."""
    return connection.execute(statement).all()


def execute_arrow(connection: sa.Connection, statement: sa.Executable) -> pa.Table:
    """The whole result of a statement."""
    return stream_arrow(connection, statement).read_all()


def stream_arrow(
    connection: sa.Connection, statement: sa.Executable, rows: int = 2048
) -> pa.RecordBatchReader:
    """The result of a statement in record batches of about `rows` rows, as DuckDB makes them.

    The connection can run nothing else until the reader is at its end.
    """
    compiled = statement.compile(  # type: ignore[attr-defined]
        dialect=connection.dialect, compile_kwargs={"render_postcompile": True}
    )
    values = compiled.construct_params(escape_names=False)
    parameters = [values[name] for name in compiled.positiontup or ()]
    driver = connection.connection.driver_connection
    assert driver is not None
    # Each version has one call that streams a query with parameters; the other one keeps the whole
    # result in memory first.
    if _duckdb_major() >= 2:
        found = driver.sql(str(compiled), params=parameters or None)
    else:
        found = driver.execute(str(compiled), parameters)
    return found.to_arrow_reader(rows)


@contextmanager
def streamed(
    connection: sa.Connection, schema: pa.Schema, batches: Iterable[pa.RecordBatch]
) -> Iterator[sa.FromClause]:
    """Record batches as a table for one connection, to be read once, while they are being made.

    What goes wrong in making them is raised as it is; DuckDB would only tell its message.
    """
    driver = connection.connection.driver_connection
    assert driver is not None
    name = f"arrow_{uuid.uuid4().hex}"
    failed: list[BaseException] = []

    def watched() -> Iterator[pa.RecordBatch]:
        try:
            yield from batches
        except BaseException as error:
            failed.append(error)
            raise

    driver.register(name, pa.RecordBatchReader.from_batches(schema, watched()))
    try:
        yield sa.table(name, *(sa.column(field) for field in schema.names))
    except Exception:
        if failed:
            raise failed.pop() from None  # kept here, it would keep this frame and so itself
        raise
    else:  # after an error the connection is closed, and the name with it
        driver.unregister(name)


@contextmanager
def translated(where: str) -> Iterator[None]:
    """Turn the exceptions of DuckDB, SQLAlchemy and Arrow into ours; `where` names the database."""
    try:
        yield
    except StorageError:
        raise
    # A message that quotes a line may be cut inside a character, which the driver cannot decode.
    except (duckdb.Error, sa.exc.SQLAlchemyError, pa.ArrowException, UnicodeDecodeError) as error:
        original = getattr(error, "orig", None) or error
        raise DatabaseError(f"{where}: {shorten(original, 300)}") from error
    except OSError as error:
        if error.errno is not None:
            raise
        # Arrow has OSError for what fails in a stream; the system's own have a number.
        raise DatabaseError(f"{where}: {shorten(error, 300)}") from error


@cache
def _duckdb_major() -> int:
    return int(duckdb.__version__.split(".")[0])
