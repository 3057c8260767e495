"""What streams a file takes little memory, and leaves DuckDB as it was."""

from __future__ import annotations

import base64
import json
import random
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import duckdb
import pytest

from afterimage.storage import SQLStorage
from afterimage.storage.engine import attach
from tests.support.processes import KINDS, child, opened, told_by

pytestmark = pytest.mark.slow

ROWS = 30_000
ROW_BYTES = 6000
FILE_BYTES = ROWS * ROW_BYTES
MOST = 190 * 2**20
"""Bytes that a read may add: what it works on, and not the whole of the file beside that."""

LIMIT = "SELECT current_setting('memory_limit')"

TASKS: dict[str, Callable[[Any, Path], Any]] = {
    "import_jsonl": lambda store, folder: store.import_jsonl(folder / "in.jsonl"),
    "iter_conversations": lambda store, folder: sum(1 for _ in store.iter_conversations()),
    "scan_conversations": lambda store, folder: sum(
        batch.num_rows for batch in store.scan_conversations()
    ),
    "export_jsonl": lambda store, folder: store.export_jsonl(folder / "out.jsonl"),
    "export_parquet": lambda store, folder: store.export_parquet(folder / "out.parquet"),
}


def measured(pipe: Any, kind: str, folder: Path) -> None:
    """Tell of each task how many records it met, and how many bytes of memory it added at most."""
    store = opened(kind, folder)
    for name, task in TASKS.items():
        Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
        before = memory("VmRSS")
        found = task(store, folder)
        pipe.send((name, found, memory("VmHWM") - before, memory_limit()))


def memory_limit() -> Any:
    [[limit]] = attach.connect_memory()[0].execute(LIMIT).fetchall()
    return limit


def memory(what: str) -> int:
    status = Path("/proc/self/status").read_text()
    return int(status.split(f"{what}:")[1].split()[0]) * 1024


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """With a file of lines that are as long in a database, as they hardly can be compressed."""
    made: Path = tmp_path_factory.mktemp("memory")
    noise = random.Random(1)
    with (made / "in.jsonl").open("w") as file:
        for at in range(ROWS):
            text = base64.b64encode(noise.randbytes(ROW_BYTES * 3 // 4)).decode()
            record = {"conversations": [{"role": "user", "content": text}], "metadata": {"n": at}}
            file.write(json.dumps(record) + "\n")
    yield made
    shutil.rmtree(made)


@pytest.mark.skipif(sys.platform != "linux", reason="asks Linux for the peak of memory")
@pytest.mark.parametrize("kind", KINDS)
def test_reading_all_of_a_file_takes_little_memory(folder: Path, kind: str) -> None:
    with child(measured, kind, folder) as (process, pipe):
        told = told_by(process, pipe, 300)
    assert [(name, found) for name, found, _, _ in told] == [(name, ROWS) for name in TASKS]
    assert {limit for *_, limit in told} == set(duckdb.connect().execute(LIMIT).fetchone() or ())
    if kind == "sql":
        assert (folder / "store.duckdb").stat().st_size > FILE_BYTES * 2 // 3
    # An import of so little takes more for its row groups than for what DuckDB keeps.
    added = {name: most // 2**20 for name, _, most, _ in told if name != "import_jsonl"}
    assert added == {name: most for name, most in added.items() if most <= MOST // 2**20}


def test_an_import_fills_every_row_group(folder: Path) -> None:
    path = folder / "groups.duckdb"
    store = SQLStorage(f"duckdb:///{path}")
    assert store.import_jsonl(folder / "in.jsonl") == ROWS
    with duckdb.connect(str(path)) as connection:
        counted = connection.execute(
            "SELECT sum(count) FROM pragma_storage_info('conversations')"
            " WHERE column_name = 'timestamp' AND segment_type <> 'VALIDITY'"
            " GROUP BY row_group_id ORDER BY row_group_id"
        ).fetchall()
    assert [rows for [rows] in counted] == [2048] * (ROWS // 2048) + [ROWS % 2048]
