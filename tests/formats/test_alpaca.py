"""The formats `alpaca` and `llama_factory`."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from afterimage.storage.errors import InvalidRecordError
from afterimage.storage.formats.registry import shape_named
from afterimage.storage.formats.shape import NotRepresentableError, WriteOptions
from tests.formats.examples import WHOLE, assert_round_trip, full_texts, others, texts

ALPACA, LLAMA_FACTORY = shape_named("alpaca"), shape_named("llama_factory")

ROWS: dict[str, dict[str, Any]] = {
    "an instruction": {"instruction": "Add 1 and 1.", "input": "", "output": "2"},
    "without input": {"instruction": "Add 1 and 1.", "output": "2"},
    "with input": {"instruction": "Translate.", "input": "Hallo\nWelt", "output": "Hello world"},
    "only input": {"instruction": "", "input": "Hallo", "output": "Hello"},
    "history and system": {
        "instruction": "And 3?",
        "input": "",
        "output": "4",
        "system": "You add 1.",
        "history": [["1?", "2"], ["2?", "3"]],
    },
    "empty history and system": {
        "instruction": "1?",
        "input": "",
        "output": "2",
        "system": "",
        "history": [],
        "kto_tag": True,
    },
}

_rows = st.fixed_dictionaries(
    {"instruction": texts, "output": full_texts},
    optional={
        "input": texts,
        "system": texts,
        "history": st.lists(st.tuples(texts, texts).map(list), max_size=3),
    },
)


def talk(*said: tuple[str, Any], **fields: Any) -> dict[str, Any]:
    messages = [{"role": role, "content": content} for role, content in said]
    return {"conversations": messages, "metadata": {}, **fields}


class TestRoundTrip:
    @pytest.mark.parametrize("name", ["alpaca", "llama_factory"])
    @pytest.mark.parametrize("row", ROWS.values(), ids=ROWS)
    def test_known_rows_come_back(self, row: dict[str, Any], name: str) -> None:
        assert_round_trip(name, row)

    @given(_rows, others, st.sampled_from(["alpaca", "llama_factory"]))
    def test_any_row_comes_back(
        self, row: dict[str, Any], other: dict[str, Any], name: str
    ) -> None:
        assume(row["instruction"] or row.get("input"))
        assert_round_trip(name, {**other, **row})

    @given(
        st.lists(st.tuples(texts, texts), max_size=3),
        st.tuples(full_texts, full_texts),
        st.sampled_from(["", "Be brief."]),
    )
    def test_any_record_that_has_a_place_comes_back(
        self, history: list[tuple[str, str]], last: tuple[str, str], system: str
    ) -> None:
        said = [("system", system)] if system else []
        for user, assistant in [*history, last]:
            said += [("user", user), ("assistant", assistant)]
        record = talk(*said)
        back = LLAMA_FACTORY.read(LLAMA_FACTORY.write(record)[0])
        back["metadata"].pop("source_format", None)  # `history` that is empty
        assert back == record


class TestPublishedRows:
    @given(full_texts, full_texts, st.none() | texts)
    def test_one_question_and_one_answer_give_the_row_of_the_published_package(
        self, question: str, answer: str, context: str | None
    ) -> None:
        assume(not context or not question.endswith(context))
        record = talk(("user", question), ("assistant", answer), instruction_context=context)
        row = {"instruction": question, "input": context or "", "output": answer}
        assert ALPACA.write(record) == [row]
        assert LLAMA_FACTORY.write(record) == [{**row, "history": []}]

    def test_llama_factory_has_earlier_turns_as_history_as_there(self) -> None:
        record = talk(("user", "1?"), ("assistant", "2"), ("user", "2?"), ("assistant", "3"))
        row = {"instruction": "2?", "input": "", "output": "3", "history": [["1?", "2"]]}
        assert LLAMA_FACTORY.write(record) == [row]

    def test_alpaca_is_the_first_question_that_has_an_answer_directly_after_it(self) -> None:
        said = [("user", "1?"), ("assistant", "2"), ("user", "2?"), ("assistant", "3")]
        row = {"instruction": "1?", "input": "", "output": "2"}
        assert ALPACA.write(talk(*said)) == [row]
        for start in (("assistant", "Hello"), ("user", "Hm"), ("user", "")):
            assert ALPACA.write(talk(start, *said, ("user", "Thanks"))) == [row]


class TestRead:
    def test_the_input_is_what_the_model_is_asked(self) -> None:
        record = ALPACA.read(ROWS["with input"])
        assert record["conversations"][0]["content"] == "Translate.\nHallo\nWelt"
        assert record["instruction_context"] == "Hallo\nWelt"
        assert record["metadata"] == {}

    @pytest.mark.parametrize(
        ("row", "reason"),
        [
            ({"instruction": "x"}, "no key 'output'"),
            ({"instruction": 5, "output": ""}, "instruction is 5; it must be text"),
            ({"instruction": "", "output": ["x"]}, r"output is \['x'\]; it must be text"),
            ({"instruction": "", "output": "", "history": "x"}, "history is not a list of pairs"),
            ({"instruction": "", "output": "", "history": [["x"]]}, r"history\.0 is not two texts"),
            ({"instruction": "", "output": "", "system": 5}, "system is 5"),
        ],
    )
    def test_what_is_no_row_is_refused_with_its_place(
        self, row: dict[str, Any], reason: str
    ) -> None:
        with pytest.raises(InvalidRecordError, match=reason):
            ALPACA.read(row)


class TestWrite:
    @pytest.mark.parametrize(
        ("record", "reason", "dropped"),
        [
            (
                talk(("assistant", "Hello"), ("user", "1?"), ("assistant", "2")),
                "an answer without a question",
                ("1?", "2"),
            ),
            (
                talk(("user", "Hm"), ("user", "1?"), ("assistant", "2")),
                "roles do not alternate",
                ("1?", "2"),
            ),
            (
                talk(("user", "1?"), ("assistant", "2"), ("user", "Thanks")),
                "ends with the user",
                ("1?", "2"),
            ),
            (
                talk(("user", "1?"), ("assistant", "2"), ("tool", "2")),
                "tool results have no place in llama_factory",
                ("1?", "2"),
            ),
            (
                talk(("developer", "x"), ("user", "1?"), ("assistant", "2")),
                "the role developer has no place in llama_factory",
                ("1?", "2"),
            ),
            (
                talk(("user", "1?"), ("assistant", "2"), ("system", "x"), ("user", "2?"),
                     ("assistant", "3")),
                "a system message after others has no place in llama_factory",
                ("2?", "3"),
            ),
            (
                talk(("user", "1?"), ("assistant", "2"), tools=[{"type": "x"}]),
                "tools have no place in llama_factory",
                ("1?", "2"),
            ),
        ],
    )  # fmt: skip
    def test_what_has_no_place_is_refused_or_dropped(
        self, record: dict[str, Any], reason: str, dropped: tuple[str, str]
    ) -> None:
        with pytest.raises(NotRepresentableError) as caught:
            LLAMA_FACTORY.write(record)
        assert caught.value.reason == reason
        (row,) = LLAMA_FACTORY.write(record, WriteOptions(lossy=True))
        assert (row["instruction"], row["output"]) == dropped

    def test_tool_calls_and_other_keys_have_no_place(self) -> None:
        record = talk(("user", "1?"), ("assistant", "2"))
        record["conversations"][0]["name"] = "ann"
        with pytest.raises(NotRepresentableError, match="key 'name' of a message has no place"):
            ALPACA.write(record)
        assert ALPACA.write(record, WriteOptions(lossy=True)) == [
            {"instruction": "1?", "input": "", "output": "2"}
        ]
        record["conversations"][1] = {"role": "assistant", "content": None, "tool_calls": [{}]}
        with pytest.raises(NotRepresentableError, match="tool calls have no place in alpaca"):
            ALPACA.write(talk() | {"conversations": record["conversations"][1:]})

    @pytest.mark.parametrize(
        "record", [talk(("user", "1?")), talk(("user", ""), ("assistant", "x")),
                   talk(("user", "x"), ("assistant", ""))]
    )  # fmt: skip
    def test_without_a_question_and_an_answer_there_is_no_row(self, record: dict[str, Any]) -> None:
        with pytest.raises(NotRepresentableError):
            ALPACA.write(record, WriteOptions(lossy=True))

    def test_a_system_prompt_has_a_place(self) -> None:
        record = talk(("user", "1?"), ("assistant", "2"))
        (row,) = ALPACA.write(record, WriteOptions(system_prompt="Add 1."))
        assert row["system"] == "Add 1."

    def test_an_edited_question_keeps_its_input(self) -> None:
        record = ALPACA.read(ROWS["with input"])
        record["conversations"][0]["content"] = "Please translate.\nHallo\nWelt"
        (row,) = ALPACA.write(record, WHOLE)
        assert row == {**ROWS["with input"], "instruction": "Please translate."}
