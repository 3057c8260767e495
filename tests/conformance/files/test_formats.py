"""Files in the formats of other tools come in and go out again as they were."""

from __future__ import annotations

import io
import json
import tempfile
from pathlib import Path
from typing import Any

import pytest

from afterimage.storage import (
    ChatConversation,
    CorruptRecordError,
    InvalidQueryError,
    PreferencePair,
    StorageError,
    UnsupportedFileError,
)

CALL = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": '{"b":1,"a":2}'}}
TOOLS = [{"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}]

ROWS: dict[str, list[dict[str, Any]]] = {
    "messages": [
        {
            "messages": [
                {"role": "system", "content": "Be \u2028 brief."},
                {"role": "user", "content": [{"type": "text", "text": "Hi"}], "name": "Ada"},
                {"role": "assistant", "content": None, "tool_calls": [CALL], "weight": 0},
                {"role": "tool", "content": "12", "tool_call_id": "c1"},
                {"role": "assistant", "content": "12 °C"},
            ],
            "tools": TOOLS,
            "label": True,
            "id": "x-1",
        },
        {"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Yo"}]},
    ],
    "sharegpt": [
        {
            "conversations": [
                {"from": "human", "value": "Hi"},
                {"from": "function_call", "value": '{"name": "f", "arguments": {"a": 1}}'},
                {"from": "observation", "value": "12"},
                {"from": "gpt", "value": "12 °C"},
            ],
            "system": "Be brief.",
            "tools": json.dumps(TOOLS),
        }
    ],
    "alpaca": [
        {"instruction": "Add.", "input": "1 and 1", "output": "2"},
        {"instruction": "And 3?", "input": "", "output": "4", "history": [["1?", "2"]]},
    ],
    "gemini": [
        {
            "systemInstruction": {"parts": [{"text": "Be brief."}]},
            "contents": [
                {"role": "user", "parts": [{"text": "Hi"}]},
                {"role": "model", "parts": [{"text": "Yo"}]},
            ],
        }
    ],
    "preference": [
        {"prompt": "Hi", "chosen": "Hello!", "rejected": "What?", "source": "a"},
        {
            "prompt": [{"role": "user", "content": "Hi"}],
            "chosen": [{"role": "assistant", "content": "Hello!"}],
            "rejected": [{"role": "assistant", "content": "What?"}],
        },
    ],
    "prompt-completion": [{"prompt": "The sky is", "completion": " blue."}],
}
IMAGE = {"type": "image_url", "image_url": {"url": "a.png"}}
# One conversation and one pair with everything that some format has no place for.
RICH: dict[str, dict[str, Any]] = {
    "messages": {
        "messages": [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": "Look", "name": "Ada"},
            {"role": "assistant", "content": "I look.", "tool_calls": [CALL], "weight": 0},
            {"role": "tool", "content": "12", "tool_call_id": "c1", "cached": True},
            {"role": "assistant", "content": "12 °C", "reasoning_content": "Easy.", "from": "x"},
            {"role": "developer", "content": "Be polite."},
            {"role": "user", "content": [{"type": "text", "text": "This?"}, IMAGE]},
            {"role": "assistant", "content": "A cat", "parts": 1},
        ],
        "tools": [*TOOLS, {"type": "web_search"}],
    },
    "preference": {
        "prompt": [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": "Hm"},
            {"role": "user", "content": "Hi", "name": "Ada"},
        ],
        "chosen": [
            {"role": "assistant", "content": None, "tool_calls": [CALL]},
            {"role": "assistant", "content": "Hello!", "weight": 1},
        ],
        "rejected": [{"role": "assistant", "content": "What?"}],
        "tools": TOOLS,
    },
}
_OTHERS = {"names": 1, "other keys of messages": 1, "tools": 1}
# What lines do not have of RICH.
WITHOUT: dict[str, dict[str, int]] = {
    "messages": {"reasoning": 1},
    "oumi": {"reasoning": 1},
    "prompt-completion": {"reasoning": 1},
    "openai": {"other keys of messages": 1, "reasoning": 1},
    "sharegpt": {
        "content parts": 1,
        "other keys of messages": 1,
        "reasoning": 1,
        "text beside tool calls": 1,
        "the role developer": 1,
    },
    "gemini": {
        "content parts": 1,
        "other keys of messages": 1,
        "reasoning": 1,
        "system messages": 1,
        "the role developer": 1,
        "tools": 1,
    },
    "alpaca": {
        **_OTHERS,
        "content parts": 1,
        "other turns": 1,
        "reasoning": 1,
        "system messages": 1,
        "tool calls": 1,
        "tool results": 1,
    },
    "dpo": {**_OTHERS, "other turns": 1, "tool calls": 1},
}


