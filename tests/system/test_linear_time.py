"""Work that grows with the size of its input, not with the square of it."""

from __future__ import annotations

import json
import time
import warnings
from collections.abc import Callable
from pathlib import Path

from afterimage.storage import Conversation, JSONLStorage, SQLStorage
from tests.support.records import conversation


def seconds(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def test_a_sharegpt_export_of_turns_that_do_not_alternate(tmp_path: Path) -> None:
    entries = [{"role": "user", "content": f"{n}" * 50} for n in range(8000)]
    for n in range(0, 8000, 4):
        entries[n]["role"] = entries[n + 1]["role"] = "assistant"
    store = SQLStorage("duckdb:///:memory:")
    store.save_conversations([Conversation(conversations=entries)])
    path = tmp_path / "out.jsonl"
    assert seconds(lambda: store.export_jsonl(path, format="sharegpt")) < 1  # 3 s if quadratic
    turns = json.loads(path.read_text("utf-8"))["conversations"]
    assert len(turns) == 4000
    assert turns[1] == {"from": "human", "value": f"{'2' * 50}\n{'3' * 50}"}


def test_a_save_with_many_metadata_fields(tmp_path: Path) -> None:
    keys = [f"k{n}" for n in range(300)]
    store = SQLStorage("duckdb:///:memory:", metadata_fields=keys)
    record = conversation("a", dict.fromkeys(keys, 1))
    assert seconds(lambda: store.save_conversations([record])) < 2.5  # 5 s if quadratic
    assert store.count_conversations({"metadata.k299": 1}) == 1


def test_many_metadata_fields_of_an_existing_database(tmp_path: Path) -> None:
    keys = [f"k{n}" for n in range(120)]
    url = f"duckdb:///{tmp_path / 'a.duckdb'}"
    SQLStorage(url).save_conversations([conversation("a", dict.fromkeys(keys, "v"))])
    store = SQLStorage(url, metadata_fields=keys)
    assert (
        store.count_conversations([("metadata.k0", "==", "v"), ("metadata.k119", "==", "v")]) == 1
    )
    assert store.verify().ok


def test_a_long_torn_line(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    torn = b'{"conversations":"' + b"x" * (48 * 2**20)
    path.write_bytes(b'{"conversations":[]}\n' + torn)
    store = JSONLStorage(path, tmp_path / "d.jsonl")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert seconds(lambda: store.save_conversations([conversation()])) < 3  # 10 s if quadratic
    assert store.count_conversations() == 2
    assert path.with_name("a.jsonl.torn-21").stat().st_size == len(torn)
