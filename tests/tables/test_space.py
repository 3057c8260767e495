"""A write that fails leaves a database file about as large as it was, and no temporary file."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from afterimage.storage import CorruptRecordError, JSONLStorage, SQLStorage
from tests.support.records import conversations


def lines(count: int) -> Iterator[str]:
    rng = random.Random(1)
    for _ in range(count):
        content = [{"role": "user", "content": rng.randbytes(1000).hex()}]
        yield json.dumps({"conversations": content, "metadata": {}}) + "\n"


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """A file whose last line is corrupt."""
    path = tmp_path / "source.jsonl"
    path.write_text("".join(lines(12_000)) + "broken\n")
    return path


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["sql", "jsonl"])
def test_a_failed_import_gives_its_space_back(tmp_path: Path, source: Path, kind: str) -> None:
    store: SQLStorage | JSONLStorage
    if kind == "sql":
        path = tmp_path / "a.duckdb"
        store = SQLStorage(path)
    else:
        path = tmp_path / "a.jsonl"
        store = JSONLStorage(path, tmp_path / "d.jsonl")
    store.save_conversations(conversations({"n": 1}))
    size, files = path.stat().st_size, sorted(tmp_path.iterdir())
    for _ in range(2):
        with pytest.raises(CorruptRecordError):
            store.import_jsonl(source)
        assert path.stat().st_size <= size + 2**20
        assert sorted(tmp_path.iterdir()) == files
    store.save_conversations(conversations({"n": 2}))
    assert [record.metadata["n"] for record in store.load_conversations()] == [1, 2]
    assert store.verify().ok


def test_space_that_another_reader_keeps_is_given_back_later(tmp_path: Path, source: Path) -> None:
    store = SQLStorage(tmp_path / "a.duckdb")
    store.save_conversations(conversations({"n": 1}))
    with store.engine.connect() as connection:
        connection.exec_driver_sql("SELECT count(*) FROM conversations").all()
        with pytest.raises(CorruptRecordError):
            store.import_jsonl(source)
    assert store.verify().ok
    assert store.count_conversations() == 1
