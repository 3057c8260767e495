"""The formats `messages`, `openai` and `oumi`."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from afterimage.storage.errors import InvalidQueryError, InvalidRecordError
from afterimage.storage.formats.registry import shape_named
from afterimage.storage.formats.shape import NotRepresentableError, WriteOptions
from tests.formats.examples import (
    WHOLE,
    WHOLE_WITH_REASONING,
    assert_round_trip,
    odd_messages,
    odd_tools,
    others,
    records,
    texts,
)

MESSAGES, OPENAI = shape_named("messages"), shape_named("openai")
CALL = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": '{"n":1}'}}
TALK: list[dict[str, Any]] = [
    {"role": "system", "content": "Be kind."},
    {"role": "user", "name": "ann", "content": [{"type": "text", "text": "f of 1?"}]},
    {"role": "assistant", "content": None, "tool_calls": [CALL], "weight": 0},
    {"role": "tool", "tool_call_id": "c1", "content": "2"},
    {"role": "assistant", "content": "It is 2."},
]
TOOL = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}

ROWS: dict[str, dict[str, Any]] = {
    "everything of OpenAI": {
        "messages": TALK,
        "tools": [TOOL],
        "parallel_tool_calls": False,
    },
    "functions before there were tools": {
        "messages": [
            {"role": "user", "content": "f of 1?"},
            {
                "role": "assistant",
                "content": None,
                "function_call": {"name": "f", "arguments": "{}"},
            },
            {"role": "function", "name": "f", "content": "2"},
            {"role": "assistant", "content": "It is 2.", "weight": 1},
        ],
        "functions": [{"name": "f", "parameters": {}}],
    },
    "arguments as objects": {
        "messages": [
            {"role": "user", "content": "Go"},
            {
                "role": "assistant",
                "content": "",
                "tool_calls": [
                    {"type": "function", "function": {"name": "f", "arguments": {"n": [1, None]}}},
                    {"name": "g", "arguments": {"x": 1.0}},
                ],
            },
        ],
        "tools": '[{"type": "function", "function": {"name": "f"}}]',
    },
    "the system message beside": {
        "system": "A system message of some length.",
        "messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}],
    },
    "thinking under another name": {
        "messages": [
            {"role": "user", "content": "Hi"},
            {"role": "assistant", "thinking": "A greeting, it seems.", "content": "Hello"},
        ]
    },
    "images beside": {
        "messages": [
            {"content": "<image>Who?", "role": "user"},
            {"content": "Kane.", "role": "assistant"},
        ],
        "images": ["1.jpg"],
    },
    "a label beside": {
        "messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Yo"}],
        "label": True,
    },
}


class TestRoundTrip:
    @pytest.mark.parametrize("row", ROWS.values(), ids=ROWS)
    def test_known_rows_come_back(self, row: dict[str, Any]) -> None:
        assert_round_trip("messages", row, WHOLE_WITH_REASONING)

    @given(
        st.fixed_dictionaries(
            {"messages": st.lists(odd_messages(), max_size=4)},
            optional={"tools": odd_tools, "system": texts, "metadata": st.just({"in": 1})},
        ),
        others,
    )
    def test_any_row_comes_back(self, row: dict[str, Any], other: dict[str, Any]) -> None:
        row["messages"].append({"role": "assistant", "content": "end"})
        assert_round_trip("messages", {**other, **row}, WHOLE_WITH_REASONING)

    @given(records())
    def test_any_record_comes_back(self, record: dict[str, Any]) -> None:
        (row,) = MESSAGES.write(record, WHOLE_WITH_REASONING)
        assert MESSAGES.read(row) == record


class TestRead:
    def test_older_and_other_spellings_are_in_our_form(self) -> None:
        old = MESSAGES.read(ROWS["functions before there were tools"])
        assert old["conversations"][1]["tool_calls"] == [
            {"type": "function", "function": {"name": "f", "arguments": "{}"}}
        ]
        assert old["conversations"][2] == {"role": "tool", "name": "f", "content": "2"}
        assert old["tools"] == [{"type": "function", "function": {"name": "f", "parameters": {}}}]
        objects = MESSAGES.read(ROWS["arguments as objects"])
        first, second = objects["conversations"][1]["tool_calls"]
        assert first["function"]["arguments"] == '{"n": [1, null]}'
        assert second == {"type": "function", "function": {"name": "g", "arguments": '{"x": 1.0}'}}
        thinking = MESSAGES.read(ROWS["thinking under another name"])
        assert thinking["conversations"][1]["reasoning_content"] == "A greeting, it seems."

    def test_what_is_in_our_form_stays_as_it_is(self) -> None:
        record = MESSAGES.read(ROWS["everything of OpenAI"])
        assert record == {
            "conversations": TALK,
            "tools": [TOOL],
            "metadata": {"parallel_tool_calls": False},
        }

    @pytest.mark.parametrize(
        ("row", "reason"),
        [
            ({"text": "x"}, "no key 'messages', which format 'messages' needs"),
            ({"messages": None}, "no key 'messages'"),
            ({"messages": "x"}, "messages is not a list of messages: 'x'"),
            ({"messages": ["x"]}, r"messages\.0 is not a message: 'x'"),
            (
                {"messages": [*TALK[:3], {"role": "critic", "content": "x"}]},
                r"messages\.3\.role is 'critic'; known roles: system, developer, user",
            ),
            ({"messages": [{"content": "x"}]}, r"messages\.0\.role is missing"),
            (
                {"messages": [{"role": ["user"], "content": "x"}]},
                r"messages\.0\.role is \['user'\]",
            ),
            ({"messages": [{"role": "user", "content": 5}]}, r"messages\.0\.content is 5; it must"),
            (
                {"messages": [{"role": "user", "content": ["x"]}]},
                "a list of content parts",
            ),
            ({"messages": [{"role": "user", "content": "", "name": 5}]}, r"0\.name is 5"),
            (
                {"messages": [{"role": "user", "content": "", "tool_calls": 5}]},
                "list of tool call",
            ),
            ({"messages": [], "tools": "x"}, "tools is text that is not JSON"),
            ({"messages": [], "tools": [1]}, "tools is not a list of tools"),
            ({"messages": [], "tools": [], "functions": []}, "both tools and functions"),
            ({"messages": [], "system": 5}, "system is 5; it must be text"),
        ],
    )
    def test_what_is_no_row_is_refused_with_its_place(
        self, row: dict[str, Any], reason: str
    ) -> None:
        with pytest.raises(InvalidRecordError, match=reason):
            MESSAGES.read(row)


class TestWrite:
    def test_an_edited_record_is_written_as_it_is_now(self) -> None:
        record = MESSAGES.read(ROWS["thinking under another name"])
        record["conversations"][1]["content"] = "Good day"
        (row,) = MESSAGES.write(record, WHOLE_WITH_REASONING)
        assert row["messages"][1] == {
            "role": "assistant",
            "thinking": "A greeting, it seems.",
            "content": "Good day",
        }
        del record["conversations"][0]
        (row,) = MESSAGES.write(record, WHOLE_WITH_REASONING)
        assert row["messages"] == record["conversations"]

    def test_reasoning_is_left_out_or_put_where_the_option_says(self) -> None:
        record = MESSAGES.read(ROWS["thinking under another name"])
        (row,) = MESSAGES.write(record)
        assert row["messages"][1] == {"role": "assistant", "content": "Hello"}
        (row,) = MESSAGES.write(record, WriteOptions(reasoning="think"))
        assert row["messages"][1]["content"] == "<think>\nA greeting, it seems.\n</think>\n\nHello"

    def test_a_system_prompt_is_put_before_those_that_have_none(self) -> None:
        with_prompt = WriteOptions(system_prompt="Be brief.")
        (row,) = MESSAGES.write(MESSAGES.read({"messages": TALK}), with_prompt)
        assert row["messages"] == TALK
        (row,) = MESSAGES.write(MESSAGES.read({"messages": TALK[1:]}), with_prompt)
        assert row["messages"] == [{"role": "system", "content": "Be brief."}, *TALK[1:]]

    def test_no_answer_has_no_row_but_in_oumi(self) -> None:
        record = {"conversations": TALK[:2], "metadata": {}}
        with pytest.raises(NotRepresentableError, match="no answer"):
            MESSAGES.write(record)
        assert shape_named("oumi").write(record) == [{"messages": TALK[:2]}]
        with pytest.raises(NotRepresentableError, match="no messages"):
            shape_named("oumi").write({"conversations": [], "metadata": {}})

    def test_trim_ends_at_the_last_answer(self) -> None:
        record = {"conversations": TALK[:4], "metadata": {}}
        assert MESSAGES.write(record, WriteOptions(trim=True)) == [{"messages": TALK[:3]}]
        with pytest.raises(NotRepresentableError, match="no answer"):
            shape_named("oumi").write(
                {"conversations": TALK[:2], "metadata": {}}, WriteOptions(trim=True)
            )

    def test_other_records_have_no_row(self) -> None:
        pair: dict[str, Any] = {"prompt": [], "chosen": [], "rejected": [], "metadata": {}}
        with pytest.raises(NotRepresentableError, match="a preference pair has no place in messag"):
            MESSAGES.write(pair)


class TestOpenAI:
    def test_the_last_message_is_an_answer(self) -> None:
        record = {"conversations": TALK[:4], "metadata": {}}
        with pytest.raises(NotRepresentableError) as caught:
            OPENAI.write(record)
        assert caught.value.reason == "ends with the tool"

    def test_calls_and_results_have_ids(self) -> None:
        record = MESSAGES.read(ROWS["functions before there were tools"])
        (row,) = OPENAI.write(record)
        call = row["messages"][1]["tool_calls"][0]
        assert call["id"] == "call00000"
        assert row["messages"][2]["tool_call_id"] == "call00000"
        assert row["tools"][0]["type"] == "function"
        with pytest.raises(NotRepresentableError, match="a tool result without a call"):
            OPENAI.write(
                {"conversations": [{"role": "tool", "content": ""}, TALK[4]], "metadata": {}}
            )

    def test_keys_that_the_api_does_not_know_are_refused_or_dropped(self) -> None:
        message = {"role": "assistant", "content": "x", "loss": 1}
        record = {"conversations": [message], "metadata": {}}
        with pytest.raises(NotRepresentableError, match=r"0: key 'loss' of a message has no place"):
            OPENAI.write(record)
        (row,) = OPENAI.write(record, WriteOptions(lossy=True))
        assert row == {"messages": [{"role": "assistant", "content": "x"}]}

    def test_there_is_no_field_for_reasoning(self) -> None:
        with pytest.raises(InvalidQueryError, match="no field for reasoning"):
            OPENAI.write({"conversations": TALK, "metadata": {}}, WHOLE_WITH_REASONING)

    def test_what_it_documents_comes_back(self) -> None:
        assert_round_trip("openai", ROWS["everything of OpenAI"], WHOLE)
