"""Both storages: one total order, ties by insertion, None last."""

from __future__ import annotations

import itertools
from typing import Any

import pytest

from afterimage.storage import Document
from tests.support.plain_python import select
from tests.support.records import CRITERIA, conversation, conversations, evaluation, firsts

NAN, INF = float("nan"), float("inf")


def ordered(storage: Any, *keys: Any) -> list[str]:
    return firsts(storage.load_conversations(order_by=list(keys)))


class TestOrder:
    def test_without_keys_it_is_insertion_order(self, storage: Any) -> None:
        storage.save_conversations(conversations({"n": 2}, {"n": 1}))
        storage.save_conversations([conversation("2", {"n": 0})])
        assert ordered(storage) == ["0", "1", "2"]
        assert firsts(storage.load_conversations(order_by=None)) == ["0", "1", "2"]

    @pytest.mark.parametrize(
        ("direction", "expected"),
        [(1, "120"), ("asc", "120"), (-1, "021"), ("desc", "021")],
    )
    def test_directions(self, storage: Any, direction: Any, expected: str) -> None:
        storage.save_conversations(conversations({"n": 3}, {"n": 1}, {"n": 2}))
        assert ordered(storage, ("metadata.n", direction)) == list(expected)

    def test_keys_may_be_lists(self, storage: Any) -> None:
        storage.save_conversations(conversations({"n": 3}, {"n": 1}, {"n": 2}))
        assert ordered(storage, ["metadata.n", -1]) == ["0", "2", "1"]

    def test_ties_fall_back_to_insertion_in_either_direction(self, storage: Any) -> None:
        storage.save_conversations(conversations({"n": 1}, {"n": 0}, {"n": 1}, {"n": 0}))
        assert ordered(storage, ("metadata.n", 1)) == ["1", "3", "0", "2"]
        assert ordered(storage, ("metadata.n", -1)) == ["0", "2", "1", "3"]

    def test_numbers_that_are_equal_are_ties(self, storage: Any) -> None:
        storage.save_conversations(
            conversations({"n": 3.0}, {"n": 0.0}, {"n": 3}, {"n": -0.0}, {"n": 0})
        )
        assert ordered(storage, ("metadata.n", 1)) == ["1", "3", "4", "0", "2"]
        assert ordered(storage, ("metadata.n", -1)) == ["0", "2", "1", "3", "4"]

    def test_none_and_absent_are_last_in_either_direction(self, storage: Any) -> None:
        storage.save_conversations(conversations({"n": None}, {"n": 1}, {}, {"n": 2}))
        assert ordered(storage, ("metadata.n", 1)) == ["1", "3", "0", "2"]
        assert ordered(storage, ("metadata.n", -1)) == ["3", "1", "0", "2"]

    def test_several_keys_of_different_directions(self, storage: Any) -> None:
        records = conversations(
            *({"a": a, "b": b} for a, b in itertools.product([1, None, 0], ["x", None, "y"]))
        )
        storage.save_conversations(records)
        for first, second in itertools.product([1, -1], repeat=2):
            keys = [("metadata.a", first), ("metadata.b", second)]
            assert ordered(storage, *keys) == firsts(select(records, order_by=keys)), keys

    def test_integers_are_exact(self, storage: Any) -> None:
        numbers = [
            2**53 + 1,
            float(2**53),
            2**53 + 2,
            2**63,
            2**64,
            10**29 + 7,
            1e29,
            10**29,
            1e300,
        ]
        records = conversations(*({"n": number} for number in numbers))
        storage.save_conversations(records)
        assert ordered(storage, ("metadata.n", 1)) == ["1", "0", "2", "3", "4", "6", "7", "5", "8"]

    def test_numbers_of_any_size(self, storage: Any) -> None:
        numbers = [10**45 + 1, 10**45, 1e45, -(10**60), 0.1, 10**400, INF, -INF, NAN, -1e308]
        records = conversations(*({"n": number} for number in numbers))
        storage.save_conversations(records)
        for direction in (1, -1):
            keys = [("metadata.n", direction)]
            assert ordered(storage, *keys) == firsts(select(records, order_by=keys))

    def test_strings_are_ordered_by_code_point(self, storage: Any) -> None:
        strings = ["\U00010000", "\uffff", "é", "z", "Z", "a", "", "a\x00", "a\x00b", "a ", "aa"]
        storage.save_conversations(conversations(*({"n": text} for text in strings)))
        expected = sorted(range(len(strings)), key=lambda place: strings[place])
        assert ordered(storage, ("metadata.n", 1)) == [str(place) for place in expected]
        assert ordered(storage, ("metadata.n", -1)) == [str(place) for place in expected[::-1]]

    def test_values_of_several_types_follow_one_order(self, storage: Any) -> None:
        ascending: list[Any] = [
            False, True, -INF, -(2**63) - 1, -0.5, 0, 0.5, 2**53 + 1, 10**29, INF, NAN,
            "", "10", "9", "A", "a",
            ["1"], [1], [2], [],  # lists by their JSON text
            {"a": 1}, {"b": 0}, {},  # objects also by their JSON text
        ]  # fmt: skip
        shuffled = [ascending[(place * 7) % len(ascending)] for place in range(len(ascending))]
        storage.save_conversations(conversations(*({"n": value} for value in shuffled), {}))
        places = [str((place * 10) % len(ascending)) for place in range(len(ascending))]
        assert len(ascending) == 23  # 7 * 10 = 70 = 3 * 23 + 1: one shuffle undoes the other
        assert ordered(storage, ("metadata.n", 1)) == [*places, "23"]
        assert ordered(storage, ("metadata.n", -1)) == [*places[::-1], "23"]

    def test_every_field(self, storage: Any) -> None:
        storage.save_conversations(
            [
                conversation(
                    str(place),
                    instruction_context=text,
                    response_context=text,
                    persona=text,
                    evaluation=None if score is None else evaluation(score, grade),
                    final_score=score,
                )
                for place, (text, score, grade) in enumerate(
                    [
                        ("b", 0.5, "good"),
                        (None, None, ""),
                        ("a", NAN, "bad"),
                        ("ä", -INF, "perfect"),
                    ]
                )
            ]
        )
        orders = {
            **dict.fromkeys(["instruction_context", "response_context", "persona"], "2031"),
            "final_score": "3021",
            "evaluation.overall_grade": "2031",
            **{f"evaluation.{name}.score": "3021" for name in CRITERIA},
            **{f"evaluation.{name}.feedback": "0231" for name in CRITERIA},
        }
        found = {field: "".join(ordered(storage, (field, 1))) for field in orders}
        assert found == orders

    def test_documents(self, storage: Any) -> None:
        storage.save_documents(
            [
                Document(id="b", text="x", metadata={"n": 1}),
                Document(id="a", text=None, metadata={"n": 2}),
                Document(id="c", text="w", metadata={"n": 1}),
            ]
        )

        def ids(*keys: Any) -> str:
            return "".join(each.id for each in storage.load_documents(order_by=list(keys)))

        assert ids() == "bac"
        assert ids(("id", 1)) == "abc"
        assert ids(("text", -1)) == "bca"
        assert ids(("metadata.n", -1)) == "abc"
        assert ids(("metadata.n", "asc"), ("id", "desc")) == "cba"

    def test_a_quoted_key(self, storage: Any) -> None:
        storage.save_conversations(conversations({"k.l": 2}, {"k": {"l": 0}}, {"k.l": 1}))
        assert ordered(storage, ('metadata."k.l"', 1)) == ["2", "0", "1"]

    def test_iterators_have_the_same_order(self, storage: Any) -> None:
        storage.save_conversations(conversations(*({"n": n % 3} for n in range(10))))
        keys = [("metadata.n", -1)]
        records = storage.iter_conversations(order_by=keys, batch_size=2)
        assert firsts(list(records)) == ordered(storage, *keys)


def test_short_keys_are_ascending_and_with_a_minus_descending(filled: Any) -> None:
    for short, pairs in (
        ("metadata.n", [("metadata.n", 1)]),
        ("-metadata.n", [("metadata.n", -1)]),
        (["-metadata.domain", "metadata.n"], [("metadata.domain", "desc"), ("metadata.n", 1)]),
        (["metadata.domain", ("metadata.n", -1)], [("metadata.domain", 1), ("metadata.n", -1)]),
    ):
        expected = firsts(filled.load_conversations(order_by=pairs))
        assert firsts(filled.load_conversations(order_by=short)) == expected
        batches = filled.scan_documents(["id"], order_by="-metadata.n", limit=2)
        assert batches.read_all().column(0).to_pylist() == ["9", "8"]
