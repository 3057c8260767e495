"""Processes to kill and to run side by side, and what they do; the tests say what must hold after.

They come from a fork server that has imported everything, so that one is there in milliseconds.
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
"""How many times what CI runs: kills, batches of each writer."""

KINDS = ["jsonl", "sql"]


def opened(kind: str, folder: Path, **options: Any) -> Storage:
    """The storage that every process of a test has in `folder`."""
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
            os.killpg(process.pid, signal.SIGKILL)  # those that it has started, too
        process.kill()
        process.join()
        ours.close()


def told_by(process: Any, pipe: Connection, seconds: float = 60) -> list[Any]:
    """What a process has sent by its end, which must come in time."""
    process.join(seconds)
    if process.exitcode is None:
        pytest.fail(f"it is still there after {seconds} s: it hangs, or this machine is very busy")
    assert process.exitcode == 0
    return received(pipe)


def received(pipe: Connection) -> list[Any]:
    """What is left in the pipe of a process that is no more."""
    found = []
    try:
        while True:
            found.append(pipe.recv())
    except EOFError:
        return found


def duckdb_cli() -> str | None:
    """The DuckDB command line, which the PyPI package duckdb-cli installs beside Python."""
    beside = str(Path(sys.executable).parent)
    return shutil.which("duckdb", path=beside) or shutil.which("duckdb")


def batch_of(number: int, seed: int, bytes_each: int = 0) -> list[Any]:
    """A batch whose records tell which of how many they are, from one small one to megabytes."""
    rng = random.Random(f"{seed} {number}")
    many = rng.choice([1, 2, 30, 400])
    size = bytes_each or rng.choice([10, 300, 8000])
    return [
        conversation("é🚂" * (size // 6), {"batch": number, "at": at, "of": many})
        for at in range(many)
    ]


def broken_batches(metadata: Sequence[dict[str, Any]]) -> list[Any]:
    """Batches that are not there whole, once and in their order, out of the records' metadata."""
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


# -- what children do ---------------------------------------------------------------------------


def save_batches(pipe: Connection, kind: str, folder: Path, first: int, seed: int) -> None:
    """Save batch after batch, and tell of each whose save has returned."""
    pipe.send("ready")
    storage = opened(kind, folder)
    for number in count(first):
        storage.save_conversations(batch_of(number, seed))
        pipe.send(number)


def add_metadata_fields(
    pipe: Connection, kind: str, folder: Path, keys: list[str], first: int
) -> None:
    """Give metadata keys columns of their own and save after it, without a checkpoint between."""
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
    """An import or export; tells when it begins and when it has returned."""
    storage = opened(kind, folder)
    pipe.send("ready")
    getattr(storage, method)(path, **(options or {}))
    pipe.send("returned")


def _run(target: Callable[..., None], *arguments: Any) -> None:
    os.setsid()  # a group of its own
    warnings.simplefilter("ignore")  # the parent sees to those that matter
    target(*arguments)


def _fork_server() -> Any:
    if "forkserver" not in multiprocessing.get_all_start_methods():
        pytest.skip("this system has no fork server")
    context = multiprocessing.get_context("forkserver")
    # DuckDB looks for pandas when it is first given a query.
    preloaded = [__name__, "afterimage.storage.sql_storage", "pyarrow.parquet", "pandas"]
    context.set_forkserver_preload(preloaded)
    # Up to Python 3.12 the server looks for modules where a new interpreter does, not where we do.
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
