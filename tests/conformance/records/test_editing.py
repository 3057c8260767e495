"""Records are deleted and changed, all or none, and everything else stays as it is."""

from __future__ import annotations

import warnings
from typing import Any

import pytest

from afterimage.storage import (
    Conversation,
    Document,
    InvalidQueryError,
    InvalidRecordError,
    UnknownFieldError,
)
from tests.support.records import Line


def talk(n: int, **metadata: Any) -> Conversation:
    words = [{"role": "user", "content": f"question {n % 3}"}]
    return Conversation(conversations=words, metadata={"n": n, **metadata})


def numbers(storage: Any) -> list[Any]:
    return [each.metadata["n"] for each in storage.load_conversations()]


@pytest.fixture
def filled(storage: Any) -> Any:
    storage.save_conversations([talk(0), Line(role="a", content="b"), talk(1, domain="x")])
    storage.save_conversations([talk(2, domain="y"), talk(3, deep={"a": [1, 2.5]}), talk(4)])
    storage.save_documents([Document(id=f"d{n}", text=f"text {n % 2}") for n in range(4)])
    return storage


class TestDelete:
    def test_removes_what_matches_and_counts_it(self, filled: Any) -> None:
        assert filled.delete_conversations([("metadata.n", ">=", 3)]) == 2
        assert numbers(filled) == [0, 1, 2]
        assert filled.delete_conversations({"metadata.domain": "x"}) == 1
        assert numbers(filled) == [0, 2]
        assert filled.delete_conversations({"metadata.domain": "x"}) == 0
        assert filled.count_documents() == 4
        assert filled.load_records(Line) == [Line(role="a", content="b")]
        assert filled.verify().ok

    def test_an_empty_list_means_all_of_the_kind(self, filled: Any) -> None:
        assert filled.delete_conversations([]) == 5
        assert filled.count_conversations() == 0
        assert filled.count_records() == 1
        assert filled.delete_documents([]) == 4
        assert filled.delete_records([]) == 1
        assert filled.count_documents() == filled.count_records() == 0
        filled.save_conversations([talk(9)])
        assert numbers(filled) == [9]

    def test_documents_and_records_of_other_models(self, filled: Any) -> None:
        assert filled.delete_documents([("id", "in", ["d1", "d3"])]) == 2
        assert [each.id for each in filled.load_documents()] == ["d0", "d2"]
        assert filled.delete_records({"role": "b"}) == 0
        assert filled.delete_records({"role": "a"}) == 1
        assert len(numbers(filled)) == 5

    def test_the_number_equals_the_count(self, filled: Any) -> None:
        for filters in (
            {"content_hash": "no"},
            [("message_count", ">", 3)],
            {"first_role": "user"},
        ):
            assert filled.count_conversations(filters) == filled.delete_conversations(filters)

    @pytest.mark.parametrize(
        "call",
        ["delete_conversations", "delete_documents", "delete_records"],
    )
    def test_none_is_refused(self, filled: Any, call: str) -> None:
        with pytest.raises(InvalidQueryError, match="filters is None"):
            getattr(filled, call)(None)
        assert len(numbers(filled)) == 5

    def test_a_wrong_filter_changes_nothing(self, filled: Any) -> None:
        with pytest.raises(UnknownFieldError):
            filled.delete_conversations({"nothing": 1})
        with pytest.raises(InvalidQueryError):
            filled.delete_conversations([("metadata.n", "~", 1)])
        assert len(numbers(filled)) == 5

    def test_nothing_is_deleted_from_an_empty_storage(self, storage: Any) -> None:
        assert storage.delete_conversations([]) == storage.delete_documents([]) == 0
        assert storage.update_conversations([], {"a": 1}) == storage.deduplicate() == 0


