"""Imports and exports tell how far they are: in the end, of every record once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.storage.records import Note, conversations


@pytest.fixture
def filled(storage: Any) -> Any:
    storage.save_conversations(conversations(*({"n": n} for n in range(2501))))
    storage.save_conversations([Note(title="x")])
    return storage


def test_an_import_and_an_export_of_json_lines(
    filled: Any, make_storage: Any, tmp_path: Path
) -> None:
    told: list[int] = []
    path = tmp_path / "all.jsonl"
    filled.export_jsonl(path, filters=[("metadata.n", "<", 2401)], progress=told.append)
    assert sum(told) == 2401
    with path.open("a") as file:
        file.write('{"title": "x"}\n')
    told.clear()
    assert make_storage().import_jsonl(path, progress=told.append) == 2402
    assert sum(told) == 2402


def test_an_export_to_parquet(filled: Any, tmp_path: Path) -> None:
    told: list[int] = []
    filled.export_parquet(tmp_path / "all.parquet", progress=told.append)
    assert sum(told) == 2501
