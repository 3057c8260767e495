"""Both storages: columns of values inside metadata have the types that a read declares."""

from __future__ import annotations

import datetime as dt
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from afterimage.storage import Document, InvalidQueryError
from tests.support.records import conversation


def save(storage: Any, *values: Any) -> None:
    storage.save_conversations([conversation(metadata={"domain": value}) for value in values])


def scanned(storage: Any, kind: Any, **options: Any) -> pa.Table:
    name = "metadata.domain"  # one of the storages has a column for this key
    return storage.scan_conversations([name], types={name: kind}, **options).read_all()


INVALID: list[tuple[Any, str]] = [
    ({"metadata.m": "int64"}, r"'metadata\.m', which is not one of the columns"),
    ({1: "int64"}, "which is not one of the columns"),
    ({"persona": "int64"}, "'persona', which always is large_string"),
    ({"final_score": "int64"}, "'final_score', which always is double"),
    ({"metadata": "string"}, "'metadata', which always is large_string"),
    ({"metadata.n": "integer"}, "unknown type for 'metadata.n': 'integer'. Use bool, int64"),
    ({"metadata.n": int}, "unknown type for 'metadata.n'"),
    ({"metadata.n": None}, "unknown type for 'metadata.n': None"),
    ({"metadata.n": pa.list_(pa.int64())}, "unknown type for 'metadata.n'"),
    ("int64", "types must be a dict"),
    (["int64"], "types must be a dict"),
]


class TestValues:
    def test_values_are_of_the_declared_types(self, storage: Any) -> None:
        at = "2026-02-01T12:00:00+02:00"
        metadata = {
            "domain": "a\u00e9\n",
            "n": 2**53 + 1,
            "x": 1,
            "yes": True,
            "at": at,
            "of": None,
        }
        storage.save_conversations([conversation(metadata=metadata), conversation()])
        types = {
            "metadata.domain": "string",
            "metadata.n": "int64",
            "metadata.x": pa.float64(),
            "metadata.yes": "bool",
            "metadata.at": "timestamp[us, UTC]",
            "metadata.of": "int8",
        }
        table = storage.scan_conversations([*types], types=types).read_all()
        names = ["string", "int64", "double", "bool", "timestamp[us, tz=UTC]", "int8"]
        assert [*map(str, table.schema.types)] == names
        expected = {**metadata, "x": 1.0, "at": dt.datetime(2026, 2, 1, 10, tzinfo=dt.UTC)}
        first, second = table.to_pylist()
        assert first == {f"metadata.{name}": value for name, value in expected.items()}
        assert second == dict.fromkeys(types)

    def test_the_schema_is_the_declared_one_without_records(self, storage: Any) -> None:
        assert scanned(storage, "int64").schema.types == [pa.int64()]

    def test_other_columns_filters_order_and_slices_are_as_without_types(
        self, storage: Any
    ) -> None:
        storage.save_conversations(
            [conversation(str(n), {"a": {"n": n}, "m": n}, persona=f"p{n}") for n in range(6)]
        )
        columns = ["persona", "metadata.a.n", "metadata.m", "message_count"]
        options = {"filters": [("metadata.m", ">", 1)], "order_by": "-metadata.m", "limit": 2}
        found = storage.scan_conversations(columns, types={"metadata.a.n": "int8"}, **options)
        rows = found.read_all().to_pylist()
        plain = storage.scan_conversations(columns, **options).read_all().to_pylist()
        assert [row["metadata.a.n"] for row in rows] == [5, 4]
        assert [{**row, "metadata.a.n": str(row["metadata.a.n"])} for row in rows] == plain

    def test_a_whole_column_is_read_beside_it(self, storage: Any) -> None:
        save(storage, 1, 2)
        columns = ["conversations", "metadata", "metadata.domain"]
        rows = storage.scan_conversations(columns, types={"metadata.domain": "int64"}).read_all()
        assert rows.column("metadata.domain").to_pylist() == [1, 2]
        assert rows.column("metadata").to_pylist() == ['{"domain":1}', '{"domain":2}']

    def test_documents(self, storage: Any) -> None:
        storage.save_documents([Document(metadata={"pages": 3}), Document()])
        scan = storage.scan_documents(["metadata.pages"], types={"metadata.pages": "int32"})
        assert scan.read_all().column(0).to_pylist() == [3, None]


class TestParquet:
    def test_the_file_has_the_declared_types(self, storage: Any, tmp_path: Path) -> None:
        save(storage, 1, None, 3)
        path = tmp_path / "typed.parquet"
        columns, types = ["metadata.domain"], {"metadata.domain": "int64"}
        assert storage.export_parquet(path, columns=columns, types=types) == 3
        table = pq.read_table(path)
        assert table.schema.types == [pa.int64()]
        assert table.column(0).to_pylist() == [1, None, 3]

    def test_so_have_the_parts_of_a_split_and_the_files_of_folders(
        self, storage: Any, tmp_path: Path
    ) -> None:
        save(storage, *range(4))
        columns, types = ["metadata.domain", "persona"], {"metadata.domain": "int64"}
        split = {"a": 0.5, "b": 0.5}
        storage.export_parquet(tmp_path / "split", columns=columns, types=types, split=split)
        for path in (tmp_path / "split").iterdir():
            assert pq.read_schema(path).field("metadata.domain").type == pa.int64()
        storage.export_parquet(
            tmp_path / "folders", columns=columns, types=types, partition_by=["metadata.domain"]
        )
        assert {path.name for path in (tmp_path / "folders").iterdir()} == {
            f"metadata.domain={n}" for n in range(4)
        }

    def test_no_file_is_written_if_a_value_does_not_fit(self, storage: Any, tmp_path: Path) -> None:
        save(storage, *range(300), "x")
        path = tmp_path / "typed.parquet"
        path.write_bytes(b"before")
        with pytest.raises(InvalidQueryError, match=r"record 300 of the result"):
            storage.export_parquet(
                path, columns=["metadata.domain"], types={"metadata.domain": "int64"}
            )
        assert [each.read_bytes() for each in tmp_path.glob("typed*")] == [b"before"]

    def test_a_format_has_its_own_types(self, storage: Any, tmp_path: Path) -> None:
        with pytest.raises(InvalidQueryError, match="types cannot be combined with a format"):
            storage.export_parquet(tmp_path / "x.parquet", format="messages", types={})


class TestErrors:
    def test_a_value_that_does_not_fit_is_named(self, storage: Any) -> None:
        save(storage, None, "1")
        with pytest.raises(InvalidQueryError) as error:
            scanned(storage, "int64")
        assert str(error.value) == (
            'record 1 of the result: metadata.domain is "1", which is not int64. '
            "Declare another type, or leave the record out by filters."
        )
        assert scanned(storage, "int64", limit=1).num_rows == 1  # its record is not read

    def test_types_are_checked_before_anything_is_read(self, storage: Any, tmp_path: Path) -> None:
        target = tmp_path / "x.parquet"
        for types, message in INVALID:
            for call in (
                storage.scan_conversations,
                lambda *a, **o: storage.export_parquet(target, columns=a[0], **o),
            ):
                with pytest.raises(InvalidQueryError, match=message):
                    call(["metadata.n", "persona", "final_score", "metadata"], types=types)
        assert not target.exists()
        with pytest.raises(InvalidQueryError, match="Add it to columns"):
            storage.scan_conversations(types={"metadata.n": "int64"})
