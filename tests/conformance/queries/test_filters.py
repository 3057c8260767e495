"""Both storages: filters compare values as in JSON; a filter and its negation split the data."""

from __future__ import annotations

import datetime as dt
import uuid
from enum import Enum
from operator import attrgetter
from pathlib import Path
from typing import Any

import pytest

from afterimage.storage import Conversation, Document, PersonaEntry
from tests.support.factories import EVALUATORS
from tests.support.plain_python import select
from tests.support.records import CRITERIA, conversation, conversations, evaluation, firsts

NAN, INF = float("nan"), float("inf")
VALUES: list[Any] = [
    None, True, False, 0, 1, 3, 3.0, -0.0, 2**53, 2**53 + 1, float(2**53), 2**63, float(2**63),
    10**29 + 7, 1e29, 10**45, 10**45 + 1, 0.1, -1.5, NAN, INF, -INF, "3", "3.0", "", "a", "B",
    "é", "\uffff", "\U0010ffff", "a\x00b", "true", "null", "[]", [], [3], [3.0], [True], ["3"],
    [None], [[3]], {}, {"a": 3}, {"a": 3.0}, {"a": True}, {"a": None}, {"a": 3, "b": []},
    {"b": [], "a": 3},
]  # fmt: skip
OPERATORS = ["==", "=", "!=", "<", "<=", ">", ">="]


def matching(storage: Any, filters: Any) -> list[str]:
    return firsts(storage.load_conversations(filters=filters))


class TestValuesCompareAsInJson:
    @pytest.mark.parametrize("factory", EVALUATORS, ids=attrgetter("name"))
    @pytest.mark.parametrize("op", OPERATORS)
    def test_every_value_against_every_other(self, storage: Any, op: str) -> None:
        records = conversations({}, *({"n": value} for value in VALUES))
        storage.save_conversations(records)
        wrong = []
        for value in VALUES:
            filters = [("metadata.n", op, value)]
            if matching(storage, filters) != firsts(select(records, filters)):
                wrong.append(value)
        assert wrong == []

    @pytest.mark.parametrize("factory", EVALUATORS, ids=attrgetter("name"))
    @pytest.mark.parametrize("op", ["in", "not in"])
    def test_lists_of_values(self, storage: Any, op: str) -> None:
        lists = [
            [], [None], [3], ["3", True], [3.0, "a", None], [[3], {"a": 3}], [NAN, 2**53 + 1]
        ]  # fmt: skip
        records = conversations({}, *({"n": value} for value in VALUES))
        storage.save_conversations(records)
        wrong = []
        for values in lists:
            filters = [("metadata.n", op, values)]
            if matching(storage, filters) != firsts(select(records, filters)):
                wrong.append(values)
        assert wrong == []

    def test_three_is_three_but_no_text_and_no_boolean(self, storage: Any) -> None:
        storage.save_conversations(
            conversations({"n": 3}, {"n": 3.0}, {"n": "3"}, {"n": True}, {"n": [3]})
        )
        assert matching(storage, {"metadata.n": 3}) == ["0", "1"]
        assert matching(storage, {"metadata.n": "3"}) == ["2"]
        assert matching(storage, {"metadata.n": True}) == ["3"]

    def test_integers_beyond_the_reach_of_floats_are_exact(self, storage: Any) -> None:
        storage.save_conversations(conversations({"n": 2**53}, {"n": 2**53 + 1}, {"n": 2**53 + 2}))
        assert matching(storage, {"metadata.n": 2**53 + 1}) == ["1"]
        assert matching(storage, [("metadata.n", ">", float(2**53))]) == ["1", "2"]

    def test_lists_are_equal_whatever_spells_their_numbers(self, storage: Any) -> None:
        storage.save_conversations(
            conversations({"n": [1, {"k": 2.0}]}, {"n": [1.0, {"k": 2}]}, {"n": [1, {"k": True}]})
        )
        assert matching(storage, {"metadata.n": [1, {"k": 2}]}) == ["0", "1"]

    def test_the_order_of_keys_does_not_matter(self, storage: Any) -> None:
        storage.save_conversations(conversations({"n": {"a": 1, "b": 2}}, {"n": {"b": 2, "a": 1}}))
        assert matching(storage, {"metadata.n": {"b": 2, "a": 1}}) == ["0", "1"]

    def test_strings_are_ordered_by_code_point(self, storage: Any) -> None:
        # As UTF-16 would not have it: a character beyond its first 65,536 comes last.
        storage.save_conversations(
            conversations({"n": "\U00010000"}, {"n": "\uffff"}, {"n": "z"}, {"n": "é"}, {"n": "Z"})
        )
        assert matching(storage, [("metadata.n", ">", "z")]) == ["0", "1", "3"]

    def test_all_of_metadata_is_a_value_too(self, storage: Any) -> None:
        storage.save_conversations(conversations({"a": 1}, {}, {"a": 1, "b": None}))
        assert matching(storage, {"metadata": {"a": 1.0}}) == ["0"]
        assert matching(storage, {"metadata": {}}) == ["1"]
        assert matching(storage, [("metadata", "!=", {})]) == ["0", "2"]


