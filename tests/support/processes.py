"""Child processes that tests kill or run concurrently, and their work.

A fork server that has imported everything starts them, so that each starts within milliseconds.
"""

from __future__ import annotations

import multiprocessing
import os
import random
import shutil
import signal
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from itertools import count
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import pytest

from afterimage.storage import JSONLStorage, SQLStorage
from tests.support.factories import Storage
from tests.support.records import conversation

LONG = int(os.environ.get("AFTERIMAGE_FAULTS", "1"))
"""Multiplies the kills and the batches of each writer; CI uses 1."""

KINDS = ["jsonl", "sql"]


def opened(kind: str, folder: Path, **options: Any) -> Storage:
    """Open the storage in `folder` that all processes of a test use."""
    if kind == "jsonl":
        return JSONLStorage(folder / "talks.jsonl", folder / "texts.jsonl", **options)
    return SQLStorage(f"duckdb:///{folder / 'store.duckdb'}", **options)


@contextmanager
def child(target: Callable[..., None], *arguments: Any) -> Iterator[tuple[Any, Connection]]:
    """A process that runs `target(pipe, *arguments)`, and our end of the pipe; killed after."""
    context = _fork_server()
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=_run, args=[target, theirs, *arguments])
    process.start()
    theirs.close()
    try:
        yield process, ours
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)  # its own children too
        process.kill()
        process.join()
        ours.close()


def told_by(process: Any, pipe: Connection, seconds: float = 60) -> list[Any]:
    """Everything that a process sent; it must end in time."""
    process.join(seconds)
    if process.exitcode is None:
        pytest.fail(f"it is still there after {seconds} s: it hangs, or this machine is very busy")
    assert process.exitcode == 0
    return received(pipe)


def received(pipe: Connection) -> list[Any]:
    """Everything that is left in the pipe of a process that has ended."""
    found = []
    try:
        while True:
            found.append(pipe.recv())
    except EOFError:
        return found


def duckdb_cli() -> str | None:
    """The DuckDB command line, which the PyPI package duckdb-cli installs next to Python."""
    beside = str(Path(sys.executable).parent)
    return shutil.which("duckdb", path=beside) or shutil.which("duckdb")


def batch_of(number: int, seed: int, bytes_each: int = 0) -> list[Any]:
    """A batch of random size, up to megabytes; each record has its index and the batch size."""
    rng = random.Random(f"{seed} {number}")
    many = rng.choice([1, 2, 30, 400])
    size = bytes_each or rng.choice([10, 300, 8000])
    return [
        conversation("é🚂" * (size // 6), {"batch": number, "at": at, "of": many})
        for at in range(many)
    ]


def broken_batches(metadata: Sequence[dict[str, Any]]) -> list[Any]:
    """The batches that are not stored completely, exactly once and in order."""
    found: dict[Any, list[int]] = {}
    sizes = {}
    last = None
    apart = []
    for each in metadata:
        if each["batch"] != last and each["batch"] in found:
            apart.append(each["batch"])
        last = each["batch"]
        found.setdefault(last, []).append(each["at"])
        sizes[last] = each["of"]
    return apart + [batch for batch, at in found.items() if at != list(range(sizes[batch]))]


# -- work of the children -------------------------------------------------------------------------


def save_batches(pipe: Connection, kind: str, folder: Path, first: int, seed: int) -> None:
    """Save batches, and send the number of each one whose save has returned."""
    pipe.send("ready")
    storage = opened(kind, folder)
    for number in count(first):
        storage.save_conversations(batch_of(number, seed))
        pipe.send(number)


def add_metadata_fields(
    pipe: Connection, kind: str, folder: Path, keys: list[str], first: int
) -> None:
    """Give metadata keys their own columns and then save, without a checkpoint in between."""
    storage = opened(kind, folder, metadata_fields=keys)
    for number in count(first):
        storage.save_conversations(
            [conversation(metadata={"batch": number, "at": 0, "of": 1, keys[-1]: f"v{number}"})]
        )
        pipe.send(number)


def call(
    pipe: Connection,
    kind: str,
    folder: Path,
    method: str,
    path: Path,
    options: dict[str, Any] | None = None,
) -> None:
    """Run an import or export; send a message when it begins and when it has returned."""
    storage = opened(kind, folder)
    pipe.send("ready")
    getattr(storage, method)(path, **(options or {}))
    pipe.send("returned")


def _run(target: Callable[..., None], *arguments: Any) -> None:
    os.setsid()  # its own process group
    warnings.simplefilter("ignore")  # the parent checks the warnings that matter
    target(*arguments)


def _fork_server() -> Any:
    if "forkserver" not in multiprocessing.get_all_start_methods():
        pytest.skip("this system has no fork server")
    context = multiprocessing.get_context("forkserver")
    # DuckDB imports pandas on its first query.
    preloaded = [__name__, "afterimage.storage.sql_storage", "pyarrow.parquet", "pandas"]
    context.set_forkserver_preload(preloaded)
    # Up to Python 3.12, the server searches the default path, not the path of this process.
    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = os.pathsep.join(path for path in sys.path if path)
    try:
        from multiprocessing import forkserver

        forkserver.ensure_running()
    finally:
        if before is None:
            del os.environ["PYTHONPATH"]
        else:
            os.environ["PYTHONPATH"] = before
    return context
