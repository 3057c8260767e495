"""Keys that a format does not name."""

from __future__ import annotations

from typing import Any

import pytest

from afterimage.storage.errors import InvalidQueryError, InvalidRecordError
from afterimage.storage.formats.registry import shape_named
from afterimage.storage.formats.shape import WriteOptions

TALK: list[dict[str, Any]] = [
    {"role": "user", "content": "Hi"},
    {"role": "assistant", "content": "Hello"},
]


class TestNames:
    def test_the_users_names_are_read_as_those_of_the_format(self) -> None:
        row = {"question": "Why?", "response": "So.", "category": "open"}
        fields = {"question": "instruction", "response": "output"}
        record = shape_named("alpaca").read(row, fields)
        assert [message["content"] for message in record["conversations"]] == ["Why?", "So."]
        assert record["metadata"]["category"] == "open"

    def test_common_names_need_no_fields(self) -> None:
        messages = shape_named("messages").read({"conversation": TALK, "system_prompt": "Be kind."})
        assert messages["conversations"] == [{"role": "system", "content": "Be kind."}, *TALK]
        turns = [{"from": "human", "value": "Hi"}]
        sharegpt = shape_named("sharegpt").read({"conversation": turns, "system_prompt": "S"})
        assert [message["content"] for message in sharegpt["conversations"]] == ["S", "Hi"]

    @pytest.mark.parametrize(
        ("row", "fields"),
        [
            ({"messages": TALK, "conversation": TALK}, {}),
            ({"messages": TALK, "talk": TALK}, {"talk": "messages"}),
        ],
    )
    def test_two_keys_of_one_name_are_refused(
        self, row: dict[str, Any], fields: dict[str, str]
    ) -> None:
        with pytest.raises(InvalidRecordError, match="are both read as 'messages'"):
            shape_named("messages").read(row, fields)

    def test_any_key_can_be_given_another_name(self) -> None:
        row = {"messages": TALK, "id": 1, "metadata": {"id": 2}}
        with pytest.raises(InvalidRecordError, match="'id' is in the record and in its metadata"):
            shape_named("messages").read(row)
        record = shape_named("messages").read(row, {"id": "row_id"})
        assert record["metadata"]["row_id"] == 1
        assert record["metadata"]["id"] == 2


class TestMetadata:
    def test_other_keys_and_those_of_metadata_come_back_to_where_they_stood(self) -> None:
        row = {"messages": TALK, "id": 7, "metadata": {"split": "a", "none": None}, "label": None}
        record = shape_named("messages").read(row)
        assert record["metadata"]["id"] == 7
        assert record["metadata"]["split"] == "a"
        options = WriteOptions(columns=("metadata.*",))
        assert shape_named("messages").write(record, options) == [row]
        (line,) = shape_named("sharegpt").write(record, options)
        assert line["split"] == "a"
        assert "metadata" not in line

    def test_the_reserved_key_is_refused_in_a_row(self) -> None:
        with pytest.raises(InvalidRecordError, match="'source_format' is reserved"):
            shape_named("messages").read({"messages": TALK, "source_format": "x"})

    def test_the_whole_metadata_as_a_column_is_read_again(self) -> None:
        record = {"conversations": TALK, "metadata": {"a": 1, "b": {"c": [None]}}}
        (row,) = shape_named("messages").write(record, WriteOptions(columns=("metadata",)))
        back = shape_named("messages").read(row)
        del back["metadata"]["source_format"]
        assert back == record


class TestChosenColumns:
    RECORD: dict[str, Any] = {
        "conversations": TALK,
        "metadata": {"domain": "Trains", "k.l": 1, "deep": {"n": 2}, "messages": 3},
        "persona": "a driver",
    }

    def test_they_come_along_under_their_last_name(self) -> None:
        columns = ("metadata.domain", 'metadata."k.l"', "metadata.deep.n", "persona", "final_score")
        (row,) = shape_named("messages").write(self.RECORD, WriteOptions(columns=columns))
        del row["messages"]
        assert row == {
            "domain": "Trains",
            "k.l": 1,
            "n": 2,
            "persona": "a driver",
            "final_score": None,
        }

    @pytest.mark.parametrize(
        "columns",
        [("metadata.messages",), ("metadata.*",), ("persona", "metadata.deep.persona")],
    )
    def test_two_values_of_one_name_are_refused(self, columns: tuple[str, ...]) -> None:
        with pytest.raises(InvalidQueryError, match="cannot be added"):
            shape_named("messages").write(self.RECORD, WriteOptions(columns=columns))