class TestNullAndAbsent:
    def test_none_matches_null_and_absent(self, storage: Any) -> None:
        storage.save_conversations(
            conversations({"n": None}, {}, {"n": 0}, {"n": ""}, {"n": "null"}, {"n": {}})
        )
        assert matching(storage, {"metadata.n": None}) == ["0", "1"]
        assert matching(storage, [("metadata.n", "!=", None)]) == ["2", "3", "4", "5"]
        assert matching(storage, [("metadata.n", "in", [None, 0])]) == ["0", "1", "2"]

    def test_a_path_through_what_has_no_keys_finds_nothing(self, storage: Any) -> None:
        storage.save_conversations(
            conversations({"n": [5]}, {"n": "text"}, {"n": 5}, {"n": {"0": 5}}, {"n": [{"0": 5}]})
        )
        assert matching(storage, {"metadata.n.0": 5}) == ["3"]
        assert matching(storage, {"metadata.n.0": None}) == ["0", "1", "2", "4"]

    def test_a_key_that_no_record_has_is_no_error(self, storage: Any) -> None:
        storage.save_conversations(conversations({"n": 1}))
        assert matching(storage, {"metadata.nowhere": 1}) == []
        assert matching(storage, {"metadata.nowhere.at.all": None}) == ["0"]
        assert storage.count_conversations({"metadata.nowhere": None}) == 1

    def test_fields_that_are_not_set(self, storage: Any) -> None:
        storage.save_conversations(
            [
                conversation("0", evaluation=evaluation(), final_score=None),
                conversation("1", persona="", final_score=0.5),
                conversation("2"),
            ]
        )
        assert matching(storage, {"persona": None}) == ["0", "2"]
        assert matching(storage, {"persona": ""}) == ["1"]
        assert matching(storage, {"final_score": None}) == ["0"]
        assert matching(storage, {"evaluation": None}) == ["1", "2"]
        assert matching(storage, {"evaluation.coherence": None}) == ["1", "2"]
        assert matching(storage, {"evaluation.coherence.score": None}) == ["1", "2"]
        assert matching(storage, [("evaluation.coherence.score", "!=", 0.5)]) == ["1", "2"]

    def test_a_field_the_saved_class_lacks_has_its_default(self, storage: Any) -> None:
        storage.save_conversations([Conversation(conversations=[{"role": "user", "content": "0"}])])
        assert matching(storage, {"final_score": 0}) == ["0"]
        assert matching(storage, [("final_score", "<", 1)]) == ["0"]
        assert matching(storage, {"metadata": {}, "persona": None, "evaluation": None}) == ["0"]


class TestEveryFieldCanBeFiltered:
    def test_each_field_by_its_own_value(self, storage: Any) -> None:
        storage.save_conversations(
            [
                conversation("0"),
                conversation(
                    "1",
                    instruction_context="in",
                    response_context="out",
                    persona="who",
                    evaluation=evaluation(0.5, "bad"),
                    final_score=0.25,
                ),
            ]
        )
        filters: dict[str, Any] = {
            "instruction_context": "in",
            "response_context": "out",
            "persona": "who",
            "final_score": 0.25,
            "evaluation.overall_grade": "bad",
        }
        for place, name in enumerate(CRITERIA):
            filters[f"evaluation.{name}.score"] = 0.5 + place
            filters[f"evaluation.{name}.feedback"] = f"on {name}"
        missed = [field for field in filters if matching(storage, {field: filters[field]}) != ["1"]]
        assert missed == []
        assert matching(storage, filters) == ["1"]

    def test_structs_and_lists_as_a_whole(self, storage: Any) -> None:
        record = conversation("0", evaluation=evaluation())
        storage.save_conversations([record, conversation("1", evaluation=evaluation(0.75))])
        whole = record.model_dump(mode="json")
        assert matching(storage, {"evaluation": whole["evaluation"]}) == ["0"]
        criterion = {"feedback": "on coherence", "score": 0.75}
        assert matching(storage, {"evaluation.coherence": criterion}) == ["1"]
        assert matching(storage, {"conversations": whole["conversations"]}) == ["0"]
        assert matching(storage, [("conversations", "!=", whole["conversations"])]) == ["1"]
        assert matching(storage, {"conversations": []}) == []

    def test_documents(self, storage: Any) -> None:
        personas = [PersonaEntry(descriptions=["a pilot"], metadata={"k": 1})]
        storage.save_documents(
            [
                Document(id="x", text="one", metadata={"n": 1}),
                Document(id="y", text="two", personas=personas),
                Document(id="z", metadata={"n": 1.0}),
            ]
        )

        def ids(filters: Any) -> list[str]:
            assert storage.count_documents(filters) == len(storage.load_documents(filters=filters))
            return [document.id for document in storage.load_documents(filters=filters)]

        assert ids({"id": "y"}) == ["y"]
        assert ids({"text": None}) == ["z"]
        assert ids({"metadata.n": 1}) == ["x", "z"]
        assert ids([("text", ">", "one")]) == ["y"]
        assert ids({"personas": []}) == ["x", "z"]
        assert ids({"personas": [{"metadata": {"k": 1}, "descriptions": ["a pilot"]}]}) == ["y"]
        assert ids([("id", "in", {"x", "z"}), ("metadata.n", "!=", None)]) == ["x", "z"]

    def test_scores_that_are_no_finite_numbers(self, storage: Any) -> None:
        storage.save_conversations(
            [conversation(str(n), final_score=s) for n, s in enumerate([NAN, INF, -INF, 0.5, None])]
        )
        assert matching(storage, {"final_score": NAN}) == ["0"]
        assert matching(storage, [("final_score", ">", 1e308)]) == ["0", "1"]
        assert matching(storage, [("final_score", "<=", -INF)]) == ["2"]
        assert matching(storage, [("final_score", "not in", [NAN, None])]) == ["1", "2", "3"]


