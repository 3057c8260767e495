"""The DuckDB instance of a lake in this process, and its connections.

Settings and secrets belong to an instance, so a lake has one of its own. It ends with the storages
of the lake. A catalog in PostgreSQL stays attached. A catalog in a file is attached during calls
only, because DuckDB lets one process at a time open the file.
"""

from __future__ import annotations

import ctypes
import os
import random
import re
import threading
import time
import uuid
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, TypeVar

import duckdb

from afterimage.storage.engine.attach import Opened, open_memory
from afterimage.storage.engine.failures import ENGINE_ERRORS, is_passing, lock_is_taken
from afterimage.storage.engine.instance import quoted
from afterimage.storage.engine.lake.address import LakeAddress
from afterimage.storage.engine.lake.extensions import load_extension
from afterimage.storage.engine.urls import MEMORY
from afterimage.storage.errors import (
    DatabaseError,
    InvalidQueryError,
    LockTimeoutError,
    MissingFileError,
    shorten,
)
from afterimage.storage.system.interrupts import acquire, checkpoint
from afterimage.storage.system.package import log
from afterimage.storage.system.targets import unicode_path

__all__ = ["LAKE", "SERVER", "LakeInstance", "instance_of", "retried"]

LAKE: Final = "lake"
"""The name of every lake in its instance."""
SERVER: Final = "afterimage_server"
"""The name of a second connection to PostgreSQL, for its own SQL."""

# Sixteen writers on one lake: with DuckLake's own values, the slowest saves take four times longer.
_SETTINGS: Final = {
    "ducklake_max_retry_count": "100",
    "ducklake_retry_wait_ms": "20",
    "ducklake_retry_backoff": "1.1",
}

# Parameters of the connections to PostgreSQL: a server that is gone is noticed in seconds.
_CONNECTION: Final = (
    "connect_timeout=5 keepalives_idle=10 keepalives_interval=5 keepalives_count=3 "
    "tcp_user_timeout=30000"
)
_LOCK_OPTION: Final = "options='-c lock_timeout=500'"

_IS_MISSING: Final = re.compile(r"does not exist - and creating a new DuckLake is explicitly", re.I)
_NEEDS_PATH: Final = re.compile(r"data_path is not set", re.I)
_NO_VERSION: Final = re.compile(r"No snapshot found", re.I)
_OTHER_PATH: Final = re.compile(r'does not match existing data path in the catalog "([^"]*)"')

_PAUSE_SECONDS: Final = (0.01, 0.5)

_Result = TypeVar("_Result")


def retried(
    action: Callable[[], _Result],
    deadline: float,
    *,
    is_worth_it: Callable[[BaseException], bool] = is_passing,
) -> _Result:
    """Call a function until it raises no error that may pass, or the time is over.

    Args:
        action: the function; it raises errors of the engine.
        deadline: when to give up, as of `time.monotonic`.
        is_worth_it: whether an error may pass.
    """
    pause, longest = _PAUSE_SECONDS
    while True:
        try:
            return action()
        except (*ENGINE_ERRORS, DatabaseError) as error:
            if not is_worth_it(error) or time.monotonic() >= deadline:
                raise
            log.info("trying again after an error: %s", shorten(error, 200))
        checkpoint()
        time.sleep(min(pause * random.uniform(0.5, 1.5), max(0.0, deadline - time.monotonic())))
        pause = min(pause * 1.5, longest)


