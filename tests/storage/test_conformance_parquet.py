"""Both storages: other libraries read the Parquet exports, as one file or as Hive folders."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import duckdb
import pyarrow.dataset
import pyarrow.parquet
import pytest

from afterimage.storage import StorageError
from tests.storage.plain_python import same, select
from tests.storage.records import (
    ALL_SORTS,
    conversation,
    conversations,
)


class TestParquet:
    def test_pyarrow_reads_it(self, filled: Any, tmp_path: Path) -> None:
        path = tmp_path / "out.parquet"
        assert filled.export_parquet(path) == 30
        table = pyarrow.parquet.read_table(path)
        assert table.schema.names == filled.scan_conversations().schema.names
        assert table.to_pylist() == filled.scan_conversations().read_all().to_pylist()

    def test_pandas_reads_it(self, filled: Any, tmp_path: Path) -> None:
        pandas = pytest.importorskip("pandas")
        filled.export_parquet(tmp_path / "out.parquet")
        frame = pandas.read_parquet(tmp_path / "out.parquet")
        assert [messages[0]["content"] for messages in frame["conversations"]] == [
            str(n) for n in range(30)
        ]

    def test_polars_reads_it(self, filled: Any, tmp_path: Path) -> None:
        polars = pytest.importorskip("polars")
        filled.export_parquet(tmp_path / "out.parquet")
        frame = polars.read_parquet(tmp_path / "out.parquet")
        first = frame["conversations"].list.first().struct.field("content")
        assert first.to_list() == [str(n) for n in range(30)]

    def test_duckdb_reads_it(self, filled: Any, tmp_path: Path) -> None:
        path = tmp_path / "it's.parquet"
        filled.export_parquet(path)
        with duckdb.connect() as connection:
            rows = connection.execute(
                "SELECT conversations[1].content, (metadata::JSON->>'n')::INT FROM read_parquet(?)",
                [str(path)],
            ).fetchall()
        assert rows == [(str(n), n) for n in range(30)]

    def test_values_are_exact(self, storage: Any, tmp_path: Path) -> None:
        storage.save_conversations(ALL_SORTS)
        storage.export_parquet(tmp_path / "out.parquet")
        rows = pyarrow.parquet.read_table(tmp_path / "out.parquet").to_pylist()
        expected = storage.scan_conversations().read_all().to_pylist()
        assert same(rows, expected)
        metadata = [json.loads(row["metadata"]) for row in rows]
        assert same(metadata, [record.metadata for record in storage.load_conversations()])

    def test_documents(self, filled: Any, tmp_path: Path) -> None:
        assert filled.export_parquet(tmp_path / "documents.parquet", kind="documents") == 10
        table = pyarrow.parquet.read_table(tmp_path / "documents.parquet")
        assert table.to_pylist() == filled.scan_documents().read_all().to_pylist()

    def test_columns_filters_order_and_slice(self, filled: Any, tmp_path: Path) -> None:
        arguments: dict[str, Any] = {
            "filters": {"metadata.domain": "B"},
            "order_by": [("metadata.n", "desc")],
            "limit": 4,
            "offset": 2,
        }
        path, columns = tmp_path / "some.parquet", ["metadata.n", "persona"]
        assert filled.export_parquet(path, columns=columns, **arguments) == 4
        expected = select(filled.load_conversations(), **arguments)
        assert pyarrow.parquet.read_table(path).to_pydict() == {
            "metadata.n": [str(record.metadata["n"]) for record in expected],
            "persona": [None] * 4,
        }

    def test_an_export_without_records_is_an_empty_table(
        self, storage: Any, tmp_path: Path
    ) -> None:
        assert storage.export_parquet(tmp_path / "none.parquet") == 0
        table = pyarrow.parquet.read_table(tmp_path / "none.parquet")
        assert table.num_rows == 0
        assert table.schema.names == storage.scan_conversations().schema.names

    def test_row_groups_are_sized_by_bytes(self, storage: Any, tmp_path: Path) -> None:
        text = "".join(f"{n:07}" for n in range(3000))  # 21 kB with little repetition
        storage.save_conversations([conversation(f"{n} {text[n:]}") for n in range(200)])
        path = tmp_path / "out.parquet"
        storage.export_parquet(path, row_group_bytes=500_000, compression="none")
        metadata = pyarrow.parquet.read_metadata(path)
        sizes = [metadata.row_group(n).total_byte_size for n in range(metadata.num_row_groups)]
        assert len(sizes) > 4
        assert max(sizes) < 2_000_000
        assert pyarrow.parquet.read_table(path).num_rows == 200

    @pytest.mark.parametrize("compression", ["zstd", "snappy"])
    def test_compression(self, filled: Any, tmp_path: Path, compression: str) -> None:
        path = tmp_path / "out.parquet"
        filled.export_parquet(path, compression=compression)
        column = pyarrow.parquet.read_metadata(path).row_group(0).column(0)
        assert column.compression == compression.upper()


class TestPartitionedParquet:
    @pytest.fixture
    def folder(self, storage: Any, tmp_path: Path) -> Path:
        domains = ["A", "B", None, "a b/c=%"]
        storage.save_conversations(
            [
                *conversations(*({"n": n, "domain": domains[n % 4]} for n in range(20))),
                conversation("absent", {"n": 20}),
            ]
        )
        folder = tmp_path / "by domain"
        assert storage.export_parquet(folder, partition_by=["metadata.domain"]) == 21
        return folder

    def test_folders_are_those_of_hive(self, folder: Path) -> None:
        names = [path.name for path in folder.iterdir()]
        assert all(path.is_dir() for path in folder.iterdir())
        assert len(names) == 4
        assert {"metadata.domain=A", "metadata.domain=B"} <= set(names)
        assert {path.suffix for path in folder.rglob("*") if path.is_file()} == {".parquet"}

    def test_pyarrow_reads_them_back(self, folder: Path) -> None:
        dataset = pyarrow.dataset.dataset(folder, partitioning="hive")
        rows = dataset.to_table(columns=["metadata", "metadata.domain"]).to_pylist()
        assert len(rows) == 21
        for row in rows:
            assert json.loads(row["metadata"]).get("domain") == row["metadata.domain"]

    def test_duckdb_reads_them_back(self, folder: Path) -> None:
        with duckdb.connect() as connection:
            rows = connection.execute(
                'SELECT "metadata.domain", count(*) FROM read_parquet(?, hive_partitioning=true) '
                "GROUP BY ALL ORDER BY ALL NULLS LAST",
                [f"{folder}/**/*.parquet"],
            ).fetchall()
        assert rows == [("A", 5), ("B", 5), ("a b/c=%", 5), (None, 6)]

    def test_a_second_export_is_refused_or_replaces_but_never_mixes(
        self, storage: Any, folder: Path
    ) -> None:

        before = {path: path.read_bytes() for path in folder.rglob("*.parquet")}
        try:
            storage.export_parquet(folder, partition_by=["metadata.domain"], limit=1)
        except StorageError:
            assert {path: path.read_bytes() for path in folder.rglob("*.parquet")} == before
        else:
            assert pyarrow.dataset.dataset(folder, partitioning="hive").count_rows() == 1
