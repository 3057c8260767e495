"""All storages: `connect` gives a read-only DuckDB connection to the records as they are now."""

from __future__ import annotations

from typing import Any

import duckdb
import pyarrow as pa
import pytest

from afterimage.storage import Document
from tests.support.records import Line, conversation, conversations

COUNT = "SELECT count(*) FROM conversations"


def test_the_tables_and_the_messages_can_be_read(storage: Any) -> None:
    storage.save_conversations([*conversations({"n": 1}, {"n": 2}), Line(role="r", content="Peru")])
    storage.save_documents([Document(id="a", text="x")])
    with storage.connect() as connection:
        assert isinstance(connection, duckdb.DuckDBPyConnection)
        found = connection.sql("SELECT metadata->>'n' FROM conversations ORDER BY id").fetchall()
        assert found == [("1",), ("2",)]
        [[messages]] = connection.sql("SELECT count(*) FROM messages").fetchall()
        assert messages == sum(len(each.conversations) for each in storage.load_conversations())
        assert connection.sql("SELECT id, text FROM documents").fetchall() == [("a", "x")]
        [[record]] = connection.sql("SELECT record FROM records").fetchall()
        assert "Peru" in record
        assert connection.cursor().execute(COUNT).fetchall() == [(2,)]


def test_an_empty_storage_has_empty_tables(storage: Any) -> None:
    with storage.connect() as connection:
        for table in ("conversations", "messages", "documents"):
            assert connection.execute(f"FROM {table}").fetchall() == []


def test_nothing_can_be_written_and_errors_end_nothing(storage: Any) -> None:
    storage.save_conversations([conversation("a")])
    frame = pa.table({"a": [1]})
    with storage.connect() as connection:
        for statement in (
            "DELETE FROM conversations",
            "CREATE TABLE own (n INT)",
            "DROP VIEW messages",
            "SELECT nonsense",
            "FROM frame",
        ):
            with pytest.raises(duckdb.Error):
                connection.execute(statement)
        connection.register("own", frame)
        assert connection.execute("SELECT a FROM own").fetchall() == [(1,)]
        assert connection.execute(COUNT).fetchall() == [(1,)]
    assert storage.count_conversations() == 1


def test_the_storage_is_written_during_the_block_which_does_not_see_it(storage: Any) -> None:
    storage.save_conversations([conversation("a")])
    with storage.connect() as one:
        storage.save_conversations([conversation("b")])
        with storage.connect() as two:
            assert one.execute(COUNT).fetchall() == [(1,)]
            assert two.execute(COUNT).fetchall() == [(2,)]
            assert storage.count_conversations() == 2
    with pytest.raises(duckdb.ConnectionException):
        one.execute(COUNT)


def test_an_exception_in_the_block_is_raised_unchanged(storage: Any) -> None:
    storage.save_conversations([conversation("a")])
    with pytest.raises(ZeroDivisionError), storage.connect() as connection:
        1 / 0  # noqa: B018
    with pytest.raises(duckdb.ConnectionException):
        connection.execute(COUNT)
