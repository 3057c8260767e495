"""Statements through SQLAlchemy and Arrow, and DuckDB's exceptions translated into ours.

Beside `attach.py`, the one module that touches the DuckDB driver. A connection is for one
call: `Database.reading` and `Database.writing` open it and close it.
"""

from __future__ import annotations

import os
import re
import threading
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache, cached_property
from pathlib import Path
from typing import Any, Protocol

import duckdb
import duckdb_engine
import pyarrow as pa
import sqlalchemy as sa
from sqlalchemy.dialects.postgresql.base import PGIdentifierPreparer
from sqlalchemy.pool import NullPool

from afterimage.storage.engine.attach import (
    Opened,
    Release,
    attach_new,
    connect,
    connect_memory,
    drop_cached_blocks,
    open_memory,
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
    "MUCH_KEPT",
    "Database",
    "execute_arrow",
    "existing",
    "fetch_all",
    "open_database",
    "scratch_database",
    "share_done",
    "stream_arrow",
    "streamed",
    "translated",
]

MUCH_KEPT = 32 * 2**20
"""Bytes of a file that DuckDB may keep in memory while all of it is read or written."""

# `md:`, `s3:`, `ducklake:`; one letter is a drive of Windows.
_HAS_SCHEME = re.compile(r"[a-z][a-z0-9+.-]+:", re.I)


class MakeTables(Protocol):
    """Makes the tables of a database, which `is_new` says is known to be empty."""

    def __call__(self, connection: sa.Connection, *, is_new: bool) -> None: ...


class Database:
    """A DuckDB database: how to connect to it, and the lock under which this process writes it.

    Attributes:
        name: the path as given, or `:memory:`; stands in messages.
        is_new: whether it has just been created, with its tables.
    """

    is_new = False

    def __init__(
        self,
        name: str,
        open_for_calls: Callable[[], Opened],
        open_by_hand: Callable[[], Opened],
        lock_timeout: float,
    ) -> None:
        self.name = name
        self._open_by_hand = open_by_hand
        self._calls = _engine(f"duckdb+{_DRIVER}://", open_for_calls)
        self._lock_timeout = lock_timeout
        # A memory without a name is nobody else's.
        named = name != ":memory:"
        self._turns = _turns.setdefault(os.path.realpath(name), _Turns()) if named else _Turns()

    @cached_property
    def engine(self) -> sa.Engine:
        """For SQL by hand: opens the database for each connection and closes it after."""
        return _engine("duckdb://", self._open_by_hand)

    @contextmanager
    def reading(self, *, by_hand: bool = False) -> Iterator[sa.Connection]:
        """A connection that sees one state of the database throughout.

        Args:
            by_hand: whether to open the database as SQL by hand does, so that others of this
                process may open it meanwhile; it takes longer.
        """
        engine = self.engine if by_hand else self._calls
        with translated(self.name), engine.connect() as connection:
            if by_hand:  # as our own instance has it
                connection.exec_driver_sql("SET arrow_large_buffer_size = true")
            yield connection

    @contextmanager
    def writing(self) -> Iterator[sa.Connection]:
        """A connection whose changes are all committed at the end, or none of them."""
        with self._turn(), translated(self.name), self._calls.begin() as connection:
            yield connection

    @property
    def size(self) -> int:
        """Bytes of the file, those of an open transaction included; 0 if there is none."""
        try:
            return 0 if self.name.startswith(":memory:") else Path(self.name).stat().st_size
        except OSError:  # whoever opens it says so
            return 0

    def keep_little(self, connection: sa.Connection, most: int = MUCH_KEPT) -> None:
        """Have DuckDB let go of what it keeps of the file, where that is over `most` bytes.

        Call it between statements.
        """
        driver = connection.connection.driver_connection
        assert driver is not None
        if not self.name.startswith(":memory:"):
            drop_cached_blocks(Path(self.name), driver, most)

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


def open_database(url: str, lock_timeout: float, create: MakeTables | None = None) -> Database:
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
                create(connection, is_new=database.name == ":memory:")
            database.is_new = True
        return database
    file = _File(Path(name).absolute(), lock_timeout)
    database = Database(str(file.path), file.open, file.open_by_hand, lock_timeout)
    try:
        if create is not None and file.is_missing:
            database.is_new = _create(file, database, create)
    except PermissionError as error:
        raise DatabaseError(f"{file.path} cannot be reached: {error.strerror}") from error
    return database


