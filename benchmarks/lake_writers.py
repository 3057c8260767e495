"""Measures 1, 4 and 16 processes that save to one lake: ``python benchmarks/lake_writers.py``.

It needs the extra `lake`, and starts a PostgreSQL of its own on this machine. Each process saves
batches for some seconds. At the end, every record whose save returned must be stored exactly once.
The same is measured for one DuckDB file. Prints a table and writes it to benchmarks/results/.
"""

from __future__ import annotations

import argparse
import multiprocessing
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

# This file is started by its path, so Python searches only its own folder.
sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "src"))
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from afterimage.storage import SQLStorage
from benchmarks.harness.registry import ROOT
from benchmarks.harness.results import about, store_results
from benchmarks.writers import batch_of
from tests.support.postgres import Server

WRITERS = (1, 4, 16)
PACKAGES = ("duckdb", "pyarrow", "pydantic", "sqlalchemy", "duckdb-engine")


def write(url: str, records: int, seconds: float, start: Any, answers: Any) -> None:
    """Run one writer: save until the time is over, and answer the seconds of each save."""
    storage = SQLStorage(url, lock_timeout=300)
    batch = batch_of(records)
    storage.save_conversations(batch)  # imports and connects
    start.wait()
    took: list[float] = []
    began = now = time.monotonic()
    while now - began < seconds:
        storage.save_conversations(batch)
        before, now = now, time.monotonic()
        took.append(now - before)
    answers.put((took, now - began))


def measure(name: str, url: str, writers: int, records: int, seconds: float) -> dict[str, Any]:
    """Run one round in a new store; raise an error if a record is missing or duplicated."""
    context = multiprocessing.get_context("spawn")
    start, answers = context.Barrier(writers), context.SimpleQueue()
    SQLStorage(url).save_conversations(batch_of(1))
    arguments = [url, records, seconds, start, answers]
    processes = [context.Process(target=write, args=arguments) for _ in range(writers)]
    for process in processes:
        process.start()
    told = [answers.get() for _ in processes]
    for process in processes:
        process.join()
    took = sorted(seconds for each, _ in told for seconds in each)
    saved = 1 + (len(took) + writers) * records
    storage = SQLStorage(url)
    found = storage.count_conversations()
    with storage.engine.connect() as connection:
        count = "SELECT count(DISTINCT id) FROM conversations"
        distinct = connection.exec_driver_sql(count).scalar()
    if not found == distinct == saved:
        raise RuntimeError(f"{name}: {saved} records saved, {found} found, {distinct} distinct ids")
    began = time.monotonic()
    storage.load_conversations(limit=50)
    page = time.monotonic() - began
    return {
        "storage": name,
        "writers": writers,
        "records_per_save": records,
        "saves": len(took),
        "records_per_second": len(took) * records / max(each for _, each in told),
        "p50_ms": 1000 * took[len(took) // 2],
        "p99_ms": 1000 * took[int(len(took) * 0.99)],
        "page_of_50_ms": 1000 * page,
    }


def markdown(told: dict[str, Any]) -> str:
    """The results as a table."""
    on = told["machine"]
    versions = ", ".join(f"{name} {version}" for name, version in told["versions"].items())
    lines = [
        "# Several processes that save to one lake, or into one file",
        "",
        (
            f"{told['date']}, {on['processor']}, {on['cores']} cores, which PostgreSQL shares, "
            f"Python {told['python']}, {versions}. Rounds of {told['seconds']:g} s."
        ),
        "",
        "| storage | writers | records/s | p50 of a save, ms | p99, ms | page of 50 after it, ms |",
        "|---|--:|--:|--:|--:|--:|",
    ]
    lines += [
        f"| {row['storage']} | {row['writers']} | {row['records_per_second']:,.0f} "
        f"| {row['p50_ms']:,.0f} | {row['p99_ms']:,.0f} | {row['page_of_50_ms']:,.0f} |"
        for row in told["results"]
    ]
    return "\n".join(lines) + "\n"


def main() -> int:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description="Measure processes that save to one lake.")
    add = parser.add_argument
    add("--seconds", type=float, default=20, help="of a round (default: %(default)s)")
    add("--records", type=int, default=60, help="in a save (default: %(default)s)")
    add("--writers", type=int, nargs="+", default=list(WRITERS), help="default: 1 4 16")
    add("--results", type=Path, default=ROOT / "benchmarks" / "results", help="folder")
    options = parser.parse_args()
    told: dict[str, Any] = {
        **about(PACKAGES),
        "seconds": options.seconds,
        "results": [],
    }
    server = Server()
    try:
        for writers in options.writers:
            for name in ("lake", "file"):
                with tempfile.TemporaryDirectory() as folder:
                    file = f"duckdb:///{folder}/talks.duckdb"
                    url = file if name == "file" else server.url(f"{folder}/data")
                    round_ = measure(name, url, writers, options.records, options.seconds)
                    told["results"].append(round_)
    finally:
        server.remove()
    store_results(options.results, "lake-writers", told, markdown(told))
    return 0


if __name__ == "__main__":
    sys.exit(main())
