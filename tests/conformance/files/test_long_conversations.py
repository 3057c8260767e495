"""Conversations of thousands of messages go out and come in in linear time, in each format."""

from __future__ import annotations

import io
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from afterimage.storage import ChatConversation, PreferencePair, SQLStorage
from afterimage.storage.formats.registry import PAIRS, READABLE, WRITABLE

pytestmark = pytest.mark.slow

FORMATS = sorted({*WRITABLE} - {"native", "raw"})
SHORT, LONG = 1_000, 8_000


def messages(count: int) -> list[dict[str, Any]]:
    """Questions, calls, results and answers; some questions follow each other."""
    call = {"id": "c", "type": "function", "function": {"name": "f", "arguments": '{"a": 1}'}}
    turn: list[dict[str, Any]] = [
        {"role": "user", "content": "a" * 40},
        {"role": "user", "content": "b" * 40},
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "content": "12", "tool_call_id": "c", "name": "f"},
        {"role": "assistant", "content": "c" * 40, "reasoning_content": "d"},
        {"role": "assistant", "content": "e"},
        {"role": "user", "content": [{"type": "text", "text": "f"}]},
        {"role": "assistant", "content": "g"},
    ]
    return turn * (count // len(turn))


def record_of(name: str, count: int) -> Any:
    said = messages(count)
    if name in PAIRS:
        return PreferencePair.model_validate(
            {"prompt": said, "chosen": said[-1:], "rejected": [{**said[-1], "content": "h"}]}
        )
    if name in ("alpaca", "llama_factory"):
        said = [said[0], said[-1]] * (count // 2)
    return ChatConversation.model_validate({"conversations": said})


def seconds(call: Callable[[], object]) -> float:
    """The least time of three calls, as a busy machine makes some of them slow."""
    times = []
    for _ in range(3):
        start = time.process_time()
        call()
        times.append(time.process_time() - start)
    return min(times)


def assert_linear(times: dict[int, float]) -> None:
    # 8 times the messages take about 8 times as long, and 64 times if the time is quadratic. A
    # call itself takes a part of the time of the short one, which makes it less than 8.
    assert times[LONG] < 20 * times[SHORT] + 0.1


@pytest.mark.parametrize("suffix", ["jsonl", "parquet"])
@pytest.mark.parametrize("name", FORMATS)
def test_exports_and_imports(tmp_path: Path, name: str, suffix: str) -> None:
    going: dict[int, float] = {}
    coming: dict[int, float] = {}
    for count in (SHORT, LONG):
        store = SQLStorage("duckdb:///:memory:")
        store.save_conversations([record_of(name, count)])
        path = tmp_path / f"{count}.{suffix}"
        export = store.export_jsonl if suffix == "jsonl" else store.export_parquet
        going[count] = seconds(lambda: export(path, format=name, lossy=True))  # noqa: B023
        other = SQLStorage("duckdb:///:memory:")
        bring = other.import_jsonl if suffix == "jsonl" else other.import_parquet
        coming[count] = seconds(lambda: bring(path, format=name))  # noqa: B023
        assert other.count_conversations() + other.count_records() == 3
    assert_linear(going)
    assert_linear(coming)


def test_what_is_only_read() -> None:
    assert {*READABLE} - {*WRITABLE} == {"agent-trace"}
    turn = {"agent_thought": "a", "tool_call": {"action": "f"}, "observation": {"observation": 1}}
    times = {}
    for count in (SHORT, LONG):
        row: dict[str, Any] = {"task": "b", "turns": [turn] * count, "final_answer": "c"}
        line = io.BytesIO(json.dumps(row).encode())
        store = SQLStorage("duckdb:///:memory:")

        def bring(line: io.BytesIO = line, store: SQLStorage = store) -> None:
            line.seek(0)
            store.import_jsonl(line, format="agent-trace")

        times[count] = seconds(bring)
    assert_linear(times)


def test_one_message_a_row() -> None:
    times = {}
    for count in (SHORT, LONG):
        rows = ({"talk": 1, "role": "user", "content": "a", "position": n} for n in range(count))
        log = "".join(json.dumps(row) + "\n" for row in rows)
        store = SQLStorage("duckdb:///:memory:")

        def bring(log: str = log, store: SQLStorage = store) -> None:
            store.import_jsonl(io.StringIO(log), format="rows", group_by="talk")

        times[count] = seconds(bring)
        assert store.count_conversations() == 3
    assert_linear(times)