def stream(rows: list[dict[str, Any]]) -> io.StringIO:
    return io.StringIO("".join(json.dumps(row) + "\n" for row in rows))


def written(storage: Any, **options: Any) -> list[Any]:
    file = io.BytesIO()
    count = storage.export_jsonl(file, **options)
    lines = [*map(json.loads, file.getvalue().splitlines())]
    assert count == len(lines)
    return lines


class TestRoundTrips:
    @pytest.mark.parametrize("name", ROWS)
    @pytest.mark.parametrize("given", ["name", "auto"])
    def test_rows_come_back(self, storage: Any, name: str, given: str) -> None:
        count = storage.import_jsonl(stream(ROWS[name]), format="auto" if given == "auto" else name)
        assert (count, count.format) == (len(ROWS[name]), name)
        options = {"format": name, "columns": ["metadata.*"], "reasoning": None}
        assert written(storage, **options) == ROWS[name]

    @pytest.mark.parametrize("name", ROWS)
    def test_a_json_array_is_the_same_as_lines(
        self, storage: Any, tmp_path: Path, name: str
    ) -> None:
        (tmp_path / "rows.json").write_text(json.dumps(ROWS[name], indent=1), "utf-8")
        assert storage.import_jsonl(tmp_path / "rows.json", format=name) == len(ROWS[name])
        assert written(storage, format=name, columns=["metadata.*"]) == ROWS[name]

    def test_preference_pairs_are_records_of_their_own(self, storage: Any) -> None:
        count = storage.import_jsonl(stream(ROWS["preference"]), format="auto")
        assert (count.of_kind, count.others) == (0, 2)
        first, second = storage.load_records(PreferencePair)
        for pair in (first, second):
            assert [said.content for said in pair.chosen] == ["Hello!"]
            assert pair.rejected[0].role.value == "assistant"
        assert first.metadata["source"] == "a"

    def test_keys_by_other_names(self, storage: Any) -> None:
        rows = [{"question": "1?", "response": "2", "system_prompt": "Add 1."}]
        fields = {"question": "instruction", "response": "output"}
        storage.import_jsonl(stream(rows), format="alpaca", fields=fields)
        [talk] = storage.load_records(ChatConversation)
        assert [(said.role.value, said.content) for said in talk.conversations] == [
            ("system", "Add 1."),
            ("user", "1?"),
            ("assistant", "2"),
        ]


class TestImports:
    @pytest.mark.parametrize("name", ["messages", "sharegpt", "gemini"])
    def test_another_format_is_not_filed_away_as_other_records(
        self, storage: Any, name: str
    ) -> None:
        with pytest.raises(UnsupportedFileError, match=rf"line 1: .*format='{name}'"):
            storage.import_jsonl(stream(ROWS[name]))
        assert storage.count_records() == 0
        assert storage.import_jsonl(stream(ROWS[name]), kind="records") == len(ROWS[name])

    def test_a_row_that_cannot_be_converted_refuses_all_or_is_skipped(self, storage: Any) -> None:
        rows = [*ROWS["messages"], {"messages": [{"role": "critic", "content": "x"}]}]
        with pytest.raises(CorruptRecordError, match=r"line 3 .*messages\.0.*critic"):
            storage.import_jsonl(stream(rows), format="messages")
        assert storage.count_conversations() == 0
        with pytest.warns(UserWarning, match="skipped 1"):
            assert storage.import_jsonl(stream(rows), format="messages", on_error="skip") == 2

    def test_unknown_rows_are_refused_with_their_keys(self, storage: Any) -> None:
        with pytest.raises(UnsupportedFileError, match=r"'flavour'.*'sharegpt'"):
            storage.import_jsonl(stream([{"flavour": "sweet"}]), format="auto")

    @pytest.mark.parametrize(
        "options",
        [
            {"format": "chatml"},
            {"fields": {"a": "b"}},
            {"format": "messages", "fields": {"a": 1}},
            {"format": "messages", "kind": "documents"},
        ],
    )
    def test_wrong_options(self, storage: Any, options: Any) -> None:
        with pytest.raises(InvalidQueryError):
            storage.import_jsonl(stream(ROWS["messages"]), **options)

    def test_own_records_are_read_as_auto_too(self, storage: Any) -> None:
        rows = [{"conversations": [{"role": "user", "content": "Hi"}], "metadata": {"n": 1}}]
        assert storage.import_jsonl(stream(rows), format="auto").format == "native"


