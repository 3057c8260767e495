"""Exports to URLs and imports from them, on the file system in memory of fsspec."""

from __future__ import annotations

import uuid
from typing import Any

import pytest

from afterimage.storage import (
    CorruptRecordError,
    InvalidQueryError,
    MissingFileError,
    StorageError,
    UnsupportedURLError,
)

fsspec: Any = pytest.importorskip("fsspec", reason="fsspec is in the extra `test`")


@pytest.fixture
def root() -> str:
    """The URL of a folder that is empty."""
    return f"memory://{uuid.uuid4().hex}"


def files(root: str) -> list[str]:
    found = memory().find(root.removeprefix("memory:/"))
    return sorted(path.rpartition("/")[2] for path in found)


def memory() -> Any:
    return fsspec.filesystem("memory")


def test_lines_come_back_from_a_url(filled: Any, make_storage: Any, root: str) -> None:
    talks, documents = f"{root}/talks.jsonl.gz", f"{root}/documents.jsonl"
    assert filled.export_jsonl(talks) == 30
    assert filled.export_jsonl(talks) == 30  # replaces the file
    assert filled.export_jsonl(documents, kind="documents") == 10
    other = make_storage()
    assert other.import_jsonl(talks) == 30
    assert other.import_jsonl([documents], kind="documents") == 10
    assert other.load_conversations() == filled.load_conversations()
    assert other.load_documents() == filled.load_documents()
    assert files(root) == ["documents.jsonl", "talks.jsonl.gz"]


def test_parquet_comes_back_from_a_url(filled: Any, make_storage: Any, root: str) -> None:
    assert filled.export_parquet(f"{root}/talks.parquet") == 30
    assert filled.export_html(f"{root}/look.html") == 30
    other = make_storage()
    assert other.import_parquet(f"{root}/talks.parquet") == 30
    assert other.load_conversations() == filled.load_conversations()
    assert files(root) == ["look.html", "talks.parquet"]


def test_a_folder_of_files_is_refused_before_anything_is_written(filled: Any, root: str) -> None:
    refused: list[Any] = [
        lambda: filled.export_jsonl(f"{root}/a", split={"train": 0.9, "test": 0.1}),
        lambda: filled.export_parquet(f"{root}/a", split={"train": 0.9, "test": 0.1}),
        lambda: filled.export_parquet(f"{root}/a", partition_by="metadata.domain"),
        lambda: filled.export_hub(f"{root}/a"),
    ]
    for call in refused:
        with pytest.raises(InvalidQueryError, match="local folder"):
            call()
    assert files(root) == []


def test_an_export_that_fails_leaves_no_file(filled: Any, root: str) -> None:
    with pytest.raises(InvalidQueryError):
        filled.export_parquet(f"{root}/a.parquet", compression="none at all")
    with pytest.raises(InvalidQueryError, match="does not name a file"):
        filled.export_jsonl(f"{root}/")
    with pytest.raises(UnsupportedURLError, match="knows no such files"):
        filled.export_jsonl("nothing://a/b.jsonl")
    assert files(root) == []


def test_an_import_that_fails_saves_nothing(storage: Any, root: str) -> None:
    with pytest.raises(MissingFileError, match=r"missing.jsonl does not exist"):
        storage.import_jsonl(f"{root}/missing.jsonl")
    with pytest.raises(MissingFileError, match=r"missing.parquet does not exist"):
        storage.import_parquet(f"{root}/missing.parquet")
    line = b'{"conversations":[]}\n'
    memory().pipe_file(f"{root}/a.jsonl", line)
    memory().pipe_file(f"{root}/bad.jsonl", line + b"{\n")
    with pytest.raises(CorruptRecordError) as caught:
        storage.import_jsonl([f"{root}/a.jsonl", f"{root}/bad.jsonl"])
    assert (caught.value.path.name, caught.value.line) == ("bad.jsonl", 2)
    with pytest.raises(StorageError):
        storage.import_parquet(f"{root}/a.jsonl")
    assert storage.count_conversations() == 0
