"""Both storages: fields that follow from a record are the same everywhere, and for ever."""

from __future__ import annotations

import io
import json
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel

from afterimage.storage import (
    ChatConversation,
    Conversation,
    Document,
    JSONLStorage,
    SQLStorage,
    UnknownFieldError,
)
from tests.support import strategies
from tests.support.plain_python import computed, content_hash
from tests.support.processes import KINDS, opened

CONVERSATION_FIELDS = [
    "content_hash", "message_count", "first_role", "last_role", "character_count",
]  # fmt: skip
DOCUMENT_FIELDS = ["content_hash", "character_count"]

USER = {"role": "user", "content": "Is there a night train?"}
ANSWER = {"role": "assistant", "content": "Yes, at 21:08 ☾.", "reasoning_content": "the timetable"}
CALL = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": '{"b":1,"a":2}'}}
TOOLS: list[dict[str, Any]] = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": [{"type": "text", "text": "What"}, {"n": 1.5}, {"text": "is it?"}]},
    {"role": "assistant", "content": None, "tool_calls": [CALL], "weight": 1e300},
    {"role": "tool", "content": "12 °C", "tool_call_id": "c1", "name": "f"},
]
TALKS: list[list[dict[str, Any]]] = [[USER, ANSWER], [USER], [], TOOLS]


def hashes(storage: Any, kind: str = "conversations") -> list[str]:
    reader = getattr(storage, f"scan_{kind}")(["content_hash"])
    return reader.read_all().column(0).to_pylist()  # type: ignore[no-any-return]


def lines_of(storage: Any, **options: Any) -> list[Any]:
    file = io.BytesIO()
    storage.export_jsonl(file, **options)
    return [json.loads(line) for line in file.getvalue().split(b"\n") if line]


@pytest.fixture
def talks(storage: Any) -> Any:
    storage.save_conversations([ChatConversation(conversations=talk) for talk in TALKS])
    storage.save_documents([Document(text="Trains ☾"), Document(text=None), Document(text="")])
    return storage


class TestValues:
    def test_those_of_conversations_are_as_documented(self, talks: Any) -> None:
        found = talks.scan_conversations(CONVERSATION_FIELDS).read_all().to_pylist()
        assert found == [computed({"conversations": talk}) for talk in TALKS]
        assert [each["message_count"] for each in found] == [2, 1, 0, 4]
        assert [each["first_role"] for each in found] == ["user", "user", None, "system"]
        assert [each["last_role"] for each in found] == ["assistant", "user", None, "tool"]
        assert [each["character_count"] for each in found] == [39, 23, 0, 25]

    def test_those_of_documents_are_as_documented(self, talks: Any) -> None:
        found = talks.scan_documents(DOCUMENT_FIELDS).read_all().to_pylist()
        assert found == [computed({"text": text}) for text in ("Trains ☾", None, "")]
        assert [each["character_count"] for each in found] == [8, 0, 0]

    def test_hashes_never_change(self, talks: Any) -> None:
        """Users keep hashes. If this test fails, the hash has changed: undo that."""
        assert hashes(talks) == [
            "4b3a01b617bd5cb4ce14b77728ae9adf",
            "c5104ecb53bccc92673034a9d0ae869f",
            "d41d8cd98f00b204e9800998ecf8427e",
            "6977ece42c523f62909ec75861d293b8",
        ]
        assert hashes(talks, "documents") == [
            "9e4f6a374165cd4fa5d81010c1f68b86",
            "336d5ebc5436534e61d16e63ddfca327",
            "9a1c7ee2c7ce38d4bbbaf29ab9f2ac1e",
        ]

    @pytest.mark.slow
    @pytest.mark.parametrize("kind", KINDS)
    @given(records=st.lists(strategies.chats | strategies.conversations, max_size=12))
    def test_they_are_those_of_plain_python(self, kind: str, records: list[Any]) -> None:
        with TemporaryDirectory() as folder:
            storage = opened(kind, Path(folder))
            storage.save_conversations(records)
            found = storage.scan_conversations(CONVERSATION_FIELDS).read_all().to_pylist()
            assert found == [*map(computed, lines_of(storage))]


