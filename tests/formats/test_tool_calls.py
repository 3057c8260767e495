"""Tools and tool calls."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from afterimage.storage.errors import InvalidRecordError
from afterimage.storage.formats.tool_calls import (
    flat_call,
    flat_tool,
    list_of,
    record_call,
    record_calls,
    record_tools,
)
from tests.formats.examples import json_objects, names, tools
from tests.formats.examples import record_calls as calls


class TestTools:
    @given(st.lists(tools, max_size=3))
    def test_tools_in_our_form_stay_as_they_are_and_come_back_from_flat_ones(
        self, given_tools: list[dict[str, Any]]
    ) -> None:
        assert record_tools(given_tools) == given_tools
        assert record_tools(json.dumps([*map(flat_tool, given_tools)])) == given_tools

    @pytest.mark.parametrize(
        "tool",
        [
            {"type": "web_search"},
            {"name": "f", "input_schema": {}},
            {"type": "function", "function": {"name": "f"}, "strict": True},
            {"type": "function", "function": {"name": "f", "type": "x"}},
            {"googleSearch": {}},
        ],
    )
    def test_other_tools_stay_as_they_are(self, tool: dict[str, Any]) -> None:
        assert record_tools([tool]) == [tool]
        assert flat_tool(tool) == tool


class TestCalls:
    @given(calls)
    def test_calls_in_our_form_come_back_from_flat_ones(self, call: dict[str, Any]) -> None:
        assert record_call(call) is call
        back = record_call(flat_call(call))
        arguments = [one["function"].pop("arguments") for one in (json.loads(json.dumps(back)),)]
        assert json.loads(arguments[0]) == json.loads(call["function"]["arguments"])
        assert back["function"]["name"] == call["function"]["name"]
        assert back.get("id") == call.get("id")

    @given(names, json_objects)
    def test_arguments_are_text_in_our_form(self, name: str, arguments: dict[str, Any]) -> None:
        for call in (
            {"name": name, "arguments": arguments},
            {"function": {"name": name, "arguments": arguments}},
        ):
            assert json.loads(record_call(call)["function"]["arguments"]) == arguments

    @pytest.mark.parametrize("text", ["", "5", "[1]", "{", "null"])
    def test_arguments_that_are_no_object_stay_text(self, text: str) -> None:
        call = {"type": "function", "function": {"name": "f", "arguments": text}}
        assert flat_call(call)["arguments"] == text
        assert record_call(flat_call(call)) == call

    @pytest.mark.parametrize("call", [{"type": "custom"}, {"function": 5}, {"x": 1}, {"name": 5}])
    def test_other_calls_stay_as_they_are(self, call: dict[str, Any]) -> None:
        assert record_calls([call], "x") == [call]
        assert flat_call(call) == call


class TestLists:
    def test_deep_text_is_refused(self) -> None:
        for text in ("[" * 100_000, "{", "nul"):
            with pytest.raises(InvalidRecordError, match="tools is text that is not JSON"):
                list_of(text, "tools", "tools")

    @pytest.mark.parametrize("text", ["", " ", "[]"])
    def test_empty_text_is_an_empty_list(self, text: str) -> None:
        assert list_of(text, "tools", "tools") == []
