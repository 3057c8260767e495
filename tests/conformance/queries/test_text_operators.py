"""Both storages: operators for text, lists and messages give what plain Python gives."""

from __future__ import annotations

import io
from operator import attrgetter
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from afterimage.storage import (
    ChatConversation,
    ChatEntry,
    Conversation,
    Document,
    InvalidQueryError,
    JSONLStorage,
    UnknownFieldError,
)
from tests.support.factories import EVALUATORS
from tests.support.plain_python import NEGATED, TEXT_TESTS, select
from tests.support.processes import KINDS, opened

# Parts of texts that a pattern of LIKE, a regular expression or a change of case could misread.
PARTS = [
    "", "a", "A", "%", "_", "\\", "'", '"', "\x00", "😀", "é", "e\u0301", "\u0301", "ß", "ẞ", "ss",
    "Σ", "\u03c3", "ς",
    "İ", "i", "\u0131", "I", "K", "\u212a", "ǅ", "\u017f", "S", ".", "*", "(", "[", "{}", "\\E",
    "\\Q", "\n", "\u2028", "$", "^", "|", "?", "+", "ᾈ", "ᾀ", "\xb5", "\u03bc",
]  # fmt: skip
hostile = st.lists(st.sampled_from(PARTS), max_size=4).map("".join)
_pieces = st.sampled_from(
    ["a", "A", "%", "_", "\\\\", "é", "😀", ".", "[a%]", "[^a]", r"\d", r"\.", r"\*", "\\x00", "\n"]
)
_repeated = st.tuples(_pieces, st.sampled_from(["", "", "?", "*", "+", "{2}"])).map("".join)
patterns = st.tuples(
    st.sampled_from(["", "^"]),
    st.lists(_repeated, max_size=3).map("".join),
    st.sampled_from(["", "|b", r"\Z"]),
).map("".join)


@st.composite
def text_conditions(draw: st.DrawFn, *paths: str) -> tuple[str, str, Any]:
    op = draw(st.sampled_from(["contains", "icontains", "startswith", "matches"]))
    value = draw(patterns if op == "matches" else hostile)
    negation = draw(st.sampled_from(["", "", "not "]))
    return draw(st.sampled_from(paths)), negation + op, value


def as_re2(condition: tuple[str, str, Any]) -> tuple[str, str, Any]:
    r"""The same condition with the syntax of RE2, where the end of a text is \z."""
    path, op, value = condition
    return (path, op, value.replace(r"\Z", r"\z") if op.endswith("matches") else value)


def check(storage: Any, kind: str, groups: list[list[Any]]) -> None:
    """Check counts and loads against plain Python, and each condition against its negation."""
    every = getattr(storage, f"load_{kind}")()
    count = getattr(storage, f"count_{kind}")
    asked = [[as_re2(each) for each in group] for group in groups]
    expected = select(every, groups)
    assert getattr(storage, f"load_{kind}")(filters=asked) == expected
    assert count(asked) == len(expected)
    negations = {positive: negated for negated, positive in NEGATED.items()}
    path, op, value = asked[0][0]
    negated = NEGATED.get(op) or negations[op]
    assert count([(path, op, value)]) + count([(path, negated, value)]) == len(every)


WRONG: list[tuple[Any, str]] = [
    (("persona", "matches", "(a"), "not a regular expression of RE2: missing"),
    (("metadata.n", "not matches", r"(?<=a)b"), "not a regular expression of RE2"),
    (("messages.content", "matches", "(a{1000}){1000}"), "not a regular expression of RE2"),
    (("persona", "contains", 3), "'contains' on 'persona' requires a string, not 3"),
    (("persona", "startswith", None), "requires a string, not None"),
    (("final_score", "contains", "3"), "'contains' is for text; 'final_score' has none"),
    (("evaluation", "matches", "a"), "'matches' is for text"),
    (("persona", "has", "a"), "'has' is for lists; 'persona' has none"),
    (("final_score", "not has", 1), "'not has' is for lists"),
    (("persona", "like", "a"), "unknown operator 'like'.*contains"),
]


