"""Both storages: rows with one message each become conversations."""

from __future__ import annotations

import io
from typing import Any

import pyarrow as pa
import pytest

from afterimage.storage import CorruptRecordError, InvalidQueryError, UnsupportedFileError
from tests.conformance.files.test_formats import stream


def log(*conversations: int, said: int = 3) -> list[dict[str, Any]]:
    return [
        {"talk": talk, "position": at, "role": ["user", "assistant"][at % 2], "content": f"{at}"}
        for talk in conversations
        for at in range(said)
    ]


def said(storage: Any) -> list[tuple[Any, list[str]]]:
    talks = storage.load_conversations()
    return [(talk.metadata["talk"], [one.content for one in talk.conversations]) for talk in talks]


class TestGroups:
    def test_each_conversation_is_one_record(self, storage: Any) -> None:
        rows = log(2, 1, 3)
        assert storage.import_jsonl(stream(rows), format="rows", group_by="talk") == 3
        assert said(storage) == [(talk, ["0", "1", "2"]) for talk in (2, 1, 3)]

    def test_messages_are_sorted_by_a_field(self, storage: Any) -> None:
        rows = [{**row, "at": 9 - row["position"]} for row in log(1)]
        storage.import_jsonl(stream(rows), format="rows", group_by="talk", order_by="at")
        assert said(storage) == [(1, ["2", "1", "0"])]

    def test_conversations_over_several_batches_of_arrow(self, storage: Any) -> None:
        table = pa.Table.from_pylist(log(*range(4), said=700))
        assert storage.import_arrow(table, format="rows", group_by="talk") == 4
        assert said(storage) == [(talk, [*map(str, range(700))]) for talk in range(4)]

    def test_keys_by_other_names(self, storage: Any) -> None:
        rows = [{"talk": 1, "who": "user", "text": "Hi"}]
        fields = {"who": "role", "text": "content"}
        storage.import_jsonl(stream(rows), format="rows", group_by="talk", fields=fields)
        assert said(storage) == [(1, ["Hi"])]


class TestFaults:
    def test_rows_that_do_not_follow_each_other_are_refused(self, storage: Any) -> None:
        with pytest.raises(UnsupportedFileError, match=r"row 7: .*talk 1 .*Sort"):
            storage.import_jsonl(stream(log(1, 2, 1)), format="rows", group_by="talk")
        assert storage.count_conversations() == 0

    def test_a_row_without_its_conversation_is_named_or_skipped(self, storage: Any) -> None:
        rows = [*log(1, 2), {"role": "user", "content": "?"}, *log(3)]
        with pytest.raises(CorruptRecordError, match=r"line 7\b.*'talk'"):
            storage.import_jsonl(stream(rows), format="rows", group_by="talk")
        with pytest.warns(UserWarning, match="skipped 1"):
            storage.import_jsonl(stream(rows), format="rows", group_by="talk", on_error="skip")
        assert [talk for talk, _ in said(storage)] == [1, 2, 3]

    def test_conversations_beside_a_row_that_cannot_be_read_are_left_out(
        self, storage: Any
    ) -> None:
        lines = stream(log(1, 2, 3, 4)).getvalue().splitlines()
        lines.insert(6, "{")
        source = io.StringIO("\n".join(lines))
        with pytest.warns(UserWarning, match="skipped 3"):
            storage.import_jsonl(source, format="rows", group_by="talk", on_error="skip")
        assert [talk for talk, _ in said(storage)] == [1, 4]

    @pytest.mark.parametrize(
        "options",
        [
            {"format": "rows"},
            {"format": "messages", "group_by": "talk"},
            {"format": "messages", "order_by": "talk"},
            {"group_by": "talk"},
        ],
    )
    def test_wrong_options(self, storage: Any, options: Any) -> None:
        with pytest.raises(InvalidQueryError):
            storage.import_jsonl(stream(log(1)), **options)


def test_the_view_of_messages_comes_back(storage: Any) -> None:
    rows = [{key: value for key, value in row.items() if key != "talk"} for row in log(1)]
    talk = [{"role": row["role"], "content": row["content"]} for row in rows]
    storage.import_jsonl(stream([{"messages": talk}, {"messages": talk[:1]}]), format="messages")
    view = [
        {
            "conversation_id": number,
            "position": at,
            "reasoning_content": None,
            **message.model_dump(),
        }
        for number, each in enumerate(storage.load_conversations())
        for at, message in enumerate(each.conversations)
    ]
    before = [each.conversations for each in storage.load_conversations()]
    storage.import_jsonl(stream(view), format="rows", group_by="conversation_id")
    assert [each.conversations for each in storage.load_conversations()] == before * 2