class LakeInstance:
    """The DuckDB instance of one lake.

    Args:
        address: the lake.
        at: the version or the time to attach, as an option of ATTACH; None for the newest one.

    Attributes:
        process: the process that made it. Other processes must not use it.
        application: the name of its connections in the lists of PostgreSQL.
        data_path: the folder of the data files; empty until the lake is attached.
    """

    def __init__(self, address: LakeAddress, at: str | None = None) -> None:
        self.process = os.getpid()
        self.application = f"afterimage-{uuid.uuid4().hex[:16]}"
        self.data_path = ""
        self._address = address
        self._at = at
        # Re-entrant: garbage collection may close an iterator while this thread holds it.
        self._lock = threading.RLock()
        self._root: duckdb.DuckDBPyConnection | None = None
        self._is_attached = False
        self._is_stale = self._has_server = False
        self._users = 0

    def cursor(self) -> duckdb.DuckDBPyConnection:
        """Return a connection that does not use the lake."""
        with self._lock:
            return self._running().cursor()

    def exists(self, timeout: float) -> bool:
        """Return whether the lake exists.

        Raises:
            DatabaseError: the catalog cannot be reached within `timeout` seconds.
        """
        try:
            self._with_lake(timeout, create=False)()
        except MissingFileError:
            return False
        return True

    def connect(self, timeout: float, *, create: bool = False) -> Opened:
        """Return a connection that can use the lake until it is closed.

        Args:
            timeout: seconds to wait for the server, or for other processes that use the file.
            create: whether to create a lake that does not exist.

        Raises:
            MissingFileError: the lake does not exist.
            LockTimeoutError: another process had the catalog open for all of `timeout`.
            DatabaseError: the catalog cannot be reached, or is not one of DuckLake.
        """
        release = self._with_lake(timeout, create=create)
        try:
            cursor = self.cursor()
        except BaseException:
            release()
            raise
        process = self.process

        def close() -> None:
            if os.getpid() == process:
                if _is_over(cursor):
                    cursor.close()
                release()

        return cursor, close

    def on_server(self, cursor: duckdb.DuckDBPyConnection, sql: str) -> list[tuple[Any, ...]]:
        """Run a query of PostgreSQL, in the transaction of the cursor if it has one."""
        query = f"FROM postgres_query({quoted(SERVER)}, {quoted(sql)})"
        return cursor.execute(query).fetchall()

    def attach_again(self) -> None:
        """Attach the lake again after the last connection: DuckLake reads its options then."""
        with self._lock:
            self._is_stale = True

    def attach_server(self, timeout: float) -> None:
        """Make `on_server` possible, also where the lake does not exist yet."""
        if not self._has_server:
            self._locked(timeout, self._attach_server)

    def _running(self) -> duckdb.DuckDBPyConnection:
        """Return the connection that keeps the instance; start a new one after a fatal error."""
        if self._root is not None:
            try:
                self._root.execute("SELECT 1").fetchall()
            except duckdb.FatalException:
                self._root = None
        if self._root is None:
            root = open_memory(MEMORY)
            load_extension(root, "ducklake")
            if self._address.file is None:
                load_extension(root, "postgres_scanner")
                self._make_secrets(root)
            for name, value in _SETTINGS.items():
                root.execute(f"SET GLOBAL {name} = {value}")
            self._is_attached = self._is_stale = self._has_server = False
            self._users, self._root = 0, root
        return self._root

    def _make_secrets(self, root: duckdb.DuckDBPyConnection) -> None:
        """Give the instance the password, which then is in no statement, list or error."""
        given = ", ".join(f"{key} {quoted(value)}" for key, value in self._address.server)
        root.execute(f"CREATE SECRET postgres_of_lake (TYPE postgres, {given})")
        root.execute(
            "CREATE SECRET lake_of_afterimage (TYPE ducklake, "
            f"METADATA_PATH {quoted(self._parameters(self.application))}, METADATA_PARAMETERS "
            "MAP {'TYPE': 'postgres', 'SECRET': 'postgres_of_lake'})"
        )

    def _parameters(self, application: str) -> str:
        given = (f"{key}={_parameter(value)}" for key, value in self._address.connection_options)
        return " ".join([f"application_name={application}", _CONNECTION, *given])

    def _with_lake(self, timeout: float, *, create: bool) -> Callable[[], None]:
        """Attach the lake; return the function that ends the use of it."""

        def attach() -> duckdb.DuckDBPyConnection:
            root = self._running()
            if not self._is_attached:
                if self._address.file is None:
                    self._attach_server()
                self._attach(create=create)
                self._is_attached = True
            self._users += 1
            return root

        used = self._locked(timeout, attach)

        def release() -> None:
            with self._lock:
                if self._root is not used:
                    return
                self._users -= 1
                if not self._users and (self._is_stale or self._address.file is not None):
                    self._is_attached = self._is_stale = False
                    try:
                        used.execute(f"DETACH {LAKE}")
                    except duckdb.Error:  # the file is closed with the instance
                        self._root = None

        return release

    def _locked(self, timeout: float, action: Callable[[], _Result]) -> _Result:
        """Call a function that changes the instance, alone and again while it may succeed."""
        started = time.monotonic()
        name = self._address.display_name

        def alone() -> _Result:
            if not acquire(self._lock, timeout):
                raise LockTimeoutError.of(name, timeout, f"another thread of process {os.getpid()}")
            try:
                return action()
            finally:
                self._lock.release()

        def may_pass(error: BaseException) -> bool:
            return is_passing(error) or lock_is_taken(error)

        try:
            return retried(alone, started + timeout, is_worth_it=may_pass)
        except duckdb.Error as error:
            if lock_is_taken(error):
                waited = time.monotonic() - started
                raise LockTimeoutError.of(name, waited, _holder(str(error))) from None
            raise _cannot_open(name, error) from error

    def _attach_server(self) -> None:
        root = self._running()
        parameters = f"{self._parameters(f'{self.application}-locks')} {_LOCK_OPTION}"
        root.execute(
            f"ATTACH IF NOT EXISTS {quoted(parameters)} AS {SERVER} "
            "(TYPE postgres, SECRET postgres_of_lake, READ_ONLY)"
        )
        self._has_server = True

    def _attach(self, *, create: bool) -> None:
        root = self._running()
        file = self._address.file
        options = [f"CREATE_IF_NOT_EXISTS {str(create).lower()}"]
        if file is None:
            target = "ducklake:lake_of_afterimage"
            options.append(f"METADATA_SCHEMA {quoted(self._address.metadata_schema)}")
        else:
            target = f"ducklake:{unicode_path(file)}"
            _check_file(file, create=create)
        if self._address.data_path is not None:
            options.append(f"DATA_PATH {quoted(self._address.data_path)}")
            self._prepare(self._address.data_path, create=create)
        if self._at is not None:
            options += ["READ_ONLY", self._at]
        attach = f"ATTACH {quoted(target)} AS {LAKE} ({', '.join(options)})"
        try:
            try:
                # Otherwise, DuckDB would first search the internet for the extension of buckets.
                root.execute("SET GLOBAL autoinstall_known_extensions = false")
                root.execute(attach)
            except duckdb.Error as error:
                if self._address.data_path is not None or "httpfs" not in str(error):
                    raise
                self._use_object_stores()  # the catalog names a bucket
                root.execute(attach)
            finally:
                root.execute("RESET GLOBAL autoinstall_known_extensions")
        except duckdb.Error as error:
            raise self._explained(error) from None
        found = root.execute(
            f"SELECT value FROM ducklake_options({quoted(LAKE)}) WHERE option_name = 'data_path'"
        ).fetchall()
        self.data_path = str(found[0][0])
        if self._at is not None:  # a user's SQL may read these files, where it may read no other
            root.execute(f"SET GLOBAL allowed_directories = [{quoted(self.data_path)}]")
        self._prepare(self.data_path, create=False)

    def _prepare(self, data_path: str, *, create: bool) -> None:
        if "://" in data_path:
            self._use_object_stores()
        elif create:
            try:
                Path(data_path).mkdir(parents=True, exist_ok=True)
            except OSError as error:
                raise DatabaseError(
                    f"{self._address.display_name}: the folder {data_path} cannot be created: "
                    f"{error.strerror}. Give another data_path."
                ) from error

    def _use_object_stores(self) -> None:
        root = self._running()
        load_extension(root, "httpfs")
        # Few servers other than Amazon's have a host name for each bucket. DuckDB reads the
        # endpoint from the environment, but not the style of its URLs.
        endpoint = os.environ.get("DUCKDB_S3_ENDPOINT", "")
        if endpoint and not endpoint.endswith("amazonaws.com"):
            root.execute("SET GLOBAL s3_url_style = 'path'")

    def _explained(self, error: duckdb.Error) -> BaseException:
        name, text = self._address.display_name, str(error)
        if _IS_MISSING.search(text):
            file = self._address.file
            if file is not None and file.exists() and file.stat().st_size:
                return DatabaseError(f"{file} is not the catalog of a lake. Give another file.")
            return MissingFileError(f"{name} has no lake yet. Check the URL, or save to it first.")
        if _NEEDS_PATH.search(text):
            return DatabaseError(
                f"{name} has no lake yet, and a new one needs a folder for its data. Add "
                "?data_path=… to the URL: a path that all machines have, or s3://bucket/folder."
            )
        if self._at is not None and _NO_VERSION.search(text):
            return InvalidQueryError(
                f"{name} has no version {self._at.partition(' ')[2]}. `snapshots()` lists those "
                "that it has."
            )
        if other := _OTHER_PATH.search(text):
            return DatabaseError(
                f"{name} has its data in {other[1]}, not in {self._address.data_path}. Omit "
                "data_path, which the catalog knows, or give another metadata_schema."
            )
        return error


