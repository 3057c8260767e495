"""What users write as a query, and the checked value that it becomes."""

from __future__ import annotations

import datetime as dt
from typing import Any

import numpy as np
import pytest

from afterimage.storage import InvalidQueryError, UnknownFieldError
from afterimage.storage.query.query import Query
from afterimage.storage.records.fields import CONVERSATIONS

FIELDS = {**CONVERSATIONS.record.fields, **CONVERSATIONS.system}

Group = tuple[tuple[str, str, Any], ...]


def groups(filters: Any) -> tuple[Group, ...]:
    """The conditions of a query, as plain tuples."""
    query = Query.of(FIELDS, filters=filters)
    return tuple(tuple((c.field.path, c.op, c.value) for c in group) for group in query.where)


class TestFilters:
    @pytest.mark.parametrize(
        ("written", "expected"),
        [
            (None, ()),
            ({}, ()),
            ([], ()),
            ({"persona": "a"}, ((("persona", "==", "a"),),)),
            (
                {"persona": "a", "metadata.n": 1},
                ((("persona", "==", "a"), ("metadata.n", "==", 1)),),
            ),
            ([("persona", "=", "a")], ((("persona", "==", "a"),),)),
            ([["persona", "!=", "a"]], ((("persona", "!=", "a"),),)),
            (
                [("metadata.n", ">", 1), ("metadata.n", "<=", 3)],
                ((("metadata.n", ">", 1), ("metadata.n", "<=", 3)),),
            ),
            (
                [[("metadata.n", "==", 1)], [("persona", "==", "a"), ("persona", "!=", "b")]],
                ((("metadata.n", "==", 1),), (("persona", "==", "a"), ("persona", "!=", "b"))),
            ),
            ([("metadata.n", "in", [1, 2])], ((("metadata.n", "in", (1, 2)),),)),
            ([("metadata.n", "not in", (1,))], ((("metadata.n", "not in", (1,)),),)),
            ([("metadata.n", "in", frozenset())], ((("metadata.n", "in", ()),),)),
        ],
    )
    def test_conditions_are_anded_within_a_group_and_groups_are_ored(
        self, written: Any, expected: Any
    ) -> None:
        assert groups(written) == expected

    @pytest.mark.parametrize(
        ("value", "expected"),
        [
            (np.int64(3), 3),
            (np.float32(0.5), 0.5),
            ((1, 2), [1, 2]),
            ({"a": (1,)}, {"a": [1]}),
            (dt.date(2026, 1, 2), "2026-01-02"),
        ],
    )
    def test_a_value_is_compared_as_json_has_it(self, value: Any, expected: Any) -> None:
        assert groups({"metadata.n": value}) == ((("metadata.n", "==", expected),),)

    @pytest.mark.parametrize(
        ("value", "expected"),
        [
            ("2026-01-02", "2026-01-02T00:00:00"),
            ("2026-01-02T03:04:05+02:00", "2026-01-02T01:04:05"),
            (dt.datetime(2026, 1, 2, 3, tzinfo=dt.UTC), "2026-01-02T03:00:00"),
        ],
    )
    def test_a_time_is_compared_in_utc(self, value: Any, expected: str) -> None:
        [[(_, _, time)]] = groups({"timestamp": value})
        assert time == dt.datetime.fromisoformat(expected)

    def test_text_that_is_not_a_time_stays_text_and_matches_no_time(self) -> None:
        assert groups({"timestamp": "soon"}) == ((("timestamp", "==", "soon"),),)

    @pytest.mark.parametrize(
        ("written", "reason"),
        [
            ("persona == a", "must be a list"),
            (3, "must be a list"),
            ([("persona", "==")], "field, operator, value"),
            ([("persona", "==", "a", "b")], "field, operator, value"),
            ([("persona", "~", "a")], "unknown operator"),
            ([("persona", "IN", ["a"])], "unknown operator"),
            ([("persona", None, "a")], "unknown operator"),
            ([("persona", "in", "abc")], "requires a list of values"),
            ([("persona", "in", {"a": 1})], "requires a list of values"),
            ([[]], "empty group"),
            ([[("persona", "==", "a")], []], "empty group"),
            ({"metadata.n": object()}, "cannot be compared"),
            ({"metadata.n": 10**5000}, "cannot be compared"),
        ],
    )
    def test_what_has_no_meaning_is_refused(self, written: Any, reason: str) -> None:
        with pytest.raises(InvalidQueryError, match=reason):
            Query.of(FIELDS, filters=written)


