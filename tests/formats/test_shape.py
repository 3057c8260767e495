"""What all formats have in common."""

from __future__ import annotations

import json
import pickle
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from afterimage.storage.errors import InvalidQueryError, InvalidRecordError, StorageError
from afterimage.storage.formats.registry import READABLE, WRITABLE, shape_named
from afterimage.storage.formats.shape import Losses, NotRepresentableError, WriteOptions
from tests.formats.examples import json_values, odd_messages, records, texts

FOREIGN = sorted({*READABLE} - {"native", "raw"})
WRITTEN = sorted({*WRITABLE} - {"native", "raw"})
# Every key that some format looks at, with values that it does not expect.
_KEYS = st.sampled_from(
    [
        "messages", "conversations", "role", "content", "from", "value", "tools", "system", "name",
        "tool_calls", "function", "arguments", "function_call", "functions", "type", "text",
        "instruction", "input", "output", "history", "prompt", "completion", "chosen", "rejected",
        "preferred_output", "non_preferred_output", "shared_prefix", "contents", "parts",
        "functionCall", "functionResponse", "functionDeclarations", "systemInstruction", "args",
        "response", "task", "turns", "agent_thought", "tool_call", "observation", "action",
        "final_answer", "metadata", "reasoning_content", "thinking", "id",
    ]
)  # fmt: skip
_VALUES = st.recursive(
    json_values | st.sampled_from(["user", "assistant", "tool", "human", "gpt", "function_call"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_KEYS, inner, max_size=4),
    max_leaves=12,
)


@st.composite
def _any_row(draw: st.DrawFn, name: str) -> dict[str, Any]:
    row = draw(st.dictionaries(_KEYS, _VALUES, max_size=4))
    return {**row, **{key: draw(_VALUES) for key in shape_named(name).keys}}


class TestAnyObject:
    @pytest.mark.parametrize("name", FOREIGN)
    @given(st.data())
    def test_it_is_read_or_refused_with_a_short_reason(self, name: str, data: Any) -> None:
        row = data.draw(_any_row(name))
        shape = shape_named(name)
        before = json.dumps(row)
        try:
            record = shape.read(row)
        except InvalidRecordError as error:
            assert len(str(error)) < 500  # noqa: PT017
            return
        finally:
            assert json.dumps(row) == before
        if name in WRITTEN:
            try:
                assert len(shape.write(record, WriteOptions(lossy=True))) == 1
            except NotRepresentableError as error:
                assert error.reason  # noqa: PT017

    @pytest.mark.parametrize("row", [None, [], "x", 5])
    def test_what_is_no_object_is_refused(self, row: Any) -> None:
        for name in FOREIGN:
            with pytest.raises(InvalidRecordError, match="a record must be an object"):
                shape_named(name).read(row)


class TestBetweenFormats:
    @pytest.mark.parametrize("name", sorted({*WRITTEN} - {"preference", "dpo"}))
    @given(st.lists(odd_messages(), max_size=4), texts)
    def test_what_a_row_needs_to_come_back_is_in_no_other_format(
        self, name: str, messages: list[dict[str, Any]], system: str
    ) -> None:
        messages = [*messages, {"role": "assistant", "content": "end"}]
        record = shape_named("messages").read({"messages": messages, "system": system, "n": 1})
        try:
            (row,) = shape_named(name).write(
                record, WriteOptions(lossy=True, columns=("metadata.*",))
            )
        except NotRepresentableError:
            return
        assert "source_format" not in json.dumps(row)
        assert row["n"] == 1

    @pytest.mark.parametrize("name", sorted({*WRITTEN} - {"preference", "dpo"}))
    @given(records(), st.sampled_from([None, "think"]))
    def test_nothing_is_written_or_all_that_a_message_says(
        self, name: str, record: dict[str, Any], reasoning: Any
    ) -> None:
        options = WriteOptions(reasoning=reasoning)
        before = json.dumps(record)
        try:
            (row,) = shape_named(name).write(record, options)
        except NotRepresentableError:
            return
        finally:
            assert json.dumps(record) == before
        written = json.dumps(row)
        for message in record["conversations"]:
            content = message["content"] or ""
            for text in [content] if isinstance(content, str) else map(_text_of, content):
                assert json.dumps(text)[1:-1] in written
            for call in message.get("tool_calls", ()):
                assert call["function"]["name"] in written
        for tool in record.get("tools", ()):
            assert tool["function"]["name"] in written

    @pytest.mark.parametrize("name", sorted({*WRITTEN} - {"preference", "dpo"}))
    @given(records())
    def test_what_is_left_out_has_a_name(self, name: str, record: dict[str, Any]) -> None:
        losses, none = Losses(allowed=True), Losses(allowed=False)
        shape = shape_named(name)
        try:
            rows = shape.write(record, WriteOptions(lossy=True), losses)
        except NotRepresentableError:
            return
        named = losses.names - {"reasoning", "other turns"}
        try:
            assert shape.write(record, WriteOptions(), none) == rows
        except NotRepresentableError as error:
            assert named or not error.is_loss  # noqa: PT017
        else:
            assert not named
            assert none.names == losses.names

    def test_an_edit_of_any_field_is_written(self) -> None:
        shape = shape_named("sharegpt")
        turns = [{"from": "user", "value": "Hi"}, {"from": "assistant", "value": "Hello"}]
        record = shape.read({"conversations": turns, "system": "A long system message, kept."})
        record["conversations"][0]["content"] = "Be brief."
        record["conversations"][2]["content"] = "Good day"
        (row,) = shape.write(record)
        assert row["system"] == "Be brief."
        assert row["conversations"][1] == {"from": "assistant", "value": "Good day"}

    @pytest.mark.parametrize("note", [5, {}, {"name": "messages", "values": 5},
                                      {"name": "messages", "absent": ["/x/y"]},
                                      {"name": "messages", "moved": {"/a": "/b"}},
                                      {"name": "messages", "layout": 5}])  # fmt: skip
    def test_a_damaged_note_is_ignored(self, note: Any) -> None:
        messages = [{"role": "assistant", "content": "Hello"}]
        record = {"conversations": messages, "metadata": {"source_format": note}}
        assert shape_named("messages").write(record) == [{"messages": messages}]


def _text_of(part: dict[str, Any]) -> str:
    return str(part.get("text", part.get("image_url", {}).get("url")))


class TestTime:
    @pytest.mark.parametrize("name", sorted({*WRITTEN} - {"preference", "dpo"}))
    def test_it_is_linear_in_the_number_of_messages(self, name: str) -> None:
        pair = [{"role": "user", "content": "x"}, {"role": "assistant", "content": "y"}]
        shape = shape_named(name)
        start = time.perf_counter()
        (row,) = shape.write({"conversations": pair * 20_000, "metadata": {}})
        wanted = pair if name == "alpaca" else pair * 20_000
        assert shape.read(row)["conversations"] == wanted
        assert time.perf_counter() - start < 2


class TestErrors:
    def test_a_reason_is_the_same_for_all_records_with_it(self) -> None:
        error = NotRepresentableError("no answer", "messages.3")
        assert str(error) == "messages.3: no answer"
        assert error.reason == "no answer"
        assert isinstance(error, StorageError)
        copy = pickle.loads(pickle.dumps(error))
        assert (copy.reason, copy.place) == (error.reason, error.place)

    def test_a_column_that_is_no_path_is_refused(self) -> None:
        record = {"conversations": [{"role": "assistant", "content": ""}], "metadata": {}}
        with pytest.raises(InvalidQueryError, match="empty step"):
            shape_named("messages").write(record, WriteOptions(columns=("metadata.",)))