class TestUses:
    def test_filters(self, talks: Any) -> None:
        [first, *_] = hashes(talks)
        assert talks.count_conversations({"content_hash": first}) == 1
        assert talks.count_conversations([("content_hash", "!=", first)]) == 3
        assert talks.count_conversations([("content_hash", "in", [first, "x"])]) == 1
        assert talks.count_conversations({"last_role": "user"}) == 1
        assert talks.count_conversations({"last_role": None}) == 1
        assert talks.count_conversations([("message_count", ">", 1.5)]) == 2
        assert talks.count_conversations([[("message_count", "==", 0)], [("first_role", "<", "t")]])
        [loaded] = talks.load_conversations(filters=[("character_count", "==", 39)])
        assert len(loaded.conversations) == 2
        assert talks.stats(filters=[("message_count", "<", 2)]).conversations == 2
        assert talks.count_documents([("character_count", ">=", 1)]) == 1
        assert talks.count_documents({"content_hash": hashes(talks, "documents")[1]}) == 1

    @pytest.mark.parametrize("slices", [{}, {"limit": 2, "offset": 1}], ids=["all", "page"])
    def test_order(self, talks: Any, slices: dict[str, int]) -> None:
        found = talks.load_conversations(order_by=[("message_count", -1)], **slices)
        counts = [len(each.conversations) for each in found]
        assert counts == ([2, 1] if slices else [4, 2, 1, 0])
        ordered = talks.scan_conversations(["content_hash"], order_by=[("content_hash", 1)])
        assert ordered.read_all().column(0).to_pylist() == sorted(hashes(talks))

    @pytest.mark.parametrize("others", [[], ["conversations"], ["metadata"], ["metadata.n"]])
    def test_columns_beside_others(self, talks: Any, others: list[str]) -> None:
        columns = ["last_role", *others, "content_hash"]
        found = talks.scan_conversations(columns).read_all()
        assert found.column_names == columns
        assert found.column("content_hash").to_pylist() == hashes(talks)

    def test_exports(self, talks: Any, tmp_path: Path) -> None:
        path = tmp_path / "few.parquet"
        columns = ["message_count", "content_hash"]
        talks.export_parquet(path, columns=columns, filters=[("message_count", ">", 0)])
        assert pq.read_table(path)["content_hash"].to_pylist() == [
            *hashes(talks)[:2],
            hashes(talks)[3],
        ]
        few = lines_of(talks, filters={"last_role": "user"}, order_by=[("message_count", 1)])
        assert [len(each["conversations"]) for each in few] == [1]

    @pytest.mark.parametrize("line_format", ["messages", "openai"])
    def test_columns_of_lines_for_training(self, talks: Any, line_format: str) -> None:
        columns = ["message_count", "content_hash", "metadata.*"]
        rows = lines_of(
            talks, format=line_format, columns=columns, filters={"last_role": "assistant"}
        )
        assert [(row["message_count"], row["content_hash"]) for row in rows] == [
            (2, hashes(talks)[0])
        ]

    def test_they_are_no_columns_of_their_own(self, talks: Any) -> None:
        assert not {*CONVERSATION_FIELDS} & {*talks.scan_conversations().schema.names}
        assert not {*DOCUMENT_FIELDS} & {*talks.scan_documents().schema.names}

    def test_documents_have_no_roles(self, talks: Any) -> None:
        with pytest.raises(UnknownFieldError, match="last_role"):
            talks.count_documents({"last_role": "user"})
        with pytest.raises(UnknownFieldError, match=r"message_coun.*Did you mean message_count"):
            talks.count_conversations({"message_coun": 1})

    def test_a_field_of_the_model_comes_first(self, storage: Any) -> None:
        class Counted(Conversation):
            message_count: str

        class Note(BaseModel):
            content_hash: str

        storage.save_conversations([Counted(conversations=[USER], message_count="many")])
        storage.save_conversations([Note(content_hash="abc")])
        assert storage.load_records(Counted, filters={"message_count": "many"})
        assert storage.count_conversations({"message_count": 1}) == 1
        assert storage.load_records(Note, filters={"content_hash": "abc"})
        assert storage.count_records({"content_hash": "abc"}) == 1


