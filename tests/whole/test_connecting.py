"""A connection to JSON lines reads a database into which all records are imported."""

from __future__ import annotations

from pathlib import Path

import pytest

from afterimage.storage import CorruptRecordError, JSONLStorage


def test_a_file_with_a_bad_line_is_refused(tmp_path: Path) -> None:
    store = JSONLStorage(tmp_path / "a.jsonl", tmp_path / "b.jsonl")
    (tmp_path / "a.jsonl").write_text('{"conversations": []}\nnonsense\n')
    with pytest.raises(CorruptRecordError), store.connect():
        pass
    assert {each.name for each in tmp_path.iterdir()} <= {"a.jsonl", "a.jsonl.lock"}
