"""A lake with its data in an object store: what works there, and where its credentials are not."""

from __future__ import annotations

import os
import traceback
import uuid
from typing import Any

import pytest

from afterimage.storage import Document, SQLStorage, StorageError
from tests.lake.test_lost_connections import batch, stored
from tests.support.object_store import (
    SECRET_KEY,
    ObjectStore,
    missing_for_objects,
    shared_objects,
)
from tests.support.postgres import Server

BUCKET = "lakes"


@pytest.fixture
def objects(monkeypatch: pytest.MonkeyPatch) -> ObjectStore:
    if (missing := missing_for_objects()) is not None:
        pytest.skip(missing)
    store = shared_objects()
    store.make_bucket(BUCKET)
    for name, value in store.environment.items():
        monkeypatch.setenv(name, value)
    return store


@pytest.fixture
def lake(objects: ObjectStore, server: Server) -> str:
    return server.url(f"s3://{BUCKET}/{uuid.uuid4().hex}")


def test_records_are_saved_read_filtered_and_merged(lake: str) -> None:
    storage = SQLStorage(lake, metadata_fields=["row"])
    for name in "abc":
        storage.save_conversations(batch(name))
    storage.save_documents([Document(id="a", text="x")])
    assert storage.count_conversations({"metadata.row": 1}) == 3
    assert storage.count_conversations({"metadata.batch": "b"}) == 3
    before = stored(storage)
    assert before == [(name, row) for name in "abc" for row in range(3)]
    version = storage.snapshots()[-1].version
    storage.compact()
    assert stored(SQLStorage(lake)) == before
    storage.save_conversations(batch("d"))
    assert len(stored(SQLStorage(lake, at=version))) == 9
    assert len(stored(SQLStorage(lake.partition("&data_path")[0]))) == 12
    assert storage.verify().ok


def test_records_are_changed_and_deleted_while_the_connection_holds(lake: str) -> None:
    storage = SQLStorage(lake)
    storage.save_conversations(batch("a", 10))
    assert storage.delete_conversations({"metadata.row": 3}) == 1
    assert storage.update_conversations({"metadata.row": 4}, {"checked": True}) == 1
    assert storage.count_conversations() == 9
    assert storage.count_conversations({"metadata.checked": True}) == 1


def test_stores_are_moved_there_and_back(lake: str, objects: ObjectStore) -> None:
    storage, copy = SQLStorage(":memory:"), SQLStorage(":memory:")
    storage.save_conversations(batch("a", 5))
    lake_storage = SQLStorage(lake)
    assert lake_storage.import_store(storage) == 5
    assert copy.import_store(lake_storage) == 5
    assert copy.load_conversations() == storage.load_conversations()


def test_no_error_repr_or_catalog_has_the_secret_key(
    lake: str, objects: ObjectStore, server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    storage = SQLStorage(lake)
    storage.save_conversations(batch("a"))
    storage.compact()
    shown = [repr(storage), str(storage.verify()), str(storage.snapshots())]
    with storage.engine.connect() as connection:
        shown += [
            str(connection.exec_driver_sql(f"FROM {listing}()").all())
            for listing in ("duckdb_databases", "duckdb_secrets")
        ]
    # Files that are gone, and a bucket that is not there.
    folder = lake.rpartition("/")[2]
    objects.remove(BUCKET, folder)
    nowhere = server.url("s3://no-such-bucket/a")
    broken: list[Any] = [
        lambda: SQLStorage(lake, lock_timeout=1).load_conversations(),
        lambda: SQLStorage(nowhere, lock_timeout=1).save_conversations(batch("a")),
    ]
    for call in broken:
        with pytest.raises(StorageError) as caught:
            call()
        shown += traceback.format_exception(caught.value)
    assert [text for text in shown if SECRET_KEY in text] == []
    assert SECRET_KEY not in server.dump()
    assert folder in server.dump()
    assert os.environ["AWS_SECRET_ACCESS_KEY"] == SECRET_KEY