class TestIdentity:
    def test_is_the_same_for_other_spellings_of_the_same_json(self, tmp_path: Path) -> None:
        lines = [
            """{"conversations":[{"role":"user","content":"é/","tokens":100.0,"more":{"a":[1.5,{}],"b":"é/"}}]}""",
            """ { "conversations" : [ {"more": {"b":"\\u00e9\\/", "a":[15e-1, { } ]}, "tokens":1E2,
            "content":"\\u00E9/", "reasoning_content":null, "name":null, "role":"user"} ],
            "id":1}""",
        ]
        path = tmp_path / "talks.jsonl"
        path.write_text("\n".join(line.replace("\n", " ") for line in lines) + "\n", "utf-8")
        storage, table = JSONLStorage(path), SQLStorage("duckdb:///:memory:")
        table.import_jsonl(path)
        [record] = [json.loads(lines[0])]
        assert hashes(storage) == hashes(table) == [content_hash(record["conversations"])] * 2

    def test_differs_for_messages_that_differ(self, storage: Any) -> None:
        say = "abc"
        talks: list[list[dict[str, Any]]] = [
            [{"role": "user", "content": say}],
            [{"role": "assistant", "content": say}],
            [{"role": "user", "content": say, "reasoning_content": ""}],
            [{"role": "user", "content": "", "reasoning_content": say}],
            [{"role": "user", "content": "ab"}, {"role": "user", "content": "c"}],
            [{"role": "user", "content": "a"}, {"role": "user", "content": "bc"}],
            [{"role": "user", "content": f"{say}-4:user3:abc"}],
            [{"role": "user", "content": say, "name": say}],
            [{"role": "user", "content": say, "name": ""}],
            [{"role": "user", "content": [{"text": say}]}],
            [{"role": "user", "content": [{"text": "ab"}, {"text": "c"}]}],
            [{"role": "user", "content": None}],
            [{"role": "user", "content": []}],
            [{"role": "user", "content": say, "weight": 1}],
            [{"role": "user", "content": say, "weight": "1"}],
            [{"role": "user", "content": say, "weight": True}],
            [{"role": "user", "content": say, "weight": 2**53}],
            [{"role": "user", "content": say, "weight": 2**53 + 1}],
            [{"role": "user", "content": say, "weight": 0.1}],
            [{"role": "user", "content": say, "weight": [0.1, [1]]}],
            [{"role": "user", "content": say, "weight": [[0.1], 1]}],
            [{"role": "user", "content": say, "weight": {"a": "b,c"}}],
            [{"role": "user", "content": say, "weight": {"a": "b", "c": None}}],
            [{"role": "user", "content": say}, {"role": "user", "content": "", "name": "a"}],
            [{"role": "user", "content": say, "name": "a"}, {"role": "user", "content": ""}],
        ]
        storage.save_conversations([ChatConversation(conversations=talk) for talk in talks])
        assert len({*hashes(storage)}) == len(talks)

    def test_is_of_the_messages_alone(self, storage: Any) -> None:
        storage.save_conversations(
            [
                Conversation(conversations=[USER], metadata={"n": 1}),
                ChatConversation(conversations=[USER], final_score=1.0, tools=[{"a": 1}]),
            ]
        )
        storage.save_documents([Document(text="a", metadata={"n": n}) for n in range(2)])
        assert len({*hashes(storage)}) == len({*hashes(storage, "documents")}) == 1
