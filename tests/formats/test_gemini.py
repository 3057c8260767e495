"""The format `gemini`."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from afterimage.storage.errors import InvalidRecordError
from afterimage.storage.formats.registry import detect, shape_named
from afterimage.storage.formats.shape import NotRepresentableError, WriteOptions
from tests.formats.examples import (
    WHOLE,
    WHOLE_WITH_REASONING,
    assert_round_trip,
    full_texts,
    json_objects,
    names,
    others,
    texts,
    tools,
)

GEMINI = shape_named("gemini")

ROWS: dict[str, dict[str, Any]] = {
    "Vertex, with functions": {
        "systemInstruction": {"role": "system", "parts": [{"text": "You know the weather."}]},
        "contents": [
            {"role": "user", "parts": [{"text": "In Oslo and Rome?"}]},
            {
                "role": "model",
                "parts": [
                    {"functionCall": {"name": "weather", "args": {"city": "Oslo"}}},
                    {"functionCall": {"name": "weather", "args": {"city": "Rome"}}},
                ],
            },
            {
                "role": "user",
                "parts": [
                    {"functionResponse": {"name": "weather", "response": {"celsius": -3}}},
                    {"functionResponse": {"name": "weather", "response": {"result": "mild"}}},
                ],
            },
            {"role": "model", "parts": [{"text": "Cold, and mild."}]},
        ],
        "tools": [{"functionDeclarations": [{"name": "weather", "parameters": {}}]}],
    },
    "the library's names": {
        "system_instruction": {"parts": [{"text": "x"}]},
        "contents": [
            {"role": "user", "parts": [{"text": "Go"}]},
            {"role": "model", "parts": [{"function_call": {"name": "f", "args": {}}}]},
            {
                "role": "function",
                "parts": [{"function_response": {"name": "f", "response": {"n": 1}}}],
            },
        ],
    },
    "thoughts, images and more": {
        "contents": [
            {
                "parts": [
                    {"text": "What is this?"},
                    {"fileData": {"mimeType": "image/png", "fileUri": "gs://b/1.png"}},
                ]
            },
            {
                "role": "model",
                "parts": [{"text": "An image.", "thought": True}, {"text": "a"}, {"text": "b"}],
            },
            {"role": "model", "parts": [{"functionCall": {"name": "f"}}, {"text": "after it"}]},
        ],
        "tools": [{"googleSearch": {}}],
        "generationConfig": {"temperature": 1.0},
    },
}

_parts = (
    st.fixed_dictionaries({"text": texts})
    | st.fixed_dictionaries({"text": texts, "thought": st.just(True)})
    | st.fixed_dictionaries({"inlineData": json_objects})
    | st.fixed_dictionaries(
        {"functionCall": st.fixed_dictionaries({"name": names}, optional={"args": json_objects})},
        optional={"thoughtSignature": texts},
    )
    | st.fixed_dictionaries(
        {
            "functionResponse": st.fixed_dictionaries(
                {"name": names, "response": json_objects | st.just({"result": "{}"})},
                optional={"id": texts},
            )
        }
    )
    | st.fixed_dictionaries(
        {"function_call": st.fixed_dictionaries({"name": names, "args": json_objects})}
    )
)
_contents = st.fixed_dictionaries(
    {"parts": st.lists(_parts, min_size=1, max_size=3)},
    optional={"role": st.sampled_from(["user", "model", "function"]), "weight": st.integers()},
)


class TestRoundTrip:
    @pytest.mark.parametrize("row", ROWS.values(), ids=ROWS)
    def test_known_rows_come_back(self, row: dict[str, Any]) -> None:
        assert detect([row]).name == "gemini"
        assert_round_trip("gemini", row, WHOLE_WITH_REASONING)

    @given(
        st.fixed_dictionaries(
            {"contents": st.lists(_contents, min_size=1, max_size=4)},
            optional={
                "systemInstruction": texts
                | st.fixed_dictionaries({"parts": st.lists(_parts, min_size=1, max_size=2)}),
                "tools": st.lists(
                    st.fixed_dictionaries(
                        {"functionDeclarations": st.lists(json_objects, max_size=2)}
                    )
                    | st.just({"googleSearch": {}}),
                    max_size=2,
                ),
            },
        ),
        others,
    )
    def test_any_row_comes_back(self, row: dict[str, Any], other: dict[str, Any]) -> None:
        assert_round_trip("gemini", {**other, **row}, WHOLE_WITH_REASONING)

    @given(
        st.lists(
            st.fixed_dictionaries({"role": st.just("user"), "content": texts})
            | st.fixed_dictionaries(
                {"role": st.just("assistant"), "content": texts},
                optional={"reasoning_content": texts, "weight": st.integers()},
            )
            | st.builds(
                lambda name, given, known, content: {
                    "role": "assistant",
                    "content": content,
                    "tool_calls": [
                        {
                            "type": "function",
                            "function": {
                                "name": name,
                                "arguments": json.dumps(given, ensure_ascii=False),
                            },
                            **known,
                        }
                    ],
                },
                names,
                json_objects,
                st.fixed_dictionaries({}, optional={"id": full_texts}),
                texts | st.none(),
            )
            | st.fixed_dictionaries(
                {
                    "role": st.just("tool"),
                    "name": names,
                    "content": texts | st.just('{"result": "x"}'),
                },
                optional={"tool_call_id": texts},
            ),
            min_size=1,
            max_size=5,
        ),
        st.booleans(),
        st.lists(tools, max_size=2),
        others,
    )
    def test_any_record_that_has_a_place_comes_back(
        self, messages: list[Any], with_system: bool, its_tools: list[Any], other: dict[str, Any]
    ) -> None:
        if with_system:
            messages = [{"role": "system", "content": "Be brief."}, *messages]
        record: dict[str, Any] = {"conversations": messages, "metadata": other}
        if its_tools:
            record["tools"] = its_tools
        assert GEMINI.read(GEMINI.write(record, WHOLE_WITH_REASONING)[0]) == record


class TestRead:
    def test_calls_and_results_are_in_our_form(self) -> None:
        record = GEMINI.read(ROWS["Vertex, with functions"])
        assert "source_format" not in record["metadata"]
        messages = record["conversations"]
        assert [message["role"] for message in messages] == [
            "system", "user", "assistant", "tool", "tool", "assistant",
        ]  # fmt: skip
        assert messages[2]["tool_calls"][0]["function"] == {
            "name": "weather",
            "arguments": '{"city": "Oslo"}',
        }
        assert messages[3] == {"role": "tool", "name": "weather", "content": '{"celsius": -3}'}
        assert messages[4]["content"] == "mild"
        assert record["tools"] == [
            {"type": "function", "function": {"name": "weather", "parameters": {}}}
        ]

    def test_it_is_written_as_messages(self) -> None:
        record = GEMINI.read(ROWS["Vertex, with functions"])
        (row,) = shape_named("openai").write(record, WHOLE)
        ids = [call["id"] for call in row["messages"][2]["tool_calls"]]
        assert [message["tool_call_id"] for message in row["messages"][3:5]] == ids

    def test_thoughts_and_other_parts_are_kept(self) -> None:
        record = GEMINI.read(ROWS["thoughts, images and more"])
        user, thinking, _ = record["conversations"]
        assert user["content"][1]["fileData"]["fileUri"] == "gs://b/1.png"
        assert thinking["reasoning_content"] == "An image."
        assert record["tools"] == [{"googleSearch": {}}]

    @pytest.mark.parametrize(
        ("row", "reason"),
        [
            ({"contents": "x"}, "contents is not a list: 'x'"),
            ({"contents": [{"role": "user"}]}, r"contents\.0 has no list of parts"),
            ({"contents": [{"role": "bot", "parts": []}]}, r"contents\.0\.role is 'bot'"),
            ({"contents": [{"parts": ["x"]}]}, r"contents\.0\.parts\.0 is not an object"),
            ({"contents": [], "systemInstruction": 5}, "systemInstruction has no list of parts: 5"),
        ],
    )
    def test_what_is_no_row_is_refused_with_its_place(
        self, row: dict[str, Any], reason: str
    ) -> None:
        with pytest.raises(InvalidRecordError, match=reason):
            GEMINI.read(row)


class TestWrite:
    @pytest.mark.parametrize(
        ("messages", "reason"),
        [
            (
                [{"role": "user", "content": "x"}, {"role": "system", "content": "y"}],
                "a system message after others has no place in gemini",
            ),
            (
                [
                    {
                        "role": "user",
                        "content": [{"type": "image_url"}, {"type": "text", "text": "x"}],
                    }
                ],
                "a content part of type 'image_url' has no place in gemini",
            ),
            (
                [{"role": "developer", "content": "y"}, {"role": "user", "content": "x"}],
                "the role developer has no place in gemini",
            ),
            (
                [
                    {
                        "role": "assistant",
                        "content": "x",
                        "tool_calls": [{"type": "custom", "custom": {}}],
                    }
                ],
                "a call whose arguments are not an object has no place in gemini",
            ),
        ],
    )
    def test_what_has_no_place_is_refused_or_dropped(
        self, messages: list[dict[str, Any]], reason: str
    ) -> None:
        record = {"conversations": messages, "metadata": {}}
        with pytest.raises(NotRepresentableError) as caught:
            GEMINI.write(record)
        assert caught.value.reason == reason
        (row,) = GEMINI.write(record, WriteOptions(lossy=True))
        assert [content["parts"] for content in row["contents"]] == [[{"text": "x"}]]

    def test_the_name_of_a_result_is_that_of_its_call(self) -> None:
        call = {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{}"}}
        record = {
            "conversations": [
                {"role": "assistant", "content": None, "tool_calls": [call]},
                {"role": "tool", "content": "1", "tool_call_id": "c"},
            ],
            "metadata": {},
        }
        (row,) = GEMINI.write(record)
        result = row["contents"][1]["parts"][0]["functionResponse"]
        assert result == {"name": "f", "response": {"result": "1"}, "id": "c"}
