"""Lines nested above the limit of saves: reads return what can be parsed, nothing stores it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from afterimage.storage import CorruptRecordError, JSONLStorage, SQLStorage, verify_jsonl

SHAPES = {
    "metadata": '{"conversations":[],"metadata":{"a":%s}}',
    "field": '{"conversations":[],"own":{"a":%s}}',
    "message": '{"conversations":[{"role":"user","content":"x","own":%s}]}',
}


def line(shape: str, brackets: int) -> str:
    return SHAPES[shape] % ("[" * brackets + "]" * brackets) + "\n"


@pytest.mark.parametrize("shape", SHAPES)
def test_every_read_returns_what_can_be_parsed(tmp_path: Path, shape: str) -> None:
    path, out = tmp_path / "c.jsonl", tmp_path / "out.jsonl"
    path.write_text(line(shape, 197))
    store = JSONLStorage(path, tmp_path / "d.jsonl")
    [record] = store.load_conversations()
    assert store.load_conversations(filters={"persona": None}) == [record]
    assert list(store.iter_conversations()) == [record]
    assert store.count_conversations() == store.scan_conversations().read_all().num_rows == 1
    assert store.export_parquet(tmp_path / "out.parquet") == 1
    assert store.export_jsonl(out) == 1
    assert JSONLStorage(out, tmp_path / "d.jsonl").load_conversations() == [record]


@pytest.mark.parametrize("shape", SHAPES)
def test_imports_reject_what_saves_reject(tmp_path: Path, shape: str) -> None:
    path = tmp_path / "c.jsonl"
    path.write_text(line(shape, 197))
    assert not verify_jsonl(path).ok
    storages: list[Any] = [
        JSONLStorage(tmp_path / "other.jsonl", tmp_path / "d.jsonl"),
        SQLStorage("duckdb:///:memory:"),
    ]
    for storage in storages:
        with pytest.raises(CorruptRecordError, match="line 1"):
            storage.import_jsonl(path)
        with pytest.warns(match="1 corrupt record"):
            assert storage.import_jsonl(path, on_error="skip") == 0


@pytest.mark.parametrize("shape", SHAPES)
def test_what_cannot_be_parsed_is_corrupt(tmp_path: Path, shape: str) -> None:
    path = tmp_path / "c.jsonl"
    path.write_text(line(shape, 260))
    store = JSONLStorage(path, tmp_path / "d.jsonl")
    for read in (
        store.load_conversations,
        store.scan_conversations().read_all,
        lambda: store.export_jsonl(tmp_path / "out.jsonl"),
        lambda: store.load_conversations(filters={"persona": None}),
    ):
        with pytest.raises(CorruptRecordError, match="line 1"):
            read()
    # The documented limit: counts, and scans of other columns, do not parse nested values.
    assert store.count_conversations() == 1
    assert store.scan_conversations(["persona"]).read_all().num_rows == 1