@cache
def scratch_database() -> Database:
    """A database with nothing in it, to query what is handed to it; one for all."""
    return Database(":memory:", connect_memory, connect_memory, 0)


def _memory_database(name: str, lock_timeout: float) -> Database:
    """A database in memory that lives as long as the returned object."""
    root = open_memory(name)
    owner = os.getpid()

    def opened() -> Opened:
        if os.getpid() != owner:
            raise DatabaseError(
                f"{name} is in the memory of process {owner}, and this is a fork of it. "
                "Make a new storage here, or use a file."
            )
        cursor = root.cursor()
        return cursor, cursor.close

    return Database(name, opened, opened, lock_timeout)


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


def share_done(connection: sa.Connection) -> Callable[[], float | None]:
    """What says how much of its statement a connection has done: 0 to 1, or None if unknown.

    It may be called in another thread, as long as the connection is not closed.
    """
    driver = connection.connection.driver_connection
    assert driver is not None
    for setting, value in (("enable_progress_bar", "true"), ("enable_progress_bar_print", "false")):
        driver.execute(f"SET {setting} = {value}").fetchall()  # of this connection only

    def ask() -> float | None:
        percent = driver.query_progress()
        return percent / 100 if percent > 0 else None

    return ask


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


class _File:
    """A database file, and how to open it."""

    def __init__(self, path: Path, lock_timeout: float) -> None:
        self.path = path
        self._lock_timeout = lock_timeout
        self._fresh: Path | None = None

    @property
    def is_missing(self) -> bool:
        """Whether there is no database yet: no file, or an empty one as tempfile makes them."""
        if not self.path.parent.is_dir():
            raise MissingFileError(
                f"{self.path}: the folder {self.path.parent} does not exist. Create it, or give "
                "another path."
            )
        return not self.path.exists() or (self.path.is_file() and self.path.stat().st_size == 0)

    def open(self) -> Opened:
        if self._fresh is not None:
            return attach_new(self._fresh)
        return connect(self.path, self._lock_timeout)

    def open_by_hand(self) -> Opened:
        return connect(self.path, self._lock_timeout, alone=True)

    @contextmanager
    def under_other_name(self) -> Iterator[tuple[Path, Path]]:
        """A new file is opened instead meanwhile: it and its log, which are gone after."""
        fresh = self.path.with_name(f".{self.path.name}.{uuid.uuid4().hex}.new")
        log = fresh.with_name(f"{fresh.name}.wal")
        self._fresh = fresh
        try:
            yield fresh, log
        finally:
            self._fresh = None
            for left in (fresh, log):
                left.unlink(missing_ok=True)


def _create(file: _File, database: Database, create: MakeTables) -> bool:
    """Create a database file with its tables, whole or not at all; whether it is the one now."""
    try:
        with file.under_other_name() as (fresh, log):
            with database.writing() as connection:
                create(connection, is_new=True)
            if log.exists():  # the file alone is not all of it
                raise DatabaseError(
                    f"{file.path} cannot be created: DuckDB has not let go of it. Try again."
                )
            return put_in_place(fresh, file.path)
    except OSError as error:
        raise DatabaseError(f"{file.path} cannot be created: {error.strerror}") from error


def _engine(url: str, opened: Callable[[], Opened]) -> sa.Engine:
    return sa.create_engine(url, creator=lambda: _Connection(*opened()), poolclass=NullPool)


class _Preparer(duckdb_engine.DuckDBIdentifierPreparer):
    """Quotes every name, so that DuckDB need not be asked for its keywords first."""

    def __init__(self, dialect: sa.Dialect, **options: Any) -> None:
        PGIdentifierPreparer.__init__(self, dialect, **options)

    def _requires_quotes(self, value: str) -> bool:
        del value
        return True


class _Dialect(duckdb_engine.Dialect):
    """The dialect of this package's own statements."""

    preparer = _Preparer
    supports_statement_cache = True


_DRIVER = "afterimage"
sa.dialects.registry.register(f"duckdb.{_DRIVER}", __name__, _Dialect.__name__)


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
