"""Measures a growing lake and a growing file: ``python benchmarks/lake_growth.py FILE``.

It needs the extra `lake`, and starts a PostgreSQL of its own on this machine. FILE has
conversations as JSON lines. They are imported again and again, one import after another, into a
lake with its catalog in PostgreSQL, a lake with its catalog in a file, and a DuckDB file. In
between, and after `compact()`, it measures reads, a save, and what is stored. Prints a table and
writes it to benchmarks/results/.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
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

STEPS = (1, 6, 24, 48)
PACKAGES = ("duckdb", "pyarrow", "pydantic", "sqlalchemy", "duckdb-engine")


def median_ms(call: Callable[[], Any], times: int = 5) -> float:
    """The median of the milliseconds of some calls, after one that is not measured."""
    call()
    took = []
    for _ in range(times):
        began = time.perf_counter()
        call()
        took.append(1000 * (time.perf_counter() - began))
    return statistics.median(took)


def stored(storage: SQLStorage, name: str, folder: Path) -> dict[str, int]:
    """Return the files, the bytes, and the rows of the catalog of a storage."""
    if name == "file":
        return {"files": 1, "data_bytes": (folder / "talks.duckdb").stat().st_size}
    catalog = f"__ducklake_metadata_lake.{'main' if name == 'lake, file' else 'public'}"
    tables = ("data_file", "file_column_stats", "snapshot", "snapshot_changes")
    with storage.engine.connect() as connection:
        rows = 0
        for table in tables:
            count = f"SELECT count(*) FROM {catalog}.ducklake_{table}"
            rows += int(connection.exec_driver_sql(count).scalar() or 0)
        files, size = connection.exec_driver_sql(
            f"SELECT count(*), sum(file_size_bytes) FROM {catalog}.ducklake_data_file "
            "WHERE end_snapshot IS NULL"
        ).one()
    found = {"files": int(files), "data_bytes": int(size), "catalog_rows": rows}
    if name == "lake, file":
        found["catalog_bytes"] = (folder / "talks.ducklake").stat().st_size
    return found


def measured(url: str, name: str, folder: Path, key: str, value: str) -> dict[str, Any]:
    """Measure a storage as it is."""
    storage = SQLStorage(url)
    filters = {f"metadata.{key}": value}
    batch = batch_of(60)
    return {
        "storage": name,
        "conversations": storage.count_conversations(),
        "matching": storage.count_conversations(filters),
        "page_ms": median_ms(lambda: storage.load_conversations(50)),
        "filtered_page_ms": median_ms(lambda: storage.load_conversations(50, filters=filters)),
        "last_page_ms": median_ms(lambda: storage.load_conversations(50, order_by="-id")),
        "count_ms": median_ms(storage.count_conversations),
        "filtered_count_ms": median_ms(lambda: storage.count_conversations(filters)),
        "save_of_60_ms": median_ms(lambda: storage.save_conversations(batch)),
        **stored(storage, name, folder),
    }


def grow(name: str, url: str, folder: Path, options: argparse.Namespace) -> list[dict[str, Any]]:
    """Let one storage grow; return what was measured at each step."""
    storage = SQLStorage(url, metadata_fields=[options.key], lock_timeout=300)
    results: list[dict[str, Any]] = []
    imports = 0
    for step in options.steps:
        began, before = time.monotonic(), imports
        while imports < step:
            storage.import_jsonl(options.file)
            imports += 1
        rate = (time.monotonic() - began) / (imports - before)
        row = measured(url, name, folder, options.key, options.value)
        results.append({"imports": imports, "seconds_of_an_import": rate, **row})
        print(results[-1], flush=True)
    began = time.monotonic()
    storage.compact()
    took = time.monotonic() - began
    row = measured(url, name, folder, options.key, options.value)
    results.append({"imports": imports, "compact_seconds": took, **row})
    print(results[-1], flush=True)
    return results


def markdown(told: dict[str, Any]) -> str:
    """The results as a table."""
    on = told["machine"]
    versions = ", ".join(f"{name} {version}" for name, version in told["versions"].items())
    lines = [
        "# A lake and a file that grow",
        "",
        (
            f"{told['date']}, {on['processor']}, {on['cores']} cores, which PostgreSQL and other "
            f"programs share, Python {told['python']}, {versions}. Milliseconds, medians of 5."
        ),
        "",
        (
            "| storage | conversations | page | filtered page | last page | count "
            "| filtered count | save of 60 | files | data MB | catalog rows |"
        ),
        "|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|",
    ]
    for row in told["results"]:
        name = row["storage"] + (" (compacted)" if "compact_seconds" in row else "")
        lines.append(
            f"| {name} | {row['conversations']:,} | {row['page_ms']:,.0f} "
            f"| {row['filtered_page_ms']:,.0f} | {row['last_page_ms']:,.0f} "
            f"| {row['count_ms']:,.0f} | {row['filtered_count_ms']:,.0f} "
            f"| {row['save_of_60_ms']:,.0f} | {row['files']:,} | {row['data_bytes'] / 1e6:,.0f} "
            f"| {row.get('catalog_rows', 0):,} |"
        )
    return "\n".join(lines) + "\n"


def main() -> int:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description="Measure a lake and a file that grow.")
    add = parser.add_argument
    add("file", type=Path, help="conversations as JSON lines")
    add("--key", default="domain", help="a metadata key with a column (default: %(default)s)")
    add("--value", default="Hotels", help="the value that is filtered (default: %(default)s)")
    add("--steps", type=int, nargs="+", default=list(STEPS), help="numbers of imports")
    add("--results", type=Path, default=ROOT / "benchmarks" / "results", help="folder")
    options = parser.parse_args()
    told: dict[str, Any] = {
        **about(PACKAGES),
        "source": options.file.name,
        "results": [],
    }
    server = Server()
    try:
        for name in ("lake, PostgreSQL", "lake, file", "file"):
            with tempfile.TemporaryDirectory() as temporary:
                folder = Path(temporary)
                urls = {
                    "lake, PostgreSQL": server.url(folder / "data", "public"),
                    "lake, file": f"ducklake:///{folder}/talks.ducklake?data_path={folder}/data",
                    "file": f"duckdb:///{folder}/talks.duckdb",
                }
                told["results"] += grow(name, urls[name], folder, options)
    finally:
        server.remove()
    store_results(options.results, "lake-growth", told, markdown(told))
    return 0


if __name__ == "__main__":
    sys.exit(main())
