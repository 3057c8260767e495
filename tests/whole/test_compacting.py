"""`compact` exists in every storage, and removes no record."""

from __future__ import annotations

from pathlib import Path

from afterimage.storage import JSONLStorage, SQLStorage
from tests.support.records import conversations, firsts


def test_in_memory_nothing_happens() -> None:
    store = SQLStorage(":memory:")
    store.save_conversations(conversations({"n": 1}, {"n": 2}))
    store.compact()
    assert store.count_conversations() == 2


def test_what_a_killed_edit_left_beside_json_lines_is_removed(tmp_path: Path) -> None:
    store = JSONLStorage(tmp_path / "talks.jsonl", tmp_path / "documents.jsonl")
    store.compact()
    assert list(tmp_path.iterdir()) == []
    store.save_conversations(conversations({"n": 1}, {"n": 2}))
    before, content = firsts(store.load_conversations()), (tmp_path / "talks.jsonl").read_bytes()
    left = tmp_path / ".talks.jsonl.0123456789abcdef0123456789abcdef.editing"
    left.write_text("half")
    store.compact()
    assert not left.exists()
    assert firsts(store.load_conversations()) == before
    assert (tmp_path / "talks.jsonl").read_bytes() == content
