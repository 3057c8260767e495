"""A storage of JSON lines can be sent to another process, which reads and writes the same files."""

from __future__ import annotations

import pickle
from pathlib import Path

from afterimage.storage import JSONLStorage
from tests.support.records import conversations, firsts


def test_a_copy_uses_the_same_files_and_settings(tmp_path: Path) -> None:
    with JSONLStorage(tmp_path / "c.jsonl", tmp_path / "d.jsonl", "latin-1", 7) as store:
        store.save_conversations(conversations({}))
        copy = pickle.loads(pickle.dumps(store))
    assert (repr(copy), copy.encoding, copy.lock_timeout) == (repr(store), "latin-1", 7)
    copy.save_conversations(conversations({}))
    assert firsts(store.load_conversations()) == ["0", "0"]
