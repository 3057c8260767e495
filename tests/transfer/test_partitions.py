"""Exports into many partitions: bounded memory, few open files, the order kept, whole or not."""

from __future__ import annotations

import json
import os
import random
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow.dataset as ds
import pyarrow.parquet as pq
import pytest

from afterimage.storage import SQLStorage, StorageError
from tests.support.processes import KINDS, child, opened, told_by
from tests.support.records import conversation

resource = pytest.importorskip("resource", reason="limits processes as POSIX systems do")

RECORDS = 600_000 if "AFTERIMAGE_LARGE" in os.environ else 60_000
MOST = 500 * 2**20
"""Bytes of memory that the whole process may take."""

SEED = int(os.environ.get("AFTERIMAGE_SEED", "1"))


def store_records(folder: Path, records: int, partitions: int, characters: int) -> None:
    """Write both storages to `folder`, with the same records; every partition has at least one."""
    rng = random.Random(SEED)
    texts = [f"{rng.getrandbits(characters * 4):0{characters}x}" for _ in range(200)]
    with (folder / "talks.jsonl").open("w") as file:
        for n in range(records):
            part = n if n < partitions else rng.randrange(partitions)
            record = {
                "conversations": [{"role": "user", "content": rng.choice(texts)}],
                "metadata": {"n": n, "part": f"p{part}"},
            }
            file.write(json.dumps(record) + "\n")
    SQLStorage(f"duckdb:///{folder / 'store.duckdb'}").import_jsonl(folder / "talks.jsonl")


def expected(path: Path) -> dict[str, list[int]]:
    """The numbers of each partition's records, in the order of the file."""
    found: dict[str, list[int]] = {}
    with path.open() as file:
        for line in file:
            metadata = json.loads(line)["metadata"]
            found.setdefault(metadata["part"], []).append(metadata["n"])
    return found


def exported(folder: Path) -> dict[str, list[int]]:
    """The same from an export, which must have one file for each partition."""
    assert {path.name for path in folder.glob("*/*")} == {"part-0.parquet"}
    return {
        path.name.removeprefix("metadata.part="): [
            json.loads(text)["n"]
            for text in pq.ParquetFile(path / "part-0.parquet").read(["metadata"])[0].to_pylist()
        ]
        for path in folder.iterdir()
    }


def export(
    pipe: Any, kind: str, folder: Path, limits: dict[int, int], options: dict[str, Any]
) -> None:
    """Export within limits of the system; sends the rows or the error, and the peak of memory."""
    store = opened(kind, folder)
    for limit, most in limits.items():
        resource.setrlimit(limit, (most, resource.getrlimit(limit)[1]))
    try:
        pipe.send(store.export_parquet(folder / "out", partition_by=["metadata.part"], **options))
    except StorageError as error:
        pipe.send(str(error))
    status = Path("/proc/self/status")
    text = status.read_text() if status.exists() else "VmHWM: 0 kB"
    pipe.send(int(text.split("VmHWM:")[1].split()[0]) * 1024)


def export_in_a_child(
    kind: str, folder: Path, limits: dict[int, int] | None = None, **options: Any
) -> list[Any]:
    shutil.rmtree(folder / "out", ignore_errors=True)
    with child(export, kind, folder, limits or {}, options) as (process, pipe):
        return told_by(process, pipe, 600)


@pytest.fixture(scope="module")
def many(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """1,000 partitions of about twenty small records, together more than are sorted at a time."""
    folder = tmp_path_factory.mktemp("many")
    store_records(folder, 20_000, 1000, 2400)
    yield folder
    shutil.rmtree(folder)


@pytest.mark.slow
class TestManyPartitions:
    def test_few_files_are_open_and_the_order_is_kept(self, many: Path) -> None:
        found = export_in_a_child("sql", many, {resource.RLIMIT_NOFILE: 256})
        assert found[0] == 20_000
        assert exported(many / "out") == expected(many / "talks.jsonl")
        dataset = ds.dataset(many / "out", partitioning="hive")
        assert dataset.count_rows(filter=ds.field("metadata.part") == "p999") >= 1

    @pytest.mark.parametrize("kind", KINDS)
    def test_a_full_disk_is_an_error_and_leaves_nothing(self, many: Path, kind: str) -> None:
        others = ("out", "talks.jsonl.lock")
        before = sorted(path.name for path in many.iterdir() if path.name not in others)
        [error, _] = export_in_a_child(kind, many, {resource.RLIMIT_FSIZE: 1_000_000})
        assert str(many / "out") in error
        assert "cannot be written" in error
        after = sorted(path.name for path in many.iterdir() if path.name != "talks.jsonl.lock")
        assert after == before


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="asks Linux for the peak of memory")
def test_memory_does_not_grow_with_the_partitions(tmp_path: Path) -> None:
    store_records(tmp_path, RECORDS, 500, 2400)
    for kind in KINDS:
        rows, peak = export_in_a_child(kind, tmp_path, {resource.RLIMIT_NOFILE: 256})
        assert rows == RECORDS
        assert exported(tmp_path / "out") == expected(tmp_path / "talks.jsonl")
        assert peak <= MOST
    shutil.rmtree(tmp_path)


@pytest.mark.slow
class TestRowGroups:
    """Their size is `row_group_bytes`, whether the rows waited in memory or on disk."""

    @pytest.mark.parametrize("partitions", [3, 100])
    def test_are_sized_by_bytes(self, tmp_path: Path, partitions: int) -> None:
        store_records(tmp_path, 40_000, partitions, 2400)
        options: dict[str, Any] = {"row_group_bytes": 200_000, "compression": "none"}
        assert export_in_a_child("sql", tmp_path, **options)[0] == 40_000
        assert exported(tmp_path / "out") == expected(tmp_path / "talks.jsonl")
        for path in (tmp_path / "out").rglob("*.parquet"):
            found = pq.read_metadata(path)
            rows = [found.row_group(n).num_rows for n in range(found.num_row_groups)]
            assert set(rows[:-1]) <= set(range(75, 90))  # each of 2.4 kB
            assert rows[-1] < 90

    def test_of_one_byte_have_one_row(self, tmp_path: Path) -> None:
        store_records(tmp_path, 300, 40, 10)
        assert export_in_a_child("sql", tmp_path, row_group_bytes=1)[0] == 300
        assert exported(tmp_path / "out") == expected(tmp_path / "talks.jsonl")
        for path in (tmp_path / "out").rglob("*.parquet"):
            found = pq.read_metadata(path)
            assert found.num_row_groups == found.num_rows

    def test_of_records_of_very_different_sizes(self, tmp_path: Path) -> None:
        store: Any = opened("jsonl", tmp_path)
        rng = random.Random(SEED)
        for first in range(0, 1200, 100):
            store.save_conversations(
                [
                    conversation(
                        "x" * rng.choice([1, 1, 1, 10**6]),
                        {"n": n, "part": f"p{n % 40 if n % 7 else 0}"},
                    )
                    for n in range(first, first + 100)
                ]
            )
        assert export_in_a_child("jsonl", tmp_path)[0] == 1200
        assert exported(tmp_path / "out") == expected(tmp_path / "talks.jsonl")
