"""`LakeCatalog`: a database whose catalog is a DuckLake, for many writers at the same time."""

from __future__ import annotations

import datetime as dt
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from pathlib import Path
from typing import Any, Final, TypeVar

import duckdb
import sqlalchemy as sa

from afterimage.storage.engine.attach import Opened
from afterimage.storage.engine.failures import ENGINE_ERRORS, UnknownOutcomeError, is_passing
from afterimage.storage.engine.instance import quoted
from afterimage.storage.engine.lake.address import LakeAddress
from afterimage.storage.engine.lake.instance import LAKE, LakeInstance, instance_of, retried
from afterimage.storage.engine.lake.saves import KeptFiles, NewFiles, name_commit
from afterimage.storage.engine.lake.turns import Turn, turn_in_process, turn_on_server
from afterimage.storage.engine.statements import driver_of, is_about_names
from afterimage.storage.errors import (
    DatabaseError,
    InvalidQueryError,
    MissingFileError,
    shorten,
    shown,
)
from afterimage.storage.reports.snapshots import Snapshot

__all__ = ["LakeCatalog"]

# The key of a connection's new files in SQLAlchemy's dictionary of the connection.
_NEW_FILES: Final = "afterimage new files"

_Result = TypeVar("_Result")

_USE: Final = f"USE {LAKE}"

_EPOCH: Final = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)

# What makes reads fast again after many small saves, and removes what no version needs any more.
# Files of the last day may belong to saves that are not committed yet.
_COMPACTION: Final = (
    (
        f"CALL ducklake_merge_adjacent_files('{LAKE}')",
        f"CALL ducklake_rewrite_data_files('{LAKE}')",
    ),
    (f"CALL ducklake_expire_snapshots('{LAKE}', older_than => now() - INTERVAL 7 DAY)",),
    (
        f"CALL ducklake_cleanup_old_files('{LAKE}', older_than => now() - INTERVAL 1 DAY)",
        f"CALL ducklake_delete_orphaned_files('{LAKE}', older_than => now() - INTERVAL 1 DAY)",
    ),
)

# How often a table that is not there is looked for.
_LOOKS: Final = 4

# How long the size of a lake, which is only an estimate for reads, is not asked again.
_SIZE_SECONDS: Final = 5

# No rows are in the catalog itself: reading them ends the instance if the connection is lost, and
# always if a struct in them has a NaN. Small row groups and Zstandard keep scans as fast as those
# of a file.
_OPTIONS: Final = {
    "data_inlining_row_limit": "0",
    "parquet_row_group_size": "2048",
    "parquet_compression": "zstd",
}