def _check_file(file: Path, *, create: bool) -> None:
    if not file.parent.is_dir():
        raise MissingFileError(
            f"{file}: the folder {file.parent} does not exist. Create it or give another path."
        )
    if file.is_dir():
        raise DatabaseError(f"{file} is a folder. Give the path of a file for the catalog.")
    if not create and not file.exists():
        raise MissingFileError(f"{file} does not exist. Check the path, or save to it first.")


def _cannot_open(name: str, error: duckdb.Error) -> DatabaseError:
    return DatabaseError(f"{name} cannot be opened: {shorten(error, 300)}")


def _holder(message: str) -> str | None:
    found = re.search(r"held in (.+?) \(PID (\d+)\)", message)
    return None if found is None else f"process {found[2]} ({found[1]})"


def _is_over(cursor: duckdb.DuckDBPyConnection) -> bool:
    """End the transaction of a connection; return whether the connection can be closed.

    After a fatal error of the instance, the process would be aborted if a connection with a
    transaction were closed, or freed. So it is kept forever.
    """
    try:
        cursor.execute("ROLLBACK")
    except duckdb.FatalException:
        ctypes.pythonapi.Py_IncRef(ctypes.py_object(cursor))
        return False
    except duckdb.Error:  # there is no transaction, or it has ended with its connection
        pass
    return True


def _parameter(value: str) -> str:
    """Return a value as libpq reads it in a list of parameters."""
    escaped = value.replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"


_instances: weakref.WeakValueDictionary[tuple[int, LakeAddress, str | None], LakeInstance]
_instances = weakref.WeakValueDictionary()


def instance_of(address: LakeAddress, at: str | None = None) -> LakeInstance:
    """Return the instance of a lake in this process."""
    key = (os.getpid(), address, at)
    instance = _instances.get(key)
    if instance is None:
        instance = _instances[key] = LakeInstance(address, at)
    return instance
