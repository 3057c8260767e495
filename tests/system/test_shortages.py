"""A lack of file handles is raised as what it is, not reported as damage to the data."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from afterimage.storage import Document, JSONLStorage, StorageError, verify_jsonl
from tests.support.processes import KINDS, opened
from tests.support.records import conversation

resource = pytest.importorskip("resource")


@contextmanager
def no_file_handles() -> Iterator[None]:
    """Within the block, this process cannot open a file."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, hard))
    held = []
    try:
        while True:
            try:
                held.append(os.open(os.devnull, os.O_RDONLY))
            except OSError:
                break
        yield
    finally:
        for handle in held:
            os.close(handle)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.parametrize("kind", KINDS)
def test_verify_without_file_handles_is_an_error(kind: str, tmp_path: Path) -> None:
    store = opened(kind, tmp_path)
    store.save_conversations([conversation()])
    store.save_documents([Document()])
    assert store.verify().ok
    with no_file_handles(), pytest.raises(StorageError):
        store.verify()
    assert store.verify().ok


@pytest.mark.parametrize("suffix", ["", ".gz", ".zst"])
def test_verify_of_a_file_without_file_handles_is_an_error(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"a.jsonl{suffix}"
    source = JSONLStorage(tmp_path / "talks.jsonl", tmp_path / "texts.jsonl")
    source.save_conversations([conversation()])
    source.export_jsonl(path)
    calls: list[Callable[[], object]] = [
        lambda: verify_jsonl(path),
        lambda: JSONLStorage(tmp_path / "b.jsonl").import_jsonl(path, on_error="skip"),
    ]
    for call in calls:
        with no_file_handles(), pytest.raises(StorageError):
            call()
    assert verify_jsonl(path).ok
