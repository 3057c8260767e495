"""Tests many damaged files, each in a process that may crash or hang, and reports the results.

    python -m tests.fuzz.mutated_files --files 10000 --seed 1
    python -m tests.fuzz.mutated_files --kind jsonl --seed 1 --first 83 --files 1

The first prints figures as Markdown; the second tries again what the first one named.
"""

from __future__ import annotations

import argparse
import logging
import os
import platform
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Iterator
from multiprocessing.connection import Connection
from pathlib import Path
from typing import NamedTuple

from tests.fuzz import mutated_databases, mutated_lines
from tests.support.processes import child

SHARES = {"jsonl": 0.6, "jsonl.gz": 0.15, "jsonl.zst": 0.15, "duckdb": 0.06, "duckdb.wal": 0.04}
"""The kinds of files, and the share of each."""

SECONDS_A_FILE = 60
"""A call that takes longer counts as hanging; a file usually takes a twentieth of a second."""

_FILES_A_PROCESS = 500


class Tried(NamedTuple):
    """The result of one file.

    Attributes:
        kind: of `SHARES`.
        number: with the kind and the seed, it identifies the file.
        what: in a few words, where all promises hold.
        failure: what is wrong else: a broken promise, another exception, a crash, a hang.
        mutations: what was done to the file.
    """

    kind: str
    number: int
    what: str
    failure: str = ""
    mutations: tuple[str, ...] = ()


def tried(kind: str, seed: int, numbers: range) -> Iterator[Tried]:
    """Test the files with those numbers."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if kind in mutated_databases.KINDS:
            mutated_databases.make_sound(folder)
        left = numbers
        while left:
            with child(_try_files, kind, seed, left[:_FILES_A_PROCESS], folder) as (process, pipe):
                for number in left[:_FILES_A_PROCESS]:
                    left = range(number + 1, numbers.stop)
                    if not pipe.poll(SECONDS_A_FILE):
                        yield Tried(kind, number, "", f"no end after {SECONDS_A_FILE} s")
                        break
                    try:
                        yield pipe.recv()
                    except EOFError:
                        process.join()
                        yield Tried(kind, number, "", f"the process died ({process.exitcode})")
                        break


def _try_files(pipe: Connection, kind: str, seed: int, numbers: range, sound: Path) -> None:
    logged = _Logged()
    logging.getLogger().addHandler(logged)
    for number in numbers:
        with tempfile.TemporaryDirectory(dir=sound) as folder:
            try:
                if kind in mutated_databases.KINDS:
                    found = mutated_databases.try_file(kind, seed, number, Path(folder), sound)
                else:
                    found = mutated_lines.try_file(kind, seed, number, Path(folder))
                done = Tried(kind, number, found.what, "", tuple(found.mutations))
            except Exception as error:
                where = traceback.extract_tb(error.__traceback__)[-1]
                place = f"{Path(where.filename).name}:{where.lineno}"
                failure = f"{type(error).__name__} at {place}: {str(error)[:300]}"
                done = Tried(kind, number, "", failure)
        if logged.lines:
            done = done._replace(failure=f"{done.failure} logged: {logged.lines[0]}")
            logged.lines.clear()
        pipe.send(done)


class _Logged(logging.Handler):
    """Collects log messages that nothing can catch, such as those about open connections.

    The package logs each of its warnings, which are no fault of it.
    """

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        if record.name != "afterimage.storage" or record.levelno > logging.WARNING:
            self.lines.append(record.getMessage()[:300])


def main(arguments: list[str] | None = None) -> int:
    """Test the requested number of files; return 1 if a guarantee is broken."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz.mutated_files")
    parser.add_argument("--files", type=int, default=1000, help="how many, of all kinds together")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--first", type=int, default=0, help="number of the first of each kind")
    parser.add_argument("--kind", choices=SHARES, help="files of this kind alone")
    options = parser.parse_args(arguments)
    shares = {options.kind: 1.0} if options.kind else SHARES
    found: dict[str, list[Tried]] = {}
    seconds = {}
    for kind, share in shares.items():
        start = time.monotonic()
        found[kind] = []
        for each in tried(
            kind, options.seed, range(options.first, options.first + round(options.files * share))
        ):
            found[kind].append(each)
            if each.failure:
                print(f"{kind} {each.number}: {each.failure}", file=sys.stderr)  # noqa: T201
        seconds[kind] = time.monotonic() - start
    print(_report(options.seed, found, seconds))  # noqa: T201
    return any(each.failure for kind in found.values() for each in kind)


def _report(seed: int, found: dict[str, list[Tried]], seconds: dict[str, float]) -> str:
    import duckdb

    versions = f"Python {platform.python_version()}, DuckDB {duckdb.__version__}"
    lines = [
        f"Seed {seed}, {versions}, {os.cpu_count()} cores.",
        "",
        "| kind | files | broken promises or other exceptions | crashes | hangs | seconds |",
        "|---|--:|--:|--:|--:|--:|",
    ]
    for kind, files in found.items():
        failures = [each.failure for each in files if each.failure]
        crashes = sum("the process died" in failure for failure in failures)
        hangs = sum("no end after" in failure for failure in failures)
        lines.append(
            f"| `.{kind}` | {len(files):,} | {len(failures) - crashes - hangs} | {crashes} | "
            f"{hangs} | {seconds[kind]:.0f} |"
        )
    lines += ["", "| kind | what came of it | files |", "|---|---|--:|"]
    for kind, files in found.items():
        counts = Counter(each.what or "**a failure**" for each in files)
        lines += [f"| `.{kind}` | {what} | {count:,} |" for what, count in counts.most_common()]
    mutations = Counter(
        name for files in found.values() for each in files for name in each.mutations
    )
    done = ", ".join(f"{name} {count:,}" for name, count in mutations.most_common())
    return "\n".join([*lines, "", f"Damage done: {done}."])


if __name__ == "__main__":
    sys.exit(main())
