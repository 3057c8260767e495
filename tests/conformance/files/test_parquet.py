"""Both storages: other libraries read the Parquet exports, as one file or as Hive folders."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import duckdb
import pyarrow.dataset
import pyarrow.parquet
import pytest

from afterimage.storage import Document, InvalidQueryError, StorageError
from tests.support.plain_python import same, select
from tests.support.records import (
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

    def test_rows_keep_their_order_in_the_one_file_of_a_partition(self, folder: Path) -> None:
        assert {path.name for path in folder.rglob("*.parquet")} == {"part-0.parquet"}
        for path in folder.rglob("*.parquet"):
            rows = pyarrow.parquet.ParquetFile(path).read().column("metadata").to_pylist()
            found = [json.loads(row)["n"] for row in rows]
            assert found == sorted(found)

    def test_documents_by_two_fields(self, storage: Any, tmp_path: Path) -> None:
        storage.save_documents(
            [Document(text=str(n), metadata={"a": n % 2, "b": f"b{n % 3}"}) for n in range(12)]
        )
        by = ["metadata.a", "metadata.b"]
        assert storage.export_parquet(tmp_path / "out", kind="documents", partition_by=by) == 12
        found = {
            path.parent.relative_to(tmp_path / "out").as_posix(): pyarrow.parquet.ParquetFile(path)
            .read()
            .column("text")
            .to_pylist()
            for path in (tmp_path / "out").rglob("*.parquet")
        }
        assert found == {
            f"metadata.a={n % 2}/metadata.b=b{n % 3}": [str(n), str(n + 6)] for n in range(6)
        }

    def test_hostile_values_are_read_back(self, storage: Any, tmp_path: Path) -> None:
        values = [
            "../up",
            "/",
            ".",
            "..",
            "a=b",
            "%2F",
            "é😀",
            'it\'s "x"',
            "a\nb",
            "\x00",
            "*?[x]",
        ]
        storage.save_conversations(conversations(*({"v": value} for value in values)))
        folder = tmp_path / "out"
        before = list(tmp_path.iterdir())
        assert storage.export_parquet(folder, partition_by=["metadata.v"]) == len(values)
        assert sorted(tmp_path.iterdir()) == sorted([*before, folder])
        assert len(list(folder.iterdir())) == len(values)
        dataset = pyarrow.dataset.dataset(folder, partitioning="hive")
        rows = dataset.to_table(columns=["metadata", "metadata.v"]).to_pylist()
        assert sorted(row["metadata.v"] for row in rows) == sorted(values)
        for row in rows:
            assert json.loads(row["metadata"])["v"] == row["metadata.v"]

    @pytest.mark.parametrize("value", ["long " * 60, "é" * 45])
    def test_a_value_too_long_for_a_folder_is_named_and_nothing_is_left(
        self, storage: Any, tmp_path: Path, value: str
    ) -> None:
        storage.save_conversations(
            [*conversations(*({"v": str(n)} for n in range(30))), conversation("x", {"v": value})]
        )
        before = sorted(tmp_path.iterdir())
        with pytest.raises(InvalidQueryError, match=r"metadata\.v") as caught:
            storage.export_parquet(tmp_path / "out", partition_by=["metadata.v"])
        assert value[:20] in str(caught.value)
        assert "255" in str(caught.value)
        assert len(str(caught.value)) < 400
        assert sorted(tmp_path.iterdir()) == before
        others = [("metadata.v", "in", [str(n) for n in range(30)])]
        out = tmp_path / "out"
        assert storage.export_parquet(out, filters=others, partition_by=["metadata.v"]) == 30

    @pytest.mark.parametrize("value", [1, 1.5, True, [1], {"a": 1}])
    def test_a_string_with_the_text_of_another_value_is_refused_unless_a_column_keeps_it(
        self, storage: Any, tmp_path: Path, value: Any
    ) -> None:
        text = json.dumps(value, separators=(",", ":"))
        values = [value, value, "other é", None, text]
        storage.save_conversations(conversations(*({"v": each} for each in values)))
        by, columns = ["metadata.v"], ["conversations", "metadata.v"]
        with pytest.raises(InvalidQueryError, match=r"metadata\.v .*is a string in some records"):
            storage.export_parquet(tmp_path / "out", columns=columns, partition_by=by)
        assert not (tmp_path / "out").exists()
        assert storage.export_parquet(tmp_path / "all", partition_by=by) == 5
        few = storage.export_parquet(tmp_path / "few", columns=columns, partition_by=by, limit=4)
        assert few == 4
        folders = {unquote(path.name) for path in (tmp_path / "few").iterdir()}
        null = "__HIVE_DEFAULT_PARTITION__"
        assert folders == {f"metadata.v={each}" for each in (text, "other é", null)}

    @pytest.mark.parametrize("value", ["", "__HIVE_DEFAULT_PARTITION__"])
    @pytest.mark.parametrize("field", ["persona", "metadata.v"])
    def test_a_value_that_would_be_read_back_as_null_is_refused_unless_a_column_keeps_it(
        self, storage: Any, tmp_path: Path, value: str, field: str
    ) -> None:
        record = conversation("x", {"v": value})
        record.persona = value
        storage.save_conversations([conversation("y", {}), record])
        columns = ["conversations", field]
        with pytest.raises(InvalidQueryError, match=f"{field} .*{value!r}.* null"):
            storage.export_parquet(tmp_path / "out", columns=columns, partition_by=[field])
        assert not (tmp_path / "out").exists()
        by = ["metadata.v"]
        assert storage.export_parquet(tmp_path / "all", partition_by=by) == 2
        [path] = (tmp_path / "all").rglob("*.parquet")
        rows = pyarrow.parquet.ParquetFile(path).read()
        assert [json.loads(text) for text in rows["metadata"].to_pylist()] == [{}, {"v": value}]
