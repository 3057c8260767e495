"""The format `sharegpt`."""

from __future__ import annotations

import itertools
import json
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from afterimage.storage.errors import InvalidQueryError, InvalidRecordError
from afterimage.storage.formats.registry import shape_named
from afterimage.storage.formats.shape import NotRepresentableError, WriteOptions
from afterimage.storage.formats.tool_calls import record_call
from tests.formats.examples import (
    WHOLE,
    assert_round_trip,
    full_texts,
    json_objects,
    names,
    odd_tools,
    others,
    texts,
    tools,
)

SHAREGPT = shape_named("sharegpt")
CALL = '{"name": "f", "arguments": {"n": 1}}'
TOOLS = '[{"name": "f", "parameters": {"type": "object"}}]'

ROWS: dict[str, dict[str, Any]] = {
    "tools as of LLaMA-Factory": {
        "conversations": [
            {"from": "human", "value": "f of 1?"},
            {"from": "function_call", "value": CALL},
            {"from": "observation", "value": "2"},
            {"from": "gpt", "value": "It is 2."},
        ],
        "system": "You can call functions.",
        "tools": TOOLS,
    },
    "no tools": {"conversations": [{"from": "human", "value": ""}], "tools": "[]", "system": ""},
    "names of the roles": {
        "conversations": [
            {"from": "system", "value": "S"},
            {"from": "user", "value": "Hi"},
            {"from": "user", "value": "Hi?"},
            {"from": "assistant", "value": "Hello"},
        ],
        "id": "x_0",
    },
    "turns of one role beside each other": {
        "conversations": [
            {"from": "human", "value": "a"},
            {"from": "human", "value": "b"},
            {"from": "gpt", "value": "c"},
        ]
    },
    "parallel calls, thinking and other keys": {
        "conversations": [
            {"from": "human", "value": "Go", "weight": 0},
            {"from": "function_call", "value": f"<think>\nHm.\n</think>\n\n[{CALL}, {CALL}]"},
            {"from": "tool", "value": "2", "tool_call_id": "a"},
            {"from": "gpt", "value": "Done", "loss": None},
        ],
        "tools": json.loads(TOOLS),
    },
}

_calls = st.fixed_dictionaries(
    {"name": names, "arguments": json_objects | texts}, optional={"id": texts, "type": texts}
)
_turns = (
    st.fixed_dictionaries(
        {"from": st.sampled_from(["human", "gpt", "user", "assistant"]), "value": texts}
    )
    | st.fixed_dictionaries(
        {
            "from": st.sampled_from(["human", "gpt", "system", "observation", "tool", "developer"]),
            "value": texts,
        },
        optional={"weight": st.integers(), "name": texts, "tool_call_id": st.none() | texts},
    )
    | st.fixed_dictionaries(
        {
            "from": st.just("function_call"),
            "value": _calls.map(json.dumps)
            | st.lists(_calls, min_size=1, max_size=2).map(json.dumps)
            | _calls.map(lambda call: "<think>\nx\n</think>\n\n" + json.dumps(call)),
        }
    )
)
# Turns of one role beside each other are joined, so that they do not come back as they were.
_role_lists = st.lists(
    st.sampled_from(["user", "assistant", "system", "tool", "call"]), min_size=1, max_size=6
).map(lambda roles: [role for role, _ in itertools.groupby(roles)])


