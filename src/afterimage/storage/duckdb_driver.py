"""Statements through SQLAlchemy and Arrow, and DuckDB's exceptions translated into ours.

Beside `duckdb_files.py`, the one module that touches the DuckDB driver. A connection is for one
call: `Database.reading` and `Database.writing` open it and close it.
"""

from __future__ import annotations

import os
import re
import threading
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import duckdb
import duckdb_engine
import pyarrow as pa
import sqlalchemy as sa
from sqlalchemy.pool import NullPool

from afterimage.storage.duckdb_files import (
    Release,
    attach_new,
    connect,
    connect_memory,
    put_in_place,
)
from afterimage.storage.errors import (
    DatabaseError,
    LockTimeoutError,
    MissingFileError,
    StorageError,
    UnsupportedURLError,
    shorten,
)

__all__ = [
    "Database",
    "execute_arrow",
    "existing",
    "fetch_all",
    "open_database",
    "scratch_database",
    "stream_arrow",
    "streamed",
    "translated",
]

_Opened = tuple[duckdb.DuckDBPyConnection, Release]

# `md:`, `s3:`, `ducklake:`; one letter is a drive of Windows.
_HAS_SCHEME = re.compile(r"[a-z][a-z0-9+.-]+:", re.I)


class Database:
    """A DuckDB database: how to connect to it, and the lock under which this process writes it.

    Attributes:
        name: the path as given, or `:memory:`; stands in messages.
        engine: for SQL by hand; opens the database for each connection and closes it after.
        is_new: whether it has just been created, with its tables.
    """

    is_new = False

    def __init__(
        self,
        name: str,
        open_for_calls: Callable[[], _Opened],
        open_by_hand: Callable[[], _Opened],
        lock_timeout: float,
    ) -> None:
        self.name = name
        self.engine = _engine(open_by_hand)
        self._calls = _engine(open_for_calls)
        self._lock_timeout = lock_timeout
        # A memory without a name is nobody else's.
        named = name != ":memory:"
        self._turns = _turns.setdefault(os.path.realpath(name), _Turns()) if named else _Turns()

    @contextmanager
    def reading(self, *, by_hand: bool = False) -> Iterator[sa.Connection]:
        """A connection that sees one state of the database throughout.

        Args:
            by_hand: whether to open the database as SQL by hand does, so that others of this
                process may open it meanwhile; it takes longer.
        """
        engine = self.engine if by_hand else self._calls
        with translated(self.name), engine.connect() as connection:
            yield connection

    @contextmanager
    def writing(self) -> Iterator[sa.Connection]:
        """A connection whose changes are all committed at the end, or none of them."""
        with self._turn(), translated(self.name), self._calls.begin() as connection:
            yield connection

    @contextmanager
    def _turn(self) -> Iterator[None]:
        """This thread's turn to write, so that sequence numbers are given out once."""
        lock = self._turns.lock
        if not lock.acquire(timeout=max(0, min(self._lock_timeout, threading.TIMEOUT_MAX))):
            holder = f"a write of another thread of process {os.getpid()}"
            raise LockTimeoutError.of(self.name, self._lock_timeout, holder)
        try:
            yield
        finally:
            lock.release()


def open_database(
    url: str, lock_timeout: float, create: Callable[[sa.Connection], None] | None = None
) -> Database:
    """The database that `url` names.

    Args:
        url: `duckdb:///file.duckdb` or `duckdb:///:memory:`.
        lock_timeout: seconds to wait while another process holds the file.
        create: makes the tables of a new database, before others see it; without it, a file that
            is not there is not created.

    Raises:
        UnsupportedURLError: the URL is of another dialect, or is none.
        MissingFileError: the file's folder does not exist.
        LockTimeoutError: another process held the file throughout.
        DatabaseError: the file is no DuckDB database, or cannot be opened.
    """
    name = _parse_url(url)
    if not name or name.startswith(":memory:"):
        database = _memory_database(name or ":memory:", lock_timeout)
        if create is not None:
            with database.writing() as connection:
                create(connection)
        database.is_new = True
        return database
    path = Path(name).absolute()
    is_new = create is not None and _create_if_missing(path, create)
    database = Database(
        str(path),
        lambda: connect(path, lock_timeout),
        lambda: connect(path, lock_timeout, alone=True),
        lock_timeout,
    )
    database.is_new = is_new
    return database