class TestUpdate:
    def test_merges_top_level_keys_and_none_removes_one(self, filled: Any) -> None:
        before = filled.load_conversations()
        change = {"domain": "new", "deep": {"b": 1}, "n": None, "absent": None}
        assert filled.update_conversations([("metadata.n", ">=", 3)], change) == 2
        after = filled.load_conversations()
        assert after[:3] == before[:3]
        assert after[3].metadata == {"deep": {"b": 1}, "domain": "new"}
        assert after[3].conversations == before[3].conversations
        assert filled.count_conversations({"metadata.domain": "new"}) == 2
        assert filled.count_conversations({"metadata.n": None}) == 2
        assert filled.verify().ok

    def test_a_function_gets_each_metadata_and_returns_the_new_one(self, filled: Any) -> None:
        seen: list[dict[str, Any]] = []

        def change(metadata: dict[str, Any]) -> dict[str, Any]:
            seen.append(dict(metadata))
            return {"n": metadata["n"] * 10, "none": None}

        assert filled.update_conversations({"metadata.domain": ["x"]}, change) == 0
        assert filled.update_conversations([], change) == 5
        assert [each["n"] for each in sorted(seen, key=lambda each: each["n"])] == [0, 1, 2, 3, 4]
        assert [each.metadata for each in filled.load_conversations()] == [
            {"n": n, "none": None} for n in (0, 10, 20, 30, 40)
        ]

    @pytest.mark.parametrize("late", [False, True])
    def test_a_function_that_fails_changes_nothing(self, filled: Any, late: bool) -> None:
        def change(metadata: dict[str, Any]) -> Any:
            if late and metadata["n"] < 4:
                return {"n": -1}
            raise KeyError("mine")

        with pytest.raises(KeyError, match="mine"):
            filled.update_conversations([], change)
        assert numbers(filled) == [0, 1, 2, 3, 4]

    def test_metadata_that_cannot_be_stored_is_refused(self, filled: Any) -> None:
        results: list[Any] = [None, [], "text", {"a": object()}, {1: 2}, {"a": "\ud800"}]
        for result in results:
            with pytest.raises(InvalidRecordError):
                filled.update_conversations([], lambda _, result=result: result)
            if isinstance(result, dict):
                with pytest.raises(InvalidRecordError):
                    filled.update_conversations([], result)
        assert numbers(filled) == [0, 1, 2, 3, 4]

    def test_a_change_of_another_type_is_refused(self, filled: Any) -> None:
        wrong: list[Any] = [None, 3, "text", [("a", 1)]]
        for metadata in wrong:
            with pytest.raises(InvalidQueryError, match="metadata must be"):
                filled.update_conversations([], metadata)
        with pytest.raises(InvalidQueryError, match="filters is None"):
            filled.update_conversations(None, {"a": 1})

    def test_values_are_exact(self, filled: Any) -> None:
        values = [2**70, -0.0, 1.5e300, "é\u2028\n", [], {}, True, {"a": [None, {"b": 2}]}]
        change = {f"v{index}": value for index, value in enumerate(values)}
        assert filled.update_conversations({"metadata.n": 1}, {**change, "late": 2**70}) == 1
        metadata = filled.load_conversations()[1].metadata
        assert repr([metadata[key] for key in change]) == repr(values)
        assert filled.count_conversations({"metadata.late": 2**70}) == 1
        assert filled.verify().ok

    def test_documents(self, filled: Any) -> None:
        assert filled.update_documents({"id": "d2"}, {"source": "wiki"}) == 1
        assert [each.metadata for each in filled.load_documents()] == [
            {},
            {},
            {"source": "wiki"},
            {},
        ]

    def test_all_other_fields_stay(self, storage: Any) -> None:
        class Own(Conversation):
            mood: dict[str, float]

        record = Own(conversations=[], metadata={"n": 1}, mood={"x": 0.1})
        storage.save_conversations([record])
        assert storage.update_conversations([], {"n": 2}) == 1
        expected = record.model_copy(update={"metadata": {"n": 2}})
        assert storage.load_records(Own) == [expected]

    def test_no_warning_is_issued(self, filled: Any) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            filled.update_conversations([], {"late": 1})
            filled.deduplicate()
            filled.delete_conversations([])


class TestDeduplicate:
    @pytest.mark.parametrize(("keep", "kept"), [("first", [0, 1, 2]), ("last", [2, 3, 4])])
    def test_keeps_the_first_or_the_last_of_equals(
        self, filled: Any, keep: Any, kept: list[int]
    ) -> None:
        assert filled.deduplicate(keep=keep) == 2
        assert numbers(filled) == kept
        assert filled.deduplicate(keep=keep) == 0
        assert filled.count_records() == 1

    def test_by_another_field_where_null_is_no_value(self, filled: Any) -> None:
        filled.update_conversations([("metadata.n", "in", [0, 1, 2])], {"domain": "z"})
        assert filled.deduplicate("metadata.domain") == 2
        assert numbers(filled) == [0, 3, 4]

    def test_values_of_different_types_differ(self, storage: Any) -> None:
        values = [1, "1", 1.0, True, "true", [1], [1], "1", None]
        storage.save_conversations(
            [Conversation(conversations=[], metadata={"v": value}) for value in values]
        )
        assert storage.deduplicate("metadata.v") == 3
        left = [each.metadata["v"] for each in storage.load_conversations()]
        assert left == [1, "1", True, "true", [1], None]

    def test_documents_and_a_filter(self, filled: Any) -> None:
        assert filled.deduplicate(kind="documents", filters=[("id", "!=", "d0")]) == 1
        assert [each.id for each in filled.load_documents()] == ["d0", "d1", "d2"]
        assert filled.deduplicate("text", kind="documents") == 1

    def test_wrong_arguments_are_refused(self, filled: Any) -> None:
        with pytest.raises(InvalidQueryError, match="keep must be"):
            filled.deduplicate(keep="both")
        with pytest.raises(UnknownFieldError):
            filled.deduplicate("nothing")
        with pytest.raises(InvalidQueryError):
            filled.deduplicate(kind="pages")


class TestReadersMeanwhile:
    def test_an_iterator_goes_on_with_what_it_began(self, filled: Any) -> None:
        with filled.iter_conversations(batch_size=1) as records:
            first = next(records)
            filled.delete_conversations([("metadata.n", ">", 0)])
            rest = [each.metadata["n"] for each in records]
        assert first.metadata["n"] == 0
        assert rest in ([1, 2, 3, 4], [])
        assert numbers(filled) == [0]