class TestRoundTrip:
    @pytest.mark.parametrize("row", ROWS.values(), ids=ROWS)
    def test_known_rows_come_back(self, row: dict[str, Any]) -> None:
        assert_round_trip("sharegpt", row)

    @given(
        st.fixed_dictionaries(
            {"conversations": st.lists(_turns, min_size=1, max_size=5)},
            optional={"tools": odd_tools, "system": texts},
        ),
        others,
    )
    def test_any_row_comes_back(self, row: dict[str, Any], other: dict[str, Any]) -> None:
        assert_round_trip("sharegpt", {**other, **row})

    @given(
        st.lists(
            st.sampled_from(["user", "assistant", "system", "tool", "call"]), min_size=1, max_size=6
        ).flatmap(
            lambda roles: st.tuples(*map(_message, [role for role, _ in itertools.groupby(roles)]))
        ),
        st.lists(tools, max_size=2),
        others,
    )
    def test_any_record_that_has_a_place_comes_back(
        self, messages: tuple[dict[str, Any], ...], its_tools: list[Any], other: dict[str, Any]
    ) -> None:
        record: dict[str, Any] = {"conversations": [*messages], "metadata": other}
        if its_tools:
            record["tools"] = its_tools
        (row,) = SHAREGPT.write(record, WHOLE)
        assert SHAREGPT.read(row) == record

    @pytest.mark.parametrize(
        "reasoning", ["<think>\n\n</think>\n\n<think>x</think>", "<think>{}</think>\n"]
    )
    def test_several_parts_of_reasoning_before_a_call_come_back(self, reasoning: str) -> None:
        asked = {
            "role": "assistant",
            "content": reasoning,
            "tool_calls": [record_call(json.loads(CALL))],
        }
        record = {"conversations": [asked], "metadata": {}}
        (row,) = SHAREGPT.write(record)
        assert SHAREGPT.read(row) == record

    def test_text_between_parts_of_reasoning_has_no_place_before_a_call(self) -> None:
        said = "<think>a</think>text<think>b</think>"
        asked = {
            "role": "assistant",
            "content": said,
            "tool_calls": [record_call(json.loads(CALL))],
        }
        record = {"conversations": [asked], "metadata": {}}
        with pytest.raises(NotRepresentableError, match="text beside tool calls"):
            SHAREGPT.write(record)
        (row,) = SHAREGPT.write(record, WriteOptions(lossy=True))
        assert SHAREGPT.read(row)["conversations"][0]["content"] is None

    def test_a_usual_row_needs_no_note(self) -> None:
        row = {**ROWS["tools as of LLaMA-Factory"]}
        del row["system"]
        assert SHAREGPT.read(row)["metadata"] == {}
        again = SHAREGPT.read(ROWS["names of the roles"])["metadata"]
        assert again == {"id": "x_0", "source_format": {"name": "sharegpt", "layout": "roles"}}


def _message(role: str) -> st.SearchStrategy[dict[str, Any]]:
    if role == "call":
        call = st.builds(
            lambda name, given, known: {
                "type": "function",
                "function": {"name": name, "arguments": json.dumps(given, ensure_ascii=False)},
                **known,
            },
            names,
            json_objects,
            st.fixed_dictionaries({}, optional={"id": full_texts}),
        )
        return st.builds(
            lambda calls: {"role": "assistant", "content": None, "tool_calls": calls},
            st.lists(call, min_size=1, max_size=2),
        )
    return st.fixed_dictionaries(
        {"role": st.just(role), "content": texts}, optional={"weight": st.integers()}
    )


def published(record: dict[str, Any], prompt: str | None, reasoning: str | None) -> dict[str, Any]:
    """The row that the published package writes, whose reasoning can be put before the content."""

    def text(said: dict[str, Any]) -> str:
        if reasoning == "think" and said.get("reasoning_content") is not None:
            return f"<think>\n{said['reasoning_content']}\n</think>\n\n{said['content']}"
        return str(said["content"])

    turns = [{"from": "system", "value": prompt}] if prompt else []
    for role, same in itertools.groupby(record["conversations"], key=lambda said: said["role"]):
        name = {"user": "human", "assistant": "gpt"}[role]
        turns.append({"from": name, "value": "\n".join(map(text, same))})
    return {"conversations": turns}


_plain_messages = st.fixed_dictionaries(
    {"role": st.sampled_from(["user", "assistant"]), "content": texts},
    optional={"reasoning_content": st.none() | texts},
)


class TestPublishedRows:
    @given(
        st.lists(_plain_messages, min_size=1, max_size=8),
        st.sampled_from([None, "", "Be brief."]),
        st.sampled_from([None, "think"]),
    )
    def test_plain_conversations_give_the_row_of_the_published_package(
        self, messages: list[dict[str, Any]], prompt: str | None, reasoning: Any
    ) -> None:
        record = {"conversations": messages, "metadata": {}}
        options = WriteOptions(system_prompt=prompt, reasoning=reasoning)
        assert SHAREGPT.write(record, options) == [published(record, prompt, reasoning)]

    def test_the_time_is_linear(self) -> None:
        messages = [{"role": "user", "content": "x" * 50}] * 80_000
        start = time.perf_counter()
        (row,) = SHAREGPT.write({"conversations": messages, "metadata": {}})
        assert time.perf_counter() - start < 1
        assert len(row["conversations"][0]["value"]) == 80_000 * 51 - 1