class TestOrder:
    @pytest.mark.parametrize(
        ("direction", "descending"),
        [(1, False), (-1, True), ("asc", False), ("desc", True), ("ASC", False), ("Desc", True)],
    )
    def test_directions(self, direction: Any, descending: bool) -> None:
        [key] = Query.of(FIELDS, order_by=[("final_score", direction)]).order
        assert (key.field.path, key.descending) == ("final_score", descending)

    @pytest.mark.parametrize(
        ("order", "reason"),
        [
            (3, "must be a list"),
            ([3], "pairs"),
            ([("final_score",)], "pairs"),
            ([("final_score", 0)], "unknown direction"),
            ([("final_score", True)], "unknown direction"),
            ([("final_score", "down")], "unknown direction"),
            ([("final_score", None)], "unknown direction"),
        ],
    )
    def test_what_has_no_meaning_is_refused(self, order: Any, reason: str) -> None:
        with pytest.raises(InvalidQueryError, match=reason):
            Query.of(FIELDS, order_by=order)


class TestSlice:
    @pytest.mark.parametrize("value", [0, 1, 2**63 - 1, np.int32(7)])
    def test_whole_numbers_are_taken(self, value: Any) -> None:
        query = Query.of(FIELDS, limit=value, offset=value)
        assert (query.limit, query.offset) == (int(value), int(value))

    def test_what_no_store_can_hold_is_the_same_as_no_limit(self) -> None:
        assert Query.of(FIELDS, limit=2**70).limit == 2**63 - 1

    @pytest.mark.parametrize("value", [-1, 1.0, "1", True, [1]])
    @pytest.mark.parametrize("name", ["limit", "offset"])
    def test_anything_else_is_refused(self, name: str, value: Any) -> None:
        with pytest.raises(InvalidQueryError, match=name):
            Query.of(FIELDS, **{name: value})

    def test_a_query_without_its_slice_keeps_the_rest(self) -> None:
        query = Query.of(FIELDS, limit=1, offset=2, filters={"persona": "a"}, order_by=[("id", 1)])
        whole = query.without_slice()
        assert (whole.limit, whole.offset) == (None, 0)
        assert (whole.where, whole.order) == (query.where, query.order)


class TestProjection:
    def test_columns_keep_the_order_in_which_they_are_named(self) -> None:
        query = Query.of(FIELDS, columns=["metadata.b", "persona", "metadata.a"])
        assert query.columns is not None
        assert [field.path for field in query.columns] == ["metadata.b", "persona", "metadata.a"]

    @pytest.mark.parametrize(
        ("columns", "reason"),
        [
            ([], "empty"),
            ("persona", "must be a list"),
            (["persona", "persona"], "twice"),
            ([3], "string"),
        ],
    )
    def test_what_has_no_meaning_is_refused(self, columns: Any, reason: str) -> None:
        with pytest.raises(InvalidQueryError, match=reason):
            Query.of(FIELDS, columns=columns)

    def test_a_field_may_be_projected_and_not_filtered(self) -> None:
        wider = {**FIELDS, **CONVERSATIONS.stored}
        assert Query.of(FIELDS, columns=["extra"], projectable=wider).columns
        with pytest.raises(UnknownFieldError):
            Query.of(FIELDS, filters={"extra": "a"}, columns=["extra"], projectable=wider)
