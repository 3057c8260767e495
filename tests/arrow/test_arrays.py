"""Reads do not import pandas, which takes longer than most of them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import duckdb
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from afterimage.storage import JSONLStorage, SQLStorage
from afterimage.storage.arrow.arrays import binaries, booleans, integers
from tests.support.records import conversations

pytest.importorskip("pandas", reason="pandas is not installed")

READ = """
import sys
from afterimage.storage import JSONLStorage, SQLStorage
store = SQLStorage(f"duckdb:///{sys.argv[1]}") if sys.argv[1].endswith("duckdb") else JSONLStorage(
    sys.argv[1], "documents.jsonl"
)
where = [("metadata.n", ">", 1)]
assert len(store.load_conversations(2, 1, where, [("metadata.n", -1)])) == 2
assert len(store.load_conversations(2, 1, where)) == 2
assert len(store.load_conversations()) == 9
assert store.count_conversations(where) == 7
assert store.scan_conversations(["metadata.n", "final_score"], where).read_all().num_rows == 7
assert store.stats().conversations == 9
assert store.verify().ok
assert len([*store.iter_conversations()]) == 9
if sys.argv[1].endswith("duckdb"):
    assert store.scan_conversations().read_all().num_rows == 9
    assert store.export_parquet("a.parquet") == 9
    assert store.export_parquet("a", partition_by=["metadata.n"]) == 9
    assert store.export_jsonl("a.jsonl") == 9
assert store.export_jsonl("b.jsonl", format="messages") == 9
assert "pandas" not in sys.modules
"""


@pytest.mark.process
@pytest.mark.skipif(duckdb.__version__.startswith("1."), reason="DuckDB 1 imports pandas itself")
@pytest.mark.parametrize("name", ["talks.duckdb", "talks.jsonl"])
def test_no_read_imports_pandas(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    is_sql = name.endswith("duckdb")
    store = SQLStorage(f"duckdb:///{path}") if is_sql else JSONLStorage(path, tmp_path / "d.jsonl")
    store.save_conversations(conversations(*({"n": n} for n in range(9))))
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        [sys.executable, "-c", READ, name],
        check=False,
        cwd=tmp_path,
        env=environment,
        capture_output=True,
    )
    assert done.returncode == 0, done.stderr.decode()


@given(
    numbers=st.lists(st.integers(-(2**63), 2**63 - 1)),
    texts=st.lists(st.binary()),
    truths=st.lists(st.booleans()),
)
def test_arrays_have_the_values(numbers: list[int], texts: list[bytes], truths: list[bool]) -> None:
    for array, values, kind in (
        (integers(numbers), numbers, pa.int64()),
        (binaries(texts), texts, pa.large_binary()),
        (booleans(truths), truths, pa.bool_()),
    ):
        array.validate(full=True)
        assert array.equals(pa.array(values, kind))