class TestShapesOfFilters:
    @pytest.fixture
    def filled(self, storage: Any) -> Any:
        storage.save_conversations(
            conversations(*({"a": a, "b": b} for a in range(3) for b in range(3)))
        )
        return storage

    def test_no_filter(self, filled: Any) -> None:
        nothings: tuple[Any, ...] = (None, {}, [], ())
        for nothing in nothings:
            assert len(matching(filled, nothing)) == 9
            assert filled.count_conversations(nothing) == 9

    def test_a_dict_is_anded(self, filled: Any) -> None:
        assert matching(filled, {"metadata.a": 1, "metadata.b": 2}) == ["5"]

    def test_a_list_is_anded(self, filled: Any) -> None:
        filters = [("metadata.a", ">", 0), ("metadata.a", "<", 2), ("metadata.b", "!=", 1)]
        assert matching(filled, filters) == ["3", "5"]

    def test_lists_of_lists_are_ored(self, filled: Any) -> None:
        first = [("metadata.a", "=", 0), ("metadata.b", "=", 0)]
        second = [("metadata.a", ">=", 2), ("metadata.b", "in", (1, 2))]
        assert matching(filled, [first, second]) == ["0", "7", "8"]
        assert matching(filled, [first, first]) == ["0"]

    def test_conditions_may_be_lists_and_groups_tuples(self, filled: Any) -> None:
        # As they are once they have been through JSON or YAML.
        assert matching(filled, [["metadata.a", "==", 0], ["metadata.b", "==", 1]]) == ["1"]
        assert matching(filled, ([("metadata.a", "==", 9)], [["metadata.b", "<", 0]])) == []

    def test_one_field_may_be_named_more_than_once(self, filled: Any) -> None:
        assert matching(filled, [("metadata.a", "==", 0), ("metadata.a", "==", 1)]) == []

    def test_in_takes_any_collection(self, filled: Any) -> None:
        for of in (list, tuple, set, frozenset):
            filters = [("metadata.a", "in", of([0, 7])), ("metadata.b", "==", 0)]
            assert matching(filled, filters) == ["0"], of

    def test_long_lists_of_values(self, filled: Any) -> None:
        assert len(matching(filled, [("metadata.a", "in", list(range(1, 3000)))])) == 6
        assert len(matching(filled, [("metadata.a", "not in", list(range(1, 3000)))])) == 3

    def test_counts_agree_with_loads(self, filled: Any) -> None:
        filters = [[("metadata.a", "==", 0)], [("metadata.b", "!=", 2)]]
        assert filled.count_conversations(filters) == len(matching(filled, filters)) == 7


@pytest.mark.parametrize("factory", EVALUATORS, ids=attrgetter("name"))
class TestNegation:
    @pytest.mark.parametrize(
        ("op", "negated"), [("==", "!="), ("in", "not in")], ids=["equality", "membership"]
    )
    def test_a_filter_and_its_negation_split_the_data_in_two(
        self, storage: Any, op: str, negated: str
    ) -> None:
        storage.save_conversations(conversations({}, *({"n": value} for value in VALUES)))
        for value in VALUES[::3]:
            given = [value, None] if op == "in" else value
            found = storage.count_conversations([("metadata.n", op, given)])
            rest = storage.count_conversations([("metadata.n", negated, given)])
            both = storage.count_conversations(
                [("metadata.n", op, given), ("metadata.n", negated, given)]
            )
            assert (found + rest, both) == (len(VALUES) + 1, 0), value


class Colour(Enum):
    RED = "red"


class TestValuesJsonHasNoWordFor:
    def test_they_find_what_was_saved_with_them(self, storage: Any) -> None:
        values = [
            dt.datetime(2024, 2, 29, 12, 30, tzinfo=dt.UTC),
            dt.date(2024, 2, 29),
            uuid.UUID(int=7),
            Path("a/b"),
            Colour.RED,
            b"abc",
            (1, "x"),
        ]
        storage.save_conversations(conversations(*({"n": value} for value in values), {}))
        for number, value in enumerate(values):
            own, everything = str(number), [str(n) for n in range(len(values) + 1)]
            assert matching(storage, {"metadata.n": value}) == [own], value
            assert matching(storage, [("metadata.n", "in", [value])]) == [own], value
            everything.remove(own)
            assert matching(storage, [("metadata.n", "!=", value)]) == everything, value