@cache
def scratch_database() -> Database:
    """A database with nothing in it, to query what is handed to it; one for all."""
    return Database(":memory:", connect_memory, connect_memory, 0)


def _memory_database(name: str, lock_timeout: float) -> Database:
    """A database in memory that lives as long as the returned object."""
    root = duckdb.connect(name)
    owner = os.getpid()

    def open_memory() -> _Opened:
        if os.getpid() != owner:
            raise DatabaseError(
                f"{name} is in the memory of process {owner}, and this is a fork of it. "
                "Make a new storage here, or use a file."
            )
        cursor = root.cursor()
        return cursor, cursor.close

    return Database(name, open_memory, open_memory, lock_timeout)


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
            raise failed[0] from None
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


@cache
def _duckdb_major() -> int:
    return int(duckdb.__version__.split(".")[0])


def _parse_url(url: str) -> str:
    try:
        parsed = sa.make_url(url)
    except (sa.exc.ArgumentError, AttributeError):
        raise UnsupportedURLError(
            f"{shorten(repr(url), 80)} is no database URL. Give 'duckdb:///file.duckdb' or "
            "'duckdb:///:memory:'."
        ) from None
    database = parsed.database or ""
    if parsed.get_backend_name() != "duckdb" or _HAS_SCHEME.match(database):
        kind = parsed.get_backend_name() if parsed.get_backend_name() != "duckdb" else database
        raise UnsupportedURLError(
            f"SQLStorage does not serve {shorten(kind, 60)!r} databases. Supported: "
            "'duckdb:///file.duckdb' and 'duckdb:///:memory:'. Save to a DuckDB file, and reach "
            "other databases from there with DuckDB's ATTACH, or through export_parquet."
        )
    if parsed.host or parsed.username or parsed.drivername != "duckdb":
        raise UnsupportedURLError(
            f"{shorten(parsed.render_as_string(), 80)!r} names a server or a driver. Give "
            "'duckdb:///file.duckdb' (three slashes, four for an absolute path)."
        )
    if parsed.query:
        raise UnsupportedURLError(
            f"options in the URL are not supported ({', '.join(parsed.query)}): all connections of "
            "a process to one file must agree on them. Set them in SQL on `engine` instead."
        )
    return database


def _create_if_missing(path: Path, create: Callable[[sa.Connection], None]) -> bool:
    """Create the file with its tables, whole or not at all; whether it was created here."""
    if not path.parent.is_dir():
        raise MissingFileError(
            f"{path}: the folder {path.parent} does not exist. Create it, or give another path."
        )
    if path.exists() and (path.is_dir() or path.stat().st_size > 0):
        return False
    fresh = path.with_name(f".{path.name}.{uuid.uuid4().hex}.new")
    log = fresh.with_name(f"{fresh.name}.wal")
    try:
        with translated(str(path)), _engine(lambda: attach_new(fresh)).begin() as connection:
            create(connection)
        if log.exists():  # the file alone is not all of it
            raise DatabaseError(
                f"{path} cannot be created: DuckDB has not let go of it. Try again."
            )
        return put_in_place(fresh, path)
    except OSError as error:
        raise DatabaseError(f"{path} cannot be created: {error.strerror}") from error
    finally:
        for left in (fresh, log):
            left.unlink(missing_ok=True)


def _engine(opened: Callable[[], _Opened]) -> sa.Engine:
    return sa.create_engine("duckdb://", creator=lambda: _Connection(*opened()), poolclass=NullPool)


class _Connection(duckdb_engine.ConnectionWrapper):
    """A connection that is closed as it has to be."""

    def __init__(self, connection: duckdb.DuckDBPyConnection, release: Release) -> None:
        super().__init__(connection)
        self._release = release

    def close(self) -> None:
        self._release()


class _Turns:
    """What the threads of this process take turns on to write a database."""

    def __init__(self) -> None:
        self.lock = threading.RLock()


_turns: dict[str, _Turns] = {}


def _after_fork() -> None:
    """A thread that held a lock in the parent is not in the child, and would never release it."""
    for turns in _turns.values():
        turns.lock = threading.RLock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
