"""Both storages: rows for training in Parquet are those in JSON lines, and come back."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from afterimage.storage import InvalidQueryError, SQLStorage, StorageError
from tests.conformance.files.test_formats import ROWS, TOOLS, stream
from tests.formats.examples import same

TALK = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Yo"}]


def imported(storage: Any, rows: list[dict[str, Any]], name: str = "messages") -> None:
    storage.import_jsonl(stream(rows), format=name)


def exported(storage: Any, path: Path, **options: Any) -> pa.Table:
    count = storage.export_parquet(path, **options)
    table = pq.read_table(path)
    assert len(table) == count
    return table


class TestRows:
    @pytest.mark.parametrize("name", ROWS)
    def test_come_back(self, storage: Any, tmp_path: Path, name: str) -> None:
        imported(storage, ROWS[name], name)
        options: dict[str, Any] = {"format": name, "columns": ["metadata.*"]}
        exported(storage, tmp_path / "train.parquet", **options)
        back = SQLStorage("duckdb:///:memory:")
        assert back.import_parquet(tmp_path / "train.parquet", format=name) == len(ROWS[name])
        file = io.BytesIO()
        back.export_jsonl(file, **options)
        assert same([*map(json.loads, file.getvalue().splitlines())]) == same(ROWS[name])

    @pytest.mark.parametrize("name", ["openai", "sharegpt", "alpaca", "llama_factory", "oumi"])
    def test_are_those_of_json_lines(self, storage: Any, tmp_path: Path, name: str) -> None:
        rows = [{"messages": TALK, "n": n} for n in range(3)]
        imported(storage, [*rows, {"messages": TALK[:1]}])
        file = io.BytesIO()
        options = {"format": name, "columns": ["metadata.n"], "trim": True}
        count = storage.export_jsonl(file, **options)
        table = exported(storage, tmp_path / "train.parquet", **options)
        assert table.to_pylist() == [*map(json.loads, file.getvalue().splitlines())]
        again = storage.export_parquet(tmp_path / "again.parquet", **options)
        assert (again, again.reasons) == (count, count.reasons)
        assert again.omitted == count.omitted

    def test_raw_is_the_whole_record(self, storage: Any, tmp_path: Path) -> None:
        imported(storage, ROWS["messages"])
        exported(storage, tmp_path / "raw.parquet", format="raw")
        back = SQLStorage("duckdb:///:memory:")
        back.import_parquet(tmp_path / "raw.parquet")
        assert back.load_conversations() == storage.load_conversations()


class TestColumns:
    def test_messages_and_calls_are_structs(self, storage: Any, tmp_path: Path) -> None:
        call = {"id": "c", "type": "function", "function": {"name": "f", "arguments": '{"a":1}'}}
        said = {"role": "assistant", "content": None, "tool_calls": [call]}
        imported(storage, [{"messages": [*TALK, said], "tools": TOOLS}, {"messages": TALK}])
        table = exported(storage, tmp_path / "train.parquet", format="messages")
        text = pa.string()
        function = pa.struct([("name", text), ("arguments", text)])
        calls = pa.list_(pa.struct([("id", text), ("type", text), ("function", function)]))
        message = pa.struct([("role", text), ("content", text), ("tool_calls", calls)])
        assert table.schema.field("messages").type == pa.list_(message)
        assert [json.loads(table["tools"][0].as_py()), table["tools"][1].as_py()] == [TOOLS, None]

    def test_a_field_that_first_appears_late_is_kept(self, storage: Any, tmp_path: Path) -> None:
        rows: list[dict[str, Any]] = [{"messages": TALK, "n": 1} for _ in range(2500)]
        late = [*TALK[:1], {**TALK[1], "weight": 0.5}]
        rows.append({"messages": late, "n": 1.5, "late": ["x"]})
        imported(storage, rows)
        table = exported(
            storage, tmp_path / "train.parquet", format="messages", columns=["metadata.*"]
        )
        assert same(table.to_pylist()) == rows
        assert table.schema.field("n").type == pa.float64()
        assert table.schema.field("late").type == pa.list_(pa.string())

    def test_values_of_several_types_are_json(self, storage: Any, tmp_path: Path) -> None:
        values: list[Any] = [1, "a", None, True, 2**70, {"b": [1.0, "\u2028"]}, [1, "x"], {}]
        parts: list[Any] = [
            {"type": "text", "text": "Hi"},
            {"type": "image_url", "image_url": {"url": "u"}},
        ]
        said = [{"role": "user", "content": parts}, TALK[1]]
        imported(storage, [{"messages": said, "v": value} for value in values])
        table = exported(
            storage, tmp_path / "train.parquet", format="messages", columns=["metadata.v"]
        )
        found = [value if value is None else json.loads(value) for value in table["v"].to_pylist()]
        assert found == values
        first = table["messages"][0].as_py()
        assert [json.loads(message["content"]) for message in first] == [parts, "Yo"]
        back = SQLStorage("duckdb:///:memory:")
        back.import_arrow(table, format="messages")
        [*loaded] = back.load_conversations()
        assert [talk.metadata.get("v") for talk in loaded] == values
        assert loaded[0].model_dump()["conversations"][0]["content"] == parts

    def test_too_many_different_keys_are_refused(self, storage: Any, tmp_path: Path) -> None:
        imported(storage, [{"messages": TALK, **{f"k{n}": n for n in range(2001)}}])
        with pytest.raises(InvalidQueryError, match="different keys"):
            storage.export_parquet(
                tmp_path / "train.parquet", format="messages", columns=["metadata.*"]
            )
        assert [*tmp_path.glob("*train*")] == []

    def test_no_rows_are_a_file(self, storage: Any, tmp_path: Path) -> None:
        assert len(exported(storage, tmp_path / "train.parquet", format="messages")) == 0


class TestOptions:
    def test_what_has_no_place_is_an_error(self, storage: Any, tmp_path: Path) -> None:
        imported(storage, ROWS["messages"])
        with pytest.raises(StorageError, match="lossy=True"):
            storage.export_parquet(tmp_path / "train.parquet", format="alpaca")
        assert [*tmp_path.glob("*train*")] == []
        assert storage.export_parquet(tmp_path / "train.parquet", format="alpaca", lossy=True) == 2

    @pytest.mark.parametrize(
        "options",
        [
            {"format": "chatml"},
            {"system_prompt": "x"},
            {"lossy": True},
            {"format": "raw", "trim": True},
            {"format": "messages", "partition_by": ["metadata.n"]},
            {"format": "messages", "compression": "zip"},
            {"format": "messages", "kind": "documents"},
        ],
    )
    def test_wrong_options(self, storage: Any, tmp_path: Path, options: Any) -> None:
        imported(storage, ROWS["messages"])
        with pytest.raises(InvalidQueryError):
            storage.export_parquet(tmp_path / "train.parquet", **options)
        assert [*tmp_path.glob("*train*")] == []

    def test_the_own_file_is_refused(self, storage: Any) -> None:
        imported(storage, ROWS["messages"])
        for path in storage._backend.files():
            with pytest.raises(InvalidQueryError):
                storage.export_parquet(path, format="messages")
