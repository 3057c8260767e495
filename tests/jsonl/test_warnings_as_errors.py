"""A warning that a filter turns into an error never prevents a save or an import."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from afterimage.storage import (
    Document,
    JSONLStorage,
    SkippedRecordsWarning,
    SQLStorage,
    StorageError,
)
from afterimage.storage.system.package import DeferredWarnings
from tests.support.records import conversations

TORN = '{"conversations":[],"metada'


@pytest.fixture(autouse=True)
def as_errors() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


@pytest.fixture
def store(tmp_path: Path) -> JSONLStorage:
    """Both files end in a torn line."""
    store = JSONLStorage(tmp_path / "talks.jsonl", tmp_path / "texts.jsonl")
    store.save_conversations(conversations({"n": 0}))
    store.save_documents([Document(id="0", text="a")])
    for path in (store.conversations_path, store.documents_path):
        with path.open("a") as file:
            file.write(TORN)
    return store


def killed_save(path: Path) -> None:
    """Leave a file as a save of two records that was killed leaves it."""
    half = b'{"conversations":[],"metadata":{}}\n'
    path.with_name(f"{path.name}.saving").write_bytes(
        b"%d %d\n" % (path.stat().st_size, 2 * len(half)) + half + half
    )
    with path.open("ab") as file:
        file.write(half)


def test_a_save_after_a_torn_line_is_stored(store: JSONLStorage) -> None:
    with pytest.raises(UserWarning, match="torn"):
        store.save_conversations(conversations({"n": 1}))
    with pytest.raises(UserWarning, match="torn"):
        store.save_documents([Document(id="1", text="b")])
    assert [record.metadata for record in store.load_conversations()] == [{"n": 0}, {"n": 1}]
    assert [document.id for document in store.load_documents()] == ["0", "1"]
    store.save_conversations(conversations({"n": 2}))


def test_a_save_after_a_killed_save_is_stored(tmp_path: Path) -> None:
    store = JSONLStorage(tmp_path / "talks.jsonl", tmp_path / "texts.jsonl")
    store.save_conversations(conversations({"n": 0}))
    killed_save(store.conversations_path)
    with pytest.raises(UserWarning, match="a save that was killed"):
        store.save_conversations(conversations({"n": 1}))
    assert [record.metadata for record in store.load_conversations()] == [{"n": 0}, {"n": 1}]


@pytest.mark.parametrize("make", [SQLStorage, JSONLStorage])
def test_an_import_is_stored(tmp_path: Path, make: Callable[..., Any]) -> None:
    source = JSONLStorage(tmp_path / "source.jsonl", tmp_path / "none.jsonl")
    source.save_conversations(conversations({"n": 0}))
    killed_save(source.conversations_path)
    store = (
        make(tmp_path / "a.duckdb")
        if make is SQLStorage
        else make(tmp_path / "a.jsonl", tmp_path / "b.jsonl")
    )
    with pytest.raises(UserWarning, match="a save that was killed"):
        store.import_jsonl(source.conversations_path)
    assert store.count_conversations() == 1
    bad = tmp_path / "bad.jsonl"
    bad.write_text('{"conversations":[],"metadata":{}}\nbroken\n')
    with pytest.raises(SkippedRecordsWarning):
        store.import_jsonl(bad, on_error="skip")
    assert store.count_conversations() == 2


def test_an_error_of_the_write_comes_before_a_warning() -> None:
    def write() -> None:
        with DeferredWarnings() as warn:
            warn("moved")
            raise StorageError("the disk is full")

    with pytest.raises(StorageError, match="full"):
        write()


def test_the_warning_points_at_the_callers_line(store: JSONLStorage) -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        store.save_conversations(conversations({"n": 1}))
    assert [Path(each.filename).name for each in caught] == [Path(__file__).name]