class TestRead:
    def test_calls_and_tools_are_in_our_form(self) -> None:
        record = SHAREGPT.read(ROWS["tools as of LLaMA-Factory"])
        assert record["conversations"] == [
            {"role": "system", "content": "You can call functions."},
            {"role": "user", "content": "f of 1?"},
            {
                "role": "assistant",
                "content": None,
                "tool_calls": [
                    {"type": "function", "function": {"name": "f", "arguments": '{"n": 1}'}}
                ],
            },
            {"role": "tool", "content": "2"},
            {"role": "assistant", "content": "It is 2."},
        ]
        assert record["tools"] == [
            {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}
        ]

    @pytest.mark.parametrize(
        ("row", "reason"),
        [
            ({"conversations": 5}, "conversations is not a list of turns: 5"),
            ({"conversations": [5]}, r"conversations\.0 is not a turn with from and value: 5"),
            ({"conversations": [{"from": "gpt"}]}, "is not a turn with from and value"),
            (
                {"conversations": [{"from": "critic", "value": ""}]},
                r"conversations\.0\.from is 'critic'; known names: human",
            ),
            ({"conversations": [{"from": "gpt", "value": 5}]}, r"0\.value is 5; it must be text"),
            (
                {"conversations": [{"from": "function_call", "value": "f(1)"}]},
                r"conversations\.0\.value is not the JSON of a function call: 'f\(1\)'",
            ),
            (
                {"conversations": [{"from": "gpt", "value": "", "role": "user"}]},
                "has the key 'role' beside from and value",
            ),
        ],
    )
    def test_what_is_no_row_is_refused_with_its_place(
        self, row: dict[str, Any], reason: str
    ) -> None:
        with pytest.raises(InvalidRecordError, match=reason):
            SHAREGPT.read(row)


class TestWrite:
    def test_ids_names_and_other_keys_come_out(self) -> None:
        call = {"id": "c", "type": "function", "function": {"name": "f", "arguments": '{"n":1}'}}
        record = {
            "conversations": [
                {"role": "user", "content": "Go", "name": "ann"},
                {"role": "assistant", "content": None, "tool_calls": [call], "weight": 0},
                {"role": "tool", "content": "2", "tool_call_id": "c"},
            ],
            "metadata": {},
        }
        assert SHAREGPT.write(record) == [
            {
                "conversations": [
                    {"from": "human", "value": "Go", "name": "ann"},
                    {
                        "from": "function_call",
                        "value": '{"name": "f", "arguments": {"n": 1}, "id": "c"}',
                        "weight": 0,
                    },
                    {"from": "observation", "value": "2", "tool_call_id": "c"},
                ]
            }
        ]

    @pytest.mark.parametrize(
        ("message", "reason", "dropped"),
        [
            (
                {"role": "user", "content": [{"type": "image_url"}, {"type": "text", "text": "x"}]},
                "content parts have no place in sharegpt",
                {"from": "human", "value": "x"},
            ),
            (
                {
                    "role": "assistant",
                    "content": "Wait.",
                    "tool_calls": [
                        {"type": "function", "function": {"name": "f", "arguments": "{}"}}
                    ],
                },
                "text beside tool calls has no place in sharegpt",
                {"from": "function_call", "value": '{"name": "f", "arguments": {}}'},
            ),
            (
                {"role": "developer", "content": "x"},
                "the role developer has no place in sharegpt",
                {"from": "system", "value": "x"},
            ),
        ],
    )
    def test_what_has_no_place_is_refused_or_dropped(
        self, message: dict[str, Any], reason: str, dropped: dict[str, Any]
    ) -> None:
        record = {"conversations": [message], "metadata": {}}
        with pytest.raises(NotRepresentableError) as caught:
            SHAREGPT.write(record)
        assert caught.value.reason == reason
        assert caught.value.place == "conversations.0"
        (row,) = SHAREGPT.write(record, WriteOptions(lossy=True))
        assert row["conversations"] == [dropped]

    def test_a_message_without_content_is_no_empty_answer(self) -> None:
        record = {"conversations": [{"role": "assistant", "content": None}], "metadata": {}}
        for lossy in (False, True):
            with pytest.raises(NotRepresentableError, match="a message without content"):
                SHAREGPT.write(record, WriteOptions(lossy=lossy))

    def test_there_is_no_field_for_reasoning(self) -> None:
        record = {"conversations": [{"role": "user", "content": "x"}], "metadata": {}}
        with pytest.raises(InvalidQueryError, match="use reasoning='think'"):
            SHAREGPT.write(record, WriteOptions(reasoning="field"))

    def test_what_one_format_needs_is_not_written_in_another(self) -> None:
        record = SHAREGPT.read(ROWS["tools as of LLaMA-Factory"])
        (row,) = shape_named("messages").write(record, WHOLE)
        assert row.keys() == {"messages", "tools"}
        assert shape_named("messages").read(row)["conversations"] == record["conversations"]
