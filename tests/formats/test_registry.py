"""Formats by name and by the keys of rows."""

from __future__ import annotations

from typing import Any

import pytest

from afterimage.storage.errors import InvalidQueryError, InvalidRecordError
from afterimage.storage.formats.registry import (
    READABLE,
    WRITABLE,
    detect,
    looks_foreign,
    shape_named,
)
from afterimage.storage.formats.shape import WriteOptions

USER = {"role": "user", "content": "Hi"}
TURN = {"from": "human", "value": "Hi"}

ROWS: list[tuple[str, dict[str, Any]]] = [
    ("messages", {"messages": [USER], "id": 1}),
    ("messages", {"messages": []}),
    ("messages", {"conversation": [USER], "model": "x"}),
    ("messages", {"conversations": [USER], "source": "x"}),
    ("native", {"conversations": [USER]}),
    ("native", {"conversations": [], "metadata": {}, "mood": "x"}),
    ("native", {"instruction": "", "context": "", "output": {}, "metadata": {}}),
    ("sharegpt", {"conversations": [TURN], "tools": "[]"}),
    ("sharegpt", {"conversation": [TURN]}),
    ("alpaca", {"instruction": "x", "input": "", "output": "y"}),
    ("preference", {"prompt": "x", "chosen": "y", "rejected": "z"}),
    ("preference", {"input": {}, "preferred_output": [], "non_preferred_output": []}),
    ("prompt-completion", {"prompt": "x", "completion": "y"}),
    ("gemini", {"contents": [{"parts": []}]}),
    ("agent-trace", {"task": "x", "turns": [], "final_answer": "y"}),
]


class TestNames:
    def test_every_name_is_a_format(self) -> None:
        for name in {*READABLE, *WRITABLE}:
            assert shape_named(name).name == name
        assert {*WRITABLE} <= {*READABLE}

    @pytest.mark.parametrize("name", ["chatml", None, ["messages"]])
    def test_another_name_is_refused_with_those_there_are(self, name: Any) -> None:
        with pytest.raises(InvalidQueryError, match=r"unknown format .*; use 'native'"):
            shape_named(name)

    def test_native_rows_are_the_records(self) -> None:
        record = {"conversations": [USER], "metadata": {"source_format": {}}}
        for name in ("native", "raw"):
            assert shape_named(name).write(shape_named(name).read(record)) == [record]
            with pytest.raises(InvalidQueryError, match="does not support columns"):
                shape_named(name).write(record, WriteOptions(columns=("metadata.*",)))


class TestDetect:
    @pytest.mark.parametrize(("name", "row"), ROWS)
    def test_rows_are_known_by_their_keys(self, name: str, row: dict[str, Any]) -> None:
        assert detect([row, row]).name == name

    def test_the_users_names_of_keys_count(self) -> None:
        row = {"question": "x", "response": "y", "context": ""}
        fields = {"question": "instruction", "response": "output", "context": "input"}
        assert detect([row], fields).name == "alpaca"

    @pytest.mark.parametrize(
        ("rows", "reason"),
        [
            ([], "there are no records"),
            ([{"text": "x", "n": 1}], r"not known by its keys \('text', 'n'\); name it \('native'"),
            ([[1]], r"the first record is \[1\]; records must be objects"),
            ([{"role": "user", "content": "", "id": 1}], "use format 'rows' with group_by"),
            ([ROWS[0][1], {"text": 1}, ROWS[7][1]], "record 3 like 'sharegpt'"),
        ],
    )
    def test_what_is_not_known_is_refused(self, rows: list[Any], reason: str) -> None:
        with pytest.raises(InvalidRecordError, match=reason):
            detect(rows)


class TestLooksForeign:
    @pytest.mark.parametrize(
        ("name", "record"),
        [
            ("messages", {"messages": [USER]}),
            ("messages", {"conversation": [USER], "x": 1}),
            ("gemini", {"contents": [{"parts": []}]}),
            ("sharegpt", {"conversations": [TURN]}),
            (None, {"conversations": [USER]}),
            (None, {"messages": ["x"]}),
            (None, {"messages": []}),
            (None, {"instruction": "", "output": "", "metadata": {}}),
        ],
    )
    def test_only_conversations_of_others_do(self, name: str | None, record: Any) -> None:
        assert looks_foreign(record) == name
