"""Exports write no line that a load rejects; scans of single columns check what they return."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from afterimage.storage import CorruptRecordError, JSONLStorage, SkippedRecordsWarning

_CRITERION = '{"feedback":"x","score":0.5}'
_CRITERIA = ("coherence", "factuality", "grounding", "helpfulness", "relevance")
_EVALUATION = (
    "{" + "".join(f'"{name}":{_CRITERION},' for name in _CRITERIA) + '"overall_grade":"good"}'
)
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
BAD_COLUMNS = {
    "persona": '"persona":5',
    "response_context": '"response_context":["x"]',
    "final_score": '"final_score":"high"',
    "metadata.a": '"metadata":[]',
    "metadata.b": '"metadata":null',
    "evaluation.overall_grade": f'"evaluation":{_EVALUATION.replace("good", "fine")}',
    "evaluation.coherence.score": f'"evaluation":{_EVALUATION.replace("0.5", "[]", 1)}',
    "evaluation.coherence.feedback": (
        '"evaluation":' + _EVALUATION.replace('"feedback":"x",', "", 1)
    ),
    "evaluation.relevance.score": '"evaluation":[1]',
}
SOUND = [
    '{"conversations":[]}',
    '{"conversations":[],"final_score":"0.5","persona":null,"evaluation":null}',
    '{"conversations":[],"final_score":true,"metadata":{}}',
    f'{{"conversations":[],"final_score":3,"evaluation":{_EVALUATION}}}',
    f'{{"conversations":[{_GOOD}],"final_score":99999999999999999999999999999}}',
    '{"title":"a record of another model","persona":5,"metadata":[]}',
]
"""Lines that a load accepts or that are no conversations."""


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


@pytest.mark.parametrize("name", BAD)
def test_other_exports_reject_what_a_load_rejects(tmp_path: Path, name: str) -> None:
    good = f'{{"conversations":[{_GOOD}],"persona":"p"}}\n'
    path, out = tmp_path / "c.jsonl", tmp_path / "out"
    path.write_text(good + BAD[name] % _GOOD + "\n" + good)
    store = JSONLStorage(path, tmp_path / "d.jsonl")
    for options in ({}, {"order_by": [("final_score", 1)]}, {"offset": 0, "limit": 2}):
        for export in (store.export_jsonl, store.export_parquet):
            with pytest.raises(CorruptRecordError, match="line 2"):
                export(out, **options)
            assert not out.exists()
    only_good: Any = {"filters": {"persona": "p"}}
    assert store.export_jsonl(out, **only_good) == len(store.load_conversations(**only_good)) == 2
    assert store.export_jsonl(out, limit=1) == len(store.load_conversations(limit=1)) == 1
    with pytest.warns(SkippedRecordsWarning):
        assert store.export_jsonl(out, on_error="skip") == 2
    assert len(out.read_text().splitlines()) == 2


@pytest.mark.parametrize("column", BAD_COLUMNS)
def test_a_scan_of_a_column_rejects_values_that_a_load_rejects(tmp_path: Path, column: str) -> None:
    path = tmp_path / "c.jsonl"
    bad = f'{{"conversations":[],{BAD_COLUMNS[column]}}}'
    path.write_text("\n".join([*SOUND, bad, ""]))
    store = JSONLStorage(path, tmp_path / "d.jsonl")
    with pytest.raises(CorruptRecordError, match="line 7"):
        store.load_conversations()
    for columns in ([column], [column, "instruction_context"]):
        for order_by in ((), [("final_score", 1)]):
            with pytest.raises(CorruptRecordError, match="line 7"):
                store.scan_conversations(columns, order_by=order_by).read_all()
        with pytest.raises(CorruptRecordError, match="line 7"):
            store.export_parquet(tmp_path / "out", columns=columns)
        with pytest.warns(SkippedRecordsWarning):
            assert store.scan_conversations(columns, on_error="skip").read_all().num_rows == 5
    # The documented limit: columns that a scan does not return are not checked.
    assert store.scan_conversations(["instruction_context"]).read_all().num_rows == 6


@pytest.mark.parametrize("column", BAD_COLUMNS)
def test_a_scan_of_a_column_accepts_what_a_load_accepts(tmp_path: Path, column: str) -> None:
    path = tmp_path / "c.jsonl"
    path.write_text("\n".join([*SOUND, ""]))
    store = JSONLStorage(path, tmp_path / "d.jsonl")
    loaded = store.load_conversations()
    assert store.scan_conversations([column]).read_all().num_rows == len(loaded) == 5
    assert store.export_jsonl(tmp_path / "out") == 5
    scores = store.scan_conversations(["final_score"]).read_all()["final_score"].to_pylist()
    assert scores == [record.final_score for record in loaded]


@pytest.mark.parametrize(
    ("column", "bad"),
    [("text", '"text":5'), ("id", '"id":null'), ("metadata.a", '"metadata":[]')],
)
def test_scans_of_documents(tmp_path: Path, column: str, bad: str) -> None:
    path = tmp_path / "d.jsonl"
    good = '{"id":"a","text":"x"}\n{"text":null}\n{}\n'
    path.write_text(good)
    store = JSONLStorage(tmp_path / "c.jsonl", path)
    assert store.scan_documents([column]).read_all().num_rows == 3
    path.write_text(good + f"{{{bad}}}\n")
    calls: list[Callable[[], Any]] = [
        store.load_documents,
        lambda: store.scan_documents([column]).read_all(),
        lambda: store.export_jsonl(tmp_path / "out", kind="documents"),
    ]
    for call in calls:
        with pytest.raises(CorruptRecordError, match="line 4"):
            call()