class LakeCatalog:
    """A DuckLake whose catalog is in PostgreSQL or in a file.

    Args:
        url: `ducklake+postgresql://…` or `ducklake:///file`.
        lock_timeout: seconds to wait for other processes, and for the server.
        at: the version, or the time, to read; None for the newest version at each call.

    Raises:
        UnsupportedURLError: the URL is not understood.
    """

    path: Path | None = None
    column_compression = False
    numbers_rows = True
    compaction: Sequence[Sequence[str]] = _COMPACTION
    is_in_memory = False

    def __init__(self, url: str, lock_timeout: float, at: int | dt.datetime | None = None) -> None:
        self.source: str | Path | None = url
        self.lock_timeout = lock_timeout
        self._address = LakeAddress.of(url)
        self.display_name = self._address.display_name
        self._at = None if at is None else _option(at)
        self._instance = instance_of(self._address, self._at)
        self._size: tuple[float, int] | None = None
        self._prepared: int | None = None

    @property
    def _is_on_server(self) -> bool:
        return self._address.file is None

    @property
    def _here(self) -> LakeInstance:
        """The instance of this process: a forked child has its own."""
        if self._instance.process != os.getpid():
            self._instance = instance_of(self._address, self._at)
        return self._instance

    def connect(self, *, private: bool = False) -> Opened:
        opened = self._here.connect(self.lock_timeout)
        if private:  # settings of the instance are those of this lake only
            connection, release = opened
            try:
                retried(lambda: connection.execute(_USE), self._deadline())
            except duckdb.Error as error:
                release()
                raise DatabaseError(f"{self.display_name}: {shorten(error, 300)}") from None
        return opened

    def lent(self) -> Opened:
        if self._at is not None:
            return self.connect(private=True)
        assert isinstance(self.source, str)
        versions = self.snapshots()
        return LakeCatalog(self.source, self.lock_timeout, versions[-1].version).lent()

    def write_turn(
        self, *, appends: bool = False, alone: bool = False
    ) -> AbstractContextManager[None]:
        if self._at is not None:
            raise InvalidQueryError(
                f"{self.display_name} was opened at one version, which is only read. Nothing was "
                "changed. Open it without `at`."
            )
        if not self._is_on_server:
            return turn_in_process(self.display_name, self.lock_timeout)
        turn = Turn.APPEND if appends else Turn.EDIT if alone else Turn.COMPACT
        schema = self._address.metadata_schema
        return turn_on_server(self._here, schema, turn, self.display_name, self.lock_timeout)

    def begin_reading(self, connection: sa.Connection) -> None:
        self._begun(connection, lambda _: None)

    def repeated(self, read: Callable[[], _Result]) -> _Result:
        looks = 0

        def may_pass(error: BaseException) -> bool:
            nonlocal looks
            if isinstance(error, DatabaseError) and is_about_names(error):
                # Another process may have made the table after this transaction began.
                looks += 1
                return looks < _LOOKS
            return self._is_on_server and is_passing(error)

        return retried(read, self._deadline(), is_worth_it=may_pass)

    def _begun(self, connection: sa.Connection, prepare: Callable[[sa.Connection], None]) -> None:
        """Begin a transaction that has a working connection to the server."""
        driver = driver_of(connection)

        def begin() -> None:
            _roll_back(connection)
            driver.execute(_USE)
            connection.begin()
            if self._is_on_server:
                driver.execute(f"FROM ducklake_current_snapshot({quoted(LAKE)})").fetchall()
            prepare(connection)

        retried(begin, self._deadline())

    def _deadline(self) -> float:
        return time.monotonic() + self.lock_timeout

    @contextmanager
    def transaction(self, connection: sa.Connection) -> Iterator[None]:
        new = connection.info[_NEW_FILES] = NewFiles(self._here.data_path)
        driver = driver_of(connection)
        kept = KeptFiles(self._here.data_path)
        try:
            self._begun(connection, lambda _: name_commit(driver, new.key, "edit"))
            yield
            new.register(driver)
            kept.keep()
            new.may_be_committed = self._is_on_server
            connection.commit()
        except ENGINE_ERRORS as error:
            _roll_back(connection)
            if new.may_be_committed:
                if self._has_landed(new, error):
                    kept.put_back()
                    return
                new.may_be_committed = False
            new.discard()
            if not is_passing(error):
                raise
            raise DatabaseError(
                f"{self.display_name}: the connection to the server was lost: "
                f"{shorten(error, 200)} Nothing was changed. Call again."
            ) from error
        except BaseException:
            _roll_back(connection)
            new.discard()
            raise
        finally:
            kept.forget()
            connection.info.pop(_NEW_FILES, None)

    @contextmanager
    def appending(
        self, connection: sa.Connection, prepare: Callable[[sa.Connection], None]
    ) -> Iterator[None]:
        # The body does not use the server, so a long import needs no connection, and only the
        # commit is repeated if a connection is lost.
        driver = driver_of(connection)
        version = self._version_of_columns()
        if version is None or version != self._prepared:
            self._begun(connection, prepare)
            _roll_back(connection)
            driver.execute("USE memory")
            self._prepared = version
        new = connection.info[_NEW_FILES] = NewFiles(self._here.data_path)
        try:
            yield
            _roll_back(connection)
            if new:
                self._commit(driver, new)
        except BaseException:
            new.discard()
            raise
        finally:
            connection.info.pop(_NEW_FILES, None)

    def _version_of_columns(self) -> int | None:
        """Return a number that every change of a table changes; None if none is known."""
        if not self._is_on_server:
            return None
        snapshots = f"{self._schema}.ducklake_snapshot"
        newest = f"SELECT schema_version FROM {snapshots} ORDER BY snapshot_id DESC LIMIT 1"
        with self._here.cursor() as cursor:
            found = retried(lambda: self._here.on_server(cursor, newest), self._deadline())
        return int(found[0][0])

    @property
    def _schema(self) -> str:
        return '"' + self._address.metadata_schema.replace('"', '""') + '"'

    def _commit(self, driver: duckdb.DuckDBPyConnection, new: NewFiles) -> None:
        """Register new files once, however often the connection is lost."""
        lost: duckdb.Error | None = None
        search = _Search(self._here, self._schema, new.key)

        def attempt() -> None:
            nonlocal lost
            if lost is not None:
                if search.found():
                    return
                error, lost = lost, None
                new.may_be_committed = False
                if not is_passing(error):
                    raise error
            driver.execute("BEGIN TRANSACTION")
            try:
                name_commit(driver, new.key, "save")
                new.register(driver)
                new.may_be_committed = self._is_on_server
                driver.execute("COMMIT")
            except duckdb.Error as error:
                lost = error if new.may_be_committed else None
                with suppress(duckdb.Error):
                    driver.execute("ROLLBACK")
                raise

        def is_worth_it(error: BaseException) -> bool:
            return lost is not None or is_passing(error)

        try:
            retried(attempt, self._deadline(), is_worth_it=is_worth_it)
        except duckdb.Error as error:
            if new.may_be_committed:
                raise self._unknown(new, error) from error
            raise DatabaseError(
                f"{self.display_name}: the rows cannot be added: {shorten(error, 250)} Nothing was "
                "saved."
            ) from error

    def _has_landed(self, new: NewFiles, error: BaseException) -> bool:
        search = _Search(self._here, self._schema, new.key)
        try:
            return retried(search.found, self._deadline())
        except duckdb.Error:
            raise self._unknown(new, error) from error

    def _unknown(self, new: NewFiles, error: BaseException) -> DatabaseError:
        return UnknownOutcomeError(
            f"{self.display_name}: the connection was lost during the commit, and the server could "
            f"not be asked within {self.lock_timeout:g} s: {shorten(error, 200)} Either all of it "
            "was saved or nothing. It was saved if a snapshot of the lake has the "
            f"commit_extra_info '{new.key}'."
        )

    def append(self, connection: sa.Connection, table: sa.Table, rows: sa.Select[Any]) -> None:
        new: NewFiles = connection.info[_NEW_FILES]
        typed = rows.subquery()
        # The types of a file must be those of the table.
        columns = [
            sa.cast(typed.c[name], column.type).label(name) for name, column in table.c.items()
        ]
        new.write(connection, table.name, sa.select(*columns))

    def next_number(self, connection: sa.Connection, sequence: sa.ColumnElement[int]) -> int:
        del connection, sequence  # DuckLake numbers the rows when they are committed
        return 1

    def snapshots(self) -> list[Snapshot]:
        """Return the versions of the lake, oldest first."""
        found = f"""SELECT snapshot_id, epoch_us(snapshot_time), commit_message, to_json(changes)
            FROM ducklake_snapshots({quoted(LAKE)}) ORDER BY snapshot_id"""

        def listed() -> list[Snapshot]:
            connection, release = self.connect()
            try:
                rows = connection.execute(found).fetchall()
            except duckdb.Error as error:
                raise DatabaseError(f"{self.display_name}: {shorten(error, 300)}") from error
            finally:
                release()
            return [
                Snapshot(version, _EPOCH + dt.timedelta(microseconds=time_), message or "", changes)
                for version, time_, message, changes in rows
            ]

        return self.repeated(listed)

    def is_missing(self) -> bool:
        return not self._here.exists(self.lock_timeout)

    def create(self, make: Callable[[Any], None]) -> bool:
        del make  # another process may make the tables of an empty lake, so this one looks too
        here = self._here
        if self._is_on_server:
            here.attach_server(self.lock_timeout)
        with self.write_turn(alone=True):
            if not here.exists(self.lock_timeout):
                connection, release = here.connect(self.lock_timeout, create=True)
                try:
                    for option, value in _OPTIONS.items():
                        connection.execute(
                            f"CALL {LAKE}.set_option({quoted(option)}, {quoted(value)})"
                        )
                    here.attach_again()
                finally:
                    release()
        return False

    def tables_made(self, tables: Sequence[str]) -> None:
        self.repeated(lambda: self._set_options(tables))

    def _set_options(self, tables: Sequence[str]) -> None:
        connection, release = self.connect()
        try:
            for table in tables:
                for option, value in _OPTIONS.items():
                    connection.execute(
                        f"CALL {LAKE}.set_option({quoted(option)}, {quoted(value)}, "
                        f"table_name => {quoted(table)})"
                    )
            connection.execute(f"CALL ducklake_flush_inlined_data({quoted(LAKE)})")
            self._here.attach_again()
        except duckdb.Error as error:
            raise DatabaseError(f"{self.display_name}: {shorten(error, 300)}") from error
        finally:
            release()

    def size(self) -> int:
        now = time.monotonic()
        if self._size is not None and now - self._size[0] < _SIZE_SECONDS:
            return self._size[1]
        try:
            connection, release = self.connect()
        except (DatabaseError, MissingFileError):  # a read raises a clear error
            return 0
        try:
            [[size]] = connection.execute(
                f"SELECT sum(file_size_bytes) FROM ducklake_table_info({quoted(LAKE)})"
            ).fetchall()
        except duckdb.Error:
            return 0
        finally:
            release()
        self._size = (now, int(size or 0))
        return self._size[1]

    def rewrite(self) -> None:
        """Do nothing: `compaction` merges the files."""

    def trim_cache(self, driver: duckdb.DuckDBPyConnection, most: int) -> None:
        """Do nothing: files of a lake are read as they are needed."""