class TestText:
    @pytest.mark.slow
    @pytest.mark.parametrize("kind", KINDS)
    @settings(max_examples=max(1, settings().max_examples // 2))
    @given(data=st.data())
    def test_operators_are_those_of_plain_python(self, kind: str, data: st.DataObject) -> None:
        texts = st.none() | hostile
        records = data.draw(
            st.lists(
                st.tuples(texts, hostile | st.none() | st.integers() | st.lists(hostile)),
                min_size=1,
                max_size=8,
            )
        )
        with TemporaryDirectory() as folder:
            storage = opened(kind, Path(folder))
            storage.save_documents(
                [Document(id=str(n), text=t, metadata={"a": a}) for n, (t, a) in enumerate(records)]
            )
            condition = text_conditions("text", "metadata.a")
            for _ in range(2):
                groups = data.draw(
                    st.lists(st.lists(condition, min_size=1, max_size=2), min_size=1)
                )
                check(storage, "documents", groups)

    @pytest.mark.slow
    @pytest.mark.parametrize("factory", EVALUATORS, ids=attrgetter("name"))
    def test_each_part_in_each_other(self, storage: Any) -> None:
        texts = [f"{a}{b}" for a in ("", "x") for b in PARTS]
        storage.save_documents([Document(text=text, metadata={"domain": text}) for text in texts])
        wrong = []
        for part in PARTS:
            for op in ("contains", "icontains", "startswith"):
                for path in ("text", "metadata.domain"):
                    found = storage.scan_documents(["text"], filters=[(path, op, part)])
                    expected = [text for text in texts if TEXT_TESTS[op](text, part)]
                    if found.read_all().column(0).to_pylist() != expected:
                        wrong.append((path, op, part))
        assert wrong == []

    def test_other_types_and_null_are_no_text(self, storage: Any) -> None:
        values: list[Any] = ["1 ", None, 1, 1.0, True, ["1"], {"1": "1"}]
        storage.save_conversations(
            [Conversation(conversations=[], metadata={"n": value}) for value in values]
            + [Conversation(conversations=[])]
        )
        for op in ("contains", "icontains", "startswith", "matches"):
            assert storage.count_conversations([("metadata.n", op, "1")]) == 1
            assert storage.count_conversations([("metadata.n", f"not {op}", "1")]) == 7
            assert storage.count_conversations([("persona", f"not {op}", "")]) == 8

    def test_an_error_comes_before_any_data_is_read(self, tmp_path: Path) -> None:
        storage = JSONLStorage(tmp_path / "bad.jsonl")
        (tmp_path / "bad.jsonl").write_text("not JSON", encoding="utf-8")
        for condition, message in WRONG:
            with pytest.raises(InvalidQueryError, match=message):
                storage.load_conversations(filters=[condition])

    def test_no_pattern_takes_longer_than_the_text_is(self, storage: Any) -> None:
        storage.save_documents([Document(text="a" * 20_000 + "!")])
        assert storage.count_documents([("text", "matches", "^(a+)+$")]) == 0
        assert storage.count_documents([("text", "matches", "(a*)*b")]) == 0


class TestHas:
    @pytest.mark.parametrize("factory", EVALUATORS, ids=attrgetter("name"))
    def test_values_are_found_as_in_json(self, storage: Any) -> None:
        items: list[Any] = [
            "night", "", "1", 1, 1.0, 2**53, 2**53 + 1, 10**30, True, None, [], ["night"], {},
            {"a": 1}, {"a": None}, "a\x00", '"', 0.1, float("nan"), float("inf"),
        ]  # fmt: skip
        lists: list[Any] = [[], items, *([item] for item in items), [["night"], 3], "night", None]
        records = [Conversation(conversations=[], metadata={"n": value}) for value in lists]
        storage.save_conversations(records)
        loaded = storage.load_conversations()
        wrong = []
        for item in [*items, "other", 2, False]:
            for op in ("has", "not has"):
                filters = [("metadata.n", op, item)]
                expected = len(select(loaded, filters))
                if storage.count_conversations(filters) != expected:
                    wrong.append((op, item))
        assert wrong == []

    def test_lists_of_declared_fields(self, storage: Any) -> None:
        persona = {"descriptions": ["a traveller"], "metadata": {"n": 1}}
        storage.save_documents([Document(personas=[persona]), Document()])
        assert storage.count_documents([("personas", "has", persona)]) == 1
        assert storage.count_documents([("personas", "not has", persona)]) == 1


CALL = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
TALK: list[dict[str, Any]] = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": [{"type": "text", "text": "A refund"}, {"text": "please"}]},
    {"role": "assistant", "content": None, "tool_calls": [CALL], "weight": 0.5},
    {"role": "tool", "content": "done", "tool_call_id": "c1", "name": "f"},
    {"role": "assistant", "content": "You get it.", "reasoning_content": "a refund is due"},
]
PLAIN: list[dict[str, Any]] = [
    {"role": "user", "content": "No refund?"},
    {"role": "assistant", "content": "No."},
]


CONDITIONS: list[tuple[Any, list[int]]] = [
    ([("messages.content", "contains", "refund")], [5, 2]),
    ([("messages.content", "contains", "refund\nplease")], [5]),
    ([("messages.content", "not contains", "refund")], [0]),
    ([("messages.content", "==", None)], [5]),
    ([("messages.content", "==", "No.")], [2]),
    ([("messages.role", "in", ["tool", "system"])], [5]),
    ([("messages.role", "not in", ["tool", "system"])], [2, 0]),
    ([("messages.role", "!=", "user")], [0]),
    ([("messages.reasoning_content", "icontains", "REFUND")], [5]),
    ([("messages.name", "==", "f")], [5]),
    ([("messages.name", "!=", "f")], [2, 0]),
    ([("messages.name", "==", None)], [5, 2]),
    ([("messages.name", "startswith", "")], [5]),
    ([("messages.weight", "<", 1)], [5]),
    ([("messages.tool_calls", "has", CALL)], [5]),
    ([("messages.tool_call_id", "==", "c1"), ("messages.role", "==", "tool")], [5]),
    ([("messages.tool_call_id", "==", "c1"), ("messages.role", "==", "user")], []),
    ([("messages.content", "contains", "refund"), ("messages.role", "==", "user")], [5, 2]),
    ([("messages.content", "contains", "No."), ("messages.role", "==", "user")], []),
    ([("messages.role", "==", "user"), ("messages.role", "==", "assistant")], []),
    ([("messages.role", "==", "user"), ("messages.content", "not contains", "No")], [5]),
    ([("messages.role", "==", "user"), ("message_count", ">", 2)], [5]),
    ([[("messages.role", "==", "tool")], [("messages.content", "==", "No.")]], [5, 2]),
    ({"messages.content": "done", "messages.role": "tool"}, [5]),
]


class TestMessages:
    @pytest.fixture
    def talks(self, storage: Any) -> Any:
        storage.save_conversations(
            [ChatConversation(conversations=each) for each in (TALK, PLAIN, [])]
        )
        return storage

    @pytest.mark.parametrize("factory", EVALUATORS, ids=attrgetter("name"))
    def test_conditions(self, talks: Any) -> None:
        wrong = []
        for filters, expected in CONDITIONS:
            found = talks.load_conversations(filters=filters)
            if [len(each.conversations) for each in found] != expected:
                wrong.append(filters)
        assert wrong == []

    def test_other_reads_take_them(self, talks: Any) -> None:
        filters = [("messages.content", "contains", "refund")]
        counts = talks.scan_conversations(
            ["message_count"], filters=filters, order_by=[("message_count", 1)]
        )
        assert counts.read_all().column(0).to_pylist() == [2, 5]
        assert talks.stats(filters=filters).conversations == 2
        assert talks.count_conversations(filters) == 2
        assert talks.scan_conversations(["metadata"], filters=filters).read_all().num_rows == 2
        file = io.BytesIO()
        assert talks.export_jsonl(file, filters=filters, format="messages") == 2
        assert len(talks.load_records(ChatConversation, filters=filters)) == 2

    @pytest.mark.slow
    @pytest.mark.parametrize("kind", KINDS)
    @settings(max_examples=max(1, settings().max_examples // 2))
    @given(data=st.data())
    def test_conditions_are_those_of_plain_python(self, kind: str, data: st.DataObject) -> None:
        entries = st.builds(
            ChatEntry,
            role=st.sampled_from(["system", "user", "assistant", "tool"]),
            content=hostile | st.none() | st.lists(st.fixed_dictionaries({"text": hostile})),
            reasoning_content=st.none() | hostile,
            name=st.none() | hostile,
        )
        talks = data.draw(st.lists(st.lists(entries, max_size=4), min_size=1, max_size=5))
        with TemporaryDirectory() as folder:
            storage = opened(kind, Path(folder))
            storage.save_conversations([ChatConversation(conversations=each) for each in talks])
            paths = [f"messages.{name}" for name in ("content", "reasoning_content", "name")]
            condition = text_conditions(*paths) | st.tuples(
                st.sampled_from(["messages.role", "messages.name"]),
                st.sampled_from(["==", "!="]),
                st.sampled_from(["user", "tool", "a", None]),
            )
            for _ in range(2):
                groups = data.draw(
                    st.lists(st.lists(condition, min_size=1, max_size=3), min_size=1)
                )
                check(storage, "conversations", groups)

    def test_an_order_and_columns_need_one_value_for_each_record(self, talks: Any) -> None:
        with pytest.raises(InvalidQueryError, match=r"'messages.content' has a value for each"):
            talks.load_conversations(order_by=[("messages.content", 1)])
        with pytest.raises(InvalidQueryError, match="only for filters"):
            talks.scan_conversations(["messages.role"])

    @pytest.mark.parametrize("path", ["messages", "messages.content.text", "message.content"])
    def test_other_paths_are_no_fields(self, talks: Any, path: str) -> None:
        with pytest.raises(UnknownFieldError, match=r"messages\.content"):
            talks.count_conversations([(path, "contains", "a")])
        with pytest.raises(UnknownFieldError):
            talks.count_documents([("messages.content", "contains", "a")])
