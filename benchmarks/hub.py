"""Measure how many bytes of an export are new after a small change: ``python3 benchmarks/hub.py``.

It exports the dataset to a folder for the Hugging Face Hub, drops 500 conversations in a row, and
exports it again. Both exports are cut into chunks where their content says, as the storage of the
Hub does; a chunk that both have is stored once. The result is written to benchmarks/results/.
"""

from __future__ import annotations

import argparse
import datetime as dt
import hashlib
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

# This file is started by its path, so Python does not search the project folder by itself.
ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "src")]

import duckdb  # noqa: E402
import pyarrow as pa  # noqa: E402

from afterimage.storage import SQLStorage  # noqa: E402
from benchmarks.harness.machine import machine  # noqa: E402

DROPPED = 500
SMALLEST, MASK = 2**13, 2**16 - 1  # a chunk has 64 KiB on average, as on the Hub
GEAR = [int.from_bytes(hashlib.sha256(bytes([byte])).digest()[:8]) for byte in range(256)]


def chunks(data: bytes) -> dict[bytes, int]:
    """Return the hash and the size of each chunk: a rolling hash of the content ends it."""
    found: dict[bytes, int] = {}
    start, rolling = 0, 0
    for at, byte in enumerate(data):
        rolling = ((rolling << 1) + GEAR[byte]) & (2**64 - 1)
        if at - start >= SMALLEST and not rolling >> 40 & MASK:
            found[hashlib.sha256(data[start : at + 1]).digest()] = at + 1 - start
            start = at + 1
    found[hashlib.sha256(data[start:]).digest()] = len(data) - start
    return found


def main() -> None:
    """Export twice, compare, and write the result."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("file", type=Path, help="conversations as JSON lines, plain or compressed")
    source = parser.parse_args().file
    store = SQLStorage("duckdb:///:memory:")
    total = int(store.import_jsonl(source))
    records = store.load_conversations()
    middle = total // 2
    rest = SQLStorage("duckdb:///:memory:")
    rest.save_conversations([*records[:middle], *records[middle + DROPPED :]])
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        for name in ("messages", None):
            parts = []
            for number, each in enumerate((store, rest)):
                target = Path(folder, f"{name}-{number}")
                each.export_hub(target, format=name)
                [file] = target.glob("data/*.parquet")
                parts.append(chunks(file.read_bytes()))
            first, second = parts
            size = sum(second.values())
            new = sum(length for key, length in second.items() if key not in first)
            rows.append({"format": name or "whole records", "bytes": size, "new": new})
    result = {
        "date": dt.datetime.now(dt.UTC).date().isoformat(),
        "machine": machine(),
        "versions": {"pyarrow": pa.__version__, "duckdb": duckdb.__version__},
        "dataset": source.name,
        "conversations": total,
        "dropped": DROPPED,
        "exports": rows,
    }
    out = ROOT / "benchmarks" / "results" / f"{result['date']}-hub"
    out.with_suffix(".json").write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    lines = [
        f"# Bytes that are new after {DROPPED} of {total:,} conversations, in a row, are dropped",
        "",
        f"- `python3 benchmarks/hub.py`, {result['date']}, pyarrow {pa.__version__}",
        "",
        "| export | MB | new MB | shared |",
        "| --- | --: | --: | --: |",
    ]
    for row in rows:
        shared = 1 - int(row["new"]) / int(row["bytes"])
        megabytes = [int(row[key]) / 1e6 for key in ("bytes", "new")]
        lines.append(
            f"| {row['format']} | {megabytes[0]:.2f} | {megabytes[1]:.2f} | {shared:.0%} |"
        )
    out.with_suffix(".md").write_text("\n".join(lines) + "\n", encoding="utf-8")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