def _option(at: int | dt.datetime) -> str:
    """Return the option of ATTACH for a version or a time."""
    if isinstance(at, dt.datetime) and at.tzinfo is not None:
        return f"SNAPSHOT_TIME '{at.astimezone(dt.UTC).isoformat(sep=' ')}'"
    if isinstance(at, int) and not isinstance(at, bool) and at >= 0:
        return f"SNAPSHOT_VERSION {at}"
    raise InvalidQueryError(
        f"at must be a version, from 0, or a datetime with a time zone, not {shown(at, 60)}"
    )


class _Search:
    """The search for a commit whose answer was lost.

    Args:
        instance: the instance that made the commit.
        schema: the schema of the catalog, in quotes.
        key: the key of the commit.
    """

    def __init__(self, instance: LakeInstance, schema: str, key: str) -> None:
        self._instance = instance
        self._schema = schema
        self._key = key
        self._lost_at: str | None = None

    def found(self) -> bool:
        """Return whether the catalog has the commit; if not, it never will.

        Raises:
            duckdb.Error: the server cannot be asked.
        """
        with self._instance.cursor() as cursor:
            if self._lost_at is None:
                [[self._lost_at]] = self._ask(cursor, "SELECT clock_timestamp()::text")
            # The server may still run the commit. Transactions of other threads that are ended
            # with it are repeated by them.
            lost = (
                f"application_name = {quoted(self._instance.application)} AND state <> 'idle' "
                f"AND xact_start < {quoted(self._lost_at)}::timestamptz"
            )
            processes = f"FROM pg_stat_activity WHERE {lost}"
            self._ask(cursor, f"SELECT pg_terminate_backend(pid, 5000)::text {processes}")
            if self._ask(cursor, f"SELECT pid::text {processes}"):
                raise duckdb.IOException("terminating connection: it has not ended yet")
            return bool(
                self._ask(
                    cursor,
                    f"SELECT snapshot_id::text FROM {self._schema}.ducklake_snapshot_changes "
                    f"WHERE commit_extra_info = {quoted(self._key)}",
                )
            )

    def _ask(self, cursor: duckdb.DuckDBPyConnection, sql: str) -> list[tuple[Any, ...]]:
        return self._instance.on_server(cursor, sql)


def _roll_back(connection: sa.Connection) -> None:
    with suppress(*ENGINE_ERRORS):  # it has ended with its connection
        connection.rollback()
    with suppress(duckdb.Error):  # SQLAlchemy sends nothing after a commit that failed
        driver_of(connection).execute("ROLLBACK")
