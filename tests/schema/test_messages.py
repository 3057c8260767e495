"""The view `messages` has a row for each message, with what only chats have."""

from __future__ import annotations

import gzip
import json
import time
from pathlib import Path
from typing import Any

import duckdb
import pytest

from afterimage.storage import ChatConversation, SQLStorage
from tests.support.data import make_version_1 as version_1
from tests.support.plain_python import same
from tests.support.records import conversation

CALL = {"id": "1", "type": "function", "function": {"name": "find", "arguments": '{"b":1,"a":2}'}}
PARTS = [{"type": "text", "text": "Look:"}, {"type": "image_url", "image_url": {"url": "a.png"}}]
CHAT = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": PARTS, "name": "Ann"},
    {"role": "assistant", "content": None, "tool_calls": [CALL]},
    {"role": "tool", "content": "3", "tool_call_id": "1"},
    {"role": "assistant", "content": "Three.", "reasoning_content": "1 + 2"},
]


def rows(store: SQLStorage, columns: str) -> list[tuple[Any, ...]]:
    with store.engine.connect() as connection:
        found = connection.exec_driver_sql(f"SELECT {columns} FROM messages ORDER BY ALL")
        return [tuple(row) for row in found]


def test_it_has_what_only_chats_have(tmp_path: Path) -> None:
    store = SQLStorage(f"duckdb:///{tmp_path}/talks.duckdb")
    store.save_conversations([conversation("Hi"), ChatConversation(conversations=CHAT)])
    assert rows(store, "conversation_id, position, role, content, reasoning_content")[-5:] == [
        (2, 0, "system", "Be brief.", None),
        (2, 1, "user", "Look:", None),
        (2, 2, "assistant", None, None),
        (2, 3, "tool", "3", None),
        (2, 4, "assistant", "Three.", "1 + 2"),
    ]
    own = rows(store, "conversation_id, position, name, tool_calls, tool_call_id, parts")
    assert {row[2:] for row in own if row[0] == 1} == {(None,) * 4}
    names, calls, answered, parts = zip(*(row[2:] for row in own if row[0] == 2), strict=True)
    assert names == (None, "Ann", None, None, None)
    assert [each and json.loads(each) for each in calls] == [None, None, [CALL], None, None]
    assert answered == (None, None, None, "1", None)
    assert [each and json.loads(each) for each in parts] == [None, PARTS, None, None, None]


@pytest.mark.slow
def test_its_work_is_linear_in_the_messages(tmp_path: Path) -> None:
    store = SQLStorage(f"duckdb:///{tmp_path}/talks.duckdb")
    talk = [CHAT[2], CHAT[3]] * 4000
    store.save_conversations([ChatConversation(conversations=talk)])
    started = time.monotonic()
    assert rows(store, "count(tool_calls), count(tool_call_id)") == [(4000, 4000)]
    assert time.monotonic() - started < 10  # 20 to 38 seconds where each message parses it all


class TestOlderFiles:
    @pytest.fixture
    def path(self, tmp_path: Path) -> Path:
        """A copy of the database that the first version wrote."""
        path = tmp_path / "store.duckdb"
        path.write_bytes(gzip.decompress(version_1.DATABASE.read_bytes()))
        return path

    def columns(self, path: Path) -> list[str]:
        with duckdb.connect(str(path), read_only=True) as connection:
            return [row[0] for row in connection.sql("DESCRIBE messages").fetchall()]

    def test_they_get_the_new_columns_when_they_are_opened(self, path: Path) -> None:
        assert "tool_calls" not in self.columns(path)
        before = SQLStorage(f"duckdb:///{path}", create=False).load_conversations()
        assert "tool_calls" not in self.columns(path)
        assert same(SQLStorage(f"duckdb:///{path}").load_conversations(), before)
        assert "tool_calls" in self.columns(path)

    def test_a_file_that_cannot_be_written_is_read_as_it_is(self, path: Path) -> None:
        path.with_name("other").hardlink_to(path)  # a database with two names is only read
        assert SQLStorage(f"duckdb:///{path}").count_conversations() > 0
        assert "tool_calls" not in self.columns(path)

    def test_a_view_of_a_users_own_is_kept(self, path: Path) -> None:
        with duckdb.connect(str(path)) as connection:
            connection.execute(
                "CREATE OR REPLACE VIEW messages AS SELECT id AS conversation_id, "
                "0::BIGINT AS position, 'user' AS role, persona AS content, "
                "persona AS reasoning_content, 1 AS own FROM conversations"
            )
        SQLStorage(f"duckdb:///{path}").load_conversations()
        assert self.columns(path)[-1] == "own"
