"""Exports and imports at URLs of S3, with s3fs and a server on loopback."""

from __future__ import annotations

import os
import subprocess
import sys
import time
import traceback
import uuid
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest

from afterimage.storage import Conversation, Document, SQLStorage, StorageError
from tests.support.object_store import (
    KEY,
    SECRET_KEY,
    ObjectStore,
    missing_for_objects,
    shared_objects,
)

pytest.importorskip("s3fs", reason="s3fs is in the extra `libraries`")

BUCKET = "talks"


@pytest.fixture
def objects(monkeypatch: pytest.MonkeyPatch) -> Generator[ObjectStore, None, None]:
    if (missing := missing_for_objects()) is not None:
        pytest.skip(missing)
    server = shared_objects()
    server.make_bucket(BUCKET)
    for name, value in server.environment.items():
        monkeypatch.setenv(name, value)
    yield server
    system().clear_instance_cache()


def system() -> Any:
    import s3fs

    return s3fs.S3FileSystem(skip_instance_cache=True)


def names(folder: str) -> list[str]:
    return sorted(path.rpartition("/")[2] for path in system().find(f"{BUCKET}/{folder}"))


def uploads() -> list[Any]:
    """The uploads that have begun and are not complete."""
    found: list[Any] = system().call_s3("list_multipart_uploads", Bucket=BUCKET).get("Uploads", [])
    return found


@pytest.fixture
def storage(tmp_path: Path) -> SQLStorage:
    storage = SQLStorage(tmp_path / "talks.duckdb")
    talk = [{"role": "user", "content": "To Rome, please."}]
    storage.save_conversations([Conversation(conversations=talk)] * 3)
    return storage


def test_files_come_back(objects: ObjectStore, storage: SQLStorage) -> None:
    folder = uuid.uuid4().hex
    url = f"s3://{BUCKET}/{folder}/talks"
    other = SQLStorage(":memory:")
    for suffix in ("jsonl", "jsonl.gz", "jsonl.zst"):
        assert storage.export_jsonl(f"{url}.{suffix}") == 3
        assert other.import_jsonl(f"{url}.{suffix}") == 3
    assert storage.export_parquet(f"{url}.parquet") == 3
    assert other.import_parquet(f"{url}.parquet") == 3
    assert storage.export_html(f"{url}.html") == 3
    assert storage.export_jsonl(f"{url}.jsonl", limit=0) == 0  # replaces the file
    assert other.load_conversations() == storage.load_conversations() * 4
    ends = ("html", "jsonl", "jsonl.gz", "jsonl.zst", "parquet")
    assert names(folder) == [f"talks.{end}" for end in ends]
    assert other.import_jsonl(f"{url}.jsonl") == 0


def test_a_file_of_several_parts_is_one_object(objects: ObjectStore, tmp_path: Path) -> None:
    storage = SQLStorage(tmp_path / "large.duckdb")
    storage.save_documents([Document(id=str(n), text=str(n) * 30_000_000) for n in range(4)])
    url = f"s3://{BUCKET}/{uuid.uuid4().hex}/large.jsonl"
    assert storage.export_jsonl(url, kind="documents") == 4
    assert uploads() == []
    other = SQLStorage(tmp_path / "other.duckdb")
    assert other.import_jsonl(url, kind="documents") == 4
    assert other.load_documents() == storage.load_documents()


def test_errors_are_short_and_show_no_credentials(
    objects: ObjectStore, storage: SQLStorage
) -> None:
    missing = f"s3://no-such-{uuid.uuid4().hex}/a.jsonl"
    for call in (storage.export_jsonl, storage.import_jsonl, storage.import_parquet):
        with pytest.raises(StorageError) as caught:
            call(missing)
        shown = "".join(traceback.format_exception(caught.value))
        assert SECRET_KEY not in shown
        assert KEY not in shown
        assert len(str(caught.value)) < 400


def test_a_server_that_is_lost_is_an_error(
    objects: ObjectStore, storage: SQLStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    with pytest.raises(StorageError, match="cannot be written") as caught:
        storage.export_jsonl(f"s3://{BUCKET}/lost.jsonl")
    assert SECRET_KEY not in "".join(traceback.format_exception(caught.value))


@pytest.mark.process
def test_a_killed_upload_leaves_no_object(objects: ObjectStore, tmp_path: Path) -> None:
    storage = SQLStorage(tmp_path / "large.duckdb")
    storage.save_documents([Document(id=str(n), text=str(n) * 30_000_000) for n in range(8)])
    folder = uuid.uuid4().hex
    code = (
        "from afterimage.storage import SQLStorage\n"
        f"SQLStorage({str(tmp_path / 'large.duckdb')!r}).export_jsonl("
        f"'s3://{BUCKET}/{folder}/large.jsonl', kind='documents')\n"
    )
    path = os.pathsep.join(filter(None, sys.path))
    process = subprocess.Popen([sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": path})
    while not uploads() and process.poll() is None:
        time.sleep(0.02)
    process.kill()
    process.wait()
    assert len(uploads()) == 1
    assert names(folder) == []
