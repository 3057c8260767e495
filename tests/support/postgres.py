"""A PostgreSQL server of the tests' own, on loopback, with its data in a temporary folder."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import tempfile
import uuid
from functools import cache
from pathlib import Path
from typing import Final

__all__ = ["Server", "missing_for_lakes", "shared_server"]

_USER: Final = "postgres"
_OPTIONS: Final = (
    "listen_addresses=127.0.0.1",
    "fsync=off",
    "max_connections=300",
    "shared_buffers=32MB",
    "unix_socket_directories=",
)


@cache
def missing_for_lakes(*, server: bool) -> str | None:
    """Return why lakes cannot be tested here, if they cannot."""
    import duckdb

    from afterimage.storage.engine.lake.extensions import load_extension
    from afterimage.storage.errors import StorageError

    with duckdb.connect(":memory:") as connection:
        try:
            for name in ("ducklake", "postgres_scanner", "httpfs"):
                load_extension(connection, name)
        except StorageError:
            return f"DuckDB {duckdb.__version__} has no extension for lakes here"
    if server and _program("initdb") is None:
        return "PostgreSQL is not installed"
    if server and os.name != "posix":
        return "PostgreSQL is started on POSIX systems only"
    return None


def _program(name: str) -> Path | None:
    """Return a program of the server; Debian's are not on the path."""
    folders = sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True)
    found = [folder / name for folder in folders if (folder / name).exists()]
    on_path = shutil.which(name)
    return found[0] if found else Path(on_path) if on_path else None


class Server:
    """A running server.

    Attributes:
        port: the port on loopback.
    """

    def __init__(self) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="afterimage-postgres-"))
        self.port = _free_port()
        if os.geteuid() == 0:  # the server refuses to run as root
            shutil.chown(self._folder, _USER, _USER)
        self._run("initdb", "-U", _USER, "-A", "trust", "--no-sync")
        self.start()

    def start(self) -> None:
        options = " ".join(f"-c {option}" for option in (f"port={self.port}", *_OPTIONS))
        self._run("pg_ctl", "-w", "-l", str(self._folder / "log"), "-o", options, "start")

    def stop(self, mode: str = "immediate") -> None:
        self._run("pg_ctl", "-w", "-m", mode, "stop")

    def remove(self) -> None:
        self.stop()
        shutil.rmtree(self._folder, ignore_errors=True)

    def url(self, data_path: Path | str | None, schema: str = "", port: int | None = None) -> str:
        """Return the URL of a lake, with a password that the server does not check."""
        place = f"ducklake+postgresql://{_USER}:s3cret@127.0.0.1:{port or self.port}/{_USER}"
        data = "" if data_path is None else f"&data_path={data_path}"
        return f"{place}?metadata_schema={schema or f'lake_{uuid.uuid4().hex[:12]}'}{data}"

    def dump(self) -> str:
        """Return everything that the server has, as SQL."""
        program = _program("pg_dump")
        assert program is not None
        place = ["-h", "127.0.0.1", "-p", str(self.port), "-U", _USER]
        done = subprocess.run([program, *place, _USER], check=True, capture_output=True, text=True)
        return done.stdout

    def _run(self, name: str, *arguments: str) -> None:
        program = _program(name)
        assert program is not None
        command = [str(program), "-D", str(self._folder / "data"), *arguments]
        if os.geteuid() == 0:
            switch = ["setpriv", f"--reuid={_USER}", f"--regid={_USER}", "--clear-groups"]
            command = [*switch, *command]
        # A file, not a pipe: the server keeps it open.
        with (self._folder / f"{name}.txt").open("ab") as output:
            done = subprocess.run(
                command,
                check=False,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                cwd=self._folder,
            )
        if done.returncode:
            said = (self._folder / f"{name}.txt").read_text(errors="replace")
            raise RuntimeError(f"{name} failed: {said[-2000:]}")


@cache
def shared_server() -> Server:
    """Return a server that all tests of this process use, and that ends with it."""
    import atexit

    server = Server()
    atexit.register(server.remove)
    return server


def _free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])