class TestExports:
    def test_what_has_no_place_is_an_error_or_left_out(self, storage: Any, tmp_path: Path) -> None:
        storage.import_jsonl(stream(ROWS["messages"]), format="messages")
        with pytest.raises(StorageError, match=r"record 1\b.*lossy=True") as raised:
            storage.export_jsonl(tmp_path / "out.jsonl", format="alpaca")
        assert "no place in alpaca" in str(raised.value)
        assert not (tmp_path / "out.jsonl").exists()
        lines = written(storage, format="alpaca", lossy=True)
        assert lines[-1] == {"instruction": "Hi", "input": "", "output": "Yo"}

    def test_conversations_without_a_line_are_counted_with_the_reason(self, storage: Any) -> None:
        rows = [{"messages": [{"role": "user", "content": "Hi"}]}, *ROWS["messages"]]
        storage.import_jsonl(stream(rows), format="messages")
        count = storage.export_jsonl(io.BytesIO(), format="messages")
        assert count == 2
        assert count.omitted.count == 1
        assert count.omitted.first[0].number == 1
        assert count.reasons == {"no answer": 1}

    def test_what_is_left_out_is_counted(self, storage: Any, tmp_path: Path) -> None:
        for chosen, rich in RICH.items():
            storage.import_jsonl(stream([rich, *ROWS[chosen][-1:]]), format=chosen)
        for name, names in WITHOUT.items():
            for columns in ([], ["metadata.*"]):
                count = storage.export_jsonl(io.BytesIO(), format=name, lossy=True, columns=columns)
                assert (count, count.dropped) == (2, names)
        count = storage.export_parquet(tmp_path / "out.parquet", format="openai", lossy=True)
        assert (count, count.dropped) == (2, WITHOUT["openai"])

    def test_without_lossy_only_reasoning_and_other_turns_are(self, storage: Any) -> None:
        talk = [
            {"role": "user", "content": "Hi"},
            {"role": "assistant", "content": "Yo", "reasoning_content": "Be short."},
        ]
        storage.import_jsonl(stream([{"messages": talk}, {"messages": talk * 2}]), format="auto")
        dropped = {
            name: storage.export_jsonl(io.BytesIO(), format=name).dropped
            for name in ("messages", "sharegpt", "openai", "gemini", "oumi", "alpaca")
        }
        reasoning = {"reasoning": 2}
        assert dropped == {
            **dict.fromkeys(dropped, reasoning),
            "alpaca": {**reasoning, "other turns": 1},
        }
        count = storage.export_jsonl(io.BytesIO(), format="sharegpt", reasoning="think")
        assert count.dropped == {}
        parts = {"train": 0.5, "test": 0.5}
        with tempfile.TemporaryDirectory() as folder:
            count = storage.export_jsonl(Path(folder, "s"), format="messages", split=parts)
        assert (count, count.dropped) == (2, reasoning)

    def test_trim_ends_at_the_last_answer(self, storage: Any) -> None:
        said = [*ROWS["messages"][1]["messages"], {"role": "user", "content": "Thanks"}]
        storage.import_jsonl(stream([{"messages": said}]), format="messages")
        assert written(storage, format="messages", trim=True) == [ROWS["messages"][1]]

    def test_a_system_prompt_is_put_before_conversations_that_have_none(self, storage: Any) -> None:
        storage.import_jsonl(stream(ROWS["messages"]), format="messages")
        first, second = written(storage, format="messages", system_prompt="Be polite.")
        assert first["messages"][0]["content"] == "Be \u2028 brief."
        assert second["messages"][0] == {"role": "system", "content": "Be polite."}

    def test_chosen_fields_come_along_under_their_last_name(self, storage: Any) -> None:
        storage.import_jsonl(stream(ROWS["messages"]), format="messages")
        first, second = written(storage, format="messages", columns=["metadata.label", "persona"])
        assert (first["label"], first["persona"]) == (True, None)
        assert second.get("label") is None

    def test_lines_have_no_separators_that_other_readers_split_on(self, storage: Any) -> None:
        storage.import_jsonl(stream(ROWS["messages"]), format="messages")
        file = io.BytesIO()
        storage.export_jsonl(file, format="messages")
        assert len(file.getvalue().decode().splitlines()) == 2

    def test_options_without_a_format(self, storage: Any) -> None:
        for options in ({"lossy": True}, {"trim": True}, {"columns": ["persona"]}):
            with pytest.raises(InvalidQueryError, match="require a format"):
                storage.export_jsonl(io.BytesIO(), **options)
