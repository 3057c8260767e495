"""`open_storage` gives the storage that a file needs, and creates nothing by itself."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest

from afterimage.storage import (
    Document,
    JSONLStorage,
    MissingFileError,
    SQLStorage,
    StorageError,
    UnsupportedFileError,
    open_storage,
)
from tests.support.messages import assert_short
from tests.support.records import conversations


@pytest.mark.parametrize(
    ("name", "expected"),
    [("a.duckdb", SQLStorage), ("a.db", SQLStorage), ("a.jsonl", JSONLStorage)],
)
def test_a_new_file_by_its_ending_and_an_old_one_by_its_content(
    tmp_path: Path, name: str, expected: type
) -> None:
    with pytest.raises(MissingFileError):
        open_storage(tmp_path / name)
    store = open_storage(str(tmp_path / name), create=True, lock_timeout=3)
    assert isinstance(store, expected)
    assert store.lock_timeout == 3
    assert list(tmp_path.iterdir()) == []
    store.save_conversations(conversations({}))
    store.save_documents([Document(id="a")])
    (tmp_path / name).rename(tmp_path / "b")
    if expected is JSONLStorage:
        (tmp_path / "a.documents.jsonl").rename(tmp_path / "b.documents.jsonl")
    again = open_storage(tmp_path / "b")
    assert isinstance(again, expected)
    assert (again.count_conversations(), again.count_documents()) == (1, 1)


def test_urls_are_those_of_databases(tmp_path: Path) -> None:
    assert open_storage(":memory:").count_conversations() == 0
    assert open_storage("duckdb:///:memory:").count_conversations() == 0
    with pytest.raises(StorageError):
        open_storage(f"duckdb:///{tmp_path / 'a.duckdb'}")
    with pytest.raises(StorageError):
        open_storage("sqlite:///a.db")


@pytest.mark.parametrize("name", ["a.jsonl.gz", "notes.txt", "sub", "new.txt"])
def test_what_cannot_be_a_storage_is_a_clear_error(tmp_path: Path, name: str) -> None:
    (tmp_path / "a.jsonl.gz").write_bytes(gzip.compress(b'{"conversations":[]}\n'))
    (tmp_path / "notes.txt").write_text("notes\n")
    (tmp_path / "sub").mkdir()
    with pytest.raises(UnsupportedFileError) as caught:
        open_storage(tmp_path / name, create=True)
    assert_short(caught.value, name)
