"""The format `agent-trace`."""

from __future__ import annotations

from typing import Any

import pytest

from afterimage.storage.errors import InvalidQueryError, InvalidRecordError
from afterimage.storage.formats.registry import WRITABLE, shape_named

AGENT_TRACE = shape_named("agent-trace")
CALL = {
    "turn_id": 1,
    "agent_thought": "I must look it up.",
    "tool_call": {"app": "bank", "action": "balance", "parameters": {"account": 1}},
    "observation": {"observation": {"eur": 5}, "status": "success", "latency_ms": 0.5},
}
LAST = {"turn_id": 2, "agent_thought": "It is 5.", "tool_call": None, "observation": None}
ROW: dict[str, Any] = {
    "trajectory_id": "traj_1",
    "task": "How much is in account 1?",
    "domain_apps": ["bank"],
    "turns": [CALL, LAST],
    "final_answer": "There are 5 euros.",
    "judge_verdict": {"is_valid": True},
    "metadata": {"initial_context": {}},
}


class TestRead:
    def test_a_trajectory_is_a_conversation_with_tool_calls(self) -> None:
        record = AGENT_TRACE.read(ROW)
        assert record["conversations"] == [
            {"role": "user", "content": "How much is in account 1?"},
            {
                "role": "assistant",
                "content": None,
                "reasoning_content": "I must look it up.",
                "tool_calls": [
                    {
                        "id": "call00000",
                        "type": "function",
                        "function": {"name": "bank__balance", "arguments": '{"account": 1}'},
                    }
                ],
            },
            {
                "role": "tool",
                "content": '{"eur": 5}',
                "name": "bank__balance",
                "tool_call_id": "call00000",
                "status": "success",
                "latency_ms": 0.5,
            },
            {
                "role": "assistant",
                "content": "There are 5 euros.",
                "reasoning_content": "It is 5.",
            },
        ]
        metadata = record["metadata"]
        assert metadata["judge_verdict"] == {"is_valid": True}
        assert metadata["trajectory_id"] == "traj_1"
        assert metadata["initial_context"] == {}

    def test_without_a_thought_or_an_answer_it_has_what_there_is(self) -> None:
        same = {**LAST, "agent_thought": "5"}
        record = AGENT_TRACE.read({"task": "x", "turns": [same], "final_answer": "5"})
        assert record["conversations"][1:] == [{"role": "assistant", "content": "5"}]
        record = AGENT_TRACE.read({"task": "x", "turns": [same], "final_answer": None})
        assert record["conversations"][1:] == [{"role": "assistant", "content": "5"}]
        record = AGENT_TRACE.read({"task": "x", "turns": [CALL], "final_answer": "5"})
        assert record["conversations"][-1] == {"role": "assistant", "content": "5"}

    @pytest.mark.parametrize(
        ("row", "reason"),
        [
            ({"task": "x"}, "no key 'turns'"),
            ({"task": 5, "turns": []}, "task is 5; it must be text"),
            ({"task": "x", "turns": "y"}, "turns is not a list"),
            ({"task": "x", "turns": [5]}, r"turns\.0 is not a turn: 5"),
            ({"task": "x", "turns": [{}]}, r"turns\.0\.agent_thought is None"),
            (
                {"task": "x", "turns": [{"agent_thought": "", "tool_call": {}}]},
                r"turns\.0\.tool_call has no action",
            ),
        ],
    )
    def test_what_is_no_trajectory_is_refused_with_its_place(
        self, row: dict[str, Any], reason: str
    ) -> None:
        with pytest.raises(InvalidRecordError, match=reason):
            AGENT_TRACE.read(row)


class TestWrite:
    def test_it_is_refused(self) -> None:
        assert "agent-trace" not in WRITABLE
        with pytest.raises(InvalidQueryError, match="can be read and not written"):
            AGENT_TRACE.write(AGENT_TRACE.read(ROW))

    def test_other_formats_have_it(self) -> None:
        (row,) = shape_named("messages").write(AGENT_TRACE.read(ROW))
        assert [message["role"] for message in row["messages"]] == [
            "user", "assistant", "tool", "assistant",
        ]  # fmt: skip
