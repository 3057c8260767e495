"""One message a row."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from afterimage.storage.errors import InvalidRecordError
from afterimage.storage.formats.registry import shape_named
from afterimage.storage.formats.rows import grouped
from tests.formats.examples import records


def rows_of(talks: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The messages of conversations, as a table has them: every column in every row."""
    rows = [
        {"conversation_id": number, "position": position, **message}
        for number, talk in enumerate(talks)
        for position, message in enumerate(talk["conversations"])
    ]
    columns = {key for row in rows for key in row}
    return [{column: row.get(column) for column in columns} for row in rows]


class TestAnyConversations:
    @given(st.lists(records(), max_size=3), st.integers(0, 2))
    def test_come_back_from_their_rows(self, talks: list[dict[str, Any]], shuffle: int) -> None:
        rows = rows_of(talks)
        if shuffle:
            random.Random(shuffle).shuffle(rows)
        found = [
            shape_named("messages").read(row)
            for row in grouped(rows, "conversation_id", adjacent=not shuffle)
        ]
        found.sort(key=lambda record: record["metadata"]["conversation_id"])
        assert [record["metadata"]["conversation_id"] for record in found] == [*range(len(talks))]
        for record, talk in zip(found, talks, strict=True):
            # A table has nulls for absent keys.
            assert record["conversations"] == [
                {key: value for key, value in message.items()
                 if value is not None or key == "content"}
                for message in talk["conversations"]
            ]  # fmt: skip


class TestMemory:
    def test_one_conversation_is_held_at_a_time(self) -> None:
        given: list[int] = []

        def rows() -> Iterator[dict[str, Any]]:
            for number in range(10):
                given.append(number)
                yield {"talk": number // 2, "role": "user", "content": str(number)}

        first = next(grouped(rows(), "talk"))
        assert [message["content"] for message in first["messages"]] == ["0", "1"]
        assert given == [0, 1, 2]


class TestRefused:
    def test_rows_that_do_not_follow_each_other(self) -> None:
        rows = [{"talk": talk, "role": "user", "content": ""} for talk in ("a", "b", "a")]
        with pytest.raises(InvalidRecordError, match="row 3: rows of talk 'a' do not follow"):
            [*grouped(rows, "talk")]
        assert len([*grouped(rows, "talk", adjacent=False)]) == 2

    @pytest.mark.parametrize("group", [None, [1], {}])
    def test_rows_without_a_group(self, group: Any) -> None:
        with pytest.raises(InvalidRecordError, match="row 1: the row has no 'talk' that names"):
            [*grouped([{"talk": group, "role": "user"}], "talk")]

    def test_positions_that_cannot_be_compared(self) -> None:
        rows = [{"talk": 1, "position": position} for position in (1, "2")]
        with pytest.raises(InvalidRecordError, match="cannot be sorted by 'position'"):
            [*grouped(rows, "talk")]

    def test_true_and_one_are_two_groups(self) -> None:
        rows = [{"talk": talk, "role": "user", "content": ""} for talk in (1, True)]
        assert len([*grouped(rows, "talk")]) == 2
