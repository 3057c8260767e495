"""Exports for training write no line that a load rejects."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from afterimage.storage import CorruptRecordError, JSONLStorage, SkippedRecordsWarning

_GOOD = '{"role":"user","content":"Hi"},{"role":"assistant","content":"Hello"}'
BAD = {
    "object": '{"conversations":[{"role":"user","content":{"a":1}},%s]}',
    "number": '{"conversations":[{"role":"user","content":5},%s]}',
    "list": '{"conversations":[{"role":"user","content":["x"]},%s]}',
    "true": '{"conversations":[{"role":"user","content":true},%s]}',
    "reasoning": '{"conversations":[{"role":"user","content":"x","reasoning_content":1},%s]}',
    "message": '{"conversations":[%s,"x"]}',
    "context": '{"conversations":[%s],"instruction_context":{"a":1}}',
    "metadata": '{"conversations":[%s],"metadata":[]}',
    "score": '{"conversations":[%s],"final_score":"high"}',
}


@pytest.mark.parametrize("name", BAD)
@pytest.mark.parametrize("format_", ["messages", "sharegpt", "alpaca"])
def test_training_formats_reject_what_a_load_rejects(
    tmp_path: Path, name: str, format_: Any
) -> None:
    good = f'{{"conversations":[{_GOOD}]}}\n'
    path, out = tmp_path / "c.jsonl", tmp_path / "out.jsonl"
    path.write_text(good + BAD[name] % _GOOD + "\n" + good)
    store = JSONLStorage(path, tmp_path / "d.jsonl")
    with pytest.raises(CorruptRecordError, match="line 2"):
        store.load_conversations()
    for order_by in ((), [("final_score", 1)]):
        with pytest.raises(CorruptRecordError, match="line 2"):
            store.export_jsonl(out, format=format_, order_by=order_by)
        assert not out.exists()
    with pytest.warns(SkippedRecordsWarning):
        assert store.export_jsonl(out, format=format_, on_error="skip") == 2
    assert len(out.read_text().splitlines()) == 2
